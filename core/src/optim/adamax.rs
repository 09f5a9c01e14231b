//! Adamax: Adam with the largest gradient in place of the root of squares.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math::pow;
use crate::rule::{Rule, ScalarState, StepContext};

/// Adamax.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// m ← β₁ m + (1 − β₁) g
/// u ← max(β₂ u, |g| + ε)
/// p ← p − η / (1 − β₁ᵗ) · m / u
/// ```
/// `maximize` negates g, but not the decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0
/// m ← lerp(m, g, 1 − β₁)
/// u ← max(u · β₂, |g| + ε)
/// p ← p + (−η / (1 − β₁ᵗ)) · m / u
/// ```
///
/// # Source
/// Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, section 7. Reference: `torch.optim.Adamax`. The
/// paper has no ε, the reference adds it inside the maximum.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 2e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_inf` | 0 | u |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element NaN permanently, and stays in its state.
///
/// # Example
/// At t = 1 the correction cancels the average's weight, so p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = Adamax { eps: 0.0, ..Adamax::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?; // m and u
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 2.5).abs() < 1e-15 && state.slots()[1][0] == 4.0);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adamax {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running average of the gradient and of the running maximum of its absolute value.
    pub betas: (f64, f64),
    /// Added to the absolute value of the gradient.
    pub eps: f64,
    /// Coupled weight decay: added to the gradient.
    pub weight_decay: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Adamax {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        Adamax { lr: 2e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, maximize: false };
}

impl Default for Adamax {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        one_minus_beta1: S,
        beta2: S,
        eps: S,
        minus_step_size: S,
        decays: bool,
        maximize: bool,
    }
}

impl HyperParams for Adamax {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["foreach", "differentiable", "capturable"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for Adamax {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adamax";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_inf"];
    const SLOT_MASKS: &'static [u32] = &[0b11];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_betas(self.betas)?;
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

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let correction = 1.0 - pow(beta1, step.t_f64());
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            eps: C::scalar(self.eps),
            minus_step_size: C::scalar(-(step.lr / correction)),
            decays: self.weight_decay != 0.0,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, u]: [C; 2]) -> (C, [C; 2]) {
        let g = if k.maximize { -g } else { g };
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let m = m.lerp(g, k.one_minus_beta1);
        let u = u.mul_scalar(k.beta2).maximum(g.abs().add_scalar(k.eps));
        (p.addcdiv(m, u, k.minus_step_size), [m, u])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    /// One step of p = 2 at η = 1/2, t = 1 with β = (0, 0.5) and u = 8.
    fn one_step(rule: Adamax, g: f64) -> (f64, f64) {
        let rule = Adamax { betas: (0.0, 0.5), ..rule };
        let (mut p, mut m, mut u) = ([2.0f64], [0.0f64], [8.0f64]);
        let at = StepContext::new(1, 0.5);
        let slots = [&mut m[..], &mut u[..]];
        step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[g], slots).unwrap();
        (p[0], u[0])
    }

    #[test]
    fn exp_inf_keeps_the_larger_of_past_and_present() {
        let rule = Adamax { eps: 0.0, ..Adamax::default() };
        assert_eq!(one_step(rule, -2.0), (2.0 + 0.5 * 2.0 / 4.0, 4.0));
        assert_eq!(one_step(rule, -16.0), (2.0 + 0.5, 16.0));
    }

    #[test]
    fn eps_is_added_to_the_gradient_inside_of_the_maximum() {
        let rule = Adamax { eps: 1.0, ..Adamax::default() };
        assert_eq!(one_step(rule, -3.5).1, 4.5);
        assert_eq!(one_step(rule, -2.5).1, 4.0);
    }

    #[test]
    fn maximize_turns_the_gradient_but_not_the_decay() {
        let rule = Adamax { eps: 0.0, weight_decay: 1.0, maximize: true, ..Adamax::default() };
        assert_eq!(one_step(rule, -14.0), (2.0 - 0.5, 16.0));
    }
}
