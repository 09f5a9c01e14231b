//! The decays of Keras, for [`WarmUp`](super::WarmUp) to run after its warm-up.
//!
//! They are in f32, as TensorFlow computes them: arguments are rounded first, then every operation is.

mod cosine_decay;
mod cosine_decay_restarts;
mod exponential_decay;
mod inverse_time_decay;
#[cfg(feature = "alloc")]
pub(super) mod named;
mod piecewise_constant_decay;
mod polynomial_decay;

pub use cosine_decay::CosineDecay;
pub use cosine_decay_restarts::CosineDecayRestarts;
pub use exponential_decay::ExponentialDecay;
pub use inverse_time_decay::InverseTimeDecay;
pub use piecewise_constant_decay::PiecewiseConstantDecay;
pub use polynomial_decay::PolynomialDecay;

use crate::accurate;

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

pub(super) fn pow(x: f32, y: f32) -> f32 {
    accurate::pow(x.into(), y.into()) as f32
}

fn cos(x: f32) -> f32 {
    accurate::cos(x.into()) as f32
}

/// libm's f64 logarithm is so close that rounding it gives the nearest f32.
fn log(x: f32) -> f32 {
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
