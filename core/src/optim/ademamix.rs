//! AdEMAMix: Adam with a second, slow average of the gradient.

use crate::error::{Error, ensure_betas, ensure_fraction, ensure_not_negative, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::optim::bnb::BnbState;
use crate::rule::{Rule, ScalarState, StepContext};

/// AdEMAMix.
///
/// # Formula
/// ```text
/// m₁ ← β₁ m₁ + (1 − β₁) g
/// m₂ ← β₃ m₂ + (1 − β₃) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η λ p − η (m₁ / (1 − β₁ᵗ) + α m₂) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
/// With `t_alpha`, α grows linearly to its value over that many steps; with `t_beta3`, β₃ grows from β₁ to its value,
/// the half-life of m₂ growing linearly:
/// ```text
/// β₃ = exp(ln β₁ ln β₃ / ((1 − t/T) ln β₃ + t/T ln β₁))
/// ```
///
/// # Order of operations
/// ```text
/// m₁ ← m₁ · β₁ + (1 − β₁) · g
/// m₂ ← m₂ · β₃ + (1 − β₃) · g
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// p ← p · (1 − η λ)
/// u ← (m₁ / (1 − β₁ᵗ) + α · m₂) / (√v / √(1 − β₂ᵗ) + ε)
/// p ← p + (−η) · u
/// ```
///
/// # Source
/// Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", 2024. Reference:
/// `bitsandbytes.optim.AdEMAMix` (`ademamix`, `paged_ademamix_32bit`): arithmetic and state are `f32` throughout. The
/// 8-bit kernel computes the same update. The paper adds the decay to the update; the reference applies it first.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂, β₃ | [0, 1); β₁, β₃ > 0 with `t_beta3` | 0.9, 0.999, 0.9999 |
/// | `alpha` | α | any | 5 |
/// | `t_alpha` | | steps; none or 0: no schedule | none |
/// | `t_beta3` | T | steps; none or 0: no schedule | none |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 1e-2 |
/// | `state` | | | 32-bit |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `state1` | 0 | m₁, in `f32` |
/// | `state1` | 0 | m₂, in `f32`; the reference stacks both in one tensor |
/// | `state2` | 0 | v, in `f32` |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = AdEMAMix { betas: (0.5, 0.0, 0.75), alpha: 2.0, eps: 0.0, weight_decay: 0.5, ..AdEMAMix::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 3])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[4.0])?;
/// assert_eq!(state.slots(), [[2.0], [1.0], [16.0]]); // m₁, m₂ and v
/// assert_eq!(p, [0.75]); // 2 · (1 − 0.25) − 0.5 · (4 + 2 · 1) / 4
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdEMAMix {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the fast average, of the average of squares, and of the slow average.
    pub betas: (f64, f64, f64),
    /// Weight of the slow average.
    pub alpha: f64,
    /// Steps until α reaches its value.
    pub t_alpha: Option<f64>,
    /// Steps until β₃ reaches its value.
    pub t_beta3: Option<f64>,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl AdEMAMix {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdEMAMix {
        lr: 1e-3,
        betas: (0.9, 0.999, 0.9999),
        alpha: 5.0,
        t_alpha: None,
        t_beta3: None,
        eps: 1e-8,
        weight_decay: 1e-2,
        state: BnbState::DEFAULT,
    };
}

impl Default for AdEMAMix {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl AdEMAMix {
    /// α at step t.
    fn alpha_at(&self, t: f64) -> f64 {
        let alpha = self.alpha;
        match self.t_alpha {
            Some(end) if end != 0.0 => least(t * alpha / end, alpha),
            _ => alpha,
        }
    }

    /// β₃ at step t.
    fn beta3_at(&self, t: f64) -> f64 {
        let (beta1, _, beta3) = self.betas;
        match self.t_beta3 {
            Some(end) if end != 0.0 => {
                let (ln1, ln3) = (libm::log(beta1), libm::log(beta3));
                let part = t / end;
                least(libm::exp(ln1 * ln3 / ((1.0 - part) * ln3 + part * ln1)), beta3)
            }
            _ => beta3,
        }
    }
}

/// Python's min(a, b).
fn least(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        decay: S,
        beta1: S,
        one_minus_beta1: S,
        beta3: S,
        one_minus_beta3: S,
        beta2: S,
        one_minus_beta2: S,
        correction1: S,
        sqrt_correction2: S,
        alpha: S,
        eps: S,
        minus_lr: S,
    }
}

impl HyperParams for AdEMAMix {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.triple("betas", &mut self.betas.0, &mut self.betas.1, &mut self.betas.2);
        f.f64("alpha", &mut self.alpha);
        f.opt_f64("t_alpha", &mut self.t_alpha);
        f.opt_f64("t_beta3", &mut self.t_beta3);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        self.state.fields(f);
    }
}

impl Rule for AdEMAMix {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "ademamix";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1", "state1", "state2"];
    const SLOT_MASKS: &'static [u32] = &[0b111];

    fn check(&self) -> Result<(), Error> {
        let (beta1, beta2, beta3) = self.betas;
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_betas((beta1, beta2))?;
        ensure_fraction("betas[2]", beta3)?;
        if self.t_beta3.is_some_and(|t| t != 0.0) {
            ensure_range(beta1 > 0.0, "betas[0]", beta1, "> 0 with t_beta3")?;
            ensure_range(beta3 > 0.0, "betas[2]", beta3, "> 0 with t_beta3")?;
        }
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
        [self.betas.0, self.betas.1]
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let t = step.t_f64();
        let (beta1, beta2, _) = self.betas;
        let beta3 = self.beta3_at(t);
        Coefs {
            decay: C::scalar(step.decay_factor(self.weight_decay)),
            beta1: C::scalar(beta1),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta3: C::scalar(beta3),
            one_minus_beta3: C::scalar(1.0 - beta3),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            correction1: C::scalar(1.0 - step.beta_power(beta1)),
            sqrt_correction2: C::scalar(libm::sqrt(1.0 - step.beta_power(beta2))),
            alpha: C::scalar(self.alpha_at(t)),
            eps: C::scalar(self.eps),
            minus_lr: C::scalar(-step.lr),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [m1, m2, v]: [C; 3],
    ) -> (C, [C; 3]) {
        let m1 = m1.mul_scalar(k.beta1).add_scaled(g, k.one_minus_beta1);
        let m2 = m2.mul_scalar(k.beta3).add_scaled(g, k.one_minus_beta3);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let p = p.mul_scalar(k.decay);
        let mixed = m1.div_scalar(k.correction1) + m2.mul_scalar(k.alpha);
        let denom = v.sqrt().div_scalar(k.sqrt_correction2).add_scalar(k.eps);
        (p.add_scaled(mixed / denom, k.minus_lr), [m1, m2, v])
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        p.mul_scalar(k.decay) + direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_end_at_their_values_and_stay() {
        let rule = AdEMAMix {
            betas: (0.5, 0.9, 0.75),
            alpha: 4.0,
            t_alpha: Some(8.0),
            t_beta3: Some(2.0),
            ..AdEMAMix::default()
        };
        assert_eq!(rule.alpha_at(2.0), 1.0);
        assert_eq!(rule.alpha_at(8.0), 4.0);
        assert_eq!(rule.alpha_at(80.0), 4.0);
        // Half-way the inverse of ln β₃ is the mean of the inverses.
        let half = 2.0 / (1.0 / libm::log(0.5) + 1.0 / libm::log(0.75));
        assert!((rule.beta3_at(1.0) - libm::exp(half)).abs() < 1e-15);
        assert!((rule.beta3_at(2.0) - 0.75).abs() < 1e-15);
        assert_eq!(rule.beta3_at(3.0), 0.75);
    }

    #[test]
    fn check_t_beta3_without_beta1_is_refused() {
        let rule = AdEMAMix { betas: (0.0, 0.9, 0.9), ..AdEMAMix::default() };
        assert!(Rule::check(&rule).is_ok());
        assert!(Rule::check(&AdEMAMix { t_beta3: Some(5.0), ..rule }).is_err());
    }
}
