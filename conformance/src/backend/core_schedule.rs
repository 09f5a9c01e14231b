//! The schedules of the backend `core`, built from a case's arguments.

use bitstep::hyper::{ArgError, Args, Value};
use bitstep::schedule::{self, Scheduler};

use crate::backend::{BackendError, ScheduleSpec, failed};
use crate::convert::args;

pub(crate) fn answer(spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
    let (mut scheduler, metrics) = scheduler(spec)?;
    let mut rates = scheduler.lrs().to_vec();
    for metrics in metrics {
        rates.extend_from_slice(scheduler.step(&metrics).map_err(failed)?);
    }
    Ok(rates)
}

/// The scheduler of a case, and the metrics of each step.
pub(crate) fn scheduler(
    spec: &ScheduleSpec<'_>,
) -> Result<(Scheduler, Vec<Vec<f64>>), BackendError> {
    let mut hyper = args(spec.hyper);
    let has_groups = hyper.get("groups").is_some_and(|g| *g != Value::None);
    let listed = hyper.get("lr").is_some_and(|lr| lr.as_list().is_some());
    if !has_groups && !listed {
        hyper.set("groups", Value::List(vec![Value::Map(Vec::new()); spec.groups]));
    }

    let rms = spec.given.get("rms").map(|t| t.to_f64s());
    if let Some(rms) = &rms
        && hyper.get("dtype").is_none()
        && rms.iter().any(|&x| x.is_finite() && f64::from(x as f32) != x)
    {
        hyper.set("dtype", "float64"); // an RMS that f32 can't represent
    }

    let scheduler = build(spec.name, hyper)?;
    let count = scheduler.lrs().len();
    if count != spec.groups {
        return Err(BackendError::Failed(format!(
            "`hyper` has {count} groups, `lr` {}",
            spec.groups
        )));
    }
    let extra = |t: usize| -> Result<Vec<f64>, BackendError> {
        match (spec.name, spec.metric, &rms) {
            ("reduce_lr_on_plateau" | "greedy", Some(metric), _) => {
                Ok(metric.get(t).copied().into_iter().collect())
            }
            ("reduce_lr_on_plateau" | "greedy", None, _) => Err(failed("the case has no `metric`")),
            ("adafactor_schedule", _, Some(rms)) => {
                let columns = rms.len() / spec.steps.max(1);
                let row = rms.get(t * columns..(t + 1) * columns).unwrap_or_default();
                Ok(if columns == 1 { row.repeat(spec.groups) } else { row.to_vec() })
            }
            ("adafactor_schedule", _, None) => Err(failed("the case has no `given.rms`")),
            _ => Ok(Vec::new()),
        }
    };
    let metrics = (0..spec.steps).map(extra).collect::<Result<_, _>>()?;
    Ok((scheduler, metrics))
}

/// Builds a scheduler. Its `hyper` and groups may also hold arguments of the optimizer that the schedule drove
/// (`momentum`, `betas`). They are dropped: what is not an argument of the schedule can't change a rate.
fn build(name: &str, mut hyper: Args) -> Result<Scheduler, BackendError> {
    let groups = hyper.take("groups").unwrap_or(Value::None);
    let of_any = |key: &str| ["params", "lr", "initial_lr"].contains(&key);
    hyper.set("groups", filtered(&groups, |key, _| of_any(key)));
    loop {
        match schedule::build(name, &hyper) {
            Ok(_) => break,
            Err(ArgError::UnknownArgument { argument, .. }) if hyper.get(&argument).is_some() => {
                hyper.take(&argument);
            }
            Err(ArgError::UnknownName { name, .. }) => {
                return Err(BackendError::Unsupported(format!("core has no schedule `{name}`")));
            }
            Err(e) => return Err(failed(e)),
        }
    }
    let has = |key: &str, value: &Value| {
        let with = hyper.clone().with(key, value.clone());
        !matches!(schedule::build(name, &with), Err(ArgError::UnknownArgument { .. }))
    };
    let groups = filtered(&groups, |key, value| of_any(key) || has(key, value));
    schedule::build(name, &hyper.with("groups", groups)).map_err(failed)
}

/// Groups, reduced to the arguments that `fits` accepts.
fn filtered(groups: &Value, fits: impl Fn(&str, &Value) -> bool) -> Value {
    let Value::List(groups) = groups else { return groups.clone() };
    let own = groups.iter().map(|group| match group {
        Value::Map(all) => {
            Value::Map(all.iter().filter(|(key, value)| fits(key, value)).cloned().collect())
        }
        other => other.clone(),
    });
    Value::List(own.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_may_have_what_only_the_optimizer_knows() {
        let of = |groups: &str| {
            let fixed =
                r#""lr": 0.5, "num_warmup_steps": 0, "num_training_steps": 4, "momentum": 0.9"#;
            let hyper = format!(r#"{{{fixed}, "groups": {groups}}}"#);
            build("linear", args(&serde_json::from_str(&hyper).expect("JSON")))
        };
        let fine = of(r#"[{"params": [0], "momentum": 0.5}, {"lr": 0.25, "betas": [0.1, 0.2]}]"#);
        assert_eq!(fine.expect("a schedule").lrs(), [0.5, 0.25]);
        assert!(of(r#"[{"params": [0], "num_training_steps": 8}]"#).is_err());
        assert!(of("[3]").is_err());
    }
}
