// What a program in TypeScript writes; the compiler has to accept it, and to refuse what is marked.
import init, { Optimizer, Schedule, bytesPerParameter, clipGradNorm, describeOptimizer, type Numbers } from "bitstep";
import { AdamW } from "bitstep/one/adamw";

await init();
const optimizer = new Optimizer("adamw_torch", { lr: 1e-3, betas: [0.9, 0.95] });
const w: number = optimizer.addParam([3, 2], "f32");
const weight = new Float32Array(6);
optimizer.step([[w, weight, new Float32Array(6)]], { train_loss: 1 });
optimizer.step();
const view: Numbers = optimizer.value(w);
view.fill(0);
const saved: Uint8Array = optimizer.save();
optimizer.load(saved);
const schedule = new Schedule("cosine", { num_warmup_steps: 1, num_training_steps: 9 });
optimizer.stepSchedule(schedule, 0.5);
const norm: number = clipGradNorm([weight], 1);
const bytes: number = bytesPerParameter("lion_8bit", null, [64, 64], "bf16");
const names: string[] = describeOptimizer("sgd").arguments.map((argument) => argument.name);
const one = new AdamW(6, { lr: 1e-3 });
one.param.set(weight);
one.step();
export { bytes, names, norm };

// @ts-expect-error a name is a string
new Optimizer(5);
// @ts-expect-error an array of numbers is no typed array
optimizer.step([[w, [1, 2], weight]]);
// @ts-expect-error there is no such type
optimizer.addParam(3, "f8");
