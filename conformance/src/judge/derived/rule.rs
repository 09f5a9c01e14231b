//! Dispatches a dynamic rule to its bounded step.

use std::any::Any;

use bitstep::float::Eager;
use bitstep::float::{ComputeFloat, Dtype};
use bitstep::lowrank::{Apollo, ForceF32, GaLore, Projected};
use bitstep::optim::*;
use bitstep::rule::factored::FactoredRule;
use bitstep::rule::mode::Mode;
use bitstep::rule::{Array, DynRule, Rule};
use half::{bf16, f16};

use super::follow::{Answer, Answers, Held, Task};
use super::lowrank::{self, Directed, Inner};
use super::number::Bounded;
use super::orthogonal;
use super::plain::{elements, matrix};

/// The bounded step of a rule; `None` for rules whose arithmetic can't be tracked.
pub(super) fn step(rule: &dyn DynRule, task: &mut Task<'_>) -> Option<Answers> {
    find(rule, task)
}

macro_rules! find {
    (
        elementwise { $($_e:ident: $element:ident,)* }
        tensorwise { $($_t:ident: $tensor:ident,)* }
        factored { $($_f:ident: $factored:ident,)* }
        orthogonal { $($_o:ident: $orthogonal:ident,)* }
        projected { $($inner:ty, $method:ty;)* }
        directed { $($_d:ident: $directed:ident,)* }
        $($rest:tt)*
    ) => {
        $(impl Inner for $directed {
            fn direction<T: ComputeFloat>(&self, task: &mut Task<'_>) -> Option<Directed<Self, T>> {
                lowrank::elementwise::<Self, T>(self, task)
            }
            fn whole(&self, task: &mut Task<'_>) -> Option<Answers> {
                Some(elements(self, task))
            }
        })*

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
            $(if let Some(rule) = any.downcast_ref::<$orthogonal>() {
                return orthogonal::step(rule, task);
            })*
            $(if let Some(rule) = any.downcast_ref::<Projected<$inner, $method>>() {
                return lowrank::step(rule, task);
            })*
            None
        }
    };
}
bitstep::each_rule!(find);

/// The parameter to evaluate, from that of the training and its state; `None` where it is the same, or unknown.
pub(super) fn evaluate(
    rule: &dyn DynRule,
    compute: Dtype,
    param: Held<'_>,
    slots: &[Held<'_>],
) -> Option<Vec<Answer>> {
    find_evaluation(rule, compute, param, slots)
}

macro_rules! find_evaluation {
    (
        elementwise { $($_e:ident: $element:ident,)* }
        $($rest:tt)*
    ) => {
        fn find_evaluation(
            rule: &dyn DynRule,
            compute: Dtype,
            param: Held<'_>,
            slots: &[Held<'_>],
        ) -> Option<Vec<Answer>> {
            let any: &dyn Any = rule;
            $(if let Some(rule) = any.downcast_ref::<$element>() {
                return evaluated(rule, compute, param, slots);
            })*
            None
        }
    };
}
bitstep::each_rule!(find_evaluation);

fn evaluated<R: Rule>(
    rule: &R,
    compute: Dtype,
    param: Held<'_>,
    slots: &[Held<'_>],
) -> Option<Vec<Answer>> {
    fn of<R: Rule, T: ComputeFloat>(
        weight: f64,
        active: u32,
        param: Held<'_>,
        slots: &[Held<'_>],
    ) -> Vec<Answer> {
        let used = |k: usize| active.checked_shr(k as u32).unwrap_or(0) & 1 == 1;
        let slot =
            |(k, slot): (usize, &Held<'_>)| if used(k) { slot.load::<T>() } else { Vec::new() };
        let slots: Vec<_> = slots.iter().enumerate().map(slot).collect();
        let weight = Bounded::<T>::scalar(weight);
        let element = |(i, p): (usize, Bounded<T>)| {
            let slot = |k: usize| slots.get(k).and_then(|x| x.get(i)).copied();
            let state = <R::Slots<Bounded<T>> as Array<Bounded<T>>>::from_fn(|k| {
                slot(k).unwrap_or(Bounded::ZERO)
            });
            Answer::of(R::convert_element::<Bounded<T>>(weight, p, state))
        };
        param.load::<T>().into_iter().enumerate().map(element).collect()
    }
    let weight = rule.eval_weight(Mode::Eval)?;
    let active = rule.active_slots(compute);
    Some(match compute {
        Dtype::F64 => of::<R, f64>(weight, active, param, slots),
        Dtype::F32 => of::<R, f32>(weight, active, param, slots),
        Dtype::Bf16 => of::<R, Eager<bf16>>(weight, active, param, slots),
        Dtype::F16 => of::<R, Eager<f16>>(weight, active, param, slots),
    })
}
