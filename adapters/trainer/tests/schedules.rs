//! Every schedule at the edges of its arguments, compared with Transformers and torch.

use bitstep::float::Dtype;
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::{Optimizer, Param};
use bitstep::registry::optimizer;
use bitstep::schedule::build;
use bitstep::storage::{Data, DataMut};
use serde_json::Value as Json;

/// Arguments that are refused here although the reference continues with finite rates, and why. `None`
/// stands for any value of the argument.
const REFUSED: &[(&str, &str, Option<&str>, &str)] = &[
    ("", "", Some("-1"), "a count is not negative"),
    ("reduce_lr_on_plateau", "factor", Some("\"nan\""), "no rate would ever change"),
    ("greedy", "factor", Some("\"nan\""), "no rate would ever change"),
];

fn number(json: &Json) -> f64 {
    match json.as_str() {
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        Some(_) => f64::NAN,
        None => json.as_f64().unwrap(),
    }
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::String(s) if matches!(s.as_str(), "inf" | "-inf" | "nan") => {
            Value::Float(number(json))
        }
        Json::String(s) => Value::Str(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        Json::Number(n) => n.as_i64().map_or_else(|| Value::Float(number(json)), Value::Int),
        Json::Object(_) => panic!("no argument of these is a dictionary"),
    }
}

/// The rates up to the end or the first error, and that error with its step.
fn run(case: &Json, steps: usize, metrics: &[f64]) -> (Vec<Vec<f64>>, Option<(usize, String)>) {
    let name = case["name"].as_str().unwrap();
    let lrs: Vec<f64> = case["group_lrs"].as_array().unwrap().iter().map(number).collect();
    let own = case["args"].as_object().unwrap().iter();
    let mut args: Args = own.map(|(k, v)| (k.clone(), value(v))).collect();
    args.set("lr", lrs[0]);
    let group = |lr: &f64| Value::Map(vec![("lr".to_owned(), Value::Float(*lr))]);
    args.set("groups", Value::List(lrs.iter().map(group).collect()));
    let mut scheduler = match build(name, &args) {
        Ok(scheduler) => scheduler,
        Err(e) => return (Vec::new(), Some((0, e.to_string()))),
    };
    let mut all = vec![scheduler.lrs().to_vec()];
    for at in 1..=steps {
        let takes_metric = ["reduce_lr_on_plateau", "greedy"].contains(&name);
        let metric = if takes_metric { &metrics[at - 1..at] } else { &[] };
        match scheduler.step(metric) {
            Ok(lrs) => all.push(lrs.to_vec()),
            Err(e) => return (all, Some((at, e.to_string()))),
        }
    }
    (all, None)
}

fn same(got: &[f64], want: &[f64]) -> bool {
    let near = |(got, want): (&f64, &f64)| {
        got == want
            || (got.is_nan() && want.is_nan())
            // The last bit of a cosine depends on the math library, and it may cancel.
            || (got - want).abs() <= want.abs().max(1e-2) * 4e-16
    };
    got.len() == want.len() && got.iter().zip(want).all(near)
}

#[test]
fn rates_and_refusals_at_the_edges_are_the_references() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/settings/schedules.json");
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let steps = all["steps"].as_u64().unwrap() as usize;
    let metrics: Vec<f64> = all["metrics"].as_array().unwrap().iter().map(number).collect();
    let (mut compared, mut refused, mut wrong) = (0, 0, Vec::new());
    let mut needed = vec![false; REFUSED.len()];
    for case in all["cases"].as_array().unwrap() {
        let want: Vec<Vec<f64>> = case["lrs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_array().unwrap().iter().map(number).collect())
            .collect();
        let raises = case["raises_at"].as_u64().map(|at| at as usize);
        let (got, error) = run(case, steps, &metrics);
        let finite = want.iter().flatten().all(|lr| lr.is_finite());
        let head = format!("{} {} {}", case["name"], case["args"], case["group_lrs"]);
        match (raises, error) {
            (Some(at), Some((step, _))) if step <= at => refused += 1,
            (Some(at), error) => {
                wrong.push(format!("{head}: there {} at {at}, here {error:?}", case["error"]));
            }
            // NaN rates may be refused as well.
            (None, Some(_)) if !finite => refused += 1,
            (None, Some((step, error))) => {
                let known = REFUSED.iter().position(|(name, argument, value, _)| {
                    let fits = |v: &Json| value.is_none_or(|value| format!("{v}") == value);
                    let args = case["args"].as_object().unwrap();
                    (name.is_empty() || case["name"] == *name)
                        && args
                            .iter()
                            .any(|(k, v)| (argument.is_empty() || k == argument) && fits(v))
                });
                match known {
                    Some(known) => needed[known] = true,
                    None => wrong.push(format!("{head}: here {error} at {step}")),
                }
            }
            (None, None) => {
                compared += 1;
                if let Some(at) = (0..=steps).find(|&at| !same(&got[at], &want[at])) {
                    wrong.push(format!(
                        "{head}: step {at} there {:?}, here {:?}",
                        want[at], got[at]
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are otherwise:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 600 && refused > 100, "{compared} compared, {refused} refused");
    let stale: Vec<_> = REFUSED.iter().zip(&needed).filter(|(_, n)| !**n).collect();
    assert!(stale.is_empty(), "no longer needed: {stale:?}");
}

/// Training with warm-up to the last step completes; the reference divides by zero only after it.
#[test]
fn polynomial_that_only_warms_up_is_refused_at_its_last_step() {
    let args = Args::parse("lr=0.1,num_warmup_steps=4,num_training_steps=4").unwrap();
    let mut scheduler = build("polynomial", &args).unwrap();
    for want in [0.025, 0.05, 0.1 * 0.75] {
        assert_eq!(scheduler.step(&[]).unwrap(), [want]);
    }
    assert!(scheduler.step(&[]).is_err());
    assert_eq!(scheduler.lrs(), [0.1 * 0.75]);
}

/// A warm-up below 1, as Trainer 5 passes it on: the first step's rate is above the full one.
#[test]
fn schedule_free_rules_warm_up_over_fractions_of_a_step() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/settings/schedules.json");
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = all["schedule_free"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let lr = number(&case["lr"]);
        let args = Args::new()
            .with("lr", lr)
            .with("warmup_steps", number(&case["warmup_steps"]))
            .with("foreach", false);
        let spec = optimizer(case["optim"].as_str().unwrap(), &args).unwrap();
        let mut running = Optimizer::empty();
        let group = running.add_group(spec).unwrap();
        running.add_param_to(group, &[1], Dtype::F64).unwrap();
        let mut value = [1.0f64];
        let numbers = |key: &str| case[key].as_array().unwrap().iter().map(number);
        for (t, (want, rate)) in numbers("values").zip(numbers("rates")).enumerate() {
            let grad = [1.0 + t as f64];
            let param = Param { value: DataMut::F64(&mut value), grad: Some(Data::F64(&grad)) };
            running.step_all(&mut [param], &[]).unwrap();
            assert!((value[0] - want).abs() <= 1e-15, "{case}: {t}: {}", value[0]);
            let scalars = running.groups()[group.0].scalars;
            assert_eq!(scalars[0], rate, "{case}: {t}");
        }
    }
}
