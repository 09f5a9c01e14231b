use crate::error::ensure_range;
use core::f64::consts::PI;

use super::{Schedule, ScheduleFacts, ScheduleFloat};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// Half cosines from the rate to `eta_min`, repeatedly, each `t_mult` times as long as the one before.
///
/// # Formula
/// eta_min + (base_lr − eta_min) · (1 + cos(π · T_cur / T_i)) / 2, where T_cur is the number of steps since the last
/// restart, and T_i the length of the current half cosine: T_0, T_0 · t_mult, T_0 · t_mult², …
///
/// # Source
/// `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`. Resumed from a `last_epoch`, the reference makes at most one
/// restart before it continues, so that it differs from a run without interruption (unless `t_mult` is 1).
///
/// # Errors
/// `t_0` or `t_mult` 0.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchCosineAnnealingWarmRestarts};
/// let s = TorchCosineAnnealingWarmRestarts { t_0: 2, t_mult: 2, ..TorchCosineAnnealingWarmRestarts::DEFAULT };
/// assert_eq!([0, 1, 2, 4, 6].map(|t| s.lr(1.0, t)), [1.0, 0.5, 1.0, 0.5, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchCosineAnnealingWarmRestarts {
    /// `T_0`: steps until the first restart.
    pub t_0: u64,
    /// `T_mult`: by how much each half cosine is longer than the one before.
    pub t_mult: u64,
    /// The lowest rate.
    pub eta_min: f64,
    /// The step after which training is resumed; −1 for its start.
    pub last_epoch: i64,
}

impl TorchCosineAnnealingWarmRestarts {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        TorchCosineAnnealingWarmRestarts { t_0: 1, t_mult: 1, eta_min: 0.0, last_epoch: -1 };
}

impl Default for TorchCosineAnnealingWarmRestarts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchCosineAnnealingWarmRestarts {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("T_0", &mut self.t_0);
        f.u64("T_mult", &mut self.t_mult);
        f.f64("eta_min", &mut self.eta_min);
        f.i64("last_epoch", &mut self.last_epoch);
        f.ignored("verbose");
    }

    fn required(&self) -> &'static [&'static str] {
        &["T_0"]
    }
}

impl TorchCosineAnnealingWarmRestarts {
    /// (T_cur, T_i) at a step.
    fn position(&self, step: u64) -> (u64, u64) {
        let (mut cur, mut part) = (step, self.t_0);
        if let Ok(last) = u64::try_from(self.last_epoch) {
            let start = last + 1;
            cur = start;
            if cur >= part {
                cur = cur.checked_rem(part).unwrap_or(0);
                part = part.saturating_mul(self.t_mult);
            }
            cur = cur.saturating_add(step.saturating_sub(start));
        }
        if self.t_mult <= 1 {
            return (cur.checked_rem(part).unwrap_or(0), part);
        }
        while cur >= part && part > 0 {
            cur -= part;
            part = part.saturating_mul(self.t_mult);
        }
        (cur, part)
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchCosineAnnealingWarmRestarts {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let (cur, part) = self.position(step);
        let wave = F::ONE + (F::of(PI) * F::count(cur) / F::count(part)).cos();
        let eta_min = F::of(self.eta_min);
        eta_min + (base_lr - eta_min) * wave / F::of(2.0)
    }
}

impl ScheduleFacts for TorchCosineAnnealingWarmRestarts {
    fn check(&self) -> Result<(), Error> {
        ensure_range(self.t_0 > 0, "T_0", self.t_0 as f64, "T_0 >= 1")?;
        ensure_range(self.t_mult > 0, "T_mult", self.t_mult as f64, "T_mult >= 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    const DOUBLING: TorchCosineAnnealingWarmRestarts =
        TorchCosineAnnealingWarmRestarts { t_0: 4, t_mult: 2, eta_min: 0.0, last_epoch: -1 };

    #[test]
    fn rate_follows_the_formula() {
        // 8 · ½ (1 + cos ½π); step 4 is a restart with 8 steps: at 8 cos(4/8 π); step 12 the next, with 16
        assert_eq!(
            [0, 2, 4, 8, 12, 20].map(|t| DOUBLING.lr(8.0, t)),
            [8.0, 4.0, 8.0, 4.0, 8.0, 4.0]
        );
        // ½ (1 + √½) = 4 + 2√2; the last step before the restart: cos ¾π, 4 − 2√2
        assert_near(DOUBLING.lr(8.0, 1), 6.828_427_124_746_19);
        assert_near(DOUBLING.lr(8.0, 3), 1.171_572_875_253_81);
    }

    #[test]
    fn equal_parts_end_above_eta_min() {
        let s = TorchCosineAnnealingWarmRestarts { t_mult: 1, eta_min: 0.5, ..DOUBLING };
        // ½ + ½ · ½; step 4 001 is the first after a restart: ½ + ½ · ½ (1 + √½)
        assert_eq!([2, 4].map(|t| s.lr(1.0, t)), [0.75, 1.0]);
        assert_near(s.lr(1.0, 4001), 0.926_776_695_296_636_9);
    }

    #[test]
    fn resumed_schedule_has_restarted_once_at_most() {
        let s = TorchCosineAnnealingWarmRestarts { last_epoch: 9, ..DOUBLING };
        // Step 10 mod 4 = 2 of 8: 4 + 4 cos ¼π; without the interruption it would be 6 of 8.
        assert_near(s.lr(8.0, 10), 6.828_427_124_746_19);
        assert_near(DOUBLING.lr(8.0, 10), 1.171_572_875_253_81);
        assert_eq!(s.lr(8.0, 12), 4.0); // 4 of 8
    }

    #[test]
    fn no_steps_or_factor_are_refused() {
        let range = |argument, expected| Err(Error::OutOfRange { argument, value: 0.0, expected });
        let s = TorchCosineAnnealingWarmRestarts { t_0: 0, ..DOUBLING };
        assert_eq!(s.check(), range("T_0", "T_0 >= 1"));
        let s = TorchCosineAnnealingWarmRestarts { t_mult: 0, ..DOUBLING };
        assert_eq!(s.check(), range("T_mult", "T_mult >= 1"));
        assert_eq!(DOUBLING.check(), Ok(()));
    }

    #[test]
    fn resumed_schedule_counts_from_the_step_after_the_last() {
        // Step 10 mod 3 = 1 of 6.
        let s = TorchCosineAnnealingWarmRestarts { t_0: 3, last_epoch: 9, ..DOUBLING };
        assert_near(s.lr(8.0, 10), 7.464_101_615_137_754);
        assert_near(s.lr(8.0, 11), 6.0);
        // 9 mod 3: a restart.
        let s = TorchCosineAnnealingWarmRestarts { last_epoch: 8, ..s };
        assert_eq!(s.lr(8.0, 9), 8.0);
    }

    #[test]
    fn parts_of_no_steps_come_to_an_end() {
        assert!(TorchCosineAnnealingWarmRestarts { t_0: 0, ..DOUBLING }.lr(8.0_f64, 3).is_nan());
    }
}
