use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::hyper::{FieldVisitor, HyperParams};

/// Multiplies the rate by `gamma` at every step.
///
/// # Order of operations
/// Recursive: the current rate is multiplied, once per step.
///
/// # Source
/// `torch.optim.lr_scheduler.ExponentialLR`.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchExponential};
/// assert_eq!(TorchExponential { gamma: 0.5 }.lr(1.0, 3), 0.125);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchExponential {
    /// The factor per step.
    pub gamma: f64,
}

impl TorchExponential {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchExponential { gamma: 1.0 };
}

impl Default for TorchExponential {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchExponential {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("gamma", &mut self.gamma);
        f.ignored("verbose");
    }

    fn required(&self) -> &'static [&'static str] {
        &["gamma"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchExponential {
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, _: F, lr: F, _: u64) -> F {
        lr
    }

    fn next(&self, _: F, lr: F, _: u64) -> F {
        lr * F::of(self.gamma)
    }

    fn restart_in_sequence(&self, base_lr: F) -> F {
        base_lr
    }
}

impl ScheduleFacts for TorchExponential {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_multiplied_at_every_step_but_the_first() {
        let s = TorchExponential { gamma: 0.5 };
        assert_eq!([0, 1, 2, 10].map(|t| s.lr(8.0, t)), [8.0, 4.0, 2.0, 0.0078125]);
    }

    #[test]
    fn rate_in_force_is_multiplied_not_a_power() {
        // 1 · 0.1 · 0.1 · 0.1 rounds twice: 0.001 000 000 000 000 000 2, not 0.1³
        let s = TorchExponential { gamma: 0.1 };
        assert_eq!(s.lr(1.0, 3), 0.1 * 0.1 * 0.1);
        assert_ne!(s.lr(1.0, 3), 1e-3);
    }

    #[test]
    fn gamma_above_1_or_negative_is_taken() {
        assert_eq!(TorchExponential { gamma: 2.0 }.lr(1.0, 3), 8.0);
        assert_eq!(TorchExponential { gamma: -1.0 }.lr(1.0, 3), -1.0);
        assert_eq!(TorchExponential { gamma: 2.0 }.check(), Ok(()));
    }
}
