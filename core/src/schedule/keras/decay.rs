//! The trait [`Decay`], and the functions that decays use: evaluated in f64, rounded to f32.

use crate::math;

/// A learning rate as a function of the step, in f32.
pub trait Decay {
    /// The rate at a step.
    fn rate(&self, step: u64) -> f32;
}

/// A constant rate.
impl Decay for f32 {
    fn rate(&self, _: u64) -> f32 {
        *self
    }
}

#[cfg(feature = "alloc")]
impl<D: Decay + ?Sized> Decay for alloc::boxed::Box<D> {
    fn rate(&self, step: u64) -> f32 {
        (**self).rate(step)
    }
}

pub(in crate::schedule) fn pow(x: f32, y: f32) -> f32 {
    math::pow(x.into(), y.into()) as f32
}

pub(super) fn cos(x: f32) -> f32 {
    math::cos(x.into()) as f32
}

/// libm's f64 logarithm, within 1 ULP, rounds to the nearest f32 but for rare near-ties.
pub(super) fn log(x: f32) -> f32 {
    libm::log(x.into()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_a_constant_rate() {
        assert_eq!([0, u64::MAX].map(|t| 0.5_f32.rate(t)), [0.5; 2]);
    }

    #[test]
    fn functions_round_to_f32() {
        // 2^½ = 1.414 213 562 37…, cos 1 = 0.540 302 305 86…, ln 10 = 2.302 585 092 99…
        assert_eq!(pow(2.0, 0.5), core::f32::consts::SQRT_2);
        assert_eq!(cos(1.0), 0.540_302_3);
        assert_eq!(log(10.0), core::f32::consts::LN_10);
    }
}
