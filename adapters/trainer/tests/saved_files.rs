//! Files saved by earlier versions still load, and training resumes with the same bits.
//!
//! A folder of `fixtures/checkpoints` has the files of one version of the format, one for each case.
//! Its `expected.txt` was written by the code of that version: the first bits of each parameter after
//! one further step, then hashes of all bits of parameters and state, as loaded and as stepped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bitstep::float::Dtype;
use bitstep::hyper::{Args, Value};
use bitstep::lowrank::ForceF32;
use bitstep::optim::AdamW;
use bitstep::optimizer::{
    Buffer, GroupId, Optimizer, OptimizerSpec, Param, ParamStorage, StorageConfig,
};
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep::rule::ComputePolicy;
use bitstep::rule::mode::Mode;
use bitstep::schedule::{NAMES, Scheduler, build};
use bitstep::storage::{
    BlockFp8, BlockQuant4, BlockQuant8, Companded, Data, DynamicQuant8, StorageFormat,
};
use bitstep_trainer::checkpoint::{Checkpoint, Run, save};
use half::{bf16, f16};
use regex::Regex;
use safetensors::SafeTensors;
use serde_json::Value as Json;

/// The schedules with their required arguments.
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
    fn new(specs: Vec<OptimizerSpec>, params: &[(usize, &[usize], Dtype)], scheduler: &str) -> Toy {
        let mut optimizer = Optimizer::empty();
        let schedulers = vec![schedule(scheduler, specs.len())];
        for spec in specs {
            optimizer.add_group(spec).unwrap();
        }
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for &(group, shape, dtype) in params {
            // A vector, which the rule does not accept.
            if optimizer.add_param_to(GroupId(group), shape, dtype).is_ok() {
                names.push(format!("w{}", names.len()));
                values.push(filled(dtype, shape.iter().product(), values.len() as u64 + 1));
            }
        }
        Toy { optimizer, names, values, schedulers }
    }

    fn step(&mut self, t: u64) {
        let groups: Vec<_> = (0..self.optimizer.groups().len()).map(GroupId).collect();
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
        self.optimizer.step_all(&mut params, &[]).unwrap();
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

    /// FNV-1a over everything that the next step depends on.
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
            add(&[p.is_initialized.into()]);
            p.scalars.iter().for_each(|x| add(&x.to_le_bytes()));
            p.slots.iter().for_each(|slot| add(&bytes(slot)));
            p.correction.iter().for_each(|raw| add(&raw.bytes()));
        }
        for g in self.optimizer.groups() {
            add(&g.steps.to_le_bytes());
            add(&g.lr.to_le_bytes());
            g.scalars.iter().for_each(|x| add(&x.to_le_bytes()));
            let args = Args::of(g.spec.clone().rule.hyper_params());
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

    /// The line of `expected.txt` for a run that has just been loaded.
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
        Buffer::Encoded(x) => x.parts("").into_iter().flat_map(|part| part.bytes).collect(),
    }
}

fn spec(name: &str, args: &str) -> OptimizerSpec {
    registry::optimizer(name, Args::parse(args).unwrap()).unwrap()
}

/// The spec of a name, changed so that the state of small tensors is quantized too.
fn small(name: &str) -> OptimizerSpec {
    let args = match name {
        _ if name.starts_with("galore") || name.starts_with("apollo") => "rank=2",
        _ if name.contains("torch_4bit") || name.contains("torch_8bit") => "block_size=32",
        _ if name.starts_with("torchao") => "block_size=32",
        _ => "",
    };
    let mut made = spec(name, args);
    let hyper = Args::of(made.rule.hyper_params());
    if hyper.get("optim_bits").and_then(Value::as_u64) == Some(8) {
        made = spec(name, &format!("{args}, min_8bit_size=32"));
    }
    made.storage.min_len = made.storage.min_len.min(32);
    made
}

const PARAMS: [(usize, &[usize], Dtype); 3] =
    [(0, &[4, 16], Dtype::F32), (0, &[4, 8], Dtype::Bf16), (0, &[3], Dtype::F32)];

/// Every format, two for each of the own cases.
fn own_formats() -> Vec<StorageFormat> {
    let dynamic =
        |signed, grid| StorageFormat::DynamicQuant8(DynamicQuant8 { signed, cpu_grid: grid });
    let scaled8 = |signed, block| StorageFormat::BlockQuant8(BlockQuant8 { signed, block });
    let scaled4 = |signed, block| StorageFormat::BlockQuant4(BlockQuant4 { signed, block });
    vec![
        StorageFormat::Companded(Companded::Momentum),
        StorageFormat::Companded(Companded::Variance),
        dynamic(true, false),
        dynamic(false, false),
        dynamic(true, true),
        dynamic(false, true),
        scaled8(true, 16),
        scaled8(false, 32),
        scaled4(true, 16),
        scaled4(false, 32),
        StorageFormat::BlockFp8(BlockFp8 { block: 16 }),
        StorageFormat::BlockFp8(BlockFp8 { block: 32 }),
        StorageFormat::SplitFloat(Dtype::Bf16, 8),
        StorageFormat::SplitFloat(Dtype::F16, 8),
        StorageFormat::SplitFloat(Dtype::F16, 16),
        StorageFormat::SplitFloat(Dtype::Bf16, 16),
        StorageFormat::KahanPair(Dtype::Bf16),
        StorageFormat::KahanPair(Dtype::F16),
        StorageFormat::Plain(Dtype::F64),
        StorageFormat::Plain(Dtype::F16),
    ]
}

/// Every policy, state type and storage, at least once, in specs that have no name.
fn own_cases() -> Vec<(&'static str, Toy)> {
    let adamw = || spec("adamw_torch", "lr=0.02, weight_decay=0.1");
    let with = |change: &dyn Fn(&mut OptimizerSpec)| {
        let mut spec = adamw();
        change(&mut spec);
        spec
    };
    let slots = |momentum: StorageFormat, square: StorageFormat| {
        with(&|r: &mut OptimizerSpec| {
            let slots = vec![Some(momentum), Some(square), None];
            r.storage = StorageConfig {
                slot_formats: slots,
                min_len: 32,
                len_multiple: 16,
                ..StorageConfig::default()
            };
        })
    };
    let weights = |weights: ParamStorage| with(&|r: &mut OptimizerSpec| r.storage.param = weights);
    let matrices: &[(usize, &[usize], Dtype)] = &[
        (0, &[4, 16], Dtype::F32),
        (0, &[40], Dtype::Bf16),
        (0, &[3], Dtype::F16),
        (0, &[5], Dtype::F64),
    ];
    let narrow: &[(usize, &[usize], Dtype)] = &[(0, &[5], Dtype::Bf16), (0, &[4], Dtype::F16)];
    let one = |spec: OptimizerSpec| Toy::new(vec![spec], matrices, "constant");
    let two = |spec: OptimizerSpec| Toy::new(vec![spec], narrow, "constant");
    let formats = own_formats();
    let names = [
        "companded",
        "dynamic",
        "dynamic_grid",
        "scaled8",
        "scaled4",
        "fp8",
        "split8",
        "split16",
        "kahan",
        "plain",
    ];
    let pairs = formats.chunks(2).map(|pair| one(slots(pair[0], pair[1])));
    let mut cases: Vec<_> = names.into_iter().zip(pairs).collect();
    cases.extend([
        ("weights_split8", two(weights(ParamStorage::Split(8)))),
        ("weights_split16", two(weights(ParamStorage::Split(16)))),
        ("weights_kahan", two(weights(ParamStorage::Kahan))),
        ("weights_stochastic", two(weights(ParamStorage::Stochastic(u64::MAX)))),
        (
            "state_f64",
            one(with(&|r: &mut OptimizerSpec| {
                (r.policy, r.state_dtype) = (ComputePolicy::Double, Some(Dtype::F64))
            })),
        ),
        (
            "state_f32",
            one(with(&|r: &mut OptimizerSpec| {
                (r.policy, r.state_dtype) = (ComputePolicy::Fused, Some(Dtype::F32))
            })),
        ),
        (
            "state_bf16",
            one(with(&|r: &mut OptimizerSpec| {
                (r.policy, r.state_dtype) = (ComputePolicy::Single, Some(Dtype::Bf16))
            })),
        ),
        (
            "state_f16",
            one(with(&|r: &mut OptimizerSpec| {
                (r.policy, r.state_dtype) = (ComputePolicy::Eager, Some(Dtype::F16))
            })),
        ),
    ]);
    // As large as the references' own limits require.
    let large: &[(usize, &[usize], Dtype)] = &[(0, &[64, 64], Dtype::Bf16)];
    for name in ["adamw_bnb_8bit", "adamw_torch_4bit"] {
        cases.push((name, Toy::new(vec![spec(name, "")], large, "constant")));
    }
    let specs = vec![spec("adamw_torch", ""), spec("muon", "lr=0.1"), spec("sgd", "momentum=0.9")];
    let params: &[(usize, &[usize], Dtype)] = &[
        (2, &[3], Dtype::F32),
        (1, &[2, 3], Dtype::F32),
        (0, &[], Dtype::F64),
        (2, &[0], Dtype::F32),
        (0, &[2], Dtype::F16),
    ];
    cases.push(("groups", Toy::new(specs, params, "cosine")));
    // A momentum that differs from the one that the group was created with.
    let mut cycled = Toy::new(vec![adamw()], &[(0, &[3], Dtype::F32)], "constant");
    let cycle = Args::parse("max_lr=0.1, total_steps=10").unwrap();
    cycled.schedulers = vec![build("torch_one_cycle", &cycle).unwrap()];
    cases.push(("cycled", cycled));
    cases.push((
        "eval",
        Toy::new(vec![spec("schedule_free_adamw", "")], &[(0, &[3], Dtype::F32)], "constant"),
    ));
    // Hyper-parameters that are no JSON numbers.
    let odd = with(&|r: &mut OptimizerSpec| {
        *r = spec("adafactor", "")
            .with_args(&Args::new().with("clip_threshold", f64::INFINITY))
            .unwrap()
    });
    cases.push(("infinite", Toy::new(vec![odd], &[(0, &[2, 3], Dtype::F32)], "constant")));
    cases
}

/// Schedules that came after the files: their place among the others would change those of the rest.
const LATER: &[&str] = &[];

/// Every name with some schedule, the specs without a name, and all names together.
fn cases() -> BTreeMap<String, Toy> {
    // A name that came later is in no old file, and must not change the place of another.
    let text = include_str!("../fixtures/checkpoints/2/expected.txt");
    let old: Vec<_> = text.lines().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
    let all = || OPTIMIZERS.iter().map(|entry| entry.name);
    let (new, old): (Vec<_>, Vec<_>) = all().partition(|name| !old.contains(name));
    let schedules = NAMES.iter().filter(|name| !LATER.contains(name));
    let named = old.iter().chain(&new).zip(schedules.cycle());
    let named = named.map(|(name, schedule)| {
        ((*name).to_owned(), Toy::new(vec![small(name)], &PARAMS, schedule))
    });
    let params: Vec<(usize, &[usize], _)> =
        (0..old.len()).map(|group| (group, [2, 16].as_slice(), Dtype::F32)).collect();
    let together = old.iter().map(|name| small(name)).collect();
    let together = ("names".to_owned(), Toy::new(together, &params, "constant"));
    let own = own_cases().into_iter().map(|(name, toy)| (format!("own_{name}"), toy));
    named.chain(own).chain([together]).collect()
}

/// The versions, and the number of files of each.
const VERSIONS: [(u32, usize); 3] = [(1, 28), (2, 102), (3, 23)];
const NOW: u32 = 3;

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints").join(version.to_string())
}

fn evaluated(toy: &mut Toy) {
    let mut values: Vec<_> = toy.values.iter_mut().map(Buffer::data_mut).collect();
    toy.optimizer.eval(&mut values).unwrap();
}

/// `cargo test -p bitstep-trainer --test saved_files -- --ignored`: before the format changes.
#[test]
#[ignore = "writes the files of today's version"]
fn write() {
    let folder = folder(NOW);
    std::fs::create_dir_all(&folder).unwrap();
    let mut text = String::new();
    let own = |name: &str| name == "names" || name.starts_with("own_") && !name.contains("bit");
    let fresh = cases();
    for ((name, mut toy), mut loaded) in cases().into_iter().zip(fresh.into_values()) {
        if !own(&name) {
            continue;
        }
        (0..3).for_each(|t| toy.step(t));
        if name == "own_eval" {
            evaluated(&mut toy);
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
    for (version, count) in VERSIONS {
        let folder = folder(version);
        let text = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
        let mut toys = cases();
        assert_eq!(text.lines().count(), count);
        for (name, expected) in text.lines().filter_map(|line| line.split_once(' ')) {
            let file = Checkpoint::read(&folder.join(format!("{name}.safetensors"))).unwrap();
            let mut toy = toys.remove(name).unwrap();
            toy.load(&file).unwrap_or_else(|e| panic!("{version}/{name}: {e}"));
            assert_eq!(toy.told(), expected, "{version}/{name}");
        }
    }
}

/// The metadata of a file, and the file with other metadata.
fn about(bytes: &[u8]) -> Json {
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    serde_json::from_str(&metadata.metadata().as_ref().unwrap()["bitstep"]).unwrap()
}

fn with_about(bytes: &[u8], about: &Json) -> Vec<u8> {
    let (len, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let mut header: Json = serde_json::from_slice(header).unwrap();
    header["__metadata__"]["bitstep"] = about.to_string().into();
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes(), &header[..], data].concat()
}

/// The format's own keys and strings: all except the references' arguments and the caller's data.
fn own_words(json: &Json, to: &mut Vec<String>) {
    match json {
        Json::String(word) => to.push(word.clone()),
        Json::Array(list) => list.iter().for_each(|x| own_words(x, to)),
        Json::Object(map) => {
            for (key, value) in map {
                to.push(key.clone());
                let others = ["args", "replaced", "extra"].contains(&key.as_str());
                if !(others || key.starts_with("hyper.")) {
                    own_words(value, to);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn no_name_of_rust_is_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let identifier = Regex::new(r"\b[A-Z]\w*").unwrap();
    let mut seen = BTreeSet::new();
    for (case, mut toy) in cases() {
        toy.step(0);
        toy.save(&path);
        let debug = format!("{:?}{:?}", toy.optimizer, toy.schedulers);
        let identifiers: BTreeSet<&str> =
            identifier.find_iter(&debug).map(|m| m.as_str()).collect();
        let bytes = std::fs::read(&path).unwrap();
        let mut words = Vec::new();
        own_words(&about(&bytes), &mut words);
        words.extend(
            SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned),
        );
        for word in &words {
            let found = identifier.find_iter(word).find(|m| identifiers.contains(m.as_str()));
            assert!(found.is_none(), "{case}: {word}");
            assert!(!word.contains(['{', '(', '[', ' ']), "{case}: {word}");
        }
        seen.extend(identifiers.into_iter().map(str::to_owned));
    }
    // Checks that the search finds names.
    for name in [
        "AdamW",
        "FactoredRule",
        "Projected",
        "GaLore",
        "Eager",
        "Some",
        "Companded",
        "Bf16",
        "Kahan",
    ] {
        assert!(seen.contains(name), "{name}");
    }
}

#[test]
fn the_page_about_files_tells_every_key_and_rule() {
    fn keys(json: &Json, to: &mut BTreeSet<String>) {
        match json {
            Json::Array(list) => list.iter().for_each(|x| keys(x, to)),
            Json::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("hyper.")) {
                    to.insert(key.clone());
                    let others = ["args", "replaced", "extra", "scalars"].contains(&key.as_str());
                    if !others {
                        keys(value, to);
                    }
                }
            }
            _ => {}
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/checkpoints.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let mut words = BTreeSet::new();
    for (_, toy) in cases() {
        toy.save(&path);
        let about = about(&std::fs::read(&path).unwrap());
        keys(&about, &mut words);
        for group in about["groups"].as_array().unwrap() {
            let rule = group["recipe"]["rule"].as_str().unwrap();
            words.extend(rule.split('/').map(str::to_owned));
            words.insert(group["recipe"]["compute"].as_str().unwrap().to_owned());
        }
    }
    assert!(words.len() > 80);
    let untold: Vec<_> = words.iter().filter(|word| !page.contains(&format!("`{word}`"))).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

#[test]
fn what_no_version_wrote_is_an_error_that_names_it() {
    for version in [1, 2, 3] {
        let folder = folder(version);
        for name in ["own_groups", "own_scaled4", "own_weights_split8"] {
            let bytes = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
            let whole = about(&bytes);
            let refused = |about: &Json, what: &str| {
                let mut toy = cases().remove(name).unwrap();
                let before = toy.sum();
                let file = Checkpoint::parse(with_about(&bytes, about));
                let error = file.map_err(|e| e.to_string()).and_then(|file| toy.load(&file));
                let error = error.expect_err(&format!("{version}/{name}: {what} was taken"));
                assert_eq!(toy.sum(), before, "{version}/{name}: {what}");
                error
            };
            let spec = whole["groups"][0]["recipe"].as_object().unwrap();
            for key in spec.keys().filter(|key| !key.starts_with("hyper.")) {
                let mut about = whole.clone();
                let other = match &spec[key] {
                    Json::String(word) => (word.clone() + "x").into(),
                    Json::Number(n) => (n.as_u64().unwrap() + 1).into(),
                    Json::Array(list) => [&list[..], &["gone:4".into()]].concat().into(),
                    _ => Json::from("f8"),
                };
                about["groups"][0]["recipe"][key] = other.clone();
                let error = refused(&about, key);
                let text = other.to_string();
                let told = error.contains(&text[..text.len().min(70)]);
                assert!(told && error.contains(&format!("`{key}`")), "{other}: {error}");
                about["groups"][0]["recipe"].as_object_mut().unwrap().remove(key);
                let error = refused(&about, key);
                assert!(error.contains(&format!("`{key}`")), "{error}");
            }
            let known =
                "known are bitstep-checkpoint/1, bitstep-checkpoint/2, bitstep-checkpoint/3";
            for format in ["bitstep-checkpoint/4", "bitstep-checkpoint/", "other/1", ""] {
                let mut about = whole.clone();
                about["format"] = format.into();
                let expected = format!("`format` is {:?}, {known}", format);
                assert_eq!(refused(&about, "format"), expected);
            }
            let mut about = whole.clone();
            about.as_object_mut().unwrap().remove("format");
            assert_eq!(refused(&about, "format"), format!("`format` is nothing, {known}"));
            let mut about = whole.clone();
            about["mode"] = "tested".into();
            assert!(refused(&about, "mode").contains("tested"));
            if version > 1 {
                let mut about = whole.clone();
                about["schedules"][0]["name"] = "cosin".into();
                assert!(refused(&about, "name").contains("cosin"));
            }
        }
    }
}

/// bitsandbytes' key of the scales is not the key of the codes with a suffix.
#[test]
fn no_name_of_a_parameter_makes_two_tensors_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let toy = || {
        let params: [(usize, &[usize], _); 2] = [(0, &[64], Dtype::F32), (0, &[64], Dtype::F32)];
        let mut toy = Toy::new(vec![small("adamw_bnb_8bit")], &params, "constant");
        toy.names = vec!["state1".to_owned(), "absmax1".to_owned()];
        toy
    };
    let (mut saved, mut loaded) = (toy(), toy());
    saved.step(0);
    saved.save(&path);
    loaded.load(&Checkpoint::read(&path).unwrap()).unwrap();
    assert_eq!(loaded.sum(), saved.sum());
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for key in ["state1", "absmax1", "state2", "absmax2"] {
        assert!(file.tensor(&format!("state1/{key}")).is_ok(), "{key}");
    }
}

/// No name has such a rule, whose saved name was that of its wrapper only.
#[test]
fn a_rule_that_is_only_wrapped_loads_from_version_2() {
    let bytes = std::fs::read(folder(2).join("own_state_f32.safetensors")).unwrap();
    let with = |rule: &str| {
        let mut about = about(&bytes);
        for spec in ["recipe", "made"] {
            about["groups"][0][spec]["rule"] = rule.into();
        }
        let mut toy = cases().remove("own_state_f32").unwrap();
        let rule = AdamW { lr: 0.02, weight_decay: 0.1, ..AdamW::default() };
        for group in toy.optimizer.groups_mut() {
            (group.spec.rule, group.original_spec.rule) =
                (Box::new(ForceF32(rule)), Box::new(ForceF32(rule)));
        }
        toy.load(&Checkpoint::parse(with_about(&bytes, &about)).unwrap())
    };
    assert_eq!(with("Single"), Ok(()));
    let error = "group 0: `rule` was \"AdamW\" and is \"f32/adamw\"";
    assert_eq!(with("AdamW").unwrap_err(), error);
}

/// `warmup_steps` used to be an integer: files do not depend on an argument's Rust type.
#[test]
fn a_whole_number_is_a_number() {
    let bytes = std::fs::read(folder(NOW).join("own_eval.safetensors")).unwrap();
    let mut about = about(&bytes);
    for spec in ["recipe", "made"] {
        about["groups"][0][spec]["hyper.warmup_steps"] = 0.into();
    }
    let load = |about: &Json| {
        let mut toy = cases().remove("own_eval").unwrap();
        toy.load(&Checkpoint::parse(with_about(&bytes, about)).unwrap()).map(|()| toy.sum())
    };
    assert_eq!(load(&about), load(&self::about(&bytes)));
    for spec in ["recipe", "made"] {
        about["groups"][0][spec]["hyper.warmup_steps"] = 1.into();
    }
    let error = load(&about).unwrap_err();
    assert_eq!(error, "group 0: `hyper.warmup_steps` was 1 and is 0.0");
}

/// Every name with every parameter type and every storage of state and parameter.
#[test]
fn every_name_type_and_storage_goes_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let formats = own_formats();
    let weights = [
        ParamStorage::Plain,
        ParamStorage::Split(8),
        ParamStorage::Split(16),
        ParamStorage::Kahan,
        ParamStorage::Stochastic(7),
    ];
    let dtypes = [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16];
    for entry in OPTIMIZERS {
        let toy = || {
            let (mut specs, mut params): (_, Vec<(usize, &[usize], _)>) = (Vec::new(), Vec::new());
            for (i, &format) in formats.iter().enumerate() {
                let mut spec = small(entry.name);
                let slots = vec![Some(format); spec.rule.info().slots.len()];
                let weights = weights[i % weights.len()];
                spec.storage = StorageConfig {
                    slot_formats: slots,
                    min_len: 0,
                    len_multiple: 1,
                    param: weights,
                };
                specs.push(spec);
                params.extend(dtypes.map(|dtype| (i, [4, 16].as_slice(), dtype)));
                params.push((i, &[3], Dtype::Bf16));
            }
            Toy::new(specs, &params, "constant")
        };
        let (mut saved, mut loaded) = (toy(), toy());
        assert!(saved.names.len() >= formats.len() * dtypes.len(), "{}", entry.name);
        (0..2).for_each(|t| saved.step(t));
        saved.save(&path);
        loaded.load(&Checkpoint::read(&path).unwrap()).unwrap();
        assert_eq!(loaded.sum(), saved.sum(), "{}", entry.name);
        saved.step(2);
        loaded.step(2);
        assert_eq!(loaded.sum(), saved.sum(), "{} a step later", entry.name);
    }
}
