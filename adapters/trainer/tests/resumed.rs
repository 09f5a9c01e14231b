//! Files of the reference (`export/resumed.py`): loss scales, learning rates as numpy scalars, schedules
//! with other arguments and of other kinds. Whole runs are compared in `conformance/tests/resume.rs`.

use std::path::{Path, PathBuf};

use bitstep::float::Dtype;
use bitstep::gradient::LossScale;
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::{Buffer, GroupId, Optimizer};
use bitstep::registry;
use bitstep::schedule::{self, Scheduler};
use bitstep_trainer::resume::{self, ResumeError};
use bitstep_trainer::torch;
use serde_json::Value as Json;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/resumed").join(name)
}

fn json(name: &str) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn loss_scale_goes_on_as_torchs() {
    let mut scale = LossScale::default();
    resume::loss_scale(&mut scale, &torch::scaler(path("scaler/scaler.pt")).unwrap()).unwrap();
    assert_eq!((scale.scale, scale.good_steps), (256.0, 5));
    let want = json("scaler/scale.json");
    let rows: Vec<_> = want["rows"].as_array().unwrap().iter().map(numbers).collect();
    assert_eq!(rows[0], [256.0, 5.0]);
    for (good, row) in numbers(&want["good"]).iter().zip(&rows[1..]) {
        scale.update(*good == 1.0);
        assert_eq!(row[..], [scale.scale, scale.good_steps as f64]);
    }
    // torch too refuses the empty dictionary of a disabled scale.
    let before = scale;
    let disabled = torch::scaler(path("scaler/disabled.pt")).unwrap();
    let error = resume::loss_scale(&mut scale, &disabled).unwrap_err();
    assert_eq!(error.to_string(), "loss scale: no `scale` in the checkpoint");
    assert_eq!(scale, before);
}

/// torch casts state to the type of its parameter, whatever type the rule uses.
#[test]
fn state_under_16_bit_parameters_is_rounded_as_torch_rounds_it() {
    let state = torch::optimizer(path("adafactor_bf16/optimizer.pt")).unwrap();
    let counts: Vec<usize> = state.groups.iter().map(|(count, _)| *count).collect();
    let read = |dtype| {
        let mut optimizer = Optimizer::empty();
        for _ in &counts {
            let args = Args::parse("relative_step=False, scale_parameter=False, lr=0.1").unwrap();
            optimizer.add_group(registry::optimizer("adafactor", &args).unwrap()).unwrap();
        }
        let shapes: [&[usize]; 5] = [&[8, 6], &[3, 8], &[8], &[8], &[8]];
        for (i, shape) in shapes.iter().enumerate() {
            optimizer.add_param_to(GroupId(usize::from(i >= counts[0])), shape, dtype).unwrap();
        }
        resume::optimizer(&mut optimizer, &[0, 1, 2, 3, 4], &state).unwrap();
        let slots = optimizer.params().iter().flat_map(|p| p.slots.clone());
        slots
            .flat_map(|slot| match slot {
                Buffer::F32(x) => x,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<f32>>()
    };
    let (wide, narrow) = (read(Dtype::F32), read(Dtype::Bf16));
    let rounded: Vec<f32> = wide.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    assert_eq!(narrow, rounded);
    assert!(narrow.iter().zip(&wide).filter(|(a, b)| a != b).count() > 30);
}

fn schedule(name: &str, args: &str) -> Scheduler {
    schedule::build(name, &Args::parse(args).unwrap()).unwrap()
}

#[test]
fn rates_of_numpys_are_rates() {
    let mut optimizer = Optimizer::empty();
    let sgd = Args::parse("lr=7.0, momentum=0.9").unwrap();
    optimizer.add_group(registry::optimizer("sgd", &sgd).unwrap()).unwrap();
    optimizer.add_param_to(GroupId(0), &[2], Dtype::F32).unwrap();
    let mut linear = schedule("linear", "lr=7.0, num_warmup_steps=2, num_training_steps=10");
    let state = torch::optimizer(path("numpy_rates/optimizer.pt")).unwrap();
    let saved = torch::scheduler(path("numpy_rates/scheduler.pt")).unwrap();
    resume::run(&mut optimizer, &[0], &state, &mut linear, &saved).unwrap();
    assert_eq!((optimizer.groups()[0].lr, linear.lrs()), (0.0625, &[0.0625][..]));
    let args = Args::of(optimizer.groups_mut()[0].spec.rule.hyper_params());
    assert_eq!(args.get("momentum"), Some(&Value::Float(0.5)));
    // 0.1 (10 − 6)/(10 − 2)
    optimizer.step_schedule(&mut linear, &[GroupId(0)], &[]).unwrap();
    assert_eq!(optimizer.groups()[0].lr, 0.05);
}

#[test]
fn torchs_own_schedules_go_on_with_the_arguments_of_the_checkpoint() {
    let rows = json("own/rates.json");
    let rows = rows.as_object().unwrap();
    assert!(rows.len() >= 9);
    for (name, row) in rows {
        let mut args = Args::parse("lr=0.1").unwrap();
        for (name, value) in row["other"].as_object().unwrap() {
            let number = |json: &Json| match json.as_i64() {
                Some(i) => Value::Int(i),
                None => Value::Float(json.as_f64().unwrap()),
            };
            args.set(
                name,
                match value {
                    Json::Array(list) => Value::List(list.iter().map(number).collect()),
                    value => number(value),
                },
            );
        }
        let mut scheduler = schedule::build(name, &args).unwrap();
        let saved = torch::scheduler(path(&format!("own/{name}.pt"))).unwrap();
        resume::scheduler(&mut scheduler, &saved).unwrap();
        let mut got = vec![scheduler.lrs()[0]];
        for (t, momentum) in numbers(&row["momentum"]).iter().enumerate().skip(1) {
            got.push(scheduler.step(&[]).unwrap()[0]);
            if let Some(got) = scheduler.momentum(0) {
                assert!((got - momentum).abs() <= 1e-15, "{name}, {t}: {got} {momentum}");
            }
        }
        for (t, (got, want)) in got.iter().zip(numbers(&row["lr"])).enumerate() {
            assert!((got - want).abs() <= 1e-15 * want.abs(), "{name}, {t}: {got} {want}");
        }
    }
}

#[test]
fn a_schedule_of_another_kind_is_refused() {
    let linear = "lr=0.1, num_warmup_steps=2, num_training_steps=10";
    let kinds = [
        ("linear_other_rate", "linear", linear),
        ("plateau_other", "reduce_lr_on_plateau", ""),
        ("greedy_other", "greedy", ""),
        ("own/torch_step.pt", "torch_step", "step_size=3"),
    ];
    for (run, kind, _) in kinds {
        let file = if run.ends_with(".pt") { path(run) } else { path(run).join("scheduler.pt") };
        let saved = torch::scheduler(file).unwrap();
        for (_, name, args) in kinds {
            let mut args = Args::parse(args).unwrap();
            let lrs = if name == "torch_step" { vec![0.1] } else { vec![0.1, 0.1] };
            args.set("lr", Value::from(lrs));
            let mut scheduler = schedule::build(name, &args).unwrap();
            let before = scheduler.state().clone();
            match resume::scheduler(&mut scheduler, &saved) {
                Ok(()) => assert_eq!(kind, name),
                Err(ResumeError::Schedule { .. }) => {
                    assert_ne!(kind, name);
                    assert_eq!(scheduler.state(), &before);
                }
                Err(error) => panic!("{run} for {name}: {error}"),
            }
        }
    }
}
