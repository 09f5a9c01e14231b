//! Holds answers against what the reference gave, number by number.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bounds::{self, Allow, Bounds, Mode, Subject, TIES};
use crate::compare;
use crate::diagnose::{MOST, Sample};
use crate::tensor::{Dtype, Tensor};

/// The first number of a case that is off by too much.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The tensor: `p0.value`, `p1.state.exp_avg`, `g0.out`, `lr`.
    pub tensor: String,
    /// The step, from 0, if there are steps.
    pub step: Option<usize>,
    /// The element, counted row by row.
    pub index: usize,
    /// The type of the numbers.
    pub dtype: Dtype,
    /// The backend's number.
    pub got: f64,
    /// Its bits.
    pub got_bits: u64,
    /// The reference's number.
    pub want: f64,
    /// Its bits.
    pub want_bits: u64,
    /// The error at scale.
    pub ulp: f64,
    /// What was allowed.
    pub bound: f64,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { tensor, index, dtype, got, want, got_bits, want_bits, ulp, bound, .. } = self;
        let step = self.step.map_or(String::new(), |t| format!("step {t}, "));
        let width = 2 * dtype.size();
        // An f32 in as few digits as tell it apart from other f32s.
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

/// The largest error, by how much of its bound it takes up.
#[derive(Clone, Copy, Debug)]
struct Worst {
    share: f64,
    ulp: f64,
    bound: f64,
}

/// Collects the comparisons of one case in one mode.
pub(crate) struct Judge<'a> {
    bounds: &'a Bounds,
    case: &'a str,
    mode: Mode,
    worst: Option<Worst>,
    unjudged: f64,
    reason: Option<&'static str>,
    /// The first failure.
    pub(crate) first: Option<Failure>,
    /// Numbers that are off by too much.
    pub(crate) failures: usize,
    /// Numbers compared.
    pub(crate) compared: usize,
    /// Zeros of the other sign.
    pub(crate) zeros: usize,
    /// Codes compared, and those of them that were a neighbour's.
    codes: [usize; 2],
    /// Answers that are missing or of the wrong form.
    pub(crate) problems: Vec<String>,
    /// Some of the numbers compared.
    pub(crate) samples: Vec<Sample>,
    /// For each quantity the worst error of every step.
    pub(crate) history: BTreeMap<String, Vec<f64>>,
    /// For each exemption for outliers: how many numbers were off by more than the default, of how many.
    outliers: BTreeMap<usize, (usize, usize)>,
    /// For each tensor the largest spacing so far, element by element.
    units: BTreeMap<String, Vec<f64>>,
    /// For each tensor the largest change of its latest step, in a free run of all steps together.
    paths: BTreeMap<String, f64>,
}

/// Where a number stands.
pub(crate) struct At<'a> {
    /// The tensor: `p0.value`.
    pub(crate) tensor: &'a str,
    /// The quantity: `value`.
    pub(crate) what: &'a str,
    /// The step, from 0.
    pub(crate) step: Option<usize>,
    /// By how much an element moves with the last bits of the inputs.
    pub(crate) moves: &'a dyn Fn(usize) -> f64,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(bounds: &'a Bounds, case: &'a str, mode: Mode) -> Self {
        Judge {
            bounds,
            case,
            mode,
            worst: None,
            unjudged: 0.0,
            reason: None,
            first: None,
            failures: 0,
            compared: 0,
            zeros: 0,
            codes: [0; 2],
            problems: Vec::new(),
            samples: Vec::new(),
            history: BTreeMap::new(),
            outliers: BTreeMap::new(),
            units: BTreeMap::new(),
            paths: BTreeMap::new(),
        }
    }

    /// The worst error and its bound, where anything was judged.
    pub(crate) fn worst(&self) -> (f64, Option<f64>) {
        match self.worst {
            Some(w) => (w.ulp, Some(w.bound)),
            None => (self.unjudged, None),
        }
    }

    /// Ends the comparisons: too many outliers are a problem, too.
    pub(crate) fn finish(&mut self) {
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

    /// Whether a mistake can be told by this quantity.
    fn takes_samples(&self, what: &str) -> bool {
        self.mode != Mode::Values && what != "eval" && !Bounds::compensates(what)
    }

    /// What to say of numbers that were measured only.
    pub(crate) fn remark(&self) -> Option<String> {
        self.reason.map(|r| format!("{:.2} ULP at scale not judged: {r}", self.unjudged))
    }

    /// What to say of codes where the reference sits on a tie; refuses too many of them.
    pub(crate) fn ties(&mut self) -> Option<String> {
        let [codes, ties] = self.codes;
        let text = format!("{ties} of {codes} codes on the other side of a tie");
        if ties as f64 > (codes as f64 * TIES).max(1.0) {
            self.problem(text.clone());
        }
        (ties > 0).then_some(text)
    }

    /// Notes an answer that is missing or of the wrong form.
    pub(crate) fn problem(&mut self, text: String) {
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    /// Counts the zeros that have the other sign.
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

    /// Compares a tensor. `before` is what stood there before the step;
    pub(crate) fn compare(
        &mut self,
        at: &At<'_>,
        got: &Tensor,
        want: &Tensor,
        before: Option<&Tensor>,
    ) {
        let scale = |i: usize| before.filter(|b| b.len() == want.len()).map_or(0.0, |b| b.get(i));
        self.compare_by(at, got, want, scale);
    }

    /// [`Judge::compare`] with the magnitude before the step as a function of the index.
    pub(crate) fn compare_by(
        &mut self,
        at: &At<'_>,
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
        let packed = at.what.ends_with(".codes") && self.case.contains("4bit");
        let low_bit = bounds::is_low_bit(self.case);
        let base = match exemption {
            Some((_, Allow::Ulp(ulp) | Allow::Conditioned(ulp) | Allow::Outliers { ulp, .. })) => {
                ulp
            }
            _ => default,
        };
        // The factor of a free run: see `bounds`.
        let steps = at.step.filter(|_| self.mode == Mode::Free).map(|t| (t + 1) as f64);
        let change = |i| (want.get(i) - before(i)).abs();
        let change = (0..want.len()).map(change).filter(|c| c.is_finite()).fold(0.0, f64::max);
        let path = self.paths.entry(at.tensor.to_owned()).or_default();
        *path = change + if self.mode == Mode::Free { *path } else { 0.0 };
        let path = *path;
        let mut units = self.units.remove(at.tensor).unwrap_or_default();
        units.resize(want.len(), 0.0);
        let mut worst_here = 0.0f64;
        let name: Arc<str> = at.tensor.into();
        for (i, largest) in units.iter_mut().enumerate() {
            let (g, w) = (got.get(i), want.get(i));
            let unit = compare::spacing(want.dtype, compare::scale(w, before(i)));
            *largest = if steps.is_some() { largest.max(unit) } else { unit };
            let steps = steps.map_or(1.0, |steps| steps * (*largest / unit));
            let apart = compare::codes_apart(want.dtype, got.bits(i), want.bits(i), packed);
            let apart = apart.filter(|_| low_bit && got.dtype == want.dtype);
            // No allowance makes up for a wrong code.
            let (base, default) = if apart.is_some() { (0.0, 0.0) } else { (base, default) };
            let ulp = match apart {
                Some(apart) => {
                    let tie = apart == 1 && self.mode == Mode::Step;
                    self.codes[0] += 1;
                    self.codes[1] += usize::from(tie);
                    if tie { 0.0 } else { apart as f64 }
                }
                None => compare::error(g, w, unit),
            };
            worst_here = worst_here.max(ulp);
            self.compared += 1;
            let off = ulp > default * steps;
            if let Some((e, allow)) = exemption {
                if off {
                    self.bounds.need(e);
                }
                if let Allow::Outliers { .. } = allow {
                    let (over, all) = self.outliers.entry(e).or_default();
                    (*over, *all) = (*over + usize::from(off), *all + 1);
                }
            }
            if matches!(exemption, Some((_, Allow::Unjudged))) {
                self.unjudged = self.unjudged.max(ulp);
                continue;
            }
            let mut bound = base * steps;
            if off && matches!(exemption, Some((_, Allow::Conditioned(_)))) {
                bound *= 1.0 + (at.moves)(i) / *largest;
            }
            if let Some((_, Allow::OfMove(share))) = exemption {
                bound += share * path / unit;
            }
            if let Some(step) = at.step.filter(|_| i < MOST && self.takes_samples(at.what)) {
                let (tensor, dtype) = (name.clone(), want.dtype);
                let of = Sample { tensor, step, index: i, dtype, got: g, want: w, unit, bound };
                self.samples.push(of);
            }
            let share = if ulp == 0.0 { 0.0 } else { ulp / bound };
            if self.worst.is_none_or(|w| share > w.share) {
                self.worst = Some(Worst { share, ulp, bound });
            }
            if ulp > bound {
                self.failures += 1;
                self.first.get_or_insert_with(|| Failure {
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
        self.units.insert(at.tensor.to_owned(), units);
        if let Some((e, Allow::Unjudged)) = exemption {
            self.reason = Some(self.bounds.reason(e));
        }
        if let Some(t) = at.step {
            let history = self.history.entry(at.what.to_owned()).or_default();
            history.resize(history.len().max(t + 1), 0.0);
            history[t] = history[t].max(worst_here);
        }
    }
}
