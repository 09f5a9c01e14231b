use core::fmt::Debug;
use core::ops::Deref;

#[cfg(feature = "alloc")]
use super::Make;
use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// Several schedules one after the other, switched at milestones.
///
/// # Order of operations
/// At a milestone the rate becomes the next schedule's first rate in closed form, from the group's `initial_lr`,
/// whatever the current rate; from there on that schedule counts its own steps.
///
/// # Source
/// `torch.optim.lr_scheduler.SequentialLR`, its schedules constructed in their order.
///
/// # Errors
/// No schedules, or not exactly one milestone fewer than schedules; a schedule that refuses its arguments.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchConstant, TorchExponential, TorchSequential};
/// let (warm, cool) = (TorchConstant { factor: 0.5, total_iters: 9 }, TorchExponential { gamma: 0.5 });
/// let schedulers: [&dyn Schedule; 2] = [&warm, &cool];
/// let s = TorchSequential { schedulers: &schedulers[..], milestones: [2] };
/// assert_eq!([0, 1, 2, 3].map(|t| s.lr(1.0, t)), [0.5, 0.5, 1.0, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchSequential<S, M> {
    /// The schedules, in order.
    pub schedulers: S,
    /// The first step of each schedule but the first.
    pub milestones: M,
}

#[cfg(feature = "alloc")]
pub(super) const MAKE: Make = Make::Pure(|entry, mut args, context| {
    let nested = super::torch_chained::schedulers(entry.name, &mut args, context)?;
    // The reference can't restart a nested SequentialLR, and restarts a ChainedScheduler one step off.
    let mut names = nested.iter().map(|(name, _)| name.as_str()).enumerate();
    if names.any(|(i, s)| s == entry.name || (s == "torch_chained" && i > 0)) {
        let expected = "no SequentialLR, and a ChainedScheduler only at the start";
        return Err(Error::InvalidArgument { argument: "schedulers", expected }.into());
    }
    let schedulers = super::torch_chained::schedules(nested, context)?;
    let milestones = super::arguments::steps(entry.name, "milestones", &mut args)?;
    entry.parse(TorchSequential { schedulers, milestones }, args, context)
});

impl<S, M> HyperParams for TorchSequential<S, M> {
    /// There are no arguments but `schedulers` and `milestones`, which are set before.
    fn fields(&mut self, _: &mut dyn FieldVisitor) {}
}

impl<T, S: Deref<Target = [T]>, M: AsRef<[u64]>> TorchSequential<S, M> {
    /// The index of the schedule that is active at a step, and its milestone.
    fn place(&self, step: u64) -> (usize, Option<u64>) {
        let milestones = self.milestones.as_ref();
        let index = bisect_right(milestones, step);
        (index, index.checked_sub(1).and_then(|i| milestones.get(i)).copied())
    }

    /// The schedule that is active at a step, the `initial_lr` that its constructor found, and its milestone.
    fn at<F: ScheduleFloat>(&self, base_lr: F, step: u64) -> Option<(&T, F, Option<u64>)>
    where
        T: Schedule<F>,
    {
        let (index, began) = self.place(step);
        Some((self.schedulers.get(index)?, self.base(base_lr, index, true), began))
    }

    /// The group's `initial_lr` after the construction of the first `count` schedules.
    fn base<F: ScheduleFloat>(&self, base_lr: F, count: usize, first: bool) -> F
    where
        T: Schedule<F>,
    {
        let constructed = self.schedulers.iter().take(count).enumerate();
        constructed.fold(base_lr, |base, (i, s)| s.initial_lr(base, first && i == 0))
    }
}

impl<F, T, S, M> Schedule<F> for TorchSequential<S, M>
where
    F: ScheduleFloat,
    T: Schedule<F>,
    S: Deref<Target = [T]> + Debug,
    M: AsRef<[u64]> + Debug,
{
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, base_lr: F, lr: F, _: u64) -> F {
        let reset = self.base(base_lr, self.schedulers.len(), true);
        self.at(base_lr, 0).map_or(lr, |(s, base, _)| s.begin_in_sequence(base, reset))
    }

    fn next(&self, base_lr: F, lr: F, step: u64) -> F {
        match self.at(base_lr, step) {
            None => lr,
            Some((s, base, Some(began))) if began == step => s.restart_in_sequence(base),
            Some((s, base, began)) => s.next(base, lr, step.saturating_sub(began.unwrap_or(0))),
        }
    }

    fn initial_lr(&self, base_lr: F, first: bool) -> F {
        self.base(base_lr, self.schedulers.len(), first)
    }
}

impl<T, S, M> ScheduleFacts for TorchSequential<S, M>
where
    T: ScheduleFacts,
    S: Deref<Target = [T]> + Debug,
    M: AsRef<[u64]> + Debug,
{
    fn check(&self) -> Result<(), Error> {
        let got = self.milestones.as_ref().len();
        let Some(expected) = self.schedulers.len().checked_sub(1) else {
            return Err(Error::LengthMismatch { argument: "schedulers", got: 0, expected: 1 });
        };
        if got != expected {
            return Err(Error::LengthMismatch { argument: "milestones", got, expected });
        }
        self.schedulers.iter().try_for_each(T::check)
    }

    fn last_step(&self) -> Option<u64> {
        let milestones = self.milestones.as_ref();
        let began =
            |i: usize| i.checked_sub(1).and_then(|i| milestones.get(i)).copied().unwrap_or(0);
        self.schedulers.iter().enumerate().find_map(|(i, s)| {
            let last = began(i).saturating_add(s.last_step()?);
            // No limit if the next schedule takes over in time.
            milestones.get(i).is_none_or(|&m| m > last.saturating_add(1)).then_some(last)
        })
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        let (index, began) = self.place(step);
        self.schedulers.get(index)?.momentum(step.saturating_sub(began.unwrap_or(0)))
    }

    /// The reference constructs all schedules, then repeats the initial step of the first one.
    fn start_momentum(&self) -> Option<f64> {
        let constructed = || self.schedulers.iter().rev().find_map(T::start_momentum);
        self.momentum(0).or_else(constructed)
    }
}

/// Python's `bisect.bisect_right`: the number of milestones ≤ `step` if they are sorted, and the same answer as Python's
/// if not.
fn bisect_right(milestones: &[u64], step: u64) -> usize {
    let (mut low, mut high) = (0, milestones.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match milestones.get(middle) {
            Some(&m) if m <= step => low = middle + 1,
            _ => high = middle,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::schedule::{TorchConstant, TorchExponential, TorchOneCycle};

    #[test]
    fn each_schedule_takes_over_at_its_milestone_from_the_base_rate() {
        let (halve, hold) =
            (TorchExponential { gamma: 0.5 }, TorchConstant { factor: 0.25, total_iters: 2 });
        let schedulers: [&dyn Schedule; 3] = [&halve, &hold, &halve];
        let s = TorchSequential { schedulers: &schedulers[..], milestones: [2, 5] };
        assert_eq!(s.check(), Ok(()));
        // 8, 8 · ½; at 2 8 · ¼, whatever the 4 was; two steps later · 4; at 5 8 again, then halved at each step
        let want = [8.0, 4.0, 2.0, 2.0, 8.0, 8.0, 4.0, 2.0];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|t| s.lr(8.0, t)), want);
    }

    #[test]
    fn milestone_0_begins_with_the_second_schedule() {
        let schedulers = [0.5, 0.25].map(|gamma| TorchExponential { gamma });
        let s = TorchSequential { schedulers: &schedulers[..], milestones: [0] };
        assert_eq!([0, 1, 2].map(|t| s.lr(8.0, t)), [8.0, 2.0, 0.5]);
    }

    #[test]
    fn wrong_schedulers_or_milestones_are_refused() {
        let length =
            |argument, got, expected| Err(Error::LengthMismatch { argument, got, expected });
        let halve = [TorchExponential { gamma: 0.5 }; 2];
        let s = TorchSequential { schedulers: &halve[..0], milestones: [0; 0] };
        assert_eq!(s.check(), length("schedulers", 0, 1));
        let s = TorchSequential { schedulers: &halve[..], milestones: [1, 2] };
        assert_eq!(s.check(), length("milestones", 2, 1));

        let grow = [TorchConstant { factor: 2.0, total_iters: 1 }];
        let got = TorchSequential { schedulers: &grow[..], milestones: [0; 0] }.check();
        assert!(
            matches!(got, Err(Error::OutOfRange { argument: "factor", value: 2.0, .. })),
            "{got:?}"
        );
    }

    #[test]
    fn last_step_counts_from_the_milestone_unless_the_next_takes_over() {
        let cycles = [4, 3].map(|n| TorchOneCycle { total_steps: Some(n), ..Default::default() });
        // The first would refuse step 5: the second takes over in time at 5, and refuses its own 4.
        let s = |milestone| TorchSequential { schedulers: &cycles[..], milestones: [milestone] };
        assert_eq!(s(5).last_step(), Some(8));
        assert_eq!(s(6).last_step(), Some(4));
    }

    #[test]
    fn search_is_pythons() {
        assert_eq!([0, 2, 3, 9].map(|t| bisect_right(&[2, 3, 3], t)), [0, 1, 3, 3]);
        assert_eq!(bisect_right(&[], 5), 0);
    }

    #[test]
    fn initial_rate_is_that_of_the_last_to_set_one() {
        let cycle = |max_lr| TorchOneCycle {
            max_lr,
            div_factor: 4.0,
            total_steps: Some(4),
            ..Default::default()
        };
        let halve = TorchExponential { gamma: 0.5 };
        let (two, six) = (cycle(8.0), cycle(24.0));
        let all: [&dyn Schedule; 3] = [&two, &six, &halve];
        let s = TorchSequential { schedulers: &all[..], milestones: [1, 2] };
        assert_eq!(Schedule::initial_lr(&s, 1.0, true), 6.0);
        let none = TorchSequential { schedulers: &all[2..], milestones: [0; 0] };
        assert_eq!(Schedule::initial_lr(&none, 1.0, true), 1.0);
    }
}
