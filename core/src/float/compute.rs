//! Numbers and their single operations.
//!
//! Every operation of a [`ComputeFloat`] rounds as one PyTorch tensor operation does: for
//! `f64` and `f32` after each `+ − × ÷ √`; for `bf16` and `f16` once at the end
//! of the whole operation, which itself runs in `f32`. One rule source thus has
//! two roundings: computed in `f32` and stored narrow (PyTorch's *fused* kernels,
//! our default), or computed in the narrow type itself (PyTorch's *eager* ones): in [`Eager`](super::Eager).

use core::ops::{Div, Neg, Sub};

use half::{bf16, f16};
use num_traits::{One, Zero};

use super::{Dtype, StoredFloat};
use crate::arch::sqrt;

/// A number that a rule computes in.
///
/// The provided methods are the whole vocabulary of the rules, under PyTorch's
/// names. A `Scalar` argument is a step's constant, already rounded to `f32`
/// (`f64` for `f64`). As PyTorch does, `add_scalar` and `add_scaled` round it to
/// `Self` first; the other operations take it as it is.
pub trait ComputeFloat:
    StoredFloat + PartialOrd + Zero + One + Sub<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// Numbers of this type in memory.
    type Stored: StoredFloat;
    /// Constants of a step, operations inside an operation, and sums: `f64` for `f64`, else `f32`.
    type Scalar: ComputeFloat<Scalar = Self::Scalar>;

    /// Zero, as a constant.
    const ZERO: Self;
    /// One, as a constant.
    const ONE: Self;

    /// Exact.
    fn widen(self) -> Self::Scalar;
    /// Rounds once.
    fn round_from(x: Self::Scalar) -> Self;
    /// Reads from memory.
    fn load<T: StoredFloat>(x: T) -> Self;
    /// Writes to memory; rounds once.
    fn store<T: StoredFloat>(self) -> T;
    /// √x, correctly rounded.
    fn sqrt(self) -> Self;
    /// |x|.
    fn abs(self) -> Self;

    /// Rounded to a type, as a store does; `f64` is as it is.
    #[inline(always)]
    fn rounded(self, dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 => self,
            Dtype::F32 => Self::load(self.to_f32()),
            Dtype::Bf16 => Self::load(<bf16 as StoredFloat>::from_f32(self.to_f32())),
            Dtype::F16 => Self::load(<f16 as StoredFloat>::from_f32(self.to_f32())),
        }
    }

    /// A part of an operation on tensors of this type, as it is: what rounds where is decided at the end of the
    /// operation. PyTorch rounds such a part to the type where it has no vectors of numbers, so one who bounds errors
    /// wants to know of it.
    #[inline(always)]
    fn part_of(self, dtype: Dtype) -> Self {
        let _ = dtype;
        self
    }

    /// A step's constant, rounded once from `f64`.
    #[inline(always)]
    fn scalar(x: f64) -> Self::Scalar {
        Self::Scalar::from_f64(x)
    }

    /// A step's constant to multiply by. PyTorch's multi-tensor kernels (`foreach=True`) round it to
    /// the tensors' type first: β = 0.999 becomes 1 in `bf16`. That holds for lists of
    /// constants, too, and for no other operation.
    #[inline(always)]
    fn foreach_scalar(x: f64, foreach: bool) -> Self::Scalar {
        let x = Self::scalar(x);
        if foreach { Self::round_from(x).widen() } else { x }
    }

    /// Whether it is NaN.
    #[inline(always)]
    #[allow(clippy::eq_op)]
    fn is_nan(self) -> bool {
        self != self
    }

    /// The larger; NaN if either is (torch.maximum).
    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }

    /// The smaller; NaN if either is (torch.minimum).
    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        if self < other || self.is_nan() { self } else { other }
    }

    /// −1, 0 or 1; 0 for NaN (torch.sign).
    #[inline(always)]
    fn sign(self) -> Self {
        let positive = if self > Self::ZERO { Self::ONE } else { Self::ZERO };
        if self < Self::ZERO { -Self::ONE } else { positive }
    }

    /// x + s.
    #[inline(always)]
    fn add_scalar(self, s: Self::Scalar) -> Self {
        Self::round_from(self.widen() + Self::round_from(s).widen())
    }

    /// x · s.
    #[inline(always)]
    fn mul_scalar(self, s: Self::Scalar) -> Self {
        Self::round_from(self.widen() * s)
    }

    /// 1/√x: two roundings in `f32`, then that of the type (torch.rsqrt).
    #[inline(always)]
    fn rsqrt(self) -> Self {
        Self::round_from(Self::Scalar::ONE / self.widen().sqrt())
    }

    /// x / s.
    #[inline(always)]
    fn div_scalar(self, s: Self::Scalar) -> Self {
        Self::round_from(self.widen() / s)
    }

    /// x + alpha · y (torch.add with alpha).
    #[inline(always)]
    fn add_scaled(self, y: Self, alpha: Self::Scalar) -> Self {
        Self::round_from(self.widen() + Self::round_from(alpha).widen() * y.widen())
    }

    /// x + weight · (end − x), from the nearer end (torch.lerp).
    #[inline(always)]
    fn lerp(self, end: Self, weight: Self::Scalar) -> Self {
        let (x, y) = (self.widen(), end.widen());
        let near_start = weight.abs() < Self::scalar(0.5);
        let (base, factor) = if near_start { (x, weight) } else { (y, weight - Self::Scalar::ONE) };
        Self::round_from(base + factor * (y - x))
    }

    /// x + value · a · b.
    #[inline(always)]
    fn addcmul(self, a: Self, b: Self, value: Self::Scalar) -> Self {
        Self::round_from(self.widen() + value * a.widen() * b.widen())
    }

    /// x + value · a / b.
    #[inline(always)]
    fn addcdiv(self, a: Self, b: Self, value: Self::Scalar) -> Self {
        Self::round_from(self.widen() + value * a.widen() / b.widen())
    }
}

impl ComputeFloat for f64 {
    type Stored = f64;
    type Scalar = f64;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn round_from(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn load<T: StoredFloat>(x: T) -> Self {
        x.to_f64()
    }
    #[inline(always)]
    fn store<T: StoredFloat>(self) -> T {
        T::from_f64(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        sqrt::f64(self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f64::from_bits(self.to_bits() & !(1 << 63))
    }
}

impl ComputeFloat for f32 {
    type Stored = f32;
    type Scalar = f32;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn round_from(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn load<T: StoredFloat>(x: T) -> Self {
        x.to_f32()
    }
    #[inline(always)]
    fn store<T: StoredFloat>(self) -> T {
        T::from_f32(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        sqrt::f32(self)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        f32::from_bits(self.to_bits() & !(1 << 31))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_of_nan_is_zero() {
        assert_eq!(f32::NAN.sign(), 0.0);
        assert_eq!((-3.0f32).sign(), -1.0);
        assert_eq!((-0.0f64).sign(), 0.0);
    }

    #[test]
    fn lerp_starts_from_the_nearer_end() {
        assert_eq!(1.0f64.lerp(3.0, 0.25), 1.5);
        assert_eq!(1.0f64.lerp(3.0, 0.75), 2.5);
        // At weight 1 the end itself, however far the start.
        assert_eq!(1e30f32.lerp(1.0, 1.0), 1.0);
    }
}
