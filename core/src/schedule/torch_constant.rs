use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::Error;
use crate::error::ensure_unit;
use crate::hyper::{FieldVisitor, HyperParams};

/// A fraction of the rate for `total_iters` steps, then the full rate.
///
/// # Order of operations
/// Recursive: multiplied by `factor` at step 0 and by 1 / `factor` at step `total_iters`, which need not give back the
/// same value. With `total_iters` 0 the fraction stays.
///
/// # Source
/// `torch.optim.lr_scheduler.ConstantLR`.
///
/// # Errors
/// `factor` outside of [0, 1]. With `factor` 0, step `total_iters`, at which the reference divides by it.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchConstant};
/// let s = TorchConstant { factor: 0.5, total_iters: 2 };
/// assert_eq!([0, 1, 2, 3].map(|t| s.lr(1.0, t)), [0.5, 0.5, 1.0, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchConstant {
    /// The fraction.
    pub factor: f64,
    /// Steps until the full rate.
    pub total_iters: u64,
}

impl TorchConstant {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchConstant { factor: 1.0 / 3.0, total_iters: 5 };
}

impl Default for TorchConstant {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchConstant {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("factor", &mut self.factor);
        f.u64("total_iters", &mut self.total_iters);
        f.ignored("verbose");
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchConstant {
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, base_lr: F, lr: F, step: u64) -> F {
        self.next(base_lr, lr, step)
    }

    fn next(&self, _: F, lr: F, step: u64) -> F {
        let factor = F::of(self.factor);
        if step == 0 {
            lr * factor
        } else if step == self.total_iters {
            lr * (F::ONE / factor)
        } else {
            lr
        }
    }

    fn restart_in_sequence(&self, base_lr: F) -> F {
        let factor = F::of(self.factor);
        match self.total_iters {
            0 => base_lr * (factor + (F::ONE - factor)),
            _ => base_lr * factor,
        }
    }
}

impl ScheduleFacts for TorchConstant {
    fn check(&self) -> Result<(), Error> {
        ensure_unit("factor", self.factor)
    }

    fn last_step(&self) -> Option<u64> {
        if self.factor == 0.0 { self.total_iters.checked_sub(1) } else { None }
    }

    fn has_step(&self, step: u64) -> bool {
        self.last_step().is_none() || step != self.total_iters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::schedule::GroupScheduler;

    #[test]
    fn rate_follows_the_order_of_operations() {
        let s = TorchConstant { factor: 0.25, total_iters: 3 };
        // 8 · ¼ until step 2, then · 1/¼, once
        assert_eq!([0, 2, 3, 4, 99].map(|t| s.lr(8.0, t)), [2.0, 2.0, 8.0, 8.0, 8.0]);
    }

    #[test]
    fn share_without_steps_stays() {
        // Step 0 multiplies; no later step is step 0.
        let s = TorchConstant { factor: 0.25, total_iters: 0 };
        assert_eq!([0, 1, 99].map(|t| s.lr(8.0, t)), [2.0; 3]);
        // The closed form gives the full rate: 8 · (¼ + 1 · ¾)
        assert_eq!(s.restart_in_sequence(8.0), 8.0);
    }

    #[test]
    fn factor_0_ends_where_the_reference_divides_by_it() {
        let s = TorchConstant { factor: 0.0, total_iters: 2 };
        assert_eq!(s.check(), Ok(()));
        let mut lr = GroupScheduler::new(s, 8.0);
        assert_eq!((lr.lr(), lr.step()), (0.0, Ok(0.0)));
        assert!(matches!(lr.step(), Err(Error::InvalidArgument { argument: "step", .. })));
        assert_eq!(lr.lr(), 0.0);
        // Resumed behind it there is nothing to divide.
        let mut late = GroupScheduler::resume(s, 8.0, 8.0, 2);
        assert_eq!((late.lr(), late.step()), (8.0, Ok(8.0)));
    }

    #[test]
    fn factor_outside_of_0_to_1_is_refused() {
        for value in [-0.25, 1.25] {
            let s = TorchConstant { factor: value, total_iters: 3 };
            let expected = "0 <= value <= 1";
            assert_eq!(s.check(), Err(Error::OutOfRange { argument: "factor", value, expected }));
        }
        assert_eq!(TorchConstant::default().check(), Ok(()));
    }

    #[test]
    fn begun_again_it_multiplies_the_base_rate() {
        let s = TorchConstant { factor: 0.25, total_iters: 2 };
        assert_eq!(
            (
                s.restart_in_sequence(8.0),
                TorchConstant { total_iters: 0, ..s }.restart_in_sequence(8.0)
            ),
            (2.0, 8.0)
        );
    }
}
