//! bitsandbytes' Adam and AdamW, both with decoupled weight decay.

use super::common::BnbState;
use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// bitsandbytes' Adam and AdamW, which differ in the default of `weight_decay` only.
///
/// # Formula
/// ```text
/// p ← p − η λ p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
///
/// # Order of operations
/// ```text
/// p ← p · (1 − η λ)
/// m ← m · β₁ + (1 − β₁) · g
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// p ← p + (−η √(1 − β₂ᵗ) / (1 − β₁ᵗ)) · (m / (√v + ε √(1 − β₂ᵗ)))
/// ```
/// With 8-bit state the last line is, before the state is encoded again,
/// ```text
/// p ← p + (−η / (1 − β₁ᵗ)) · m / (√v / √(1 − β₂ᵗ) + ε)
/// ```
/// One body computes both: the step size multiplies before or after the division, and √(1 − β₂ᵗ) divides √v or
/// multiplies ε; the factors not in use are 1.
///
/// # Source
/// Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Loshchilov and Hutter, "Decoupled Weight Decay
/// Regularization", 2019. Reference: `bitsandbytes.optim.Adam` (`bnb_adam_32bit`) and `bitsandbytes.optim.AdamW`
/// (`bnb_adamw_32bit`, `paged_adamw_32bit`): arithmetic and state are `f32` throughout. bitsandbytes' Adam decays as
/// AdamW does, and `amsgrad` does nothing.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0; 1e-2 under the registry names of AdamW |
/// | `state` | | | 32-bit |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `state1` | 0 | m, in `f32` |
/// | `state2` | 0 | v, in `f32` |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// At t = 1 both corrections cancel the averages' weights, so p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = BnbAdam { weight_decay: 0.5, ..BnbAdam::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 2.0).abs() < 1e-8); // 2 · (1 − 0.5 · 0.5) + 0.5
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbAdam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl BnbAdam {
    /// The reference's defaults.
    pub const DEFAULT: Self = BnbAdam {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.0,
        state: BnbState::DEFAULT,
    };
}

impl Default for BnbAdam {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl BnbAdam {
    /// With the defaults of the reference's AdamW.
    pub fn adamw() -> Self {
        BnbAdam { weight_decay: 1e-2, ..BnbAdam::default() }
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
    }
}

impl HyperParams for BnbAdam {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.ignored("amsgrad");
        self.state.fields(f);
    }
}

impl Rule for BnbAdam {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "bnb_adam";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1", "state2"];
    const SLOT_MASKS: &'static [u32] = &[0b11];

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

    fn slot_dtype(&self, _: usize, _: Dtype) -> Dtype {
        Dtype::F32
    }

    fn decay_bases(&self) -> [f64; 2] {
        self.betas.into()
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let correction1 = 1.0 - step.beta_power(beta1);
        let sqrt_correction2 = libm::sqrt(1.0 - step.beta_power(beta2));
        let (sqrt_correction2, eps, pre_scale, post_scale) = if self.state.is_8bit(step) {
            (sqrt_correction2, self.eps, -step.lr / correction1, 1.0)
        } else {
            (1.0, self.eps * sqrt_correction2, 1.0, -step.lr * sqrt_correction2 / correction1)
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
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let m = m.mul_scalar(k.beta1).add_scaled(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let p = p.mul_scalar(k.decay);
        let denom = v.sqrt().div_scalar(k.sqrt_correction2).add_scalar(k.eps);
        let update = m.mul_scalar(k.pre_scale) / denom;
        (p.add_scaled(update, k.post_scale), [m, v])
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Without decay: 0 times an infinite one is NaN.
    #[inline(always)]
    fn update_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, g: C, slots: [C; 2]) -> (C, [C; 2]) {
        Self::update(&Coefs { decay: C::scalar(1.0), ..*k }, C::ZERO, g, slots)
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        p.mul_scalar(k.decay) + direction
    }
}
