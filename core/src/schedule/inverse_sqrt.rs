use super::{Schedule, ScheduleFacts, ScheduleFloat, warmup};
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up from 0, then decay as 1 / √t.
///
/// # Formula
/// λ(t) = t / warmup for t < warmup, then 1 / √((t + timescale − warmup) / timescale); the rate is `base_lr` · λ(t).
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
    /// Steps after the end of warm-up in which the rate falls by the factor √½; `None` for `num_warmup_steps`, or
    /// 10 000 without warm-up.
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

impl HyperParams for InverseSqrt {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.opt_f64("timescale", &mut self.timescale);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for InverseSqrt {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let decay = || {
            let timescale = F::of(self.timescale());
            let shift = timescale - F::count(self.num_warmup_steps);
            F::ONE / ((F::count(step) + shift) / timescale).sqrt()
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(decay)
    }
}

impl ScheduleFacts for InverseSqrt {
    fn check(&self) -> Result<(), Error> {
        let timescale = self.timescale();
        ensure_range(timescale > 0.0, "timescale", timescale, "timescale > 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_the_formula() {
        let s = InverseSqrt { num_warmup_steps: 4, timescale: None };
        // 3/4 on the last step of warm-up; the shift is 4 − 4 = 0: 1/√(4/4), 1/√(16/4), 1/√(400/4)
        assert_eq!([3, 4, 16, 400].map(|t| s.lr(1.0, t)), [0.75, 1.0, 0.5, 0.1]);
    }

    #[test]
    fn rate_with_a_timescale_is_shifted_to_begin_at_1() {
        let s = InverseSqrt { num_warmup_steps: 4, timescale: Some(9.0) };
        // the shift is 9 − 4 = 5: 1/√((4 + 5)/9), 1/√((31 + 5)/9)
        assert_eq!([4, 31].map(|t| s.lr(1.0, t)), [1.0, 0.5]);
    }

    #[test]
    fn rate_without_warmup_takes_ten_thousand_steps_for_the_timescale() {
        let s = InverseSqrt::default();
        // 1/√((30 000 + 10 000)/10 000)
        assert_eq!([0, 30_000].map(|t| s.lr(1.0, t)), [1.0, 0.5]);
    }

    #[test]
    fn timescale_that_is_not_positive_is_refused() {
        for value in [0.0, -5.0] {
            let s = InverseSqrt { num_warmup_steps: 4, timescale: Some(value) };
            let expected = "timescale > 0";
            assert_eq!(
                s.check(),
                Err(Error::OutOfRange { argument: "timescale", value, expected })
            );
        }
        assert_eq!(InverseSqrt::default().check(), Ok(()));
    }
}
