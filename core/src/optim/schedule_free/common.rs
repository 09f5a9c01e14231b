//! Shared by the schedule-free rules: the weights of the average x.

use crate::math;
use crate::rule::mode::Mode;
use crate::rule::{ScalarState, StepContext};

/// Names of the group's per-step scalars.
pub(crate) const SCALARS: &[&str] = &["scheduled_lr", "lr_max", "weight_sum"];
/// Their initial values.
pub(crate) const START: ScalarState = [0.0, -1.0, 0.0, 0.0];

/// How a step is weighted in the average.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weighting {
    pub(crate) r: f64,
    pub(crate) weight_lr_power: f64,
}

impl Weighting {
    fn weight(self, step: &StepContext, lr_max: f64) -> f64 {
        math::pow(step.t_f64(), self.r) * math::pow(lr_max, self.weight_lr_power)
    }

    /// Adds a step at learning rate `lr` to the scalars.
    pub(crate) fn advance(self, step: &StepContext, lr: f64, scalars: &mut ScalarState) {
        let [scheduled_lr, lr_max, weight_sum, _] = scalars;
        *scheduled_lr = lr;
        // As Python's max(lr, lr_max).
        *lr_max = if *lr_max > lr { *lr_max } else { lr };
        *weight_sum += self.weight(step, *lr_max);
    }

    /// How far x moves towards z: the step's share of the sum of weights, or 0 while that sum is 0.
    pub(crate) fn averaging_weight(
        self,
        step: &StepContext,
        &[_, lr_max, weight_sum, _]: &ScalarState,
    ) -> f64 {
        if weight_sum == 0.0 { 0.0 } else { self.weight(step, lr_max) / weight_sum }
    }
}

/// The weight of z in the interpolation that turns y into x, to evaluate, or x back into y, to train.
pub(crate) fn conversion(to: Mode, momentum: f64) -> f64 {
    match to {
        Mode::Eval => 1.0 - 1.0 / momentum,
        Mode::Train => 1.0 - momentum,
    }
}

/// The scale of a linear warm-up. With `warmup_steps` between 0 and 1, it is above 1 at the first step.
pub(crate) fn warmup(step: &StepContext, warmup_steps: f64) -> f64 {
    let t = step.t_f64();
    if t - 1.0 < warmup_steps { t / warmup_steps } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_weighs_steps_by_the_largest_rate_so_far() {
        let weighting = Weighting { r: 1.0, weight_lr_power: 2.0 };
        let (mut scalars, mut shares) = (START, [0.0; 3]);
        for (t, lr) in [(1, 0.0), (2, 0.5), (3, 0.25)] {
            let step = StepContext::new(t, lr);
            weighting.advance(&step, lr, &mut scalars);
            shares[t as usize - 1] = weighting.averaging_weight(&step, &scalars);
        }
        // Weights 1·0², 2·½², 3·½².
        assert_eq!(shares, [0.0, 1.0, 0.6]);
        assert_eq!(scalars, [0.25, 0.5, 1.25, 0.0]);
    }

    #[test]
    fn warmup_reaches_the_full_rate_at_its_last_step() {
        let scale = |t, steps| warmup(&StepContext::new(t, 1.0), steps);
        assert_eq!([1, 4, 5].map(|t| scale(t, 4.0)), [0.25, 1.0, 1.0]);
        assert_eq!(scale(1, 0.0), 1.0);
        // (k + 1) / 0.25 as long as k < 0.25, and / 2.5 as long as k < 2.5
        assert_eq!([1, 2].map(|t| scale(t, 0.25)), [4.0, 1.0]);
        assert_eq!([1, 3, 4].map(|t| scale(t, 2.5)), [0.4, 1.2, 1.0]);
    }
}
