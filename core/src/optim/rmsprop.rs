//! RMSprop: the gradient over the root of the running average of its square.

use crate::error::{Error, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// RMSprop: plain, centered, or with momentum.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// v ← α v + (1 − α) g²
/// d = √v + ε,  or centered:  ḡ ← α ḡ + (1 − α) g,  d = √(v − ḡ²) + ε
/// p ← p − η g / d,  or with momentum:  b ← μ b + g / d,  p ← p − η b
/// ```
/// `maximize` negates g, but not the decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0
/// v ← v · α + ((1 − α) · g) · g
/// ḡ ← lerp(ḡ, g, 1 − α)
/// d ← √v + ε               or √(v + (−ḡ) · ḡ) + ε
/// p ← p + (−η) · g / d     or b ← b · μ + g / d, p ← p + (−η) · b
/// ```
///
/// # Source
/// Tieleman and Hinton, "Lecture 6.5: rmsprop", 2012; Graves, "Generating Sequences With Recurrent Neural Networks",
/// 2013, for the centered form. Reference: `torch.optim.RMSprop`. Graves has ε inside the root. v − ḡ² may come out
/// below 0 where the gradient hardly changes; its root is NaN, as in the reference.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-2 |
/// | `alpha` | α | ≥ 0 | 0.99 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `momentum` | μ | ≥ 0 | 0 |
/// | `centered` | | | false |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `square_avg` | 0 | v |
/// | `momentum_buffer` | 0 | b; with momentum only |
/// | `grad_avg` | 0 | ḡ; with `centered` only |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element NaN permanently, and its state NaN or infinite.
///
/// # Example
/// With α = 0.75 and an empty v, d is half the gradient's size:
/// ```
/// use bitstep::prelude::*;
/// let rule = RmsProp { alpha: 0.75, eps: 0.0, ..RmsProp::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64])?; // v; neither b nor ḡ
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (3.0, 4.0)); // 2 + 0.5 · 4 / √4
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages.
    pub alpha: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Coupled weight decay: added to the gradient.
    pub weight_decay: f64,
    /// Decay of the momentum buffer.
    pub momentum: f64,
    /// Use the variance about the mean instead of the mean square.
    pub centered: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl RmsProp {
    /// The reference's defaults.
    pub const DEFAULT: Self = RmsProp {
        lr: 1e-2,
        alpha: 0.99,
        eps: 1e-8,
        weight_decay: 0.0,
        momentum: 0.0,
        centered: false,
        maximize: false,
    };
}

impl Default for RmsProp {
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
        momentum: S,
        minus_lr: S,
        decays: bool,
        centered: bool,
        buffered: bool,
        maximize: bool,
    }
}

impl HyperParams for RmsProp {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("alpha", &mut self.alpha);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("momentum", &mut self.momentum);
        f.bool("centered", &mut self.centered);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["capturable", "foreach", "differentiable"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for RmsProp {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "rmsprop";
    const SLOTS: &'static [&'static str] = &["square_avg", "momentum_buffer", "grad_avg"];
    const SLOT_MASKS: &'static [u32] = &[0b001, 0b011, 0b101, 0b111];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_not_negative("momentum", self.momentum)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        ensure_not_negative("alpha", self.alpha)
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
        1 | u32::from(self.momentum > 0.0) << 1 | u32::from(self.centered) << 2
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            alpha: C::scalar(self.alpha),
            one_minus_alpha: C::scalar(1.0 - self.alpha),
            eps: C::scalar(self.eps),
            momentum: C::scalar(self.momentum),
            minus_lr: C::scalar(-step.lr),
            decays: self.weight_decay != 0.0,
            centered: self.centered,
            buffered: self.momentum > 0.0,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [v, b, mean]: [C; 3],
    ) -> (C, [C; 3]) {
        let one = C::Scalar::ONE;
        let g = if k.maximize { -g } else { g };
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let v = v.mul_scalar(k.alpha).addcmul(g, g, k.one_minus_alpha);
        let mean = mean.lerp(g, k.one_minus_alpha);
        let variance = if k.centered { v.addcmul(mean, mean, -one) } else { v };
        let denom = variance.sqrt().add_scalar(k.eps);
        let b = b.mul_scalar(k.momentum).addcdiv(g, denom, one);
        let p =
            if k.buffered { p.add_scaled(b, k.minus_lr) } else { p.addcdiv(g, denom, k.minus_lr) };
        (p, [v, b, mean])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    /// One step of p = 0 with g = 4 at η = 1/2 from v = 0, b = 3 and ḡ = 0.
    fn one_step(rule: RmsProp) -> (f64, [f64; 3]) {
        let rule = RmsProp { alpha: 0.75, eps: 1.0, ..rule };
        let (mut p, mut v, mut b, mut mean) = ([0.0f64], [0.0f64], [3.0f64], [0.0f64]);
        {
            let b = if rule.active_slots(Dtype::F64) & 2 != 0 { &mut b[..] } else { &mut [] };
            let mean = if rule.active_slots(Dtype::F64) & 4 != 0 { &mut mean[..] } else { &mut [] };
            let (at, slots) = (StepContext::new(1, 0.5), [&mut v[..], b, mean]);
            step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0], slots)
                .unwrap();
        }
        (p[0], [v[0], b[0], mean[0]])
    }

    #[test]
    fn eps_stands_outside_of_the_root() {
        assert_eq!(one_step(RmsProp::default()), (-0.5 * 4.0 / 3.0, [4.0, 3.0, 0.0]));
    }

    #[test]
    fn momentum_collects_the_divided_gradient() {
        // b = 0.5 · 3 + 4/(√4 + 1)
        let b = 1.5 + 4.0 / 3.0;
        let rule = RmsProp { momentum: 0.5, ..RmsProp::default() };
        assert_eq!(one_step(rule), (-0.5 * b, [4.0, b, 0.0]));
    }

    #[test]
    fn centered_takes_the_variance() {
        // ḡ = 1, v − ḡ² = 3
        let denom = 3f64.sqrt() + 1.0;
        let rule = RmsProp { centered: true, ..RmsProp::default() };
        assert_eq!(one_step(rule), (-0.5 * 4.0 / denom, [4.0, 3.0, 1.0]));
        let b = 1.5 + 4.0 / denom;
        let rule = RmsProp { momentum: 0.5, ..rule };
        assert_eq!(one_step(rule), (-0.5 * b, [4.0, b, 1.0]));
    }

    #[test]
    fn buffer_is_used_only_with_momentum() {
        for (momentum, expected) in [(0.0, false), (0.5, true)] {
            let rule = RmsProp { momentum, ..RmsProp::default() };
            assert_eq!(
                rule.coefs::<f32>(&StepContext::new(1, 0.5), &rule.scalars()).buffered,
                expected
            );
        }
    }
}
