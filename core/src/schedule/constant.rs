use super::{Schedule, ScheduleFacts, ScheduleFloat};
use crate::hyper::{FieldVisitor, HyperParams};

/// The group's own rate at every step.
///
/// # Formula
/// λ(t) = 1; the rate is `base_lr` · λ(t).
///
/// # Source
/// `transformers.get_constant_schedule`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constant;

impl HyperParams for Constant {
    fn fields(&mut self, _: &mut dyn FieldVisitor) {}
}

impl<F: ScheduleFloat> Schedule<F> for Constant {
    fn lr(&self, base_lr: F, _: u64) -> F {
        base_lr
    }
}

impl ScheduleFacts for Constant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_of_any_step_is_the_groups_own() {
        // λ = 1
        assert_eq!([0, 1, u64::MAX].map(|t| Constant.lr(0.3, t)), [0.3; 3]);
        assert_eq!(Constant.check(), Ok(()));
    }
}
