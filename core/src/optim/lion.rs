//! Lion: the sign of a momentum.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::optim::bnb::BnbState;
use crate::rule::{Rule, ScalarState, StepContext};

/// Lion.
///
/// # Formula
/// ```text
/// p ← p − η λ p − η sign(β₁ m + (1 − β₁) g)
/// m ← β₂ m + (1 − β₂) g
/// ```
///
/// # Order of operations
/// ```text
/// p ← p · (1 − η λ)
/// u ← m · β₁ + (1 − β₁) · g
/// p ← p + (−η) · sign(u)
/// m ← m · β₂ + (1 − β₂) · g
/// ```
///
/// # Source
/// Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `bitsandbytes.optim.Lion`
/// (`lion_32bit`, `paged_lion_32bit`): arithmetic and state are `f32` throughout. The 8-bit kernel computes the same
/// update.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-4 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `state` | | | 32-bit |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `state1` | 0 | m, in `f32` |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// The sign of NaN is 0: the parameter only decays, but m stays NaN.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = Lion { weight_decay: 0.5, ..Lion::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// state.slots_mut()[0][0] = -1.0;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[4.0])?;
/// assert_eq!(p, [2.0]); // u = −0.9 + 0.4 < 0: 2 · (1 − 0.25) + 0.5
/// assert!((state.slots()[0][0] + 0.95).abs() < 1e-6); // −0.99 + 0.04
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate.
    pub lr: f64,
    /// Weight of the momentum in the update, and its decay.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl Lion {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        Lion { lr: 1e-4, betas: (0.9, 0.99), weight_decay: 0.0, state: BnbState::DEFAULT };
}

impl Default for Lion {
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
        minus_lr: S,
    }
}

impl HyperParams for Lion {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("weight_decay", &mut self.weight_decay);
        self.state.fields(f);
    }
}

impl Rule for Lion {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "lion";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1"];
    const SLOT_MASKS: &'static [u32] = &[0b1];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
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

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        Coefs {
            decay: C::scalar(step.decay_factor(self.weight_decay)),
            beta1: C::scalar(beta1),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            minus_lr: C::scalar(-step.lr),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m]: [C; 1]) -> (C, [C; 1]) {
        let p = p.mul_scalar(k.decay);
        let update = m.mul_scalar(k.beta1).add_scaled(g, k.one_minus_beta1);
        let m = m.mul_scalar(k.beta2).add_scaled(g, k.one_minus_beta2);
        (p.add_scaled(update.sign(), k.minus_lr), [m])
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        p.mul_scalar(k.decay) + direction
    }
}
