#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use super::metric::{MODES, THRESHOLD_MODES};
use super::{MetricMode, PerGroup, ScheduleFloat, ThresholdMode, check_groups, max, min};
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{FieldVisitor, HyperParams};

/// Lowers the rates after a run of bad steps and raises them after a run of good ones.
///
/// # Order of operations
/// With `smooth`, the metric is replaced by the mean of the last `window_size` metrics, from a running sum. A step of
/// cooldown or warm-up ends both runs and does nothing else. Otherwise a metric better than `best` by more than the
/// threshold becomes `best` and lengthens the good run, any other lengthens the bad run; each ends the other.
/// A good run longer than `patience` divides each rate by `factor`, up to `max_lr`, and warm-up begins; a bad run longer
/// than `patience` multiplies it by `factor`, down to `min_lr`, and cooldown begins. Changes of `eps` or less are not
/// made. After `reset_start` reductions that leave every rate at its minimum, without a raise between them, rates and
/// state are reset to their initial values, and cooldown begins.
///
/// # Source
/// `transformers.optimization.GreedyLR` (`get_greedy_schedule`).
///
/// # Errors
/// `factor` ≥ 1, or 0, by which the reference divides; `smooth` with an empty window; a list of rates with another
/// length than there are groups.
///
/// # Non-finite input
/// A NaN metric is a bad step; with `smooth` it makes the running sum NaN until the state is reset.
///
/// # Example
/// ```
/// use bitstep::schedule::GreedyLr;
/// let s = GreedyLr { patience: 0, factor: 0.5, ..GreedyLr::DEFAULT };
/// let (start, mut state) = ([0.25], s.start());
/// let mut lrs = start;
/// s.step(&mut state, &mut [], 3.0, &start, &mut lrs)?; // the first metric is always good
/// assert_eq!(lrs, [0.5]);
/// s.step(&mut state, &mut [], 4.0, &start, &mut lrs)?;
/// assert_eq!(lrs, [0.25]);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GreedyLr<L = f64, H = f64> {
    /// Whether a low or a high metric is good.
    pub mode: MetricMode,
    /// The factor, below 1, of a reduction; a raise divides by it.
    pub factor: f64,
    /// The longest run of good or bad steps that changes nothing.
    pub patience: u64,
    /// By how much a metric must be better than the best one.
    pub threshold: f64,
    /// Whether the threshold is relative or absolute.
    pub threshold_mode: ThresholdMode,
    /// Steps after a reduction that are not counted.
    pub cooldown: u64,
    /// Steps after a raise that are not counted.
    pub warmup: u64,
    /// The lowest rate, for all groups or for each.
    pub min_lr: L,
    /// The highest rate, for all groups or for each.
    pub max_lr: H,
    /// Changes of this size or less are not made.
    pub eps: f64,
    /// Whether the metric is averaged.
    pub smooth: bool,
    /// The number of metrics in the average.
    pub window_size: u64,
    /// Reductions at the minimum until rates and state are reset.
    pub reset_start: i64,
}

/// The state of [`GreedyLr`], without the window of metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GreedyState {
    /// The best metric.
    pub best: f64,
    /// Length of the current run of bad steps.
    pub num_bad_epochs: u64,
    /// Length of the current run of good steps.
    pub num_good_epochs: u64,
    /// Steps of cooldown that remain.
    pub cooldown_counter: u64,
    /// Steps of warm-up that remain.
    pub warmup_counter: u64,
    /// Reductions at the minimum that remain until rates and state are reset.
    pub reset_start: i64,
    /// Running sum of the window.
    pub sum: f64,
    /// The number of metrics in the window.
    pub len: usize,
    /// The index of the next metric in the window; of the oldest one once the window is full.
    pub at: usize,
}

impl GreedyLr {
    /// The reference's defaults.
    pub const DEFAULT: Self = GreedyLr {
        mode: MetricMode::Min,
        factor: 0.95,
        patience: 10,
        threshold: 1e-6,
        threshold_mode: ThresholdMode::Abs,
        cooldown: 0,
        warmup: 0,
        min_lr: 1e-3,
        max_lr: 1.0,
        eps: 1e-8,
        smooth: false,
        window_size: 50,
        reset_start: 500,
    };
}

impl Default for GreedyLr {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One schedule for all groups: the arguments of the first group, with each group's rates.
#[inline]
#[cfg(feature = "alloc")]
pub(super) fn for_all(all: &[GreedyLr]) -> Result<GreedyLr<Vec<f64>, Vec<f64>>, Error> {
    let s = all.first().copied().unwrap_or_default();
    let schedule = GreedyLr {
        mode: s.mode,
        factor: s.factor,
        patience: s.patience,
        threshold: s.threshold,
        threshold_mode: s.threshold_mode,
        cooldown: s.cooldown,
        warmup: s.warmup,
        min_lr: all.iter().map(|s| s.min_lr).collect(),
        max_lr: all.iter().map(|s| s.max_lr).collect(),
        eps: s.eps,
        smooth: s.smooth,
        window_size: s.window_size,
        reset_start: s.reset_start,
    };
    schedule.check(all.len())?;
    Ok(schedule)
}

impl HyperParams for GreedyLr {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.choice("mode", &mut self.mode, MODES);
        f.f64("factor", &mut self.factor);
        f.u64("patience", &mut self.patience);
        f.f64("threshold", &mut self.threshold);
        f.choice("threshold_mode", &mut self.threshold_mode, THRESHOLD_MODES);
        f.u64("cooldown", &mut self.cooldown);
        f.u64("warmup", &mut self.warmup);
        f.f64("min_lr", &mut self.min_lr);
        f.f64("max_lr", &mut self.max_lr);
        f.f64("eps", &mut self.eps);
        f.ignored("verbose");
        f.bool("smooth", &mut self.smooth);
        f.u64("window_size", &mut self.window_size);
        f.i64("reset_start", &mut self.reset_start);
    }
}

impl<L: PerGroup, H: PerGroup> GreedyLr<L, H> {
    /// `Ok` if the reference would accept these arguments for this number of groups.
    ///
    /// # Errors
    /// The argument that it refuses.
    pub fn check(&self, groups: usize) -> Result<(), Error> {
        ensure_range(self.factor < 1.0, "factor", self.factor, "factor < 1")?;
        ensure_range(self.factor != 0.0, "factor", self.factor, "factor != 0")?;
        let window = self.window_size;
        ensure_range(!self.smooth || window > 0, "window_size", window as f64, "window_size >= 1")?;
        check_groups("min_lr", &self.min_lr, groups)?;
        check_groups("max_lr", &self.max_lr, groups)
    }

    /// The length of the full window of metrics: 0 without `smooth`. The window may grow up to it: a step needs room for
    /// one metric more than [`GreedyState::len`].
    #[must_use]
    pub fn window_len(&self) -> usize {
        if self.smooth { usize::try_from(self.window_size).unwrap_or(usize::MAX) } else { 0 }
    }

    /// The state before the first step.
    #[must_use]
    pub fn start(&self) -> GreedyState {
        GreedyState {
            best: self.mode.worst(),
            num_bad_epochs: 0,
            num_good_epochs: 0,
            cooldown_counter: 0,
            warmup_counter: 0,
            reset_start: self.reset_start,
            sum: 0.0,
            len: 0,
            at: 0,
        }
    }

    /// One scheduler step: may change the rates of all groups. `initial_lrs` are the rates at the start of training.
    /// The contents of `window` are part of the state: [`window_len`](Self::window_len) metrics, or fewer as long as
    /// they are not all in use.
    ///
    /// # Errors
    /// Arguments that [`check`](Self::check) refuses, or a buffer of the wrong length; nothing is changed then.
    pub fn step<F: ScheduleFloat>(
        &self,
        state: &mut GreedyState,
        window: &mut [f64],
        metric: f64,
        initial_lrs: &[F],
        lrs: &mut [F],
    ) -> Result<(), Error> {
        self.check(lrs.len())?;
        length("initial_lrs", initial_lrs.len(), lrs.len())?;
        let size = self.window_len();
        // At most the full window, and at least room for this metric.
        let least = if self.smooth { state.len.max(state.at.saturating_add(1)) } else { 0 };
        if !(least..=size).contains(&window.len()) {
            return Err(Error::LengthMismatch {
                argument: "window",
                got: window.len(),
                expected: size,
            });
        }
        let metric = if self.smooth { average(state, window, size, metric) } else { metric };

        if state.cooldown_counter > 0 || state.warmup_counter > 0 {
            let counter = match state.cooldown_counter {
                0 => &mut state.warmup_counter,
                _ => &mut state.cooldown_counter,
            };
            *counter -= 1;
            state.num_bad_epochs = 0;
            state.num_good_epochs = 0;
            return Ok(());
        }

        if self.mode.better(metric, state.best, self.threshold, self.threshold_mode) {
            state.best = metric;
            state.num_bad_epochs = 0;
            state.num_good_epochs = state.num_good_epochs.saturating_add(1);
        } else {
            state.num_bad_epochs = state.num_bad_epochs.saturating_add(1);
            state.num_good_epochs = 0;
        }

        if state.num_good_epochs > self.patience {
            self.raise(state, lrs);
            state.warmup_counter = self.warmup;
            state.num_good_epochs = 0;
        } else if state.num_bad_epochs > self.patience {
            self.lower(state, initial_lrs, lrs);
            state.cooldown_counter = self.cooldown;
            state.num_bad_epochs = 0;
        }
        Ok(())
    }

    fn raise<F: ScheduleFloat>(&self, state: &mut GreedyState, lrs: &mut [F]) {
        for (i, lr) in lrs.iter_mut().enumerate() {
            let most = F::of(self.max_lr.at(i).unwrap_or(f64::NAN));
            let new = min(*lr / F::of(self.factor), most);
            if new - *lr > F::of(self.eps) {
                *lr = new;
            }
        }
        state.reset_start = self.reset_start;
    }

    fn lower<F: ScheduleFloat>(&self, state: &mut GreedyState, initial_lrs: &[F], lrs: &mut [F]) {
        let mut all_at_min = true;
        for (i, lr) in lrs.iter_mut().enumerate() {
            let least = F::of(self.min_lr.at(i).unwrap_or(f64::NAN));
            let new = max(*lr * F::of(self.factor), least);
            if *lr - new > F::of(self.eps) {
                *lr = new;
            }
            if *lr > least {
                all_at_min = false;
            }
        }
        if all_at_min {
            state.reset_start = state.reset_start.saturating_sub(1);
            if state.reset_start <= 0 {
                lrs.copy_from_slice(initial_lrs);
                *state = self.start();
            }
        }
    }
}

/// Puts a metric into the window and returns the mean.
fn average(state: &mut GreedyState, window: &mut [f64], size: usize, metric: f64) -> f64 {
    if let Some(slot) = window.get_mut(state.at) {
        let oldest = core::mem::replace(slot, metric);
        state.sum += metric;
        if state.len < size {
            state.len += 1;
        } else {
            state.sum -= oldest;
        }
        state.at = if state.at + 1 < size { state.at + 1 } else { 0 };
    }
    state.sum / state.len as f64
}

fn length(argument: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::LengthMismatch { argument, got, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVE: GreedyLr = GreedyLr {
        mode: MetricMode::Min,
        factor: 0.5,
        patience: 0,
        threshold: 0.0,
        threshold_mode: ThresholdMode::Abs,
        cooldown: 0,
        warmup: 0,
        min_lr: 0.0625,
        max_lr: 1.0,
        eps: 1e-8,
        smooth: false,
        window_size: 2,
        reset_start: 500,
    };

    /// The rate after each metric, from `lr`.
    fn run<const N: usize>(s: &GreedyLr, lr: f64, metrics: [f64; N]) -> [f64; N] {
        let (mut state, mut window, mut lrs) = (s.start(), [0.0; 2], [lr]);
        let window = &mut window[..s.window_len()];
        metrics.map(|metric| {
            s.step(&mut state, window, metric, &[lr], &mut lrs).expect("one group");
            lrs[0]
        })
    }

    #[test]
    fn window_that_grows_with_use_is_as_good_as_a_whole_one() {
        let s = GreedyLr { smooth: true, window_size: 3, ..HALVE };
        let (mut whole, mut window) = (s.start(), [0.0; 3]);
        let (mut grown, mut used) = (s.start(), alloc::vec![]);
        let (mut a, mut b) = ([0.5], [0.5]);
        for metric in [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0] {
            let least = grown.at.min(used.len());
            let short = s.step(&mut grown, &mut used[..least], metric, &[0.5], &mut b);
            assert!(matches!(short, Err(Error::LengthMismatch { argument: "window", .. })));
            if used.len() <= grown.at {
                used.push(0.0);
            }
            s.step(&mut whole, &mut window, metric, &[0.5], &mut a).unwrap();
            s.step(&mut grown, &mut used, metric, &[0.5], &mut b).unwrap();
            assert_eq!((a, whole), (b, grown));
        }
        let long = s.step(&mut whole, &mut [0.0; 4], 1.0, &[0.5], &mut a);
        assert_eq!(long, Err(Error::LengthMismatch { argument: "window", got: 4, expected: 3 }));
    }

    #[test]
    fn rate_moves_when_patience_ends() {
        let s = GreedyLr { patience: 1, ..HALVE };
        // good, within patience; good: ¼/½; bad, within patience; bad: ½·½; good, within patience; bad: ends the good run
        let metrics = [5.0, 4.0, 9.0, 9.0, 3.0, 9.0];
        assert_eq!(run(&s, 0.25, metrics), [0.25, 0.5, 0.5, 0.25, 0.25, 0.25]);
    }

    #[test]
    fn rate_stays_between_its_bounds() {
        let s = GreedyLr { min_lr: 0.4, max_lr: 0.75, ..HALVE };
        // min(½/½, ¾), then max(⅜, 0.4), max(0.2, 0.4)
        assert_eq!(run(&s, 0.5, [5.0, 6.0, 6.0]), [0.75, 0.4, 0.4]);
        // 1/2 − 1/4 > ¼ is false, and so is ¼ − ⅛ > ¼
        assert_eq!(run(&GreedyLr { eps: 0.25, ..HALVE }, 0.25, [5.0, 6.0]), [0.25; 2]);
    }

    #[test]
    fn rest_after_a_reduction_looks_at_no_metric() {
        let s = GreedyLr { cooldown: 2, max_lr: 0.5, ..HALVE };
        // good at the maximum; bad: ¼; two steps of cooldown; 2 is better than 3, the 1 was not counted: ½
        assert_eq!(run(&s, 0.5, [3.0, 4.0, 1.0, 1.0, 2.0]), [0.5, 0.25, 0.25, 0.25, 0.5]);
    }

    #[test]
    fn rest_after_a_raise_looks_at_no_metric() {
        let s = GreedyLr { warmup: 1, ..HALVE };
        // good: ½; a bad step during warm-up; a bad step: ¼
        assert_eq!(run(&s, 0.25, [3.0, 9.0, 9.0]), [0.5, 0.5, 0.25]);
    }

    #[test]
    fn smoothing_judges_the_mean_of_the_window() {
        let s = GreedyLr { smooth: true, ..HALVE };
        // means 4, (4 + 2)/2 = 3, (2 + 3)/2 = 2.5 (better, though 3 is not better than 2), (3 + 7)/2 = 5
        assert_eq!(run(&s, 0.125, [4.0, 2.0, 3.0, 7.0]), [0.25, 0.5, 1.0, 0.5]);
    }

    #[test]
    fn everything_starts_again_after_reset_start_reductions_at_the_minimum() {
        let s = GreedyLr { reset_start: 2, cooldown: 1, min_lr: 0.25, max_lr: 0.5, ..HALVE };
        let (mut state, mut lrs) = (s.start(), [0.5]);
        let mut step = |metric| {
            s.step(&mut state, &mut [], metric, &[0.5], &mut lrs).expect("one group");
            (lrs[0], state.reset_start, state.best)
        };
        assert_eq!(step(3.0), (0.5, 2, 3.0)); // good, at the maximum
        assert_eq!(step(4.0), (0.25, 1, 3.0)); // reduced to the minimum: the first
        assert_eq!(step(4.0), (0.25, 1, 3.0)); // cooldown
        assert_eq!(step(4.0), (0.5, 2, f64::INFINITY)); // the second: reset, with cooldown
        assert_eq!(step(4.0), (0.5, 2, f64::INFINITY));
        assert_eq!(step(4.0), (0.5, 2, 4.0)); // the first metric after the reset
    }

    #[test]
    fn one_group_above_its_minimum_holds_the_reset_back() {
        let s = GreedyLr {
            mode: MetricMode::Max,
            factor: 0.5,
            patience: 0,
            threshold: 0.0,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            warmup: 0,
            min_lr: [0.5, 0.125],
            max_lr: [1.0, 1.0],
            eps: 0.0,
            smooth: false,
            window_size: 50,
            reset_start: 1,
        };
        let (mut state, mut lrs) = (s.start(), [1.0, 0.5]);
        // NaN is bad: [½, ¼], the second not at its minimum yet; then both are: reset
        s.step(&mut state, &mut [], f64::NAN, &[1.0, 0.5], &mut lrs).expect("two groups");
        assert_eq!((lrs, state.reset_start), ([0.5, 0.25], 1));
        s.step(&mut state, &mut [], f64::NAN, &[1.0, 0.5], &mut lrs).expect("two groups");
        assert_eq!((lrs, state.reset_start), ([1.0, 0.5], 1));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let range =
            |argument, value, expected| Err(Error::OutOfRange { argument, value, expected });
        let grow = GreedyLr { factor: 1.0, ..HALVE };
        assert_eq!(grow.check(1), range("factor", 1.0, "factor < 1"));
        let empty = GreedyLr { window_size: 0, ..HALVE };
        assert_eq!(empty.check(1), Ok(())); // unused
        let empty = GreedyLr { smooth: true, ..empty };
        assert_eq!(empty.check(1), range("window_size", 0.0, "window_size >= 1"));

        let length =
            |argument, got, expected| Err(Error::LengthMismatch { argument, got, expected });
        let lists = |min_lr, max_lr| GreedyLr::<&[f64], &[f64]> {
            mode: MetricMode::Min,
            factor: 0.5,
            patience: 0,
            threshold: 0.0,
            threshold_mode: ThresholdMode::Abs,
            cooldown: 0,
            warmup: 0,
            min_lr,
            max_lr,
            eps: 0.0,
            smooth: false,
            window_size: 50,
            reset_start: 1,
        };
        assert_eq!(lists(&[0.1], &[0.1, 0.2]).check(2), length("min_lr", 1, 2));
        assert_eq!(lists(&[0.1, 0.2], &[0.1; 3]).check(2), length("max_lr", 3, 2));
        assert_eq!(lists(&[0.1, 0.2], &[0.1, 0.2]).check(2), Ok(()));
    }

    #[test]
    fn wrong_buffers_are_refused_and_change_nothing() {
        let s = GreedyLr { smooth: true, ..HALVE };
        let (mut state, mut window, mut lrs) = (s.start(), [0.0; 3], [0.25]);
        let length =
            |argument, got, expected| Err(Error::LengthMismatch { argument, got, expected });
        let got = s.step(&mut state, &mut window[..2], 1.0, &[], &mut lrs);
        assert_eq!(got, length("initial_lrs", 0, 1));
        let got = s.step(&mut state, &mut window, 1.0, &[0.25], &mut lrs);
        assert_eq!(got, length("window", 3, 2));
        assert_eq!((state, window, lrs), (s.start(), [0.0; 3], [0.25]));
    }
}
