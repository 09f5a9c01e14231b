//! A rule's own step, in numbers that know how far off they may be.

use std::any::Any;

use bitstep::Array;
use bitstep::any::AnyRule;
use bitstep::factored::{Factored, Layout, Matrix};
use bitstep::optim::*;
use bitstep::optimizer::Buffer;
use bitstep::real::{Dtype, Number, Real};
use bitstep::reduce;
use bitstep::rule::{Rule, Scalars, Step};
use bitstep::storage::{Data, Storage};
use half::{bf16, f16};

use super::choice;
use super::factors::Factors;
use super::number::{Bounded, half_ulp};

/// A step of one parameter.
pub(super) struct Task<'a> {
    /// The type that it is computed in.
    pub(super) compute: Dtype,
    pub(super) step: Step<'a>,
    pub(super) scalars: &'a mut Scalars,
    pub(super) param: &'a Buffer,
    pub(super) grad: &'a Buffer,
    pub(super) slots: &'a [Buffer],
    /// By how much two correct norms over all gradients may differ, as a part of the norm.
    pub(super) norm_error: f64,
}

/// A number after the step, as it is before it is stored, and how far apart two correct ones may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    pub(super) value: f64,
    pub(super) tolerance: f64,
}

impl Answer {
    pub(super) fn of<T: Real>(x: Bounded<T>) -> Answer {
        Answer { value: x.value.to_f64(), tolerance: 2.0 * x.error }
    }

    /// Makes room for another outcome.
    fn admit(&mut self, other: Answer) {
        let apart = (other.value - self.value).abs();
        // Not a number, both or one of them: that is judged as it stands.
        let apart = if apart.is_finite() { apart } else { 0.0 };
        self.tolerance = self.tolerance.max(apart + other.tolerance);
    }
}

/// What stands after the step: the parameter, then each slot, none of one that is not in use.
pub(super) type Answers = Vec<Vec<Answer>>;

/// The step of a rule whose arithmetic can be followed; none of any other.
pub(super) fn step(rule: &dyn AnyRule, task: &mut Task<'_>) -> Option<Answers> {
    find(rule, task)
}

macro_rules! find {
    (
        elementwise { $($_e:ident: $element:ident,)* }
        tensorwise { $($_t:ident: $tensor:ident,)* }
        factored { $($_f:ident: $factored:ident,)* }
        $($rest:tt)*
    ) => {
        /// Finds out what rule it is.
        fn find(rule: &dyn AnyRule, task: &mut Task<'_>) -> Option<Answers> {
            let any: &dyn Any = rule;
            $(if let Some(rule) = any.downcast_ref::<$element>() {
                return Some(elements(rule, task));
            })*
            $(if let Some(rule) = any.downcast_ref::<$tensor>() {
                return Some(elements(rule, task));
            })*
            $(if let Some(Matrix(rule)) = any.downcast_ref::<Matrix<$factored>>() {
                return Some(matrix(rule, task));
            })*
            None
        }
    };
}
bitstep::each_rule!(find);

/// A rule that moves element by element, with sums over the tensor if it has any.
fn elements<R: Rule>(rule: &R, task: &mut Task<'_>) -> Answers {
    fn of<R: Rule, T: Real>(rule: &R, task: &mut Task<'_>) -> Answers {
        follow::<R, T, _>(rule, rule.mask(T::DTYPE), task, |_, _| Elements).0
    }
    match task.compute {
        Dtype::F64 => of::<R, f64>(rule, task),
        Dtype::F32 => of::<R, f32>(rule, task),
        Dtype::Bf16 => of::<R, bf16>(rule, task),
        Dtype::F16 => of::<R, f16>(rule, task),
    }
}

/// A rule with row and column state.
fn matrix<R: Factored>(rule: &R, task: &mut Task<'_>) -> Answers {
    fn of<R: Factored, T: Real>(rule: &R, layout: Layout, task: &mut Task<'_>) -> Answers {
        let (slots, states) = task.slots.split_at(R::SLOTS.len().min(task.slots.len()));
        let mask = rule.mask(T::DTYPE) & !R::REPLACED;
        let mut task = Task { slots, scalars: task.scalars, ..*task };
        let factors = |k: &_, grad: &[T]| Factors::new::<R>(k, layout, grad, states);
        let (mut answers, factors) = follow::<R, T, _>(rule, mask, &mut task, factors);
        answers.extend(factors.states.map(|state| state.into_iter().map(Answer::of).collect()));
        answers
    }
    let Some(layout) = Layout::of(task.step.shape) else {
        let slots = task.slots.get(..R::SLOTS.len()).unwrap_or_default();
        return elements(rule, &mut Task { slots, scalars: task.scalars, ..*task });
    };
    match task.compute {
        Dtype::F64 => of::<R, f64>(rule, layout, task),
        Dtype::F32 => of::<R, f32>(rule, layout, task),
        Dtype::Bf16 => of::<R, bf16>(rule, layout, task),
        Dtype::F16 => of::<R, f16>(rule, layout, task),
    }
}

/// Numbers as the rule loads them; none of a slot that is not in use.
pub(super) fn loaded<T: Real>(buffer: &Buffer) -> Vec<T> {
    match buffer.data() {
        Some(Data::F64(x)) => x.iter().map(|&x| T::load(x)).collect(),
        Some(Data::F32(x)) => x.iter().map(|&x| T::load(x)).collect(),
        Some(Data::Bf16(x)) => x.iter().map(|&x| T::load(x)).collect(),
        Some(Data::F16(x)) => x.iter().map(|&x| T::load(x)).collect(),
        None => match buffer {
            Buffer::Coded(coded) => {
                let mut numbers = vec![0.0f32; coded.len()];
                let block = coded.block().max(1);
                for (i, numbers) in numbers.chunks_mut(block).enumerate() {
                    coded.load(i * block, numbers);
                }
                numbers.into_iter().map(|x| T::load(x)).collect()
            }
            _ => Vec::new(),
        },
    }
}

/// What the constants of a step depend on and what no rule's arithmetic shows: each is moved, down and up, by as
/// much as two correct implementations may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moved {
    Nothing,
    /// The norm over all gradients.
    Norm(f64),
    /// One of the sums over the tensor.
    Sum(usize, f64),
}

/// What the elements of a tensor are computed by.
pub(super) trait Shape<R: Rule, T: Real> {
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

/// Each on its own.
struct Elements;

impl<R: Rule, T: Real> Shape<R, T> for Elements {
    fn terms(
        &self,
        k: &R::Coefs<Bounded<T>>,
        _: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> [Bounded<T::Scalar>; 2] {
        R::terms::<Bounded<T>>(k, p, g, slots)
    }
    fn element(
        &self,
        k: &R::Coefs<Bounded<T>>,
        _: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> (Bounded<T>, R::Slots<Bounded<T>>) {
        R::element::<Bounded<T>>(k, p, g, slots)
    }
}

/// Follows the elements of a tensor; `shape` is made from the step's constants and the gradient. Hands over the
/// shape that nothing was moved for, too.
fn follow<R: Rule, T: Real, S: Shape<R, T>>(
    rule: &R,
    mask: u32,
    task: &mut Task<'_>,
    shape: impl Fn(&R::Coefs<Bounded<T>>, &[T]) -> S,
) -> (Answers, S) {
    let param = loaded::<T>(task.param);
    let grad = loaded::<T>(task.grad);
    let slots: Vec<Vec<T>> = task.slots.iter().map(loaded::<T>).collect();
    let element = |i: usize| {
        let at = |x: &[T]| Bounded::exact(x.get(i).copied().unwrap_or(T::ZERO));
        let slots = <R::Slots<Bounded<T>> as Array<Bounded<T>>>::from_fn(|k| match slots.get(k) {
            Some(slot) if mask >> k & 1 == 1 => at(slot),
            _ => Bounded::ZERO,
        });
        (at(&param), at(&grad), slots)
    };
    let has_sums = R::SUMS > 0 && rule.needs_sums();
    let mut moved = Vec::new();
    if task.step.grad_norm.is_some() {
        moved.extend([-1.0, 1.0].map(Moved::Norm));
    }
    if has_sums {
        moved.extend((0..R::SUMS).flat_map(|sum| [-1.0, 1.0].map(|way| Moved::Sum(sum, way))));
    }
    let constants = |moved: Moved, scalars: &mut Scalars| {
        let mut step = task.step;
        if let (Moved::Norm(way), Some(norm)) = (moved, &mut step.grad_norm) {
            *norm *= 1.0 + way * task.norm_error;
        }
        let mut k = rule.coefs::<Bounded<T>>(&step, scalars);
        let shape = shape(&k, &grad);
        if has_sums {
            let terms = |i: usize| {
                let (p, g, slots) = element(i);
                shape.terms(&k, i, p, g, slots)
            };
            let terms: Vec<_> = (0..param.len()).map(terms).collect();
            let mut sums = [0, 1].map(|k| sum(terms.iter().map(|term| term[k])));
            for (sum, x) in sums.iter_mut().enumerate() {
                if let Moved::Sum(which, way) = moved
                    && which == sum
                {
                    x.value = T::Scalar::from_f64(x.value.to_f64() + way * 2.0 * x.error);
                }
                x.error = 0.0;
            }
            R::finish::<Bounded<T>>(&mut k, sums, param.len());
        }
        R::record::<Bounded<T>>(&k, scalars);
        (k, shape)
    };
    let others = moved.into_iter().map(|moved| constants(moved, &mut task.scalars.clone()));
    let others: Vec<_> = others.collect();
    let (k, shape) = constants(Moved::Nothing, task.scalars);
    let mut answers = vec![vec![Answer::default(); param.len()]];
    for (k, slot) in slots.iter().enumerate() {
        let len = if mask.checked_shr(k as u32).unwrap_or(0) & 1 == 1 { slot.len() } else { 0 };
        answers.push(vec![Answer::default(); len]);
    }
    for i in 0..param.len() {
        let outcomes = |k: &R::Coefs<Bounded<T>>, shape: &S, base: Option<&[Answer]>| {
            let mut all: Option<Vec<Answer>> = base.map(<[_]>::to_vec);
            choice::each(
                || {
                    let (p, g, slots) = element(i);
                    shape.element(k, i, p, g, slots)
                },
                |(p, slots)| {
                    let numbers = std::iter::once(p).chain(slots.as_ref().iter().copied());
                    let outcome = numbers.map(Answer::of);
                    match &mut all {
                        None => all = Some(outcome.collect()),
                        Some(all) => all.iter_mut().zip(outcome).for_each(|(x, y)| x.admit(y)),
                    }
                },
            );
            all.unwrap_or_default()
        };
        let base = outcomes(&k, &shape, None);
        let mut total = base.clone();
        // Both ways of one thing: the wider of the two. Different things may come together.
        for pair in others.chunks(2) {
            let mut both = base.clone();
            for (k, shape) in pair {
                let here = outcomes(k, shape, Some(&base));
                for (both, here) in both.iter_mut().zip(here) {
                    both.tolerance = both.tolerance.max(here.tolerance);
                }
            }
            for ((total, both), base) in total.iter_mut().zip(both).zip(&base) {
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
    (answers, shape)
}

/// The sum of numbers in the core's order, with the bound for any order: (n − 1) · u · Σ |x|.
pub(super) fn sum<A: Real>(terms: impl Iterator<Item = Bounded<A>>) -> Bounded<A> {
    let terms: Vec<_> = terms.collect();
    let value = reduce::sum(terms.len(), |i| terms[i].value);
    let magnitude: f64 = terms.iter().map(|x| x.value.to_f64().abs() + x.error).sum();
    let handed: f64 = terms.iter().map(|x| x.error).sum();
    let count = terms.iter().filter(|x| x.value.to_f64() != 0.0).count();
    let error = handed + count.saturating_sub(1) as f64 * half_ulp(A::DTYPE, magnitude);
    Bounded { value, error: if error.is_nan() { f64::INFINITY } else { error } }
}
