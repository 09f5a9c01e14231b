use super::{Schedule, warmup};
use crate::Error;
use crate::accurate::pow;
use crate::args::{Fields, Hyper};

/// Up in a line during warm-up, then down to `lr_end` along a power of the share of steps that remain.
///
/// # Formula
/// λ(t) = t / warmup, then ((lr_init − lr_end) · r^power + lr_end) / lr_init, r = 1 − (t − warmup) / (training − warmup);
/// lr_end / lr_init past the end.
///
/// # Source
/// `transformers.get_polynomial_decay_schedule_with_warmup`. `lr_init` is the optimizer's own `lr`, also for groups that
/// have another: such a group ends at a rate of its own.
/// If warm-up lasts exactly as long as training the reference divides by zero at its last step; here the rate is NaN.
///
/// # Errors
/// `lr_init` ≤ `lr_end`.
///
/// # Example
/// ```
/// use bitstep::schedule::{Polynomial, Schedule};
/// let s = Polynomial { num_warmup_steps: 2, num_training_steps: 6, lr_end: 0.0, power: 2.0, lr_init: 1.0 };
/// assert_eq!([1, 2, 4, 6, 7].map(|t| s.lr(1.0, t)), [0.5, 1.0, 0.25, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Polynomial {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps of the whole training.
    pub num_training_steps: u64,
    /// The rate at the end, for a group with the rate `lr_init`.
    pub lr_end: f64,
    /// The exponent.
    pub power: f64,
    /// The optimizer's `lr`.
    pub lr_init: f64,
}

impl Default for Polynomial {
    fn default() -> Self {
        Polynomial {
            num_warmup_steps: 0,
            num_training_steps: 0,
            lr_end: 1e-7,
            power: 1.0,
            lr_init: 1e-3,
        }
    }
}

impl Hyper for Polynomial {
    fn fields(&mut self, f: &mut dyn Fields) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
        f.f64("lr_end", &mut self.lr_end);
        f.f64("power", &mut self.power);
        f.f64("lr_init", &mut self.lr_init);
    }
}

impl Schedule for Polynomial {
    fn check(&self) -> Result<(), Error> {
        Error::range(self.lr_init > self.lr_end, "lr_end", self.lr_end, "lr_end < lr")
    }

    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        let decay = || {
            if step > self.num_training_steps {
                return self.lr_end / self.lr_init;
            }
            let [t, w, n] =
                [step, self.num_warmup_steps, self.num_training_steps].map(|n| n as f64);
            let remaining = 1.0 - (t - w) / (n - w);
            ((self.lr_init - self.lr_end) * pow(remaining, self.power) + self.lr_end) / self.lr_init
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(decay)
    }
}
