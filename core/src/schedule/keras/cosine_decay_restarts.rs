use core::f32::consts::PI;

use super::Decay;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::schedule::ScheduleFloat;

/// Half cosines down to `alpha` times the rate, repeatedly, each `t_mul` times as long and `m_mul` times as high as the
/// one before.
///
/// # Formula
/// initial · ((1 − alpha) · ½ m_mulⁱ (1 + cos(π · p)) + alpha), where i is the number of restarts before the step and p
/// the completed fraction of the current half cosine.
///
/// # Source
/// `tf.keras.optimizers.schedules.CosineDecayRestarts`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineDecayRestarts {
    /// The first rate.
    pub initial_learning_rate: f64,
    /// Steps of the first half cosine.
    pub first_decay_steps: f64,
    /// The factor of the length at each restart.
    pub t_mul: f64,
    /// The factor of the height at each restart.
    pub m_mul: f64,
    /// The lowest rate as a fraction of the first.
    pub alpha: f64,
}

impl CosineDecayRestarts {
    /// The reference's defaults.
    pub const DEFAULT: Self = CosineDecayRestarts {
        initial_learning_rate: 1e-3,
        first_decay_steps: 1.0,
        t_mul: 2.0,
        m_mul: 1.0,
        alpha: 0.0,
    };
}

impl Default for CosineDecayRestarts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for CosineDecayRestarts {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("initial_learning_rate", &mut self.initial_learning_rate);
        f.f64("first_decay_steps", &mut self.first_decay_steps);
        f.f64("t_mul", &mut self.t_mul);
        f.f64("m_mul", &mut self.m_mul);
        f.f64("alpha", &mut self.alpha);
        f.ignored("name");
    }

    fn required(&self) -> &'static [&'static str] {
        &["initial_learning_rate", "first_decay_steps"]
    }
}

impl<F: ScheduleFloat> Decay<F> for CosineDecayRestarts {
    fn rate(&self, step: u64) -> F {
        let [t_mul, m_mul, alpha] = [self.t_mul, self.m_mul, self.alpha].map(F::of);
        let [half, pi, one] = [0.5, PI.into(), 1.0].map(F::of);
        let done = F::count(step) / F::of(self.first_decay_steps);
        let (restarts, done) = if t_mul == one {
            let restarts = done.floor();
            (restarts, done - restarts)
        } else {
            let restarts = ((one - done * (one - t_mul)).log() / t_mul.log()).floor();
            let before = (one - t_mul.pow(restarts)) / (one - t_mul);
            (restarts, (done - before) / t_mul.pow(restarts))
        };
        let wave = half * m_mul.pow(restarts) * (one + (pi * done).cos());
        F::of(self.initial_learning_rate) * ((one - alpha) * wave + alpha)
    }
}

#[cfg(test)]
mod tests {
    use super::super::decay::rate;
    use super::*;

    const DOUBLING: CosineDecayRestarts = CosineDecayRestarts {
        initial_learning_rate: 1.0,
        first_decay_steps: 4.0,
        t_mul: 2.0,
        m_mul: 0.5,
        alpha: 0.0,
    };

    /// Equality up to the rounding of ½π to f32.
    fn assert_near(got: f32, want: f32) {
        assert!((got - want).abs() <= 1e-7, "{got:e}, wanted {want:e}");
    }

    #[test]
    fn rate_follows_the_formula() {
        // The top; in the middle of the first cosine ½ (1 + cos ½π)
        assert_eq!(rate(&DOUBLING, 0), 1.0);
        assert_near(rate(&DOUBLING, 2), 0.5);
        // Step 4 is the top of the second, ½ as high; step 8 is 4 of its 8 steps in: ½ · ½
        assert_eq!(rate(&DOUBLING, 4), 0.5);
        assert_near(rate(&DOUBLING, 8), 0.25);
        // Step 4 + 8 is the top of the third
        assert_eq!(rate(&DOUBLING, 12), 0.25);
    }

    #[test]
    fn restarts_of_equal_length_come_every_first_decay_steps() {
        let s = CosineDecayRestarts { t_mul: 1.0, ..DOUBLING };
        // 6 = 4 + 2: ½ · ½ (1 + cos ½π); 8 = 2 · 4: the top, ½² high
        assert_near(rate(&s, 6), 0.25);
        assert_eq!(rate(&s, 8), 0.25);
    }

    #[test]
    fn alpha_is_the_share_at_the_end() {
        let s = CosineDecayRestarts { alpha: 0.25, ..DOUBLING };
        // ¾ · ½ + ¼ in the middle
        assert_near(rate(&s, 2), 0.625);
    }
}
