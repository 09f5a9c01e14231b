//! The trait [`Decay`].

use crate::schedule::ScheduleFloat;

/// A learning rate as a function of the step, in `f32`.
pub trait Decay<F = f32> {
    /// The rate at a step.
    fn rate(&self, step: u64) -> F;
}

/// A constant rate.
impl<F: ScheduleFloat> Decay<F> for f32 {
    fn rate(&self, _: u64) -> F {
        F::of((*self).into())
    }
}

#[cfg(feature = "alloc")]
impl<D: Decay + ?Sized> Decay for alloc::boxed::Box<D> {
    fn rate(&self, step: u64) -> f32 {
        (**self).rate(step)
    }
}

/// The rate in `f32`.
#[cfg(test)]
pub(super) fn rate(decay: &impl Decay, step: u64) -> f32 {
    decay.rate(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_a_constant_rate() {
        assert_eq!([0, u64::MAX].map(|t| rate(&0.5_f32, t)), [0.5; 2]);
    }
}
