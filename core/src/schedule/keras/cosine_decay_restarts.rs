use core::f32::consts::PI;

use super::{Decay, cos, log, pow};
use crate::hyper::{FieldVisitor, HyperParams};

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

impl Decay for CosineDecayRestarts {
    fn rate(&self, step: u64) -> f32 {
        let (t_mul, m_mul, alpha) = (self.t_mul as f32, self.m_mul as f32, self.alpha as f32);
        let done = step as f32 / self.first_decay_steps as f32;
        let (restarts, done) = if t_mul == 1.0 {
            let restarts = libm::floorf(done);
            (restarts, done - restarts)
        } else {
            let restarts = libm::floorf(log(1.0 - done * (1.0 - t_mul)) / log(t_mul));
            let before = (1.0 - pow(t_mul, restarts)) / (1.0 - t_mul);
            (restarts, (done - before) / pow(t_mul, restarts))
        };
        let wave = 0.5 * pow(m_mul, restarts) * (1.0 + cos(PI * done));
        self.initial_learning_rate as f32 * ((1.0 - alpha) * wave + alpha)
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(DOUBLING.rate(0), 1.0);
        assert_near(DOUBLING.rate(2), 0.5);
        // Step 4 is the top of the second, ½ as high; step 8 is 4 of its 8 steps in: ½ · ½
        assert_eq!(DOUBLING.rate(4), 0.5);
        assert_near(DOUBLING.rate(8), 0.25);
        // Step 4 + 8 is the top of the third
        assert_eq!(DOUBLING.rate(12), 0.25);
    }

    #[test]
    fn restarts_of_equal_length_come_every_first_decay_steps() {
        let s = CosineDecayRestarts { t_mul: 1.0, ..DOUBLING };
        // 6 = 4 + 2: ½ · ½ (1 + cos ½π); 8 = 2 · 4: the top, ½² high
        assert_near(s.rate(6), 0.25);
        assert_eq!(s.rate(8), 0.25);
    }

    #[test]
    fn alpha_is_the_share_at_the_end() {
        let s = CosineDecayRestarts { alpha: 0.25, ..DOUBLING };
        // ¾ · ½ + ¼ in the middle
        assert_near(s.rate(2), 0.625);
    }
}
