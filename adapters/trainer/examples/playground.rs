//! usage: playground REPORT.json
//!
//! Computes the runs of docs/playground again, natively: parameters, losses and learning rates must have the bits that
//! WebAssembly reported, refusals the same words, and the JSON of the training arguments has to lead to the same
//! optimizer and the same rates. `.ci/web` writes the report, in Node and in a browser.

use std::error::Error;

use bitstep::gradient::ClipGradNorm;
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::{Optimizer, ParamId};
use bitstep::prelude::{Data, DataMut, Dtype, registry};
use bitstep::schedule::{self, Scheduler};
use bitstep_trainer::{Arguments, GroupKind, TrainingArguments};
use half::bf16;
use serde::Deserialize;

/// A run, with what WebAssembly found.
#[derive(Deserialize)]
struct Reported {
    settings: Settings,
    run: Run,
    /// What was thrown, if anything.
    error: Option<String>,
    /// The bits of the final parameters, and all of losses and rates.
    #[serde(default)]
    bits: Vec<String>,
    /// The training arguments, if Trainer can make this run.
    trainer: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Settings {
    surface: String,
    start: [f64; 2],
    steps: usize,
    noise: f64,
    seed: u32,
    dtype: String,
    clip: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    optimizer: String,
    args: serde_json::Value,
    schedule: String,
    schedule_args: serde_json::Value,
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => {
            n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        Json::String(s) => Value::Str(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        Json::Object(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), value(v))).collect()),
    }
}

fn args(json: &serde_json::Value) -> Args {
    json.as_object().into_iter().flatten().map(|(name, json)| (name.clone(), value(json))).collect()
}

/// As in docs/playground/surfaces.js, operation by operation.
fn loss(surface: &str, x: f64, y: f64) -> f64 {
    match surface {
        "valley" => (x * x) / 20.0 + 2.0 * (y * y),
        "rosenbrock" => {
            let (a, b) = (1.0 - x, y - x * x);
            a * a + 100.0 * (b * b)
        }
        "beale" => {
            let [a, b, c] = beale(x, y);
            a * a + b * b + c * c
        }
        other => panic!("unknown surface {other}"),
    }
}

fn beale(x: f64, y: f64) -> [f64; 3] {
    [1.5 - x + x * y, 2.25 - x + x * (y * y), 2.625 - x + x * (y * y * y)]
}

fn gradient(surface: &str, x: f64, y: f64) -> [f64; 2] {
    match surface {
        "valley" => [x / 10.0, 4.0 * y],
        "rosenbrock" => {
            let b = y - x * x;
            [-2.0 * (1.0 - x) - 400.0 * (x * b), 200.0 * b]
        }
        "beale" => {
            let [a, b, c] = beale(x, y);
            [
                2.0 * (a * (y - 1.0) + b * (y * y - 1.0) + c * (y * y * y - 1.0)),
                2.0 * (a * x + b * (2.0 * (x * y)) + c * (3.0 * (x * (y * y)))),
            ]
        }
        other => panic!("unknown surface {other}"),
    }
}

fn noise(seed: u32, step: usize, coordinate: u32) -> f64 {
    let mut h = seed.wrapping_add((step as u32).wrapping_mul(2)).wrapping_add(coordinate);
    h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
    h ^= h >> 16;
    f64::from((h & 255) + (h >> 8 & 255) + (h >> 16 & 255) + (h >> 24)) / 255.0 - 2.0
}

/// Two numbers of either type.
enum Pair {
    F32([f32; 2]),
    Bf16([bf16; 2]),
}

impl Pair {
    fn of(dtype: &str, [x, y]: [f64; 2]) -> Pair {
        let [x, y] = [x as f32, y as f32];
        match dtype {
            "bf16" => Pair::Bf16([bf16::from_f32(x), bf16::from_f32(y)]),
            _ => Pair::F32([x, y]),
        }
    }
    fn get(&self) -> [f64; 2] {
        match self {
            Pair::F32(p) => p.map(f64::from),
            Pair::Bf16(p) => p.map(f64::from),
        }
    }
    fn data(&self) -> Data<'_> {
        match self {
            Pair::F32(p) => p.into(),
            Pair::Bf16(p) => p.into(),
        }
    }
    fn data_mut(&mut self) -> DataMut<'_> {
        match self {
            Pair::F32(p) => p.into(),
            Pair::Bf16(p) => p.into(),
        }
    }
}

fn bits(x: f64) -> String {
    if x.is_nan() { "nan".into() } else { format!("{:016x}", x.to_bits()) }
}

fn group(optimizer: &Optimizer) -> Args {
    Args::of(optimizer.groups()[0].spec.rule.clone().hyper_params())
}

fn build(
    settings: &Settings,
    run: &Run,
) -> Result<(Optimizer, ParamId, Scheduler), Box<dyn Error>> {
    let mut optimizer = Optimizer::new(registry::optimizer(&run.optimizer, args(&run.args))?)?;
    let dtype = if settings.dtype == "bf16" { Dtype::Bf16 } else { Dtype::F32 };
    let w = match optimizer.add_param(&[2], dtype) {
        Ok(w) => w,
        Err(_) => optimizer.add_param(&[1, 2], dtype)?,
    };
    let mut all = Args::new().with("lr", optimizer.groups()[0].lr);
    args(&run.schedule_args).iter().for_each(|(name, value)| all.set(name, value.clone()));
    let scheduler = schedule::build(&run.schedule, &all)?;
    Ok((optimizer, w, scheduler))
}

/// The bits of the final parameters and of every loss and rate.
fn train(settings: &Settings, run: &Run) -> Result<Vec<String>, Box<dyn Error>> {
    let (mut optimizer, w, mut scheduler) = build(settings, run)?;
    let groups = [bitstep::optimizer::GroupId(0)];
    let needs_metric = scheduler.clone().step(&[1.0]).is_ok();
    optimizer.follow(&scheduler, &groups)?;
    let mut p = Pair::of(&settings.dtype, settings.start);
    let at = |p: &Pair| loss(&settings.surface, p.get()[0], p.get()[1]);
    let (mut losses, mut rates) = (vec![bits(at(&p))], Vec::new());
    for t in 0..settings.steps {
        let [x, y] = p.get();
        let mut g = gradient(&settings.surface, x, y);
        for (i, g) in g.iter_mut().enumerate() {
            *g += settings.noise * noise(settings.seed, t, i as u32);
        }
        let mut g = Pair::of(&settings.dtype, g);
        if settings.clip > 0.0 {
            let clip =
                ClipGradNorm { max_norm: settings.clip, norm_type: 2.0, error_if_nonfinite: false };
            clip.clip(&mut [g.data_mut()])?;
        }
        rates.push(bits(optimizer.groups()[0].lr));
        optimizer.step([(w, p.data_mut(), g.data())])?;
        let now = at(&p);
        losses.push(bits(now));
        if t + 1 < settings.steps {
            let metrics: &[f64] = if needs_metric { &[now] } else { &[] };
            optimizer.step_schedule(&mut scheduler, &groups, metrics)?;
        }
    }
    optimizer.eval(&mut [p.data_mut()])?;
    let mut all = p.get().map(bits).to_vec();
    all.extend(losses);
    all.extend(rates);
    Ok(all)
}

/// The training arguments lead to the same optimizer and the same rates.
fn check_trainer(reported: &Reported, json: &serde_json::Value) -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::from_json(&json.to_string())?;
    let training: &TrainingArguments = &arguments.training;
    let (optimizer, _, mut mine) = build(&reported.settings, &reported.run)?;
    let mut spec = training.optimizer_spec(GroupKind::Decay)?;
    let (theirs, ours) = (Args::of(spec.rule.hyper_params()), group(&optimizer));
    for (name, value) in ours.iter() {
        let of = theirs.get(name);
        let equal = of == Some(value)
            || matches!((of.and_then(Value::as_f64), value.as_f64()), (Some(a), Some(b)) if a == b);
        if !equal {
            return Err(format!("`{name}` is {value} here, and {of:?} by {json}").into());
        }
    }
    let steps = reported.settings.steps as u64;
    if arguments.max_steps != Some(steps) {
        return Err("another number of steps".into());
    }
    let mut trainers = training.scheduler(&[spec.rule.lr()], steps)?;
    if training.has_single_rates() {
        return Ok(()); // its rates are f32, as torchao's optimizers have them
    }
    let needs_metric = mine.clone().step(&[1.0]).is_ok();
    for step in 0..steps {
        if trainers.lrs() != mine.lrs() {
            return Err(
                format!("step {step}: {:?}, {:?} by {json}", mine.lrs(), trainers.lrs()).into()
            );
        }
        let metrics: &[f64] = if needs_metric { &[1.0 / (step + 1) as f64] } else { &[] };
        if step + 1 < steps {
            trainers.step(metrics)?;
            mine.step(metrics)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: playground REPORT.json")?;
    let all: Vec<Reported> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let (mut wrong, mut refused, mut trained) = (0, 0, 0);
    for reported in &all {
        let Settings { surface, dtype, .. } = &reported.settings;
        let what =
            format!("{}, {}, {surface}, {dtype}", reported.run.optimizer, reported.run.schedule);
        match (train(&reported.settings, &reported.run), &reported.error) {
            (Ok(bits), None) if bits == reported.bits => {}
            (Err(here), Some(there)) if here.to_string() == *there => refused += 1,
            (Ok(bits), None) => {
                wrong += 1;
                let at = bits.iter().zip(&reported.bits).position(|(a, b)| a != b);
                println!(
                    "{what}: other bits, the first at {at:?} of {} and {}",
                    bits.len(),
                    reported.bits.len()
                );
            }
            (here, there) => {
                wrong += 1;
                println!(
                    "{what}: here {:?}, there {there:?}",
                    here.map(|_| "fine").map_err(|e| e.to_string())
                );
            }
        }
        if let Some(json) = &reported.trainer {
            trained += 1;
            if let Err(error) = check_trainer(reported, json) {
                wrong += 1;
                println!("{what}: training arguments: {error}");
            }
        }
    }
    println!(
        "{} runs, {refused} of them refused, with the host's bits; {trained} of Trainer's arguments",
        all.len()
    );
    if all.is_empty() || trained == 0 || wrong > 0 {
        return Err(format!("{wrong} of {} runs differ", all.len()).into());
    }
    Ok(())
}
