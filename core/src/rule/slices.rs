//! One step on slices of plain values.

use super::context::{StepContext, check_norm};
use super::contract::{Rule, ScalarState};
use super::elementwise::{ActiveParts, Elementwise, run_plain};
use crate::error::{Error, ensure_len};
use crate::float::{ComputeFloat, StoredFloat};

/// One step of one tensor of plain values. State slots are slices of the parameter's
/// length, and empty if [inactive](Rule::active_slots).
///
/// `C` is the compute type: `f64`, `f32`, or [`Eager`](crate::float::Eager) of a 16-bit type for
/// PyTorch's eager arithmetic. `scalars` start as [`Rule::scalars`] (most rules have none).
/// For backends and for slots in memory of any layout: [`Optimize::step`](crate::state::Optimize::step), with an
/// example, keeps slots, scalars and the step count, and knows the types.
///
/// # Errors
/// An invalid configuration, a slice of the wrong length, or no [`StepContext::grad_norm`] for a rule that needs one.
/// Nothing is written then.
pub fn step<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    rule: &R,
    step: &StepContext,
    scalars: &mut ScalarState,
    param: &mut [P],
    grad: &[G],
    mut slots: R::Slots<&mut [S]>,
) -> Result<(), Error> {
    check_slices::<R, C, P, G, S>(rule, step, param, grad, &mut slots)?;
    let shape = [param.len()];
    let step = &StepContext { shape: &shape, dtype: Some(P::DTYPE), ..*step };
    rule.advance_scalars(step, scalars);
    step_slices::<R, C, P, G, S>(rule, step, scalars, param, grad, slots);
    Ok(())
}

/// Checks the arguments of [`step`], before anything is written.
pub(crate) fn check_slices<R: Rule, C: ComputeFloat, P, G, S>(
    rule: &R,
    step: &StepContext,
    param: &[P],
    grad: &[G],
    slots: &mut R::Slots<&mut [S]>,
) -> Result<(), Error> {
    rule.check()?;
    check_norm(rule.grad_norm_divisor(step.extra), step)?;
    ensure_len("grad", grad.len(), param.len())?;
    for (k, slot) in slots.as_mut().iter_mut().enumerate() {
        let active = rule.active_slots(C::DTYPE) >> k & 1 == 1;
        let name = R::SLOTS.get(k).copied().unwrap_or("state");
        ensure_len(name, slot.len(), if active { param.len() } else { 0 })?;
    }
    Ok(())
}

/// [`step`] after its checks, with scalars that have been [advanced](Rule::advance_scalars).
pub(crate) fn step_slices<
    R: Rule,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
>(
    rule: &R,
    step: &StepContext,
    scalars: &mut ScalarState,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    let mut coefs = rule.coefs::<C>(step, scalars);
    let active = ActiveParts::of(rule, C::DTYPE);
    run_plain::<R, C, _, P, G, S>(Elementwise, &mut coefs, active, scalars, param, grad, slots);
}
