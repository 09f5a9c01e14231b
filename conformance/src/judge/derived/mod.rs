//! Tolerances that are derived from the rule itself.
//!
//! The very step that is checked is made once more, in numbers that carry a bound on their rounding
//! error ([`number`]). Two correct implementations are at most twice that bound apart: each is within
//! it of what the formula gives. Stored in a type of fewer bits, they come to stand on the numbers of
//! that type around them. Beyond that:
//!
//! * a sum may be made in any order: (n − 1) · u · Σ |x|;
//! * a comparison of numbers that may be equal is answered both ways ([`choice`]);
//! * what the step's constants take from sums and norms is moved by what two of those may differ by.
//!
//! Nothing here is written for one optimizer. What can't be followed (codes, products of matrices)
//! is judged by the table in [`crate::bounds`]. `docs/tolerances.md` has the whole of it.

mod choice;
mod factors;
mod follow;
mod host;
mod number;
mod rule;

use crate::backend::core_backend::CoreRun;
use crate::backend::{BackendError, Counts, Inputs, OptimizerSpec, Run};
use crate::golden::{Case, OptimizerCase};
use host::Following;
pub(crate) use host::Tolerances;

/// Those of one step, made from the reference's own numbers; nothing of what can't be followed.
pub(crate) fn of_step(case: &Case, data: &OptimizerCase, t: usize) -> Tolerances {
    let step = || {
        let mut run = start(case, data, t)?;
        run.step(&Inputs::new(data, t))?;
        Ok::<_, BackendError>(run.store().tolerances())
    };
    step().unwrap_or_default()
}

/// Those of a free run, after each step: errors go on from step to step.
pub(crate) fn of_run(case: &Case, data: &OptimizerCase) -> Vec<Tolerances> {
    let Ok(mut run) = start(case, data, 0) else { return Vec::new() };
    let step = |t| {
        run.step(&Inputs::new(data, t)).ok()?;
        Some(run.store().tolerances())
    };
    (0..case.steps).map_while(step).collect()
}

/// A run that stands before step `t`.
fn start(case: &Case, data: &OptimizerCase, t: usize) -> Result<CoreRun<Following>, BackendError> {
    let mut run = CoreRun::new(&OptimizerSpec::new(case, data), Following::default())?;
    for (i, p) in data.params.iter().enumerate() {
        let state = p.state_before(t);
        if t == 0 && state.is_empty() {
            continue;
        }
        let counts = Counts { updates: p.updates_before(t) as u64, steps: t as u64 };
        match run.load(i, &p.value_before(t), &state, counts) {
            Err(BackendError::NeedsState(_)) => {}
            other => other?,
        }
    }
    Ok(run)
}
