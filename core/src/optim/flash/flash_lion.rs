//! FlashLion: Lion with all scalars in `f32`.

use crate::error::{Error, ensure_not_negative, ensure_unit};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// FlashOptim's Lion.
///
/// The registry name `flash_lion` runs it over split weights ([`SplitFloat`](crate::storage::SplitFloat)) and a
/// companded momentum ([`Companded`](crate::storage::Companded)).
///
/// # Formula
/// ```text
/// u ← sign(β₁ m + (1 − β₁) g)
/// m ← β₂ m + (1 − β₂) g
/// p ← (1 − η λ) p − η u
/// ```
/// With `decouple_lr` the decay is λ η / η₀, η₀ being the constructor's rate.
///
/// # Order of operations
/// ```text
/// u ← sign(m · β₁ + g · (1 − β₁))
/// m ← m · β₂ + g · (1 − β₂)
/// p ← p · (1 − η λ)
/// p ← p − u · η
/// ```
/// Scalars are `f32`: 1 − β is subtracted in `f32`; η λ is multiplied in `f64`. Without `fused`: 1 − β and 1 − η λ in
/// `f64`, and both averages are lerps.
///
/// # Source
/// FlashOptim 0.1.4, `flashoptim.FlashLion`.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1] | 0.9, 0.99 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `decouple_lr` | | | false |
/// | `fused` | | | true |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// The sign of NaN is 0: the weight only decays. A companded momentum stores NaN as 0.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = FlashLion { weight_decay: 0.5, ..FlashLion::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert_eq!(p[0], 2.0); // 2 · (1 − 0.5 · 0.5) + 0.5
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlashLion {
    /// Learning rate.
    pub lr: f64,
    /// Weight of the momentum in the update, and its decay.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay by λ η / η₀ instead of λ η.
    pub decouple_lr: bool,
    /// Compute as the reference's kernel does, not as its eager path does.
    pub fused: bool,
}

impl FlashLion {
    /// The reference's defaults.
    pub const DEFAULT: Self = FlashLion {
        lr: 1e-3,
        betas: (0.9, 0.99),
        weight_decay: 0.0,
        decouple_lr: false,
        fused: true,
    };
}

impl Default for FlashLion {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        beta1: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        decay: S,
        lr: S,
        fused: bool,
    }
}

impl HyperParams for FlashLion {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("decouple_lr", &mut self.decouple_lr);
        f.bool("fused", &mut self.fused);
    }
}

impl Rule for FlashLion {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "flash_lion";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    const SLOT_MASKS: &'static [u32] = &[0b1];
    const COUNTS_EMPTY_PARAMS: bool = false;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_unit("betas[0]", self.betas.0)?;
        ensure_unit("betas[1]", self.betas.1)?;
        ensure_not_negative("weight_decay", self.weight_decay)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let scalar = |x: f32| C::scalar(x.into());
        let one_minus = |x: f64| if self.fused { 1.0 - x as f32 } else { (1.0 - x) as f32 };
        let decay = if self.decouple_lr { step.lr / self.lr } else { step.lr } * self.weight_decay;
        Coefs {
            beta1: scalar(self.betas.0 as f32),
            one_minus_beta1: scalar(one_minus(self.betas.0)),
            beta2: scalar(self.betas.1 as f32),
            one_minus_beta2: scalar(one_minus(self.betas.1)),
            decay: scalar(one_minus(decay)),
            lr: scalar(step.lr as f32),
            fused: self.fused,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m]: [C; 1]) -> (C, [C; 1]) {
        let (u, m) = if k.fused {
            (
                m.mul_scalar(k.beta1) + g.mul_scalar(k.one_minus_beta1),
                m.mul_scalar(k.beta2) + g.mul_scalar(k.one_minus_beta2),
            )
        } else {
            (m.lerp(g, k.one_minus_beta1), m.lerp(g, k.one_minus_beta2))
        };
        (p.mul_scalar(k.decay) - u.sign().mul_scalar(k.lr), [m])
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        p.mul_scalar(k.decay) + direction
    }
}
