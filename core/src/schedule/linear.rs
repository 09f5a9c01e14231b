use super::{Schedule, ScheduleFacts, ScheduleFloat, max, warmup};
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up from 0, then linear decay to 0.
///
/// # Formula
/// λ(t) = t / warmup for t < warmup, then max(0, (training − t) / max(1, training − warmup)); the rate is `base_lr` · λ(t).
///
/// # Source
/// `transformers.get_linear_schedule_with_warmup`.
///
/// # Example
/// ```
/// use bitstep::schedule::{Linear, Schedule};
/// let s = Linear { num_warmup_steps: 4, num_training_steps: 12 };
/// assert_eq!([0, 2, 4, 8, 12, 13].map(|t| s.lr(1.0, t)), [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Linear {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps of the whole training.
    pub num_training_steps: u64,
}

impl HyperParams for Linear {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps", "num_training_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for Linear {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let decay = || {
            let counts = [step, self.num_warmup_steps, self.num_training_steps];
            let [t, w, n] = counts.map(F::count);
            max(F::ZERO, (n - t) / max(F::ONE, n - w))
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(decay)
    }
}

impl ScheduleFacts for Linear {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_the_formula() {
        let s = Linear { num_warmup_steps: 4, num_training_steps: 12 };
        // ½ · 3/4 on the last step of warm-up, ½ · (12 − 4)/(12 − 4), ½ · (12 − 6)/8, ½ · (12 − 11)/8
        assert_eq!([3, 4, 6, 11].map(|t| s.lr(0.5, t)), [0.375, 0.5, 0.375, 0.0625]);
        // (12 − 12)/8, then max(0, (12 − 20)/8)
        assert_eq!([12, 20, u64::MAX].map(|t| s.lr(0.5, t)), [0.0; 3]);
    }

    #[test]
    fn rate_of_a_training_shorter_than_warmup_falls_to_0_at_once() {
        let s = Linear { num_warmup_steps: 5, num_training_steps: 3 };
        // 4/5, then max(0, (3 − 5)/max(1, −2))
        assert_eq!([4, 5].map(|t| s.lr(1.0, t)), [0.8, 0.0]);
    }
}
