use super::Decay;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::schedule::ScheduleFloat;

/// Polynomial decay, then constant.
///
/// # Formula
/// (initial − end) · (1 − min(t, n) / n)^power + end, n = `decay_steps`. With `cycle`, n is instead the smallest positive
/// multiple of `decay_steps` that is at least t, so that the rate rises again past the end.
///
/// # Source
/// `tf.keras.optimizers.schedules.PolynomialDecay`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolynomialDecay {
    /// The first rate.
    pub initial_learning_rate: f64,
    /// Steps until the last rate is reached.
    pub decay_steps: f64,
    /// The last rate.
    pub end_learning_rate: f64,
    /// The exponent.
    pub power: f64,
    /// Whether the decay is stretched past its end, instead of the rate staying constant.
    pub cycle: bool,
}

impl PolynomialDecay {
    /// The reference's defaults.
    pub const DEFAULT: Self = PolynomialDecay {
        initial_learning_rate: 1e-3,
        decay_steps: 1.0,
        end_learning_rate: 1e-4,
        power: 1.0,
        cycle: false,
    };
}

impl Default for PolynomialDecay {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for PolynomialDecay {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("initial_learning_rate", &mut self.initial_learning_rate);
        f.f64("decay_steps", &mut self.decay_steps);
        f.f64("end_learning_rate", &mut self.end_learning_rate);
        f.f64("power", &mut self.power);
        f.bool("cycle", &mut self.cycle);
        f.ignored("name");
    }

    fn required(&self) -> &'static [&'static str] {
        &["initial_learning_rate", "decay_steps"]
    }
}

impl<F: ScheduleFloat> Decay<F> for PolynomialDecay {
    fn rate(&self, step: u64) -> F {
        let arguments = [self.initial_learning_rate, self.end_learning_rate, self.power];
        let [initial, end, power] = arguments.map(F::of);
        let mut step = F::count(step);
        let mut steps = F::of(self.decay_steps);
        if self.cycle {
            steps = steps * if step == F::ZERO { F::ONE } else { (step / steps).ceil() };
        } else if step > steps {
            step = steps;
        }
        (initial - end) * (F::ONE - step / steps).pow(power) + end
    }
}

#[cfg(test)]
mod tests {
    use super::super::decay::rate;
    use super::*;

    const LINE: PolynomialDecay = PolynomialDecay {
        initial_learning_rate: 1.0,
        decay_steps: 4.0,
        end_learning_rate: 0.25,
        power: 1.0,
        cycle: false,
    };

    #[test]
    fn rate_follows_the_formula() {
        // ¾ · 1 + ¼, ¾ · (1 − 2/4) + ¼, ¾ · (1 − 3/4) + ¼, then the end
        assert_eq!([0, 2, 3, 4, 9].map(|t| rate(&LINE, t)), [1.0, 0.625, 0.4375, 0.25, 0.25]);
        // ¾ · (½)² + ¼
        assert_eq!(rate(&PolynomialDecay { power: 2.0, ..LINE }, 2), 0.4375);
    }

    #[test]
    fn cycle_stretches_the_decay_past_its_end() {
        let s = PolynomialDecay { cycle: true, ..LINE };
        // n = 4 up to 4, then 4 · ⌈6/4⌉ = 8: ¾ · (1 − 6/8) + ¼; at 8 the end; at 9 n = 12: ¾ · ¼ + ¼
        assert_eq!([0, 4, 6, 8, 9].map(|t| rate(&s, t)), [1.0, 0.25, 0.4375, 0.25, 0.4375]);
    }
}
