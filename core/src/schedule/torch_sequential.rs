use core::fmt::Debug;
use core::ops::Deref;

#[cfg(feature = "alloc")]
use super::Make;
use super::{Schedule, ScheduleFacts, ScheduleFloat};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// Several schedules one after the other, switched at milestones.
///
/// # Order of operations
/// At a milestone the rate becomes the next schedule's first rate in closed form, from the group's `initial_lr`,
/// whatever the current rate; from there on that schedule counts its own steps.
///
/// # Source
/// `torch.optim.lr_scheduler.SequentialLR`, its schedules constructed in their order. Its `last_epoch` moves the
/// milestones alone: the schedules within begin at their start, and one whose milestone has passed makes its own step 0
/// at the first step instead of a start in closed form.
///
/// # Errors
/// No schedules, or not exactly one milestone fewer than schedules; a schedule that refuses its arguments.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchConstant, TorchExponential, TorchSequential};
/// let (warm, cool) = (TorchConstant { factor: 0.5, total_iters: 9 }, TorchExponential { gamma: 0.5 });
/// let schedulers: [&dyn Schedule; 2] = [&warm, &cool];
/// let s = TorchSequential { schedulers: &schedulers[..], milestones: [2], last_epoch: -1 };
/// assert_eq!([0, 1, 2, 3].map(|t| s.lr(1.0, t)), [0.5, 0.5, 1.0, 0.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchSequential<S, M> {
    /// The schedules, in order.
    pub schedulers: S,
    /// The first step of each schedule but the first.
    pub milestones: M,
    /// The step after which training is resumed; −1 for its start.
    pub last_epoch: i64,
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
    entry.parse(TorchSequential { schedulers, milestones, last_epoch: -1 }, args, context)
});

impl<S, M> HyperParams for TorchSequential<S, M> {
    /// Without `schedulers` and `milestones`, which are set before.
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.i64("last_epoch", &mut self.last_epoch);
    }
}

/// Where a step falls.
struct Place {
    /// The index of the schedule that is active.
    index: usize,
    /// The step of that schedule.
    own: u64,
    /// Whether it starts here, in closed form.
    restarts: bool,
}

impl<T, S: Deref<Target = [T]>, M: AsRef<[u64]>> TorchSequential<S, M> {
    /// The step at which training starts or is resumed.
    fn first(&self) -> u64 {
        u64::try_from(self.last_epoch.saturating_add(1)).unwrap_or(0)
    }

    /// The next step at which another schedule may take over.
    fn next_milestone(&self, step: u64) -> Option<u64> {
        self.milestones.as_ref().iter().copied().filter(|&m| m > step).min()
    }

    /// Milestones that are not in order let a schedule have several turns, so its steps are counted.
    fn place(&self, step: u64) -> Place {
        let milestones = self.milestones.as_ref();
        let restarts = |index: usize, at: u64| {
            index.checked_sub(1).and_then(|i| milestones.get(i)) == Some(&at)
        };
        let index = bisect_right(milestones, step);
        // The steps of this schedule so far; the constructor makes step 0 of one of them.
        let mut made = u64::from(index == bisect_right(milestones, 0));
        let mut turn = Some(self.first().saturating_add(1));
        while let Some(begin) = turn.filter(|&begin| begin <= step) {
            turn = self.next_milestone(begin);
            if bisect_right(milestones, begin) == index {
                made = if restarts(index, begin) { 0 } else { made };
                let end = turn.map_or(step, |next| step.min(next - 1));
                made = made.saturating_add(end - begin).saturating_add(1);
            }
        }
        Place { index, own: made.saturating_sub(1), restarts: restarts(index, step) }
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
        let start = self.start(base_lr);
        (self.first() + 1..=step).fold(start, |lr, step| self.next(base_lr, lr, step))
    }

    fn attach(&self, base_lr: F, lr: F, _: u64) -> F {
        let none_before = self.last_epoch < 0;
        let reset = self.base(base_lr, self.schedulers.len(), none_before);
        let index = bisect_right(self.milestones.as_ref(), 0);
        let base = self.base(base_lr, index, none_before);
        self.schedulers.get(index).map_or(lr, |s| s.begin_in_sequence(base, reset))
    }

    fn next(&self, base_lr: F, lr: F, step: u64) -> F {
        let Place { index, own, restarts } = self.place(step);
        let Some(s) = self.schedulers.get(index) else { return lr };
        let base = self.base(base_lr, index, self.last_epoch < 0);
        if restarts { s.restart_in_sequence(base) } else { s.next(base, lr, own) }
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
        let mut turn = Some(self.first().saturating_add(1));
        while let Some(begin) = turn {
            turn = self.next_milestone(begin);
            let Place { index, own, .. } = self.place(begin);
            if let Some(last) = self.schedulers.get(index).and_then(T::last_step) {
                // The last step before the schedule's end, unless the next takes over in time.
                let last = last.checked_sub(own).map_or(begin - 1, |n| begin.saturating_add(n));
                if turn.is_none_or(|next| last < next - 1) {
                    return Some(last);
                }
            }
        }
        None
    }

    fn has_step(&self, step: u64) -> bool {
        let Place { index, own, .. } = self.place(step);
        self.schedulers.get(index).is_none_or(|s| s.has_step(own))
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        let Place { index, own, .. } = self.place(step);
        self.schedulers.get(index)?.momentum(own)
    }

    /// The reference constructs all schedules, then repeats the initial step of the first one.
    fn start_momentum(&self) -> Option<f64> {
        let constructed = || self.schedulers.iter().rev().find_map(T::start_momentum);
        let begun = self.schedulers.get(bisect_right(self.milestones.as_ref(), 0));
        begun.and_then(|s| s.momentum(0)).or_else(constructed)
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

    use crate::schedule::{TorchConstant, TorchExponential, TorchLinear, TorchOneCycle};

    #[test]
    fn each_schedule_takes_over_at_its_milestone_from_the_base_rate() {
        let (halve, hold) =
            (TorchExponential { gamma: 0.5 }, TorchConstant { factor: 0.25, total_iters: 2 });
        let schedulers: [&dyn Schedule; 3] = [&halve, &hold, &halve];
        let s = TorchSequential { schedulers: &schedulers[..], milestones: [2, 5], last_epoch: -1 };
        assert_eq!(s.check(), Ok(()));
        // 8, 8 · ½; at 2 8 · ¼, whatever the 4 was; two steps later · 4; at 5 8 again, then halved at each step
        let want = [8.0, 4.0, 2.0, 2.0, 8.0, 8.0, 4.0, 2.0];
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(|t| s.lr(8.0, t)), want);
    }

    #[test]
    fn milestone_0_begins_with_the_second_schedule() {
        let schedulers = [0.5, 0.25].map(|gamma| TorchExponential { gamma });
        let s = TorchSequential { schedulers: &schedulers[..], milestones: [0], last_epoch: -1 };
        assert_eq!([0, 1, 2].map(|t| s.lr(8.0, t)), [8.0, 2.0, 0.5]);
    }

    #[test]
    fn a_resumed_sequence_keeps_its_milestones_and_begins_its_schedules() {
        let (rise, fall) = (
            TorchLinear { total_iters: 4, start_factor: 0.5, ..TorchLinear::DEFAULT },
            TorchExponential { gamma: 0.5 },
        );
        let schedulers: [&dyn Schedule; 2] = [&rise, &fall];
        let s = |last_epoch| TorchSequential {
            schedulers: &schedulers[..],
            milestones: [2],
            last_epoch,
        };
        // 8 · ½, then ⅛ more of the 8 a step; at milestone 2, one step earlier than from the start, 8 again
        assert_eq!([0, 1, 2, 3].map(|t| s(-1).lr(8.0, t)), [4.0, 5.0, 8.0, 4.0]);
        assert_eq!([1, 2, 3].map(|t| s(0).lr(8.0, t)), [4.0, 8.0, 4.0]);
        // The milestone has passed: the fall's own step 0 halves the rate that the rise began with.
        assert_eq!([2, 3, 4].map(|t| s(1).lr(8.0, t)), [4.0, 2.0, 1.0]);
    }

    #[test]
    fn milestone_behind_others_is_met_by_nobody() {
        let schedulers = [TorchExponential { gamma: 0.5 }; 4];
        let milestones = [3, 5, 0];
        let s = TorchSequential { schedulers: &schedulers[..], milestones, last_epoch: -1 };
        let place = |t| {
            let Place { index, own, restarts } = s.place(t);
            (index, own, restarts)
        };
        assert_eq!([2, 3, 4].map(place), [(0, 2, false), (1, 0, true), (1, 1, false)]);
        // Python's search finds the last at once, whose milestone is 0.
        assert_eq!([5, 7].map(place), [(3, 0, false), (3, 2, false)]);
    }

    #[test]
    fn wrong_schedulers_or_milestones_are_refused() {
        let length =
            |argument, got, expected| Err(Error::LengthMismatch { argument, got, expected });
        let halve = [TorchExponential { gamma: 0.5 }; 2];
        let s = TorchSequential { schedulers: &halve[..0], milestones: [0; 0], last_epoch: -1 };
        assert_eq!(s.check(), length("schedulers", 0, 1));
        let s = TorchSequential { schedulers: &halve[..], milestones: [1, 2], last_epoch: -1 };
        assert_eq!(s.check(), length("milestones", 2, 1));

        let grow = [TorchConstant { factor: 2.0, total_iters: 1 }];
        let got =
            TorchSequential { schedulers: &grow[..], milestones: [0; 0], last_epoch: -1 }.check();
        assert!(
            matches!(got, Err(Error::OutOfRange { argument: "factor", value: 2.0, .. })),
            "{got:?}"
        );
    }

    #[test]
    fn last_step_counts_from_the_milestone_unless_the_next_takes_over() {
        let cycles = [4, 3].map(|n| TorchOneCycle { total_steps: Some(n), ..Default::default() });
        // The first would refuse step 5: the second takes over in time at 5, and refuses its own 4.
        let s = |milestone| TorchSequential {
            schedulers: &cycles[..],
            milestones: [milestone],
            last_epoch: -1,
        };
        assert_eq!(s(5).last_step(), Some(8));
        assert_eq!(s(6).last_step(), Some(4));
        // Resumed at 3, the first counts from there.
        assert_eq!(TorchSequential { last_epoch: 2, ..s(9) }.last_step(), Some(7));
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
        let s = TorchSequential { schedulers: &all[..], milestones: [1, 2], last_epoch: -1 };
        assert_eq!(Schedule::initial_lr(&s, 1.0, true), 6.0);
        let none = TorchSequential { schedulers: &all[2..], milestones: [0; 0], last_epoch: -1 };
        assert_eq!(Schedule::initial_lr(&none, 1.0, true), 1.0);
    }
}
