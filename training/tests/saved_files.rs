//! Files that earlier versions saved still load, and go on with the same bits.
//!
//! A folder of `fixtures/checkpoints` holds what one version of the format wrote, one file a case, and
//! in `expected.txt` what its own code made of them: the first bits of each parameter after one further
//! step, then a sum over all bits, of parameters and state, as loaded and as stepped.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bitstep::any::Arithmetic;
use bitstep::args::{Args, Value};
use bitstep::mode::Mode;
use bitstep::named;
use bitstep::optim::LIST;
use bitstep::optimizer::{Buffer, Coding, Optimizer, Param, Recipe, Weights};
use bitstep::real::Dtype;
use bitstep::schedule::{NAMES, Scheduler, build};
use bitstep::storage::{Companded, Data, Dynamic, Format, Fp8, Scaled4, Scaled8};
use bitstep_training::checkpoint::{Checkpoint, Run, save};
use half::{bf16, f16};

/// The schedules with what they can't do without.
fn schedule(name: &str, groups: usize) -> Scheduler {
    let args = match name {
        "constant_with_warmup" => "num_warmup_steps=2",
        "inverse_sqrt" => "num_warmup_steps=2",
        "cosine_with_min_lr" | "cosine_warmup_with_min_lr" => {
            "num_warmup_steps=2, num_training_steps=9, min_lr=1e-3"
        }
        "polynomial" => "num_warmup_steps=2, num_training_steps=9, lr_end=1e-4",
        "warmup_stable_decay" => "num_warmup_steps=2, num_decay_steps=3, num_stable_steps=2",
        "create_optimizer" => "init_lr=0.02, num_train_steps=9, num_warmup_steps=2",
        "cosine" | "cosine_with_restarts" | "linear" => "num_warmup_steps=2, num_training_steps=9",
        "reduce_lr_on_plateau" => "patience=0, cooldown=1",
        "greedy" => "patience=0, smooth=True, window_size=2, min_lr=1e-4",
        "torch_cosine_annealing" => "T_max=4",
        "torch_cosine_annealing_warm_restarts" => "T_0=2",
        "torch_cyclic" => "base_lr=0.01, max_lr=0.02, cycle_momentum=False",
        "torch_exponential" => "gamma=0.9",
        "torch_one_cycle" => "max_lr=0.02, total_steps=9, cycle_momentum=False",
        "torch_step" => "step_size=2",
        "warm_up" => "initial_learning_rate=0.02, warmup_steps=2, decay_schedule_fn=0.01",
        _ => "",
    };
    let mut args = Args::parse(args).unwrap();
    let within = |name: &str, argument: &str, x: f64| {
        let args = Value::Map(vec![(argument.to_owned(), Value::Float(x))]);
        Value::List(vec![name.into(), args])
    };
    if name == "torch_chained" || name == "torch_sequential" {
        let list =
            vec![within("torch_exponential", "gamma", 0.9), within("torch_step", "step_size", 2.0)];
        args.set("schedulers", Value::List(list));
    }
    if name == "torch_sequential" {
        args.set("milestones", vec![2i64]);
    }
    if name == "torch_multi_step" {
        args.set("milestones", vec![1i64, 4]);
    }
    if name == "adafactor_schedule" {
        args.set("initial_lr", 0.02);
    }
    let group = |g: usize| Value::Map(vec![("lr".to_owned(), (0.02 / (g + 1) as f64).into())]);
    args.set("groups", Value::List((0..groups).map(group).collect()));
    build(name, &args).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A run of a few small tensors.
struct Toy {
    optimizer: Optimizer,
    names: Vec<String>,
    values: Vec<Buffer>,
    schedulers: Vec<Scheduler>,
}

fn filled(dtype: Dtype, len: usize, salt: u64) -> Buffer {
    let number = |i: usize| {
        let x = (i as u64 ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        (x.wrapping_mul(salt | 1) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    match dtype {
        Dtype::F64 => Buffer::F64((0..len).map(number).collect()),
        Dtype::F32 => Buffer::F32((0..len).map(|i| number(i) as f32).collect()),
        Dtype::Bf16 => Buffer::Bf16((0..len).map(|i| bf16::from_f64(number(i))).collect()),
        Dtype::F16 => Buffer::F16((0..len).map(|i| f16::from_f64(number(i))).collect()),
    }
}

impl Toy {
    fn new(recipes: Vec<Recipe>, params: &[(usize, &[usize], Dtype)], scheduler: &str) -> Toy {
        let mut optimizer = Optimizer::new();
        let schedulers = vec![schedule(scheduler, recipes.len())];
        for recipe in recipes {
            optimizer.add_group(recipe).unwrap();
        }
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for &(group, shape, dtype) in params {
            // A vector, where only matrices are moved.
            if optimizer.add_param(group, shape, dtype).is_ok() {
                names.push(format!("w{}", names.len()));
                values.push(filled(dtype, shape.iter().product(), values.len() as u64 + 1));
            }
        }
        Toy { optimizer, names, values, schedulers }
    }

    fn step(&mut self, t: u64) {
        let groups: Vec<usize> = (0..self.optimizer.groups().len()).collect();
        self.optimizer.follow(&self.schedulers[0], &groups).unwrap();
        let grads = self
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| filled(v.data().unwrap().dtype(), v.len(), 1000 + 10 * t + i as u64));
        let grads: Vec<_> = grads.collect();
        let params = self.values.iter_mut().zip(&grads);
        let mut params: Vec<Param<'_>> =
            params.map(|(v, g)| Param { value: v.data_mut(), grad: g.data() }).collect();
        self.optimizer.step(&mut params, &[]).unwrap();
        let scheduler = &mut self.schedulers[0];
        let metric = [1.0 + (t % 3) as f64];
        let rates = vec![0.01; groups.len()];
        let given: &[f64] = match scheduler.name() {
            "reduce_lr_on_plateau" | "greedy" => &metric,
            "adafactor_schedule" => &rates,
            _ => &[],
        };
        scheduler.step(given).unwrap();
    }

    fn save(&self, path: &Path) {
        let extra = BTreeMap::from([("epoch".to_owned(), "1.5".to_owned())]);
        let (optimizer, names) = (&self.optimizer, &self.names[..]);
        let run = Run { optimizer, names, schedulers: &self.schedulers, extra: &extra };
        let values: Vec<Data<'_>> = self.values.iter().map(|v| v.data().unwrap()).collect();
        save(path, &run, &values).unwrap();
    }

    fn load(&mut self, file: &Checkpoint) -> Result<(), String> {
        let mut values: Vec<_> = self.values.iter_mut().map(Buffer::data_mut).collect();
        let (optimizer, schedulers) = (&mut self.optimizer, &mut self.schedulers);
        file.restore(optimizer, &self.names, schedulers, &mut values).map_err(|e| e.to_string())
    }

    /// FNV-1a over all that a further step depends on.
    fn sum(&self) -> u64 {
        let mut sum = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |bytes: &[u8]| {
            for &b in bytes {
                sum = (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
            }
        };
        self.values.iter().for_each(|value| add(&bytes(value)));
        for p in self.optimizer.params() {
            add(&p.steps.to_le_bytes());
            add(&p.seed.to_le_bytes());
            add(&[p.started.into()]);
            p.scalars.iter().for_each(|x| add(&x.to_le_bytes()));
            p.slots.iter().for_each(|slot| add(&bytes(slot)));
            p.companion.iter().for_each(|raw| add(&raw.bytes()));
        }
        for g in self.optimizer.groups() {
            add(&g.steps.to_le_bytes());
            add(&g.lr.to_le_bytes());
            g.scalars.iter().for_each(|x| add(&x.to_le_bytes()));
            let args = Args::of(g.recipe.clone().rule.hyper());
            args.iter().for_each(|(name, value)| add(format!("{name}={value},").as_bytes()));
        }
        add(&[(self.optimizer.mode() == Mode::Eval).into()]);
        for s in self.schedulers.iter().map(Scheduler::state) {
            add(&s.step.to_le_bytes());
            s.lrs.iter().for_each(|x| add(&x.to_le_bytes()));
            if let Some(p) = &s.plateau {
                add(&p.best.to_le_bytes());
                [p.num_bad_epochs, p.cooldown_counter].iter().for_each(|n| add(&n.to_le_bytes()));
            }
            if let Some((g, window)) = &s.greedy {
                [g.best, g.sum].iter().chain(window).for_each(|x| add(&x.to_le_bytes()));
                let counts = [g.num_bad_epochs, g.num_good_epochs, g.cooldown_counter];
                counts.iter().for_each(|n| add(&n.to_le_bytes()));
                let others = [g.warmup_counter, g.reset_start as u64, g.len as u64, g.at as u64];
                others.iter().for_each(|n| add(&n.to_le_bytes()));
            }
            for a in &s.adafactor {
                add(&a.lr.to_le_bytes());
                add(&a.step.to_le_bytes());
                add(&[a.f32.into()]);
            }
        }
        sum
    }

    /// What `expected.txt` says of a run that has just been loaded.
    fn told(mut self) -> String {
        let loaded = self.sum();
        if self.optimizer.mode() == Mode::Eval {
            let mut values: Vec<_> = self.values.iter_mut().map(Buffer::data_mut).collect();
            self.optimizer.train(&mut values).unwrap();
        }
        self.step(3);
        let mut text = String::new();
        for value in &self.values {
            bytes(value).iter().take(32).for_each(|b| write!(text, "{b:02x}").unwrap());
            text.push(' ');
        }
        text + &format!("{loaded:016x} {:016x}", self.sum())
    }
}

/// Little-endian.
fn bytes(buffer: &Buffer) -> Vec<u8> {
    match buffer {
        Buffer::F64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Bf16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Coded(x) => x.parts("").into_iter().flat_map(|part| part.bytes).collect(),
    }
}

fn recipe(name: &str, args: &str) -> Recipe {
    named::optimizer(name, &Args::parse(args).unwrap()).unwrap()
}

/// Every name, over small tensors that are coded where large ones are.
fn named_case(name: &str, schedule: &str) -> Toy {
    let args = match name {
        _ if name.starts_with("galore") || name.starts_with("apollo") => "rank=2",
        _ if name.contains("torch_4bit") || name.contains("torch_8bit") => "block_size=32",
        _ if name.starts_with("torchao") => "block_size=32",
        _ => "",
    };
    let mut recipe = recipe(name, args);
    let hyper = Args::of(recipe.rule.hyper());
    if hyper.get("optim_bits").and_then(Value::as_u64) == Some(8) {
        recipe = named::optimizer(name, &Args::parse(args).unwrap().with("min_8bit_size", 32i64))
            .unwrap();
    }
    recipe.coding.min_len = recipe.coding.min_len.min(32);
    let params: [(usize, &[usize], _); 3] =
        [(0, &[4, 16], Dtype::F32), (0, &[4, 8], Dtype::Bf16), (0, &[3], Dtype::F32)];
    Toy::new(vec![recipe], &params, schedule)
}

/// Every policy, type of state and storage, at least once, of recipes that have no name.
fn own_cases() -> Vec<(&'static str, Toy)> {
    let adamw = || recipe("adamw_torch", "lr=0.02, weight_decay=0.1");
    let with = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = adamw();
        change(&mut recipe);
        recipe
    };
    let slots = |momentum: Format, square: Format| {
        with(&|r: &mut Recipe| {
            let slots = vec![Some(momentum), Some(square), None];
            r.coding = Coding { slots, min_len: 32, multiple: 16, ..Coding::default() };
        })
    };
    let weights = |weights: Weights| with(&|r: &mut Recipe| r.coding.weights = weights);
    let matrices: &[(usize, &[usize], Dtype)] = &[
        (0, &[4, 16], Dtype::F32),
        (0, &[40], Dtype::Bf16),
        (0, &[3], Dtype::F16),
        (0, &[5], Dtype::F64),
    ];
    let narrow: &[(usize, &[usize], Dtype)] = &[(0, &[5], Dtype::Bf16), (0, &[4], Dtype::F16)];
    let one = |recipe: Recipe| Toy::new(vec![recipe], matrices, "constant");
    let two = |recipe: Recipe| Toy::new(vec![recipe], narrow, "constant");
    let mut cases = vec![
        (
            "companded",
            one(slots(
                Format::Companded(Companded::Momentum),
                Format::Companded(Companded::Variance),
            )),
        ),
        (
            "dynamic",
            one(slots(
                Format::Dynamic(Dynamic { signed: true, grid: false }),
                Format::Dynamic(Dynamic { signed: false, grid: false }),
            )),
        ),
        (
            "dynamic_grid",
            one(slots(
                Format::Dynamic(Dynamic { signed: true, grid: true }),
                Format::Dynamic(Dynamic { signed: false, grid: true }),
            )),
        ),
        (
            "scaled8",
            one(slots(
                Format::Scaled8(Scaled8 { signed: true, block: 16 }),
                Format::Scaled8(Scaled8 { signed: false, block: 32 }),
            )),
        ),
        (
            "scaled4",
            one(slots(
                Format::Scaled4(Scaled4 { signed: true, block: 16 }),
                Format::Scaled4(Scaled4 { signed: false, block: 32 }),
            )),
        ),
        ("fp8", one(slots(Format::Fp8(Fp8 { block: 16 }), Format::Fp8(Fp8 { block: 32 })))),
        ("split8", one(slots(Format::Split(Dtype::Bf16, 8), Format::Split(Dtype::F16, 8)))),
        ("split16", one(slots(Format::Split(Dtype::F16, 16), Format::Split(Dtype::Bf16, 16)))),
        ("kahan", one(slots(Format::Kahan(Dtype::Bf16), Format::Kahan(Dtype::F16)))),
        ("plain", one(slots(Format::Plain(Dtype::F64), Format::Plain(Dtype::F16)))),
        ("weights_split8", two(weights(Weights::Split(8)))),
        ("weights_split16", two(weights(Weights::Split(16)))),
        ("weights_kahan", two(weights(Weights::Kahan))),
        ("weights_stochastic", two(weights(Weights::Stochastic(u64::MAX)))),
        (
            "state_f64",
            one(with(&|r: &mut Recipe| {
                (r.arithmetic, r.state) = (Arithmetic::Double, Some(Dtype::F64))
            })),
        ),
        (
            "state_f32",
            one(with(&|r: &mut Recipe| {
                (r.arithmetic, r.state) = (Arithmetic::Fused, Some(Dtype::F32))
            })),
        ),
        (
            "state_bf16",
            one(with(&|r: &mut Recipe| {
                (r.arithmetic, r.state) = (Arithmetic::Single, Some(Dtype::Bf16))
            })),
        ),
        (
            "state_f16",
            one(with(&|r: &mut Recipe| {
                (r.arithmetic, r.state) = (Arithmetic::Eager, Some(Dtype::F16))
            })),
        ),
    ];
    // As large as the references' own limits ask for.
    let large: &[(usize, &[usize], Dtype)] = &[(0, &[64, 64], Dtype::Bf16)];
    for name in ["adamw_bnb_8bit", "adamw_torch_4bit"] {
        cases.push((name, Toy::new(vec![recipe(name, "")], large, "constant")));
    }
    let recipes =
        vec![recipe("adamw_torch", ""), recipe("muon", "lr=0.1"), recipe("sgd", "momentum=0.9")];
    let params: &[(usize, &[usize], Dtype)] = &[
        (2, &[3], Dtype::F32),
        (1, &[2, 3], Dtype::F32),
        (0, &[], Dtype::F64),
        (2, &[0], Dtype::F32),
        (0, &[2], Dtype::F16),
    ];
    cases.push(("groups", Toy::new(recipes, params, "cosine")));
    // A momentum that is no longer the one that the group was made with.
    let mut cycled = Toy::new(vec![adamw()], &[(0, &[3], Dtype::F32)], "constant");
    let cycle = Args::parse("max_lr=0.1, total_steps=10").unwrap();
    cycled.schedulers = vec![build("torch_one_cycle", &cycle).unwrap()];
    cases.push(("cycled", cycled));
    cases.push((
        "eval",
        Toy::new(vec![recipe("schedule_free_adamw", "")], &[(0, &[3], Dtype::F32)], "constant"),
    ));
    // Hyper-parameters that JSON has no number for.
    let odd = with(&|r: &mut Recipe| {
        *r = recipe("adafactor", "")
            .with(&Args::new().with("clip_threshold", f64::INFINITY))
            .unwrap()
    });
    cases.push(("infinite", Toy::new(vec![odd], &[(0, &[2, 3], Dtype::F32)], "constant")));
    cases
}

fn cases() -> Vec<(String, Toy)> {
    let named = LIST.iter().zip(NAMES.iter().cycle());
    let named =
        named.map(|(entry, schedule)| (entry.name.to_owned(), named_case(entry.name, schedule)));
    named.chain(own_cases().into_iter().map(|(name, toy)| (format!("own_{name}"), toy))).collect()
}

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints").join(version.to_string())
}

/// `cargo test -p bitstep-training --test saved_files -- --ignored`: before a change of the format.
#[test]
#[ignore = "writes the files of today's version"]
fn write() {
    let folder = folder(2);
    let mut text = String::new();
    for ((name, mut toy), (_, mut loaded)) in cases().into_iter().zip(cases()) {
        (0..3).for_each(|t| toy.step(t));
        if name == "own_eval" {
            let mut values: Vec<_> = toy.values.iter_mut().map(Buffer::data_mut).collect();
            toy.optimizer.eval(&mut values).unwrap();
        }
        let path = folder.join(format!("{name}.safetensors"));
        toy.save(&path);
        loaded.load(&Checkpoint::read(&path).unwrap()).unwrap();
        assert_eq!(loaded.sum(), toy.sum(), "{name}");
        writeln!(text, "{name} {}", loaded.told()).unwrap();
    }
    std::fs::write(folder.join("expected.txt"), text).unwrap();
}

#[test]
fn every_file_loads_and_goes_on_with_the_same_bits() {
    let version = 2;
    let folder = folder(version);
    let text = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
    let mut expected: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(' ')).collect();
    for (name, mut toy) in cases() {
        let file = Checkpoint::read(&folder.join(format!("{name}.safetensors"))).unwrap();
        toy.load(&file).unwrap_or_else(|e| panic!("{version}/{name}: {e}"));
        assert_eq!(Some(toy.told().as_str()), expected.remove(&*name), "{version}/{name}");
    }
    assert!(expected.is_empty(), "{:?}", expected.keys());
}
