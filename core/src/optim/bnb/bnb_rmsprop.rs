//! bitsandbytes' RMSprop.

use super::common::BnbState;
use crate::error::{Error, ensure_fraction, ensure_not_negative, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// bitsandbytes' RMSprop.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// s ← α s + (1 − α) g²
/// p ← p − η g / (√s + ε)
/// ```
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ > 0; with 8-bit state always
/// s ← s · α + ((1 − α) · g) · g
/// p ← p + (−η) · (g / (√s + ε))
/// ```
/// With 8-bit state −η multiplies g before the division.
///
/// # Source
/// Hinton, "Neural Networks for Machine Learning", lecture 6e, 2012. Reference: `bitsandbytes.optim.RMSprop`
/// (`rmsprop_bnb`, `rmsprop_bnb_32bit`): arithmetic and state are `f32` throughout. `momentum` does nothing.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-2 |
/// | `alpha` | α | (0, 1) | 0.99 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `momentum` | | [0, 1) | 0 |
/// | `centered` | | false | false |
/// | `state` | | | 32-bit |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `state1` | 0 | s, in `f32` |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element NaN; s stays NaN or infinite.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = BnbRmsprop { alpha: 0.75, eps: 1.0, ..BnbRmsprop::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[2.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (1.5, 1.0)); // s = 0.25 · 4: 2 − 0.5 · 2 / (1 + 1)
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbRmsprop {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running average of the gradient's square.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Coupled weight decay.
    pub weight_decay: f64,
    /// Checked, but without effect.
    pub momentum: f64,
    /// Must be false.
    pub centered: bool,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl BnbRmsprop {
    /// The reference's defaults.
    pub const DEFAULT: Self = BnbRmsprop {
        lr: 1e-2,
        alpha: 0.99,
        eps: 1e-8,
        weight_decay: 0.0,
        momentum: 0.0,
        centered: false,
        state: BnbState::DEFAULT,
    };
}

impl Default for BnbRmsprop {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        alpha: S,
        one_minus_alpha: S,
        eps: S,
        pre_scale: S,
        post_scale: S,
        decays: bool,
    }
}

impl HyperParams for BnbRmsprop {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("alpha", &mut self.alpha);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("momentum", &mut self.momentum);
        f.bool("centered", &mut self.centered);
        self.state.fields(f);
    }
}

impl Rule for BnbRmsprop {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "bnb_rmsprop";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1"];
    const SLOT_MASKS: &'static [u32] = &[0b1];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_range(self.alpha > 0.0 && self.alpha < 1.0, "alpha", self.alpha, "0 < value < 1")?;
        ensure_not_negative("eps", self.eps)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        ensure_fraction("momentum", self.momentum)?;
        if self.centered {
            return Err(Error::InvalidArgument { argument: "centered", expected: "false" });
        }
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
        let eight = self.state.is_8bit(step);
        let (pre_scale, post_scale) = if eight { (-step.lr, 1.0) } else { (1.0, -step.lr) };
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            alpha: C::scalar(self.alpha),
            one_minus_alpha: C::scalar(1.0 - self.alpha),
            eps: C::scalar(self.eps),
            pre_scale: C::scalar(pre_scale),
            post_scale: C::scalar(post_scale),
            decays: self.weight_decay > 0.0 || eight,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [s]: [C; 1]) -> (C, [C; 1]) {
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let s = s.mul_scalar(k.alpha).addcmul(g, g, k.one_minus_alpha);
        let update = g.mul_scalar(k.pre_scale) / s.sqrt().add_scalar(k.eps);
        (p.add_scaled(update, k.post_scale), [s])
    }
}
