//! Dispatches a dynamic rule to its bounded step.

use std::any::Any;

use bitstep::float::Eager;
use bitstep::float::{ComputeFloat, Dtype};
use bitstep::optim::*;
use bitstep::rule::DynRule;
use bitstep::rule::Rule;
use bitstep::rule::factored::{FactoredRule, FactoredUpdate, MatrixLayout};
use half::{bf16, f16};

use super::factors::Factors;
use super::follow::{Answer, Answers, Elements, Task, follow};
use super::number::Bounded;

/// The bounded step of a rule; `None` for rules whose arithmetic can't be tracked.
pub(super) fn step(rule: &dyn DynRule, task: &mut Task<'_>) -> Option<Answers> {
    find(rule, task)
}

macro_rules! find {
    (
        elementwise { $($_e:ident: $element:ident,)* }
        tensorwise { $($_t:ident: $tensor:ident,)* }
        factored { $($_f:ident: $factored:ident,)* }
        $($rest:tt)*
    ) => {
        /// Downcasts to every known rule in turn.
        fn find(rule: &dyn DynRule, task: &mut Task<'_>) -> Option<Answers> {
            let any: &dyn Any = rule;
            $(if let Some(rule) = any.downcast_ref::<$element>() {
                return Some(elements(rule, task));
            })*
            $(if let Some(rule) = any.downcast_ref::<$tensor>() {
                return Some(elements(rule, task));
            })*
            $(if let Some(FactoredRule(rule)) = any.downcast_ref::<FactoredRule<$factored>>() {
                return Some(matrix(rule, task));
            })*
            None
        }
    };
}
bitstep::each_rule!(find);

/// An elementwise or tensorwise rule.
pub(super) fn elements<R: Rule>(rule: &R, task: &mut Task<'_>) -> Answers {
    fn of<R: Rule, T: ComputeFloat>(rule: &R, task: &mut Task<'_>) -> Answers {
        follow::<R, T, _>(rule, rule.active_slots(T::DTYPE), task, |_, _| Elements).0
    }
    match task.compute {
        Dtype::F64 => of::<R, f64>(rule, task),
        Dtype::F32 => of::<R, f32>(rule, task),
        Dtype::Bf16 => of::<R, Eager<bf16>>(rule, task),
        Dtype::F16 => of::<R, Eager<f16>>(rule, task),
    }
}

/// A factored rule; on tensors that it does not factor, an elementwise one.
fn matrix<R: FactoredUpdate>(rule: &R, task: &mut Task<'_>) -> Answers {
    fn of<R: FactoredUpdate, T: ComputeFloat>(
        rule: &R,
        layout: MatrixLayout,
        task: &mut Task<'_>,
    ) -> Answers {
        let (slots, states) = task.slots.split_at(R::SLOTS.len().min(task.slots.len()));
        let mask = rule.active_slots(T::DTYPE) & !R::FACTORED_SLOTS;
        let mut task = Task { slots, scalars: task.scalars, ..*task };
        let factors = |k: &_, grad: &[Bounded<T>]| Factors::new::<R>(k, layout, grad, states);
        let (mut answers, factors) = follow::<R, T, _>(rule, mask, &mut task, factors);
        answers.extend(factors.states.map(|state| state.into_iter().map(Answer::of).collect()));
        answers
    }
    let Some(layout) = MatrixLayout::of(task.step.shape) else {
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
