use core::fmt::Debug;

#[cfg(feature = "alloc")]
use super::Make;
use super::{Schedule, ScheduleFacts, ScheduleFloat, iterate};
use crate::hyper::{FieldVisitor, HyperParams};

/// Multiplies the rate by `gamma` at each milestone.
///
/// # Order of operations
/// Recursive: at a milestone that is listed n times, lr · gammaⁿ.
///
/// # Source
/// `torch.optim.lr_scheduler.MultiStepLR`. Milestones need not be sorted.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchMultiStep};
/// let s = TorchMultiStep { milestones: [1, 3, 3], gamma: 0.5 };
/// assert_eq!([0, 1, 2, 3, 4].map(|t| s.lr(1.0, t)), [1.0, 0.5, 0.5, 0.125, 0.125]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchMultiStep<M> {
    /// Steps at which the rate changes.
    pub milestones: M,
    /// The factor at each milestone.
    pub gamma: f64,
}

#[cfg(feature = "alloc")]
pub(super) const MAKE: Make = Make::Pure(|entry, mut args, context| {
    let milestones = super::arguments::steps(entry.name, "milestones", &mut args)?;
    entry.parse(at(milestones), args, context)
});

/// The default of everything but the milestones.
#[cfg(feature = "alloc")]
pub(super) fn at<M>(milestones: M) -> TorchMultiStep<M> {
    TorchMultiStep { milestones, gamma: 0.1 }
}

impl<M> HyperParams for TorchMultiStep<M> {
    /// All arguments but `milestones`, which is set before.
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("gamma", &mut self.gamma);
        f.ignored("verbose");
    }
}

impl<M: AsRef<[u64]>> TorchMultiStep<M> {
    fn factor<F: ScheduleFloat>(&self, step: u64) -> Option<F> {
        let times = self.milestones.as_ref().iter().filter(|&&m| m == step).count();
        (times > 0).then(|| F::of(self.gamma).pow(F::count(times as u64)))
    }
}

impl<F: ScheduleFloat, M: AsRef<[u64]> + Debug> Schedule<F> for TorchMultiStep<M> {
    fn lr(&self, base_lr: F, step: u64) -> F {
        iterate(self, base_lr, step)
    }

    fn attach(&self, base_lr: F, lr: F, step: u64) -> F {
        self.next(base_lr, lr, step)
    }

    fn next(&self, _: F, lr: F, step: u64) -> F {
        self.factor(step).map_or(lr, |factor| lr * factor)
    }

    fn restart_in_sequence(&self, base_lr: F) -> F {
        self.factor(0).map_or(base_lr, |factor| base_lr * factor)
    }
}

impl<M: AsRef<[u64]> + Debug> ScheduleFacts for TorchMultiStep<M> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_multiplied_at_milestones_in_any_order() {
        let s = TorchMultiStep { milestones: [3, 1, 3], gamma: 0.5 };
        // 8, 8 · ½ from 1, · ½² from 3
        assert_eq!([0, 1, 2, 3, 99].map(|t| s.lr(8.0, t)), [8.0, 4.0, 4.0, 1.0, 1.0]);
        assert_eq!(s.check(), Ok(()));
    }

    #[test]
    fn milestone_0_counts_at_the_start() {
        let s = TorchMultiStep { milestones: [0], gamma: 0.5 };
        assert_eq!([0, 1].map(|t| s.lr(8.0, t)), [4.0, 4.0]);
        assert_eq!(s.restart_in_sequence(8.0), 4.0);
    }

    #[test]
    fn rate_without_milestones_is_the_groups_own() {
        let s = TorchMultiStep { milestones: [0; 0], gamma: 0.5 };
        assert_eq!([0, 5].map(|t| s.lr(8.0, t)), [8.0, 8.0]);
    }
}
