use crate::error::ensure_range;
use core::f64::consts::PI;

use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// A cosine between the rate and `eta_min`: down in `t_max` steps, up again in as many, repeatedly.
///
/// # Formula
/// eta_min + (base_lr − eta_min) · (1 + cos(πt/T)) / 2, T = `t_max`.
///
/// # Order of operations
/// Recursive: (1 + cos(πt/T)) / (1 + cos(π(t − 1)/T)) · (lr − eta_min) + eta_min; on the first step of each rise, where
/// that would divide by 0, lr + (base_lr − eta_min) · (1 − cos(π/T)) / 2.
///
/// # Source
/// `torch.optim.lr_scheduler.CosineAnnealingLR`.
///
/// # Errors
/// `t_max` 0, by which the reference divides.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchCosineAnnealing};
/// let s = TorchCosineAnnealing { t_max: 2, eta_min: 0.0 };
/// assert_eq!([0, 2, 3].map(|t| s.lr(1.0, t)), [1.0, 0.0, 0.49999999999999994]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchCosineAnnealing {
    /// `T_max`: steps of half a period.
    pub t_max: u64,
    /// The lowest rate.
    pub eta_min: f64,
}

impl TorchCosineAnnealing {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchCosineAnnealing { t_max: 1, eta_min: 0.0 };
}

impl Default for TorchCosineAnnealing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchCosineAnnealing {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("T_max", &mut self.t_max);
        f.f64("eta_min", &mut self.eta_min);
        f.ignored("verbose");
    }

    fn required(&self) -> &'static [&'static str] {
        &["T_max"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchCosineAnnealing {
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, _: F, lr: F, _: u64) -> F {
        lr
    }

    fn next(&self, base_lr: F, lr: F, step: u64) -> F {
        let wave = self.t_max.saturating_mul(2);
        let before = step.checked_sub(1).unwrap_or(wave.saturating_sub(1));
        let [t, n] = [step, self.t_max].map(F::count);
        let [one, pi, eta_min] = [1.0, PI, self.eta_min].map(F::of);
        if before.checked_rem(wave) == Some(self.t_max) {
            return lr + (base_lr - eta_min) * (one - (pi / n).cos()) / F::of(2.0);
        }
        let height = |t: F| one + (pi * t / n).cos();
        height(t) / height(t - one) * (lr - eta_min) + eta_min
    }

    fn restart_in_sequence(&self, base_lr: F) -> F {
        let eta_min = F::of(self.eta_min);
        eta_min + (base_lr - eta_min) * F::of(1.0 + 1.0) / F::of(2.0)
    }
}

impl ScheduleFacts for TorchCosineAnnealing {
    fn check(&self) -> Result<(), Error> {
        ensure_range(self.t_max > 0, "T_max", self.t_max as f64, "T_max >= 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    #[test]
    fn rate_follows_the_order_of_operations() {
        let s = TorchCosineAnnealing { t_max: 2, eta_min: 0.0 };
        // 8; (1 + cos ½π)/(1 + 1) · 8; (1 + cos π)/(1 + cos ½π) · 4
        assert_eq!([0, 1, 2].map(|t| s.lr(8.0, t)), [8.0, 4.0, 0.0]);
    }

    #[test]
    fn rate_past_the_lowest_point_rises() {
        let s = TorchCosineAnnealing { t_max: 4, eta_min: 0.25 };
        // In closed form ¼ + (1.25 − ¼) · ½ (1 + cos ¼πt): ¼ + ½ at 2, ¼ at 4
        assert_near(s.lr(1.25, 2), 0.75);
        assert_near(s.lr(1.25, 4), 0.25);
        // one step on: ¼ + (1.25 − ¼) · (1 − √½)/2
        assert_near(s.lr(1.25, 5), 0.396_446_609_406_726_2);
    }

    #[test]
    fn no_steps_are_refused() {
        let s = TorchCosineAnnealing { t_max: 0, eta_min: 0.0 };
        let refused = Error::OutOfRange { argument: "T_max", value: 0.0, expected: "T_max >= 1" };
        assert_eq!(s.check(), Err(refused));
        assert_eq!(TorchCosineAnnealing::default().check(), Ok(()));
    }
}
