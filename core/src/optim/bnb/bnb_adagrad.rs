//! bitsandbytes' Adagrad.

use super::common::BnbState;
use crate::error::{Error, ensure_not_negative, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// bitsandbytes' Adagrad.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// s ← s + g²
/// p ← p − η g / (√s + ε)
/// ```
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ > 0; with 8-bit state always
/// s ← s + g · g
/// p ← p + (−η) · (g / (√s + ε))
/// ```
/// With 8-bit state −η multiplies g before the division.
///
/// # Source
/// Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
/// Reference: `bitsandbytes.optim.Adagrad` (`bnb_adagrad_32bit`): arithmetic and state are `f32` throughout.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-2 |
/// | `lr_decay` | | 0 | 0 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `initial_accumulator_value` | | 0 | 0 |
/// | `eps` | ε | ≥ 0 | 1e-10 |
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
/// let rule = BnbAdagrad { eps: 1.0, weight_decay: 0.5, ..BnbAdagrad::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// state.slots_mut()[0][0] = 7.0;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[2.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (1.7, 16.0)); // g = 3: 2 − 0.5 · 3 / (4 + 1)
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbAdagrad {
    /// Learning rate.
    pub lr: f64,
    /// Must be 0.
    pub lr_decay: f64,
    /// Coupled weight decay.
    pub weight_decay: f64,
    /// Must be 0.
    pub initial_accumulator_value: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl BnbAdagrad {
    /// The reference's defaults.
    pub const DEFAULT: Self = BnbAdagrad {
        lr: 1e-2,
        lr_decay: 0.0,
        weight_decay: 0.0,
        initial_accumulator_value: 0.0,
        eps: 1e-10,
        state: BnbState::DEFAULT,
    };
}

impl Default for BnbAdagrad {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        eps: S,
        pre_scale: S,
        post_scale: S,
        decays: bool,
    }
}

impl HyperParams for BnbAdagrad {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("lr_decay", &mut self.lr_decay);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("initial_accumulator_value", &mut self.initial_accumulator_value);
        f.f64("eps", &mut self.eps);
        self.state.fields(f);
    }
}

impl Rule for BnbAdagrad {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "bnb_adagrad";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1"];
    const SLOT_MASKS: &'static [u32] = &[0b1];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        ensure_not_negative("eps", self.eps)?;
        let start = self.initial_accumulator_value;
        ensure_range(start == 0.0, "initial_accumulator_value", start, "= 0")?;
        ensure_range(self.lr_decay == 0.0, "lr_decay", self.lr_decay, "= 0")?;
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
            eps: C::scalar(self.eps),
            pre_scale: C::scalar(pre_scale),
            post_scale: C::scalar(post_scale),
            decays: self.weight_decay > 0.0 || eight,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [s]: [C; 1]) -> (C, [C; 1]) {
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let s = s.addcmul(g, g, C::Scalar::ONE);
        let update = g.mul_scalar(k.pre_scale) / s.sqrt().add_scalar(k.eps);
        (p.add_scaled(update, k.post_scale), [s])
    }
}
