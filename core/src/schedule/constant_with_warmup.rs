use super::{Schedule, ScheduleFacts, ScheduleFloat, warmup};
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up from 0, then constant.
///
/// # Formula
/// λ(t) = t / warmup for t < warmup, then 1; the rate is `base_lr` · λ(t).
///
/// # Source
/// `transformers.get_constant_schedule_with_warmup`.
///
/// # Example
/// ```
/// use bitstep::schedule::{ConstantWithWarmup, Schedule};
/// let s = ConstantWithWarmup { num_warmup_steps: 4 };
/// assert_eq!([0, 3, 4, 1000].map(|t| s.lr(1.0, t)), [0.0, 0.75, 1.0, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConstantWithWarmup {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
}

impl HyperParams for ConstantWithWarmup {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for ConstantWithWarmup {
    fn lr(&self, base_lr: F, step: u64) -> F {
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or(F::ONE)
    }
}

impl ScheduleFacts for ConstantWithWarmup {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_the_formula() {
        let s = ConstantWithWarmup { num_warmup_steps: 8 };
        // ½ · 6/8, ½ · 7/8 on the last step of warm-up, then ½ · 1
        assert_eq!([6, 7, 8, 9, u64::MAX].map(|t| s.lr(0.5, t)), [0.375, 0.4375, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn rate_without_warmup_is_whole_from_the_start() {
        let s = ConstantWithWarmup { num_warmup_steps: 0 };
        assert_eq!(s.lr(0.5, 0), 0.5); // 0 < 0 is false: λ = 1
    }
}
