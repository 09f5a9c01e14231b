//! AdamW: Adam with decoupled weight decay.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// AdamW.
///
/// # Formula
/// ```text
/// p ← p − η λ p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
/// With `amsgrad`, the largest v so far replaces v under the root. `maximize` negates g.
///
/// # Order of operations
/// ```text
/// p ← p · (1 − η λ)
/// m ← lerp(m, g, 1 − β₁)
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// d ← √v / √(1 − β₂ᵗ) + ε
/// p ← p + (−η / (1 − β₁ᵗ)) · m / d
/// ```
///
/// # Source
/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Reference: `torch.optim.AdamW` (`adamw_torch`;
/// `adamw_torch_fused` is the same rule computed in `f32` for 16-bit parameters). The paper multiplies λ by the
/// schedule only, the reference also by the learning rate.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 1e-2 |
/// | `amsgrad` | | | false |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
/// | `max_exp_avg_sq` | 0 | largest v so far; with `amsgrad` only |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient makes the element and its state NaN permanently. After an infinite one the element is NaN; m is infinite,
/// and NaN from the next step on; v stays infinite.
///
/// # Example
/// At t = 1 both corrections cancel the averages' weights, so p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = AdamW { weight_decay: 0.5, ..AdamW::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?; // m and v
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 2.0).abs() < 1e-8); // 2 · (1 − 0.5 · 0.5) + 0.5
/// let [m, v, _] = state.slots();
/// assert!((m[0] + 0.4).abs() < 1e-15 && (v[0] - 0.016).abs() < 1e-15);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl AdamW {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdamW {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 1e-2,
        amsgrad: false,
        maximize: false,
    };
}

impl Default for AdamW {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        decay: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        sqrt_correction2: S,
        eps: S,
        minus_step_size: S,
        amsgrad: bool,
        maximize: bool,
    }
}

impl HyperParams for AdamW {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("amsgrad", &mut self.amsgrad);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["foreach", "capturable", "differentiable", "fused"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for AdamW {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adamw";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b011, 0b111];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_betas(self.betas)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_not_negative("weight_decay", self.weight_decay)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
    fn maximizes(&self) -> bool {
        self.maximize
    }

    fn active_slots(&self, _: Dtype) -> u32 {
        if self.amsgrad { 0b111 } else { 0b011 }
    }

    fn decay_bases(&self) -> [f64; 2] {
        self.betas.into()
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let correction1 = 1.0 - step.beta_power(beta1);
        let correction2 = 1.0 - step.beta_power(beta2);
        Coefs {
            decay: C::scalar(1.0 - step.lr * self.weight_decay),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            sqrt_correction2: C::scalar(libm::sqrt(correction2)),
            eps: C::scalar(self.eps),
            minus_step_size: C::scalar(-(step.lr / correction1)),
            amsgrad: self.amsgrad,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [m, v, v_max]: [C; 3],
    ) -> (C, [C; 3]) {
        let g = if k.maximize { -g } else { g };
        let p = p.mul_scalar(k.decay);
        let m = m.lerp(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let v_max = v_max.maximum(v);
        let largest = if k.amsgrad { v_max } else { v };
        let denom = largest.sqrt().div_scalar(k.sqrt_correction2).add_scalar(k.eps);
        (p.addcdiv(m, denom, k.minus_step_size), [m, v, v_max])
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        p.mul_scalar(k.decay) + direction
    }
}
