use super::{
    Schedule, ScheduleFacts, ScheduleFloat, check_cycles, cosine_wave, max, progress, warmup,
};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up from 0, then a cosine.
///
/// # Formula
/// λ(t) = t / warmup for t < warmup, then ½ (1 + cos(2π · num_cycles · p)), p = (t − warmup) / max(1, training − warmup);
/// the rate is `base_lr` · λ(t). Past the end p exceeds 1: with half a period the rate rises again.
///
/// # Source
/// `transformers.get_cosine_schedule_with_warmup`. Its file defines the private function behind it twice; the second
/// definition, with a floor of 0, is the one that applies.
///
/// # Errors
/// An infinite `num_cycles`.
///
/// # Example
/// ```
/// use bitstep::schedule::{Cosine, Schedule};
/// let s = Cosine { num_warmup_steps: 2, num_training_steps: 6, num_cycles: 0.5 };
/// assert_eq!([0, 1, 2, 4, 6, 10].map(|t| s.lr(8.0, t)), [0.0, 4.0, 8.0, 4.0, 0.0, 8.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps of the whole training.
    pub num_training_steps: u64,
    /// Periods of the cosine after warm-up; with 0.5 the rate only falls.
    pub num_cycles: f64,
}

impl Cosine {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        Cosine { num_warmup_steps: 0, num_training_steps: 0, num_cycles: 0.5 };
}

impl Default for Cosine {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for Cosine {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
        f.f64("num_cycles", &mut self.num_cycles);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps", "num_training_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for Cosine {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let wave = || {
            let p = progress(step, self.num_warmup_steps, self.num_training_steps);
            // The reference also multiplies by 1 and adds its floor of 0, which changes no bit.
            max(F::ZERO, cosine_wave(self.num_cycles, p))
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(wave)
    }
}

impl ScheduleFacts for Cosine {
    fn check(&self) -> Result<(), Error> {
        check_cycles(self.num_cycles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    #[test]
    fn rate_follows_the_formula() {
        let s = Cosine { num_warmup_steps: 2, num_training_steps: 10, num_cycles: 0.5 };
        // 8 · 1/2 on the last step of warm-up, p = 0, p = 4/8: 8 · ½ (1 + cos ½π), p = 1: 8 · ½ (1 + cos π)
        assert_eq!([1, 2, 6, 10].map(|t| s.lr(8.0, t)), [4.0, 8.0, 4.0, 0.0]);
        // p = 2/8: 8 · ½ (1 + √½) = 4 + 2√2
        assert_near(s.lr(8.0, 4), 6.828_427_124_746_19);
    }

    #[test]
    fn rate_beyond_the_end_rises_again() {
        let s = Cosine { num_warmup_steps: 2, num_training_steps: 10, num_cycles: 0.5 };
        // p = 12/8: 8 · ½ (1 + cos 1½π); p = 2: 8 · ½ (1 + cos 2π)
        assert_near(s.lr(8.0, 14), 4.0);
        assert_eq!(s.lr(8.0, 18), 8.0);
    }

    #[test]
    fn rate_of_a_whole_wave_is_lowest_in_the_middle() {
        let s = Cosine { num_warmup_steps: 2, num_training_steps: 10, num_cycles: 1.0 };
        // p = ½: ½ (1 + cos π); p = 1: ½ (1 + cos 2π)
        assert_eq!([6, 10].map(|t| s.lr(8.0, t)), [0.0, 8.0]);
    }

    #[test]
    fn rate_of_a_training_shorter_than_warmup_falls_in_one_step() {
        let s = Cosine { num_warmup_steps: 5, num_training_steps: 3, num_cycles: 0.5 };
        // 4/5, then p = 0/max(1, −2) and 1/1
        assert_eq!([4, 5, 6].map(|t| s.lr(1.0, t)), [0.8, 1.0, 0.0]);
    }
}
