use super::{Schedule, walk};
use crate::args::{Fields, Hyper};

/// Multiplies the rate by `gamma` at every step.
///
/// # Order of operations
/// Recursive: the rate in force is multiplied.
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
    /// What the rate is multiplied by.
    pub gamma: f64,
}

impl Default for TorchExponential {
    fn default() -> Self {
        TorchExponential { gamma: 1.0 }
    }
}

impl Hyper for TorchExponential {
    fn fields(&mut self, f: &mut dyn Fields) {
        f.f64("gamma", &mut self.gamma);
        f.ignored("verbose");
    }
}

impl Schedule for TorchExponential {
    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        walk(self, base_lr, step)
    }

    fn join(&self, _: f64, lr: f64, _: u64) -> f64 {
        lr
    }

    fn next(&self, _: f64, lr: f64, _: u64) -> f64 {
        lr * self.gamma
    }

    fn restart(&self, base_lr: f64) -> f64 {
        base_lr
    }
}
