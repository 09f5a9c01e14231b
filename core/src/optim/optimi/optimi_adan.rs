//! Adan of the library `optimi`.

use super::common as optimi;
use crate::error::{Error, ensure_betas, ensure_fraction, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, Scope, StepContext};

/// optimi's Adan.
///
/// # Formula
/// ```text
/// β̂ = (βᵗ − β) / (βᵗ − 1)
/// m ← β̂₁ m + (1 − β̂₁) g
/// d ← β̂₂ d + (1 − β̂₂) (g − g₋)
/// v ← β̂₃ v + (1 − β̂₃) (g + β₂ (g − g₋))²
/// p ← p − η (m + β₂ d) / (√v + ε)
/// p ← p / (1 + η λ)                  or p / (1 + (η / η_max) λ) with `decouple_lr`
/// ```
/// g₋ is the gradient of the parameter's previous update, and g itself at the first. Where sums are rounded to 16 bits,
/// the update is Kahan-compensated: it is added to c, c is added to p, and what rounding loses stays in c.
///
/// # Order of operations
/// ```text
/// s ← (−g₋) + g
/// m ← lerp(m, g, 1 − β̂₁)
/// d ← lerp(d, s, 1 − β̂₂)
/// n ← s · β₂ + g
/// v ← v · β̂₃ + ((1 − β̂₃) · n) · n
/// e ← √v + ε
/// p ← p + (−η) · m / e
/// p ← p + (−η β₂) · d / e
/// p ← p / (1 + η λ)
/// ```
/// compensated, instead of the last three lines:
/// ```text
/// c ← c + (−η) · m / e
/// c ← c + (−η β₂) · d / e
/// q ← p + c
/// c ← c + (p − q);  p ← q / (1 + η λ)
/// ```
///
/// # Source
/// Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2023. Reference:
/// `optimi.Adan` (`optimi_adan`). Its argument `adam_wd` has no effect: the decay is always the one above.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
/// | `betas` | β₁, β₂, β₃ | [0, 1) | 0.98, 0.92, 0.99 |
/// | `weight_decay` | λ | ≥ 0 | 2e-2 |
/// | `eps` | ε | ≥ 0 | 1e-6 |
/// | `decouple_lr` | | | false |
/// | `max_lr` | η_max | ≥ 0 | `lr` |
/// | `kahan_sum` | | | false; none: where sums are rounded to 16 bits |
/// | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
/// | `gradient_release` | each parameter counts its own steps | | false: the group counts |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_diff` | 0 | d |
/// | `exp_avg_sq` | 0 | v |
/// | `prev_grad` | −g | −g₋ |
/// | `kahan_comp` | 0 | c; only where updates are compensated |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// At t = 1 there is no difference yet, and p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = OptimiAdan { eps: 0.0, weight_decay: 0.5, ..OptimiAdan::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 4])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// let [m, d, v, g, _] = state.slots();
/// assert_eq!((p[0], m[0], d[0], v[0], g[0]), (2.0, -4.0, 0.0, 16.0, 4.0)); // 2.5 / (1 + 0.5 · 0.5)
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimiAdan {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient, of its difference and of the square.
    pub betas: (f64, f64, f64),
    /// Weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decay by lr / max_lr instead of lr.
    pub decouple_lr: bool,
    /// The largest rate of the schedule; none: `lr`.
    pub max_lr: Option<f64>,
    /// Compensate 16-bit sums; none: yes.
    pub kahan_sum: Option<bool>,
    /// Round scalars as PyTorch's multi-tensor kernels do ([`ComputeFloat::foreach_scalar`]).
    pub foreach: Option<bool>,
    /// Each parameter counts its own steps.
    pub gradient_release: bool,
}

impl OptimiAdan {
    /// The reference's defaults.
    pub const DEFAULT: Self = OptimiAdan {
        lr: 1e-3,
        betas: (0.98, 0.92, 0.99),
        weight_decay: 2e-2,
        eps: 1e-6,
        decouple_lr: false,
        max_lr: None,
        kahan_sum: Some(false),
        foreach: None,
        gradient_release: false,
    };
}

impl Default for OptimiAdan {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        first: bool,
        one_minus_beta1: S,
        one_minus_beta2: S,
        beta2: S,
        beta3: S,
        one_minus_beta3: S,
        eps: S,
        minus_lr: S,
        minus_lr_beta2: S,
        decay_divisor: S,
        kahan: bool,
    }
}

impl HyperParams for OptimiAdan {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.triple("betas", &mut self.betas.0, &mut self.betas.1, &mut self.betas.2);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("eps", &mut self.eps);
        f.bool("decouple_lr", &mut self.decouple_lr);
        f.opt_f64("max_lr", &mut self.max_lr);
        f.ignored("adam_wd");
        f.opt_bool("kahan_sum", &mut self.kahan_sum);
        f.opt_bool("foreach", &mut self.foreach);
        f.ignored("triton");
        f.bool("gradient_release", &mut self.gradient_release);
        // The names that a parameter group uses.
        f.f64("beta1", &mut self.betas.0);
        f.f64("beta2", &mut self.betas.1);
        f.f64("beta3", &mut self.betas.2);
    }
}

impl Rule for OptimiAdan {
    type Slots<T> = [T; 5];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "optimi_adan";
    const SLOTS: &'static [&'static str] =
        &["exp_avg", "exp_avg_diff", "exp_avg_sq", "prev_grad", "kahan_comp"];
    const SLOT_MASKS: &'static [u32] = &[0b0_1111, 0b1_1111];

    fn check(&self) -> Result<(), Error> {
        ensure_betas((self.betas.0, self.betas.1))?;
        ensure_fraction("betas[2]", self.betas.2)?;
        ensure_not_negative("eps", self.eps)?;
        optimi::check(self.lr, self.weight_decay, self.max_lr)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn resolve_defaults(&mut self) {
        self.max_lr = optimi::resolved_max_lr(self.decouple_lr, self.max_lr, self.lr);
    }

    fn step_scope(&self) -> Scope {
        optimi::step_scope(self.gradient_release)
    }

    fn active_slots(&self, compute: Dtype) -> u32 {
        if optimi::kahan(self.kahan_sum, compute) { 0b1_1111 } else { 0b0_1111 }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let foreach = self.foreach == Some(true);
        let (_, beta2, _) = self.betas;
        let debiased = |beta| optimi::debiased_beta(beta, step.t_f64());
        let decay_base_lr = optimi::decay_base_lr(self.decouple_lr, self.max_lr, self.lr);
        let beta3 = debiased(self.betas.2);
        Coefs {
            first: step.is_first,
            one_minus_beta1: C::scalar(1.0 - debiased(self.betas.0)),
            one_minus_beta2: C::scalar(1.0 - debiased(beta2)),
            beta2: C::foreach_scalar(beta2, foreach),
            beta3: C::foreach_scalar(beta3, foreach),
            one_minus_beta3: C::scalar(1.0 - beta3),
            eps: C::scalar(self.eps),
            minus_lr: C::scalar(-step.lr),
            minus_lr_beta2: C::scalar(-step.lr * beta2),
            decay_divisor: C::scalar(optimi::decay_divisor(
                step.lr,
                self.weight_decay,
                decay_base_lr,
            )),
            kahan: optimi::kahan(self.kahan_sum, C::DTYPE),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, slots: [C; 5]) -> (C, [C; 5]) {
        let [m, d, v, previous, c] = slots;
        let difference = if k.first { -g } else { previous } + g;
        let m = m.lerp(g, k.one_minus_beta1);
        let d = d.lerp(difference, k.one_minus_beta2);
        let n = difference.mul_scalar(k.beta2) + g;
        let v = v.mul_scalar(k.beta3).addcmul(n, n, k.one_minus_beta3);
        let denom = v.sqrt().add_scalar(k.eps);
        let to = if k.kahan { c } else { p };
        let moved = to.addcdiv(m, denom, k.minus_lr).addcdiv(d, denom, k.minus_lr_beta2);
        let (p, c) = if k.kahan { optimi::add_compensated(p, moved) } else { (moved, c) };
        (p.div_scalar(k.decay_divisor), [m, d, v, -g, c])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_rounded_as_foreach_does_where_it_is_asked_for() {
        use crate::float::ComputeFloat;
        use crate::float::Eager;
        use half::bf16;
        for (foreach, expected) in [(None, false), (Some(false), false), (Some(true), true)] {
            let rule = OptimiAdan { betas: (0.98, 0.92, 0.99), foreach, ..OptimiAdan::default() };
            let coefs = rule.coefs::<Eager<bf16>>(&StepContext::new(3, 0.5), &rule.scalars());
            assert_eq!(coefs.beta2, Eager::<bf16>::foreach_scalar(0.92, expected));
        }
        assert_ne!(
            Eager::<bf16>::foreach_scalar(0.92, true),
            Eager::<bf16>::foreach_scalar(0.92, false)
        );
    }
}
