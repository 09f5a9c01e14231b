use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::hyper::{FieldVisitor, HyperParams};

/// Polynomial decay to 0.
///
/// # Formula
/// base_lr · (1 − min(t, n) / n)^power, n = `total_iters`.
///
/// # Order of operations
/// Recursive: lr · ((1 − t/n) / (1 − (t − 1)/n))^power up to t = n.
///
/// # Source
/// `torch.optim.lr_scheduler.PolynomialLR`.
///
/// # Errors
/// With a negative `power`, step `total_iters`, at which the reference divides by zero.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchPolynomial};
/// let s = TorchPolynomial { total_iters: 4, power: 1.0 };
/// assert_eq!([0, 1, 4, 5].map(|t| s.lr(1.0, t)), [1.0, 0.75, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchPolynomial {
    /// Steps until 0.
    pub total_iters: u64,
    /// The exponent.
    pub power: f64,
}

impl TorchPolynomial {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchPolynomial { total_iters: 5, power: 1.0 };
}

impl Default for TorchPolynomial {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchPolynomial {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("total_iters", &mut self.total_iters);
        f.f64("power", &mut self.power);
        f.ignored("verbose");
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchPolynomial {
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, _: F, lr: F, _: u64) -> F {
        lr
    }

    fn next(&self, _: F, lr: F, step: u64) -> F {
        if step > self.total_iters {
            return lr;
        }
        let (t, n, one) = (F::count(step), F::count(self.total_iters), F::ONE);
        lr * ((one - t / n) / (one - (t - one) / n)).pow(F::of(self.power))
    }

    fn restart_in_sequence(&self, base_lr: F) -> F {
        // NaN for `total_iters` 0, where the reference divides by 0.
        let n = F::count(self.total_iters);
        base_lr * (F::ONE - F::ZERO / n).pow(F::of(self.power))
    }
}

impl ScheduleFacts for TorchPolynomial {
    fn last_step(&self) -> Option<u64> {
        let divides = self.power < 0.0 && self.power.is_finite();
        if divides { self.total_iters.checked_sub(1) } else { None }
    }

    fn has_step(&self, step: u64) -> bool {
        self.last_step().is_none() || step != self.total_iters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    #[test]
    fn rate_follows_the_order_of_operations() {
        let s = TorchPolynomial { total_iters: 4, power: 2.0 };
        // 8; 8 · (¾/1)²; the last step: · (0/¼)², held after it
        assert_eq!([0, 1, 4, 99].map(|t| s.lr(8.0, t)), [8.0, 4.5, 0.0, 0.0]);
        // 4.5 · (½/¾)²
        assert_near(s.lr(8.0, 2), 2.0);
    }

    #[test]
    fn rate_of_power_0_stays() {
        // Even 0⁰ is 1.
        let s = TorchPolynomial { total_iters: 4, power: 0.0 };
        assert_eq!([0, 1, 4, 5].map(|t| s.lr(8.0, t)), [8.0; 4]);
    }

    #[test]
    fn rate_without_steps_stays() {
        let s = TorchPolynomial { total_iters: 0, power: 1.0 };
        assert_eq!([0, 1].map(|t| s.lr(8.0, t)), [8.0; 2]);
        assert!(s.restart_in_sequence(8.0_f64).is_nan()); // 1 − 0/0
    }
}
