//! bitsandbytes' LAMB: Adam with a limit on the norm of its update.

use super::common::{BnbState, trust_ratio};
use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math::reduce;
use crate::rule::{Rule, ScalarState, StepContext};

/// bitsandbytes' LAMB.
///
/// # Formula
/// ```text
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// u = m / (√v + ε √(1 − β₂ᵗ))
/// r = min(1, τ ‖p‖ / ‖u‖)
/// p ← p − η λ p − η r √(1 − β₂ᵗ) / (1 − β₁ᵗ) u
/// ```
///
/// # Order of operations
/// ```text
/// n ← ‖p‖
/// m ← m · β₁ + (1 − β₁) · g
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// u ← m / (√v + ε √(1 − β₂ᵗ))
/// r ← τ n / ‖u‖ where ‖u‖ > τ n, else 1
/// p ← p · (1 − η λ)
/// p ← p + (−η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · r) · u
/// ```
/// The norms are `f32`, r is `f64`. With 8-bit state there is no r, and the last line is
/// ```text
/// p ← p + (−η / (1 − β₁ᵗ)) · m / (√v / √(1 − β₂ᵗ) + ε)
/// ```
///
/// # Source
/// You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020. Reference:
/// `bitsandbytes.optim.LAMB` (`bnb_lamb_32bit`): arithmetic and state are `f32` throughout. The paper scales every
/// update to the parameter's norm, the decay included; the reference only reduces larger updates, and does so before
/// the bias correction. `bias_correction`, `amsgrad` and `adam_w_mode` do nothing.
///
/// Also `galore_torch.GaLoreAdamW8bit` (`galore_adamw_8bit`), which is bitsandbytes' Adam, and passes its
/// `percentile_clipping` of 100 by position, where bitsandbytes now has `max_unorm`. So updates of parameters with
/// 32-bit state are limited to 100 times the parameter's norm, and a projected parameter, which bitsandbytes sees as
/// zeros, moves by its decay only. `percentile_clipping=0` removes the limit.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `max_unorm` | τ | any; no limit if ≤ 0 | 1 |
/// | `state` | | | 32-bit |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `state1` | 0 | m, in `f32` |
/// | `state2` | 0 | v, in `f32` |
///
/// With a limit, the scalar `unorm_vec` records ‖u‖ of the last step, or 0 with 8-bit state; no update depends on it.
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite u makes r 0: the other elements
/// stay where they are.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = BnbLamb { betas: (0.0, 0.0), eps: 0.0, ..BnbLamb::DEFAULT };
/// let mut state = State::new(&rule, 2, [0.0f32; 4])?;
/// let mut p = [3.0, 4.0];
/// rule.step(&mut state, 1.0, &mut p, &[7.0, -7.0])?;
/// assert_eq!(p, [2.0, 5.0]); // u = (1, −1): its norm √2 is below that of p
/// assert_eq!(state.scalars()[0] as f32, 2f32.sqrt());
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbLamb {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The largest norm of an update, as a multiple of the parameter's.
    pub max_unorm: f64,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl BnbLamb {
    /// The reference's defaults.
    pub const DEFAULT: Self = BnbLamb {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.0,
        max_unorm: 1.0,
        state: BnbState::DEFAULT,
    };
}

impl Default for BnbLamb {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        decay: S,
        beta1: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        sqrt_correction2: S,
        eps: S,
        pre_scale: S,
        post_scale: S,
        /// For [`Rule::apply_direction`], which decays after the step.
        decays: bool,
        minus_decay: S,
        /// Whether the norm of the update is limited; the fields below serve that.
        limited: bool,
        max_unorm: f64,
        single: bool,
        step_size: f64,
        unorm: f64,
    }
}

impl HyperParams for BnbLamb {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.ignored("bias_correction");
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.ignored("amsgrad");
        f.ignored("adam_w_mode");
        self.state.fields(f);
        f.f64("max_unorm", &mut self.max_unorm);
    }
}

impl BnbLamb {
    /// m, v and u.
    #[inline(always)]
    fn moments<C: ComputeFloat>(k: &Coefs<C::Scalar>, g: C, [m, v]: [C; 2]) -> (C, C, C) {
        let m = m.mul_scalar(k.beta1).add_scaled(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let denom = v.sqrt().div_scalar(k.sqrt_correction2).add_scalar(k.eps);
        (m, v, m.mul_scalar(k.pre_scale) / denom)
    }
}

impl Rule for BnbLamb {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "bnb_lamb";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1", "state2"];
    const SLOT_MASKS: &'static [u32] = &[0b11];
    const SCALAR_NAMES: &'static [&'static str] = &["unorm_vec"];
    const NUM_SUMS: usize = 2;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_betas(self.betas)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        self.state.check()
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn needs_sums(&self) -> bool {
        self.max_unorm > 0.0
    }

    fn uses_scalars(&self) -> bool {
        self.needs_sums()
    }

    fn slot_dtype(&self, _: usize, _: Dtype) -> Dtype {
        Dtype::F32
    }

    fn decay_bases(&self) -> [f64; 2] {
        self.betas.into()
    }

    fn coefs<C: ComputeFloat>(
        &self,
        step: &StepContext,
        scalars: &ScalarState,
    ) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let correction1 = 1.0 - step.beta_power(beta1);
        let sqrt_correction2 = libm::sqrt(1.0 - step.beta_power(beta2));
        let step_size = -step.lr * sqrt_correction2 / correction1;
        let eight = self.state.is_8bit(step);
        let (sqrt_correction2, eps, pre_scale, post_scale) = if eight {
            (sqrt_correction2, self.eps, -step.lr / correction1, 1.0)
        } else {
            (1.0, self.eps * sqrt_correction2, 1.0, step_size)
        };
        Coefs {
            decay: C::scalar(step.decay_factor(self.weight_decay)),
            beta1: C::scalar(beta1),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            sqrt_correction2: C::scalar(sqrt_correction2),
            eps: C::scalar(eps),
            pre_scale: C::scalar(pre_scale),
            post_scale: C::scalar(post_scale),
            decays: self.weight_decay > 0.0,
            minus_decay: C::scalar(-step.lr * self.weight_decay),
            limited: self.needs_sums() && !eight,
            max_unorm: self.max_unorm,
            single: step.is_single(),
            step_size,
            unorm: scalars[0],
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        slots: [C; 2],
    ) -> [C::Scalar; 2] {
        let (_, _, update) = Self::moments(k, g, slots);
        [reduce::square(p.widen(), k.single), reduce::square(update.widen(), k.single)]
    }

    fn apply_sums<C: ComputeFloat>(
        k: &mut Coefs<C::Scalar>,
        [param, update]: [C::Scalar; 2],
        _: usize,
    ) {
        if k.limited {
            let [param, update] = [param, update].map(|sum| reduce::root(sum, k.single).to_f64());
            k.unorm = update;
            let ratio = trust_ratio(k.max_unorm, param, update);
            k.post_scale = C::scalar(k.step_size * ratio);
        }
    }

    fn export_scalars<C: ComputeFloat>(k: &Coefs<C::Scalar>, scalars: &mut ScalarState) {
        scalars[0] = k.unorm;
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, slots: [C; 2]) -> (C, [C; 2]) {
        let (m, v, update) = Self::moments(k, g, slots);
        (p.mul_scalar(k.decay).add_scaled(update, k.post_scale), [m, v])
    }
    /// The decay comes last, as in GaLore's copy of AdamW.
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        let p = p + direction;
        if k.decays { p.add_scaled(p, k.minus_decay) } else { p }
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_decay_the_parameter_is_not_multiplied() {
        for (weight_decay, expected) in [(0.0, false), (0.5, true)] {
            let rule = BnbLamb { weight_decay, ..BnbLamb::default() };
            assert_eq!(
                rule.coefs::<f32>(&StepContext::new(1, 0.5), &rule.scalars()).decays,
                expected
            );
        }
    }
}
