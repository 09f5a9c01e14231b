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
//! Storages in few bits hand the ends of a bound through their own encoding ([`encoded`]), matrix products add
//! n · u · |A| |B| ([`product`]), and the roundings of a Newton–Schulz iteration are decided both ways ([`orthogonal`]).
//! Nothing here is specific to an optimizer. What can't be tracked is compared by the table in
//! [`crate::judge::bounds`]. `docs/tolerances.md` has the details.

mod choice;
mod encoded;
mod factors;
mod follow;
mod gradient;
mod host;
mod lowrank;
mod number;
mod orthogonal;
mod own;
mod parting;
mod plain;
mod product;
mod rule;
mod schedule;

use std::collections::BTreeMap;

use crate::backend::core_backend::CoreRun;
use crate::backend::diverged::{self, Shown};
use crate::backend::{
    BackendError, Counts, GradientSpec, Inputs, OptimizerSpec, Run, ScheduleSpec,
};
use crate::golden::{Case, Data, OptimizerCase};
pub(crate) use gradient::of_gradient;
use host::Following;
pub(crate) use host::Tolerances;
use number::Source;
pub(crate) use own::of_rule;
pub(crate) use parting::{Parting, parting};
pub(crate) use schedule::of_schedule;

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

/// A tensor, the sum of its finite tolerances over all steps, and the share of it that goes if a source adds nothing:
/// the largest first.
pub(crate) type Origins = Vec<(String, f64, Vec<(&'static str, f64)>)>;

/// Where the tolerances of a case come from: of an optimizer's single steps, of rates, of gradients and their norm.
pub(crate) fn origins(case: &Case) -> Origins {
    let totals = || {
        let mut totals = BTreeMap::<String, f64>::new();
        let mut add = |tensor: String, x: &[f64]| {
            let sum: f64 = x.iter().filter(|x| x.is_finite()).sum();
            *totals.entry(tensor).or_default() += sum;
        };
        match &case.data {
            Data::Optimizer(data) => {
                for t in 0..case.steps {
                    let all = of_step(case, data, t).into_numbers();
                    all.into_iter().for_each(|(tensor, x)| add(tensor, &x));
                }
            }
            Data::Schedule(data) => {
                let rows = of_schedule(&ScheduleSpec::new(case, data)).unwrap_or_default();
                rows.iter().for_each(|row| add("lr".to_owned(), row));
            }
            Data::Gradient(data) => {
                let all = of_gradient(&GradientSpec::new(case, data)).unwrap_or_default();
                for (i, x) in all.outputs.iter().enumerate() {
                    add(format!("g{i}.out"), x);
                }
                all.norm.iter().for_each(|x| add("norm".to_owned(), &[*x]));
            }
        }
        totals
    };
    let all = totals();
    let without = Source::ALL.map(|(source, name)| (name, number::without(source, totals)));
    let of = |(tensor, all): (&String, &f64)| {
        let share = |(name, totals): &(&'static str, BTreeMap<String, f64>)| {
            (*name, 1.0 - totals.get(tensor).copied().unwrap_or(0.0) / all)
        };
        let mut shares: Vec<_> = without.iter().map(share).filter(|(_, x)| *x >= 0.005).collect();
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        (tensor.clone(), *all, shares)
    };
    all.iter().map(of).collect()
}

/// The tolerances of step `t` from a backend's own values and state.
pub(crate) fn of_own(
    spec: &OptimizerSpec<'_>,
    data: &OptimizerCase,
    before: &[Shown],
    t: usize,
) -> Tolerances {
    let run = diverged::step_in(spec, data, before, t, Following::default());
    run.map(|run| run.store().tolerances()).unwrap_or_default()
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
