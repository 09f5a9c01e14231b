use super::Decay;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::schedule::ScheduleFloat;

/// Decay as the inverse of time.
///
/// # Formula
/// initial / (1 + decay_rate · t/n), n = `decay_steps`; with `staircase` t/n is rounded down.
///
/// # Source
/// `tf.keras.optimizers.schedules.InverseTimeDecay`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseTimeDecay {
    /// The first rate.
    pub initial_learning_rate: f64,
    /// The unit of time, in steps.
    pub decay_steps: f64,
    /// The increase of the denominator per `decay_steps` steps.
    pub decay_rate: f64,
    /// Whether the rate changes only every `decay_steps` steps.
    pub staircase: bool,
}

impl InverseTimeDecay {
    /// The reference's defaults.
    pub const DEFAULT: Self = InverseTimeDecay {
        initial_learning_rate: 1e-3,
        decay_steps: 1.0,
        decay_rate: 1.0,
        staircase: false,
    };
}

impl Default for InverseTimeDecay {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for InverseTimeDecay {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("initial_learning_rate", &mut self.initial_learning_rate);
        f.f64("decay_steps", &mut self.decay_steps);
        f.f64("decay_rate", &mut self.decay_rate);
        f.bool("staircase", &mut self.staircase);
        f.ignored("name");
    }

    fn required(&self) -> &'static [&'static str] {
        &["initial_learning_rate", "decay_steps", "decay_rate"]
    }
}

impl<F: ScheduleFloat> Decay<F> for InverseTimeDecay {
    fn rate(&self, step: u64) -> F {
        let p = F::count(step) / F::of(self.decay_steps);
        let p = if self.staircase { p.floor() } else { p };
        F::of(self.initial_learning_rate) / (F::ONE + F::of(self.decay_rate) * p)
    }
}

#[cfg(test)]
mod tests {
    use super::super::decay::rate;
    use super::*;

    const HALF: InverseTimeDecay = InverseTimeDecay {
        initial_learning_rate: 1.0,
        decay_steps: 2.0,
        decay_rate: 1.0,
        staircase: false,
    };

    #[test]
    fn rate_follows_the_formula() {
        // 1/(1 + 0), 1/(1 + 2/2), 1/(1 + 3/2), 1/(1 + 6/2)
        assert_eq!([0, 2, 3, 6].map(|t| rate(&HALF, t)), [1.0, 0.5, 0.4, 0.25]);
    }

    #[test]
    fn staircase_falls_every_decay_steps() {
        let s = InverseTimeDecay { staircase: true, ..HALF };
        // 1/(1 + ⌊1/2⌋), 1/(1 + ⌊2/2⌋), 1/(1 + ⌊3/2⌋)
        assert_eq!([1, 2, 3].map(|t| rate(&s, t)), [1.0, 0.5, 0.5]);
    }
}
