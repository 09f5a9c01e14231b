use super::cosine_with_min_lr::{min_rate, one_minimum};
use super::{Schedule, ScheduleFacts, ScheduleFloat, check_cycles, cosine_wave, max};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// A warm-up that does not begin at 0, then [`CosineWithMinLr`](super::CosineWithMinLr)'s cosine, one step ahead.
///
/// # Formula
/// λ(t) = (t + 1) / warmup for t < warmup, or with a `warmup_lr_rate` w: w + (1 − w) · t / max(1, warmup − 1);
/// then max(0, ½ (1 + cos(2π · num_cycles · p)) · (1 − min) + min), p = (t − warmup + 1) / max(1, training − warmup),
/// min = min_lr_rate or min_lr / lr_init. The rate is `base_lr` · λ(t).
/// The minimum is reached at step training − 1; from then on the rate rises again.
///
/// # Source
/// `transformers.get_cosine_with_min_lr_schedule_with_warmup_lr_rate`. `lr_init` is the optimizer's own `lr`, also for
/// groups that have another.
///
/// # Errors
/// Both or neither of `min_lr` and `min_lr_rate`; `min_lr` where `lr_init` is 0, by which the reference divides; an
/// infinite `num_cycles`.
///
/// # Example
/// ```
/// use bitstep::schedule::{CosineWarmupWithMinLr, Schedule};
/// let s = CosineWarmupWithMinLr {
///     num_warmup_steps: 2, num_training_steps: 6, min_lr_rate: Some(0.5), ..CosineWarmupWithMinLr::DEFAULT
/// };
/// assert_eq!([0, 1, 3, 5].map(|t| s.lr(1.0, t)), [0.5, 1.0, 0.75, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineWarmupWithMinLr {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps of the whole training.
    pub num_training_steps: u64,
    /// Periods of the cosine after warm-up; with 0.5 the rate only falls.
    pub num_cycles: f64,
    /// The lowest rate, for a group with the rate `lr_init`.
    pub min_lr: Option<f64>,
    /// The lowest rate as a fraction of the group's.
    pub min_lr_rate: Option<f64>,
    /// The fraction of the group's rate at which warm-up begins; `None` for 1 / warmup.
    pub warmup_lr_rate: Option<f64>,
    /// The optimizer's `lr`.
    pub lr_init: f64,
}

impl CosineWarmupWithMinLr {
    /// The reference's defaults.
    pub const DEFAULT: Self = CosineWarmupWithMinLr {
        num_warmup_steps: 0,
        num_training_steps: 0,
        num_cycles: 0.5,
        min_lr: None,
        min_lr_rate: None,
        warmup_lr_rate: None,
        lr_init: 1e-3,
    };
}

impl Default for CosineWarmupWithMinLr {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for CosineWarmupWithMinLr {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
        f.f64("num_cycles", &mut self.num_cycles);
        f.opt_f64("min_lr", &mut self.min_lr);
        f.opt_f64("min_lr_rate", &mut self.min_lr_rate);
        f.opt_f64("warmup_lr_rate", &mut self.warmup_lr_rate);
        f.f64("lr_init", &mut self.lr_init);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps", "num_training_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for CosineWarmupWithMinLr {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let counts = [step, self.num_warmup_steps, self.num_training_steps];
        let [t, warmup, training] = counts.map(F::count);
        let factor = if step < self.num_warmup_steps {
            match self.warmup_lr_rate.map(F::of) {
                None => (t + F::ONE) / max(F::ONE, warmup),
                Some(w) => w + (F::ONE - w) * t / max(F::ONE, warmup - F::ONE),
            }
        } else {
            let p = (t - warmup + F::ONE) / max(F::ONE, training - warmup);
            let min = min_rate(self.min_lr, self.min_lr_rate, self.lr_init);
            max(F::ZERO, cosine_wave(self.num_cycles, p) * (F::ONE - min) + min)
        };
        base_lr * factor
    }
}

impl ScheduleFacts for CosineWarmupWithMinLr {
    fn check(&self) -> Result<(), Error> {
        check_cycles(self.num_cycles)?;
        one_minimum(self.min_lr, self.min_lr_rate, self.lr_init)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    const QUARTER: CosineWarmupWithMinLr = CosineWarmupWithMinLr {
        num_warmup_steps: 4,
        num_training_steps: 12,
        num_cycles: 0.5,
        min_lr: None,
        min_lr_rate: Some(0.25),
        warmup_lr_rate: None,
        lr_init: 1e-3,
    };

    #[test]
    fn rate_follows_the_formula() {
        // 8 · 1/4, 8 · 4/4 on the last step of warm-up, p = (7 − 4 + 1)/8 = ½: 8 · (½·¾ + ¼)
        assert_eq!([0, 3, 7].map(|t| QUARTER.lr(8.0, t)), [2.0, 8.0, 5.0]);
        // p = 1/8: cos ⅛π = 0.923 879 532 511 286 756, so 8 · (0.961 939 766 255 643 378 · ¾ + ¼)
        assert_near(QUARTER.lr(8.0, 4), 7.771_638_597_533_86);
    }

    #[test]
    fn rate_is_lowest_one_step_before_the_end_and_rises_then() {
        // p = 1: 8 · ¼
        assert_eq!(QUARTER.lr(8.0, 11), 2.0);
        // p = 9/8: 8 · (½ (1 − 0.923 879 532 511 286 756) · ¾ + ¼)
        assert_near(QUARTER.lr(8.0, 12), 2.228_361_402_466_14);
    }

    #[test]
    fn warmup_lr_rate_is_where_warmup_begins() {
        let s = CosineWarmupWithMinLr { warmup_lr_rate: Some(0.5), ..QUARTER };
        // ½ + ½ · 0/3, ½ + ½ · 3/3
        assert_eq!([0, 3].map(|t| s.lr(8.0, t)), [4.0, 8.0]);
        // 8 · (½ + ½ · 1/3) = 16/3
        assert_near(s.lr(8.0, 1), 16.0 / 3.0);
    }

    #[test]
    fn both_or_no_minimum_is_refused() {
        for (min_lr, min_lr_rate) in [(None, None), (Some(0.1), Some(0.1))] {
            let s = CosineWarmupWithMinLr { min_lr, min_lr_rate, ..QUARTER };
            let expected = "either min_lr or min_lr_rate";
            assert_eq!(s.check(), Err(Error::InvalidArgument { argument: "min_lr", expected }));
        }
        assert_eq!(QUARTER.check(), Ok(()));
    }
}
