// The page: runs and settings as state, which the address holds too; everything drawn is derived from it.
"use strict";

const $ = (id) => document.getElementById(id);
const color = (k) => `var(--run-${k + 1})`;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4"];
const MOST_RUNS = 6;
const MOST_STEPS = 20000;

/** Elements in one call. */
function html(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const settingsOf = (surface, more = {}) => ({
  surface,
  steps: 300,
  start: SURFACES[surface].start,
  noise: SURFACES[surface].noise,
  seed: 1,
  dtype: "f32",
  clip: 0,
  ...more,
});
const run = (optimizer, args, schedule, scheduleArgs = {}) => ({ optimizer, args, schedule, scheduleArgs });
const warm = (steps, share, more) => ({ num_warmup_steps: Math.round(steps * share), num_training_steps: steps, ...more });

const PRESETS = {
  "Which schedule": () => ({
    settings: settingsOf("valley", { steps: 400 }),
    runs: [
      run("adamw_torch", { lr: 0.3 }, "constant"),
      run("adamw_torch", { lr: 0.3 }, "linear", warm(400, 0.1)),
      run("adamw_torch", { lr: 0.3 }, "cosine", warm(400, 0.1)),
      run("adamw_torch", { lr: 0.3 }, "warmup_stable_decay", warm(400, 0.1, { num_decay_steps: 80 })),
    ],
  }),
  "Which optimizer": () => ({
    settings: settingsOf("rosenbrock", { steps: 500 }),
    runs: [
      run("sgd", { lr: 0.0004, momentum: 0.9 }, "constant"),
      run("adamw_torch", { lr: 0.1, weight_decay: 0 }, "cosine", warm(500, 0)),
      run("lion_32bit", { lr: 0.03 }, "cosine", warm(500, 0)),
      run("schedule_free_adamw", { lr: 0.2 }, "constant"),
    ],
  }),
  "Warm-up or not": () => ({
    settings: settingsOf("beale", { steps: 300 }),
    runs: [0, 0.05, 0.25].map((share) => run("rmsprop", { lr: 0.1 }, "cosine", warm(300, share))),
  }),
  "bf16 gets stuck": () => ({
    settings: settingsOf("valley", { steps: 600, noise: 0, dtype: "bf16" }),
    runs: [
      run("adamw_torch", { lr: 0.01, weight_decay: 0 }, "constant"),
      run("optimi_adamw", { lr: 0.01, weight_decay: 0 }, "constant"),
      run("adamw_torch", { lr: 0.1, weight_decay: 0 }, "cosine", warm(600, 0.05)),
    ],
  }),
};

let state;
let active = 0;
let results = [];
/** Whether a card has been opened: on a narrow screen all are closed at first, so that the plots are near. */
let touched = false;

// ---- The address.

function toAddress() {
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(state))}`);
}

/** What an address holds, as far as it is what a page has written. */
function fromAddress() {
  try {
    const { settings, runs } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    if (!Object.hasOwn(SURFACES, settings.surface) || !Array.isArray(runs) || !runs.length) return null;
    const all = settingsOf(settings.surface, settings);
    if (![all.steps, all.noise, all.seed, all.clip, ...all.start].every(Number.isFinite) || all.start.length !== 2) return null;
    if (!["f32", "bf16"].includes(all.dtype)) return null;
    const [optimizers, schedules] = [bitstep.optimizers(), SCHEDULES_OF_PAGE()];
    if (!runs.every((r) => optimizers.includes(r.optimizer) && schedules.includes(r.schedule))) return null;
    all.steps = Math.max(1, Math.min(MOST_STEPS, Math.round(all.steps)));
    return {
      settings: all,
      runs: runs.slice(0, MOST_RUNS).map((r) => run(r.optimizer, { ...r.args }, r.schedule, { ...r.scheduleArgs })),
    };
  } catch {
    return null;
  }
}

// ---- Arguments as inputs.

const memo = (of) => {
  const seen = new Map();
  return (key) => seen.get(key) ?? (seen.set(key, of(key)), seen.get(key));
};
const optimizerFields = memo((name) => bitstep.describeOptimizer(name).arguments);
const scheduleFields = memo((name) => bitstep.describeSchedule(name));

const show = (value) =>
  value === null ? "" : Array.isArray(value) && value.every((x) => typeof x === "number") ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);

/** Reads what was typed; undefined for nothing. Throws if it is not of the argument's kind. */
function typed(field, text) {
  text = text.trim();
  if (text === "") return undefined;
  const number = (t) => {
    const x = Number(t);
    if (Number.isNaN(x) && t.trim().toLowerCase() !== "nan") throw new Error(`${field.name}: ${t} is not a number`);
    return x;
  };
  if (field.kind === "boolean") return text === "true";
  if (field.kind === "choice") return text;
  if (text.toLowerCase() === "none" || text === "null") return null;
  if (field.kind === "tuple") return text.replace(/[[\]()]/g, "").split(",").map((t) => (t.trim().toLowerCase() === "none" ? null : number(t)));
  if (field.kind === "value") {
    try {
      return JSON.parse(text);
    } catch {
      throw new Error(`${field.name}: not JSON`);
    }
  }
  return number(text);
}

function argumentInput(field, values, changed) {
  const id = `${field.name} (${field.kind})`;
  const value = values[field.name];
  let input;
  if (field.kind === "boolean" || field.kind === "choice") {
    input = html("select");
    const options = field.kind === "boolean" ? ["true", "false"] : field.choices;
    input.append(html("option", { value: "", textContent: `default: ${show(field.default) || "None"}` }));
    for (const option of options) input.append(html("option", { value: option, textContent: option }));
    input.value = value === undefined || value === null ? "" : String(value);
  } else {
    const placeholder = field.required ? "needed" : field.default === null ? "None" : show(field.default);
    input = html("input", { value: value === undefined ? "" : value === null ? "None" : show(value), placeholder });
    input.inputMode = field.kind === "integer" ? "numeric" : field.kind === "number" ? "decimal" : "text";
    input.spellcheck = false;
  }
  input.title = id;
  input.onchange = () => {
    try {
      const next = typed(field, input.value);
      if (next === undefined) delete values[field.name];
      else values[field.name] = next;
      input.removeAttribute("aria-invalid");
      changed();
    } catch (error) {
      input.setAttribute("aria-invalid", "true");
      say(error.message);
    }
  };
  const wide = ["value", "tuple"].includes(field.kind) && field.kind === "value";
  return html("label", { className: wide ? "wide" : "" }, field.name, input);
}

/** The arguments that most people set, then all others behind a fold. */
function argumentInputs(fields, values, changed, first) {
  const usable = fields.filter(({ kind, required }) => required || !["ignored", "none"].includes(kind));
  const isFirst = (field) => field.required || first.includes(field.name) || field.name in values;
  const [front, rest] = [usable.filter(isFirst), usable.filter((field) => !isFirst(field))];
  const grid = (list) => html("div", { className: "fields" }, ...list.map((field) => argumentInput(field, values, changed)));
  const parts = [grid(front)];
  if (rest.length)
    parts.push(html("details", { className: "more" }, html("summary", { textContent: `${rest.length} more argument${rest.length > 1 ? "s" : ""}` }), grid(rest)));
  return front.length || rest.length ? parts : [html("p", { className: "hint", textContent: "It has no arguments." })];
}

/** Values for what a schedule has no default for, so that something is to be seen. */
function scheduleDefaults(name, old) {
  const { steps } = state.settings;
  const lr = 0.1;
  const part = (share) => Math.max(1, Math.round(steps * share));
  const good = {
    num_warmup_steps: part(0.1), num_training_steps: steps, num_decay_steps: part(0.2), total_steps: steps, T_max: steps,
    T_0: part(0.25), step_size: part(0.25), step_size_up: part(0.125), gamma: name === "torch_exponential" ? 0.99 : 0.1,
    milestones: [part(0.5), part(0.75)], base_lr: lr / 10, max_lr: lr, min_lr_rate: 0.1, initial_learning_rate: lr,
    warmup_steps: part(0.1), init_lr: lr, num_train_steps: steps, total_iters: part(0.5), start_factor: undefined,
    decay_schedule_fn: { name: "PolynomialDecay", initial_learning_rate: lr, decay_steps: part(0.9), end_learning_rate: 0 },
    schedulers: [
      { name: "LinearLR", start_factor: 0.01, total_iters: part(0.1) },
      { name: "CosineAnnealingLR", T_max: part(0.9) },
    ],
  };
  const sequence = name === "torch_sequential" ? { milestones: [part(0.1)] } : {};
  const also = { torch_one_cycle: ["total_steps"], cosine_with_min_lr: ["min_lr_rate"], cosine_warmup_with_min_lr: ["min_lr_rate"], warmup_stable_decay: ["num_training_steps"] }[name] ?? [];
  const values = {};
  for (const { name: argument, required } of scheduleFields(name))
    if (required || also.includes(argument)) values[argument] = sequence[argument] ?? old[argument] ?? good[argument];
  // Chained schedules multiply: one that ends at 0 is no example.
  if (name === "torch_chained") values.schedulers = [good.schedulers[0], { name: "ExponentialLR", gamma: 0.99 }];
  return values;
}

// ---- Cards.

function picker(names, value, changed, label) {
  const select = html("select", { onchange: () => changed(select.value) });
  select.append(...names.map((name) => html("option", { value: name, textContent: name })));
  select.value = value;
  return html("label", { className: "wide" }, label, select);
}

const SCHEDULES_OF_PAGE = () =>
  // It reports its optimizer's own rate, which is not for others to follow.
  bitstep.schedules().filter((name) => name !== "adafactor_schedule");

function card(r, k) {
  const summary = html("summary", {}, html("b"), html("small"));
  const error = html("p", { className: "error" });
  error.setAttribute("role", "alert");
  const changed = () => update();
  const body = html(
    "div",
    { className: "body" },
    picker(bitstep.optimizers(), r.optimizer, (name) => {
      const names = optimizerFields(name).map((field) => field.name);
      r.optimizer = name;
      r.args = Object.fromEntries(Object.entries(r.args).filter(([argument]) => ["lr", "weight_decay"].includes(argument) && names.includes(argument)));
      // Adafactor's own step size excludes a rate.
      if (names.includes("relative_step") && "lr" in r.args) r.args.relative_step = false;
      drawCards();
      update();
    }, "optimizer"),
    ...argumentInputs(optimizerFields(r.optimizer), r.args, changed, ["lr", "betas", "weight_decay", "momentum", "eps"]),
    picker(SCHEDULES_OF_PAGE(), r.schedule, (name) => {
      r.schedule = name;
      r.scheduleArgs = scheduleDefaults(name, r.scheduleArgs);
      drawCards();
      update();
    }, "schedule"),
    ...argumentInputs(scheduleFields(r.schedule), r.scheduleArgs, changed, []),
    error,
    html(
      "div",
      { className: "row" },
      html("button", { type: "button", textContent: "Copy run", disabled: state.runs.length >= MOST_RUNS, onclick: () => {
        state.runs.splice(k + 1, 0, structuredClone(r));
        active = k + 1;
        drawCards();
        update();
      } }),
      html("button", { type: "button", textContent: "Remove", disabled: state.runs.length < 2, onclick: () => {
        state.runs.splice(k, 1);
        active = Math.max(0, Math.min(active, state.runs.length - 1));
        drawCards();
        update();
      } }),
    ),
  );
  const details = html("details", { open: k === active && (innerWidth > 760 || touched), ontoggle: () => {
    touched ||= details.open;
    if (details.open && active !== k) {
      active = k;
      for (const other of $("cards").querySelectorAll(":scope > .card > details")) if (other !== details) other.open = false;
      drawDetails();
    }
  } }, summary, body);
  const holder = html("div", { className: "card" }, details);
  holder.style.setProperty("--c", color(k));
  return holder;
}

function drawCards() {
  const focused = document.activeElement?.closest(".card label")?.firstChild?.textContent;
  $("cards").replaceChildren(...state.runs.map(card));
  $("add").disabled = state.runs.length >= MOST_RUNS;
  if (focused)
    for (const label of $("cards").querySelectorAll("details[open] label")) if (label.firstChild.textContent === focused) label.lastChild.focus();
}

function drawSummaries() {
  $("cards").querySelectorAll(":scope > .card").forEach((holder, k) => {
    const r = state.runs[k];
    const result = results[k];
    holder.querySelector("summary b").textContent = r.optimizer;
    holder.querySelector("summary small").textContent = ` ${r.schedule}, ${short(result.args?.lr ?? r.args.lr ?? NaN)}`;
    holder.querySelector(".error").textContent = result.error ?? "";
  });
}

// ---- Settings.

function drawSettings() {
  const form = $("settings").elements;
  const { settings } = state;
  for (const name of ["surface", "steps", "seed", "noise", "dtype"]) form[name].value = settings[name];
  form.start.value = settings.start.join(", ");
  form.clip.value = settings.clip || "";
  $("start-help").textContent = `${SURFACES[settings.surface].about}. Click the surface, or use its arrow keys, to set the start.`;
}

function readSettings(event) {
  const form = $("settings").elements;
  const { settings } = state;
  const fail = (input, text) => {
    input.setAttribute("aria-invalid", "true");
    $("settings-error").textContent = text;
  };
  for (const input of form) input.removeAttribute("aria-invalid");
  $("settings-error").textContent = "";
  if (event.target.name === "surface") {
    const { steps, seed, dtype, clip } = settings;
    state.settings = settingsOf(form.surface.value, { steps, seed, dtype, clip });
  } else {
    const steps = Number(form.steps.value);
    if (!Number.isInteger(steps) || steps < 1 || steps > MOST_STEPS) return fail(form.steps, `steps: a whole number from 1 to ${MOST_STEPS}`);
    const start = form.start.value.split(",").map(Number);
    if (start.length !== 2 || !start.every(Number.isFinite)) return fail(form.start, "start: two numbers, as in −1.5, 2");
    const numbers = { noise: Number(form.noise.value), seed: Number(form.seed.value), clip: Number(form.clip.value) };
    for (const [name, value] of Object.entries(numbers)) if (!Number.isFinite(value) || value < 0) return fail(form[name], `${name}: a number from 0`);
    if (!Number.isInteger(numbers.seed)) return fail(form.seed, "seed: a whole number");
    // Schedules that run to the end go on running to the end.
    if (steps !== settings.steps)
      for (const { scheduleArgs } of state.runs)
        for (const [name, value] of Object.entries(scheduleArgs))
          if (Number.isInteger(value) && /step|T_|iters/.test(name)) scheduleArgs[name] = Math.max(value && 1, Math.round((value * steps) / settings.steps));
    Object.assign(settings, numbers, { steps, start, dtype: form.dtype.value });
    if (event.target.name === "steps") drawCards();
  }
  drawSettings();
  update();
}

// ---- Results.

function update() {
  results = state.runs.map((r) => {
    try {
      return train(bitstep, state.settings, r);
    } catch (error) {
      return { error: error.message, xs: [], ys: [], losses: [], rates: [], final: [NaN, NaN] };
    }
  });
  toAddress();
  drawSummaries();
  draw();
  drawDetails();
}

const label = (k) => `${state.runs[k].optimizer}, ${state.runs[k].schedule}`;

function draw() {
  const lines = (of) => results.map((result, k) => ({ values: of(result), color: color(k), dash: DASHES[k], label: label(k) }));
  const { settings } = state;
  const surface = SURFACES[settings.surface];
  lineChart($("rates"), { lines: lines((r) => r.rates), first: 1, title: "Learning rate over steps", unit: "of each update" });
  lineChart($("losses"), { lines: lines((r) => r.losses), log: true, first: 0, title: "Loss over steps", unit: "after each update, without the noise" });
  $("surface-title").textContent = `Paths: ${surface.title}`;
  surfaceChart($("surface"), {
    surface,
    runs: results.map((result, k) => ({ ...result, color: color(k) })),
    start: settings.start,
    title: `Paths of ${results.length} runs over ${surface.title}`,
    onStart: (start) => {
      settings.start = start;
      drawSettings();
      update();
    },
  });
  const cell = (text, properties) => html("td", { textContent: text, ...properties });
  const head = ["run", "final loss", "lowest", "x, y", "bytes f32", "bytes bf16", "state"];
  const rows = results.map((result, k) => {
    const name = cell(label(k), { className: "name" });
    name.style.setProperty("--c", color(k));
    if (result.error) return html("tr", {}, name, cell(result.error, { colSpan: head.length - 1, className: "error" }));
    let best = 0;
    result.losses.forEach((loss, t) => (best = loss < result.losses[best] ? t : best));
    const bytes = (dtype) => {
      try {
        return Number(bitstep.bytesPerParameter(state.runs[k].optimizer, state.runs[k].args, [1024, 1024], dtype).toFixed(3));
      } catch {
        return "–";
      }
    };
    const lost = result.losses.findIndex((loss) => !Number.isFinite(loss));
    const end = lost < 0 ? short(result.loss) : `lost at step ${lost}`;
    return html("tr", {}, name, cell(end), cell(`${short(result.losses[best])} (${best})`),
      cell(result.final.map(short).join(", ")), cell(bytes("f32")), cell(bytes("bf16")), cell(Object.keys(result.state).join(", ") || "none"));
  });
  $("results").replaceChildren(html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { textContent: text, scope: "col" })))), html("tbody", {}, ...rows));
}

const ODD = [0, NaN, Infinity, 3e38, 1e18, 1e-25, 1e-42];

/** A weight of 1, ten steps with the gradient 0.1, one with an odd one, ten more. */
function odd(r, gradient) {
  const optimizer = new bitstep.Optimizer(r.optimizer, r.args);
  try {
    let w;
    try {
      w = optimizer.addParam([1]);
    } catch {
      w = optimizer.addParam([1, 1]);
    }
    optimizer.grad(w);
    optimizer.value(w).fill(1);
    const steps = (count, g) => {
      for (let t = 0; t < count; t++) {
        optimizer.grad(w).fill(g);
        optimizer.step();
      }
      return optimizer.value(w)[0];
    };
    const before = steps(10, 0.1);
    const after = steps(1, gradient);
    const state = optimizer.state(w);
    return { moved: after - before, after, later: steps(10, 0.1), state };
  } finally {
    optimizer.free();
  }
}

function drawDetails() {
  const r = state.runs[active];
  const result = results[active];
  const head = (slots) => html("thead", {}, html("tr", {}, ...["gradient", "move", ...slots, "10 later"].map((text) => html("th", { textContent: text, scope: "col" }))));
  $("edge-of").textContent = `Here: ${r.optimizer}.`;
  try {
    const rows = ODD.map((gradient) => [short(gradient), odd(r, gradient)]);
    const slots = Object.keys(rows[0][1].state);
    $("edges").replaceChildren(head(slots), html("tbody", {}, ...rows.map(([text, { moved, later, state: held }]) =>
      html("tr", {}, ...[text, short(moved), ...slots.map((slot) => short(held[slot]?.[0] ?? NaN)), short(later)].map((cell) => html("td", { textContent: cell }))))));
  } catch (error) {
    $("edges").replaceChildren(html("tbody", {}, html("tr", {}, html("td", { textContent: error.message }))));
  }
  if (result.error) {
    $("json").textContent = "";
    $("json-note").textContent = result.error;
    return;
  }
  const { json, missing } = trainingArguments(bitstep, state.settings, r, result.args);
  $("json").textContent = JSON.stringify(json, null, 2);
  $("json-note").textContent = `${label(active)}. ${missing.length ? `Not the same there: ${missing.join("; ")}.` : "Trainer makes the same run of it."}`;
}

let silence;
function say(text) {
  $("said").textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => ($("said").textContent = ""), 3000);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    say(`This browser does not let the page copy: ${what.toLowerCase()} can be copied by hand`);
  }
}

function open(next) {
  state = next;
  active = 0;
  touched = false;
  drawCards();
  drawSettings();
  update();
}

async function begin() {
  const started = performance.now();
  try {
    await bitstep.ready;
  } catch (error) {
    $("ready").className = "error";
    $("ready").textContent = `bitstep does not run here: ${error.message}`;
    return;
  }
  for (const [name, make] of Object.entries(PRESETS)) $("presets").append(html("button", { type: "button", textContent: name, onclick: () => open(make()) }));
  $("settings").elements.surface.append(...Object.entries(SURFACES).map(([value, { title }]) => html("option", { value, textContent: title })));
  $("settings").onchange = readSettings;
  $("settings").onsubmit = (event) => event.preventDefault();
  $("add").onclick = () => {
    state.runs.push(run("adamw_torch", { lr: 0.1 }, "cosine", warm(state.settings.steps, 0.1)));
    active = state.runs.length - 1;
    drawCards();
    update();
  };
  $("share").onclick = () => copy(location.href, "Link");
  $("copy").onclick = () => copy($("json").textContent, "JSON");
  const redraw = () => requestAnimationFrame(draw);
  let width = innerWidth;
  addEventListener("resize", () => innerWidth !== width && ((width = innerWidth), redraw()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("hashchange", () => {
    const next = fromAddress();
    if (next) open(next);
  });
  open(fromAddress() ?? PRESETS["Which schedule"]());
  const names = `${bitstep.optimizers().length} optimizers, ${bitstep.schedules().length} schedules`;
  $("ready").textContent = `${names}; ready in ${Math.round(performance.now() - started + (bitstep.took ?? 0))} ms.`;
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

begin();
