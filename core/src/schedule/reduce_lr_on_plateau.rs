#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use super::metric::{MODES, THRESHOLD_MODES};
use super::{MetricMode, PerGroup, ScheduleFloat, ThresholdMode, check_groups, max};
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{FieldVisitor, HyperParams};

/// Multiplies the rates by `factor` when a metric has not improved for more than `patience` steps.
///
/// # Order of operations
/// A metric that is better than `best` by more than the threshold becomes `best` and ends the run of bad steps; any other
/// lengthens the run. During cooldown the run stays at 0, though `best` is updated. When the run is longer than
/// `patience`, each rate becomes max(lr · factor, min_lr), unless that is lower by `eps` or less; then cooldown begins.
///
/// # Source
/// `torch.optim.lr_scheduler.ReduceLROnPlateau` and `transformers.get_reduce_on_plateau_schedule`.
///
/// # Errors
/// `factor` ≥ 1; a list of `min_lr` with another length than there are groups.
///
/// # Non-finite input
/// A NaN metric is a bad step. Infinities are compared by the reference's formula: with `Min` and `Rel`, a threshold of
/// 1 or more turns the initial `best` of ∞ into a limit of NaN or −∞, which no metric is below.
///
/// # Example
/// ```
/// use bitstep::schedule::ReduceLrOnPlateau;
/// let s = ReduceLrOnPlateau { patience: 1, factor: 0.5, ..ReduceLrOnPlateau::DEFAULT };
/// let (mut state, mut lrs) = (s.start(), [1.0, 0.25]);
/// for metric in [3.0, 2.0, 2.0] {
///     s.step(&mut state, metric, &mut lrs)?;
/// }
/// assert_eq!(lrs, [1.0, 0.25]); // one bad step is tolerated
/// s.step(&mut state, f64::NAN, &mut lrs)?;
/// assert_eq!(lrs, [0.5, 0.125]);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReduceLrOnPlateau<M = f64> {
    /// Whether a low or a high metric is good.
    pub mode: MetricMode,
    /// The factor, below 1, of a reduction.
    pub factor: f64,
    /// The number of bad steps in a row that are tolerated.
    pub patience: u64,
    /// By how much a metric must be better than the best one.
    pub threshold: f64,
    /// Whether the threshold is relative or absolute.
    pub threshold_mode: ThresholdMode,
    /// Steps after a reduction whose bad steps are not counted.
    pub cooldown: u64,
    /// The lowest rate, for all groups or for each.
    pub min_lr: M,
    /// Reductions of this size or less are not made.
    pub eps: f64,
}

/// The state of [`ReduceLrOnPlateau`], under the reference's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlateauState {
    /// The best metric.
    pub best: f64,
    /// Length of the current run of bad steps.
    pub num_bad_epochs: u64,
    /// Steps of cooldown that remain.
    pub cooldown_counter: u64,
}

impl ReduceLrOnPlateau {
    /// The reference's defaults.
    pub const DEFAULT: Self = ReduceLrOnPlateau {
        mode: MetricMode::Min,
        factor: 0.1,
        patience: 10,
        threshold: 1e-4,
        threshold_mode: ThresholdMode::Rel,
        cooldown: 0,
        min_lr: 0.0,
        eps: 1e-8,
    };
}

impl Default for ReduceLrOnPlateau {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One schedule for all groups: the arguments of the first group, with each group's `min_lr`.
#[inline]
#[cfg(feature = "alloc")]
pub(super) fn for_all(all: &[ReduceLrOnPlateau]) -> Result<ReduceLrOnPlateau<Vec<f64>>, Error> {
    let s = all.first().copied().unwrap_or_default();
    let schedule = ReduceLrOnPlateau {
        mode: s.mode,
        factor: s.factor,
        patience: s.patience,
        threshold: s.threshold,
        threshold_mode: s.threshold_mode,
        cooldown: s.cooldown,
        min_lr: all.iter().map(|s| s.min_lr).collect(),
        eps: s.eps,
    };
    schedule.check(all.len())?;
    Ok(schedule)
}

impl HyperParams for ReduceLrOnPlateau {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.choice("mode", &mut self.mode, MODES);
        f.f64("factor", &mut self.factor);
        f.u64("patience", &mut self.patience);
        f.f64("threshold", &mut self.threshold);
        f.choice("threshold_mode", &mut self.threshold_mode, THRESHOLD_MODES);
        f.u64("cooldown", &mut self.cooldown);
        f.f64("min_lr", &mut self.min_lr);
        f.f64("eps", &mut self.eps);
        f.ignored("verbose");
    }
}

impl<M: PerGroup> ReduceLrOnPlateau<M> {
    /// `Ok` if the reference would accept these arguments for this number of groups.
    ///
    /// # Errors
    /// The argument that it refuses.
    pub fn check(&self, groups: usize) -> Result<(), Error> {
        ensure_range(self.factor < 1.0, "factor", self.factor, "factor < 1")?;
        check_groups("min_lr", &self.min_lr, groups)
    }

    /// The state before the first step.
    #[must_use]
    pub fn start(&self) -> PlateauState {
        PlateauState { best: self.mode.worst(), num_bad_epochs: 0, cooldown_counter: 0 }
    }

    /// One scheduler step: may change the rates of all groups.
    ///
    /// # Errors
    /// Arguments that [`check`](Self::check) refuses; nothing is changed then.
    pub fn step<F: ScheduleFloat>(
        &self,
        state: &mut PlateauState,
        metric: f64,
        lrs: &mut [F],
    ) -> Result<(), Error> {
        self.check(lrs.len())?;
        if self.mode.better(metric, state.best, self.threshold, self.threshold_mode) {
            state.best = metric;
            state.num_bad_epochs = 0;
        } else {
            state.num_bad_epochs = state.num_bad_epochs.saturating_add(1);
        }
        if state.cooldown_counter > 0 {
            state.cooldown_counter -= 1;
            state.num_bad_epochs = 0;
        }
        if state.num_bad_epochs > self.patience {
            for (i, lr) in lrs.iter_mut().enumerate() {
                let least = F::of(self.min_lr.at(i).unwrap_or(f64::NAN));
                let new = max(*lr * F::of(self.factor), least);
                if *lr - new > F::of(self.eps) {
                    *lr = new;
                }
            }
            state.cooldown_counter = self.cooldown;
            state.num_bad_epochs = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVE: ReduceLrOnPlateau = ReduceLrOnPlateau {
        mode: MetricMode::Min,
        factor: 0.5,
        patience: 1,
        threshold: 0.25,
        threshold_mode: ThresholdMode::Abs,
        cooldown: 0,
        min_lr: 0.0,
        eps: 1e-8,
    };

    /// The rate after each metric.
    fn run<const N: usize>(s: &ReduceLrOnPlateau, lr: f64, metrics: [f64; N]) -> [f64; N] {
        let (mut state, mut lrs) = (s.start(), [lr]);
        metrics.map(|metric| {
            s.step(&mut state, metric, &mut lrs).expect("one group");
            lrs[0]
        })
    }

    #[test]
    fn rate_is_halved_when_patience_ends() {
        // good; 3.75 < 4 − ¼ is false: bad, tolerated; bad again: ½; a new run: tolerated; ¼
        assert_eq!(run(&HALVE, 1.0, [4.0, 3.75, 4.0, 4.0, 4.0]), [1.0, 1.0, 0.5, 0.5, 0.25]);
        // a good step between two bad ones ends the run
        assert_eq!(run(&HALVE, 1.0, [4.0, 5.0, 3.0, 5.0]), [1.0; 4]);
    }

    #[test]
    fn cooldown_counts_no_bad_steps_but_remembers_the_best() {
        let s = ReduceLrOnPlateau { patience: 0, cooldown: 2, ..HALVE };
        // ½; two steps of cooldown, of which the second is the best; 2 is bad against 1: ¼
        assert_eq!(run(&s, 1.0, [4.0, 4.0, 5.0, 1.0, 2.0]), [1.0, 0.5, 0.5, 0.5, 0.25]);
    }

    #[test]
    fn rate_does_not_fall_below_min_lr_nor_by_eps_or_less() {
        let s = ReduceLrOnPlateau { patience: 0, min_lr: 0.75, ..HALVE };
        // max(½, ¾), then max(⅜, ¾)
        assert_eq!(run(&s, 1.0, [4.0, 4.0, 4.0]), [1.0, 0.75, 0.75]);
        // 1 − ½ > ½ is false
        assert_eq!(
            run(&ReduceLrOnPlateau { min_lr: 0.0, eps: 0.5, ..s }, 1.0, [4.0, 4.0]),
            [1.0; 2]
        );
    }

    #[test]
    fn nan_is_a_bad_step() {
        assert_eq!(run(&HALVE, 1.0, [f64::NAN, f64::NAN, 4.0]), [1.0, 0.5, 0.5]);
    }

    #[test]
    fn groups_have_their_own_minimum() {
        let s = ReduceLrOnPlateau {
            mode: MetricMode::Max,
            factor: 0.5,
            patience: 0,
            threshold: 0.0,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: [0.75, 0.0],
            eps: 0.0,
        };
        let (mut state, mut lrs) = (s.start(), [1.0, 1.0]);
        for accuracy in [0.5, 0.5] {
            s.step(&mut state, accuracy, &mut lrs).expect("two groups");
        }
        assert_eq!(lrs, [0.75, 0.5]);
    }

    #[test]
    fn wrong_arguments_are_refused_and_change_nothing() {
        let (mut state, mut lrs) = (HALVE.start(), [1.0]);
        let grow = ReduceLrOnPlateau { factor: 1.0, ..HALVE };
        let refused = Error::OutOfRange { argument: "factor", value: 1.0, expected: "factor < 1" };
        assert_eq!(grow.step(&mut state, 4.0, &mut lrs), Err(refused));
        assert_eq!((state, lrs), (HALVE.start(), [1.0]));

        let two = ReduceLrOnPlateau {
            mode: HALVE.mode,
            factor: HALVE.factor,
            patience: HALVE.patience,
            threshold: HALVE.threshold,
            threshold_mode: HALVE.threshold_mode,
            cooldown: HALVE.cooldown,
            min_lr: [0.0, 0.0],
            eps: HALVE.eps,
        };
        let refused = Error::LengthMismatch { argument: "min_lr", got: 2, expected: 1 };
        assert_eq!(two.step(&mut state, 4.0, &mut lrs), Err(refused));
        assert_eq!((state, lrs), (HALVE.start(), [1.0]));
    }
}
