//! Steps of rules that are not projected, in bounded arithmetic.

use bitstep::float::{ComputeFloat, Dtype, Eager};
use bitstep::rule::Rule;
use bitstep::rule::factored::{FactoredUpdate, MatrixLayout};
use half::{bf16, f16};

use super::factors::Factors;
use super::follow::{Answer, Answers, Elements, Task, follow};
use super::number::Bounded;

/// An elementwise or tensorwise rule.
pub(super) fn elements<R: Rule>(rule: &R, task: &mut Task<'_>) -> Answers {
    fn of<R: Rule, T: ComputeFloat>(rule: &R, task: &mut Task<'_>) -> Answers {
        follow::<R, T, _>(rule, rule.active_slots(T::DTYPE), task, |_, _| Elements).answers
    }
    match task.compute {
        Dtype::F64 => of::<R, f64>(rule, task),
        Dtype::F32 => of::<R, f32>(rule, task),
        Dtype::Bf16 => of::<R, Eager<bf16>>(rule, task),
        Dtype::F16 => of::<R, Eager<f16>>(rule, task),
    }
}

/// A factored rule; on tensors that it does not factor, an elementwise one.
pub(super) fn matrix<R: FactoredUpdate>(rule: &R, task: &mut Task<'_>) -> Answers {
    fn of<R: FactoredUpdate, T: ComputeFloat>(
        rule: &R,
        layout: MatrixLayout,
        task: &mut Task<'_>,
    ) -> Answers {
        let (slots, states) = task.slots.split_at(R::SLOTS.len().min(task.slots.len()));
        let mask = rule.active_slots(T::DTYPE) & !R::FACTORED_SLOTS;
        let mut task =
            Task { slots, scalars: task.scalars, scalar_errors: task.scalar_errors, ..*task };
        let factors = |k: &_, grad: &[Bounded<T>]| Factors::new::<R>(k, layout, grad, states);
        let followed = follow::<R, T, _>(rule, mask, &mut task, factors);
        let (mut answers, states) = (followed.answers, followed.nominal.shape.states);
        answers.extend(states.map(|state| state.into_iter().map(Answer::of).collect()));
        answers
    }
    let Some(layout) = MatrixLayout::of(task.step.shape) else {
        let slots = task.slots.get(..R::SLOTS.len()).unwrap_or_default();
        let (scalars, scalar_errors) = (&mut *task.scalars, &mut *task.scalar_errors);
        return elements(rule, &mut Task { slots, scalars, scalar_errors, ..*task });
    };
    match task.compute {
        Dtype::F64 => of::<R, f64>(rule, layout, task),
        Dtype::F32 => of::<R, f32>(rule, layout, task),
        Dtype::Bf16 => of::<R, Eager<bf16>>(rule, layout, task),
        Dtype::F16 => of::<R, Eager<f16>>(rule, layout, task),
    }
}
