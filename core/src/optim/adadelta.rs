//! Adadelta: steps in the units of the parameter.

use crate::error::{Error, ensure_not_negative, ensure_range};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// Adadelta.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// v ← ρ v + (1 − ρ) g²
/// Δ = √(u + ε) / √(v + ε) · g
/// u ← ρ u + (1 − ρ) Δ²
/// p ← p − η Δ
/// ```
/// `maximize` negates g, but not the decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0
/// v ← v · ρ + ((1 − ρ) · g) · g
/// Δ ← (√(u + ε) / √(v + ε)) · g
/// u ← u · ρ + ((1 − ρ) · Δ) · Δ
/// p ← p + (−η) · Δ
/// ```
///
/// # Source
/// Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012. Reference: `torch.optim.Adadelta`. The paper has no
/// learning rate: η is 1.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1 |
/// | `rho` | ρ | [0, 1] | 0.9 |
/// | `eps` | ε | ≥ 0 | 1e-6 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `square_avg` | 0 | v |
/// | `acc_delta` | 0 | u |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and `acc_delta` NaN permanently. A finite gradient whose square
/// overflows makes v infinite, which stops the element.
///
/// # Example
/// From empty averages with ε = 1 and ρ = 0.75, g = 2√3 gives v = 3 and Δ = g/2:
/// ```
/// use bitstep::prelude::*;
/// let rule = Adadelta { rho: 0.75, eps: 1.0, ..Adadelta::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 1.0, &mut p, &[12f64.sqrt()])?;
/// assert!((p[0] - (2.0 - 3f64.sqrt())).abs() < 1e-15);
/// let [v, u] = state.slots();
/// assert!((v[0] - 3.0).abs() < 1e-15 && (u[0] - 0.75).abs() < 1e-15);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adadelta {
    /// Learning rate: a factor of the step.
    pub lr: f64,
    /// Decay of both running averages.
    pub rho: f64,
    /// Added under both roots.
    pub eps: f64,
    /// Coupled weight decay: added to the gradient.
    pub weight_decay: f64,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Adadelta {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        Adadelta { lr: 1.0, rho: 0.9, eps: 1e-6, weight_decay: 0.0, maximize: false };
}

impl Default for Adadelta {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        rho: S,
        one_minus_rho: S,
        eps: S,
        minus_lr: S,
        decays: bool,
        maximize: bool,
    }
}

impl HyperParams for Adadelta {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("rho", &mut self.rho);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["foreach", "capturable", "differentiable"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for Adadelta {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adadelta";
    const SLOTS: &'static [&'static str] = &["square_avg", "acc_delta"];
    const SLOT_MASKS: &'static [u32] = &[0b11];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_range((0.0..=1.0).contains(&self.rho), "rho", self.rho, "0 <= rho <= 1")?;
        ensure_not_negative("eps", self.eps)?;
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
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            rho: C::scalar(self.rho),
            one_minus_rho: C::scalar(1.0 - self.rho),
            eps: C::scalar(self.eps),
            minus_lr: C::scalar(-step.lr),
            decays: self.weight_decay != 0.0,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [v, u]: [C; 2]) -> (C, [C; 2]) {
        let g = if k.maximize { -g } else { g };
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let v = v.mul_scalar(k.rho).addcmul(g, g, k.one_minus_rho);
        let delta = u.add_scalar(k.eps).sqrt() / v.add_scalar(k.eps).sqrt() * g;
        let u = u.mul_scalar(k.rho).addcmul(delta, delta, k.one_minus_rho);
        (p.add_scaled(delta, k.minus_lr), [v, u])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    #[test]
    fn delta_uses_the_average_of_the_steps_before() {
        // g = 4 − 0.5 · 2 = 3 turned and decayed: −4 + 1 = −3; v = 0 + 9 · 1, u = 4 → √4/√9 · −3 = −2.
        let rule = Adadelta {
            rho: 0.0,
            eps: 0.0,
            weight_decay: 0.5,
            maximize: true,
            ..Adadelta::default()
        };
        let (mut p, mut v, mut u) = ([2.0f64], [7.0f64], [4.0f64]);
        let at = StepContext::new(1, 0.5);
        let slots = [&mut v[..], &mut u[..]];
        step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0], slots).unwrap();
        assert_eq!((p[0], v[0], u[0]), (2.0 + 0.5 * 2.0, 9.0, 4.0));
    }

    #[test]
    fn check_rho_may_be_1_but_not_more() {
        assert!(Adadelta { rho: 1.0, ..Adadelta::default() }.check().is_ok());
        assert!(Adadelta { rho: 1.001, ..Adadelta::default() }.check().is_err());
        assert!(Adadelta { rho: f64::NAN, ..Adadelta::default() }.check().is_err());
    }
}
