use super::{Schedule, cosine_wave, max, progress, warmup};
use crate::args::{Fields, Hyper};

/// Up in a line during warm-up, then along a cosine.
///
/// # Formula
/// λ(t) = t / warmup, then ½ (1 + cos(2π · num_cycles · p)), p = (t − warmup) / max(1, training − warmup).
/// Past the end p goes on beyond 1: with half a wave the rate rises again.
///
/// # Source
/// `transformers.get_cosine_schedule_with_warmup`. Its file defines the private function behind it twice; the second
/// definition, with a floor of 0, is in force.
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
    /// Waves after warm-up; half a wave only falls.
    pub num_cycles: f64,
}

impl Default for Cosine {
    fn default() -> Self {
        Cosine { num_warmup_steps: 0, num_training_steps: 0, num_cycles: 0.5 }
    }
}

impl Hyper for Cosine {
    fn fields(&mut self, f: &mut dyn Fields) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
        f.f64("num_cycles", &mut self.num_cycles);
    }
}

impl Schedule for Cosine {
    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        let wave = || {
            let p = progress(step, self.num_warmup_steps, self.num_training_steps);
            // Without the floor's multiplication by 1 and addition of 0, which change nothing.
            max(0.0, cosine_wave(self.num_cycles, p))
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(wave)
    }
}
