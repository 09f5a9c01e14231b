//! Compares answers with the reference's, element by element, and collects the result of one case in one mode.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::judge::bounds::{
    self, Bounds, CARRIED, Mode, SYSTEMATIC, SYSTEMATIC_DIVERGED, Subject, TIES, Tolerance,
};
use crate::judge::compare;
use crate::judge::spread::Spread;
use crate::judge::systematic::{Change, SystematicError};
use crate::tensor::{Dtype, Tensor};

/// The first value of a case that exceeds its bound.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The tensor: `p0.value`, `p1.state.exp_avg`, `g0.out`, `lr`.
    pub tensor: String,
    /// The step, from 0, if there are steps.
    pub step: Option<usize>,
    /// The element's index in row-major order.
    pub index: usize,
    /// The type of the values.
    pub dtype: Dtype,
    /// The backend's value.
    pub got: f64,
    /// Its bits.
    pub got_bits: u64,
    /// The reference's value.
    pub want: f64,
    /// Its bits.
    pub want_bits: u64,
    /// The error in ULP at scale.
    pub ulp: f64,
    /// The allowed error.
    pub bound: f64,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { tensor, index, dtype, got, want, got_bits, want_bits, ulp, bound, .. } = self;
        let step = self.step.map_or(String::new(), |t| format!("step {t}, "));
        let width = 2 * dtype.size();
        // The shortest digits that identify an f32.
        let show = |x: f64| match dtype {
            Dtype::F32 => format!("{:?}", x as f32),
            _ => format!("{x:?}"),
        };
        let (got, want) = (show(*got), show(*want));
        write!(f, "{tensor}, {step}index {index}: ")?;
        write!(f, "got {got} (0x{got_bits:0width$x}), want {want} (0x{want_bits:0width$x}), ")?;
        write!(f, "{ulp:.2} ULP at scale, bound {bound:.2}")
    }
}

/// The most samples of a tensor.
pub(crate) const MAX_SAMPLES: usize = 8;

/// A compared value.
#[derive(Clone, Debug)]
pub struct Sample {
    pub(crate) tensor: Arc<str>,
    pub(crate) step: usize,
    pub(crate) index: usize,
    pub(crate) dtype: Dtype,
    pub(crate) got: f64,
    pub(crate) want: f64,
    /// The size of one ULP here.
    pub(crate) unit: f64,
    /// The allowed error, in ULP.
    pub(crate) bound: f64,
}

/// When a step computes a quantity: its counter, the rest of the state, the value, what is derived from the value.
fn place_in_step(what: &str) -> u8 {
    match what {
        "step" | "step_num" | "k" => 0,
        "value" => 2,
        "eval" => 3,
        _ => 1,
    }
}

/// How the values of one tensor came out.
#[derive(Clone, Debug, Default)]
pub struct TensorTally {
    /// The quantity: `value`, `exp_avg`.
    pub what: String,
    /// The index of the parameter that it belongs to, if any.
    pub param: Option<usize>,
    /// The number of values compared.
    pub compared: usize,
    /// The number of values that differ at all.
    pub inexact: usize,
    /// For each step, the number of values that exceed their bounds.
    pub steps: BTreeMap<usize, usize>,
}

impl TensorTally {
    /// The number of values that exceed their bounds.
    #[must_use]
    pub fn off(&self) -> usize {
        self.steps.values().sum()
    }
}

/// The largest error relative to its bound.
#[derive(Clone, Copy, Debug)]
struct Worst {
    share: f64,
    ulp: f64,
    bound: f64,
}

/// Collects the comparisons of one case in one mode.
pub(crate) struct Comparator<'a> {
    bounds: &'a Bounds,
    case: &'a str,
    mode: Mode,
    worst: Option<Worst>,
    /// The first failure, in the order of computation: a value comes after the state that it was computed from.
    pub(crate) first: Option<Failure>,
    /// Its step, parameter and place in the step.
    first_place: Option<(Option<usize>, Option<usize>, u8)>,
    /// The number of values that exceed their bounds.
    pub(crate) failures: usize,
    /// The number of values compared.
    pub(crate) compared: usize,
    /// The number of zeros with the other sign.
    pub(crate) zeros: usize,
    /// The number of codes compared without derived ends, and of those that were off by one.
    codes: [usize; 2],
    /// The number of codes compared with derived ends.
    derived_codes: usize,
    /// The number of those that may be one of several, and of those that were not the reference's.
    open: [usize; 2],
    /// Answers that are missing or of the wrong type or shape.
    pub(crate) problems: Vec<String>,
    /// Some of the compared values.
    pub(crate) samples: Vec<Sample>,
    /// The distribution of errors relative to their tolerances.
    pub(crate) spread: Spread,
    /// How each tensor came out.
    pub(crate) tensors: BTreeMap<String, TensorTally>,
    /// For each quantity, the worst error of every step.
    pub(crate) history: BTreeMap<String, Vec<f64>>,
    /// For each exemption for outliers, the number of values beyond the default bound, and of all values.
    outliers: BTreeMap<usize, (usize, usize)>,
    /// For each tensor, the largest spacing so far of each element.
    units: BTreeMap<String, Vec<f64>>,
    /// For each parameter, its codes at this step of a free run.
    diverging: BTreeMap<usize, Diverging>,
    /// Parameters whose codes have diverged in a free run.
    diverged: BTreeMap<usize, Diverged>,
    /// How many numbers were not judged: a correct one may be anything, or NaN where another is none.
    unjudged: usize,
    /// Whether this step of a free run can also be judged from the program's own numbers before it.
    pub(crate) can_follow: bool,
    /// Parameters that have to be, at this step: a number is off the table's bound where its derived one has grown
    /// without limit.
    unbounded: BTreeSet<usize>,
    /// For each tensor, the systematic error of its update: over all single steps, or of the free run so far.
    systematic_errors: BTreeMap<String, SystematicError>,
    /// The first systematic error beyond its tolerance.
    systematic: Option<String>,
}

/// The codes of a parameter at one step of a free run.
#[derive(Clone, Copy, Debug, Default)]
struct Diverging {
    /// The number of codes compared without derived ends.
    codes: usize,
    /// The number of those that were off by one.
    ties: usize,
    /// Whether any code is not the reference's.
    has_parted: bool,
}

/// A parameter whose codes have diverged from the reference's in a free run.
#[derive(Clone, Copy, Debug)]
struct Diverged {
    /// The step at which they diverged.
    since: usize,
    /// The reference's largest change of an element, summed over the steps since.
    accumulated_change: f64,
    /// Whether its steps are compared with the core's [from its own state](crate::backend::diverged).
    followed: bool,
}

/// A tensor and how it is to be compared.
pub(crate) struct TensorCheck<'a> {
    /// The tensor's name: `p0.value`.
    pub(crate) tensor: &'a str,
    /// The quantity: `value`.
    pub(crate) what: &'a str,
    /// The step, from 0.
    pub(crate) step: Option<usize>,
    /// The index of the parameter that it belongs to, if any.
    pub(crate) param: Option<usize>,
    /// For a parameter's value, its value before the step, and the one from which its update is measured.
    pub(crate) from: Option<[&'a Tensor; 2]>,
    /// The elements' derived tolerances, if there are any.
    pub(crate) derived: Option<&'a [f64]>,
    /// For codes, the first and the last that each may be, as raw bits, where that is derived.
    pub(crate) codes: Option<[&'a [u64]; 2]>,
}

impl<'a> TensorCheck<'a> {
    /// A tensor that belongs to no parameter.
    pub(crate) fn plain() -> TensorCheck<'a> {
        TensorCheck {
            tensor: "",
            what: "",
            step: None,
            param: None,
            from: None,
            derived: None,
            codes: None,
        }
    }
}

impl<'a> Comparator<'a> {
    pub(crate) fn new(bounds: &'a Bounds, case: &'a str, mode: Mode) -> Self {
        Comparator {
            bounds,
            case,
            mode,
            worst: None,
            first: None,
            first_place: None,
            failures: 0,
            compared: 0,
            zeros: 0,
            codes: [0; 2],
            derived_codes: 0,
            open: [0; 2],
            problems: Vec::new(),
            samples: Vec::new(),
            spread: Spread::default(),
            tensors: BTreeMap::new(),
            history: BTreeMap::new(),
            outliers: BTreeMap::new(),
            units: BTreeMap::new(),
            diverging: BTreeMap::new(),
            diverged: BTreeMap::new(),
            unjudged: 0,
            can_follow: false,
            unbounded: BTreeSet::new(),
            systematic_errors: BTreeMap::new(),
            systematic: None,
        }
    }

    /// How the case is checked.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The worst error and its bound, if anything was compared.
    pub(crate) fn worst(&self) -> (f64, Option<f64>) {
        self.worst.map_or((0.0, None), |w| (w.ulp, Some(w.bound)))
    }

    /// Ends the comparisons, and reports systematic errors and too many outliers as problems.
    pub(crate) fn finish(&mut self) {
        let mut whole = SystematicError::default();
        self.systematic_errors.values().for_each(|m| whole.add(m));
        let off = || whole.off(SYSTEMATIC).map(|off| format!("all together {off}"));
        if let Some(off) = self.systematic.take().or_else(off) {
            self.problem(off);
        }
        for (e, (over, all)) in std::mem::take(&mut self.outliers) {
            let share = self.bounds.share(e);
            if over > 1 && over as f64 > share * all as f64 {
                self.problem(format!(
                    "{over} of {all} numbers off by more than the default, allowed a share of {share}: {}",
                    self.bounds.reason(e)
                ));
            }
        }
    }

    /// Whether a diagnosis can use this quantity.
    fn takes_samples(&self, what: &str) -> bool {
        self.mode != Mode::Values && what != "eval" && !Bounds::compensates(what)
    }

    /// Parameters whose codes have diverged from the reference's.
    pub(crate) fn diverged(&self) -> Vec<usize> {
        self.diverged.keys().copied().collect()
    }

    /// Records that the core can't follow a parameter from here on.
    pub(crate) fn mark_unfollowed(&mut self, param: usize, step: usize) {
        let none = Diverged { since: step, accumulated_change: 0.0, followed: false };
        self.diverged.entry(param).or_insert(none).followed = false;
    }

    /// Whether a parameter is to be judged from the program's own numbers at this step, and so from here on.
    pub(crate) fn takes_unbounded(&mut self, param: usize, step: usize) -> bool {
        let is = self.unbounded.remove(&param);
        if is {
            let since = step.saturating_sub(1);
            let followed = Diverged { since, accumulated_change: 0.0, followed: true };
            self.diverged.entry(param).or_insert(followed);
        }
        is
    }

    /// Ends a step of a free run, and reports too many codes that were off by one.
    pub(crate) fn end_of_step(&mut self, step: usize) {
        for (param, Diverging { codes, ties, has_parted }) in std::mem::take(&mut self.diverging) {
            if ties as f64 > (codes as f64 * TIES).max(1.0) {
                self.problem(format!(
                    "{ties} of {codes} codes of `p{param}` part from the reference's at step {step}"
                ));
            }
            let diverged = Diverged { since: step, accumulated_change: 0.0, followed: true };
            if has_parted {
                self.diverged.entry(param).or_insert(diverged);
            }
        }
    }

    /// Remarks on parameters whose codes have diverged.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let remark = |(param, p): (&usize, &Diverged)| {
            let how = if p.followed { "from its own numbers" } else { "by what codes can carry" };
            format!("`p{param}` judged {how} after step {}", p.since)
        };
        self.diverged.iter().map(remark).collect()
    }

    /// Merges the results of comparing steps from the backend's own state.
    pub(crate) fn absorb(&mut self, other: Comparator<'_>) {
        let own = |text: String| format!("from its own numbers: {text}");
        for text in other.problems {
            self.problem(own(text));
        }
        self.failures += other.failures;
        self.unjudged += other.unjudged;
        self.compared += other.compared;
        for (tensor, other) in other.tensors {
            let of = self.tensors.entry(tensor).or_default();
            of.compared += other.compared;
            of.inexact += other.inexact;
            for (step, off) in other.steps {
                *of.steps.entry(step).or_default() += off;
            }
        }
        if let Some(first) = other.first {
            let tensor = own(first.tensor);
            self.first.get_or_insert(Failure { tensor, ..first });
        }
    }

    /// The remark on what was not judged to the end.
    pub(crate) fn remark(&mut self) -> Option<String> {
        let nan = (self.unjudged > 0)
            .then(|| format!("{} numbers not judged that have no bound", self.unjudged));
        match (self.ties(), nan) {
            (Some(a), Some(b)) => Some(format!("{a}; {b}")),
            (a, b) => a.or(b),
        }
    }

    /// The remark on codes that were off by one, where the reference is on a tie; too many are a problem.
    fn ties(&mut self) -> Option<String> {
        let [open, parted] = self.open;
        if parted > 0 {
            let all = self.derived_codes;
            return Some(format!(
                "{parted} codes not the reference's, of {open} that may be either of two, of {all}"
            ));
        }
        let [codes, ties] = self.codes;
        let text = format!("{ties} of {codes} codes on the other side of a tie");
        if ties as f64 > (codes as f64 * TIES).max(1.0) {
            self.problem(text.clone());
        }
        (ties > 0).then_some(text)
    }

    /// Records an answer that is missing or of the wrong type or shape.
    pub(crate) fn problem(&mut self, text: String) {
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    /// Counts the zeros with the other sign.
    pub(crate) fn count_zeros(&mut self, got: &Tensor, want: &Tensor) {
        if got.dtype.float().is_none() || want.dtype.float().is_none() {
            return;
        }
        let other = |&i: &usize| {
            let (got, want) = (got.get(i), want.get(i));
            got == 0.0 && want == 0.0 && got.is_sign_negative() != want.is_sign_negative()
        };
        self.zeros += (0..got.len().min(want.len())).filter(other).count();
    }

    /// Compares a tensor. `before` is its value before the step, which sets the scale.
    pub(crate) fn compare(
        &mut self,
        at: &TensorCheck<'_>,
        got: &Tensor,
        want: &Tensor,
        before: Option<&Tensor>,
    ) {
        let scale = |i: usize| before.filter(|b| b.len() == want.len()).map_or(0.0, |b| b.get(i));
        self.compare_by(at, got, want, scale);
    }

    /// [`Comparator::compare`] with the magnitude before the step as a function of the index.
    pub(crate) fn compare_by(
        &mut self,
        at: &TensorCheck<'_>,
        got: &Tensor,
        want: &Tensor,
        before: impl Fn(usize) -> f64,
    ) {
        if got.len() != want.len() {
            let (got, want) = (&got.shape, &want.shape);
            self.problem(format!("`{}` has shape {got:?}, wanted {want:?}", at.tensor));
            return;
        }
        if !Bounds::compensates(at.what) {
            self.count_zeros(got, want);
        }
        let subject =
            Subject { case: self.case, dtype: want.dtype, what: at.what, mode: self.mode };
        let exemption = self.bounds.exemption(&subject);
        let default = Bounds::default_for(want.dtype, at.what);
        // No exemption excuses a wrong code or a wrong count.
        let exact = want.dtype.float().is_none() && default == 0.0 || compare::is_code(want.dtype);
        let grid = compare::is_code(want.dtype) && got.dtype != want.dtype;
        let grid = grid.then(|| compare::code_grid(want.dtype));
        let packed = at.what.ends_with(".codes") && self.case.contains("4bit");
        let low_bit = bounds::is_low_bit(self.case);
        let base = match exemption {
            _ if exact => 0.0,
            Some((_, Tolerance::Ulp(ulp) | Tolerance::Outliers { ulp, .. })) => ulp,
            _ => default,
        };
        let default = if exact { 0.0 } else { default };
        // The factor of a free run, see `bounds`.
        let steps = at.step.filter(|_| self.mode == Mode::Free).map(|t| (t + 1) as f64);
        let change = |i| at.from.map_or(0.0, |[before, _]| (want.get(i) - before.get(i)).abs());
        let change = (0..want.len()).map(change).filter(|c| c.is_finite()).fold(0.0, f64::max);
        let diverged = at.param.and_then(|i| self.diverged.get_mut(&i));
        let diverged = diverged.map(|p| {
            p.accumulated_change += change;
            *p
        });
        let derived = at.derived.filter(|d| !exact && d.len() == want.len());
        let codes = at.codes.filter(|codes| codes.iter().all(|x| x.len() == want.len()));
        let is_value = matches!(at.what, "value" | "eval");
        let mut changes = Vec::new();
        let mut units = self.units.remove(at.tensor).unwrap_or_default();
        units.resize(want.len(), 0.0);
        let (mut worst_here, mut off_here, mut inexact_here) = (0.0f64, 0, 0);
        let name: Arc<str> = at.tensor.into();
        for (i, largest) in units.iter_mut().enumerate() {
            let (g, w) = (got.get(i), want.get(i));
            let kind = |x: f64| (x.is_nan(), x.is_finite());
            if kind(g) != kind(w) && derived.is_some_and(|d| d[i].is_nan()) {
                self.unjudged += 1;
                // What comes of it is judged from the program's own numbers.
                if let Some(param) = at.param.filter(|_| self.mode == Mode::Free) {
                    self.diverging.entry(param).or_default().has_parted = true;
                }
                continue;
            }
            let unit = compare::spacing(want.dtype, compare::scale(w, before(i)));
            *largest = if steps.is_some() { largest.max(unit) } else { unit };
            let steps = steps.map_or(1.0, |steps| steps * (*largest / unit));
            let code = match &grid {
                None => Some(got.bits(i)),
                Some(grid) => compare::code(grid, g),
            };
            let apart = |code| compare::codes_apart(want.dtype, code, want.bits(i), packed);
            // The reference's code and this one must both be ones that the element may have.
            let ends = codes.map(|[a, b]| [a[i], b[i]]);
            let both_may_be = ends.is_some_and(|ends| {
                let may_be = |code| compare::is_between(want.dtype, code, ends, packed);
                may_be(want.bits(i)) && code.is_some_and(may_be)
            });
            let ulp = match (code, code.and_then(apart)) {
                // The value is not on the code grid.
                (None, _) => f64::INFINITY,
                // After divergence a followed parameter is compared from its own state, any other by its value alone.
                _ if diverged.is_some_and(|p| p.followed) => 0.0,
                _ if diverged.is_some() && !is_value => {
                    if w.is_finite() && !g.is_finite() {
                        f64::INFINITY
                    } else {
                        0.0
                    }
                }
                (_, Some(apart)) => {
                    // Without derived ends a share of the codes may be off by one, as on a tie.
                    let on_tie = match ends {
                        Some(_) => apart > 0 && both_may_be,
                        None => apart == 1 && low_bit,
                    };
                    let counts = if ends.is_some() { &mut self.open } else { &mut self.codes };
                    counts[0] += usize::from(ends.is_none_or(|[a, b]| a != b));
                    counts[1] += usize::from(on_tie);
                    self.derived_codes += usize::from(ends.is_some());
                    if let Some(param) = at.param.filter(|_| self.mode == Mode::Free) {
                        let diverging = self.diverging.entry(param).or_default();
                        let shared = usize::from(ends.is_none());
                        diverging.codes += shared;
                        diverging.ties += shared * usize::from(on_tie);
                        diverging.has_parted |= on_tie;
                    }
                    if on_tie { 0.0 } else { apart as f64 }
                }
                (_, None) => compare::error(g, w, unit),
            };
            worst_here = worst_here.max(ulp);
            inexact_here += usize::from(ulp > 0.0);
            self.compared += 1;
            let tolerance = derived.map(|d| d[i]).filter(|t| t.is_finite());
            // A derived tolerance takes precedence, except over an explicit row of the table.
            let off = ulp > tolerance.map_or(default * steps, |tolerance| tolerance / unit);
            if let Some((e, allow)) = exemption {
                if off {
                    self.bounds.mark_used(e);
                }
                if let Tolerance::Outliers { .. } = allow {
                    let (over, all) = self.outliers.entry(e).or_default();
                    (*over, *all) = (*over + usize::from(off), *all + 1);
                }
            }
            let tolerance = tolerance.filter(|_| !off || exemption.is_none());
            let mut bound = base * steps;
            let mut noise = base
                * *largest
                * at.step.map_or(1.0, |t| {
                    if self.mode == Mode::Free { ((t + 1) as f64).sqrt() } else { 1.0 }
                });
            if let Some(diverged) = diverged.filter(|_| is_value) {
                bound += CARRIED * diverged.accumulated_change / unit;
            }
            if let Some(tolerance) = tolerance {
                (bound, noise) = (tolerance / unit, tolerance);
                self.spread.record(ulp, bound);
            } else if !exact {
                self.spread.by_table += 1;
            }
            // What has no bound says nothing of how far a parameter moves.
            if let Some([_, start]) = at.from.filter(|_| derived.is_none_or(|d| d[i].is_finite())) {
                let (got, want) = (g - start.get(i), w - start.get(i));
                changes.push(Change { got, want, noise });
            }
            if let Some(step) = at.step.filter(|_| i < MAX_SAMPLES && self.takes_samples(at.what)) {
                let (tensor, dtype) = (name.clone(), want.dtype);
                let of = Sample { tensor, step, index: i, dtype, got: g, want: w, unit, bound };
                self.samples.push(of);
            }
            if ulp > bound && derived.is_some_and(|d| d[i] == f64::INFINITY) {
                let param = at.param.filter(|_| self.mode == Mode::Free);
                if let Some(param) = param.filter(|_| self.can_follow) {
                    self.unbounded.insert(param);
                    continue;
                }
                if g.is_finite() == w.is_finite() {
                    self.unjudged += 1;
                    if let Some(param) = param {
                        self.diverging.entry(param).or_default().has_parted = true;
                    }
                    continue;
                }
            }
            let share = if ulp == 0.0 { 0.0 } else { ulp / bound };
            if self.worst.is_none_or(|w| share > w.share) {
                self.worst = Some(Worst { share, ulp, bound });
            }
            if ulp > bound {
                self.failures += 1;
                off_here += 1;
                let place = (at.step, at.param, place_in_step(at.what));
                if self.first_place.is_none_or(|first| place < first) {
                    self.first_place = Some(place);
                    self.first = Some(Failure {
                        tensor: at.tensor.to_owned(),
                        step: at.step,
                        index: i,
                        dtype: want.dtype,
                        got: g,
                        got_bits: got.bits(i),
                        want: w,
                        want_bits: want.bits(i),
                        ulp,
                        bound,
                    });
                }
            }
        }
        let tally = self.tensors.entry(at.tensor.to_owned()).or_default();
        (tally.what, tally.param) = (at.what.to_owned(), at.param);
        tally.compared += want.len();
        tally.inexact += inexact_here;
        *tally.steps.entry(at.step.unwrap_or(0)).or_default() += off_here;
        self.units.insert(at.tensor.to_owned(), units);
        let is_unbounded = at.param.is_some_and(|param| self.unbounded.contains(&param));
        if at.from.is_some() && !is_unbounded && diverged.is_none_or(|p| !p.followed) {
            let error = SystematicError::of(&changes, want.dtype.size() < 4);
            self.check_systematic(at, &error, diverged.is_some());
        }
        if let Some(t) = at.step {
            let history = self.history.entry(at.what.to_owned()).or_default();
            history.resize(history.len().max(t + 1), 0.0);
            history[t] = history[t].max(worst_here);
        }
    }

    /// Checks the systematic error of a parameter's update.
    fn check_systematic(&mut self, at: &TensorCheck<'_>, error: &SystematicError, diverged: bool) {
        let tolerance = if diverged { SYSTEMATIC_DIVERGED } else { SYSTEMATIC };
        if self.systematic.is_none() {
            let step = at.step.map_or(String::new(), |t| format!(", step {t},"));
            let off = error.off(tolerance);
            self.systematic = off.map(|off| format!("`{}`{step} {off}", at.tensor));
        }
        let all = self.systematic_errors.entry(at.tensor.to_owned()).or_default();
        if diverged {
            *all = SystematicError::default();
        } else if self.mode == Mode::Free {
            *all = *error;
        } else {
            all.add(error);
        }
    }
}
