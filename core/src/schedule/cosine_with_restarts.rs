use core::f64::consts::PI;

use super::{Schedule, ScheduleFacts, ScheduleFloat, max, progress, warmup};
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up from 0, then `num_cycles` half cosines from the group's rate to 0; 0 past the end.
///
/// # Formula
/// λ(t) = t / warmup for t < warmup, then max(0, ½ (1 + cos(π · (num_cycles·p mod 1)))),
/// p = (t − warmup) / max(1, training − warmup); 0 for p ≥ 1. The rate is `base_lr` · λ(t).
///
/// # Source
/// `transformers.get_cosine_with_hard_restarts_schedule_with_warmup`.
///
/// # Example
/// ```
/// use bitstep::schedule::{CosineWithRestarts, Schedule};
/// let s = CosineWithRestarts { num_warmup_steps: 0, num_training_steps: 8, num_cycles: 2.0 };
/// assert_eq!([0, 2, 4, 6, 8, 9].map(|t| s.lr(8.0, t)), [8.0, 4.0, 8.0, 4.0, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineWithRestarts {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps of the whole training.
    pub num_training_steps: u64,
    /// The number of half cosines; a fraction cuts the last one short.
    pub num_cycles: f64,
}

impl CosineWithRestarts {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        CosineWithRestarts { num_warmup_steps: 0, num_training_steps: 0, num_cycles: 1.0 };
}

impl Default for CosineWithRestarts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for CosineWithRestarts {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
        f.f64("num_cycles", &mut self.num_cycles);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps", "num_training_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for CosineWithRestarts {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let falls = || {
            let p: F = progress(step, self.num_warmup_steps, self.num_training_steps);
            if p >= F::ONE {
                return F::ZERO;
            }
            let x = F::of(self.num_cycles) * p;
            max(F::ZERO, F::of(0.5) * (F::ONE + (F::of(PI) * modulo_1(x)).cos()))
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(falls)
    }
}

impl ScheduleFacts for CosineWithRestarts {}

/// Python's `x % 1.0`: never negative, unlike Rust's.
fn modulo_1<F: ScheduleFloat>(x: F) -> F {
    let rest = x - x.trunc();
    if rest < F::ZERO { rest + F::ONE } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    const TWICE: CosineWithRestarts =
        CosineWithRestarts { num_warmup_steps: 2, num_training_steps: 10, num_cycles: 2.0 };

    #[test]
    fn rate_follows_the_formula() {
        // 8 · 1/2 on the last step of warm-up; 2p = 0; ½: 8 · ½ (1 + cos ½π); 1 mod 1 = 0
        assert_eq!([1, 2, 4, 6].map(|t| TWICE.lr(8.0, t)), [4.0, 8.0, 4.0, 8.0]);
        // 2p = 10/8 mod 1 = ¼: 8 · ½ (1 + √½) = 4 + 2√2; on the last step 14/8 mod 1 = ¾: 4 − 2√2
        assert_near(TWICE.lr(8.0, 7), 6.828_427_124_746_19);
        assert_near(TWICE.lr(8.0, 9), 1.171_572_875_253_81);
    }

    #[test]
    fn rate_from_the_end_on_is_0() {
        assert_eq!([10, 11, u64::MAX].map(|t| TWICE.lr(8.0, t)), [0.0; 3]);
    }

    #[test]
    fn remainder_of_negative_cycles_is_pythons() {
        let s = CosineWithRestarts { num_cycles: -1.0, ..TWICE };
        // −¼ mod 1 = ¾: 4 − 2√2
        assert_near(s.lr(8.0, 4), 1.171_572_875_253_81);
    }

    #[test]
    fn rest_of_a_negative_number_is_not_negative() {
        assert_eq!([-1.25, -0.25, 0.25, 1.25, 2.0].map(modulo_1), [0.75, 0.75, 0.25, 0.25, 0.0]);
    }
}
