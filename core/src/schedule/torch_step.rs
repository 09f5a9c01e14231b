use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{FieldVisitor, HyperParams};

/// Multiplies the rate by `gamma` every `step_size` steps.
///
/// # Order of operations
/// Recursive: the current rate is multiplied, once every `step_size` steps.
///
/// # Source
/// `torch.optim.lr_scheduler.StepLR`.
///
/// # Errors
/// `step_size` 0, by which the reference divides.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchStep};
/// let s = TorchStep { step_size: 2, gamma: 0.5 };
/// assert_eq!([0, 1, 2, 3, 4].map(|t| s.lr(1.0, t)), [1.0, 1.0, 0.5, 0.5, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchStep {
    /// Steps between multiplications.
    pub step_size: u64,
    /// The factor.
    pub gamma: f64,
}

impl TorchStep {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchStep { step_size: 1, gamma: 0.1 };
}

impl Default for TorchStep {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchStep {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("step_size", &mut self.step_size);
        f.f64("gamma", &mut self.gamma);
        f.ignored("verbose");
    }

    fn required(&self) -> &'static [&'static str] {
        &["step_size"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchStep {
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, base_lr: F, lr: F, step: u64) -> F {
        self.next(base_lr, lr, step)
    }

    fn next(&self, _: F, lr: F, step: u64) -> F {
        let falls = step != 0 && step.is_multiple_of(self.step_size);
        if falls { lr * F::of(self.gamma) } else { lr }
    }

    fn restart_in_sequence(&self, base_lr: F) -> F {
        base_lr
    }
}

impl ScheduleFacts for TorchStep {
    fn check(&self) -> Result<(), Error> {
        ensure_range(self.step_size > 0, "step_size", self.step_size as f64, "step_size >= 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::schedule::GroupScheduler;

    #[test]
    fn rate_follows_the_order_of_operations() {
        let s = TorchStep { step_size: 3, gamma: 0.5 };
        assert_eq!([0, 2, 3, 5, 6, 30].map(|t| s.lr(8.0, t)), [8.0, 8.0, 4.0, 4.0, 2.0, 0.0078125]);
    }

    #[test]
    fn resumed_schedule_multiplies_the_rate_it_finds() {
        let s = TorchStep { step_size: 3, gamma: 0.5 };
        // Constructed with last_epoch 2, the next step is 3: 5 · ½, and the base rate is not used.
        assert_eq!(GroupScheduler::resume(s, 8.0, 5.0, 2).lr(), 2.5);
    }

    #[test]
    fn step_size_0_is_refused() {
        let s = TorchStep { step_size: 0, gamma: 0.5 };
        let expected = "step_size >= 1";
        assert_eq!(
            s.check(),
            Err(Error::OutOfRange { argument: "step_size", value: 0.0, expected })
        );
        assert_eq!(TorchStep::default().check(), Ok(()));
    }
}
