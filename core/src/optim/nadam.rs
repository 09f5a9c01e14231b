//! NAdam: Adam with Nesterov's momentum.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math::pow;
use crate::rule::{MAX_SCALARS, Rule, ScalarState, StepContext};

/// NAdam.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// μₜ = β₁ (1 − ½ · 0.96^(t ψ)),  Πₜ = μ₁ · … · μₜ
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η (μₜ₊₁ m / (1 − Πₜ₊₁) + (1 − μₜ) g / (1 − Πₜ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
/// With `decoupled_weight_decay`, p ← p − η λ p takes the place of the first line. `maximize` negates g, but not the
/// decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0, or p ← p · (1 − η λ) if decoupled
/// m ← lerp(m, g, 1 − β₁)
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// d ← √(v / (1 − β₂ᵗ)) + ε      or √v / √(1 − β₂ᵗ) + ε with `foreach`
/// p ← p + (−η (1 − μₜ) / (1 − Πₜ)) · g / d
/// p ← p + (−η μₜ₊₁ / (1 − Πₜ₊₁)) · m / d
/// ```
/// Π is kept in `f32`, whatever the parameter's type.
///
/// # Source
/// Dozat, "Incorporating Nesterov Momentum into Adam", 2016. Reference: `torch.optim.NAdam`.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 2e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `momentum_decay` | ψ | ≥ 0 | 4e-3 |
/// | `decoupled_weight_decay` | | | false |
/// | `foreach` | | true, false, none (as false) | none |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
/// | `mu_product` | 1 | Π, a scalar |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// Without averaging (β₁ = β₂ = 0) μ is 0 and p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = NAdam { betas: (0.0, 0.0), ..NAdam::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// let [m, v] = state.slots();
/// assert!((p[0] - 2.5).abs() < 1e-8 && m[0] == -4.0 && v[0] == 16.0);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NAdam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay: added to the gradient, unless it is decoupled.
    pub weight_decay: f64,
    /// How fast μ rises from β₁/2 to β₁.
    pub momentum_decay: f64,
    /// Shrink the parameter instead of adding to the gradient, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// The reference's multi-tensor order of operations.
    pub foreach: Option<bool>,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl NAdam {
    /// The reference's defaults.
    pub const DEFAULT: Self = NAdam {
        lr: 2e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.0,
        momentum_decay: 4e-3,
        decoupled_weight_decay: false,
        foreach: None,
        maximize: false,
    };
}

impl Default for NAdam {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl NAdam {
    /// μ of step t.
    fn mu(&self, t: f64) -> f64 {
        self.betas.0 * (1.0 - 0.5 * pow(0.96, t * self.momentum_decay))
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        coupled_decay: S,
        decay: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        /// Bias correction before the root: 1 with `foreach`.
        correction2: S,
        /// Bias correction after the root: 1 without `foreach`.
        sqrt_correction2: S,
        eps: S,
        minus_grad_rate: S,
        minus_average_rate: S,
        coupled: bool,
        maximize: bool,
    }
}

impl HyperParams for NAdam {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("momentum_decay", &mut self.momentum_decay);
        f.bool("decoupled_weight_decay", &mut self.decoupled_weight_decay);
        f.opt_bool("foreach", &mut self.foreach);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["capturable", "differentiable"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for NAdam {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "nadam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b11];
    const SCALAR_NAMES: &'static [&'static str] = &["mu_product"];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_betas(self.betas)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        ensure_not_negative("momentum_decay", self.momentum_decay)
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

    fn scalars(&self) -> ScalarState {
        [1.0; MAX_SCALARS]
    }

    fn advance_scalars(&self, step: &StepContext, [mu_product, ..]: &mut ScalarState) {
        *mu_product = f64::from(*mu_product as f32 * self.mu(step.t_f64()) as f32);
    }

    fn coefs<C: ComputeFloat>(
        &self,
        step: &StepContext,
        [mu_product, ..]: &ScalarState,
    ) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let t = step.t_f64();
        let (mu, mu_next) = (self.mu(t), self.mu(t + 1.0));
        let correction2 = 1.0 - pow(beta2, t);
        let decays = self.weight_decay != 0.0;
        let decoupled = decays && self.decoupled_weight_decay;
        let foreach = self.foreach == Some(true);
        Coefs {
            coupled_decay: C::scalar(self.weight_decay),
            decay: C::scalar(if decoupled { 1.0 - step.lr * self.weight_decay } else { 1.0 }),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            correction2: C::scalar(if foreach { 1.0 } else { correction2 }),
            sqrt_correction2: C::scalar(if foreach { libm::sqrt(correction2) } else { 1.0 }),
            eps: C::scalar(self.eps),
            minus_grad_rate: C::scalar(-step.lr * (1.0 - mu) / (1.0 - mu_product)),
            minus_average_rate: C::scalar(-step.lr * mu_next / (1.0 - mu_product * mu_next)),
            coupled: decays && !self.decoupled_weight_decay,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let g = if k.maximize { -g } else { g };
        let g = if k.coupled { g.add_scaled(p, k.coupled_decay) } else { g };
        let p = p.mul_scalar(k.decay);
        let m = m.lerp(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let root = v.div_scalar(k.correction2).sqrt().div_scalar(k.sqrt_correction2);
        let denom = root.add_scalar(k.eps);
        let p = p.addcdiv(g, denom, k.minus_grad_rate);
        (p.addcdiv(m, denom, k.minus_average_rate), [m, v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    /// One step of p = 2, g = 3 at η = 1/2, t = 1 with v's average off and m = 0.
    fn one_step(rule: NAdam) -> (f64, f64, f64) {
        let rule = NAdam { betas: (0.5, 0.0), momentum_decay: 0.0, eps: 0.0, ..rule };
        let (mut p, mut m, mut v) = ([2.0f64], [0.0f64], [0.0f64]);
        let (at, mut scalars) = (StepContext::new(1, 0.5), rule.scalars());
        let slots = [&mut m[..], &mut v[..]];
        step::<_, f64, _, _, _>(&rule, &at, &mut scalars, &mut p, &[3.0], slots).unwrap();
        (p[0], m[0], scalars[0])
    }

    #[test]
    fn momentum_constant_follows_the_formula() {
        // μ = 0.5 · 0.5 = 1/4 at every step, so Π₁ = 1/4, Π₂ = 1/16; m = g/2, d = |g|:
        // η ((1 − 1/4)/(1 − 1/4) + (1/4 · 1/2)/(1 − 1/16)) = ½ (1 + 2/15).
        let (p, m, product) = one_step(NAdam::default());
        assert!((p - (2.0 - 0.5 * (1.0 + 2.0 / 15.0))).abs() < 1e-15);
        assert_eq!((m, product), (1.5, 0.25));
        let foreach = NAdam { foreach: Some(true), ..NAdam::default() };
        assert_eq!(one_step(foreach), (p, m, product));
    }

    #[test]
    fn decay_coupled_enters_the_moments_and_decoupled_does_not() {
        let rule = NAdam { weight_decay: 0.5, ..NAdam::default() };
        assert_eq!(one_step(rule).1, 0.5 * 4.0);
        let decoupled = one_step(NAdam { decoupled_weight_decay: true, ..rule });
        assert_eq!(decoupled.1, 1.5);
        assert!((decoupled.0 - (one_step(NAdam::default()).0 - 0.5)).abs() < 1e-15);
    }

    #[test]
    fn mu_product_is_carried_in_f32() {
        let rule = NAdam::default();
        let mut scalars = rule.scalars();
        for t in 1..=3 {
            rule.advance_scalars(&StepContext::new(t, 1e-3), &mut scalars);
            assert_eq!(scalars[0], f64::from(scalars[0] as f32));
        }
        let exact: f64 = [1.0, 2.0, 3.0].map(|t| rule.mu(t)).iter().product();
        assert!((scalars[0] / exact - 1.0).abs() < 1e-6);
    }
}
