// Nanoseconds of the processor a number and step: bitstep by name (on views, and on arrays that are copied in and out) and
// as a module of one rule, tfjs on its wasm and cpu backends, and plain JavaScript. One run, interleaved, medians.
// `.ci/web bench` runs it.
import { cpus } from "node:os";
import { cpuUsage } from "node:process";
import { fileURLToPath } from "node:url";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { setThreadsCount, setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { Optimizer } from "bitstep";
import { AdamW } from "bitstep/one/adamw";
import { Lion } from "bitstep/one/lion";

const wasm = fileURLToPath(import.meta.resolve("@tensorflow/tfjs-backend-wasm"));
setThreadsCount(1);
setWasmPaths(wasm.replace(/dist[/\\].*/, "dist/"));

const LR = 1e-3;
const ROUNDS = 15;
/** Milliseconds of each round. */
const LEAST = 8;
const [BETA1, BETA2, EPS, DECAY] = [0.9, 0.999, 1e-8, 1e-2];

const numbers = (n, seed) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898 + seed) * 0.1);

// ---- bitstep.

const byView = (name, args) => (n) => {
  const optimizer = new Optimizer(name, { lr: LR, ...args });
  const w = optimizer.addParam(n);
  optimizer.grad(w);
  optimizer.value(w).set(numbers(n, 1));
  optimizer.grad(w).set(numbers(n, 2));
  return () => optimizer.step();
};
const byArray = (name, args) => (n) => {
  const optimizer = new Optimizer(name, { lr: LR, ...args });
  const w = optimizer.addParam(n);
  const [value, grad] = [numbers(n, 1), numbers(n, 2)];
  return () => optimizer.step([[w, value, grad]]);
};
const one = (Rule, args) => (n) => {
  const optimizer = new Rule(n, { lr: LR, ...args });
  optimizer.param.set(numbers(n, 1));
  optimizer.grad.set(numbers(n, 2));
  return () => optimizer.step();
};

// ---- Plain JavaScript, as one writes it.

/** Compiled anew for each use: V8 makes less of a function once several closures share its code. */
const fresh = (make) => (n) =>
  new Function("numbers", "LR", "BETA1", "BETA2", "EPS", "DECAY", `return ${make}`)(numbers, LR, BETA1, BETA2, EPS, DECAY)(n);

const adamwLoop = (n) => {
  const [p, g, m, v] = [numbers(n, 1), numbers(n, 2), new Float32Array(n), new Float32Array(n)];
  let t = 0;
  return () => {
    t++;
    const size = LR / (1 - BETA1 ** t);
    const root = Math.sqrt(1 - BETA2 ** t);
    const keep = 1 - LR * DECAY;
    for (let i = 0; i < n; i++) {
      const x = g[i];
      m[i] = BETA1 * m[i] + (1 - BETA1) * x;
      v[i] = BETA2 * v[i] + (1 - BETA2) * x * x;
      p[i] = p[i] * keep - (size * m[i]) / (Math.sqrt(v[i]) / root + EPS);
    }
  };
};
const lionLoop = (n) => {
  const [p, g, m] = [numbers(n, 1), numbers(n, 2), new Float32Array(n)];
  return () => {
    for (let i = 0; i < n; i++) {
      const x = g[i];
      p[i] = p[i] * (1 - LR * DECAY) - LR * Math.sign(0.9 * m[i] + 0.1 * x);
      m[i] = 0.99 * m[i] + 0.01 * x;
    }
  };
};
/** 8-bit state in blocks of 256 with a table of codes, nearest by bisection. */
const adamw8Loop = (n) => {
  const [p, g] = [numbers(n, 1), numbers(n, 2)];
  const table = (signed) => {
    const all = [0];
    for (let i = 0; i < 7; i++) {
      const count = signed ? 2 ** i : 2 ** (i + 1);
      for (let k = 0; k < count; k++) {
        const x = (0.1 + (0.9 * (k + 0.5)) / count) * 10 ** (i - 6);
        all.push(x);
        if (signed) all.push(-x);
      }
    }
    all.push(1);
    return Float32Array.from(all.slice(0, 256)).sort();
  };
  const [signed, unsigned] = [table(true), table(false)];
  const make = () => [new Uint8Array(n), new Float32Array(Math.ceil(n / 256))];
  const [[m8, ms], [v8, vs]] = [make(), make()];
  m8.fill(signed.indexOf(0));
  v8.fill(unsigned.indexOf(0));
  const nearest = (map, x) => {
    let [low, high] = [0, map.length - 1];
    while (high - low > 1) {
      const mid = (low + high) >> 1;
      if (map[mid] <= x) low = mid;
      else high = mid;
    }
    return x - map[low] < map[high] - x ? low : high;
  };
  const [m, v] = [new Float32Array(256), new Float32Array(256)];
  let t = 0;
  return () => {
    t++;
    const size = LR / (1 - BETA1 ** t);
    const root = Math.sqrt(1 - BETA2 ** t);
    for (let b = 0, k = 0; b < n; b += 256, k++) {
      const end = Math.min(n, b + 256);
      let [mMax, vMax] = [0, 0];
      for (let i = b, j = 0; i < end; i++, j++) {
        const x = g[i];
        m[j] = BETA1 * signed[m8[i]] * ms[k] + (1 - BETA1) * x;
        v[j] = BETA2 * unsigned[v8[i]] * vs[k] + (1 - BETA2) * x * x;
        mMax = Math.max(mMax, Math.abs(m[j]));
        vMax = Math.max(vMax, v[j]);
        p[i] = p[i] * (1 - LR * DECAY) - (size * m[j]) / (Math.sqrt(v[j]) / root + EPS);
      }
      ms[k] = mMax;
      vs[k] = vMax;
      for (let i = b, j = 0; i < end; i++, j++) {
        m8[i] = nearest(signed, m[j] / mMax);
        v8[i] = nearest(unsigned, v[j] / vMax);
      }
    }
  };
};

// ---- tfjs: its Adam, which has no decay of weights; Lion of its operations.

const tfAdam = (n) => {
  const w = tf.variable(tf.tensor1d(numbers(n, 1)));
  const g = tf.tensor1d(numbers(n, 2));
  const optimizer = tf.train.adam(LR, BETA1, BETA2, EPS);
  return () => optimizer.applyGradients({ [w.name]: g });
};
const tfLion = (n) => {
  const w = tf.variable(tf.tensor1d(numbers(n, 1)));
  const g = tf.tensor1d(numbers(n, 2));
  const m = tf.variable(tf.zeros([n]));
  return () =>
    tf.tidy(() => {
      const update = tf.sign(tf.add(tf.mul(m, 0.9), tf.mul(g, 0.1)));
      w.assign(tf.sub(tf.mul(w, 1 - LR * DECAY), tf.mul(update, LR)));
      m.assign(tf.add(tf.mul(m, 0.99), tf.mul(g, 0.01)));
    });
};
/** On a backend: made there, and run there. */
const on = (backend, make) => (n) => {
  tf.setBackend(backend);
  const step = make(n);
  return () => {
    tf.setBackend(backend);
    step();
  };
};

const TABLE = {
  AdamW: {
    "by name": byView("adamw_torch"),
    "by name, copied": byArray("adamw_torch"),
    "one rule": one(AdamW),
    JavaScript: fresh(adamwLoop),
    "tfjs wasm": on("wasm", tfAdam),
    "tfjs cpu": on("cpu", tfAdam),
  },
  Lion: {
    "by name": byView("lion_32bit", { weight_decay: DECAY }),
    "by name, copied": byArray("lion_32bit", { weight_decay: DECAY }),
    "one rule": one(Lion, { weight_decay: DECAY }),
    JavaScript: fresh(lionLoop),
    "tfjs wasm": on("wasm", tfLion),
    "tfjs cpu": on("cpu", tfLion),
  },
  "8-bit AdamW": {
    "by name": byView("adamw_bnb_8bit"),
    "by name, copied": byArray("adamw_bnb_8bit"),
    "JavaScript, 8-bit": fresh(adamw8Loop),
    "JavaScript, f32": fresh(adamwLoop),
    "tfjs wasm, f32": on("wasm", tfAdam),
    "tfjs cpu, f32": on("cpu", tfAdam),
  },
};

await tf.setBackend("wasm");
await tf.ready();
await tf.setBackend("cpu");
await tf.ready();
console.log(`Node ${process.version}, ${cpus()[0].model}, one thread; processor ns a number, the median of ${ROUNDS} interleaved rounds\n`);
console.log("| rule | numbers | way | ns | times as slow as by name |\n| --- | --- | --- | --- | --- |");
for (const [rule, ways] of Object.entries(TABLE))
  for (const power of [16, 20]) {
    const n = 2 ** power;
    const all = Object.entries(ways).map(([way, make]) => ({ way, step: make(n), times: [] }));
    for (const one of all) {
      for (let k = 0; k < 3; k++) one.step();
      const start = performance.now();
      one.step();
      one.repeat = Math.max(2, Math.ceil(LEAST / (performance.now() - start)));
      for (let k = 0; k < one.repeat; k++) one.step();
    }
    for (let round = 0; round < ROUNDS; round++)
      for (const { step, times, repeat } of all) {
        // What others have left is collected before, in threads that would be counted.
        globalThis.gc();
        for (let k = 0; k < repeat; k++) step();
        // The process's own time, so that other work on the machine counts less.
        const start = cpuUsage();
        for (let k = 0; k < repeat; k++) step();
        const { user, system } = cpuUsage(start);
        times.push(((user + system) * 1e3) / repeat / n);
      }
    const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
    const first = median(all[0].times);
    for (const { way, times } of all) console.log(`| ${rule} | 2^${power} | ${way} | ${median(times).toFixed(2)} | ${(median(times) / first).toFixed(1)} |`);
    tf.disposeVariables();
  }
