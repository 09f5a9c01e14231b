// Runs of the page on a bitstep, for the host to compute again: in Node and in the page itself.
"use strict";

function report(bitstep) {
  const hex = (x) => (Number.isNaN(x) ? "nan" : new BigUint64Array(Float64Array.of(x).buffer)[0].toString(16).padStart(16, "0"));
  const all = [];
  const add = (settings, run) => {
    const entry = { settings, run };
    try {
      const result = train(bitstep, settings, run);
      entry.bits = [...result.final, ...result.losses, ...result.rates].map(hex);
      const { json, missing } = trainingArguments(bitstep, settings, run, result.args);
      if (!missing.length) entry.trainer = json;
    } catch (error) {
      entry.error = error.message;
    }
    all.push(entry);
  };
  const settings = (surface, more) => ({
    surface, steps: 60, start: SURFACES[surface].start, noise: SURFACES[surface].noise, seed: 7, dtype: "f32", clip: 0, ...more,
  });
  const warm = { num_warmup_steps: 6, num_training_steps: 60 };
  for (const optimizer of bitstep.optimizers()) {
    // Adafactor's own step size excludes a rate.
    const relative = bitstep.describeOptimizer(optimizer).arguments.some(({ name }) => name === "relative_step");
    const lr = { lr: 0.05, ...(relative && { relative_step: false }) };
    for (const surface of Object.keys(SURFACES)) {
      add(settings(surface), { optimizer, args: lr, schedule: "cosine", scheduleArgs: warm });
      add(settings(surface, { dtype: "bf16", clip: 1 }), { optimizer, args: lr, schedule: "linear", scheduleArgs: warm });
    }
    // Every argument that Trainer can be told, away from its default.
    for (const { name, kind, default: of } of bitstep.describeOptimizer(optimizer).arguments) {
      if (name === "lr" || ["ignored", "none", "value"].includes(kind)) continue;
      const other = kind === "boolean" ? !of : typeof of === "number" ? of * 0.5 + (of === 0 ? 0.125 : 0) : Array.isArray(of) ? of.map((x) => (x ?? 1) * 0.75) : undefined;
      if (other === undefined || (kind === "integer" && !Number.isInteger(other))) continue;
      add(settings("valley", { steps: 20 }), { optimizer, args: { lr: 0.01, [name]: other }, schedule: "constant", scheduleArgs: {} });
    }
  }
  const good = {
    ...warm, num_decay_steps: 12, gamma: 0.9, T_max: 50, T_0: 7, step_size: 11, milestones: [20, 40], base_lr: 0.001, max_lr: 0.1, total_steps: 60,
    initial_learning_rate: 0.05, warmup_steps: 5, init_lr: 0.05, num_train_steps: 60, min_lr_rate: 0.1,
    decay_schedule_fn: { name: "PolynomialDecay", initial_learning_rate: 0.05, decay_steps: 50, end_learning_rate: 0 },
    schedulers: [{ name: "LinearLR", start_factor: 0.01, total_iters: 6 }, { name: "CosineAnnealingLR", T_max: 54 }],
  };
  for (const schedule of bitstep.schedules()) {
    const scheduleArgs = {};
    for (const { name, required } of bitstep.describeSchedule(schedule))
      if (required || ["total_steps", "min_lr_rate", "num_training_steps"].includes(name)) scheduleArgs[name] = good[name];
    if (schedule === "torch_sequential") scheduleArgs.milestones = [6];
    for (const optimizer of ["adamw_torch", "sgd"])
      add(settings("valley"), { optimizer, args: { lr: 0.05, ...(optimizer === "sgd" && { momentum: 0.9 }) }, schedule, scheduleArgs });
  }
  return all;
}

/** What a bitstep knows: names and arguments, as text. */
function facts(bitstep) {
  const of = (names, describe) => names.map((name) => [name, describe(name)]);
  return JSON.stringify([of(bitstep.optimizers(), bitstep.describeOptimizer), of(bitstep.schedules(), bitstep.describeSchedule)]);
}
