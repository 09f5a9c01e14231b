//! Fuzz targets for parsers of untrusted files: any bytes give an error or a valid value, never a panic.

use arbitrary::{Result, Unstructured};
use bitstep::float::Dtype;
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::Optimizer;
use bitstep::registry;
use bitstep::schedule::{NAMES, build};
use bitstep_conformance::exec::check_answer;
use bitstep_conformance::tensor::{Dtype as Float, Tensor};
use bitstep_trainer::checkpoint::Checkpoint;
use bitstep_trainer::resume::{self, State};
use bitstep_trainer::{Arguments, ModelLayers, Parameter};

use crate::input::{any_trial, named, number, value};
use crate::pickles::pickles;
use crate::run::Run;

/// A program's answer to a request for two steps of two parameters.
///
/// # Panics
/// If reading it panics.
pub fn answers(data: &[u8]) {
    let single = Tensor { dtype: Float::F32, shape: vec![2], bytes: vec![0; 8] };
    let double = Tensor::f64(&[], &[0.0]);
    drop(check_answer(data, &[&single, &double], 2));
}

/// A checkpoint, which is restored into an optimizer completely or not at all.
///
/// # Panics
/// If it is restored in part, or a step from there panics.
pub fn checkpoints(data: &[u8]) {
    let Ok(checkpoint) = Checkpoint::parse(data.to_vec()) else { return };
    drop(checkpoint.extra());
    let mut optimizer = Optimizer::empty();
    let spec = registry::optimizer("adamw_torch", Args::new()).expect("defaults are valid");
    let group = optimizer.add_group(spec).expect("a valid spec");
    optimizer.add_param_to(group, &[3], Dtype::F32).expect("a group that exists");
    let names = ["w".to_owned()];
    let mut value = bitstep::optimizer::Buffer::F32(vec![1.0, 2.0, 3.0]);
    let mut schedulers = [build("constant", &Args::new()).expect("no arguments")];
    let before = format!("{optimizer:?} {value:?} {schedulers:?}");
    let mut values = [value.data_mut()];
    if checkpoint.restore(&mut optimizer, &names, &mut schedulers, &mut values).is_err() {
        assert_eq!(format!("{optimizer:?} {value:?} {schedulers:?}"), before);
    } else {
        let grad = [1.0f32; 3];
        let grad = Some(bitstep::storage::Data::F32(&grad));
        let params = &mut [bitstep::optimizer::Param { value: value.data_mut(), grad }];
        let _ = optimizer.step_all(params, &[]);
        let _ = schedulers[0].step(&[]);
    }
}

/// A `TrainingArguments` file, a file of a model's layers, and `optim_args` text.
///
/// # Panics
/// If reading it, or setting it up, panics.
pub fn arguments(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(layers) = ModelLayers::from_json(&text) {
        assert!(layers.all().iter().all(|p| layers.get(&p.name) == Some(p)));
    }
    if let Ok(args) = Args::parse(&text) {
        drop(registry::optimizer("adamw_torch", &args));
        drop(build("cosine", &args));
    }
    let Ok(arguments) = Arguments::from_json(&text) else { return };
    let parameters = [Parameter::new("up.weight", &[4, 2]), Parameter::new("up.bias", &[4])];
    if let Ok(mut setup) = arguments.setup(&parameters, Some(10)) {
        let _ = setup.scheduler.step(&[]);
        let _ = setup.scheduler.step(&[1.0]);
    }
}

/// The reference's state, with any keys and values or from any pickle, which is restored into an optimizer or a
/// schedule completely or not at all.
///
/// # Panics
/// If it is restored in part, or a step from there panics.
pub fn resumed(data: &[u8]) {
    if !pickles(data) {
        let _ = try_resumed(&mut Unstructured::new(data));
    }
}

fn try_resumed(u: &mut Unstructured<'_>) -> Result<()> {
    if u.arbitrary()? {
        let name = named(u, NAMES)?;
        let Ok(mut scheduler) = build(name, &Args::parse("num_warmup_steps=2").unwrap_or_default())
            .or_else(|_| build("constant", &Args::new()))
        else {
            return Ok(());
        };
        let keys = ["last_epoch", "_last_lr", "best", "num_bad_epochs", "cooldown_counter"];
        let mut state = Args::new();
        for key in keys {
            let any = match key {
                "_last_lr" => Value::List(vec![value(u)?]),
                _ => value(u)?,
            };
            state.set(key, any);
        }
        let before = format!("{scheduler:?}");
        if resume::scheduler(&mut scheduler, &state).is_err() {
            assert_eq!(format!("{scheduler:?}"), before);
        }
        let _ = scheduler.step(&[]);
        let _ = scheduler.step(&[number(u)?]);
        return Ok(());
    }
    let trial = any_trial(u)?;
    let mut run = Run::new(&trial);
    let mut rule = run.optimizer.groups()[0].spec.rule.clone();
    let mut group = Args::of(rule.hyper_params());
    for _ in 0..u.int_in_range(0..=2)? {
        let at = usize::from(u.arbitrary::<u8>()?) % group.iter().count().max(1);
        let name = group.iter().nth(at).map(|(name, _)| name.to_owned());
        let resource = |name: &str| ["rank", "ns_steps"].contains(&name);
        if let Some(name) = name.filter(|name| !resource(name)) {
            group.set(&name, value(u)?);
        }
    }
    if u.arbitrary()? {
        group.set("train_mode", value(u)?);
        group.set("k", value(u)?);
    }
    let mut state = std::collections::BTreeMap::new();
    let param = &run.optimizer.params()[0];
    let slots = rule.info().slots.iter().zip(&param.slots).map(|(name, slot)| (*name, slot.len()));
    let others = rule.info().scalar_names.iter().map(|name| (*name, 1));
    for (name, len) in slots.chain(others).chain([(rule.info().step_key, 1)]) {
        let len = if u.arbitrary::<u8>()? == 1 { len + 1 } else { len };
        let few = (0..len.min(4)).map(|_| number(u)).collect::<Result<Vec<_>>>()?;
        if u.arbitrary::<u8>()? != 1 {
            state.insert(name.to_owned(), few.into_iter().cycle().take(len).collect());
        }
    }
    let state = State { params: vec![state], groups: vec![(1, group)] };
    let before = run.bits();
    if resume::optimizer(&mut run.optimizer, &[0], &state).is_err() {
        assert_eq!(run.bits(), before);
        run.steps(&trial, 0..trial.steps());
    } else {
        // A changed hyper-parameter may refuse the shape: an error, not a panic.
        (0..trial.steps()).for_each(|t| {
            let _ = run.step(&trial, t);
        });
    }
    Ok(())
}
