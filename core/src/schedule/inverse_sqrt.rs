use super::{Schedule, warmup};
use crate::Error;
use crate::args::{Fields, Hyper};

/// Up in a line during warm-up, then down as 1 / √t.
///
/// # Formula
/// λ(t) = t / warmup, then 1 / √((t + timescale − warmup) / timescale).
///
/// # Source
/// `transformers.get_inverse_sqrt_schedule`.
///
/// # Errors
/// A `timescale` that is not positive: the reference divides by it, or takes the root of a negative number.
///
/// # Example
/// ```
/// use bitstep::schedule::{InverseSqrt, Schedule};
/// let s = InverseSqrt { num_warmup_steps: 4, timescale: None };
/// assert_eq!([1, 4, 16, 64].map(|t| s.lr(1.0, t)), [0.25, 1.0, 0.5, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InverseSqrt {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps after which the rate has fallen by √½; `None` for those of warm-up, or 10 000 without.
    pub timescale: Option<f64>,
}

impl InverseSqrt {
    fn timescale(&self) -> f64 {
        self.timescale.unwrap_or(match self.num_warmup_steps {
            0 => 10_000.0,
            n => n as f64,
        })
    }
}

impl Hyper for InverseSqrt {
    fn fields(&mut self, f: &mut dyn Fields) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.opt_f64("timescale", &mut self.timescale);
    }
}

impl Schedule for InverseSqrt {
    fn check(&self) -> Result<(), Error> {
        let timescale = self.timescale();
        Error::range(timescale > 0.0, "timescale", timescale, "timescale > 0")
    }

    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        let decay = || {
            let timescale = self.timescale();
            let shift = timescale - self.num_warmup_steps as f64;
            1.0 / libm::sqrt((step as f64 + shift) / timescale)
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(decay)
    }
}
