// The package as a user has it: .ci/web packs it, installs it in an empty folder, copies this there and runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import init, * as bitstep from "bitstep";
import { AdamW } from "bitstep/one/adamw";
import { Lion } from "bitstep/one/lion";
import { RmsProp } from "bitstep/one/rmsprop";
import { Sgd } from "bitstep/one/sgd";

const { Optimizer, Schedule } = bitstep;
await init();

/** Numbers that look random and are the same everywhere. */
function numbers(length, seed) {
  let h = seed;
  return Float32Array.from({ length }, () => {
    h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
    return ((h >>> 8) / 2 ** 23 - 1) * 2;
  });
}
const bits = (array) => Array.from(new Uint32Array(array.buffer, array.byteOffset, array.length));

/** AdamW in plain JavaScript, each operation rounded to f32. */
function adamw(p, g, m, v, t, { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 1e-2 } = {}) {
  const f = Math.fround;
  const [w1, w2, b2] = [f(1 - beta1), f(1 - beta2), f(beta2)];
  const size = f(lr / (1 - beta1 ** t));
  const root = Math.sqrt(1 - beta2 ** t);
  for (let i = 0; i < p.length; i++) {
    p[i] = f(p[i] * f(1 - lr * decay));
    m[i] = f(m[i] + f(w1 * f(g[i] - m[i])));
    v[i] = f(f(v[i] * b2) + f(f(w2 * g[i]) * g[i]));
    p[i] = f(p[i] - f(size * f(m[i] / f(f(f(Math.sqrt(v[i])) / f(root)) + f(eps)))));
  }
}

test("training_by_name_follows_the_formula", () => {
  const n = 1000;
  const optimizer = new Optimizer("adamw_torch", { lr: 1e-2 });
  const w = optimizer.addParam(n);
  const [p, m, v] = [numbers(n, 1), new Float32Array(n), new Float32Array(n)];
  const ours = p.slice();
  for (let t = 1; t <= 20; t++) {
    const g = numbers(n, t + 1);
    optimizer.step([[w, ours, g]]);
    adamw(p, g, m, v, t, { lr: 1e-2 });
  }
  for (let i = 0; i < n; i++) assert.ok(Math.abs(ours[i] - p[i]) < 1e-5, `${i}: ${ours[i]}, ${p[i]}`);
  assert.equal(optimizer.steps(w), 20);
  assert.deepEqual(Object.keys(optimizer.state(w)), ["exp_avg", "exp_avg_sq"]);
});

test("views_arrays_and_a_module_of_one_rule_have_the_same_bits", () => {
  const n = 1037; // no multiple of a vector
  for (const [name, One, args] of [
    ["adamw_torch", AdamW, { lr: 0.01, betas: [0.8, 0.95], amsgrad: true }],
    ["sgd", Sgd, { lr: 0.01, momentum: 0.9, nesterov: true }],
    ["rmsprop", RmsProp, { lr: 0.01, centered: true, momentum: 0.5 }],
    ["lion_32bit", Lion, { lr: 0.01, weight_decay: 0.1 }],
  ]) {
    const [byView, byArray, one] = [new Optimizer(name, args), new Optimizer(name, args), new One(n, args)];
    const [a, b] = [byView.addParam([n]), byArray.addParam([n])];
    const array = numbers(n, 3);
    byView.grad(a);
    byView.value(a).set(array);
    one.param.set(array);
    for (let t = 1; t <= 5; t++) {
      const g = numbers(n, 10 + t);
      byArray.step([[b, array, g]]);
      byView.grad(a).set(g);
      byView.step();
      one.grad.set(g);
      one.step();
    }
    assert.deepEqual(bits(byView.value(a)), bits(array), name);
    assert.deepEqual(bits(one.param), bits(array), name);
    assert.equal(one.steps, 5);
  }
});

test("saved_state_resumes_with_the_same_bits", () => {
  const n = 5000;
  for (const name of ["adamw_torch", "adamw_bnb_8bit", "lion_8bit", "flash_adamw", "schedule_free_adamw"]) {
    const make = () => {
      const optimizer = new Optimizer(name, { lr: 0.01 });
      optimizer.addParam([n]);
      return optimizer;
    };
    const [whole, first] = [make(), make()];
    const [a, b] = [numbers(n, 5), numbers(n, 5)];
    for (let t = 0; t < 6; t++) whole.step([[0, a, numbers(n, t)]]);
    for (let t = 0; t < 3; t++) first.step([[0, b, numbers(n, t)]]);
    const second = make();
    const saved = first.save();
    second.load(saved);
    for (let t = 3; t < 6; t++) second.step([[0, b, numbers(n, t)]]);
    assert.deepEqual(bits(a), bits(b), name);
    saved[40] ^= 1;
    assert.throws(() => make().load(saved), /saved state/);
    assert.throws(() => new Optimizer("sgd").load(first.save()), /saved state/);
  }
  const one = new AdamW(100, { lr: 0.1 });
  one.param.set(numbers(100, 1));
  one.grad.set(numbers(100, 2));
  one.step();
  const other = new AdamW(100);
  other.load(one.save());
  assert.deepEqual(bits(other.param), bits(one.param));
  assert.equal(other.steps, 1);
  const broken = one.save();
  broken[50] ^= 4;
  assert.throws(() => other.load(broken), /saved state/);
  assert.throws(() => new Lion(100).load(one.save()), /needed/);
});

test("groups_and_schedules_set_rates", () => {
  const optimizer = new Optimizer("adamw_torch", { lr: 1 });
  optimizer.addParam(3);
  const group = optimizer.addGroup("sgd", "lr=0.5, momentum=0.9");
  const p = optimizer.addParam([3], "f64", group);
  const schedule = new Schedule("linear", { groups: [{ lr: 1 }, { lr: 0.5 }], num_warmup_steps: 2, num_training_steps: 4 });
  optimizer.follow(schedule);
  assert.deepEqual([optimizer.lr(), optimizer.lr(1)], [0, 0]);
  optimizer.stepSchedule(schedule);
  assert.deepEqual([optimizer.lr(), optimizer.lr(group)], [0.5, 0.25]);
  assert.deepEqual([...schedule.lrs], [0.5, 0.25]);
  optimizer.setLr(0.125, group);
  const value = Float64Array.of(1, 2, 3);
  optimizer.step([[p, value, Float64Array.of(1, 1, 1)]]);
  assert.deepEqual([...value], [0.875, 1.875, 2.875]);
  assert.equal(optimizer.args(1).momentum, 0.9);
  optimizer.setArgs({ weight_decay: 0.25 }, 1);
  assert.equal(optimizer.args(1).weight_decay, 0.25);
  const saved = schedule.save();
  schedule.step();
  assert.equal(schedule.lr, 1);
  schedule.load(saved);
  assert.equal(schedule.lr, 0.5);
  const plateau = new Schedule("reduce_lr_on_plateau", { lr: 1, patience: 0, factor: 0.5 });
  plateau.step(1);
  assert.equal(plateau.step(1), 0.5);
  const cycle = new Schedule("torch_one_cycle", { max_lr: 0.1, total_steps: 10 });
  assert.ok(Math.abs(cycle.momentum() - 0.95) < 1e-12);
});

test("evaluation_converts_there_and_back", () => {
  const optimizer = new Optimizer("schedule_free_sgd", { lr: 0.1 });
  const w = optimizer.addParam(4);
  const value = numbers(4, 1);
  for (let t = 0; t < 3; t++) optimizer.step([[w, value, numbers(4, t)]]);
  const before = value.slice();
  optimizer.eval([value]);
  assert.notDeepEqual(bits(value), bits(before));
  assert.throws(() => optimizer.step([[w, value, value]]), /mode/);
  optimizer.train([value]);
  value.forEach((x, i) => assert.ok(Math.abs(x - before[i]) < 1e-6));
});

test("sixteen_bits_are_stored_as_bits", () => {
  const optimizer = new Optimizer("sgd", { lr: 0.5 });
  const w = optimizer.addParam(1, "bf16");
  const value = Uint16Array.of(0x3f80); // 1
  optimizer.step([[w, value, Uint16Array.of(0x3f80)]]);
  assert.equal(value[0], 0x3f00); // 0.5
});

test("clipping_scales_to_the_norm", () => {
  const grads = [Float32Array.of(3, 0), Float32Array.of(4)];
  assert.equal(bitstep.clipGradNorm(grads, 1), 5);
  assert.ok(Math.abs(grads[0][0] - 0.6) < 1e-6 && Math.abs(grads[1][0] - 0.8) < 1e-6);
  const optimizer = new Optimizer("sgd", { lr: 1 });
  const w = optimizer.addParam(2);
  optimizer.value(w);
  optimizer.grad(w).set([3, 4]);
  assert.equal(optimizer.clipGradNorm(1), 5);
});

test("everything_is_described", () => {
  assert.ok(bitstep.optimizers().length >= 78 && bitstep.schedules().length >= 27);
  for (const name of bitstep.optimizers()) {
    const { arguments: all, slots } = bitstep.describeOptimizer(name);
    assert.ok(all.length && Array.isArray(slots), name);
    const given = Object.fromEntries(all.filter(({ kind }) => !["ignored", "none"].includes(kind)).map((a) => [a.name, a.default]));
    new Optimizer(name, given).free(); // defaults are accepted as arguments
    assert.ok(bitstep.bytesPerParameter(name, null, [1024, 1024]) >= 5, name);
  }
  assert.equal(bitstep.bytesPerParameter("flash_adamw", null, 2 ** 20, "bf16"), 7.125);
  const required = (name) => bitstep.describeSchedule(name).filter((a) => a.required).map((a) => a.name);
  assert.deepEqual(required("cosine"), ["num_warmup_steps", "num_training_steps"]);
  assert.deepEqual(required("torch_multi_step"), ["milestones"]);
  assert.deepEqual(required("warm_up"), ["decay_schedule_fn", "initial_learning_rate", "warmup_steps"]);
  for (const name of bitstep.schedules()) for (const a of bitstep.describeSchedule(name)) assert.ok(!["lr_init", "last_epoch"].includes(a.name));
});

test("errors_name_argument_and_value_and_write_nothing", () => {
  const wrong = [
    [() => new Optimizer("adamw_troch"), /unknown optimizer `adamw_troch`; did you mean `adamw_torch`/],
    [() => new Optimizer("adamw_torch", { lr: -1 }), /lr is -1/],
    [() => new Optimizer("adamw_torch", { betas: [0.9, 1] }), /betas\[1\] is 1/],
    [() => new Optimizer("adamw_torch", { weight_decy: 1 }), /weight_decy.*weight_decay/],
    [() => new Optimizer("adamw_torch", { lr: "fast" }), /`lr` is "fast"/],
    [() => new Optimizer(5), /`name` is 5/],
    [() => new Optimizer("adamw_torch", 7), /`arguments` is 7/],
    [() => new Optimizer("x".repeat(100)), /longer than 64/],
    [() => new Optimizer("adamw_torch", "{".repeat(70000)), /longer than/],
    [() => new Optimizer("adamw_torch", { lr: () => 1 }), /`lr` is/],
    [() => new Optimizer().addParam(3), /group/],
    [() => new Optimizer("sgd").addParam(-1), /`shape` is -1/],
    [() => new Optimizer("sgd").addParam(1.5), /`shape` is 1.5/],
    [() => new Optimizer("sgd").addParam([2, "x"]), /`shape` is "x"/],
    [() => new Optimizer("sgd").addParam(1, "f8"), /`dtype` is "f8"/],
    [() => new Optimizer("adamw_torch").addParam([65536, 65535]), /memory|shape/],
    [() => new Optimizer("adamw_torch").addParam(2 ** 29), /no memory/],
    [() => new Optimizer("muon").addParam(3), /shape|matri/],
    [() => new Optimizer("sgd").value(0), /param/],
    [() => new Optimizer("sgd").lr(4), /group/],
    [() => new Optimizer("sgd").setLr(NaN), /lr is NaN/],
    [() => new Optimizer("sgd").step([], { nothing: 1 }), /nothing/],
    [() => new Optimizer("sgd").load("x"), /`saved` is "x"/],
    [() => new Schedule("cosin"), /unknown schedule `cosin`; did you mean `cosine`/],
    [() => new Schedule("cosine", { lr: 1 }), /num_warmup_steps/],
    [() => new Schedule("linear", { lr: 1, num_warmup_steps: 1, num_training_steps: 2 }).step(1), /given has 1/],
    [() => bitstep.clipGradNorm([[1]], 1), /grads/],
    [() => bitstep.describeSchedule("x"), /unknown schedule/],
    [() => new AdamW(-1), /length is -1/],
    [() => new AdamW(2 ** 29), /no memory/],
    [() => new AdamW(1, { lr: -1 }), /lr is -1/],
    [() => new AdamW(1, { betas: [0.9] }), /`betas` is \[0.9\]/],
    [() => new AdamW(1, { beta: 1 }), /no argument `beta`/],
    [() => new AdamW(1, { lr: "1" }), /`lr` is "1"/],
    [() => new AdamW(1, { amsgrad: 2 }), /`amsgrad` is 2/],
    [() => new AdamW(1).step("x"), /lr is x/],
    [() => new AdamW(1).load(new Uint8Array(3)), /3 bytes/],
  ];
  for (const [call, message] of wrong)
    assert.throws(call, (error) => error instanceof Error && !(error instanceof WebAssembly.RuntimeError) && message.test(error.message), String(message));

  const optimizer = new Optimizer("adamw_torch");
  const w = optimizer.addParam(2);
  const [value, grad] = [Float32Array.of(1, 2), Float32Array.of(1, 1)];
  for (const [updates, message] of [
    [[[w, value, Float32Array.of(1)]], /grad has 1 elements, but 2/],
    [[[w, Float32Array.of(1), grad]], /value has 1 elements, but 2/],
    [[[w, [1, 2], grad]], /`value` is/],
    [[[w, new Float64Array(2), grad]], /Float32Array/],
    [[[w, value, grad], [w, value, grad]], /each parameter once/],
    [[[9, value, grad]], /param/],
    [[[w, value]], /grad/],
    [[7], /`updates` is 7/],
    ["x", /`updates` is "x"/],
  ]) {
    assert.throws(() => optimizer.step(updates), message);
    assert.deepEqual([...value], [1, 2]);
    assert.equal(optimizer.steps(w), 0);
  }
});

test("a_view_of_freed_memory_does_no_harm", () => {
  const optimizer = new Optimizer("sgd", { lr: 1 });
  const w = optimizer.addParam(100);
  const view = optimizer.value(w);
  optimizer.free();
  view.fill(NaN);
  const next = new Optimizer("sgd", { lr: 1 });
  const v = next.addParam(100);
  assert.deepEqual([...next.value(v)], new Array(100).fill(0));
  assert.throws(() => optimizer.lr(), Error);
});

test("whatever_is_passed_the_module_lives", () => {
  let h = 12345;
  const random = (n) => {
    h = Math.imul(h ^ (h >>> 16), 0x45d9f3b) + 0x9e3779b9;
    return ((h ^ (h >>> 13)) >>> 0) % n;
  };
  const cyclic = {};
  cyclic.lr = cyclic;
  const thrower = { get lr() { throw new Error("mine"); } };
  const names = [...bitstep.optimizers(), ...bitstep.schedules(), "", "é".repeat(40), "\ud800"];
  const values = [
    undefined, null, true, 0, -0, 1, -1, 0.5, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 53, 1e308, 5e-324, "", "lr=1", "lr=", "{", '{"lr":1}', "a=b=c",
    "\ud800", 10n, Symbol("s"), () => 1, {}, [], [1, 2], [[]], cyclic, thrower, new Float32Array(3), new Float32Array(0), new Float64Array(3),
    new Uint16Array(2), new Uint8Array(64), new DataView(new ArrayBuffer(8)), new Proxy({}, { ownKeys() { throw new Error("mine"); } }),
    { lr: [1, 2] }, { lr: NaN }, { betas: "x" }, { groups: [{ lr: 1 }, 5] }, { schedulers: [["ConstantLR", {}], 3], milestones: [1] },
    { num_warmup_steps: 1e300, num_training_steps: -1 }, { num_training_steps: 5, num_warmup_steps: 2, num_decay_steps: 1 }, new Array(3), Array(1e6),
    { length: 1e9 }, Object.create(null), new Date(0), new Map([["lr", 1]]), { window_size: 1e15 }, { rank: 2 ** 40 }, [4, 4], [2 ** 31, 2 ** 31],
    [0, 7], [0, new Float32Array(3), new Float32Array(3)], [[0, new Float32Array(3), new Float32Array(3)]], { train_loss: 1 }, { train_loss: "x" },
  ];
  const value = () => (random(3) ? values[random(values.length)] : names[random(names.length)]);
  const methods = Object.getOwnPropertyNames(Optimizer.prototype).filter((m) => m !== "constructor" && m !== "free" && m !== "__destroy_into_raw");
  const scheduleMethods = ["step", "momentum", "save", "load"];
  let [optimizer, schedule] = [new Optimizer("adamw_torch"), new Schedule("constant")];
  let thrown = 0;
  for (let k = 0; k < 4000; k++) {
    try {
      switch (random(6)) {
        case 0: {
          const next = new Optimizer(names[random(names.length)], value());
          optimizer.free();
          optimizer = next;
          optimizer.addParam(3);
          break;
        }
        case 1: {
          const next = new Schedule(names[random(names.length)], value());
          schedule.free();
          schedule = next;
          break;
        }
        case 2: schedule[scheduleMethods[random(4)]](value()); break;
        case 3: [bitstep.clipGradNorm, bitstep.bytesPerParameter, bitstep.describeOptimizer, bitstep.describeSchedule][random(4)](value(), value(), value(), value()); break;
        case 4: random(2) ? optimizer.follow(schedule) : optimizer.stepSchedule(schedule, value()); break;
        default: optimizer[methods[random(methods.length)]](value(), value(), value());
      }
    } catch (error) {
      thrown++;
      assert.ok(!(error instanceof WebAssembly.RuntimeError), `${k}: ${error.stack}`);
    }
  }
  assert.ok(thrown > 400);
  // It still works, and has the same bits.
  const after = new Optimizer("sgd", { lr: 0.5 });
  const w = after.addParam(1);
  const x = Float32Array.of(1);
  after.step([[w, x, Float32Array.of(1)]]);
  assert.equal(x[0], 0.5);
});
