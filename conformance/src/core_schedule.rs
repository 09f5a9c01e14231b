//! Schedules of the backend `core`, from a case's own arguments.

use bitstep::args::{ArgError, Args, Value};
use bitstep::schedule::{self, Scheduler};

use crate::backend::{Refused, ScheduleSpec};
use crate::core_backend::{args, failed};

pub(crate) fn answer(spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, Refused> {
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
        hyper.set("dtype", "float64"); // no f32 parameter has such an RMS
    }

    let mut scheduler = build(spec.name, hyper)?;
    let count = scheduler.lrs().len();
    if count != spec.groups {
        return Err(Refused::Failed(format!("`hyper` has {count} groups, `lr` {}", spec.groups)));
    }
    let given = |t: usize| -> Result<Vec<f64>, Refused> {
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
    let mut rates = scheduler.lrs().to_vec();
    for t in 0..spec.steps {
        rates.extend_from_slice(scheduler.step(&given(t)?).map_err(failed)?);
    }
    Ok(rates)
}

/// The scheduler of a case. Its `hyper` may also describe the optimizer that the schedule was tried on
/// (`momentum`, `betas`): what the schedule has no argument for can't change a rate.
fn build(name: &str, mut hyper: Args) -> Result<Scheduler, Refused> {
    loop {
        match schedule::build(name, &hyper) {
            Ok(scheduler) => return Ok(scheduler),
            Err(ArgError::UnknownArgument { argument, .. }) if hyper.get(&argument).is_some() => {
                hyper.take(&argument);
            }
            Err(ArgError::UnknownName { name, .. }) => {
                return Err(Refused::Unsupported(format!("core has no schedule `{name}`")));
            }
            Err(e) => return Err(failed(e)),
        }
    }
}
