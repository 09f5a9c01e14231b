use super::Decay;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::schedule::ScheduleFloat;

/// Exponential decay.
///
/// # Formula
/// initial · decay_rate^(t/n), n = `decay_steps`; with `staircase` t/n is rounded down.
///
/// # Source
/// `tf.keras.optimizers.schedules.ExponentialDecay`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentialDecay {
    /// The first rate.
    pub initial_learning_rate: f64,
    /// Steps in which the rate is multiplied by `decay_rate`.
    pub decay_steps: f64,
    /// The factor per `decay_steps` steps.
    pub decay_rate: f64,
    /// Whether the rate changes only every `decay_steps` steps.
    pub staircase: bool,
}

impl ExponentialDecay {
    /// The reference's defaults.
    pub const DEFAULT: Self = ExponentialDecay {
        initial_learning_rate: 1e-3,
        decay_steps: 1.0,
        decay_rate: 1.0,
        staircase: false,
    };
}

impl Default for ExponentialDecay {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for ExponentialDecay {
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

impl<F: ScheduleFloat> Decay<F> for ExponentialDecay {
    fn rate(&self, step: u64) -> F {
        let p = F::count(step) / F::of(self.decay_steps);
        let p = if self.staircase { p.floor() } else { p };
        F::of(self.initial_learning_rate) * F::of(self.decay_rate).pow(p)
    }
}

#[cfg(test)]
mod tests {
    use super::super::decay::rate;
    use super::*;

    const QUARTER: ExponentialDecay = ExponentialDecay {
        initial_learning_rate: 1.0,
        decay_steps: 2.0,
        decay_rate: 0.25,
        staircase: false,
    };

    #[test]
    fn rate_follows_the_formula() {
        // ¼ to the powers 0, 1/2, 2/2, 3/2, and 6/2 well past decay_steps
        assert_eq!([0, 1, 2, 3, 6].map(|t| rate(&QUARTER, t)), [1.0, 0.5, 0.25, 0.125, 0.015625]);
    }

    #[test]
    fn staircase_falls_every_decay_steps() {
        let s = ExponentialDecay { staircase: true, ..QUARTER };
        // ¼ to the powers ⌊1/2⌋, ⌊2/2⌋, ⌊3/2⌋
        assert_eq!([1, 2, 3].map(|t| rate(&s, t)), [1.0, 0.25, 0.25]);
    }
}
