//! FlashAdam and FlashAdamW: Adam with all scalars in `f32`.

use super::common::{powf, powi};
use crate::error::{Error, ensure_not_negative, ensure_unit};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext, no_decay};

/// FlashOptim's Adam, with decoupled or coupled weight decay.
///
/// The registry names `flash_adam` and `flash_adamw` run it over split weights
/// ([`SplitFloat`](crate::storage::SplitFloat)) and companded moments ([`Companded`](crate::storage::Companded)); with
/// other storages it is PyTorch's Adam(W) up to the rounding of the scalars.
///
/// # Formula
/// ```text
/// g ← g + λ p                 coupled (FlashAdam)
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← (1 − η λ) p             decoupled (FlashAdamW)
/// p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
/// With `decouple_lr` the decay is λ η / η₀, η₀ being the constructor's rate.
///
/// # Order of operations
/// ```text
/// g ← g + p · λ
/// m ← m · β₁ + g · (1 − β₁)
/// v ← v · β₂ + (g · g) · (1 − β₂)
/// p ← p · (1 − η λ)
/// p ← p − (η · (m / (1 − β₁ᵗ))) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
/// Scalars are `f32`: 1 − β is subtracted in `f32`, βᵗ is computed in `f32` by repeated squaring; η λ is multiplied in
/// `f64`. Coupled decay is added even at λ = 0, so that an infinite weight makes its gradient NaN. Without `fused`:
/// 1 − β and 1 − η λ in `f64`, βᵗ by pow, v ← v · β₂ + ((1 − β₂) · g) · g, and no decay at λ = 0.
///
/// # Source
/// FlashOptim 0.1.4, `flashoptim.FlashAdam` and `flashoptim.FlashAdamW`.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1] | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0, decoupled 1e-2 |
/// | `decouple_lr` | | | false |
/// | `fused` | | | true |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient makes the weight NaN permanently. Companded moments drop it at the next step: NaN is stored as 0, and
/// an infinity makes its group of 32 NaN once.
///
/// # Example
/// At t = 1 both corrections cancel the averages' weights, so p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = FlashAdamW { weight_decay: 0.5, ..FlashAdamW::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 2.0).abs() < 1e-6); // 2 · (1 − 0.5 · 0.5) + 0.5
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlashAdamRule<const DECOUPLED: bool> {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Decay by λ η / η₀ instead of λ η. Only where decay is decoupled.
    pub decouple_lr: bool,
    /// Compute the scalars as the reference's kernel does, not as its eager path does.
    pub fused: bool,
}

/// FlashOptim's Adam with coupled weight decay.
pub type FlashAdam = FlashAdamRule<false>;
/// FlashOptim's Adam with decoupled weight decay.
pub type FlashAdamW = FlashAdamRule<true>;

impl<const DECOUPLED: bool> FlashAdamRule<DECOUPLED> {
    /// The reference's defaults.
    pub const DEFAULT: Self = FlashAdamRule {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: if DECOUPLED { 1e-2 } else { 0.0 },
        decouple_lr: false,
        fused: true,
    };
}

impl<const DECOUPLED: bool> Default for FlashAdamRule<DECOUPLED> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        l2: S,
        decay: S,
        beta1: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        correction1: S,
        correction2: S,
        eps: S,
        minus_lr: S,
        coupled: bool,
        fused: bool,
    }
}

impl<const DECOUPLED: bool> HyperParams for FlashAdamRule<DECOUPLED> {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        if DECOUPLED {
            f.bool("decouple_lr", &mut self.decouple_lr);
        }
        f.bool("fused", &mut self.fused);
    }
}

impl<const DECOUPLED: bool> Rule for FlashAdamRule<DECOUPLED> {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = if DECOUPLED { "flash_adamw" } else { "flash_adam" };
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b11];
    const COUNTS_EMPTY_PARAMS: bool = false;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_unit("betas[0]", self.betas.0)?;
        ensure_unit("betas[1]", self.betas.1)?;
        ensure_not_negative("eps", self.eps)?;
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
        let (beta1, beta2) = (self.betas.0 as f32, self.betas.1 as f32);
        let one_minus = |beta: f64| {
            if self.fused { 1.0 - beta as f32 } else { (1.0 - beta) as f32 }
        };
        let power = |beta| if self.fused { powi(beta, step.t) } else { powf(beta, step.t_f64()) };
        let decay = if self.decouple_lr { step.lr / self.lr } else { step.lr } * self.weight_decay;
        Coefs {
            l2: scalar(self.weight_decay as f32),
            decay: scalar(match (DECOUPLED, self.fused) {
                (false, _) => 1.0,
                (true, true) => 1.0 - decay as f32,
                (true, false) => (1.0 - decay) as f32,
            }),
            beta1: scalar(beta1),
            one_minus_beta1: scalar(one_minus(self.betas.0)),
            beta2: scalar(beta2),
            one_minus_beta2: scalar(one_minus(self.betas.1)),
            correction1: scalar(1.0 - power(beta1)),
            correction2: scalar(1.0 - power(beta2)),
            eps: scalar(self.eps as f32),
            minus_lr: scalar(-(step.lr as f32)),
            coupled: !DECOUPLED && (self.fused || self.weight_decay > 0.0),
            fused: self.fused,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let g = if k.coupled { g + p.mul_scalar(k.l2) } else { g };
        let m = m.mul_scalar(k.beta1) + g.mul_scalar(k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2);
        let v = if k.fused {
            v + (g * g).mul_scalar(k.one_minus_beta2)
        } else {
            v.addcmul(g, g, k.one_minus_beta2)
        };
        let p = p.mul_scalar(k.decay);
        let denom = v.div_scalar(k.correction2).sqrt().add_scalar(k.eps);
        (p.addcdiv(m.div_scalar(k.correction1), denom, k.minus_lr), [m, v])
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
    fn coupled_decay_of_an_infinite_weight_leaks_at_zero_unless_eager() {
        for (fused, nan) in [(true, true), (false, false)] {
            let rule = FlashAdam { fused, ..FlashAdam::default() };
            let (mut m, mut v) = ([0.0f32], [0.0f32]);
            let at = StepContext::new(1, 1e-3);
            let p = &mut [f32::INFINITY];
            step::<_, f32, _, _, _>(
                &rule,
                &at,
                &mut rule.scalars(),
                p,
                &[1.0f32],
                [&mut m, &mut v],
            )
            .unwrap();
            assert_eq!(m[0].is_nan(), nan);
        }
    }

    #[test]
    fn decouple_lr_decays_by_the_ratio_of_rates() {
        let rule =
            FlashAdamW { lr: 0.5, weight_decay: 0.5, decouple_lr: true, ..FlashAdamW::default() };
        let k = rule.coefs::<f32>(&StepContext::new(1, 0.25), &rule.scalars());
        assert_eq!(k.decay, 0.75); // 1 − 0.5 · 0.25 / 0.5
    }
}
