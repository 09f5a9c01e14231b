//! A rule's own step, whatever rule it is.

use std::any::Any;

use bitstep::any::AnyRule;
use bitstep::eager::Eager;
use bitstep::factored::{Factored, Layout, Matrix};
use bitstep::optim::*;
use bitstep::real::{Dtype, Real};
use bitstep::rule::Rule;
use half::{bf16, f16};

use super::factors::Factors;
use super::follow::{Answer, Answers, Elements, Task, follow};
use super::number::Bounded;

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
        Dtype::Bf16 => of::<R, Eager<bf16>>(rule, task),
        Dtype::F16 => of::<R, Eager<f16>>(rule, task),
    }
}

/// A rule with row and column state.
fn matrix<R: Factored>(rule: &R, task: &mut Task<'_>) -> Answers {
    fn of<R: Factored, T: Real>(rule: &R, layout: Layout, task: &mut Task<'_>) -> Answers {
        let (slots, states) = task.slots.split_at(R::SLOTS.len().min(task.slots.len()));
        let mask = rule.mask(T::DTYPE) & !R::REPLACED;
        let mut task = Task { slots, scalars: task.scalars, ..*task };
        let factors = |k: &_, grad: &[Bounded<T>]| Factors::new::<R>(k, layout, grad, states);
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
        Dtype::Bf16 => of::<R, Eager<bf16>>(rule, layout, task),
        Dtype::F16 => of::<R, Eager<f16>>(rule, layout, task),
    }
}
