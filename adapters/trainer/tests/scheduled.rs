//! Schedules of optimizers, compared with torch (`export/momentum.py`): cycled momentum, and learning
//! rates that are set by hand between steps.

use std::path::Path;

use bitstep::float::Dtype;
use bitstep::hyper::{ArgError, Args, Value};
use bitstep::optimizer::{GroupId, Optimizer, Param};
use bitstep::registry;
use bitstep::schedule::{self, Scheduler};
use bitstep::storage::{Data, DataMut};
use serde_json::Value as Json;

fn cases(name: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap()), Value::Int),
        Json::String(s) => Value::Str(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        Json::Object(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), value(v))).collect()),
    }
}

fn args(json: &Json) -> Args {
    json.as_object().unwrap().iter().map(|(name, json)| (name.clone(), value(json))).collect()
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The optimizer of a case without its schedule, and the schedule or its error.
fn made(case: &Json) -> (Optimizer, Result<Scheduler, ArgError>) {
    let optim = case["optimizer"].as_str().unwrap();
    let spec = registry::optimizer(optim, args(&case["args"])).unwrap();
    let mut optimizer = Optimizer::empty();
    for group in case["groups"].as_array().unwrap() {
        let group = optimizer.add_group(spec.with_args(&args(group)).unwrap()).unwrap();
        optimizer.add_param_to(group, &[1], Dtype::F64).unwrap();
    }
    let mut all = args(&case["schedule_args"]);
    all.set("lr", spec.rule.lr());
    let lrs = optimizer.groups().iter().map(|g| Value::Map(vec![("lr".into(), g.lr.into())]));
    all.set("groups", Value::List(lrs.collect()));
    (optimizer, schedule::build(case["schedule"].as_str().unwrap(), &all))
}

fn momentum(optimizer: &mut Optimizer, group: usize) -> Option<f64> {
    let all = Args::of(optimizer.groups_mut()[group].spec.rule.hyper_params());
    match (all.get("betas"), all.get("momentum")) {
        (Some(betas), _) => betas.as_list().unwrap()[0].as_f64(),
        (_, momentum) => momentum.and_then(Value::as_f64),
    }
}

fn near(got: f64, want: f64, ulps: f64) -> bool {
    (got - want).abs() <= ulps * f64::EPSILON * want.abs()
}

/// Runs a case; returns the number of rows compared.
fn run(case: &Json) -> usize {
    let title = format!("{} over {}", case["schedule"], case["optimizer"]);
    let (mut optimizer, scheduler) = made(case);
    let groups: Vec<_> = (0..optimizer.groups().len()).map(GroupId).collect();
    let mut scheduler = scheduler.unwrap();
    let followed = optimizer.follow(&scheduler, &groups);
    if case["refused"].is_string() {
        let error = followed.unwrap_err().to_string();
        assert!(error.contains("cycle_momentum"), "{title}: {error}");
        return 1;
    }
    followed.unwrap();
    let mut p = vec![[1.0f64]; groups.len()];
    let rows = case["p"].as_array().unwrap();
    for (t, row) in rows.iter().enumerate() {
        let (lrs, momenta) = (numbers(&case["lr"][t]), case["momentum"][t].as_array().unwrap());
        for &g in &groups {
            let lr = optimizer.groups()[g.0].lr;
            assert!(near(lr, lrs[g.0], 4.0), "{title}, step {t}: lr {lr}, wanted {}", lrs[g.0]);
            if let Some(want) = momenta[g.0].as_f64() {
                let got = momentum(&mut optimizer, g.0).unwrap();
                assert!(near(got, want, 4.0), "{title}, step {t}: momentum {got}, wanted {want}");
            }
            // torch uses fused multiply-add in some places.
            let (got, want) = (p[g.0][0], row[g.0].as_f64().unwrap());
            let bound = 1e-13 * want.abs().max(1.0);
            assert!((got - want).abs() <= bound, "{title}, step {t}: {got}, wanted {want}");
        }
        if t + 1 == rows.len() {
            break;
        }
        let grads: Vec<_> =
            groups.iter().map(|&g| [1.0 + t as f64 / 2.0 + g.0 as f64 / 4.0]).collect();
        let mut params: Vec<_> = p
            .iter_mut()
            .zip(&grads)
            .map(|(p, g)| Param { value: DataMut::F64(p), grad: Some(Data::F64(g)) })
            .collect();
        optimizer.step_all(&mut params, &[]).unwrap();
        let metric: Vec<f64> = case["metric"][t].as_f64().into_iter().collect();
        optimizer.step_schedule(&mut scheduler, &groups, &metric).unwrap();
        if let Some(set) = case["by_hand"].get((t + 1).to_string()) {
            for (group, lr) in optimizer.groups_mut().iter_mut().zip(numbers(set)) {
                group.lr = lr;
            }
        }
    }
    rows.len()
}

#[test]
fn momentum_is_cycled_as_torch_cycles_it() {
    let cases = cases("momentum.json");
    assert!(cases.len() >= 29);
    let rows: usize = cases.iter().map(run).sum();
    assert!(rows >= 230, "{rows} rows were compared");
}

#[test]
fn a_rate_set_by_hand_is_gone_on_from_where_torch_goes_on_from_it() {
    let cases = cases("by_hand.json");
    assert!(cases.len() >= 14);
    let rows: usize = cases.iter().map(run).sum();
    assert!(rows >= 180, "{rows} rows were compared");
}

#[test]
fn a_step_that_is_refused_changes_neither_rates_nor_schedule() {
    let mut optimizer = Optimizer::empty();
    optimizer.add_group(registry::optimizer("sgd", Args::new()).unwrap()).unwrap();
    let args = Args::parse("max_lr=0.1, total_steps=4").unwrap();
    let mut cycle = schedule::build("torch_one_cycle", &args).unwrap();
    assert!(optimizer.follow(&cycle, &[GroupId(1)]).is_err(), "no such group");
    assert!(
        optimizer.follow(&cycle, &[GroupId(0), GroupId(0)]).is_err(),
        "two groups for a schedule of one"
    );
    optimizer.follow(&cycle, &[GroupId(0)]).unwrap();
    (0..4).for_each(|_| optimizer.step_schedule(&mut cycle, &[GroupId(0)], &[]).unwrap());
    optimizer.groups_mut()[0].lr = 7.0;
    let before = cycle.state().clone();
    assert!(optimizer.step_schedule(&mut cycle, &[GroupId(0)], &[]).is_err(), "past its end");
    assert_eq!((cycle.state(), optimizer.groups()[0].lr), (&before, 7.0));
}
