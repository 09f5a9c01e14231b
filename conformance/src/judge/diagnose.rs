//! Diagnoses a failure by comparing the answers with those of the known [mutations](crate::judge::mutations).
//!
//! A mutation fits a failed check if the core with this mutation reproduces the backend's values, both those that
//! exceed their bounds and those that don't. If several fit, the optimizer's other cases decide.

use std::collections::BTreeMap;

use crate::Core;
use crate::backend::{Backend, BackendError, Counts, Inputs, OptimizerSpec, Run};
use crate::golden::{Case, Data, OptimizerCase};
use crate::judge::bounds::Mode;
use crate::judge::check::{Outcome, Report};
use crate::judge::comparator::{MAX_SAMPLES, Sample};
use crate::judge::compare;
use crate::judge::mutations::{MUTATIONS, Mutation, VARIANTS};

/// The share of the failing values, and of the passing ones, that a mutation must reproduce.
const MIN_REPRODUCED_SHARE: f64 = 0.95;

/// The share of the parameters' values that must fail: many mutations reproduce a few.
const MIN_FAILING_SHARE: f64 = 0.1;

/// The allowed distance from the mutated rule, in bounds: two programs with one mistake may round differently.
const MAX_BOUNDS_APART: f64 = 4.0;

/// The mutations that fit a failed check, each with the share of all values that it reproduces.
#[must_use]
pub fn candidates(case: &Case, report: &Report) -> Vec<(&'static str, f64)> {
    let Data::Optimizer(data) = &case.data else { return Vec::new() };
    if report.outcome != Outcome::Fail || report.samples.is_empty() {
        return Vec::new();
    }
    let values = || report.samples.iter().filter(|s| s.tensor.ends_with(".value"));
    let off = values().filter(|s| is_off(s)).count();
    if (off as f64) < MIN_FAILING_SHARE * values().count() as f64 {
        return Vec::new();
    }
    let fitting = MUTATIONS.iter().chain(VARIANTS).filter(|n| n.applies(case));
    fitting.filter_map(|n| Some((n.name, fit(case, data, report, n)?))).collect()
}

/// The share of all values that a mutation reproduces, if it fits.
fn fit(case: &Case, data: &OptimizerCase, report: &Report, mistake: &Mutation) -> Option<f64> {
    let wrong = mistake.in_place_of(&Core);
    let answers = match report.mode {
        Mode::Step => steps(case, data, &wrong),
        _ => free(case, data, &wrong),
    };
    let answers = answers.ok()?;
    // For the passing values, then the failing ones: [all, reproduced].
    let mut counts = [[0usize; 2]; 2];
    for s in &report.samples {
        let Some(x) = answers.get(s.step).and_then(|a| a.get(&*s.tensor)?.get(s.index)) else {
            continue;
        };
        let off = is_off(s);
        // The mutation may have made the value larger, and with it the spacing.
        let unit = s.unit.max(compare::spacing(s.dtype, compare::scale(*x, 0.0)));
        let given = compare::error(s.got, *x, unit) <= MAX_BOUNDS_APART * s.bound.max(1.0);
        let [all, fits] = &mut counts[usize::from(off)];
        (*all, *fits) = (*all + 1, *fits + usize::from(given));
    }
    let enough = |[all, fits]: [usize; 2]| fits as f64 >= MIN_REPRODUCED_SHARE * all as f64;
    let [others, off] = counts;
    let fits = off[0] > 0 && enough(off) && enough(others);
    fits.then(|| (off[1] + others[1]) as f64 / (off[0] + others[0]) as f64)
}

fn is_off(s: &Sample) -> bool {
    compare::error(s.got, s.want, s.unit) > s.bound
}

/// For each tensor, its first elements.
type Shown = BTreeMap<String, Vec<f64>>;

fn show(run: &dyn Run, params: usize, out: &mut Shown) {
    for i in 0..params {
        let state = run.state(i).into_iter().map(|(slot, t)| (format!("p{i}.state.{slot}"), t));
        for (name, t) in state.chain([(format!("p{i}.value"), run.value(i))]) {
            out.insert(name, (0..t.len().min(MAX_SAMPLES)).map(|k| t.get(k)).collect());
        }
    }
}

fn free(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
) -> Result<Vec<Shown>, BackendError> {
    let mut run = backend.optimizer(&OptimizerSpec::new(case, data))?;
    for (i, p) in data.params.iter().enumerate().filter(|(_, p)| !p.state0.is_empty()) {
        run.load(i, &p.init, &p.state0, Counts::default())?;
    }
    let step = |t| {
        run.step(&Inputs::new(data, t))?;
        let mut shown = Shown::new();
        show(&*run, data.params.len(), &mut shown);
        Ok(shown)
    };
    (0..case.steps).map(step).collect()
}

fn steps(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
) -> Result<Vec<Shown>, BackendError> {
    let spec = OptimizerSpec::new(case, data);
    let step = |t| {
        let mut run = backend.optimizer(&spec)?;
        let mut lacking = Vec::new();
        for (i, p) in data.params.iter().enumerate() {
            let state = p.state_before(t);
            if t == 0 && state.is_empty() {
                continue;
            }
            let counts = Counts { updates: p.updates_before(t) as u64, steps: t as u64 };
            match run.load(i, &p.value_before(t), &state, counts) {
                Err(BackendError::NeedsState(_)) => lacking.push(format!("p{i}.")),
                other => other?,
            }
        }
        run.step(&Inputs::new(data, t))?;
        let mut shown = Shown::new();
        show(&*run, data.params.len(), &mut shown);
        shown.retain(|name, _| !lacking.iter().any(|p| name.starts_with(p)));
        Ok(shown)
    };
    (0..case.steps).map(step).collect()
}

/// Diagnoses every failed check by a vote over all checks of one optimizer with one backend.
pub fn vote_diagnoses(reports: &mut [Report]) {
    let key = |r: &Report| (r.backend.clone(), r.kind.clone(), r.name.clone());
    let mut votes = BTreeMap::<_, BTreeMap<&str, (usize, f64)>>::new();
    for r in reports.iter() {
        for &(name, share) in &r.candidates {
            let vote = votes.entry(key(r)).or_default().entry(name).or_default();
            *vote = (vote.0 + 1, vote.1 + share);
        }
    }
    for r in reports.iter_mut().filter(|r| !r.candidates.is_empty()) {
        let votes = &votes[&key(r)];
        let of = |&(name, _): &(&'static str, f64)| votes[name];
        let order = |a: &(usize, f64), b: &(usize, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        let Some(best) = r.candidates.iter().map(of).max_by(order) else { continue };
        let mut names = r.candidates.iter().filter(|c| of(c) == best).map(|&(name, _)| name);
        // A tie gives no diagnosis.
        r.diagnosis = names.next().filter(|_| names.next().is_none()).map(str::to_owned);
    }
}
