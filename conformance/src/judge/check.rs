//! Runs one case on one backend: optimizers by single steps and in a free run, schedules and gradients once.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::Core;
use crate::backend::diverged::{self, Shown};
use crate::backend::lacking;
use crate::backend::{
    Backend, BackendError, Counts, GradientSpec, Inputs, OptimizerSpec, Run, ScheduleSpec,
};
use crate::golden::{Case, Data, GradientCase, OptimizerCase, ScheduleCase};
use crate::judge::bounds::{Bounds, Mode, is_low_bit};
use crate::judge::comparator::{Comparator, Failure, Sample, TensorCheck, TensorTally};
use crate::judge::compare::{self, is_code};
use crate::judge::derived::{self, Origins, Tolerances};
use crate::judge::spread::Spread;
use crate::tensor::{Dtype, Tensor};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Every value is within its bound.
    Pass,
    /// A value exceeds its bound, or an answer is missing.
    Fail,
    /// The backend has no implementation.
    Unsupported,
    /// The backend failed, or the file is not a case: see the detail.
    Error,
    /// There was nothing to compare: no steps, or no elements. Types and shapes are right.
    Empty,
}

impl Outcome {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Unsupported => "unsupported",
            Outcome::Error => "error",
            Outcome::Empty => "empty",
        }
    }
}

/// The start of the detail of a check that the deadline cut off.
pub(crate) const NOT_REACHED: &str = "not reached";

/// The result of one case with one backend in one mode.
#[derive(Clone, Debug)]
pub struct Report {
    /// `KIND/NAME/CASE`, or the path of a file that can't be read.
    pub case: String,
    /// `optimizer`, `schedule`, `gradient`.
    pub kind: String,
    /// The name of the reference.
    pub name: String,
    /// The backend.
    pub backend: String,
    /// The case's [type](Case::dtype).
    pub dtype: String,
    /// How the case was checked.
    pub mode: Mode,
    /// How it ended.
    pub outcome: Outcome,
    /// The worst error in ULP at scale: the one that is the largest share of its bound.
    pub ulp: Option<f64>,
    /// The worst error's bound; `None` where nothing was compared.
    pub bound: Option<f64>,
    /// The number of values compared.
    pub compared: usize,
    /// The number of values that exceed their bounds.
    pub off: usize,
    /// The number of zeros with the other sign.
    pub zeros: usize,
    /// Explanation for the reader.
    pub detail: String,
    /// The first value that exceeds its bound.
    pub failure: Option<Failure>,
    /// The mistake that the case is there to catch.
    pub note: String,
    /// For each quantity, the worst error of every step.
    pub history: BTreeMap<String, Vec<f64>>,
    /// The distribution of errors relative to their tolerances.
    pub spread: Spread,
    /// Some of the compared values, if the check failed.
    pub samples: Vec<Sample>,
    /// How each tensor came out.
    pub tensors: BTreeMap<String, TensorTally>,
    /// What may be said of the case, for comparing the failed checks with those that passed.
    pub(crate) settings: Vec<String>,
    /// The parameters and steps that were compared.
    pub(crate) units: Vec<Unit>,
    /// The [mistakes](crate::judge::mutations) that fit a failed check or contradict it, see
    /// [`crate::judge::diagnose`].
    pub candidates: Vec<Candidate>,
    /// The mistake that explains the failure, by all checks of the optimizer.
    pub diagnosis: Option<String>,
    /// What the failures of this diagnosis have in common, and most that is right has not.
    pub only: Vec<String>,
}

/// A mistake beside a failed check.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The mistake's name.
    pub name: String,
    /// The share of all values that it reproduces within their bounds, if it fits; `None` if it contradicts the
    /// check.
    pub share: Option<f64>,
}

/// A parameter at a step, with what may be said of it as bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) traits: u32,
    pub(crate) off: bool,
}

impl Report {
    /// A report without figures.
    fn without_figures(case: &Case, backend: &str, mode: Mode) -> Report {
        Report {
            case: case.id.clone(),
            kind: case.kind.name().to_owned(),
            name: case.name.clone(),
            backend: backend.to_owned(),
            dtype: case.dtype().name().to_owned(),
            mode,
            outcome: Outcome::Pass,
            ulp: None,
            bound: None,
            compared: 0,
            off: 0,
            zeros: 0,
            detail: String::new(),
            failure: None,
            note: case.note.clone(),
            history: BTreeMap::new(),
            spread: Spread::default(),
            samples: Vec::new(),
            tensors: BTreeMap::new(),
            settings: Vec::new(),
            units: Vec::new(),
            candidates: Vec::new(),
            diagnosis: None,
            only: Vec::new(),
        }
    }

    /// The report of a file that is not a case.
    #[must_use]
    pub fn unreadable(file: &str, backend: &str, error: &str) -> Report {
        let is = |kind: &str| file.contains(&format!("{kind}/"));
        let kind = ["optimizer", "schedule", "gradient"].into_iter().find(|k| is(k)).unwrap_or("");
        Report {
            case: file.to_owned(),
            kind: kind.to_owned(),
            name: String::new(),
            backend: backend.to_owned(),
            dtype: String::new(),
            mode: if kind == "optimizer" { Mode::Step } else { Mode::Values },
            outcome: Outcome::Error,
            ulp: None,
            bound: None,
            compared: 0,
            off: 0,
            zeros: 0,
            detail: error.to_owned(),
            failure: None,
            note: String::new(),
            history: BTreeMap::new(),
            spread: Spread::default(),
            samples: Vec::new(),
            tensors: BTreeMap::new(),
            settings: Vec::new(),
            units: Vec::new(),
            candidates: Vec::new(),
            diagnosis: None,
            only: Vec::new(),
        }
    }

    /// The reports of a case that the deadline cut off.
    pub(crate) fn not_reached(case: &Case, backend: &str, why: &str) -> Vec<Report> {
        let modes: &[Mode] = match case.data {
            Data::Optimizer(_) => &[Mode::Step, Mode::Free],
            _ => &[Mode::Values],
        };
        let blank = modes.iter().map(|&mode| Report::without_figures(case, backend, mode));
        blank
            .map(|blank| blank.with_error(BackendError::Failed(format!("{NOT_REACHED}: {why}"))))
            .collect()
    }

    /// Whether the check ran before the deadline.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        !self.detail.starts_with(NOT_REACHED)
    }

    /// The quantities of which some value exceeds its bound, and the parameters that have them.
    #[must_use]
    pub fn off_parts(&self) -> OffParts {
        let mut parts = OffParts::default();
        let mut all = BTreeMap::<&str, (usize, usize)>::new();
        let (mut params, mut steps) = (BTreeSet::new(), BTreeSet::<usize>::new());
        for x in self.tensors.values().filter(|x| x.compared > 0) {
            let (inexact, off) = all.entry(&x.what).or_default();
            (*inexact, *off) = (*inexact + x.inexact, *off + x.off());
            params.extend(x.param);
            steps.extend(x.steps.keys());
            parts.params.extend(x.param.filter(|_| x.off() > 0));
            parts.steps.extend(x.steps.iter().filter(|(_, off)| **off > 0).map(|(t, _)| t));
        }
        for (what, (inexact, off)) in all {
            let of = match (inexact, off) {
                (0, 0) => &mut parts.exact,
                (_, 0) => &mut parts.within,
                _ => &mut parts.off,
            };
            of.push(what.to_owned());
        }
        (parts.all_params, parts.all_steps) = (params.len(), steps.len());
        parts
    }

    fn with_error(mut self, why: BackendError) -> Report {
        (self.outcome, self.detail) = match why {
            BackendError::Unsupported(why) => (Outcome::Unsupported, why),
            BackendError::Failed(why) => (Outcome::Error, why),
            BackendError::NeedsState(slot) => {
                (Outcome::Error, format!("the start of the run lacks the state `{slot}`"))
            }
        };
        self
    }

    fn with_results(
        mut self,
        mut comparator: Comparator<'_>,
        remarks: impl IntoIterator<Item = String>,
    ) -> Report {
        comparator.finish();
        let ties = comparator.remark();
        let (ulp, bound) = comparator.worst();
        (self.ulp, self.bound) = (Some(ulp), bound);
        let mut detail = comparator.problems.clone();
        if let Some(first) = &comparator.first {
            let count = comparator.failures;
            detail.push(format!("{first} ({count} of {} numbers off)", comparator.compared));
        }
        let bad = !detail.is_empty();
        (self.compared, self.off, self.zeros) =
            (comparator.compared, comparator.failures, comparator.zeros);
        self.outcome = match (bad, self.compared) {
            (true, _) => Outcome::Fail,
            (false, 0) => Outcome::Empty,
            (false, _) => Outcome::Pass,
        };
        if self.outcome == Outcome::Empty {
            detail.push("nothing to compare".to_owned());
        }
        detail.extend(ties);
        detail.extend(comparator.remarks());
        detail.extend(remarks);
        self.detail = detail.join("; ");
        self.failure = comparator.first;
        self.samples = if bad { comparator.samples } else { Vec::new() };
        self.tensors = comparator.tensors;
        self.history = comparator.history;
        self.spread = comparator.spread;
        self
    }
}

/// Where a check is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffParts {
    /// Quantities with a value beyond its bound.
    pub off: Vec<String>,
    /// Quantities that differ, within their bounds.
    pub within: Vec<String>,
    /// Quantities that are equal in every value.
    pub exact: Vec<String>,
    /// The parameters with a value beyond its bound.
    pub params: BTreeSet<usize>,
    /// The number of parameters compared.
    pub all_params: usize,
    /// The steps at which a value is beyond its bound.
    pub steps: BTreeSet<usize>,
    /// The number of steps compared.
    pub all_steps: usize,
}

impl std::fmt::Display for OffParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        for (what, of) in
            [("off", &self.off), ("within bounds", &self.within), ("exact", &self.exact)]
        {
            if !of.is_empty() {
                parts.push(format!("{what}: {}", of.join(", ")));
            }
        }
        if self.params.len() < self.all_params && !self.params.is_empty() {
            let params: Vec<_> = self.params.iter().map(|i| format!("p{i}")).collect();
            parts.push(format!("{} only", params.join(", ")));
        }
        match (self.steps.first(), self.steps.last()) {
            (Some(first), Some(last)) if self.steps.len() < self.all_steps => {
                parts.push(match self.steps.len() {
                    1 => format!("step {first} only"),
                    n if last - first + 1 == n => format!("steps {first} to {last} only"),
                    n => format!("{n} of {} steps", self.all_steps),
                });
            }
            _ => {}
        }
        f.write_str(&parts.join("; "))
    }
}

/// Checks one case in every mode of its kind.
#[must_use]
pub fn case(case: &Case, backend: &dyn Backend, bounds: &Bounds) -> Vec<Report> {
    Basis::of(case).check(backend, bounds)
}

/// A case with its tolerances, computed on first use and kept, for checking many backends.
pub struct Basis<'a> {
    /// The case.
    pub case: &'a Case,
    steps: Vec<OnceLock<Tolerances>>,
    run: OnceLock<Vec<Tolerances>>,
}

impl<'a> Basis<'a> {
    /// For a case; nothing is computed yet.
    #[must_use]
    pub fn of(case: &'a Case) -> Self {
        Basis {
            case,
            steps: (0..case.steps).map(|_| OnceLock::new()).collect(),
            run: OnceLock::new(),
        }
    }

    /// Checks the case in every mode of its kind.
    #[must_use]
    pub fn check(&self, backend: &dyn Backend, bounds: &Bounds) -> Vec<Report> {
        let case = self.case;
        let guarded = |mode: Mode, f: &dyn Fn(Report) -> Result<Report, BackendError>| {
            let blank = Report::without_figures(case, backend.name(), mode);
            match catch_unwind(AssertUnwindSafe(|| f(blank.clone()))) {
                Ok(Ok(report)) => report,
                Ok(Err(error)) => blank.with_error(error),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                    blank.with_error(BackendError::Failed(format!(
                        "panicked: {}",
                        text.unwrap_or("?")
                    )))
                }
            }
        };
        match &case.data {
            Data::Optimizer(data) => {
                // The free run comes first: a single step starts from the reference's answer to the one before, and no
                // backend may see an answer before it gives its own.
                let free =
                    guarded(Mode::Free, &|blank| free_run(self, data, backend, bounds, blank));
                let step =
                    guarded(Mode::Step, &|blank| by_step(self, data, backend, bounds, blank));
                vec![step, free]
            }
            Data::Schedule(data) => {
                vec![guarded(Mode::Values, &|blank| schedule(case, data, backend, bounds, blank))]
            }
            Data::Gradient(data) => {
                vec![guarded(Mode::Values, &|blank| gradient(case, data, backend, bounds, blank))]
            }
        }
    }

    fn step(&self, data: &OptimizerCase, t: usize) -> &Tolerances {
        self.steps[t].get_or_init(|| derived::of_step(self.case, data, t))
    }

    fn run(&self, data: &OptimizerCase) -> &[Tolerances] {
        self.run.get_or_init(|| derived::of_run(self.case, data))
    }
}

/// For each tensor of a case, which operations its tolerances come from, and how much of them: in a rule
/// one operation multiplies another's error, so the shares may add up to more than 1.
#[must_use]
pub fn origins(case: &Case) -> Origins {
    derived::origins(case)
}

fn by_step(
    basis: &Basis<'_>,
    data: &OptimizerCase,
    backend: &dyn Backend,
    bounds: &Bounds,
    blank: Report,
) -> Result<Report, BackendError> {
    let case = basis.case;
    let spec = OptimizerSpec::new(case, data);
    let mut comparator = Comparator::new(bounds, &case.id, Mode::Step);
    let has_state = data.params.iter().any(|p| !p.state.is_empty());
    let (mut skipped, mut lacking, mut hidden, mut later) = (0, None, false, 0);
    if case.steps == 0 {
        backend.optimizer(&spec)?; // so that an unsupported optimizer is reported
    }
    for t in 0..case.steps {
        let mut run = backend.optimizer(&spec)?;
        let mut compared = vec![true; data.params.len()];
        for (i, p) in data.params.iter().enumerate() {
            let state = p.state_before(t);
            if t == 0 && state.is_empty() {
                continue;
            }
            let updates = p.updates_before(t);
            // A parameter without a gradient so far has no rows to start from.
            compared[i] = t == 0 || updates > 0 || !state.is_empty() || !has_state;
            let counts = Counts { updates: updates as u64, steps: t as u64 };
            match run.load(i, &p.value_before(t), &state, counts) {
                Err(BackendError::NeedsState(slot)) if t > 0 => {
                    lacking::excused(&spec, data, (i, t), &slot).map_err(BackendError::Failed)?;
                    lacking = Some(slot);
                    compared[i] = false;
                }
                other => other?,
            }
        }
        if compared.contains(&true) || compared.is_empty() {
            run.step(&Inputs::new(data, t))?;
            for (i, compared) in compared.iter_mut().enumerate().filter(|(_, compared)| **compared)
            {
                let Some(slot) = run.lacks(i) else { continue };
                lacking::excused(&spec, data, (i, t), &slot).map_err(BackendError::Failed)?;
                lacking = Some(slot);
                *compared = false;
            }
        }
        skipped += compared.iter().filter(|&&compared| !compared).count();
        hidden |= !run.shows_state();
        later += compared.iter().filter(|&&compared| compared && t > 0).count();
        let derived = basis.step(data, t);
        for (i, _) in compared.iter().enumerate().filter(|(_, compared)| **compared) {
            let want = Want::of(case, data, (i, t));
            compare_param(&mut comparator, case, data, &*run, (i, t), &want, derived);
        }
    }
    if let Some(slot) = lacking.as_ref().filter(|_| later == 0) {
        let text = format!("nothing to judge after the first step: the file lacks `{slot}`");
        return Err(BackendError::Unsupported(text));
    }
    let skipped = (skipped > 0).then(|| {
        let slot = lacking.map_or(String::new(), |s| format!(" (such as `{s}`)"));
        let all = case.steps * data.params.len();
        format!("{skipped} of {all} parameter-steps checked in the free run only: the file lacks state to start from{slot}")
    });
    let remarks = [skipped, hidden.then(unchecked), underived(&spec)];
    Ok(blank.with_results(comparator, remarks.into_iter().flatten()))
}

fn unchecked() -> String {
    "values only: the backend does not show its state".to_owned()
}

/// The remark where no tolerance is derived.
fn underived(spec: &OptimizerSpec<'_>) -> Option<String> {
    let name = spec.name;
    let text = || format!("no tolerance is derived: the core has no `{name}`");
    Core.optimizer(spec).is_err().then(text)
}

fn free_run(
    basis: &Basis<'_>,
    data: &OptimizerCase,
    backend: &dyn Backend,
    bounds: &Bounds,
    blank: Report,
) -> Result<Report, BackendError> {
    let case = basis.case;
    let mut comparator = Comparator::new(bounds, &case.id, Mode::Free);
    let spec = OptimizerSpec::new(case, data);
    let mut run = backend.optimizer(&spec)?;
    for (i, p) in data.params.iter().enumerate().filter(|(_, p)| !p.state0.is_empty()) {
        run.load(i, &p.init, &p.state0, Counts::default())?;
    }
    let (derived, by_table) = (basis.run(data), Tolerances::default());
    // Compares steps with the core's from the backend's own state, once its codes have diverged.
    let mut from_own = Comparator::new(bounds, &case.id, Mode::Step);
    let mut before = Vec::new();
    let all = 0..data.params.len();
    let is_encoded = |i: usize| data.params[i].state.values().any(|rows| is_code(rows.dtype));
    let mut is_open = vec![false; data.params.len()];
    let inputs: Vec<Inputs> = (0..case.steps).map(|t| Inputs::new(data, t)).collect();
    run.plan(&inputs);
    for (t, inputs) in inputs.iter().enumerate() {
        run.step(inputs)?;
        let diverged = comparator.diverged();
        let follow = !diverged.is_empty() && !before.is_empty();
        let right = follow.then(|| diverged::step(&spec, data, &before, t)).flatten();
        let own = right.as_ref().map(|_| derived::of_own(&spec, data, &before, t));
        let own = own.unwrap_or_default();
        for i in diverged {
            let Some(right) = &right else {
                comparator.mark_unfollowed(i, t);
                continue;
            };
            let want = Want::from_own(data, &**right, &before[i], i);
            compare_param(&mut from_own, case, data, &*run, (i, t), &want, &own);
        }
        comparator.can_follow = !before.is_empty() && run.shows_state();
        for i in all.clone() {
            let want = Want::of(case, data, (i, t));
            let derived = derived.get(t).unwrap_or(&by_table);
            let by_rule = derived.numbers(&format!("p{i}.value")).is_some();
            compare_param(&mut comparator, case, data, &*run, (i, t), &want, derived);
            if comparator.takes_unbounded(i, t) {
                let own = derived::of_own(&spec, data, &before, t);
                match diverged::step(&spec, data, &before, t) {
                    Some(right) => {
                        let want = Want::from_own(data, &*right, &before[i], i);
                        compare_param(&mut from_own, case, data, &*run, (i, t), &want, &own);
                    }
                    None => comparator.problem(format!("`p{i}` has no bound at step {t}")),
                }
            }
            // Whether open codes have diverged can't be seen.
            is_open[i] |= !by_rule || derived.has_open_codes(i);
            if !run.shows_state() && is_encoded(i) && is_open[i] {
                comparator.mark_unfollowed(i, t);
            }
        }
        comparator.end_of_step(t);
        let next = derived.get(t + 1).is_some_and(Tolerances::has_unbounded);
        if (next || !comparator.diverged().is_empty()) && run.shows_state() {
            before = diverged::shown(&*run, data.params.len());
        }
    }
    from_own.finish();
    from_own.remark();
    comparator.absorb(from_own);
    let remarks = [(!run.shows_state()).then(unchecked), underived(&spec)];
    Ok(blank.with_results(comparator, remarks.into_iter().flatten()))
}

/// A compensation slot is meaningful only together with the value: returns the slot as it would be beside the
/// reference's value, and the scale of what was added to their sum.
fn with_value(
    [got, want]: [&Tensor; 2],
    [got_value, want_value]: &[Tensor; 2],
    [value_before, before]: &[Tensor; 2],
) -> (Tensor, Vec<f64>) {
    let finite = |x: f64| if x.is_finite() { x } else { 0.0 };
    let beside = |k| got.get(k) + finite(got_value.get(k) - want_value.get(k));
    let added = |k| want_value.get(k) - value_before.get(k) + (want.get(k) - before.get(k));
    let scale = |k| before.get(k).abs().max(finite(added(k)).abs());
    let answers: Vec<f64> = (0..got.len()).map(beside).collect();
    let rounded = Tensor::round(got.dtype, &got.shape, &answers);
    (rounded.unwrap_or_else(|| got.clone()), (0..got.len()).map(scale).collect())
}

/// For each element, that of two answers which is nearer to the reference's.
fn nearer(a: &Tensor, b: Tensor, want: &Tensor) -> Tensor {
    let mut out = b;
    let size = out.dtype.size();
    for k in 0..a.len().min(out.len()) {
        let off = |x: f64| compare::error(x, want.get(k), 1.0);
        if a.dtype == out.dtype && off(a.get(k)) <= off(out.get(k)) {
            out.bytes[k * size..(k + 1) * size].copy_from_slice(&a.bytes[k * size..(k + 1) * size]);
        }
    }
    out
}

/// Slots that start as a copy of the parameter.
const START_AS_PARAMETER: [&str; 3] = ["z", "ax", "la_param"];

/// The expected value and state of one parameter after a step, and those before it.
struct Want {
    value: Tensor,
    eval: Option<Tensor>,
    state: BTreeMap<String, Tensor>,
    before: Tensor,
    state_before: BTreeMap<String, Tensor>,
}

impl Want {
    /// From the reference.
    fn of(case: &Case, data: &OptimizerCase, (i, t): (usize, usize)) -> Want {
        let p = &data.params[i];
        let mut state_before = p.state_before(t);
        if state_before.is_empty() {
            let copies = START_AS_PARAMETER.map(|slot| (slot.to_owned(), p.value_before(t)));
            state_before.extend(copies);
        }
        Want {
            value: p.value.row(t),
            eval: if t + 1 == case.steps { p.eval.clone() } else { None },
            state: p.state.iter().map(|(slot, rows)| (slot.clone(), rows.row(t))).collect(),
            before: p.value_before(t),
            state_before,
        }
    }

    /// From `right`, the core after a step from the backend's own state.
    fn from_own(data: &OptimizerCase, right: &dyn Run, own: &Shown, i: usize) -> Want {
        let (before, state_before) = own.clone();
        let mut state = right.state(i);
        state.retain(|slot, _| data.params[i].state.contains_key(slot));
        Want { value: right.value(i), eval: None, state, before, state_before }
    }
}

/// Compares value, state and, at the end, `eval` of one parameter after step `t`.
fn compare_param(
    comparator: &mut Comparator<'_>,
    case: &Case,
    data: &OptimizerCase,
    run: &dyn Run,
    (i, t): (usize, usize),
    expected: &Want,
    derived: &Tolerances,
) {
    let p = &data.params[i];
    let constant = case.hyper.get("lr").and_then(serde_json::Value::as_f64);
    let lr = data.lr.as_ref().map(|lr| lr[t]).or(constant).unwrap_or(0.0);
    // Where low-bit moments cancel, the rest is only as accurate as an update without cancellation, whose size is
    // a few learning rates.
    let floor = if is_low_bit(&case.id) { 8.0 * lr } else { 0.0 };
    let before = &expected.before;
    let start = if comparator.mode() == Mode::Free { &p.init } else { before };
    let answers = [("value", Some(run.value(i)), Some(&expected.value))];
    let eval = expected.eval.as_ref().map(|want| ("eval", run.eval(i), Some(want)));
    for (what, got, want) in answers.into_iter().chain(eval) {
        let (tensor, Some(want)) = (format!("p{i}.{what}"), want) else { continue };
        let Some(got) = got else {
            comparator.problem(format!("the backend does not show `{tensor}`"));
            continue;
        };
        if got.dtype != want.dtype || got.shape != want.shape {
            let (g, w) = (describe_tensor(&got), describe_tensor(want));
            comparator.problem(format!("`{tensor}` is {g}, wanted {w}"));
            continue;
        }
        let from = (what == "value").then_some([before, start]);
        let (step, param) = (Some(t), Some(i));
        let (derived, codes) = (derived.numbers(&tensor), derived.codes(&tensor));
        let at = TensorCheck { tensor: &tensor, what, step, param, from, derived, codes };
        let large = |x: f64| x.abs() >= floor || x.is_nan();
        let before = |k| before.get(k);
        comparator.compare_by(
            &at,
            &got,
            want,
            |k| if large(before(k)) { before(k) } else { floor },
        );
    }
    if !run.shows_state() {
        return;
    }
    let got = run.state(i);
    let has_been_updated = !p.state0.is_empty() || p.updates_before(t + 1) > 0;
    for (slot, want) in &expected.state {
        if !has_been_updated && want.has_nan() {
            continue;
        }
        let tensor = format!("p{i}.state.{slot}");
        match got.get(slot) {
            Some(got) => {
                let (step, param) = (Some(t), Some(i));
                let (derived, codes) = (derived.numbers(&tensor), derived.codes(&tensor));
                let at = TensorCheck {
                    tensor: &tensor,
                    what: slot,
                    step,
                    param,
                    from: None,
                    derived,
                    codes,
                };
                let state_before = expected.state_before.get(slot);
                if Bounds::compensates(slot) && got.len() == want.len() {
                    let before = [before.clone(), state_before.unwrap_or(want).clone()];
                    let values = [run.value(i), expected.value.clone()];
                    comparator.count_zeros(got, want);
                    let (beside, scale) = with_value([got, want], &values, &before);
                    // A derived tolerance counts that the value may be another one, to which it need not be in
                    // proportion: then the nearer of the two is judged.
                    let got = if derived.is_some() { nearer(got, beside, want) } else { beside };
                    comparator.compare_by(&at, &got, want, |k| scale[k]);
                } else {
                    comparator.compare(&at, got, want, state_before);
                }
            }
            None => comparator.problem(format!("the backend does not show the state `{tensor}`")),
        }
    }
}

fn describe_tensor(t: &Tensor) -> String {
    format!("{} {:?}", t.dtype, t.shape)
}

fn schedule(
    case: &Case,
    data: &ScheduleCase,
    backend: &dyn Backend,
    bounds: &Bounds,
    blank: Report,
) -> Result<Report, BackendError> {
    let spec = ScheduleSpec::new(case, data);
    let got = backend.schedule(&spec)?;
    let derived = derived::of_schedule(&spec).unwrap_or_default();
    let mut comparator = Comparator::new(bounds, &case.id, Mode::Values);
    if got.len() == data.lr.len() {
        let groups = data.groups;
        for t in 0..=case.steps {
            let row = |x: &[f64]| Tensor::f64(&[groups], &x[t * groups..(t + 1) * groups]);
            let at = TensorCheck {
                tensor: "lr",
                what: "lr",
                step: Some(t),
                derived: derived.get(t).map(|row| &row[..]),
                ..TensorCheck::plain()
            };
            comparator.compare(&at, &row(&got), &row(&data.lr), None);
        }
    } else {
        comparator.problem(format!("{} rates, wanted {}", got.len(), data.lr.len()));
    }
    Ok(blank.with_results(comparator, None))
}

fn gradient(
    case: &Case,
    data: &GradientCase,
    backend: &dyn Backend,
    bounds: &Bounds,
    blank: Report,
) -> Result<Report, BackendError> {
    let spec = GradientSpec::new(case, data);
    let answer = backend.gradient(&spec)?;
    let derived = derived::of_gradient(&spec).unwrap_or_default();
    let mut comparator = Comparator::new(bounds, &case.id, Mode::Values);
    if answer.outputs.len() != data.tensors.len() {
        let (got, want) = (answer.outputs.len(), data.tensors.len());
        comparator.problem(format!("{got} gradients, wanted {want}"));
    }
    for (i, (got, g)) in answer.outputs.iter().zip(&data.tensors).enumerate() {
        let (tensor, n) = (format!("g{i}.out"), g.output.len());
        if got.dtype != g.output.dtype || got.shape != g.output.shape {
            let (got, want) = (describe_tensor(got), describe_tensor(&g.output));
            comparator.problem(format!("`{tensor}` is {got}, wanted {want}"));
            continue;
        }
        // Sums may cancel; scaling and clipping can't.
        let terms = |k: usize| (k..g.input.len()).step_by(n.max(1)).map(|j| g.input.get(j));
        let largest = |x: &mut dyn Iterator<Item = f64>| {
            x.map(f64::abs).filter(|x| x.is_finite()).fold(0.0, f64::max)
        };
        // Noise is a scaled and shifted uniform value: its error is that of the largest.
        let noise = match case.name.as_str() {
            "neftune" => largest(&mut (0..n).map(|j| g.output.get(j) - g.input.get(j))),
            _ => 0.0,
        };
        let scale = |k: usize| match case.name.as_str() {
            "accumulate" => largest(&mut terms(k)),
            "neftune" => largest(&mut terms(k)).max(noise),
            _ => 0.0,
        };
        let derived = derived.outputs.get(i).map(|x| &x[..]);
        let at = TensorCheck { tensor: &tensor, what: "out", derived, ..TensorCheck::plain() };
        comparator.compare_by(&at, got, &g.output, scale);
    }
    match (data.norm, answer.norm) {
        (None, _) => {}
        (Some(_), None) => comparator.problem("the backend does not show `norm`".to_owned()),
        (Some(want), Some(got)) => {
            // Stored in f64, but computed in the type that all gradients promote to.
            let derived = derived.norm.as_ref().map(std::slice::from_ref);
            let at = TensorCheck { tensor: "norm", what: "norm", derived, ..TensorCheck::plain() };
            let dtype = data.tensors.iter().map(|g| g.input.dtype).reduce(promote);
            let round = |x| Tensor::round(dtype.unwrap_or(Dtype::F32), &[], &[x]);
            if let (Some(got), Some(want)) = (round(got), round(want)) {
                comparator.compare(&at, &got, &want, None);
            }
        }
    }
    Ok(blank.with_results(comparator, None))
}

/// The type that two types promote to.
fn promote(a: Dtype, b: Dtype) -> Dtype {
    match (a, b) {
        (a, b) if a == b => a,
        (Dtype::F64, _) | (_, Dtype::F64) => Dtype::F64,
        _ => Dtype::F32,
    }
}
