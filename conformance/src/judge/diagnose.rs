//! Diagnoses a failure by comparing the answers with those of the known [mistakes](crate::judge::mutations).
//!
//! A mistake fits a failed check if the core with this mistake reproduces the backend's values and state, both those
//! that exceed their bounds and those that don't. It contradicts a check if it changes numbers that the backend gave
//! otherwise. One that fits is named only if hardly any check of the optimizer contradicts it, those that passed
//! included, and if no other fits as well: a failure gets no name rather than a wrong one.

use std::collections::{BTreeMap, BTreeSet};

use crate::Core;
use crate::backend::{Backend, BackendError, Counts, Inputs, OptimizerSpec, Run};
use crate::golden::{Case, Data, OptimizerCase};
use crate::judge::bounds::{Bounds, Mode};
use crate::judge::check::{Candidate, Outcome, Report};
use crate::judge::common;
use crate::judge::comparator::{MAX_SAMPLES, Sample};
use crate::judge::compare;
use crate::judge::mutations::{self, Mistake};
use crate::tensor::Dtype;

/// The share of the failing values, and of the passing ones, that a mistake must reproduce.
const MIN_REPRODUCED_SHARE: f64 = 0.95;

/// The share of a tensor's values at some step that must fail: many mistakes reproduce a few.
const MIN_FAILING_SHARE: f64 = 0.1;

/// The allowed distance from the mistaken rule, in bounds: two programs with one mistake may round differently.
const MAX_BOUNDS_APART: f64 = 4.0;

/// A mistake is named if it contradicts at most this many checks for each that it explains.
const MAX_CONTRADICTED_SHARE: f64 = 0.2;

/// The distance in ULP beyond which a mistake is visible in a check that passed, whose tolerances are gone.
const VISIBLE_ULP: f64 = 1024.0;

/// The most elements times steps of a passing case that is computed with a mistake.
const MAX_PASSING_SIZE: usize = 20_000;

/// Adds to a report what the diagnosis needs, and drops its samples.
pub(crate) fn examine(case: &Case, report: &mut Report) {
    report.candidates = candidates(case, report);
    report.samples = Vec::new();
    if matches!(report.outcome, Outcome::Pass | Outcome::Fail) {
        report.settings = common::settings(case);
        report.units = common::units(case, report);
    }
    if report.outcome == Outcome::Pass {
        report.tensors = BTreeMap::new();
    }
}

/// The mistakes that fit a failed check or contradict it.
#[must_use]
pub fn candidates(case: &Case, report: &Report) -> Vec<Candidate> {
    let Data::Optimizer(data) = &case.data else { return Vec::new() };
    if report.outcome != Outcome::Fail || !is_much_off(report) {
        return Vec::new();
    }
    let mut by_step = vec![Vec::new(); case.steps];
    for s in &report.samples {
        if let Some(samples) = by_step.get_mut(s.step) {
            samples.push(s);
        }
    }
    // Of several mistakes of one name, the one that fits best.
    let mut best = BTreeMap::<String, Option<f64>>::new();
    for mistake in mutations::mistakes(case) {
        match fit(case, data, report.mode, &by_step, &mistake) {
            Some(Fit::Fits(share)) => {
                let known = best.entry(mistake.name).or_insert(Some(share));
                *known = Some(known.map_or(share, |known| known.max(share)));
            }
            Some(Fit::Contradicts) => drop(best.entry(mistake.name).or_insert(None)),
            Some(Fit::Neither) | None => {}
        }
    }
    best.into_iter().map(|(name, share)| Candidate { name, share }).collect()
}

/// Whether enough values of some tensor are off at some step.
fn is_much_off(report: &Report) -> bool {
    let mut counts = BTreeMap::<(&str, usize), [usize; 2]>::new();
    for s in &report.samples {
        let [all, off] = counts.entry((&s.tensor, s.step)).or_default();
        (*all, *off) = (*all + 1, *off + usize::from(is_off(s)));
    }
    counts.values().any(|[all, off]| *off > 0 && *off as f64 >= MIN_FAILING_SHARE * *all as f64)
}

/// What a mistake has to do with a check.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fit {
    /// It reproduces the answer; with the share of values within their bounds.
    Fits(f64),
    /// It gives other numbers than both the backend and the reference.
    Contradicts,
    /// It does not explain the failure, and does not show.
    Neither,
}

/// Compares a mistake's answers, one step after the other, until it can't fit any more.
fn fit(
    case: &Case,
    data: &OptimizerCase,
    mode: Mode,
    by_step: &[Vec<&Sample>],
    mistake: &Mistake,
) -> Option<Fit> {
    let wrong = mistake.in_place_of(&Core);
    let all = || by_step.iter().flatten();
    let [off, others] = [true, false].map(|off| all().filter(|s| is_off(s) == off).count());
    let spare = |n: usize| ((1.0 - MIN_REPRODUCED_SHARE) * n as f64) as usize;
    // For values that pass, and for those that fail: how many the mistake does not reproduce.
    let mut missed = [0usize; 2];
    let (mut close, mut nearer, mut compared, mut contradicted) = (0usize, 0usize, 0usize, 0usize);
    let mut answers = Answers::new(case, data, &wrong, mode).ok()?;
    let given: BTreeSet<&str> = all().map(|s| &*s.tensor).collect();
    let shows_state = given.iter().any(|tensor| tensor.contains(".state."));
    for (t, samples) in by_step.iter().enumerate() {
        let shown = answers.next(t).ok()?;
        if shows_state && shown.tensors.keys().any(|x| is_missing(x, &given, data)) {
            return Some(Fit::Neither);
        }
        for s in samples {
            if shown.lacking.iter().any(|p| s.tensor.starts_with(p)) {
                continue;
            }
            compared += 1;
            let is_off = is_off(s);
            let Some(&x) = shown.tensors.get(&*s.tensor).and_then(|x| x.get(s.index)) else {
                missed[usize::from(is_off)] += 1;
                continue;
            };
            // The mistake may have made the value larger, and with it the spacing.
            let unit = s.unit.max(compare::spacing(s.dtype, compare::scale(x, 0.0)));
            let bound = s.bound.max(1.0);
            let apart = compare::error(s.got, x, unit);
            let error = compare::error(s.got, s.want, unit);
            let is_near = apart <= MAX_BOUNDS_APART * bound;
            // What is far off must be explained by more than a wide bound.
            let is_far_off = is_off && error > 2.0 * MAX_BOUNDS_APART * bound;
            let is_reproduced = is_near && (!is_far_off || apart <= error / 4.0);
            missed[usize::from(is_off)] += usize::from(!is_reproduced);
            close += usize::from(apart <= bound);
            nearer += usize::from(is_off && apart <= error / 2.0);
            let is_visible = compare::error(x, s.want, unit) > MAX_BOUNDS_APART * bound;
            contradicted += usize::from(is_visible && !is_near);
        }
        if missed[1] > spare(off) || missed[0] > spare(others) {
            let much = contradicted > spare(compared);
            return Some(if much { Fit::Contradicts } else { Fit::Neither });
        }
    }
    let fits = off > 0 && 2 * nearer >= off;
    Some(if fits { Fit::Fits(close as f64 / compared as f64) } else { Fit::Neither })
}

/// Whether a state of the reference's is not among the given tensors.
fn is_missing(tensor: &str, given: &BTreeSet<&str>, data: &OptimizerCase) -> bool {
    let Some((param, slot)) = tensor.split_once(".state.") else { return false };
    let index = param.strip_prefix('p').and_then(|i| i.parse::<usize>().ok());
    let of = index.and_then(|i| data.params.get(i)?.state.get(slot));
    // Of a parameter of no elements, and of what no diagnosis uses, there are no samples.
    of.is_some_and(|rows| !rows.is_empty())
        && !Bounds::compensates(slot)
        && given.contains(format!("{param}.value").as_str())
        && !given.contains(tensor)
}

fn is_off(s: &Sample) -> bool {
    compare::error(s.got, s.want, s.unit) > s.bound
}

/// The first elements of every tensor after a step.
struct Shown {
    tensors: BTreeMap<String, Vec<f64>>,
    /// The prefixes of parameters that can't be computed.
    lacking: Vec<String>,
}

fn show(run: &dyn Run, params: usize, lacking: Vec<String>) -> Shown {
    let mut tensors = BTreeMap::new();
    for i in 0..params {
        let state = run.state(i).into_iter().map(|(slot, t)| (format!("p{i}.state.{slot}"), t));
        for (name, t) in state.chain([(format!("p{i}.value"), run.value(i))]) {
            tensors.insert(name, (0..t.len().min(MAX_SAMPLES)).map(|k| t.get(k)).collect());
        }
    }
    Shown { tensors, lacking }
}

/// The answers of a backend, step by step: in one run, or each step from the reference's state before it.
struct Answers<'a> {
    data: &'a OptimizerCase,
    backend: &'a dyn Backend,
    spec: OptimizerSpec<'a>,
    free: Option<Box<dyn Run + 'a>>,
}

impl<'a> Answers<'a> {
    fn new(
        case: &'a Case,
        data: &'a OptimizerCase,
        backend: &'a dyn Backend,
        mode: Mode,
    ) -> Result<Self, BackendError> {
        let spec = OptimizerSpec::new(case, data);
        let mut free = None;
        if mode != Mode::Step {
            let mut run = backend.optimizer(&spec)?;
            for (i, p) in data.params.iter().enumerate().filter(|(_, p)| !p.state0.is_empty()) {
                run.load(i, &p.init, &p.state0, Counts::default())?;
            }
            free = Some(run);
        }
        Ok(Answers { data, backend, spec, free })
    }

    /// The answer of step `t`; those of a free run are in order.
    fn next(&mut self, t: usize) -> Result<Shown, BackendError> {
        let params = self.data.params.len();
        if let Some(run) = &mut self.free {
            run.step(&Inputs::new(self.data, t))?;
            return Ok(show(&**run, params, Vec::new()));
        }
        let mut run = self.backend.optimizer(&self.spec)?;
        let mut lacking = Vec::new();
        for (i, p) in self.data.params.iter().enumerate() {
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
        run.step(&Inputs::new(self.data, t))?;
        Ok(show(&*run, params, lacking))
    }
}

/// Whether a check that passed contradicts a mistake: the mistake would have shown in its single steps.
fn shows(case: &Case, name: &str) -> bool {
    let Data::Optimizer(data) = &case.data else { return false };
    let elements: usize = data.params.iter().map(|p| p.init.len()).sum();
    if elements.saturating_mul(case.steps) > MAX_PASSING_SIZE {
        return false;
    }
    let named = mutations::mistakes(case).into_iter().filter(|m| m.name == name);
    // All mistakes of that name: one that does not show may be the right one.
    let mut any = false;
    for mistake in named {
        let wrong = mistake.in_place_of(&Core);
        let Ok(answers) = Answers::new(case, data, &wrong, Mode::Step) else { return false };
        if !is_visible(case, data, answers) {
            return false;
        }
        any = true;
    }
    any
}

fn is_visible(case: &Case, data: &OptimizerCase, mut answers: Answers<'_>) -> bool {
    let (mut all, mut visible) = (0usize, 0usize);
    for t in 0..case.steps {
        let Ok(shown) = answers.next(t) else { return false };
        for (i, p) in data.params.iter().enumerate() {
            let (want, before, name) = (p.value.row(t), p.value_before(t), format!("p{i}.value"));
            let Some(x) = shown.tensors.get(&name) else { continue };
            if shown.lacking.iter().any(|p| name.starts_with(p)) {
                continue;
            }
            for (k, x) in x.iter().enumerate() {
                let (want, before) = (want.get(k), before.get(k));
                all += 1;
                // Of a step of few bits, the whole step.
                let far = match p.value.dtype {
                    Dtype::F64 | Dtype::F32 => VISIBLE_ULP,
                    _ => VISIBLE_ULP / 64.0,
                };
                visible += usize::from(compare::ulp(p.value.dtype, *x, want, before) > far);
            }
        }
    }
    visible as f64 > MIN_FAILING_SHARE * all as f64
}

/// What is known of one mistake over all checks of one optimizer with one backend.
#[derive(Default)]
struct Support {
    /// The failed checks that it fits, with the shares of values.
    explained: BTreeMap<usize, f64>,
    /// The number of checks that it contradicts.
    contradicted: usize,
}

/// Diagnoses every failed check from all checks of one optimizer with one backend, and says what its failures have
/// in common.
pub fn vote_diagnoses(reports: &mut [Report]) {
    settle(reports, |_| None);
}

/// [`vote_diagnoses`], which also asks the checks that passed, whose cases `case` finds.
pub fn settle<'a>(reports: &mut [Report], case: impl Fn(&Report) -> Option<&'a Case>) {
    let mut groups = BTreeMap::<_, Vec<usize>>::new();
    for (i, r) in reports.iter().enumerate() {
        let key = (r.backend.clone(), r.kind.clone(), r.name.clone());
        groups.entry(key).or_default().push(i);
    }
    for members in groups.into_values() {
        if !members.iter().any(|&i| reports[i].outcome == Outcome::Fail) {
            continue;
        }
        let group: Vec<&Report> = members.iter().map(|&i| &reports[i]).collect();
        let names = named(&group, &case);
        let mut by_name = BTreeMap::<Option<&String>, Vec<usize>>::new();
        for (k, &i) in
            members.iter().enumerate().filter(|(_, i)| reports[**i].outcome == Outcome::Fail)
        {
            by_name.entry(names.get(&k)).or_default().push(i);
        }
        // What the failures of one diagnosis have in common, beside all that passed.
        let found: Vec<_> = by_name
            .into_iter()
            .map(|(name, failed)| {
                let passed = members.iter().filter(|i| reports[**i].outcome == Outcome::Pass);
                let of: Vec<&Report> = failed.iter().chain(passed).map(|&i| &reports[i]).collect();
                (name.cloned(), common::only(&of), failed)
            })
            .collect();
        for (name, only, failed) in found {
            for i in failed {
                reports[i].diagnosis.clone_from(&name);
                reports[i].only.clone_from(&only);
            }
        }
    }
}

/// The names of failed checks, by their place in the group.
fn named<'a>(
    group: &[&Report],
    case: &impl Fn(&Report) -> Option<&'a Case>,
) -> BTreeMap<usize, String> {
    let mut support = BTreeMap::<&str, Support>::new();
    for (k, r) in group.iter().enumerate() {
        for c in &r.candidates {
            let of = support.entry(&c.name).or_default();
            match c.share {
                Some(share) => drop(of.explained.insert(k, share)),
                None => of.contradicted += 1,
            }
        }
    }
    support.retain(|_, s| !s.explained.is_empty());
    let mut names = BTreeMap::new();
    let mut asked = BTreeSet::new();
    loop {
        // What is left for each mistake to explain.
        let left = |s: &Support| {
            let left = s.explained.iter().filter(|(k, _)| !names.contains_key(*k));
            left.fold((0usize, 0.0), |(n, sum), (_, share)| (n + 1, sum + share))
        };
        let order = |a: &(usize, f64), b: &(usize, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        let ranked = support.iter().map(|(name, s)| (*name, left(s))).filter(|(_, l)| l.0 > 0);
        let Some((_, best)) = ranked.clone().max_by(|a, b| order(&a.1, &b.1)) else { break };
        let equal: Vec<&str> = ranked.filter(|(_, l)| *l == best).map(|(name, _)| name).collect();
        if let Some(&name) = equal.iter().find(|name| !asked.contains(*name)) {
            asked.insert(name);
            let Some(s) = support.get_mut(name) else { break };
            s.contradicted += passed_against(group, s, name, case);
            if s.contradicted as f64 > MAX_CONTRADICTED_SHARE * s.explained.len() as f64 {
                support.remove(name);
            }
            continue;
        }
        match equal[..] {
            [name] => {
                let explained = support[name].explained.keys().filter(|k| !names.contains_key(*k));
                let explained: Vec<usize> = explained.copied().collect();
                names.extend(explained.into_iter().map(|k| (k, name.to_owned())));
            }
            // A tie gives no diagnosis.
            _ => support.retain(|name, _| !equal.contains(name)),
        }
    }
    names
}

/// How many checks that passed contradict a mistake, in the types in which it explains failures.
fn passed_against<'a>(
    group: &[&Report],
    support: &Support,
    name: &str,
    case: &impl Fn(&Report) -> Option<&'a Case>,
) -> usize {
    let types: BTreeSet<&str> =
        support.explained.keys().map(|&k| group[k].dtype.as_str()).collect();
    let passed = group.iter().filter(|r| {
        r.outcome == Outcome::Pass && r.mode == Mode::Step && types.contains(&*r.dtype)
    });
    passed.filter_map(|r| case(r)).filter(|c| shows(c, name)).count()
}
