//! Adam: the running average of the gradient over the root of that of its square.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// Adam.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// ```
/// With `decoupled_weight_decay`, p ← p − η λ p takes the place of the first line. With `amsgrad`, the largest v so far
/// replaces v under the root. `maximize` negates g, but not the decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0, or p ← p · (1 − η λ) if decoupled
/// m ← lerp(m, g, 1 − β₁)
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// d ← √v / √(1 − β₂ᵗ) + ε
/// p ← p + (−η / (1 − β₁ᵗ)) · m / d
/// ```
///
/// # Source
/// Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; Reddi et al., "On the Convergence of Adam and
/// Beyond", 2018, for `amsgrad`. Reference: `torch.optim.Adam`. The paper has no weight decay; the reference corrects
/// the bias of the largest v, the paper on AMSGrad corrects none.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `amsgrad` | | | false |
/// | `maximize` | | | false |
/// | `decoupled_weight_decay` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
/// | `max_exp_avg_sq` | 0 | largest v so far; with `amsgrad` only |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// At t = 1 both corrections cancel the averages' weights, so p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = Adam { weight_decay: 0.5, ..Adam::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?; // m and v
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-5.0])?;
/// assert!((p[0] - 2.5).abs() < 1e-8); // g = −5 + 0.5 · 2 = −4
/// let [m, v, _] = state.slots();
/// assert!((m[0] + 0.4).abs() < 1e-15 && (v[0] - 0.016).abs() < 1e-15);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay: added to the gradient, unless it is decoupled.
    pub weight_decay: f64,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
    /// Shrink the parameter instead of adding to the gradient, as AdamW does.
    pub decoupled_weight_decay: bool,
}

impl Adam {
    /// The reference's defaults.
    pub const DEFAULT: Self = Adam {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.0,
        amsgrad: false,
        maximize: false,
        decoupled_weight_decay: false,
    };
}

impl Default for Adam {
    fn default() -> Self {
        Self::DEFAULT
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
        sqrt_correction2: S,
        eps: S,
        minus_step_size: S,
        coupled: bool,
        amsgrad: bool,
        maximize: bool,
    }
}

impl HyperParams for Adam {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("amsgrad", &mut self.amsgrad);
        f.bool("maximize", &mut self.maximize);
        f.bool("decoupled_weight_decay", &mut self.decoupled_weight_decay);
        for ignored_flag in ["foreach", "capturable", "differentiable", "fused"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for Adam {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b011, 0b111];

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

    fn active_slots(&self, _: Dtype) -> u32 {
        if self.amsgrad { 0b111 } else { 0b011 }
    }

    fn decay_bases(&self) -> [f64; 2] {
        self.betas.into()
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let decays = self.weight_decay != 0.0;
        let correction1 = 1.0 - step.beta_power(beta1);
        let correction2 = 1.0 - step.beta_power(beta2);
        let decoupled = decays && self.decoupled_weight_decay;
        Coefs {
            coupled_decay: C::scalar(self.weight_decay),
            decay: C::scalar(if decoupled { 1.0 - step.lr * self.weight_decay } else { 1.0 }),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            sqrt_correction2: C::scalar(libm::sqrt(correction2)),
            eps: C::scalar(self.eps),
            minus_step_size: C::scalar(-(step.lr / correction1)),
            coupled: decays && !self.decoupled_weight_decay,
            amsgrad: self.amsgrad,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [m, v, v_max]: [C; 3],
    ) -> (C, [C; 3]) {
        let g = if k.maximize { -g } else { g };
        let g = if k.coupled { g.add_scaled(p, k.coupled_decay) } else { g };
        let p = p.mul_scalar(k.decay);
        let m = m.lerp(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let v_max = v_max.maximum(v);
        let largest = if k.amsgrad { v_max } else { v };
        let denom = largest.sqrt().div_scalar(k.sqrt_correction2).add_scalar(k.eps);
        (p.addcdiv(m, denom, k.minus_step_size), [m, v, v_max])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    /// p = 2 and g = 3 at η = 1/2, without averaging: m = g, v = g².
    fn sign_step(rule: Adam) -> (f64, f64) {
        let rule = Adam { betas: (0.0, 0.0), eps: 0.0, ..rule };
        let (mut p, mut m, mut v) = ([2.0f64], [0.0f64], [0.0f64]);
        let at = StepContext::new(1, 0.5);
        let slots = [&mut m[..], &mut v[..], &mut []];
        step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[3.0], slots).unwrap();
        (p[0], m[0])
    }

    #[test]
    fn decay_coupled_enters_the_moments() {
        let rule = Adam { weight_decay: 0.5, ..Adam::default() };
        assert_eq!(sign_step(rule), (2.0 - 0.5, 3.0 + 0.5 * 2.0));
    }

    #[test]
    fn decay_decoupled_shrinks_the_parameter() {
        let rule = Adam { weight_decay: 0.5, decoupled_weight_decay: true, ..Adam::default() };
        assert_eq!(sign_step(rule), (2.0 * 0.75 - 0.5, 3.0));
    }

    #[test]
    fn maximize_turns_the_gradient_but_not_the_decay() {
        let rule = Adam { weight_decay: 0.5, maximize: true, ..Adam::default() };
        assert_eq!(sign_step(rule), (2.0 + 0.5, -3.0 + 0.5 * 2.0));
    }

    #[test]
    fn decay_zero_keeps_an_infinite_parameter_out_of_the_gradient() {
        let rule = Adam::default();
        let (mut p, mut m, mut v) = ([f32::INFINITY], [0.0f32], [0.0f32]);
        let slots = [&mut m[..], &mut v[..], &mut []];
        let at = StepContext::new(1, 0.5);
        step::<_, f32, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[1.0], slots).unwrap();
        assert!(p[0] == f32::INFINITY && m[0].is_finite());
    }
}
