use core::fmt::Debug;

use super::Schedule;
use super::keras::{Decay, pow};
use crate::args::{Fields, Hyper};

/// Up along a power during warm-up, then any decay of [`keras`](super::keras), which counts from the end of warm-up.
///
/// # Formula
/// initial · (t / warmup)^power for t < warmup, then decay(t − warmup); in f32.
///
/// # Source
/// `transformers.optimization_tf.WarmUp`. The rate is its own: the group's does not count.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, WarmUp, keras::PolynomialDecay};
/// let decay_schedule_fn = PolynomialDecay {
///     initial_learning_rate: 1.0, decay_steps: 4.0, end_learning_rate: 0.0, ..Default::default()
/// };
/// let s = WarmUp { initial_learning_rate: 1.0, decay_schedule_fn, warmup_steps: 2, power: 1.0 };
/// assert_eq!([0, 1, 2, 4, 6, 7].map(|t| s.lr(0.0, t)), [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp<D> {
    /// The rate at the end of warm-up.
    pub initial_learning_rate: f64,
    /// What follows.
    pub decay_schedule_fn: D,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// The exponent.
    pub power: f64,
}

impl<D> Hyper for WarmUp<D> {
    /// All but `decay_schedule_fn`.
    fn fields(&mut self, f: &mut dyn Fields) {
        f.f64("initial_learning_rate", &mut self.initial_learning_rate);
        f.u64("warmup_steps", &mut self.warmup_steps);
        f.f64("power", &mut self.power);
        f.ignored("name");
    }
}

impl<D: Decay> Decay for WarmUp<D> {
    fn rate(&self, step: u64) -> f32 {
        if (step as f32) < self.warmup_steps as f32 {
            let done = step as f32 / self.warmup_steps as f32;
            self.initial_learning_rate as f32 * pow(done, self.power as f32)
        } else {
            self.decay_schedule_fn.rate(step.saturating_sub(self.warmup_steps))
        }
    }
}

impl<D: Decay + Debug> Schedule for WarmUp<D> {
    fn lr(&self, _: f64, step: u64) -> f64 {
        f64::from(self.rate(step))
    }
}
