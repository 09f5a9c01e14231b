//! The trait [`Schedule`], and [`GroupScheduler`], which follows one for one group step by step.

#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(feature = "alloc")]
use core::any::Any;

use super::ScheduleFloat;
use crate::Error;
#[cfg(feature = "alloc")]
use crate::hyper::HyperParams;

/// A learning rate as a function of the number of scheduler steps.
///
/// A closed form provides [`lr`](Schedule::lr) and inherits the rest; the other methods are for torch's schedules
/// that modify the current rate, and for the containers that run them. Rates are `f64`; the schedules of this module
/// are written over any [`ScheduleFloat`], so that the conformance suite can run them in numbers that know their
/// rounding error.
pub trait Schedule<F = f64>: ScheduleFacts {
    /// The rate after `step` scheduler steps, for a group whose own rate (its `initial_lr`) is `base_lr`.
    ///
    /// Update t of a training loop, counted from 1, uses `lr(base_lr, t - 1)`. Takes O(`step`) where the reference is
    /// recursive; [`GroupScheduler`] does not.
    fn lr(&self, base_lr: F, step: u64) -> F;

    /// The rate after construction, if this is the group's first schedule.
    fn start(&self, base_lr: F) -> F
    where
        F: Copy,
    {
        self.attach(base_lr, base_lr, 0)
    }

    /// The rate after construction for a group with the current rate `lr` that has an `initial_lr` already, `base_lr`:
    /// because another schedule was constructed before (`step` is 0) or training is resumed.
    fn attach(&self, base_lr: F, lr: F, step: u64) -> F {
        let _ = lr;
        self.lr(base_lr, step)
    }

    /// The rate after scheduler step number `step`, from the current rate `lr`.
    fn next(&self, base_lr: F, lr: F, step: u64) -> F {
        let _ = lr;
        self.lr(base_lr, step)
    }

    /// The rate at the milestone where [`TorchSequential`](super::TorchSequential) switches to this schedule, in closed
    /// form.
    fn restart_in_sequence(&self, base_lr: F) -> F {
        self.lr(base_lr, 0)
    }

    /// The rate after the construction of a [`TorchSequential`](super::TorchSequential) whose first schedule this is.
    fn begin_in_sequence(&self, base_lr: F, lr: F) -> F {
        self.attach(base_lr, lr, 0)
    }

    /// The group's `initial_lr` after construction, which later schedules use as their `base_lr`.
    /// `first`: this is the group's first schedule.
    fn initial_lr(&self, base_lr: F, first: bool) -> F {
        let _ = first;
        base_lr
    }
}

/// What is known of a schedule beside its rates; of most schedules nothing.
pub trait ScheduleFacts: core::fmt::Debug {
    /// `Ok` if the reference would accept these arguments.
    ///
    /// # Errors
    /// The argument that it refuses.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The last step that the reference makes, from the start, before it raises an error; `None` if there is no such
    /// limit.
    fn last_step(&self) -> Option<u64> {
        None
    }

    /// Whether the reference makes this step, where training may have been resumed behind the [last](Self::last_step).
    fn has_step(&self, step: u64) -> bool {
        self.last_step().is_none_or(|last| step <= last)
    }

    /// The momentum (or β₁) that scheduler step number `step` sets; `None` if it sets none.
    fn momentum(&self, step: u64) -> Option<f64> {
        let _ = step;
        None
    }

    /// The momentum (or β₁) that the constructor sets.
    fn start_momentum(&self) -> Option<f64> {
        self.momentum(0)
    }
}

/// Implements [`Schedule`] for a pointer to a schedule.
macro_rules! forward {
    ($pointer:ty) => {
        impl<S: Schedule + ?Sized> Schedule for $pointer {
            fn lr(&self, base_lr: f64, step: u64) -> f64 {
                (**self).lr(base_lr, step)
            }
            fn start(&self, base_lr: f64) -> f64 {
                (**self).start(base_lr)
            }
            fn attach(&self, base_lr: f64, lr: f64, step: u64) -> f64 {
                (**self).attach(base_lr, lr, step)
            }
            fn next(&self, base_lr: f64, lr: f64, step: u64) -> f64 {
                (**self).next(base_lr, lr, step)
            }
            fn restart_in_sequence(&self, base_lr: f64) -> f64 {
                (**self).restart_in_sequence(base_lr)
            }
            fn begin_in_sequence(&self, base_lr: f64, lr: f64) -> f64 {
                (**self).begin_in_sequence(base_lr, lr)
            }
            fn initial_lr(&self, base_lr: f64, first: bool) -> f64 {
                (**self).initial_lr(base_lr, first)
            }
        }

        impl<S: ScheduleFacts + ?Sized> ScheduleFacts for $pointer {
            fn check(&self) -> Result<(), Error> {
                (**self).check()
            }
            fn last_step(&self) -> Option<u64> {
                (**self).last_step()
            }
            fn has_step(&self, step: u64) -> bool {
                (**self).has_step(step)
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
forward!(Box<S>);

/// A schedule with named arguments whose type is known at run time only, for a [`Scheduler`](super::Scheduler) to run.
/// Implemented for every `Clone` type that is a [`Schedule`] and has [`HyperParams`].
#[cfg(feature = "alloc")]
pub trait AnySchedule: Schedule + HyperParams + Any + Send + Sync {
    /// A boxed copy.
    fn clone_box(&self) -> Box<dyn AnySchedule>;
}

#[cfg(feature = "alloc")]
impl<S: Schedule + HyperParams + Clone + Send + Sync + 'static> AnySchedule for S {
    fn clone_box(&self) -> Box<dyn AnySchedule> {
        Box::new(self.clone())
    }
}

#[cfg(feature = "alloc")]
impl Clone for Box<dyn AnySchedule> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// One group's rate, advanced by one scheduler step at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupScheduler<S> {
    schedule: S,
    base_lr: f64,
    lr: f64,
    step: u64,
}

impl<S: Schedule> GroupScheduler<S> {
    /// At the start of training.
    pub fn new(schedule: S, base_lr: f64) -> Self {
        let lr = schedule.start(base_lr);
        GroupScheduler { schedule, base_lr, lr, step: 0 }
    }

    /// Resumes after step `last_epoch`, as the reference's constructor does: the group's current rate is `lr`, its
    /// `initial_lr` is `base_lr`.
    pub fn resume(schedule: S, base_lr: f64, lr: f64, last_epoch: u64) -> Self {
        let step = last_epoch.saturating_add(1);
        let lr = schedule.attach(base_lr, lr, step);
        GroupScheduler { schedule, base_lr, lr, step }
    }

    /// The current rate.
    pub fn lr(&self) -> f64 {
        self.lr
    }

    /// Makes a scheduler step and returns the new rate.
    ///
    /// # Errors
    /// A step that the schedule [has not](ScheduleFacts::has_step); nothing is changed then.
    pub fn step(&mut self) -> Result<f64, Error> {
        let step = self.step.saturating_add(1);
        if !self.schedule.has_step(step) {
            return Err(PAST_THE_END);
        }
        self.step = step;
        self.lr = self.schedule.next(self.base_lr, self.lr, step);
        Ok(self.lr)
    }
}

/// The error for a step that a schedule [has not](ScheduleFacts::has_step).
pub(super) const PAST_THE_END: Error =
    Error::InvalidArgument { argument: "step", expected: "no step beyond the schedule's last" };

/// [`Schedule::lr`] of a recursive schedule: all steps from the start.
pub(super) fn iterate<F: ScheduleFloat>(
    schedule: &(impl Schedule<F> + ?Sized),
    base_lr: F,
    step: u64,
) -> F {
    let start = schedule.start(base_lr);
    (1..=step).fold(start, |lr, step| schedule.next(base_lr, lr, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Linear, TorchExponential, TorchMultiStep, TorchOneCycle};

    /// Refuses its third step.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Short;

    impl Schedule for Short {
        fn lr(&self, base_lr: f64, step: u64) -> f64 {
            base_lr * step as f64
        }
    }

    impl ScheduleFacts for Short {
        fn last_step(&self) -> Option<u64> {
            Some(2)
        }
    }

    #[test]
    fn stepper_counts_and_stops() {
        let mut lr = GroupScheduler::new(Short, 0.5);
        assert_eq!([lr.lr(), lr.step().unwrap(), lr.step().unwrap()], [0.0, 0.5, 1.0]);
        let last = lr;
        assert!(matches!(lr.step(), Err(Error::InvalidArgument { argument: "step", .. })));
        assert_eq!(lr, last);
    }

    #[test]
    fn resumed_stepper_goes_on_after_the_last_epoch() {
        let linear = Linear { num_warmup_steps: 0, num_training_steps: 8 };
        let mut lr = GroupScheduler::resume(linear, 8.0, 123.0, 3);
        // a closed form does not use the current rate: 8 · (8 − 4)/8, 8 · (8 − 5)/8
        assert_eq!((lr.lr(), lr.step()), (4.0, Ok(3.0)));
        // a recursive one does: constructed at step 4 it keeps 123, then halves it
        let mut lr = GroupScheduler::resume(TorchExponential { gamma: 0.5 }, 8.0, 123.0, 3);
        assert_eq!((lr.lr(), lr.step()), (123.0, Ok(61.5)));
    }

    #[test]
    fn pointer_to_a_schedule_is_that_schedule() {
        // Every method, on schedules that do not inherit the default implementation.
        let (cycle, chain) = (
            TorchOneCycle { max_lr: 1.0, total_steps: Some(4), ..TorchOneCycle::default() },
            TorchMultiStep { milestones: [0, 1], gamma: 0.5 },
        );
        for s in [&cycle as &dyn Schedule, &chain, &Short] {
            let p = &s;
            assert_eq!(p.check(), s.check());
            assert_eq!(p.lr(8.0, 1), s.lr(8.0, 1));
            assert_eq!(p.start(8.0), s.start(8.0));
            assert_eq!(p.attach(8.0, 2.0, 1), s.attach(8.0, 2.0, 1));
            assert_eq!(p.next(8.0, 2.0, 1), s.next(8.0, 2.0, 1));
            assert_eq!(p.restart_in_sequence(8.0), s.restart_in_sequence(8.0));
            assert_eq!(p.begin_in_sequence(8.0, 2.0), s.begin_in_sequence(8.0, 2.0));
            assert_eq!(p.initial_lr(8.0, true), s.initial_lr(8.0, true));
            assert_eq!(p.last_step(), s.last_step());
            assert_eq!([2, 3].map(|t| p.has_step(t)), [2, 3].map(|t| s.has_step(t)));
            assert_eq!(p.momentum(1), s.momentum(1));
            assert_eq!(p.start_momentum(), s.start_momentum());
        }
    }
}
