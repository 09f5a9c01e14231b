// What of a run Transformers' Trainer can be told, for the JSON of `TrainingArguments`. adapters/trainer reads the JSON
// back in the page's test, and has to come to the same optimizer and the same rates.
"use strict";

// For each name of Trainer's, what its `optim_args` set, what they are without (`defaults`, if not the reference's own), and
// what Trainer sets itself whatever they say. `betas` and `eps` are arguments of their own, where `adam` says so.
const TRAINER = {};
const known = (names, entry) => names.split(" ").forEach((name) => (TRAINER[name] = { args: [], defaults: {}, fixed: {}, ...entry }));
known("adamw_torch adamw_torch_fused adamw_hf", { adam: ["betas", "eps"] });
known("adamw_bnb_8bit adamw_8bit paged_adamw_32bit paged_adamw_8bit", { adam: ["betas", "eps"] });
known("adamw_torch_8bit adamw_torch_4bit", { adam: ["betas", "eps"], args: ["bf16_stochastic_round"], fixed: { block_size: 256 } });
known("adamw_anyprecision", {
  adam: ["betas", "eps"],
  args: ["use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"],
  defaults: { use_kahan_summation: false, momentum_dtype: "float32", variance_dtype: "float32", compensation_buffer_dtype: "bfloat16" },
});
known("lion_32bit lion_8bit paged_lion_32bit paged_lion_8bit", { adam: ["betas"] });
known("ademamix ademamix_8bit paged_ademamix_32bit paged_ademamix_8bit", {
  adam: ["betas", "eps"],
  args: ["alpha", "t_alpha", "t_beta3"],
});
known("sgd", { args: ["momentum", "dampening", "nesterov"] });
known("adagrad", { args: ["lr_decay", "eps"] });
known("rmsprop", { args: ["momentum", "alpha", "eps", "centered"] });
known("rmsprop_bnb rmsprop_bnb_8bit rmsprop_bnb_32bit", { args: [] });
known("adafactor", { fixed: { scale_parameter: false, relative_step: false } });
known("grokadamw", {
  adam: [],
  args: ["alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping"],
});
known("schedule_free_adamw schedule_free_radam", { adam: ["betas", "eps"], args: ["weight_lr_power", "r"] });
known("schedule_free_sgd", { args: ["weight_lr_power", "r"] });
known("stable_adamw", { adam: ["betas", "eps"], args: ["max_lr"] });
known("lomo adalomo", { noDecay: true });

// The schedules of `lr_scheduler_type`, and whether Trainer gives them warm-up and the number of steps.
const SCHEDULE_TYPES = {
  constant: [], constant_with_warmup: ["num_warmup_steps"], reduce_lr_on_plateau: [], greedy: [],
  inverse_sqrt: ["num_warmup_steps"], linear: ["num_warmup_steps", "num_training_steps"],
  cosine: ["num_warmup_steps", "num_training_steps"], cosine_with_restarts: ["num_warmup_steps", "num_training_steps"],
  cosine_with_min_lr: ["num_warmup_steps", "num_training_steps"],
  cosine_warmup_with_min_lr: ["num_warmup_steps", "num_training_steps"],
  polynomial: ["num_warmup_steps", "num_training_steps"],
  warmup_stable_decay: ["num_warmup_steps", "num_training_steps"],
};

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** The training arguments of a run that used `args`, and what Trainer can't be told. */
function trainingArguments(bitstep, settings, run, args) {
  const missing = [];
  const json = {};
  const trainer = TRAINER[run.optimizer];
  const text = (value) => (value === true ? "True" : value === false ? "False" : String(value));
  if (!trainer) missing.push(`Trainer has no optimizer \`${run.optimizer}\``);
  else {
    json.optim = run.optimizer;
    json.learning_rate = args.lr;
    const optimArgs = [];
    for (const { name, kind, default: byDefault } of bitstep.describeOptimizer(run.optimizer).arguments) {
      const value = args[name];
      if (name === "lr" || ["ignored", "none"].includes(kind)) continue;
      if (name === "weight_decay" && !trainer.noDecay) json.weight_decay = value;
      else if (name === "betas" && trainer.adam?.includes(name)) {
        [json.adam_beta1, json.adam_beta2] = value;
        if (value.length > 2) optimArgs.push(`beta3=${value[2]}`);
      } else if (name === "eps" && trainer.adam?.includes(name)) json.adam_epsilon = value;
      else if (name === "warmup_steps") continue; // below
      else if (name in trainer.fixed) {
        if (!same(value, trainer.fixed[name])) missing.push(`\`${name}\` is ${text(trainer.fixed[name])} in Trainer`);
      } else if (trainer.args.includes(name)) {
        if (!same(value, trainer.defaults[name] ?? byDefault)) optimArgs.push(`${name}=${text(value)}`);
      } else if (!same(value, byDefault)) missing.push(`\`${name}\` can't be set in Trainer`);
    }
    if (optimArgs.length) json.optim_args = optimArgs.join(", ");
  }
  const own = SCHEDULE_TYPES[run.schedule];
  json.max_steps = settings.steps;
  if (!own) missing.push(`Trainer has no schedule \`${run.schedule}\``);
  else {
    json.lr_scheduler_type = run.schedule;
    const kwargs = { ...run.scheduleArgs };
    if (own.includes("num_warmup_steps")) json.warmup_steps = kwargs.num_warmup_steps ?? 0;
    // Schedule-free optimizers warm up by the same argument.
    if (trainer && "warmup_steps" in args) {
      json.warmup_steps ??= args.warmup_steps;
      if (json.warmup_steps !== args.warmup_steps) missing.push("`warmup_steps` of the optimizer are the schedule's in Trainer");
    }
    // Trainer passes the number of steps on, so it is never missing there.
    const steps = kwargs.num_training_steps;
    if (own.includes("num_training_steps") && steps !== undefined && steps !== settings.steps)
      missing.push("`num_training_steps` is the number of steps in Trainer");
    for (const name of own) delete kwargs[name];
    if (Object.keys(kwargs).length) json.lr_scheduler_kwargs = kwargs;
  }
  json.max_grad_norm = settings.clip > 0 ? settings.clip : 0;
  if (settings.dtype === "bf16") missing.push("`bf16: true` in Trainer keeps `f32` weights: load the model in bf16");
  return { json, missing };
}
