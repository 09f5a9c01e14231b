use super::keras::{Decay, PolynomialDecay};
use super::{Schedule, ScheduleFacts, ScheduleFloat, WarmUp};
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up, then polynomial decay to a fraction of the rate: the schedule of Transformers' TensorFlow models.
///
/// # Formula
/// init_lr · t / warmup for t < warmup, then (init_lr − end) · (1 − p)^power + end,
/// p = min(1, (t − warmup) / (train − warmup)), end = init_lr · min_lr_ratio; in f32. The group's own rate is not used.
///
/// # Source
/// The second value returned by `transformers.optimization_tf.create_optimizer`.
///
/// # Example
/// ```
/// use bitstep::schedule::{CreateOptimizerSchedule, Schedule};
/// let s = CreateOptimizerSchedule {
///     init_lr: 1.0, num_train_steps: 6, num_warmup_steps: 2, ..CreateOptimizerSchedule::DEFAULT
/// };
/// assert_eq!([0, 1, 2, 4, 6, 7].map(|t| s.lr(0.0, t)), [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CreateOptimizerSchedule {
    /// The rate at the end of warm-up.
    pub init_lr: f64,
    /// Steps of the whole training.
    pub num_train_steps: u64,
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// The rate at the end as a fraction of `init_lr`.
    pub min_lr_ratio: f64,
    /// The decay's exponent.
    pub power: f64,
}

impl CreateOptimizerSchedule {
    /// The reference's defaults.
    pub const DEFAULT: Self = CreateOptimizerSchedule {
        init_lr: 1e-3,
        num_train_steps: 0,
        num_warmup_steps: 0,
        min_lr_ratio: 0.0,
        power: 1.0,
    };
}

impl Default for CreateOptimizerSchedule {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for CreateOptimizerSchedule {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("init_lr", &mut self.init_lr);
        f.u64("num_train_steps", &mut self.num_train_steps);
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.f64("min_lr_ratio", &mut self.min_lr_ratio);
        f.f64("power", &mut self.power);
        // Arguments of the optimizer that the function also makes.
        for other in [
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
            "adam_clipnorm",
            "adam_global_clipnorm",
            "weight_decay_rate",
            "include_in_weight_decay",
        ] {
            f.ignored(other);
        }
    }

    fn required(&self) -> &'static [&'static str] {
        &["init_lr", "num_train_steps", "num_warmup_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for CreateOptimizerSchedule {
    fn lr(&self, _: F, step: u64) -> F {
        let decay = PolynomialDecay {
            initial_learning_rate: self.init_lr,
            decay_steps: self.num_train_steps as f64 - self.num_warmup_steps as f64,
            end_learning_rate: self.init_lr * self.min_lr_ratio,
            power: self.power,
            cycle: false,
        };
        let warm_up = WarmUp {
            initial_learning_rate: self.init_lr,
            decay_schedule_fn: decay,
            warmup_steps: self.num_warmup_steps,
            power: 1.0,
        };
        F::from_single(warm_up.rate(step))
    }
}

impl ScheduleFacts for CreateOptimizerSchedule {}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: CreateOptimizerSchedule = CreateOptimizerSchedule {
        init_lr: 0.5,
        num_train_steps: 10,
        num_warmup_steps: 2,
        min_lr_ratio: 0.25,
        power: 1.0,
    };

    #[test]
    fn rate_follows_the_formula() {
        // ½ · 1/2 on the last step of warm-up; end = ½ · ¼ = ⅛, ½ − ⅛ = ⅜: ⅜ + ⅛, p = 4/8: ⅜ · ½ + ⅛
        assert_eq!([0, 1, 2, 6].map(|t| QUARTER.lr(9.0, t)), [0.0, 0.25, 0.5, 0.3125]);
        // p = 7/8: ⅜ · ⅛ + ⅛, then the end
        assert_eq!([9, 10, 100].map(|t| QUARTER.lr(9.0, t)), [0.171875, 0.125, 0.125]);
    }

    #[test]
    fn power_bends_the_decay_but_not_warmup() {
        let s = CreateOptimizerSchedule { power: 2.0, ..QUARTER };
        // ½ · 1/2; ⅜ · ½² + ⅛
        assert_eq!([1, 6].map(|t| s.lr(9.0, t)), [0.25, 0.21875]);
    }

    #[test]
    fn rate_without_warmup_is_whole_from_the_start() {
        let s = CreateOptimizerSchedule { num_warmup_steps: 0, ..QUARTER };
        // ⅜ + ⅛; p = 5/10: ⅜ · ½ + ⅛
        assert_eq!([0, 5].map(|t| s.lr(9.0, t)), [0.5, 0.3125]);
    }
}
