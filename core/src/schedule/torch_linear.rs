use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate, min};
use crate::Error;
use crate::error::{ensure_range, ensure_unit};
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear from one fraction of the rate to another, then constant.
///
/// # Order of operations
/// Recursive: at step 0 lr · start, then lr · (1 + (end − start) / (n·start + (t − 1)·(end − start))) up to
/// t = n = `total_iters`; start = `start_factor`, end = `end_factor`.
///
/// # Source
/// `torch.optim.lr_scheduler.LinearLR`.
///
/// # Errors
/// `start_factor` outside of (0, 1], `end_factor` outside of [0, 1].
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchLinear};
/// let s = TorchLinear { start_factor: 0.5, end_factor: 1.0, total_iters: 2 };
/// assert_eq!([0, 1, 2, 3].map(|t| s.lr(1.0, t)), [0.5, 0.75, 0.75 * (1.0 + 0.5 / 1.5), 0.75 * (1.0 + 0.5 / 1.5)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchLinear {
    /// The fraction at step 0.
    pub start_factor: f64,
    /// The fraction from step `total_iters` on.
    pub end_factor: f64,
    /// Steps from the first fraction to the last.
    pub total_iters: u64,
}

impl TorchLinear {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        TorchLinear { start_factor: 1.0 / 3.0, end_factor: 1.0, total_iters: 5 };
}

impl Default for TorchLinear {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchLinear {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("start_factor", &mut self.start_factor);
        f.f64("end_factor", &mut self.end_factor);
        f.u64("total_iters", &mut self.total_iters);
        f.ignored("verbose");
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchLinear {
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, _: F, lr: F, step: u64) -> F {
        if step == 0 { lr * F::of(self.start_factor) } else { lr }
    }

    fn next(&self, _: F, lr: F, step: u64) -> F {
        let start = F::of(self.start_factor);
        if step == 0 {
            return lr * start;
        }
        if step > self.total_iters {
            return lr;
        }
        let change = F::of(self.end_factor) - start;
        let before = F::count(self.total_iters) * start + F::count(step - 1) * change;
        lr * (F::ONE + change / before)
    }

    fn restart_in_sequence(&self, base_lr: F) -> F {
        // NaN for `total_iters` 0, where the reference divides by 0.
        let n = F::count(self.total_iters);
        base_lr * (F::of(self.start_factor) + min(n, F::ZERO) / n)
    }
}

impl ScheduleFacts for TorchLinear {
    fn check(&self) -> Result<(), Error> {
        let (start, end) = (self.start_factor, self.end_factor);
        ensure_range(start > 0.0 && start <= 1.0, "start_factor", start, "0 < start_factor <= 1")?;
        ensure_unit("end_factor", end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    #[test]
    fn rate_follows_the_order_of_operations() {
        let s = TorchLinear { start_factor: 0.5, end_factor: 1.0, total_iters: 2 };
        // 8 · ½; 4 · (1 + ½/(2·½ + 0))
        assert_eq!([0, 1].map(|t| s.lr(8.0, t)), [4.0, 6.0]);
        // 6 · (1 + ½/(1 + ½)) on the last step, held after it
        assert_near(s.lr(8.0, 2), 8.0);
        assert_eq!(s.lr(8.0, 99), s.lr(8.0, 2));
    }

    #[test]
    fn rate_may_fall_to_0() {
        let s = TorchLinear { start_factor: 1.0, end_factor: 0.0, total_iters: 4 };
        // 8 · (1 − 1/4); the last step: · (1 − 1/(4 − 3)) = 0
        assert_eq!([0, 1, 4, 5].map(|t| s.lr(8.0, t)), [8.0, 6.0, 0.0, 0.0]);
        // 6 · (1 − 1/(4 − 1))
        assert_near(s.lr(8.0, 2), 4.0);
    }

    #[test]
    fn share_without_steps_stays() {
        let s = TorchLinear { start_factor: 0.5, end_factor: 1.0, total_iters: 0 };
        assert_eq!([0, 1, 9].map(|t| s.lr(8.0, t)), [4.0; 3]);
    }

    #[test]
    fn factors_out_of_range_are_refused() {
        for value in [0.0, -0.5, 1.5] {
            let s = TorchLinear { start_factor: value, ..TorchLinear::default() };
            let expected = "0 < start_factor <= 1";
            assert_eq!(
                s.check(),
                Err(Error::OutOfRange { argument: "start_factor", value, expected })
            );
        }
        for value in [-0.5, 1.5] {
            let s = TorchLinear { end_factor: value, ..TorchLinear::default() };
            let expected = "0 <= value <= 1";
            assert_eq!(
                s.check(),
                Err(Error::OutOfRange { argument: "end_factor", value, expected })
            );
        }
        assert_eq!(TorchLinear::default().check(), Ok(()));
    }

    #[test]
    fn no_steps_at_all_divide_by_zero_and_step_0_multiplies() {
        let s = TorchLinear { start_factor: 0.25, end_factor: 1.0, total_iters: 0 };
        assert!(s.restart_in_sequence(8.0_f64).is_nan());
        assert_eq!(s.next(99.0, 8.0, 0), 2.0);
        assert_eq!(TorchLinear { total_iters: 2, ..s }.restart_in_sequence(8.0), 2.0);
    }
}
