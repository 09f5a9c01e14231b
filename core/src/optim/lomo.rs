//! LOMO: stochastic gradient descent fused into the backward pass.

use crate::error::{Error, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::gradient::ClipGradNorm;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// LOMO: a step consumes one gradient and keeps no state, so that gradients need not be in memory together.
///
/// # Formula
/// ```text
/// g ← g / s                              s the loss scale, if there is one
/// g ← clamp(g, −v, v)                    if clip_grad_value is above 0
/// g ← g min(1, n / ‖all g / s‖)          if clip_grad_norm is set
/// p ← p − η λ p
/// p ← p − η g
/// ```
///
/// # Order of operations
/// ```text
/// c ← min(1 / (√Σ(√Σ(g / s)²)² + 1e-6) · n, 1)
/// g ← clamp(g / s, −v, v) · c
/// p ← p · (1 − η λ)
/// p ← p + (−η) · g
/// ```
/// All in `f32`, for `f64` parameters too. The norm is over all gradients, before they are clamped: the reference takes
/// it in the first of two backward passes; here it comes with the step ([`StepContext::grad_norm`]).
///
/// # Source
/// Lv et al., "Full Parameter Fine-tuning for Large Language Models with Limited Resources", 2023. Reference:
/// `lomo_optim.Lomo`. The loss scale is an extra argument of every step (`loss_scale`); with one, a step whose norm is
/// not finite changes nothing. Adjusting the scale is left to the caller ([`crate::gradient::LossScale`]; the reference
/// halves it at every overflow).
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | any | 1e-3 |
/// | `clip_grad_norm` | n | > 0, or none | none |
/// | `clip_grad_value` | v | any, or none | none |
/// | `weight_decay` | λ | any; above 0 it decays | 0 |
///
/// # State
/// None.
///
/// # Errors
/// `clip_grad_norm` at most 0; a step without the norm that it needs.
///
/// # Non-finite input
/// With a loss scale the step is skipped. Without one, a NaN or infinite gradient makes its element non-finite; under
/// `clip_grad_norm`, a NaN makes everything NaN.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = Lomo { clip_grad_norm: Some(1.0), weight_decay: 0.5, ..Lomo::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 0])?; // no slots
/// let mut p = [2.0];
/// let step = StepContext { grad_norm: Some(4.0), ..StepContext::new(1, 0.5) };
/// rule.step_with(&mut state, &step, &mut p, &[4.0])?;
/// assert!((p[0] - 1.0).abs() < 1e-6); // 2 · (1 − 0.25) − 0.5 · 4 / 4
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lomo {
    /// Learning rate.
    pub lr: f64,
    /// The largest norm over all gradients.
    pub clip_grad_norm: Option<f64>,
    /// The largest absolute value of a gradient.
    pub clip_grad_value: Option<f64>,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
}

impl Lomo {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        Lomo { lr: 1e-3, clip_grad_norm: None, clip_grad_value: None, weight_decay: 0.0 };
}

impl Default for Lomo {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// How a gradient is unscaled, clamped, and clipped by the norm.
    pub(super) struct Clip<S> {
        loss_scale: S,
        limit: S,
        coefficient: S,
        scales: bool,
        clamps: bool,
        multiplies: bool,
    }
}

impl<S: ComputeFloat<Scalar = S>> Clip<S> {
    pub(super) fn new(
        loss_scale: Option<f64>,
        norm: Option<f64>,
        clip_grad_norm: Option<f64>,
        clip_grad_value: Option<f64>,
    ) -> Self {
        let limit = clip_grad_value.filter(|&v| v > 0.0);
        let coefficient = clip_grad_norm.zip(norm).map(|(max_norm, norm)| {
            ClipGradNorm { max_norm, ..ClipGradNorm::default() }.coefficient(norm, Dtype::F32)
        });
        Clip {
            loss_scale: S::from_f64(loss_scale.unwrap_or(1.0)),
            limit: S::from_f64(limit.unwrap_or(0.0)),
            coefficient: S::from_f64(coefficient.unwrap_or(1.0)),
            scales: loss_scale.is_some(),
            clamps: limit.is_some(),
            multiplies: coefficient.is_some(),
        }
    }

    #[inline(always)]
    pub(super) fn apply<C: ComputeFloat<Scalar = S>>(&self, g: C) -> C {
        let g = if self.scales { g.div_scalar(self.loss_scale) } else { g };
        let limit = C::round_from(self.limit);
        let g = if self.clamps { g.maximum(-limit).minimum(limit) } else { g };
        if self.multiplies { g.mul_scalar(self.coefficient) } else { g }
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        clip: Clip<S>,
        decay: S,
        minus_lr: S,
        decays: bool,
        skips: bool,
    }
}

/// The loss scale among the extra arguments of the step.
fn loss_scale(extra: &[(&str, f64)]) -> Option<f64> {
    extra.iter().find(|(name, _)| *name == "loss_scale").map(|&(_, s)| s)
}

impl HyperParams for Lomo {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.opt_f64("clip_grad_norm", &mut self.clip_grad_norm);
        f.opt_f64("clip_grad_value", &mut self.clip_grad_value);
        f.f64("weight_decay", &mut self.weight_decay);
        f.ignored("loss_scale_args"); // the scale itself is an extra argument
    }
}

impl Rule for Lomo {
    type Slots<T> = [T; 0];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "lomo";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &[];
    const SLOT_MASKS: &'static [u32] = &[0];
    const EXTRA_ARGS: &'static [&'static str] = &["loss_scale"];

    fn check(&self) -> Result<(), Error> {
        let norm = self.clip_grad_norm.unwrap_or(1.0);
        // As in the reference, NaN passes.
        ensure_range(norm > 0.0 || norm.is_nan(), "clip_grad_norm", norm, "> 0")
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn grad_norm_divisor(&self, extra: &[(&str, f64)]) -> Option<f64> {
        let scale = loss_scale(extra);
        if self.clip_grad_norm.is_some() { Some(scale.unwrap_or(1.0)) } else { scale }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let loss_scale = loss_scale(step.extra);
        let norm = step.grad_norm;
        Coefs {
            clip: Clip::new(loss_scale, norm, self.clip_grad_norm, self.clip_grad_value),
            decay: C::scalar(1.0 - step.lr * self.weight_decay),
            minus_lr: C::scalar(-step.lr),
            decays: self.weight_decay > 0.0,
            skips: loss_scale.is_some() && norm.is_some_and(|n| !n.is_finite()),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, old: C, g: C, _: [C; 0]) -> (C, [C; 0]) {
        let p = if k.decays { old.mul_scalar(k.decay) } else { old };
        let p = p.add_scaled(k.clip.apply(g), k.minus_lr);
        (if k.skips { old } else { p }, [])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_decay_the_parameter_is_not_multiplied() {
        for (weight_decay, expected) in [(0.0, false), (0.5, true)] {
            let rule = Lomo { weight_decay, ..Lomo::default() };
            assert_eq!(
                rule.coefs::<f32>(&StepContext::new(1, 0.5), &rule.scalars()).decays,
                expected
            );
        }
    }
}
