//! The tensors of a `schedule` case.

use std::collections::BTreeMap;

use super::Problem;
use super::tensors::{Tensors, check_dtype, no_nan, series};
use crate::tensor::{Dtype, Tensor};

/// Learning rates over all steps.
#[derive(Clone, Debug)]
pub struct ScheduleCase {
    /// Number of groups.
    pub groups: usize,
    /// (T+1) × G rates, in rows: at construction, then after each step.
    pub lr: Vec<f64>,
    /// The metric at each step, for schedules driven by one.
    pub metric: Option<Vec<f64>>,
    /// Extra inputs (`given.…`).
    pub given: BTreeMap<String, Tensor>,
}

pub(super) fn read(tensors: &mut Tensors, steps: usize) -> Result<ScheduleCase, Problem> {
    let lr = tensors.required("lr")?;
    check_dtype("lr", lr.dtype, lr.dtype == Dtype::F64, "f64")?;
    let groups = match lr.shape[..] {
        [rows, groups] if rows == steps + 1 => groups,
        _ => {
            let expected = format!("{} × groups", steps + 1);
            return Err(Problem::Dimensions { tensor: "lr".into(), got: lr.shape, expected });
        }
    };
    let lr = lr.to_f64s();
    no_nan("lr", &lr)?;
    let metric = tensors.optional("metric");
    let metric = metric.map(|m| series("metric", m, steps)).transpose()?;
    Ok(ScheduleCase { groups, lr, metric, given: tensors.with_prefix("given.") })
}
