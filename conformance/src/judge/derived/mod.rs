//! Derives tolerances from the rule itself, by running error analysis.
//!
//! The checked step is repeated in arithmetic that carries a bound on its rounding error ([`number`]). Each correct
//! implementation is within that bound of the exact formula, so two of them are at most twice the bound apart.
//! Stored in a narrower type, they round to that type's neighbouring values. Beyond that:
//!
//! * a sum may be computed in any order: (n − 1) · u · Σ |x|;
//! * a comparison of values that may be equal is decided both ways ([`choice`]);
//! * sums and norms that enter the step's constants are perturbed by as much as two correct ones may differ.
//!
//! Nothing here is specific to an optimizer. What can't be tracked (codes, matrix products) is compared by the
//! table in [`crate::judge::bounds`]. `docs/tolerances.md` has the details.

mod choice;
mod factors;
mod follow;
mod host;
mod number;
mod own;
mod rule;

use crate::backend::core_backend::CoreRun;
use crate::backend::{BackendError, Counts, Inputs, OptimizerSpec, Run};
use crate::golden::{Case, OptimizerCase};
use host::Following;
pub(crate) use host::Tolerances;
pub(crate) use own::of_rule;

/// The tolerances of one step from the reference's own state; nothing for what can't be tracked.
pub(crate) fn of_step(case: &Case, data: &OptimizerCase, t: usize) -> Tolerances {
    let step = || {
        let mut run = start(case, data, t)?;
        run.step(&Inputs::new(data, t))?;
        Ok::<_, BackendError>(run.store().tolerances())
    };
    step().unwrap_or_default()
}

/// The tolerances of a free run, after each step: errors propagate from step to step.
pub(crate) fn of_run(case: &Case, data: &OptimizerCase) -> Vec<Tolerances> {
    let Ok(mut run) = start(case, data, 0) else { return Vec::new() };
    let step = |t| {
        run.step(&Inputs::new(data, t)).ok()?;
        Some(run.store().tolerances())
    };
    (0..case.steps).map_while(step).collect()
}

/// A run before step `t`.
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
