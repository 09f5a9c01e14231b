//! The numbers that schedules compute in.

use core::fmt::Debug;
use core::ops::{Add, Div, Mul, Sub};

use crate::math;

/// A number that schedules compute in: `f64`, and `f32` for TensorFlow's.
pub trait ScheduleFloat:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    /// The number that TensorFlow's schedules compute in.
    type Single: ScheduleFloat;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// An argument, rounded to this type.
    fn of(x: f64) -> Self;
    /// A number of steps, rounded to this type.
    fn count(n: u64) -> Self;
    /// A rate of TensorFlow's, exactly.
    fn from_single(x: Self::Single) -> Self;
    /// Rounded to `f32`.
    #[must_use]
    fn single(self) -> Self;
    /// x^y.
    #[must_use]
    fn pow(self, y: Self) -> Self;
    /// The natural logarithm.
    #[must_use]
    fn log(self) -> Self;
    /// The cosine.
    #[must_use]
    fn cos(self) -> Self;
    /// The square root.
    #[must_use]
    fn sqrt(self) -> Self;
    /// The largest whole number that is not larger.
    #[must_use]
    fn floor(self) -> Self;
    /// The smallest whole number that is not smaller.
    #[must_use]
    fn ceil(self) -> Self;
    /// Without what follows the point.
    #[must_use]
    fn trunc(self) -> Self;
}

impl ScheduleFloat for f64 {
    type Single = f32;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn of(x: f64) -> Self {
        x
    }
    fn count(n: u64) -> Self {
        n as f64
    }
    fn from_single(x: f32) -> Self {
        x.into()
    }
    fn single(self) -> Self {
        f64::from(self as f32)
    }
    fn pow(self, y: Self) -> Self {
        math::pow(self, y)
    }
    fn log(self) -> Self {
        libm::log(self)
    }
    fn cos(self) -> Self {
        math::cos(self)
    }
    fn sqrt(self) -> Self {
        libm::sqrt(self)
    }
    fn floor(self) -> Self {
        libm::floor(self)
    }
    fn ceil(self) -> Self {
        libm::ceil(self)
    }
    fn trunc(self) -> Self {
        libm::trunc(self)
    }
}

/// Powers, logarithms and cosines are computed in `f64` and rounded.
impl ScheduleFloat for f32 {
    type Single = f32;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn of(x: f64) -> Self {
        x as f32
    }
    fn count(n: u64) -> Self {
        n as f32
    }
    fn from_single(x: f32) -> Self {
        x
    }
    fn single(self) -> Self {
        self
    }
    fn pow(self, y: Self) -> Self {
        math::pow(self.into(), y.into()) as f32
    }
    /// libm's `f64` logarithm, within 1 ULP, rounds to the nearest `f32` but for rare near-ties.
    fn log(self) -> Self {
        libm::log(self.into()) as f32
    }
    fn cos(self) -> Self {
        math::cos(self.into()) as f32
    }
    fn sqrt(self) -> Self {
        libm::sqrtf(self)
    }
    fn floor(self) -> Self {
        libm::floorf(self)
    }
    fn ceil(self) -> Self {
        libm::ceilf(self)
    }
    fn trunc(self) -> Self {
        libm::truncf(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_round_to_their_type() {
        // 2^½ = 1.414 213 562 37…, cos 1 = 0.540 302 305 86…, ln 10 = 2.302 585 092 99…
        assert_eq!(<f32 as ScheduleFloat>::pow(2.0, 0.5), core::f32::consts::SQRT_2);
        assert_eq!(<f32 as ScheduleFloat>::cos(1.0), 0.540_302_3);
        assert_eq!(<f32 as ScheduleFloat>::log(10.0), core::f32::consts::LN_10);
        assert_eq!(<f64 as ScheduleFloat>::single(0.1), f64::from(0.1_f32));
    }
}
