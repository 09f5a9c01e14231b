use core::f32::consts::PI;

use super::Decay;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::schedule::ScheduleFloat;

/// Linear warm-up to `warmup_target`, if given, then half a cosine down to `alpha` times that rate, then constant.
///
/// # Formula
/// initial + (target − initial) · t / warmup for t < warmup, then r · ((1 − alpha) · ½ (1 + cos(π · p)) + alpha),
/// p = min(t − warmup, n) / n, n = `decay_steps`, r = target; without a target r = initial and warmup = 0.
///
/// # Source
/// `tf.keras.optimizers.schedules.CosineDecay`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineDecay {
    /// The first rate.
    pub initial_learning_rate: f64,
    /// Steps of the half cosine.
    pub decay_steps: f64,
    /// The last rate as a fraction of the rate at the start of the decay.
    pub alpha: f64,
    /// The rate at the end of warm-up; `None` for no warm-up.
    pub warmup_target: Option<f64>,
    /// Steps of warm-up.
    pub warmup_steps: f64,
}

impl CosineDecay {
    /// The reference's defaults.
    pub const DEFAULT: Self = CosineDecay {
        initial_learning_rate: 1e-3,
        decay_steps: 1.0,
        alpha: 0.0,
        warmup_target: None,
        warmup_steps: 0.0,
    };
}

impl Default for CosineDecay {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for CosineDecay {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("initial_learning_rate", &mut self.initial_learning_rate);
        f.f64("decay_steps", &mut self.decay_steps);
        f.f64("alpha", &mut self.alpha);
        f.ignored("name");
        f.opt_f64("warmup_target", &mut self.warmup_target);
        f.f64("warmup_steps", &mut self.warmup_steps);
    }

    fn required(&self) -> &'static [&'static str] {
        &["initial_learning_rate", "decay_steps"]
    }
}

impl<F: ScheduleFloat> Decay<F> for CosineDecay {
    fn rate(&self, step: u64) -> F {
        let step = F::count(step);
        let [half, pi, alpha, rest] = [0.5, PI.into(), self.alpha, 1.0 - self.alpha].map(F::of);
        let (steps, warmup) = (F::of(self.decay_steps), F::of(self.warmup_steps));
        let initial = F::of(self.initial_learning_rate);
        let decay = |step: F, from: F| {
            let wave = half * (F::ONE + (pi * (step / steps)).cos());
            from * (rest * wave + alpha)
        };
        match self.warmup_target.map(F::of) {
            None => decay(if steps < step { steps } else { step }, initial),
            Some(target) => {
                let step = if steps + warmup < step { steps + warmup } else { step };
                if step < warmup {
                    (target - initial) * (step / warmup) + initial
                } else {
                    decay(step - warmup, target)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decay::rate;
    use super::*;

    const HALF_WAVE: CosineDecay = CosineDecay {
        initial_learning_rate: 1.0,
        decay_steps: 4.0,
        alpha: 0.0,
        warmup_target: None,
        warmup_steps: 0.0,
    };

    #[test]
    fn rate_follows_the_formula() {
        // ½ (1 + cos 0), ½ (1 + cos π), held after that
        assert_eq!([0, 4, 9].map(|t| rate(&HALF_WAVE, t)), [1.0, 0.0, 0.0]);
        // The f32 next to ½π is 4.37e-8 too large: 1 − 4.37e-8 rounds to 1 − 2⁻²⁴.
        assert_eq!(rate(&HALF_WAVE, 2), 0.5 * (1.0 - 1.0 / 16_777_216.0));
    }

    #[test]
    fn alpha_is_the_share_at_the_end() {
        // (1 − ¼) · 0 + ¼
        assert_eq!(rate(&CosineDecay { alpha: 0.25, ..HALF_WAVE }, 4), 0.25);
    }

    #[test]
    fn warmup_is_a_line_to_its_target() {
        let s = CosineDecay { warmup_target: Some(2.0), warmup_steps: 2.0, ..HALF_WAVE };
        // (2 − 1) · t/2 + 1; the cosine begins at step 2 and ends at 2 + 4
        assert_eq!([0, 1, 2, 6, 7].map(|t| rate(&s, t)), [1.0, 1.5, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn warm_up_is_over_at_its_last_step() {
        // (0.1 − 10⁸) · 1 + 10⁸ would be 0.
        let s = CosineDecay {
            initial_learning_rate: 1e8,
            warmup_target: Some(0.1),
            warmup_steps: 4.0,
            ..HALF_WAVE
        };
        assert_eq!(rate(&s, 4), 0.1);
    }
}
