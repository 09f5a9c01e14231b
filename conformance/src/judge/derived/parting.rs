//! At which operation of a step an answer parts from the rule's: those of which another result, everything else alike,
//! gives all that the backend answered, what is right in it included.

use std::collections::BTreeMap;

use super::number::{self, Operation, Source};
use super::start;
use crate::backend::{BackendError, Inputs, Run};
use crate::golden::{Case, OptimizerCase};
use crate::judge::comparator::Sample;
use crate::judge::compare;

/// An operation, and the result with which the step gives the backend's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parting {
    operation: Operation,
    needed: f64,
}

impl Parting {
    /// Whether it is a constant of the step, the same for all elements.
    pub(crate) fn is_constant(&self) -> bool {
        self.operation.source == Source::Constant
    }

    /// How far the result is from what it would have to be, relative to the larger of the two.
    fn change(&self) -> f64 {
        let (x, y) = (self.operation.result, self.needed);
        (x - y).abs() / x.abs().max(y.abs()).max(f64::MIN_POSITIVE)
    }

    /// The operation's sign.
    pub(crate) fn sign(&self) -> &'static str {
        let all = Source::ALL.iter().find(|(source, _)| *source == self.operation.source);
        match all {
            Some((Source::Addition, _)) if self.operation.operands[1].is_sign_negative() => "−",
            Some((_, sign)) => sign,
            None => "?",
        }
    }
}

impl std::fmt::Display for Parting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Operation { source, operands: [a, b], result } = self.operation;
        match source {
            Source::Constant => write!(f, "the constant {result:?}")?,
            Source::Root => write!(f, "√{a:?} = {result:?}")?,
            Source::Addition if b.is_sign_negative() => write!(f, "{a:?} − {:?} = {result:?}", -b)?,
            _ => write!(f, "{a:?} {} {b:?} = {result:?}", self.sign())?,
        }
        write!(f, ", which would have to be {:?}", self.needed)
    }
}

/// The most operations of a step that is searched, all of them or for its constants alone.
const MOST: [usize; 2] = [500, 4000];

/// How often a result is improved.
const TRIES: usize = 16;

/// The operations of step `t` at which an answer may part, in order; nothing where the step can't be followed.
/// `samples` are the answer's numbers at that step. `constants`: among the constants alone.
pub(crate) fn parting(
    case: &Case,
    data: &OptimizerCase,
    t: usize,
    samples: &[&Sample],
    constants: bool,
) -> Vec<Parting> {
    // The number that is off by most bounds says best what the result would have to be.
    let bounds_off = |s: &Sample| compare::error(s.got, s.want, s.unit) / s.bound.max(1.0);
    let off = samples
        .iter()
        .enumerate()
        .filter(|(_, s)| compare::error(s.got, s.want, s.unit) > s.bound && s.got.is_finite());
    let goal = off.max_by(|(_, a), (_, b)| bounds_off(a).total_cmp(&bounds_off(b)));
    let Some((goal, _)) = goal else { return Vec::new() };
    let answer =
        |other: Option<(usize, f64)>| number::traced(other, || step(case, data, t, samples));
    let (Ok(right), operations) = answer(None) else { return Vec::new() };
    if operations.len() > MOST[usize::from(constants)] {
        return Vec::new();
    }
    let near = |k: usize, x: f64| {
        let s = samples[k];
        let unit = s.unit.max(compare::spacing(s.dtype, compare::scale(x, 0.0)));
        compare::error(x, s.got, unit) <= s.bound.max(1.0)
    };
    let mut found = Vec::new();
    for (k, &operation) in operations.iter().enumerate() {
        if constants && operation.source != Source::Constant {
            continue;
        }
        let of = |x: f64| answer(Some((k, x))).0.ok();
        let Some(needed) = solve(operation.result, right[goal], samples[goal].got, |x| {
            let all = of(x)?;
            Some((all[goal], near(goal, all[goal])))
        }) else {
            continue;
        };
        let all = of(needed).unwrap_or_default();
        if all.len() == samples.len() && all.iter().enumerate().all(|(i, &x)| near(i, x)) {
            found.push(Parting { operation, needed });
        }
    }
    // What needs a far larger change than another is no likely cause: 0 · x that would have to be the whole error.
    let of_elements = found.iter().filter(|p| !p.is_constant());
    let least = of_elements.map(Parting::change).fold(f64::INFINITY, f64::min);
    found.retain(|p| p.is_constant() || p.change() <= 4.0 * least);
    found
}

/// The argument at which `f` is near `want`, by secants from `x`, where it is `y`.
fn solve(x: f64, y: f64, want: f64, f: impl Fn(f64) -> Option<(f64, bool)>) -> Option<f64> {
    let (mut x0, mut y0) = (x, y);
    // A small change, or a large one where a small one is lost.
    let (mut x1, mut y1) = [1.0 / 256.0, 0.5].into_iter().find_map(|h| {
        let x1 = if x == 0.0 { h } else { x * (1.0 + h) };
        let (y1, _) = f(x1)?;
        (y1 != y && y1.is_finite()).then_some((x1, y1))
    })?;
    for _ in 0..TRIES {
        let x2 = x1 + (want - y1) * (x1 - x0) / (y1 - y0);
        let (y2, is_near) = f(x2).filter(|_| x2.is_finite())?;
        if is_near {
            return Some(x2);
        }
        if y2 == y1 || !y2.is_finite() {
            return None;
        }
        (x0, y0, x1, y1) = (x1, y1, x2, y2);
    }
    None
}

/// What the step gives for each sample.
fn step(
    case: &Case,
    data: &OptimizerCase,
    t: usize,
    samples: &[&Sample],
) -> Result<Vec<f64>, BackendError> {
    let mut run = start(case, data, t)?;
    run.step(&Inputs::new(data, t))?;
    let mut tensors = BTreeMap::new();
    for i in 0..data.params.len() {
        let state = run.state(i).into_iter().map(|(slot, x)| (format!("p{i}.state.{slot}"), x));
        tensors.extend(state.chain([(format!("p{i}.value"), run.value(i))]));
    }
    let of = |s: &&Sample| {
        let x = tensors.get(&*s.tensor).filter(|x| s.index < x.len());
        x.map(|x| x.get(s.index)).ok_or_else(|| BackendError::Failed("no such number".to_owned()))
    };
    samples.iter().map(of).collect()
}
