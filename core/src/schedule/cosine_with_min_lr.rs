use super::{
    Schedule, ScheduleFacts, ScheduleFloat, check_cycles, cosine_wave, max, progress, warmup,
};
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up from 0, then a cosine between the rate and a fraction of it.
///
/// # Formula
/// λ(t) = t / warmup for t < warmup, then max(0, ½ (1 + cos(2π · num_cycles · p)) · (1 − min) + min),
/// p = (t − warmup) / max(1, training − warmup), min = min_lr_rate or min_lr / lr_init. The rate is `base_lr` · λ(t).
/// Past the end it rises again.
///
/// # Source
/// `transformers.get_cosine_with_min_lr_schedule_with_warmup`. `lr_init` is the optimizer's own `lr`, also for groups
/// that have another.
///
/// # Errors
/// Both or neither of `min_lr` and `min_lr_rate`; `min_lr` where `lr_init` is 0, by which the reference divides; an
/// infinite `num_cycles`.
///
/// # Example
/// ```
/// use bitstep::schedule::{CosineWithMinLr, Schedule};
/// let s = CosineWithMinLr { num_training_steps: 4, min_lr_rate: Some(0.5), ..CosineWithMinLr::DEFAULT };
/// assert_eq!([0, 2, 4].map(|t| s.lr(1.0, t)), [1.0, 0.75, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineWithMinLr {
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
    /// The optimizer's `lr`.
    pub lr_init: f64,
}

impl CosineWithMinLr {
    /// The reference's defaults.
    pub const DEFAULT: Self = CosineWithMinLr {
        num_warmup_steps: 0,
        num_training_steps: 0,
        num_cycles: 0.5,
        min_lr: None,
        min_lr_rate: None,
        lr_init: 1e-3,
    };
}

impl Default for CosineWithMinLr {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for CosineWithMinLr {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
        f.f64("num_cycles", &mut self.num_cycles);
        f.opt_f64("min_lr", &mut self.min_lr);
        f.opt_f64("min_lr_rate", &mut self.min_lr_rate);
        f.f64("lr_init", &mut self.lr_init);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps", "num_training_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for CosineWithMinLr {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let wave = || {
            let p: F = progress(step, self.num_warmup_steps, self.num_training_steps);
            let min = min_rate(self.min_lr, self.min_lr_rate, self.lr_init);
            max(F::ZERO, cosine_wave(self.num_cycles, p) * (F::ONE - min) + min)
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(wave)
    }
}

impl ScheduleFacts for CosineWithMinLr {
    fn check(&self) -> Result<(), Error> {
        check_cycles(self.num_cycles)?;
        one_minimum(self.min_lr, self.min_lr_rate, self.lr_init)
    }
}

/// `Ok` if exactly one of the two is given, and `lr_init` is not 0 where it divides `min_lr`.
pub(super) fn one_minimum(
    min_lr: Option<f64>,
    min_lr_rate: Option<f64>,
    lr_init: f64,
) -> Result<(), Error> {
    if min_lr.is_some() == min_lr_rate.is_some() {
        return Err(Error::InvalidArgument {
            argument: "min_lr",
            expected: "either min_lr or min_lr_rate",
        });
    }
    ensure_range(min_lr.is_none() || lr_init != 0.0, "lr", lr_init, "lr != 0")
}

/// The lowest rate as a fraction of the group's.
pub(super) fn min_rate<F: ScheduleFloat>(
    min_lr: Option<f64>,
    min_lr_rate: Option<f64>,
    lr_init: f64,
) -> F {
    let [min_lr, min_lr_rate] = [min_lr, min_lr_rate].map(|x| x.map(F::of));
    min_lr.map(|m| m / F::of(lr_init)).or(min_lr_rate).unwrap_or(F::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    const QUARTER: CosineWithMinLr = CosineWithMinLr {
        num_warmup_steps: 2,
        num_training_steps: 10,
        num_cycles: 0.5,
        min_lr: None,
        min_lr_rate: Some(0.25),
        lr_init: 1e-3,
    };

    #[test]
    fn rate_follows_the_formula() {
        // 8 · 1/2 on the last step of warm-up, 8 · 1, p = ½: 8 · (½·¾ + ¼), p = 1: 8 · ¼
        assert_eq!([1, 2, 6, 10].map(|t| QUARTER.lr(8.0, t)), [4.0, 8.0, 5.0, 2.0]);
        // past the end p = 1½: as at ½
        assert_near(QUARTER.lr(8.0, 14), 5.0);
    }

    #[test]
    fn min_lr_is_a_share_of_the_optimizers_rate() {
        // ½/2 = ¼, also for a group with the rate 8
        let s = CosineWithMinLr { min_lr: Some(0.5), min_lr_rate: None, lr_init: 2.0, ..QUARTER };
        assert_eq!([6, 10].map(|t| s.lr(8.0, t)), [5.0, 2.0]);
    }

    #[test]
    fn negative_minimum_is_cut_off_at_0() {
        let s = CosineWithMinLr { min_lr_rate: Some(-1.0), ..QUARTER };
        // p = ¼: 8 · (½ (1 + √½) · 2 − 1) = 8√½; p = 1: max(0, 0·2 − 1)
        assert_near(s.lr(8.0, 4), 5.656_854_249_492_38);
        assert_eq!(s.lr(8.0, 10), 0.0);
    }

    #[test]
    fn both_or_no_minimum_is_refused() {
        for (min_lr, min_lr_rate) in [(None, None), (Some(0.1), Some(0.1))] {
            let s = CosineWithMinLr { min_lr, min_lr_rate, ..QUARTER };
            let expected = "either min_lr or min_lr_rate";
            assert_eq!(s.check(), Err(Error::InvalidArgument { argument: "min_lr", expected }));
        }
        assert_eq!(QUARTER.check(), Ok(()));
    }
}
