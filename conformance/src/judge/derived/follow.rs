//! One step of all elements of a tensor in bounded arithmetic.

use bitstep::float::{ComputeFloat, Dtype, StoredFloat};
use bitstep::math::reduce;
use bitstep::optimizer::Buffer;
use bitstep::rule::Array;
use bitstep::rule::{Rule, ScalarState, StepContext};
use bitstep::storage::Storage;

use super::choice;
use super::number::{self, Bounded, Source, added, half_ulp, on_grid};

/// A buffer before a step, with error bounds.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) values: &'a Buffer,
    /// The error bound of each element; empty if all are exact.
    pub(super) errors: &'a [f64],
}

impl Held<'_> {
    /// The elements as a rule loads them; empty for an unused slot.
    pub(super) fn load<T: ComputeFloat>(self) -> Vec<Bounded<T>> {
        fn plain<T: ComputeFloat, N: StoredFloat>(x: &[N], errors: &[f64]) -> Vec<Bounded<T>> {
            let one = |(i, &x): (usize, &N)| {
                let (value, error) = (T::load(x), errors.get(i).copied().unwrap_or(0.0));
                let rounds = error > 0.0 && T::DTYPE.size() < N::DTYPE.size();
                let error = if rounds { on_grid(value, x.to_f64(), error) } else { error };
                Bounded { value, error }
            };
            x.iter().enumerate().map(one).collect()
        }
        match self.values {
            Buffer::F64(x) => plain(x, self.errors),
            Buffer::F32(x) => plain(x, self.errors),
            Buffer::Bf16(x) => plain(x, self.errors),
            Buffer::F16(x) => plain(x, self.errors),
            Buffer::Encoded(encoded) => {
                let mut decoded = vec![0.0f32; encoded.len()];
                let block = encoded.block().max(1);
                for (i, chunk) in decoded.chunks_mut(block).enumerate() {
                    encoded.load(i * block, chunk);
                }
                plain(&decoded, self.errors)
            }
        }
    }
}

/// The inputs of one parameter's step.
pub(super) struct Task<'a> {
    /// The compute type.
    pub(super) compute: Dtype,
    pub(super) step: StepContext<'a>,
    pub(super) scalars: &'a mut ScalarState,
    pub(super) param: Held<'a>,
    pub(super) grad: Held<'a>,
    pub(super) slots: &'a [Held<'a>],
    /// How much two correct norms over all gradients may differ, relative to the norm.
    pub(super) norm_error: f64,
    /// The error bound of each scalar.
    pub(super) scalar_errors: &'a mut ScalarState,
    /// The parameter that is projected, if this step only computes a direction.
    pub(super) full: Option<Held<'a>>,
}

/// A value after the step, before it is rounded for storage, and how far apart two correct ones may be: NaN if one may be
/// NaN or infinite where the other is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    pub(super) value: f64,
    pub(super) tolerance: f64,
}

impl Answer {
    pub(super) fn of<T: ComputeFloat>(x: Bounded<T>) -> Answer {
        Answer { value: x.value.to_f64(), tolerance: 2.0 * x.error }
    }

    /// The value, rounded to a type, with its error bound: half of the tolerance.
    pub(super) fn bounded<T: ComputeFloat>(self) -> Bounded<T> {
        Bounded { value: T::from_f64(self.value), error: self.tolerance / 2.0 }
    }

    /// Widens the tolerance by another outcome.
    pub(super) fn admit(&mut self, other: Answer) {
        let apart = (other.value - self.value).abs();
        let kind = |x: f64| (x.is_nan(), x.is_finite());
        self.tolerance = match kind(self.value) != kind(other.value) {
            _ if self.tolerance.is_nan() => f64::NAN,
            true => f64::NAN,
            // Where both are NaN or infinite.
            false if !apart.is_finite() => self.tolerance.max(other.tolerance),
            false => self.tolerance.max(apart + other.tolerance),
        };
    }
}

/// The values after the step: of the parameter, then of each slot; empty for an unused slot.
pub(super) type Answers = Vec<Vec<Answer>>;

/// Inputs of a step's constants whose errors the rule's own arithmetic does not show: each is perturbed, down and
/// up, by as much as two correct implementations may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Perturbed {
    Nothing,
    /// The norm over all gradients.
    Norm(f64),
    /// One of the sums over the tensor.
    Sum(usize, f64),
}

/// The element functions of a rule.
pub(super) trait Shape<R: Rule, T: ComputeFloat> {
    fn terms(
        &self,
        k: &R::Coefs<Bounded<T>>,
        i: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> [Bounded<T::Scalar>; 2];
    fn element(
        &self,
        k: &R::Coefs<Bounded<T>>,
        i: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> (Bounded<T>, R::Slots<Bounded<T>>);
}

/// Those of an elementwise rule.
pub(super) struct Elements;

impl<R: Rule, T: ComputeFloat> Shape<R, T> for Elements {
    fn terms(
        &self,
        k: &R::Coefs<Bounded<T>>,
        _: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> [Bounded<T::Scalar>; 2] {
        R::sum_terms::<Bounded<T>>(k, p, g, slots)
    }
    fn element(
        &self,
        k: &R::Coefs<Bounded<T>>,
        _: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> (Bounded<T>, R::Slots<Bounded<T>>) {
        R::update::<Bounded<T>>(k, p, g, slots)
    }
}

/// The elements of an elementwise rule's direction.
pub(super) struct Directions;

impl<R: Rule, T: ComputeFloat> Shape<R, T> for Directions {
    fn terms(
        &self,
        k: &R::Coefs<Bounded<T>>,
        _: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> [Bounded<T::Scalar>; 2] {
        R::sum_terms::<Bounded<T>>(k, p, g, slots)
    }
    fn element(
        &self,
        k: &R::Coefs<Bounded<T>>,
        _: usize,
        _: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> (Bounded<T>, R::Slots<Bounded<T>>) {
        R::update_direction::<Bounded<T>>(k, g, slots)
    }
}

/// The elements before the step: of the parameter, the gradient, and the slots in use; and of the parameter that is
/// projected.
struct Loaded<T> {
    full: Vec<Bounded<T>>,
    param: Vec<Bounded<T>>,
    grad: Vec<Bounded<T>>,
    slots: Vec<Vec<Bounded<T>>>,
}

impl<T: ComputeFloat> Loaded<T> {
    fn new(task: &Task<'_>, mask: u32) -> Self {
        let used = |k: usize| mask.checked_shr(k as u32).unwrap_or(0) & 1 == 1;
        let slot = |(k, slot): (usize, &Held<'_>)| if used(k) { slot.load() } else { Vec::new() };
        Loaded {
            full: task.full.map(Held::load).unwrap_or_default(),
            param: task.param.load(),
            grad: task.grad.load(),
            slots: task.slots.iter().enumerate().map(slot).collect(),
        }
    }
}

/// The most slots of any rule.
const SLOTS: usize = 8;

/// A step with its constants. Only this is compiled for every rule and type.
trait Prepared<T: ComputeFloat> {
    fn terms(&self, i: usize, before: &Loaded<T>) -> [Bounded<T::Scalar>; 2];
    /// The terms of an element of the parameter that is projected.
    fn full_terms(&self, p: Bounded<T>) -> [Bounded<T::Scalar>; 2];
    /// The parameter, then its slots.
    fn element(&self, i: usize, before: &Loaded<T>) -> [Bounded<T>; 1 + SLOTS];
}

/// A step's constants, complete with its sums.
pub(super) struct Constants<R: Rule, T: ComputeFloat, S> {
    pub(super) k: R::Coefs<Bounded<T>>,
    pub(super) shape: S,
}

/// A step that has been followed.
pub(super) struct Followed<R: Rule, T: ComputeFloat, S> {
    pub(super) answers: Answers,
    /// The unperturbed constants.
    pub(super) nominal: Constants<R, T, S>,
    /// The perturbed ones, in pairs: down and up.
    pub(super) others: Vec<Constants<R, T, S>>,
}

#[inline(never)]
fn at<T: ComputeFloat>(x: &[Bounded<T>], i: usize) -> Bounded<T> {
    x.get(i).copied().unwrap_or(Bounded::ZERO)
}

fn slots_at<R: Rule, T: ComputeFloat>(before: &Loaded<T>, i: usize) -> R::Slots<Bounded<T>> {
    let slot = |k: usize| before.slots.get(k).map_or(Bounded::ZERO, |slot| at(slot, i));
    <R::Slots<Bounded<T>> as Array<Bounded<T>>>::from_fn(slot)
}

impl<R: Rule, T: ComputeFloat, S: Shape<R, T>> Prepared<T> for Constants<R, T, S> {
    fn terms(&self, i: usize, before: &Loaded<T>) -> [Bounded<T::Scalar>; 2] {
        let (p, g) = (at(&before.param, i), at(&before.grad, i));
        self.shape.terms(&self.k, i, p, g, slots_at::<R, T>(before, i))
    }
    fn full_terms(&self, p: Bounded<T>) -> [Bounded<T::Scalar>; 2] {
        let none = <R::Slots<Bounded<T>> as Array<Bounded<T>>>::from_fn(|_| Bounded::ZERO);
        R::sum_terms::<Bounded<T>>(&self.k, p, Bounded::ZERO, none)
    }
    fn element(&self, i: usize, before: &Loaded<T>) -> [Bounded<T>; 1 + SLOTS] {
        let (p, g) = (at(&before.param, i), at(&before.grad, i));
        let (p, slots) = self.shape.element(&self.k, i, p, g, slots_at::<R, T>(before, i));
        let mut all = [Bounded::ZERO; 1 + SLOTS];
        all[0] = p;
        all.iter_mut().skip(1).zip(slots.as_ref()).for_each(|(to, x)| *to = *x);
        all
    }
}

/// Steps all elements of a tensor; `shape` is made from the step's constants and the gradient.
pub(super) fn follow<R: Rule, T: ComputeFloat, S: Shape<R, T>>(
    rule: &R,
    mask: u32,
    task: &mut Task<'_>,
    shape: impl Fn(&R::Coefs<Bounded<T>>, &[Bounded<T>]) -> S,
) -> Followed<R, T, S> {
    let before = Loaded::new(task, mask);
    let has_sums = R::NUM_SUMS > 0 && rule.needs_sums();
    let perturbations = perturbations(task, if has_sums { R::NUM_SUMS } else { 0 });
    let constants = |perturbed: Perturbed, scalars: &mut ScalarState| {
        let mut step = task.step;
        if let (Perturbed::Norm(sign), Some(norm)) = (perturbed, &mut step.grad_norm) {
            *norm *= 1.0 + sign * task.norm_error;
        }
        let k = rule.coefs::<Bounded<T>>(&step, scalars);
        let shape = shape(&k, &before.grad);
        let mut constants = Constants::<R, T, S> { k, shape };
        if has_sums {
            let sums = sums(&constants, &before, perturbed, R::PARAM_ONLY_SUMS);
            R::apply_sums::<Bounded<T>>(&mut constants.k, sums, before.param.len());
        }
        R::export_scalars::<Bounded<T>>(&constants.k, scalars);
        constants
    };
    let mut exported = Vec::new();
    let others = perturbations.into_iter().map(|perturbed| {
        let mut scalars = *task.scalars;
        let constants = constants(perturbed, &mut scalars);
        exported.push(scalars);
        constants
    });
    let others: Vec<_> = others.collect();
    let nominal = constants(Perturbed::Nothing, task.scalars);
    for (k, error) in task.scalar_errors.iter_mut().enumerate() {
        let x = task.scalars[k];
        let apart = |other: &ScalarState| (other[k] - x).abs();
        let wider = |pair: &[ScalarState]| pair.iter().map(apart).fold(0.0, f64::max);
        let apart: f64 = exported.chunks(2).map(wider).sum();
        if x.is_finite() && !exported.iter().all(|other| other[k].is_finite()) {
            *error = f64::INFINITY;
        } else if apart > 0.0 && apart.is_finite() {
            // Beside the sum it takes a quotient and a root.
            *error = apart / 2.0 + 2.0 * half_ulp(T::Scalar::DTYPE, x);
        }
    }
    let views: Vec<&dyn Prepared<T>> = others.iter().map(|x| x as &dyn Prepared<T>).collect();
    let answers = outcomes(&nominal, &views, &before);
    Followed { answers, nominal, others }
}

/// The perturbations of a step, in pairs: down and up.
fn perturbations(task: &Task<'_>, sums: usize) -> Vec<Perturbed> {
    let norm = task.step.grad_norm.map(|_| [-1.0, 1.0].map(Perturbed::Norm));
    let sums = (0..sums).map(|sum| [-1.0, 1.0].map(|sign| Perturbed::Sum(sum, sign)));
    norm.into_iter().chain(sums).flatten().collect()
}

/// The sums over a tensor, one of them perturbed by as much as two correct sums may differ.
fn sums<T: ComputeFloat>(
    constants: &dyn Prepared<T>,
    before: &Loaded<T>,
    perturbed: Perturbed,
    param_only: u32,
) -> [Bounded<T::Scalar>; 2] {
    let n = before.param.len();
    let terms: Vec<_> = (0..n).map(|i| constants.terms(i, before)).collect();
    let mut sums = [0, 1].map(|k| sum(terms.iter().map(|term| term[k])));
    if !before.full.is_empty() && param_only != 0 {
        let terms: Vec<_> = before.full.iter().map(|&p| constants.full_terms(p)).collect();
        let scale = n.max(1) as f64 / terms.len().max(1) as f64;
        for k in (0..2).filter(|k| param_only >> k & 1 == 1) {
            let Bounded { value, error } = sum(terms.iter().map(|term| term[k]));
            let value = T::Scalar::from_f64(value.to_f64() * scale);
            let error = error * scale + half_ulp(T::Scalar::DTYPE, value.to_f64());
            sums[k] = Bounded { value, error };
        }
    }
    for (sum, x) in sums.iter_mut().enumerate() {
        if let Perturbed::Sum(which, sign) = perturbed
            && which == sum
        {
            x.value = T::Scalar::from_f64(x.value.to_f64() + sign * 2.0 * x.error);
        }
        x.error = 0.0;
    }
    sums
}

/// Every element after the step, over all outcomes of its comparisons. `others` are pairs of perturbed constants,
/// down and up.
fn outcomes<T: ComputeFloat>(
    nominal: &dyn Prepared<T>,
    others: &[&dyn Prepared<T>],
    before: &Loaded<T>,
) -> Answers {
    let lens = std::iter::once(before.param.len()).chain(before.slots.iter().map(Vec::len));
    let mut answers: Answers = lens.map(|len| vec![Answer::default(); len]).collect();
    for i in 0..before.param.len() {
        let base = outcome(nominal, i, before, None);
        let mut total = base;
        for pair in others.chunks(2) {
            let mut both = base;
            for constants in pair {
                let here = outcome(*constants, i, before, Some(&base));
                for (both, here) in both.iter_mut().zip(here) {
                    both.tolerance = both.tolerance.max(here.tolerance);
                }
            }
            // Of one input's two directions take the wider; the effects of different inputs add up.
            for ((total, both), base) in total.iter_mut().zip(both).zip(base) {
                if base.tolerance.is_finite() {
                    total.tolerance += both.tolerance - base.tolerance;
                }
            }
        }
        for (answers, answer) in answers.iter_mut().zip(total) {
            if let Some(to) = answers.get_mut(i) {
                *to = answer;
            }
        }
    }
    answers
}

/// One element, with a tolerance that covers all decisions of its open comparisons, and `base`.
///
/// What nearly cancels in 16 bits may be 0 or not, by whether parts of an operation are rounded, and a quotient of it
/// has no bound. Then its outcomes with each of them rounded or not are what is allowed.
fn outcome<T: ComputeFloat>(
    constants: &dyn Prepared<T>,
    i: usize,
    before: &Loaded<T>,
    base: Option<&[Answer; 1 + SLOTS]>,
) -> [Answer; 1 + SLOTS] {
    let mut all = decided(constants, i, before, base);
    if T::DTYPE.size() < 4 && all.iter().any(|x| x.tolerance == f64::INFINITY) {
        let mut parted: Option<[Answer; 1 + SLOTS]> = None;
        number::each_parts(
            || decided(constants, i, before, base),
            |outcome| match &mut parted {
                None => parted = Some(outcome),
                Some(all) => all.iter_mut().zip(outcome).for_each(|(x, y)| x.admit(y)),
            },
        );
        for (x, parted) in all.iter_mut().zip(parted.unwrap_or_default()) {
            if x.tolerance == f64::INFINITY {
                *x = parted;
            }
        }
    }
    all
}

fn decided<T: ComputeFloat>(
    constants: &dyn Prepared<T>,
    i: usize,
    before: &Loaded<T>,
    base: Option<&[Answer; 1 + SLOTS]>,
) -> [Answer; 1 + SLOTS] {
    let mut all = base.copied();
    choice::each(
        || constants.element(i, before),
        |values| {
            let values = values.map(Answer::of);
            match &mut all {
                None => all = Some(values),
                Some(all) => all.iter_mut().zip(values).for_each(|(x, y)| x.admit(y)),
            }
        },
    );
    all.unwrap_or_default()
}

/// A sum in the core's order, with the error bound for any order: (n − 1) · u · Σ |x|.
pub(super) fn sum<A: ComputeFloat>(terms: impl Iterator<Item = Bounded<A>>) -> Bounded<A> {
    let terms: Vec<_> = terms.collect();
    let value = reduce::sum(terms.len(), |i| terms[i].value);
    let magnitude: f64 = terms.iter().map(|x| x.value.to_f64().abs() + x.error).sum();
    let inherited: f64 = terms.iter().map(|x| x.error).sum();
    let count = terms.iter().filter(|x| x.value.to_f64() != 0.0).count();
    let rounding = count.saturating_sub(1) as f64 * half_ulp(A::DTYPE, magnitude);
    let error = inherited + added(Source::Sum, rounding);
    Bounded { value, error: if error.is_nan() { f64::INFINITY } else { error } }
}
