//! [`ComputeFloat`]: the types that a rule computes in, and their operations.
//!
//! Every operation rounds as one PyTorch tensor operation does: for `f64` and `f32` after each `+ − × ÷ √`; for `bf16`
//! and `f16` once at the end of the whole operation, which itself runs in `f32`. The same source of a rule thus gives
//! two roundings: computed in `f32` and rounded to 16 bits when stored, as PyTorch's *fused* kernels do (the default), or
//! computed in the 16-bit type itself, [`Eager`](super::Eager), as PyTorch's *eager* kernels do.

use core::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use super::{Dtype, RoundNarrow, StoredFloat};
use crate::arch::sqrt;

/// A type that a rule computes in.
///
/// Rules use these methods only; they have PyTorch's names. A `Scalar` argument is a constant of the step, already
/// rounded to `f32` (`f64` for `f64`). As in PyTorch, `add_scalar` and `add_scaled` round it to `Self` first; the other
/// operations use it as it is.
pub trait ComputeFloat:
    StoredFloat
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The storage type of the same values.
    type Stored: StoredFloat;
    /// The type of a step's constants, of intermediate results within an operation, and of sums: `f64` for `f64`, else
    /// `f32`.
    type Scalar: ComputeFloat<Scalar = Self::Scalar>;

    /// Zero, as a constant.
    const ZERO: Self;
    /// One, as a constant.
    const ONE: Self;

    /// Converts exactly.
    fn widen(self) -> Self::Scalar;
    /// Rounds once, to nearest even.
    fn round_from(x: Self::Scalar) -> Self;
    /// Converts a stored value; rounds once if `Self` is narrower.
    fn load<T: StoredFloat>(x: T) -> Self;
    /// Converts to a stored value; rounds once.
    fn store<T: StoredFloat>(self) -> T;
    /// √x, correctly rounded.
    fn sqrt(self) -> Self;
    /// |x|.
    fn abs(self) -> Self;

    /// Rounds to the values of a type, as [`store`](Self::store) does; `F64` changes nothing.
    #[inline(always)]
    fn rounded(self, dtype: Dtype) -> Self {
        // All three are computed and one is chosen, so that a loop needs no branch.
        let single = self.to_f32();
        let (brain, half) =
            (<bf16 as RoundNarrow>::round(single), <f16 as RoundNarrow>::round(single));
        let narrow = if dtype == Dtype::Bf16 { brain } else { half };
        let narrow = if dtype == Dtype::F32 { single } else { narrow };
        if dtype == Dtype::F64 { self } else { Self::load(narrow) }
    }

    /// Marks an intermediate result within an operation on tensors of this type, and returns it unchanged. PyTorch's
    /// scalar code paths round it to the type, its vectorised ones don't: types that bound errors override this.
    #[inline(always)]
    fn part_of(self, dtype: Dtype) -> Self {
        let _ = dtype;
        self
    }

    /// A constant of the step, rounded once from `f64`.
    #[inline(always)]
    fn scalar(x: f64) -> Self::Scalar {
        Self::Scalar::from_f64(x)
    }

    /// A constant of the step to multiply by. PyTorch's multi-tensor kernels (`foreach=True`) round the factor of a
    /// multiplication to the tensors' type first: β = 0.999 becomes 1 in `bf16`. They do so for lists of factors too,
    /// but for no other operation.
    #[inline(always)]
    fn foreach_scalar(x: f64, foreach: bool) -> Self::Scalar {
        let x = Self::scalar(x);
        if foreach { Self::round_from(x).widen() } else { x }
    }

    /// Whether x is NaN.
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
        if cfg!(target_feature = "simd128") {
            // Two masks and a difference cost less than a choice of three there, and more where numbers are single.
            let negative = if self < Self::ZERO { Self::ONE } else { Self::ZERO };
            return positive - negative;
        }
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
        // Weight 1 gives the end exactly, however far the start is.
        assert_eq!(1e30f32.lerp(1.0, 1.0), 1.0);
    }
}
