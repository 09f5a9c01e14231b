// Test surfaces: their loss, their gradient, and noise. Only + − × ÷ of doubles, in a fixed order, so that a program in
// any language gets the same bits: adapters/trainer/examples/playground.rs does.
"use strict";

const SURFACES = {
  valley: {
    title: "Noisy valley",
    about: "x²/20 + 2y²: forty times steeper across than along, with noise on the gradient",
    x: [-10.5, 3.5],
    y: [-3.5, 3.5],
    start: [-9, 2.5],
    minimum: [0, 0],
    noise: 1,
    loss: (x, y) => (x * x) / 20 + 2 * (y * y),
    gradient: (x, y) => [x / 10, 4 * y],
  },
  rosenbrock: {
    title: "Rosenbrock",
    about: "(1 − x)² + 100 (y − x²)²: a bent valley with a nearly flat floor",
    x: [-2.1, 2.1],
    y: [-0.9, 3.3],
    start: [-1.5, 2.5],
    minimum: [1, 1],
    noise: 0,
    loss: (x, y) => {
      const a = 1 - x;
      const b = y - x * x;
      return a * a + 100 * (b * b);
    },
    gradient: (x, y) => {
      const b = y - x * x;
      return [-2 * (1 - x) - 400 * (x * b), 200 * b];
    },
  },
  beale: {
    title: "Beale",
    about: "a flat plain with steep walls in the corners: large gradients first, tiny ones later",
    x: [-1.6, 4.4],
    y: [-2.1, 2.1],
    start: [-1, 1.5],
    minimum: [3, 0.5],
    noise: 0,
    loss: (x, y) => {
      const a = 1.5 - x + x * y;
      const b = 2.25 - x + x * (y * y);
      const c = 2.625 - x + x * (y * y * y);
      return a * a + b * b + c * c;
    },
    gradient: (x, y) => {
      const a = 1.5 - x + x * y;
      const b = 2.25 - x + x * (y * y);
      const c = 2.625 - x + x * (y * y * y);
      return [
        2 * (a * (y - 1) + b * (y * y - 1) + c * (y * y * y - 1)),
        2 * (a * x + b * (2 * (x * y)) + c * (3 * (x * (y * y)))),
      ];
    },
  },
};

/** Noise in [−2, 2] with a standard deviation of 0.577, for one of the two coordinates in one step of all runs. */
function noise(seed, step, coordinate) {
  // Ellis's and Wellons's lowbias32, a permutation of 32-bit words.
  let h = (seed + Math.imul(step, 2) + coordinate) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  h = (h ^ (h >>> 16)) >>> 0;
  return ((h & 255) + ((h >>> 8) & 255) + ((h >>> 16) & 255) + (h >>> 24)) / 255 - 2;
}

/** Bits of the bf16 nearest to a number that is an f32 already; ties go to the even one. */
function toBf16(x) {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0];
  if (Number.isNaN(x)) return (bits >>> 16) | 64;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The number of a bf16's bits. */
function fromBf16(bits) {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
}

/**
 * Trains two numbers on a surface, as Trainer orders it: clip, step, then the schedule. `settings` are `surface`,
 * `start`, `steps`, `noise`, `seed`, `dtype` and `clip`; `run` has `optimizer`, `args`, `schedule` and `scheduleArgs`.
 * Returns the path, losses and rates; throws what bitstep refuses.
 */
function train(bitstep, settings, run) {
  const surface = SURFACES[settings.surface];
  const bf16 = settings.dtype === "bf16";
  const optimizer = new bitstep.Optimizer(run.optimizer, run.args);
  let schedule;
  try {
    let shape = [2];
    let w;
    try {
      w = optimizer.addParam(shape, settings.dtype);
    } catch {
      // A rule for matrices.
      shape = [1, 2];
      w = optimizer.addParam(shape, settings.dtype);
    }
    const base = optimizer.lr();
    schedule = new bitstep.Schedule(run.schedule, { lr: base, ...run.scheduleArgs });
    const metric = needsMetric(bitstep, run, base);
    optimizer.follow(schedule);

    const { steps } = settings;
    const xs = new Float64Array(steps + 1);
    const ys = new Float64Array(steps + 1);
    const losses = new Float64Array(steps + 1);
    const rates = new Float64Array(steps);
    const store = bf16 ? toBf16 : (x) => x;
    const load = bf16 ? fromBf16 : (x) => x;
    // Both exist before a view is kept: a view ends when memory grows.
    optimizer.grad(w);
    optimizer.value(w).set(settings.start.map((x) => store(Math.fround(x))));
    const note = (t) => {
      const [x, y] = Array.from(optimizer.value(w), load);
      xs[t] = x;
      ys[t] = y;
      losses[t] = surface.loss(x, y);
    };
    note(0);
    for (let t = 0; t < steps; t++) {
      const g = surface.gradient(xs[t], ys[t]);
      for (const i of [0, 1]) g[i] += settings.noise * noise(settings.seed, t, i);
      optimizer.grad(w).set(g.map((x) => store(Math.fround(x))));
      if (settings.clip > 0) optimizer.clipGradNorm(settings.clip);
      rates[t] = optimizer.lr();
      optimizer.step();
      note(t + 1);
      if (t + 1 < steps) optimizer.stepSchedule(schedule, metric ? losses[t + 1] : undefined);
    }
    const state = optimizer.state(w);
    optimizer.eval();
    const final = Array.from(optimizer.value(w), load);
    return { xs, ys, losses, rates, final, loss: surface.loss(...final), state, shape, args: optimizer.args() };
  } finally {
    optimizer.free();
    schedule?.free();
  }
}

/** Whether a schedule is driven by a metric: it refuses a step without one. */
function needsMetric(bitstep, run, lr) {
  const probe = new bitstep.Schedule(run.schedule, { lr, ...run.scheduleArgs });
  try {
    probe.step(1);
    return true;
  } catch {
    return false;
  } finally {
    probe.free();
  }
}
