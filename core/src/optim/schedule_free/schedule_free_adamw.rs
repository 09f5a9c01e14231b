//! Schedule-free AdamW: the average of the iterates takes the place of a learning-rate schedule.

use super::common::{self as schedule_free, Weighting};
use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math;
use crate::rule::mode::Mode;
use crate::rule::{Rule, ScalarState, Scope, SlotInit, StepContext};

/// Schedule-free AdamW.
///
/// # Formula
/// ```text
/// η = lr · t / warmup_steps as long as t − 1 < warmup_steps, then lr
/// w = tʳ · (largest η so far)^weight_lr_power,   c = w / (sum of all w)
/// v ← β₂ v + (1 − β₂) g²
/// u = g / (√(v / (1 − β₂ᵗ)) + ε) + λ y
/// z ← z − η u
/// x ← (1 − c) x + c z
/// y ← (1 − β₁) z + β₁ x
/// ```
/// Gradients are taken at y, the parameter; x is the point to evaluate. x is not stored: it is y extrapolated away from
/// z, and [`Rule::convert_element`] converts between the two.
///
/// # Order of operations
/// ```text
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// u ← g / (√(v / (1 − β₂ᵗ)) + ε)
/// u ← u + λ · y
/// y ← lerp(y, z, c)
/// y ← y + (η (β₁ (1 − c) − 1)) · u
/// z ← z + (−η) · u
/// to evaluate: y ← lerp(y, z, 1 − 1/β₁)
/// to train:    x ← lerp(x, z, 1 − β₁)
/// ```
///
/// # Source
/// Defazio et al., "The Road Less Scheduled", 2024. Reference: `schedulefree.AdamWScheduleFree`
/// (`schedule_free_adamw`). Steps, weights and the largest rate are counted for the whole group, steps without a
/// gradient included; so is the t of the bias correction.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | | ≥ 0 | 2.5e-3 |
/// | `betas` | β₁, β₂ | [0, 1); β₁ > 0 to evaluate | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ, at y | ≥ 0 | 0 |
/// | `warmup_steps` | | | 0 |
/// | `r` | exponent of t in the weights | | 0 |
/// | `weight_lr_power` | exponent of the rate in the weights | | 2 |
/// | `foreach` | round β₂ to 16 bits where the parameter has 16 | | true |
///
/// (The reference checks none of them.)
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `z` | the parameter | where Adam without momentum would be |
/// | `exp_avg_sq` | 0 | v |
///
/// and for the group `k` (steps), `scheduled_lr` (η), `lr_max`, `weight_sum`.
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// At t = 1 the normalised gradient is ±1 and c = 1, so y = z = x:
/// ```
/// use bitstep::prelude::*;
/// let rule = ScheduleFreeAdamW { eps: 0.0, weight_decay: 0.25, ..ScheduleFreeAdamW::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?; // z starts as y
/// let mut y = [2.0];
/// rule.step(&mut state, 0.5, &mut y, &[-4.0])?;
/// assert_eq!((y[0], state.slots()[0][0]), (2.25, 2.25)); // 2 − 0.5 · (−1 + 0.25 · 2)
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleFreeAdamW {
    /// Learning rate.
    pub lr: f64,
    /// Where y lies between z and x; decay of the running average of the squared gradient.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay, taken at y.
    pub weight_decay: f64,
    /// Steps of linear warm-up to `lr`; between 0 and 1, the first step's rate is `lr / warmup_steps`.
    pub warmup_steps: f64,
    /// Exponent of t in the weight of a step.
    pub r: f64,
    /// Exponent of the largest rate so far in the weight of a step.
    pub weight_lr_power: f64,
    /// Round scalars as PyTorch's multi-tensor kernels do ([`ComputeFloat::foreach_scalar`]).
    pub foreach: Option<bool>,
}

impl ScheduleFreeAdamW {
    /// The reference's defaults.
    pub const DEFAULT: Self = ScheduleFreeAdamW {
        lr: 2.5e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.0,
        warmup_steps: 0.0,
        r: 0.0,
        weight_lr_power: 2.0,
        foreach: Some(true),
    };
}

impl Default for ScheduleFreeAdamW {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ScheduleFreeAdamW {
    fn weighting(&self) -> Weighting {
        Weighting { r: self.r, weight_lr_power: self.weight_lr_power }
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        beta2: S,
        one_minus_beta2: S,
        correction2: S,
        eps: S,
        weight_decay: S,
        decays: bool,
        averaging_weight: S,
        y_step: S,
        z_step: S,
    }
}

impl HyperParams for ScheduleFreeAdamW {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("warmup_steps", &mut self.warmup_steps);
        f.f64("r", &mut self.r);
        f.f64("weight_lr_power", &mut self.weight_lr_power);
        f.opt_bool("foreach", &mut self.foreach);
    }
}

impl Rule for ScheduleFreeAdamW {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "schedule_free_adamw";
    const SLOTS: &'static [&'static str] = &["z", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b11];
    const SCALAR_NAMES: &'static [&'static str] = schedule_free::SCALARS;
    const STEP_SCOPE: Scope = Scope::Group;
    const STEP_KEY: &'static str = "k";

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_betas(self.betas)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_not_negative("weight_decay", self.weight_decay)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot == 0 { SlotInit::CopyParam } else { SlotInit::Constant(0.0) }
    }

    fn scalars(&self) -> ScalarState {
        schedule_free::START
    }

    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        let lr = step.lr * schedule_free::warmup(step, self.warmup_steps);
        self.weighting().advance(step, lr, scalars);
    }

    fn coefs<C: ComputeFloat>(
        &self,
        step: &StepContext,
        scalars: &ScalarState,
    ) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let averaging_weight = self.weighting().averaging_weight(step, scalars);
        let [lr, ..] = *scalars;
        Coefs {
            beta2: C::foreach_scalar(beta2, self.foreach == Some(true)),
            one_minus_beta2: C::scalar(1.0 - beta2),
            correction2: C::scalar(1.0 - math::pow(beta2, step.t_f64())),
            eps: C::scalar(self.eps),
            weight_decay: C::scalar(self.weight_decay),
            decays: self.weight_decay != 0.0,
            averaging_weight: C::scalar(averaging_weight),
            y_step: C::scalar(lr * (beta1 * (1.0 - averaging_weight) - 1.0)),
            z_step: C::scalar(-lr),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, y: C, g: C, [z, v]: [C; 2]) -> (C, [C; 2]) {
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let u = g / v.div_scalar(k.correction2).sqrt().add_scalar(k.eps);
        let u = if k.decays { u.add_scaled(y, k.weight_decay) } else { u };
        let y = y.lerp(z, k.averaging_weight).add_scaled(u, k.y_step);
        (y, [z.add_scaled(u, k.z_step), v])
    }

    fn eval_weight(&self, to: Mode) -> Option<f64> {
        Some(schedule_free::conversion(to, self.betas.0))
    }

    #[inline(always)]
    fn convert_element<C: ComputeFloat>(weight: C::Scalar, p: C, [z, _]: [C; 2]) -> C {
        p.lerp(z, weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::ComputeFloat;
    use crate::float::Eager;
    use half::bf16;

    #[test]
    fn factor_is_rounded_as_foreach_does_where_it_is_asked_for() {
        for (foreach, expected) in [(None, false), (Some(false), false), (Some(true), true)] {
            let rule = ScheduleFreeAdamW { foreach, ..ScheduleFreeAdamW::default() };
            let coefs = rule.coefs::<Eager<bf16>>(&StepContext::new(1, 0.5), &rule.scalars());
            assert_eq!(coefs.beta2, Eager::<bf16>::foreach_scalar(0.999, expected));
        }
    }
}
