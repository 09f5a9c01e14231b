//! Schedule-free SGD: the average of the iterates takes the place of a learning-rate schedule.

use super::common::{self as schedule_free, Weighting};
use crate::error::{Error, ensure_not_negative, ensure_range};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::mode::Mode;
use crate::rule::{Rule, ScalarState, Scope, SlotInit, StepContext};

/// Schedule-free SGD.
///
/// # Formula
/// ```text
/// η = lr · t / warmup_steps as long as t − 1 < warmup_steps, then lr
/// w = tʳ · (largest η so far)^weight_lr_power,   c = w / (sum of all w)
/// g ← g + λ y
/// z ← z − η g
/// x ← (1 − c) x + c z
/// y ← (1 − μ) z + μ x
/// ```
/// Gradients are taken at y, the parameter; x is the point to evaluate. x is not stored: it is y extrapolated away from
/// z, and [`Rule::convert_element`] converts between the two.
///
/// # Order of operations
/// ```text
/// g ← g + λ · y
/// y ← lerp(y, z, c)
/// y ← y + (η (μ (1 − c) − 1)) · g
/// z ← z + (−η) · g
/// to evaluate: y ← lerp(y, z, 1 − 1/μ)
/// to train:    x ← lerp(x, z, 1 − μ)
/// ```
///
/// # Source
/// Defazio et al., "The Road Less Scheduled", 2024. Reference: `schedulefree.SGDScheduleFree` (`schedule_free_sgd`).
/// Steps, weights and the largest rate are counted for the whole group, steps without a gradient included.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | | ≥ 0 | 1.0 |
/// | `momentum` | μ | (0, 1) | 0.9 |
/// | `weight_decay` | λ, at y | ≥ 0 | 0 |
/// | `warmup_steps` | | | 0 |
/// | `r` | exponent of t in the weights | | 0 |
/// | `weight_lr_power` | exponent of the rate in the weights | | 2 |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `z` | the parameter | where plain SGD would be |
///
/// and for the group `k` (steps), `scheduled_lr` (η), `lr_max`, `weight_sum`.
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element NaN or infinite permanently.
///
/// # Example
/// At t = 1 the first step is all of the average: c = 1, and y = z = x.
/// ```
/// use bitstep::prelude::*;
/// let rule = ScheduleFreeSgd { momentum: 0.5, ..ScheduleFreeSgd::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64])?; // z starts as y
/// let mut y = [1.0];
/// rule.step(&mut state, 0.5, &mut y, &[1.0])?;
/// assert_eq!((y[0], state.slots()[0][0]), (0.5, 0.5));
/// // Then c = ½: y ← lerp(0.5, 0.5, ½) − 0.5 · 0.75 · 1, z ← 0.5 − 0.5 · 1.
/// rule.step(&mut state, 0.5, &mut y, &[1.0])?;
/// assert_eq!((y[0], state.slots()[0][0]), (0.125, 0.0));
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleFreeSgd {
    /// Learning rate.
    pub lr: f64,
    /// Where y lies between z and x.
    pub momentum: f64,
    /// Weight decay, taken at y.
    pub weight_decay: f64,
    /// Steps of linear warm-up to `lr`; between 0 and 1, the first step's rate is `lr / warmup_steps`.
    pub warmup_steps: f64,
    /// Exponent of t in the weight of a step.
    pub r: f64,
    /// Exponent of the largest rate so far in the weight of a step.
    pub weight_lr_power: f64,
}

impl ScheduleFreeSgd {
    /// The reference's defaults.
    pub const DEFAULT: Self = ScheduleFreeSgd {
        lr: 1.0,
        momentum: 0.9,
        weight_decay: 0.0,
        warmup_steps: 0.0,
        r: 0.0,
        weight_lr_power: 2.0,
    };
}

impl Default for ScheduleFreeSgd {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ScheduleFreeSgd {
    fn weighting(&self) -> Weighting {
        Weighting { r: self.r, weight_lr_power: self.weight_lr_power }
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        decays: bool,
        averaging_weight: S,
        y_step: S,
        z_step: S,
    }
}

impl HyperParams for ScheduleFreeSgd {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("momentum", &mut self.momentum);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("warmup_steps", &mut self.warmup_steps);
        f.f64("r", &mut self.r);
        f.f64("weight_lr_power", &mut self.weight_lr_power);
        f.ignored("foreach");
    }
}

impl Rule for ScheduleFreeSgd {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "schedule_free_sgd";
    const SLOTS: &'static [&'static str] = &["z"];
    const SLOT_MASKS: &'static [u32] = &[0b1];
    const SCALAR_NAMES: &'static [&'static str] = schedule_free::SCALARS;
    const STEP_SCOPE: Scope = Scope::Group;
    const STEP_KEY: &'static str = "k";

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        let inside = self.momentum > 0.0 && self.momentum < 1.0;
        ensure_range(inside, "momentum", self.momentum, "0 < value < 1")
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::CopyParam
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
        let averaging_weight = self.weighting().averaging_weight(step, scalars);
        let [lr, ..] = *scalars;
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            decays: self.weight_decay != 0.0,
            averaging_weight: C::scalar(averaging_weight),
            y_step: C::scalar(lr * (self.momentum * (1.0 - averaging_weight) - 1.0)),
            z_step: C::scalar(-lr),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, y: C, g: C, [z]: [C; 1]) -> (C, [C; 1]) {
        let g = if k.decays { g.add_scaled(y, k.weight_decay) } else { g };
        let y = y.lerp(z, k.averaging_weight).add_scaled(g, k.y_step);
        (y, [z.add_scaled(g, k.z_step)])
    }

    fn eval_weight(&self, to: Mode) -> Option<f64> {
        Some(schedule_free::conversion(to, self.momentum))
    }

    #[inline(always)]
    fn convert_element<C: ComputeFloat>(weight: C::Scalar, p: C, [z]: [C; 1]) -> C {
        p.lerp(z, weight)
    }
}
