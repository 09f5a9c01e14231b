//! Learning-rate schedules.
//!
//! A schedule is a plain value whose fields are the reference's arguments. Most are pure functions of the number of
//! scheduler steps ([`Schedule::lr`]); torch's recursive ones change the rate in force instead and so accumulate
//! rounding, which [`Stepper`] follows in O(1) a step. [`ReduceLrOnPlateau`] and [`Greedy`] are driven by a metric
//! and keep their state in an explicit value, as [`AdafactorSchedule`] follows its optimizer.
//!
//! A [`Scheduler`] runs a schedule for all groups of an optimizer: one that is [built](build) from a name and arguments,
//! or [one of your own](Scheduler::of).
//!
//! Numbers are f64, as Python's, and f32 for those of TensorFlow.
//!
//! ```
//! use bitstep::schedule::{Cosine, Schedule, Stepper};
//! let cosine = Cosine { num_warmup_steps: 10, num_training_steps: 100, num_cycles: 0.5 };
//! assert_eq!(cosine.lr(1e-3, 5), 5e-4);
//! assert_eq!(cosine.lr(1e-3, 55), 1e-3 * 0.5);
//! assert_eq!(cosine.lr(1e-3, 100), 0.0);
//!
//! let mut lr = Stepper::new(cosine, 1e-3); // one for each parameter group
//! assert_eq!(lr.lr(), 0.0);
//! assert_eq!(lr.step()?, 1e-4);
//! # Ok::<(), bitstep::Error>(())
//! ```

mod adafactor_schedule;
#[cfg(feature = "alloc")]
mod arguments;
mod constant;
mod constant_with_warmup;
mod cosine;
mod cosine_warmup_with_min_lr;
mod cosine_with_min_lr;
mod cosine_with_restarts;
mod create_optimizer;
mod greedy;
mod inverse_sqrt;
pub mod keras;
mod linear;
mod metric;
#[cfg(feature = "alloc")]
mod named;
mod polynomial;
mod reduce_lr_on_plateau;
#[cfg(feature = "alloc")]
mod saved;
#[cfg(feature = "alloc")]
mod scheduler;
mod torch_chained;
mod torch_constant;
mod torch_cosine_annealing;
mod torch_cosine_annealing_warm_restarts;
mod torch_cyclic;
mod torch_exponential;
mod torch_linear;
mod torch_multi_step;
mod torch_one_cycle;
mod torch_polynomial;
mod torch_sequential;
mod torch_step;
mod warm_up;
mod warmup_stable_decay;

pub use adafactor_schedule::{AdafactorSchedule, AdafactorScheduleState};
pub use constant::Constant;
pub use constant_with_warmup::ConstantWithWarmup;
pub use cosine::Cosine;
pub use cosine_warmup_with_min_lr::CosineWarmupWithMinLr;
pub use cosine_with_min_lr::CosineWithMinLr;
pub use cosine_with_restarts::CosineWithRestarts;
pub use create_optimizer::CreateOptimizer;
pub use greedy::{Greedy, GreedyState};
pub use inverse_sqrt::InverseSqrt;
pub use linear::Linear;
pub use metric::{Mode, ThresholdMode};
#[cfg(feature = "alloc")]
pub use named::{NAMES, build};
pub use polynomial::Polynomial;
pub use reduce_lr_on_plateau::{PlateauState, ReduceLrOnPlateau};
#[cfg(feature = "alloc")]
pub use scheduler::{Scheduler, SchedulerState};
pub use torch_chained::TorchChained;
pub use torch_constant::TorchConstant;
pub use torch_cosine_annealing::TorchCosineAnnealing;
pub use torch_cosine_annealing_warm_restarts::TorchCosineAnnealingWarmRestarts;
pub use torch_cyclic::{CyclicMode, TorchCyclic};
pub use torch_exponential::TorchExponential;
pub use torch_linear::TorchLinear;
pub use torch_multi_step::TorchMultiStep;
pub use torch_one_cycle::{Anneal, TorchOneCycle};
pub use torch_polynomial::TorchPolynomial;
pub use torch_sequential::TorchSequential;
pub use torch_step::TorchStep;
pub use warm_up::WarmUp;
pub use warmup_stable_decay::{Shape, WarmupStableDecay};

use crate::Error;
#[cfg(feature = "alloc")]
use crate::args::Hyper;

/// A learning rate as a function of the number of scheduler steps.
///
/// A closed form provides [`lr`](Schedule::lr) and inherits the rest; the other methods are for torch's schedules
/// that change the rate in force, and for the containers that run them.
pub trait Schedule: core::fmt::Debug {
    /// `Ok` if the reference would take these arguments.
    ///
    /// # Errors
    /// The argument that it refuses.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The rate of a group after `step` scheduler steps; its own rate is `base_lr`.
    ///
    /// Takes O(`step`) where the reference is recursive; see [`Stepper`].
    fn lr(&self, base_lr: f64, step: u64) -> f64;

    /// The rate after construction, where no schedule was made before.
    fn start(&self, base_lr: f64) -> f64 {
        self.join(base_lr, base_lr, 0)
    }

    /// What the constructor makes of a group's rate `lr` where the group has an `initial_lr` already: another schedule
    /// was made before (`step` is 0), or training is resumed.
    fn join(&self, base_lr: f64, lr: f64, step: u64) -> f64 {
        let _ = lr;
        self.lr(base_lr, step)
    }

    /// What scheduler step number `step` makes of `lr`.
    fn next(&self, base_lr: f64, lr: f64, step: u64) -> f64 {
        let _ = lr;
        self.lr(base_lr, step)
    }

    /// The rate where [`TorchSequential`] hands over to this schedule, in closed form.
    fn restart(&self, base_lr: f64) -> f64 {
        self.lr(base_lr, 0)
    }

    /// What [`TorchSequential`] makes of `lr` when this is the schedule it begins with.
    fn begin(&self, base_lr: f64, lr: f64) -> f64 {
        self.join(base_lr, lr, 0)
    }

    /// The group's `initial_lr` after construction: what later schedules take for their `base_lr`.
    /// `first` says that no schedule was made before.
    fn initial_lr(&self, base_lr: f64, first: bool) -> f64 {
        let _ = first;
        base_lr
    }

    /// The last step that the reference takes; it refuses to go on.
    fn last_step(&self) -> Option<u64> {
        None
    }

    /// The momentum (or β₁) that scheduler step number `step` sets; `None` if it leaves it alone.
    fn momentum(&self, step: u64) -> Option<f64> {
        let _ = step;
        None
    }

    /// The momentum (or β₁) that the constructor sets.
    fn start_momentum(&self) -> Option<f64> {
        self.momentum(0)
    }
}

/// A pointer to a schedule is a schedule.
macro_rules! forward {
    ($pointer:ty) => {
        impl<S: Schedule + ?Sized> Schedule for $pointer {
            fn check(&self) -> Result<(), Error> {
                (**self).check()
            }
            fn lr(&self, base_lr: f64, step: u64) -> f64 {
                (**self).lr(base_lr, step)
            }
            fn start(&self, base_lr: f64) -> f64 {
                (**self).start(base_lr)
            }
            fn join(&self, base_lr: f64, lr: f64, step: u64) -> f64 {
                (**self).join(base_lr, lr, step)
            }
            fn next(&self, base_lr: f64, lr: f64, step: u64) -> f64 {
                (**self).next(base_lr, lr, step)
            }
            fn restart(&self, base_lr: f64) -> f64 {
                (**self).restart(base_lr)
            }
            fn begin(&self, base_lr: f64, lr: f64) -> f64 {
                (**self).begin(base_lr, lr)
            }
            fn initial_lr(&self, base_lr: f64, first: bool) -> f64 {
                (**self).initial_lr(base_lr, first)
            }
            fn last_step(&self) -> Option<u64> {
                (**self).last_step()
            }
            fn momentum(&self, step: u64) -> Option<f64> {
                (**self).momentum(step)
            }
            fn start_momentum(&self) -> Option<f64> {
                (**self).start_momentum()
            }
        }
    };
}

forward!(&S);
#[cfg(feature = "alloc")]
forward!(alloc::boxed::Box<S>);

/// A schedule with arguments, of a type that is known at run time only: what a [`Scheduler`] runs. Everything that has
/// both and can be copied is one.
#[cfg(feature = "alloc")]
pub trait AnySchedule: Schedule + Hyper + Send + Sync {
    /// A copy.
    fn boxed(&self) -> alloc::boxed::Box<dyn AnySchedule>;
}

#[cfg(feature = "alloc")]
impl<S: Schedule + Hyper + Clone + Send + Sync + 'static> AnySchedule for S {
    fn boxed(&self) -> alloc::boxed::Box<dyn AnySchedule> {
        alloc::boxed::Box::new(self.clone())
    }
}

#[cfg(feature = "alloc")]
impl Clone for alloc::boxed::Box<dyn AnySchedule> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// One group's rate, a scheduler step at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepper<S> {
    schedule: S,
    base_lr: f64,
    lr: f64,
    step: u64,
}

impl<S: Schedule> Stepper<S> {
    /// At the start of training.
    pub fn new(schedule: S, base_lr: f64) -> Self {
        let lr = schedule.start(base_lr);
        Stepper { schedule, base_lr, lr, step: 0 }
    }

    /// As the reference's constructor with `last_epoch`: the group's rate is `lr` and its `initial_lr` is `base_lr`.
    pub fn resume(schedule: S, base_lr: f64, lr: f64, last_epoch: u64) -> Self {
        let step = last_epoch.saturating_add(1);
        let lr = schedule.join(base_lr, lr, step);
        Stepper { schedule, base_lr, lr, step }
    }

    /// The rate in force.
    pub fn lr(&self) -> f64 {
        self.lr
    }

    /// Makes a scheduler step and returns the new rate.
    ///
    /// # Errors
    /// A step beyond [`Schedule::last_step`]; nothing has changed then.
    pub fn step(&mut self) -> Result<f64, Error> {
        let step = self.step.saturating_add(1);
        if self.schedule.last_step().is_some_and(|last| step > last) {
            return Err(PAST_THE_END);
        }
        self.step = step;
        self.lr = self.schedule.next(self.base_lr, self.lr, step);
        Ok(self.lr)
    }
}

/// A step beyond [`Schedule::last_step`].
const PAST_THE_END: Error =
    Error::Invalid { argument: "step", wanted: "no step beyond the schedule's last" };

/// [`Schedule::lr`] of a schedule that only knows how to go on.
fn walk(schedule: &(impl Schedule + ?Sized), base_lr: f64, step: u64) -> f64 {
    let start = schedule.start(base_lr);
    (1..=step).fold(start, |lr, step| schedule.next(base_lr, lr, step))
}

/// The linear warm-up that Transformers' schedules share: a share of the rate, or `None` once it is over.
///
/// ```
/// use bitstep::schedule::{max, progress, warmup};
/// /// Up in a line, then down in one, but not below a tenth.
/// fn share(step: u64) -> f64 {
///     warmup(step, 2).unwrap_or_else(|| max(0.1, 1.0 - progress(step, 2, 6)))
/// }
/// assert_eq!([0, 1, 2, 4, 6].map(share), [0.0, 0.5, 1.0, 0.5, 0.1]);
/// ```
#[must_use]
pub fn warmup(step: u64, num_warmup_steps: u64) -> Option<f64> {
    (step < num_warmup_steps).then(|| step as f64 / num_warmup_steps as f64)
}

/// How far a step is between warm-up and end of training; beyond 1 past the end.
#[must_use]
pub fn progress(step: u64, num_warmup_steps: u64, num_training_steps: u64) -> f64 {
    let [step, warmup, training] = [step, num_warmup_steps, num_training_steps].map(|n| n as f64);
    (step - warmup) / max(1.0, training - warmup)
}

/// ½ (1 + cos(π · num_cycles · 2 · progress)), in the reference's order.
fn cosine_wave(num_cycles: f64, progress: f64) -> f64 {
    use core::f64::consts::PI;
    0.5 * (1.0 + crate::accurate::cos(PI * num_cycles * 2.0 * progress))
}

/// The cosine of an infinite number is an error in the reference.
fn check_cycles(num_cycles: f64) -> Result<(), Error> {
    Error::range(!num_cycles.is_infinite(), "num_cycles", num_cycles, "-inf < num_cycles < inf")
}

/// Python's `max`: the first argument if either is NaN.
#[must_use]
pub fn max(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

/// Python's `min`: the first argument if either is NaN.
#[must_use]
pub fn min(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
}

/// A value for all groups, or one for each, as the reference takes them.
pub trait PerGroup {
    /// The value for a group; `None` if there are fewer.
    fn at(&self, group: usize) -> Option<f64>;
    /// How many there are; `None` for any number.
    fn count(&self) -> Option<usize>;
}

impl PerGroup for f64 {
    fn at(&self, _: usize) -> Option<f64> {
        Some(*self)
    }
    fn count(&self) -> Option<usize> {
        None
    }
}

impl PerGroup for [f64] {
    fn at(&self, group: usize) -> Option<f64> {
        self.get(group).copied()
    }
    fn count(&self) -> Option<usize> {
        Some(self.len())
    }
}

impl<const N: usize> PerGroup for [f64; N] {
    fn at(&self, group: usize) -> Option<f64> {
        self.get(group).copied()
    }
    fn count(&self) -> Option<usize> {
        Some(N)
    }
}

impl<T: PerGroup + ?Sized> PerGroup for &T {
    fn at(&self, group: usize) -> Option<f64> {
        (**self).at(group)
    }
    fn count(&self) -> Option<usize> {
        (**self).count()
    }
}

#[cfg(feature = "alloc")]
impl PerGroup for alloc::vec::Vec<f64> {
    fn at(&self, group: usize) -> Option<f64> {
        self.get(group).copied()
    }
    fn count(&self) -> Option<usize> {
        Some(self.len())
    }
}

/// The same number but for the rounding of a few operations: 4 ULP of a number just above a power of two.
#[cfg(test)]
fn assert_near(got: f64, want: f64) {
    let bound = 4.0 * f64::EPSILON * want.abs();
    assert!((got - want).abs() <= bound, "{got:e}, wanted {want:e}");
}

/// `Ok` if `values` fits `groups` groups.
fn check_groups(
    argument: &'static str,
    values: &impl PerGroup,
    groups: usize,
) -> Result<(), Error> {
    match values.count() {
        Some(got) if got != groups => Err(Error::Length { argument, got, wanted: groups }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses its third step.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Short;

    impl Schedule for Short {
        fn lr(&self, base_lr: f64, step: u64) -> f64 {
            base_lr * step as f64
        }
        fn last_step(&self) -> Option<u64> {
            Some(2)
        }
    }

    #[test]
    fn stepper_counts_and_stops() {
        let mut lr = Stepper::new(Short, 0.5);
        assert_eq!([lr.lr(), lr.step().unwrap(), lr.step().unwrap()], [0.0, 0.5, 1.0]);
        let last = lr;
        assert!(matches!(lr.step(), Err(Error::Invalid { argument: "step", .. })));
        assert_eq!(lr, last);
    }

    #[test]
    fn resumed_stepper_goes_on_after_the_last_epoch() {
        let linear = Linear { num_warmup_steps: 0, num_training_steps: 8 };
        let mut lr = Stepper::resume(linear, 8.0, 123.0, 3);
        // a closed form does not look at the rate in force: 8 · (8 − 4)/8, 8 · (8 − 5)/8
        assert_eq!((lr.lr(), lr.step()), (4.0, Ok(3.0)));
        // one that multiplies does: made at step 4 it leaves 123, then halves it
        let mut lr = Stepper::resume(TorchExponential { gamma: 0.5 }, 8.0, 123.0, 3);
        assert_eq!((lr.lr(), lr.step()), (123.0, Ok(61.5)));
    }

    #[test]
    fn pointer_to_a_schedule_is_that_schedule() {
        // Every method, on schedules whose answer is not the default one.
        let (cycle, chain) = (
            TorchOneCycle { max_lr: 1.0, total_steps: Some(4), ..TorchOneCycle::default() },
            TorchMultiStep { milestones: [0, 1], gamma: 0.5 },
        );
        for s in [&cycle as &dyn Schedule, &chain, &Short] {
            let p = &s;
            assert_eq!(p.check(), s.check());
            assert_eq!(p.lr(8.0, 1), s.lr(8.0, 1));
            assert_eq!(p.start(8.0), s.start(8.0));
            assert_eq!(p.join(8.0, 2.0, 1), s.join(8.0, 2.0, 1));
            assert_eq!(p.next(8.0, 2.0, 1), s.next(8.0, 2.0, 1));
            assert_eq!(p.restart(8.0), s.restart(8.0));
            assert_eq!(p.begin(8.0, 2.0), s.begin(8.0, 2.0));
            assert_eq!(p.initial_lr(8.0, true), s.initial_lr(8.0, true));
            assert_eq!(p.last_step(), s.last_step());
            assert_eq!(p.momentum(1), s.momentum(1));
            assert_eq!(p.start_momentum(), s.start_momentum());
        }
    }

    #[test]
    fn warmup_ends_before_its_last_step() {
        assert_eq!([0, 3, 4].map(|t| warmup(t, 4)), [Some(0.0), Some(0.75), None]);
        assert_eq!(warmup(0, 0), None);
    }

    #[test]
    fn progress_goes_on_past_the_end() {
        // (t − 2)/(10 − 2); a training shorter than warm-up lasts one step
        assert_eq!([2, 6, 10, 14].map(|t| progress(t, 2, 10)), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(progress(7, 5, 3), 2.0);
    }

    #[test]
    fn max_and_min_keep_the_first_of_a_nan() {
        assert_eq!([max(1.0, 2.0), min(1.0, 2.0)], [2.0, 1.0]);
        assert_eq!([max(1.0, f64::NAN), min(1.0, f64::NAN)], [1.0, 1.0]);
        assert!(max(f64::NAN, 1.0).is_nan() && min(f64::NAN, 1.0).is_nan());
    }

    #[test]
    fn values_fit_their_groups_or_are_refused() {
        let list = [0.1, 0.2];
        assert_eq!(
            [0.5.at(0), 0.5.at(9), list.at(1), list.at(2)],
            [Some(0.5), Some(0.5), Some(0.2), None]
        );
        assert_eq!(check_groups("min_lr", &0.5, 7), Ok(()));
        assert_eq!(check_groups("min_lr", &list, 2), Ok(()));
        let refused = Error::Length { argument: "min_lr", got: 2, wanted: 3 };
        assert_eq!(check_groups("min_lr", &&list[..], 3), Err(refused));
    }

    #[test]
    fn first_of_two_equal_numbers_is_the_larger_and_the_smaller() {
        // As Python has it, which shows where zeros differ in sign.
        assert!(max(0.0, -0.0).is_sign_positive() && max(-0.0, 0.0).is_sign_negative());
        assert!(min(0.0, -0.0).is_sign_positive() && min(-0.0, 0.0).is_sign_negative());
        assert!(max(f64::NAN, 1.0).is_nan() && min(f64::NAN, 1.0).is_nan());
        assert_eq!((max(1.0, 2.0), min(1.0, 2.0)), (2.0, 1.0));
    }

    #[test]
    fn each_group_has_its_own_number_or_all_have_one() {
        fn at<P: PerGroup + ?Sized>(p: &P) -> ([Option<f64>; 3], Option<usize>) {
            ([0, 1, 2].map(|g| p.at(g)), p.count())
        }
        let own = ([Some(3.0), Some(5.0), None], Some(2));
        assert_eq!(at(&[3.0, 5.0]), own);
        assert_eq!(at(&[3.0, 5.0][..]), own);
        assert_eq!(at(&&[3.0, 5.0][..]), own);
        #[cfg(feature = "alloc")]
        assert_eq!(at(&alloc::vec![3.0, 5.0]), own);
        assert_eq!(at(&2.0), ([Some(2.0); 3], None));
    }
}
