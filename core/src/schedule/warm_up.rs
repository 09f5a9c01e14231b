#[cfg(feature = "alloc")]
use alloc::boxed::Box;
use core::fmt::Debug;

#[cfg(feature = "alloc")]
use super::Make;
use super::keras::Decay;
#[cfg(feature = "alloc")]
use super::keras::{self, AnyDecay};
use super::{Schedule, ScheduleFacts, ScheduleFloat};
#[cfg(feature = "alloc")]
use crate::hyper::{ArgError, Args};
use crate::hyper::{FieldVisitor, HyperParams};

/// Polynomial warm-up from 0, then any decay of [`keras`](super::keras), which counts its steps from the end of warm-up.
///
/// # Formula
/// initial · (t / warmup)^power for t < warmup, then decay(t − warmup); in f32.
///
/// # Source
/// `transformers.optimization_tf.WarmUp`. The group's own rate is not used.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, WarmUp, keras::PolynomialDecay};
/// let decay_schedule_fn = PolynomialDecay {
///     initial_learning_rate: 1.0, decay_steps: 4.0, end_learning_rate: 0.0, ..PolynomialDecay::DEFAULT
/// };
/// let s = WarmUp { initial_learning_rate: 1.0, decay_schedule_fn, warmup_steps: 2, power: 1.0 };
/// assert_eq!([0, 1, 2, 4, 6, 7].map(|t| s.lr(0.0, t)), [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp<D> {
    /// The rate at the end of warm-up.
    pub initial_learning_rate: f64,
    /// The decay after warm-up.
    pub decay_schedule_fn: D,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// The exponent of warm-up.
    pub power: f64,
}

#[cfg(feature = "alloc")]
pub(super) const MAKE: Make = Make::Pure(|entry, mut args, context| {
    entry.parse(take_decay(&mut args, context.decays)?, args, context)
});

/// Builds it as a decay nested in another.
#[cfg(feature = "alloc")]
pub(super) const MAKE_DECAY: keras::Make =
    |entry, mut args, decays| entry.parse(take_decay(&mut args, decays)?, &args);

/// A `WarmUp` with the decay built from its argument, the other fields not yet set.
#[cfg(feature = "alloc")]
fn take_decay(
    args: &mut Args,
    decays: &'static [keras::Entry],
) -> Result<WarmUp<Box<dyn AnyDecay>>, ArgError> {
    let decay = super::arguments::take("warm_up", "decay_schedule_fn", args)?;
    let decay_schedule_fn = keras::decay_of(decays, &decay)?;
    Ok(with(decay_schedule_fn))
}

/// The default of everything but the decay.
#[cfg(feature = "alloc")]
pub(super) fn with<D>(decay_schedule_fn: D) -> WarmUp<D> {
    WarmUp { initial_learning_rate: 0.0, decay_schedule_fn, warmup_steps: 0, power: 1.0 }
}

impl<D> HyperParams for WarmUp<D> {
    /// All arguments but `decay_schedule_fn`, which is set before.
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("initial_learning_rate", &mut self.initial_learning_rate);
        f.u64("warmup_steps", &mut self.warmup_steps);
        f.f64("power", &mut self.power);
        f.ignored("name");
    }

    fn required(&self) -> &'static [&'static str] {
        &["initial_learning_rate", "warmup_steps"]
    }
}

impl<F: ScheduleFloat, D: Decay<F>> Decay<F> for WarmUp<D> {
    fn rate(&self, step: u64) -> F {
        let (done, steps) = (F::count(step), F::count(self.warmup_steps));
        if done < steps {
            let power = F::of(self.power);
            F::of(self.initial_learning_rate) * (done / steps).pow(power)
        } else {
            self.decay_schedule_fn.rate(step.saturating_sub(self.warmup_steps))
        }
    }
}

impl<F: ScheduleFloat, D: Decay<F::Single> + Debug> Schedule<F> for WarmUp<D> {
    fn lr(&self, _: F, step: u64) -> F {
        F::from_single(self.rate(step))
    }
}

impl<D: Debug> ScheduleFacts for WarmUp<D> {}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::schedule::keras::PolynomialDecay;

    const SQUARE: WarmUp<PolynomialDecay> = WarmUp {
        initial_learning_rate: 0.5,
        decay_schedule_fn: PolynomialDecay {
            initial_learning_rate: 0.5,
            decay_steps: 4.0,
            end_learning_rate: 0.0,
            power: 1.0,
            cycle: false,
        },
        warmup_steps: 4,
        power: 2.0,
    };

    #[test]
    fn rate_follows_the_formula() {
        // ½ · (1/4)², ½ · (3/4)² on the last step of warm-up
        assert_eq!([0, 1, 3].map(|t| SQUARE.lr(9.0, t)), [0.0, 0.03125, 0.28125]);
        // decay(0) = ½, decay(2) = ½ · ½, decay(4) = 0 and from then on
        assert_eq!([4, 6, 8, 100].map(|t| SQUARE.lr(9.0, t)), [0.5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn rate_without_warmup_is_the_decays() {
        let s = WarmUp { warmup_steps: 0, ..SQUARE };
        assert_eq!([0, 2].map(|t| s.lr(9.0, t)), [0.5, 0.25]);
    }

    #[test]
    fn rate_is_in_f32() {
        let s = WarmUp {
            initial_learning_rate: 0.1,
            decay_schedule_fn: 0.1_f32,
            warmup_steps: 2,
            power: 1.0,
        };
        // Half of the f32 next to 0.1 is the f32 next to 0.05.
        assert_eq!([1, 2].map(|t| s.lr(9.0, t)), [0.05_f32, 0.1_f32].map(f64::from));
    }

    #[test]
    fn warmup_within_warmup_counts_from_its_own_start() {
        let s = WarmUp {
            initial_learning_rate: 1.0,
            decay_schedule_fn: SQUARE,
            warmup_steps: 2,
            power: 1.0,
        };
        // 1/2, then SQUARE(1) and SQUARE(4)
        assert_eq!([1, 3, 6].map(|t| s.lr(9.0, t)), [0.5, 0.03125, 0.5]);
    }
}
