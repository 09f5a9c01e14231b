use core::f64::consts::PI;

use super::{Schedule, ScheduleFacts, ScheduleFloat, check_cycles, cosine_wave, max};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// Warm-up, a constant phase, decay; warm-up and decay each have one of three [`DecayShape`]s.
///
/// # Formula
/// With p the completed fraction of warm-up or decay, x = p, ½ (1 − cos πp) or 1 − √(1 − p) in warm-up and x = 1 − p,
/// ½ (1 + cos(2π · num_cycles · p)) or 1 − √p in decay; λ(t) = max(0, x · (1 − min_lr_ratio) + min_lr_ratio).
/// Between them λ(t) = 1, after decay `min_lr_ratio`. The rate is `base_lr` · λ(t).
///
/// # Source
/// `transformers.get_wsd_schedule`.
///
/// # Errors
/// Neither `num_training_steps` nor `num_stable_steps` (which takes precedence if both are given); an infinite
/// `num_cycles` with a cosine decay.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, DecayShape, WarmupStableDecay};
/// let s = WarmupStableDecay {
///     num_warmup_steps: 2, num_decay_steps: 4, num_stable_steps: Some(3),
///     decay_type: DecayShape::OneMinusSqrt, min_lr_ratio: 0.5, ..WarmupStableDecay::DEFAULT
/// };
/// assert_eq!([0, 1, 2, 4, 6, 9].map(|t| s.lr(1.0, t)), [0.5, 0.75, 1.0, 1.0, 0.75, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupStableDecay {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps of decay.
    pub num_decay_steps: u64,
    /// Steps of the whole training.
    pub num_training_steps: Option<u64>,
    /// Steps between warm-up and decay; `None` for the rest of the whole training.
    pub num_stable_steps: Option<u64>,
    /// The shape of warm-up.
    pub warmup_type: DecayShape,
    /// The shape of the decay.
    pub decay_type: DecayShape,
    /// The first and the last rate, as a fraction of the group's.
    pub min_lr_ratio: f64,
    /// Periods of a cosine decay; with 0.5 the rate only falls.
    pub num_cycles: f64,
}

/// The shape of warm-up or decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecayShape {
    /// A straight line.
    Linear,
    /// A cosine.
    Cosine,
    /// 1 − √(1 − p) in warm-up, steepest at its end; 1 − √p in decay, steepest at its start.
    OneMinusSqrt,
}

const SHAPES: &[(&str, DecayShape)] = &[
    ("linear", DecayShape::Linear),
    ("cosine", DecayShape::Cosine),
    ("1-sqrt", DecayShape::OneMinusSqrt),
];

impl WarmupStableDecay {
    /// The reference's defaults.
    pub const DEFAULT: Self = WarmupStableDecay {
        num_warmup_steps: 0,
        num_decay_steps: 0,
        num_training_steps: None,
        num_stable_steps: None,
        warmup_type: DecayShape::Linear,
        decay_type: DecayShape::Cosine,
        min_lr_ratio: 0.0,
        num_cycles: 0.5,
    };
}

impl Default for WarmupStableDecay {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for WarmupStableDecay {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_decay_steps", &mut self.num_decay_steps);
        f.opt_u64("num_training_steps", &mut self.num_training_steps);
        f.opt_u64("num_stable_steps", &mut self.num_stable_steps);
        f.choice("warmup_type", &mut self.warmup_type, SHAPES);
        f.choice("decay_type", &mut self.decay_type, SHAPES);
        f.f64("min_lr_ratio", &mut self.min_lr_ratio);
        f.f64("num_cycles", &mut self.num_cycles);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps", "num_decay_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for WarmupStableDecay {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let counts = [step, self.num_warmup_steps, self.num_decay_steps];
        let [t, warmup, decay] = counts.map(F::count);
        // Negative if warm-up and decay are longer than training: then decay has progressed already when warm-up ends.
        let stable = match self.num_stable_steps {
            Some(stable) => F::count(stable),
            None => F::count(self.num_training_steps.unwrap_or(0)) - warmup - decay,
        };
        let (one, least) = (F::ONE, F::of(self.min_lr_ratio));
        let scaled = |x: F| max(F::ZERO, x * (one - least) + least);
        let factor = if t < warmup {
            let p = t / max(one, warmup);
            scaled(match self.warmup_type {
                DecayShape::Linear => p,
                DecayShape::Cosine => F::of(0.5) * (one - (F::of(PI) * p).cos()),
                DecayShape::OneMinusSqrt => one - (one - p).sqrt(),
            })
        } else if t < warmup + stable {
            one
        } else if t < warmup + stable + decay {
            let p = (t - warmup - stable) / max(one, decay);
            scaled(match self.decay_type {
                DecayShape::Linear => one - p,
                DecayShape::Cosine => cosine_wave(self.num_cycles, p),
                DecayShape::OneMinusSqrt => one - p.sqrt(),
            })
        } else {
            least
        };
        base_lr * factor
    }
}

impl ScheduleFacts for WarmupStableDecay {
    fn check(&self) -> Result<(), Error> {
        if self.num_training_steps.is_none() && self.num_stable_steps.is_none() {
            let expected = "num_training_steps or num_stable_steps";
            return Err(Error::InvalidArgument { argument: "num_stable_steps", expected });
        }
        if self.decay_type == DecayShape::Cosine { check_cycles(self.num_cycles) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    /// Warm-up 2, stable 4, decay 4.
    const COSINE: WarmupStableDecay = WarmupStableDecay {
        num_warmup_steps: 2,
        num_decay_steps: 4,
        num_training_steps: Some(10),
        num_stable_steps: None,
        warmup_type: DecayShape::Linear,
        decay_type: DecayShape::Cosine,
        min_lr_ratio: 0.0,
        num_cycles: 0.5,
    };

    #[test]
    fn rate_follows_the_formula() {
        // 8 · 1/2 on the last step of warm-up, 8 until 2 + 4 − 1
        assert_eq!([0, 1, 2, 5].map(|t| COSINE.lr(8.0, t)), [0.0, 4.0, 8.0, 8.0]);
        // decay: p = 0; p = 2/4: 8 · ½ (1 + cos ½π); the end and after it: 8 · 0
        assert_eq!([6, 8, 10, 99].map(|t| COSINE.lr(8.0, t)), [8.0, 4.0, 0.0, 0.0]);
        // p = 1/4: 8 · ½ (1 + √½) = 4 + 2√2; on the last step p = 3/4: 4 − 2√2
        assert_near(COSINE.lr(8.0, 7), 6.828_427_124_746_19);
        assert_near(COSINE.lr(8.0, 9), 1.171_572_875_253_81);
    }

    #[test]
    fn warmup_has_three_shapes() {
        let s = |warmup_type| WarmupStableDecay { num_warmup_steps: 4, warmup_type, ..COSINE };
        // p = 3/4; ½ (1 − cos ¾π) = ½ (1 + √½); 1 − √(1 − ¾)
        assert_eq!(s(DecayShape::Linear).lr(8.0, 3), 6.0);
        assert_near(s(DecayShape::Cosine).lr(8.0, 3), 6.828_427_124_746_19);
        assert_eq!(s(DecayShape::OneMinusSqrt).lr(8.0, 3), 4.0);
    }

    #[test]
    fn decay_has_three_shapes() {
        let s = |decay_type| WarmupStableDecay { decay_type, ..COSINE };
        // p = 1/4: 1 − ¼; ½ (1 + √½); 1 − √¼
        assert_eq!(s(DecayShape::Linear).lr(8.0, 7), 6.0);
        assert_near(s(DecayShape::Cosine).lr(8.0, 7), 6.828_427_124_746_19);
        assert_eq!(s(DecayShape::OneMinusSqrt).lr(8.0, 7), 4.0);
    }

    #[test]
    fn minimum_lifts_both_ends() {
        let s = WarmupStableDecay { min_lr_ratio: 0.5, decay_type: DecayShape::Linear, ..COSINE };
        // 0·½ + ½, ½·½ + ½; decay p = 3/4: ¼·½ + ½; ½ after the end
        assert_eq!([0, 1, 9, 10].map(|t| s.lr(8.0, t)), [4.0, 6.0, 5.0, 4.0]);
    }

    #[test]
    fn stable_steps_count_if_both_are_given() {
        let s = WarmupStableDecay { num_stable_steps: Some(1), ..COSINE };
        // 2 + 1: decay begins at 3 and ends at 7
        assert_eq!([2, 3, 5, 7].map(|t| s.lr(8.0, t)), [8.0, 8.0, 4.0, 0.0]);
    }

    #[test]
    fn training_that_is_too_short_begins_in_the_middle_of_decay() {
        let s = WarmupStableDecay {
            num_warmup_steps: 3,
            num_training_steps: Some(4),
            decay_type: DecayShape::Linear,
            ..COSINE
        };
        // stable = 4 − 3 − 4 = −3; at 3: p = (3 − 3 + 3)/4 = ¾
        assert_eq!([3, 4].map(|t| s.lr(8.0, t)), [2.0, 0.0]);
    }

    #[test]
    fn neither_training_nor_stable_steps_is_refused() {
        let s = WarmupStableDecay { num_training_steps: None, ..COSINE };
        let expected = "num_training_steps or num_stable_steps";
        assert_eq!(
            s.check(),
            Err(Error::InvalidArgument { argument: "num_stable_steps", expected })
        );
        assert_eq!(COSINE.check(), Ok(()));
    }
}
