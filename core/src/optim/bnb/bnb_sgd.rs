//! bitsandbytes' SGD with momentum.

use super::common::BnbState;
use crate::error::{Error, ensure_fraction, ensure_not_negative, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// bitsandbytes' SGD with momentum.
///
/// # Formula
/// ```text
/// m ← μ m + g + λ p        at the first step: g + λ p
/// p ← p − η m
/// ```
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ > 0; with 8-bit state always
/// m ← m · μ + g
/// p ← p + (−η) · m
/// ```
///
/// # Source
/// Reference: `bitsandbytes.optim.SGD` (`bnb_sgd_32bit`): arithmetic and state are `f32` throughout. `dampening` and
/// `nesterov` do nothing.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
/// | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
/// | `dampening` | | [0, 1) | 0 |
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
/// A NaN or infinity stays in m and p. With 8-bit state λ = 0 does not keep a non-finite p out of m.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = BnbSgd { momentum: 0.5, weight_decay: 0.25, ..BnbSgd::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// state.slots_mut()[0][0] = 100.0;
/// let mut p = [4.0];
/// rule.step(&mut state, 0.5, &mut p, &[1.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (3.0, 2.0)); // what m held before does not count at t = 1
/// rule.step(&mut state, 0.5, &mut p, &[1.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (1.625, 2.75)); // 1 + 0.75 + 1
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbSgd {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the momentum buffer.
    pub momentum: f64,
    /// Checked, but without effect.
    pub dampening: f64,
    /// Coupled weight decay.
    pub weight_decay: f64,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl BnbSgd {
    /// The reference's defaults.
    pub const DEFAULT: Self = BnbSgd {
        lr: 1e-3,
        momentum: 0.9,
        dampening: 0.0,
        weight_decay: 0.0,
        state: BnbState::DEFAULT,
    };
}

impl Default for BnbSgd {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        momentum: S,
        minus_lr: S,
        decays: bool,
        first: bool,
    }
}

impl HyperParams for BnbSgd {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("momentum", &mut self.momentum);
        f.f64("dampening", &mut self.dampening);
        f.f64("weight_decay", &mut self.weight_decay);
        f.ignored("nesterov");
        self.state.fields(f);
    }
}

impl Rule for BnbSgd {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "bnb_sgd";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1"];
    const SLOT_MASKS: &'static [u32] = &[0b1];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        let momentum = self.momentum;
        ensure_range(momentum > 0.0 && momentum < 1.0, "momentum", momentum, "0 < value < 1")?;
        ensure_fraction("dampening", self.dampening)?;
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
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            momentum: C::scalar(self.momentum),
            minus_lr: C::scalar(-step.lr),
            decays: self.weight_decay > 0.0 || self.state.is_8bit(step),
            first: step.t == 1,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m]: [C; 1]) -> (C, [C; 1]) {
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let m = if k.first { g } else { m.mul_scalar(k.momentum) + g };
        (p.add_scaled(m, k.minus_lr), [m])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    #[test]
    fn without_decay_an_infinite_parameter_does_not_reach_the_momentum() {
        let rule = BnbSgd { lr: 0.5, momentum: 0.5, ..BnbSgd::default() };
        let (mut p, mut m) = ([f32::INFINITY], [0.0f32]);
        let at = StepContext::new(1, 0.5);
        step::<_, f32, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0f32], [&mut m])
            .unwrap();
        assert_eq!((p[0], m[0]), (f32::INFINITY, 4.0));
    }
}
