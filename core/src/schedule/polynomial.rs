use super::{Schedule, ScheduleFacts, ScheduleFloat, warmup};
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{FieldVisitor, HyperParams};

/// Linear warm-up from 0, then polynomial decay to `lr_end`.
///
/// # Formula
/// λ(t) = t / warmup for t < warmup, then ((lr_init − lr_end) · r^power + lr_end) / lr_init,
/// r = 1 − (t − warmup) / (training − warmup); lr_end / lr_init past the end. The rate is `base_lr` · λ(t).
///
/// # Source
/// `transformers.get_polynomial_decay_schedule_with_warmup`. `lr_init` is the optimizer's own `lr`, also for groups that
/// have another: such a group ends at `base_lr` · lr_end / lr_init.
///
/// # Errors
/// `lr_init` ≤ `lr_end`; an `lr_init` of 0, or no steps at all, by which the reference divides. If warm-up lasts exactly
/// as long as training, or `power` is negative, the reference divides by zero at the last step of training:
/// [`last_step`](super::ScheduleFacts::last_step) is the step before.
///
/// # Example
/// ```
/// use bitstep::schedule::{Polynomial, Schedule};
/// let s = Polynomial { num_warmup_steps: 2, num_training_steps: 6, lr_end: 0.0, power: 2.0, lr_init: 1.0 };
/// assert_eq!([1, 2, 4, 6, 7].map(|t| s.lr(1.0, t)), [0.5, 1.0, 0.25, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Polynomial {
    /// Steps of warm-up.
    pub num_warmup_steps: u64,
    /// Steps of the whole training.
    pub num_training_steps: u64,
    /// The rate at the end, for a group with the rate `lr_init`.
    pub lr_end: f64,
    /// The exponent.
    pub power: f64,
    /// The optimizer's `lr`.
    pub lr_init: f64,
}

impl Polynomial {
    /// The reference's defaults.
    pub const DEFAULT: Self = Polynomial {
        num_warmup_steps: 0,
        num_training_steps: 0,
        lr_end: 1e-7,
        power: 1.0,
        lr_init: 1e-3,
    };
}

impl Default for Polynomial {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for Polynomial {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.u64("num_warmup_steps", &mut self.num_warmup_steps);
        f.u64("num_training_steps", &mut self.num_training_steps);
        f.f64("lr_end", &mut self.lr_end);
        f.f64("power", &mut self.power);
        f.f64("lr_init", &mut self.lr_init);
    }

    fn required(&self) -> &'static [&'static str] {
        &["num_warmup_steps", "num_training_steps"]
    }
}

impl<F: ScheduleFloat> Schedule<F> for Polynomial {
    fn lr(&self, base_lr: F, step: u64) -> F {
        let (init, end) = (F::of(self.lr_init), F::of(self.lr_end));
        let decay = || {
            if step > self.num_training_steps {
                return end / init;
            }
            let counts = [step, self.num_warmup_steps, self.num_training_steps];
            let [t, w, n] = counts.map(F::count);
            let remaining = F::ONE - (t - w) / (n - w);
            ((init - end) * remaining.pow(F::of(self.power)) + end) / init
        };
        base_lr * warmup(step, self.num_warmup_steps).unwrap_or_else(decay)
    }
}

impl ScheduleFacts for Polynomial {
    fn check(&self) -> Result<(), Error> {
        ensure_range(self.lr_init > self.lr_end, "lr_end", self.lr_end, "lr_end < lr")?;
        ensure_range(self.lr_init != 0.0, "lr", self.lr_init, "lr != 0")?;
        let steps = self.num_warmup_steps.saturating_add(self.num_training_steps);
        ensure_range(steps > 0, "num_training_steps", 0.0, "num_training_steps >= 1")
    }

    fn last_step(&self) -> Option<u64> {
        let (warmup, training) = (self.num_warmup_steps, self.num_training_steps);
        let divides =
            warmup == training || (warmup < training && self.power < 0.0 && self.power.is_finite());
        if divides { training.checked_sub(1) } else { None }
    }

    fn has_step(&self, step: u64) -> bool {
        self.last_step().is_none() || step != self.num_training_steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: Polynomial = Polynomial {
        num_warmup_steps: 2,
        num_training_steps: 10,
        lr_end: 0.25,
        power: 2.0,
        lr_init: 1.0,
    };

    #[test]
    fn rate_follows_the_formula() {
        // 1/2 on the last step of warm-up; ¾·1 + ¼; r = 1 − 4/8: ¾·¼ + ¼; r = 1 − 7/8: ¾/64 + ¼
        assert_eq!([1, 2, 6, 9].map(|t| SQUARE.lr(1.0, t)), [0.5, 1.0, 0.4375, 0.26171875]);
        // r = 0: ¼; past the end ¼ / 1
        assert_eq!([10, 11, u64::MAX].map(|t| SQUARE.lr(1.0, t)), [0.25; 3]);
    }

    #[test]
    fn rate_of_a_group_of_its_own_is_scaled_by_the_optimizers() {
        // λ = (¾·¼ + ¼)/1, at the end ¼/1; times 4.
        assert_eq!([6, 10].map(|t| SQUARE.lr(4.0, t)), [1.75, 1.0]);
        // With lr_init 2: (1.75·¼ + ¼)/2 = 0.34375 of 4
        assert_eq!(Polynomial { lr_init: 2.0, ..SQUARE }.lr(4.0, 6), 1.375);
    }

    #[test]
    fn rate_of_a_root_falls_late() {
        // r = 1 − 6/8: ¾·√¼ + ¼
        assert_eq!(Polynomial { power: 0.5, ..SQUARE }.lr(1.0, 8), 0.625);
    }

    #[test]
    fn step_at_which_the_reference_divides_by_zero_is_refused() {
        let s = Polynomial { num_warmup_steps: 10, ..SQUARE }; // 1 − 0/0
        assert_eq!((s.check(), s.last_step()), (Ok(()), Some(9)));
        let s = Polynomial { power: -1.0, ..SQUARE }; // 0⁻¹
        assert_eq!((s.check(), s.last_step()), (Ok(()), Some(9)));
        // Past the end as soon as warm-up is over, or infinite as in the reference.
        let s = Polynomial { num_warmup_steps: 11, power: -1.0, ..SQUARE };
        assert_eq!(s.last_step(), None);
        assert_eq!(Polynomial { power: f64::NEG_INFINITY, ..SQUARE }.last_step(), None);
        assert_eq!(SQUARE.last_step(), None);
        let s = Polynomial { num_warmup_steps: 0, num_training_steps: 0, ..SQUARE };
        assert!(matches!(s.check(), Err(Error::OutOfRange { argument: "num_training_steps", .. })));
    }

    #[test]
    fn end_that_is_not_below_the_start_is_refused() {
        for value in [1.0, 1.5, f64::NAN] {
            match (Polynomial { lr_end: value, ..SQUARE }).check() {
                Err(Error::OutOfRange { argument: "lr_end", value: got, .. }) => {
                    assert_eq!(got.to_bits(), value.to_bits());
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(SQUARE.check(), Ok(()));
    }
}
