//! FlashSGD and FlashSGDW: SGD with momentum, all scalars in `f32`.

use crate::error::{Error, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext, no_decay};

/// FlashOptim's SGD, with decoupled or coupled weight decay.
///
/// The registry names `flash_sgd` and `flash_sgdw` run it over split weights
/// ([`SplitFloat`](crate::storage::SplitFloat)) and a companded momentum ([`Companded`](crate::storage::Companded)).
///
/// # Formula
/// ```text
/// g ← g + λ p                 coupled (FlashSGD)
/// b ← μ b + (1 − τ) g
/// p ← (1 − η λ) p             decoupled (FlashSGDW)
/// p ← p − η b                 with nesterov p − η (g + μ b); without momentum p − η g
/// ```
/// With `decouple_lr` the decay is λ η / η₀, η₀ being the constructor's rate. Unlike in PyTorch's SGD, the first step
/// is dampened too.
///
/// # Order of operations
/// As written, products before sums. Scalars are `f32`; η λ and 1 − τ are computed in `f64` before, 1 − η λ after they
/// are rounded. Coupled decay is added even at λ = 0. Without `fused`, or without momentum: 1 − η λ in `f64`, and no
/// decay at λ = 0.
///
/// # Source
/// FlashOptim 0.1.4, `flashoptim.FlashSGD` and `flashoptim.FlashSGDW`.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `momentum` | μ | ≥ 0 | 0 |
/// | `dampening` | τ | | 0 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `nesterov` | | needs μ > 0, τ = 0 | false |
/// | `decouple_lr` | | | false |
/// | `fused` | | | true |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `momentum_buffer` | 0 | b; with momentum only |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient makes the weight NaN permanently; a companded momentum stores it as 0.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = FlashSgd { momentum: 0.5, dampening: 0.5, ..FlashSgd::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// state.slots_mut()[0][0] = 1.0;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[4.0])?;
/// assert_eq!((state.slots()[0][0], p[0]), (2.5, 0.75)); // 0.5 · 1 + 0.5 · 4, 2 − 0.5 · 2.5
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlashSgdRule<const DECOUPLED: bool> {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running sum of gradients.
    pub momentum: f64,
    /// Share of each gradient that is kept out of the buffer.
    pub dampening: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Look ahead.
    pub nesterov: bool,
    /// Decay by λ η / η₀ instead of λ η. Only where decay is decoupled.
    pub decouple_lr: bool,
    /// Compute the scalars as the reference's kernel does, not as its eager path does.
    pub fused: bool,
}

/// FlashOptim's SGD with coupled weight decay.
pub type FlashSgd = FlashSgdRule<false>;
/// FlashOptim's SGD with decoupled weight decay.
pub type FlashSgdW = FlashSgdRule<true>;

impl<const DECOUPLED: bool> FlashSgdRule<DECOUPLED> {
    /// The reference's defaults.
    pub const DEFAULT: Self = FlashSgdRule {
        lr: 1e-3,
        momentum: 0.0,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        decouple_lr: false,
        fused: true,
    };
}

impl<const DECOUPLED: bool> Default for FlashSgdRule<DECOUPLED> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        l2: S,
        decay: S,
        momentum: S,
        undampened: S,
        lr: S,
        coupled: bool,
        with_momentum: bool,
        nesterov: bool,
    }
}

impl<const DECOUPLED: bool> HyperParams for FlashSgdRule<DECOUPLED> {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("momentum", &mut self.momentum);
        f.f64("dampening", &mut self.dampening);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("nesterov", &mut self.nesterov);
        if DECOUPLED {
            f.bool("decouple_lr", &mut self.decouple_lr);
        }
        f.bool("fused", &mut self.fused);
    }
}

impl<const DECOUPLED: bool> Rule for FlashSgdRule<DECOUPLED> {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = if DECOUPLED { "flash_sgdw" } else { "flash_sgd" };
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    const SLOT_MASKS: &'static [u32] = &[0b0, 0b1];
    const COUNTS_EMPTY_PARAMS: bool = false;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("momentum", self.momentum)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            let expected = "momentum and no dampening with nesterov";
            return Err(Error::InvalidArgument { argument: "nesterov", expected });
        }
        Ok(())
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn active_slots(&self, _: Dtype) -> u32 {
        (self.momentum > 0.0).into()
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let scalar = |x: f32| C::scalar(x.into());
        let kernel = self.fused && self.momentum > 0.0;
        let decay = if self.decouple_lr { step.lr / self.lr } else { step.lr } * self.weight_decay;
        Coefs {
            l2: scalar(self.weight_decay as f32),
            decay: scalar(match (DECOUPLED, kernel) {
                (false, _) => 1.0,
                (true, true) => 1.0 - decay as f32,
                (true, false) => (1.0 - decay) as f32,
            }),
            momentum: scalar(self.momentum as f32),
            undampened: scalar((1.0 - self.dampening) as f32),
            lr: scalar(step.lr as f32),
            coupled: !DECOUPLED && (kernel || self.weight_decay > 0.0),
            with_momentum: self.momentum > 0.0,
            nesterov: self.nesterov,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [b]: [C; 1]) -> (C, [C; 1]) {
        let g = if k.coupled { g + p.mul_scalar(k.l2) } else { g };
        let b = b.mul_scalar(k.momentum) + g.mul_scalar(k.undampened);
        let p = p.mul_scalar(k.decay);
        let ahead = if k.nesterov { g + b.mul_scalar(k.momentum) } else { b };
        let update = if k.with_momentum { ahead } else { g };
        (p - update.mul_scalar(k.lr), [b])
    }

    fn check_separable(&self) -> Result<(), Error> {
        if DECOUPLED { Ok(()) } else { no_decay("weight_decay", self.weight_decay) }
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        p.mul_scalar(k.decay) + direction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    #[test]
    fn nesterov_looks_ahead_by_the_momentum() {
        let rule = FlashSgdW { lr: 0.5, momentum: 0.5, nesterov: true, ..FlashSgdW::default() };
        let (mut p, mut b) = ([2.0f32], [1.0f32]);
        let at = StepContext::new(1, 0.5);
        step::<_, f32, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0f32], [&mut b])
            .unwrap();
        assert_eq!((b[0], p[0]), (4.5, -1.125)); // 2 − 0.5 · (4 + 0.5 · 4.5)
    }

    #[test]
    fn without_momentum_the_gradient_is_the_update() {
        let rule = FlashSgd { lr: 0.5, dampening: 0.5, weight_decay: 0.5, ..FlashSgd::default() };
        let mut p = [2.0f32];
        let at = StepContext::new(1, 0.5);
        step::<_, f32, _, _, f32>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0f32], [&mut []])
            .unwrap();
        assert_eq!(p[0], -0.5); // 2 − 0.5 · (4 + 0.5 · 2)
    }

    #[test]
    fn fused_kernel_decays_by_an_f32_number_only_with_momentum() {
        let decay = |momentum, fused| {
            let rule = FlashSgdW {
                momentum,
                fused,
                weight_decay: 0.3,
                decouple_lr: false,
                ..FlashSgdW::default()
            };
            let coefs: Coefs<f32> = rule.coefs::<f32>(&StepContext::new(1, 0.3), &rule.scalars());
            coefs.decay
        };
        // 0.3 · 0.3 is no f32, and the difference from 1 rounds elsewhere.
        assert_eq!(decay(0.9, true), 1.0 - (0.3f64 * 0.3) as f32);
        assert_eq!(decay(0.9, false), (1.0 - 0.3f64 * 0.3) as f32);
        assert_eq!(decay(0.0, true), decay(0.9, false));
        assert_ne!(decay(0.9, true), decay(0.9, false));
    }
}
