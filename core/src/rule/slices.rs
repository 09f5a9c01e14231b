//! A step of plain slices.

use super::context::{StepContext, check_norm};
use super::contract::{Rule, ScalarState};
use super::elementwise::{ActiveParts, Elementwise, passes};
use crate::error::{Error, ensure_len};
use crate::float::{ComputeFloat, StoredFloat};

/// One step of one tensor of plain numbers; the state rests in slices of the
/// same length as the parameter, empty for a slot that the rule does not use.
///
/// `C` is the type to compute in: `f64`, `f32`, or a 16-bit type for PyTorch's
/// eager arithmetic. `scalars` start as [`Rule::scalars`] (most rules have none).
///
/// # Errors
/// An invalid configuration, or a slice of the wrong length. Nothing is written then.
///
/// # Example
/// ```
/// use bitstep::{optim::AdamW, rule::{step, Rule, StepContext}};
/// let rule = AdamW { weight_decay: 0.1, ..AdamW::default() };
/// let (mut p, g) = ([1.0f32, -2.0], [0.5f32, 0.25]);
/// let (mut m, mut v) = ([0.0f32; 2], [0.0f32; 2]);
/// let mut scalars = rule.scalars();
/// for t in 1..=10 {
///     let at = StepContext::new(t, 1e-3);
///     step::<_, f32, _, _, _>(&rule, &at, &mut scalars, &mut p, &g, [&mut m, &mut v, &mut []])?;
/// }
/// assert!(p[0] < 1.0 && p[1] < -1.99);
/// # Ok::<(), bitstep::Error>(())
/// ```
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

/// Refuses what can't be stepped.
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
        let used = rule.active_slots(C::DTYPE) >> k & 1 == 1;
        let name = R::SLOTS.get(k).copied().unwrap_or("state");
        ensure_len(name, slot.len(), if used { param.len() } else { 0 })?;
    }
    Ok(())
}

/// [`step`] of what has been checked, with carried numbers that have been advanced.
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
    let uses = ActiveParts::of(rule, C::DTYPE);
    passes::<R, C, _, P, G, S>(Elementwise, &mut coefs, uses, scalars, param, grad, slots);
}
