//! Shared by the rules of the library `optimi`: bias-corrected decay rates, its two kinds of decoupled weight decay,
//! Kahan summation.

use crate::error::{Error, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::math;
use crate::rule::Scope;

/// β with Adam's bias correction folded into it: (βᵗ − β) / (βᵗ − 1).
pub(crate) fn debiased_beta(beta: f64, t: f64) -> f64 {
    let power = math::pow(beta, t);
    (power - beta) / (power - 1.0)
}

/// The divisor of the rate in weight decay: the largest rate if decay is decoupled from the rate, else 1.
pub(crate) fn decay_base_lr(decouple_lr: bool, max_lr: Option<f64>, lr: f64) -> f64 {
    if decouple_lr { max_lr.unwrap_or(lr) } else { 1.0 }
}

/// The largest rate after the constructor's defaults.
pub(crate) fn resolved_max_lr(decouple_lr: bool, max_lr: Option<f64>, lr: f64) -> Option<f64> {
    max_lr.or(decouple_lr.then_some(lr))
}

/// The factor by which a parameter decays: 1 − (η / base) λ.
pub(crate) fn decay(lr: f64, weight_decay: f64, decay_base_lr: f64) -> f64 {
    if weight_decay == 0.0 { 1.0 } else { 1.0 - lr / decay_base_lr * weight_decay }
}

/// [`decay`] as all but StableAdamW apply it: the reference keeps the factor in place of λ and asks that whether there
/// is decay at all, so that a factor of 0 leaves a parameter as it is.
pub(crate) fn decay_unless_0(lr: f64, weight_decay: f64, decay_base_lr: f64) -> f64 {
    match decay(lr, weight_decay, decay_base_lr) {
        0.0 => 1.0,
        factor => factor,
    }
}

/// The divisor by which a parameter decays in Adan: 1 + (η / base) λ.
pub(crate) fn decay_divisor(lr: f64, weight_decay: f64, decay_base_lr: f64) -> f64 {
    if weight_decay == 0.0 { 1.0 } else { 1.0 + lr / decay_base_lr * weight_decay }
}

/// RAdam's rectification; `None` while ρ ≤ 5.
pub(crate) fn rectification(beta2: f64, t: f64) -> Option<f64> {
    let power = math::pow(beta2, t);
    let limit = 2.0 / (1.0 - beta2) - 1.0;
    let rho = limit - 2.0 * t * power / (1.0 - power);
    let squared = (rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho);
    (rho > 5.0).then(|| libm::sqrt(squared))
}

/// Whether updates are compensated: by default wherever sums are rounded to 16 bits, and never elsewhere.
pub(crate) fn kahan(kahan_sum: Option<bool>, compute: Dtype) -> bool {
    kahan_sum.unwrap_or(true) && compute.size() == 2
}

/// p + c, and what rounding lost of it.
#[inline(always)]
pub(crate) fn add_compensated<C: ComputeFloat>(p: C, c: C) -> (C, C) {
    let sum = p + c;
    (sum, c + (p - sum))
}

/// Whether steps belong to the group or, where they are fused into the backward pass, to each parameter.
pub(crate) const fn step_scope(gradient_release: bool) -> Scope {
    if gradient_release { Scope::Parameter } else { Scope::Group }
}

/// The range checks that all rules share.
pub(crate) fn check(lr: f64, weight_decay: f64, max_lr: Option<f64>) -> Result<(), Error> {
    ensure_not_negative("lr", lr)?;
    ensure_not_negative("weight_decay", weight_decay)?;
    ensure_not_negative("max_lr", max_lr.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::Eager;
    use crate::float::StoredFloat;
    use half::bf16;

    #[test]
    fn debiased_weighs_all_gradients_alike_at_first() {
        // At t = 1 the average is the gradient, at t = 2 with β = ½: (¼ − ½) / (¼ − 1) = ⅓.
        assert_eq!(debiased_beta(0.9, 1.0), 0.0);
        assert!((debiased_beta(0.5, 2.0) - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn decay_with_decoupled_lr_is_relative_to_the_largest() {
        assert_eq!(decay(0.5, 0.5, decay_base_lr(false, Some(2.0), 0.25)), 0.75);
        assert_eq!(decay(0.5, 0.5, decay_base_lr(true, Some(2.0), 0.25)), 0.875);
        assert_eq!(decay(0.5, 0.5, decay_base_lr(true, None, 0.25)), 0.0);
        assert_eq!(decay(f64::INFINITY, 0.0, 1.0), 1.0);
    }

    #[test]
    fn decay_of_everything_is_none() {
        assert_eq!((decay(0.5, 2.0, 1.0), decay_unless_0(0.5, 2.0, 1.0)), (0.0, 1.0));
        assert_eq!(decay_unless_0(0.5, 1.0, 1.0), 0.5);
        assert!(decay_unless_0(f64::NAN, 1.0, 1.0).is_nan());
    }

    #[test]
    fn add_compensated_keeps_what_the_sum_lost() {
        // 256 + 1.5 is 258 in bf16, half a unit too much.
        let (p, c) = add_compensated(Eager::<bf16>::new(256.0), Eager::<bf16>::new(1.5));
        assert_eq!((p.to_f32(), c.to_f32()), (258.0, -0.5));
    }

    #[test]
    fn rectification_begins_above_5_and_not_at_it() {
        // Here ρ is 5 to the last bit.
        for (t, beta2) in [
            (6, 0.839_768_574_865_979_1),
            (7, 0.767_806_779_692_425_2),
            (9, 0.707_421_460_762_147_2),
            (10, 0.693_717_874_426_063_9),
            (11, 0.684_931_041_328_789_5),
            (12, 0.679_143_736_225_018_1),
        ] {
            assert_eq!(rectification(beta2, f64::from(t)), None, "{t}");
        }
    }
}
