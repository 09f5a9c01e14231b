//! Numbers and their single operations.
//!
//! A [`StoredFloat`] is what rests in memory; a [`ComputeFloat`] is what a rule computes in.
//! Every operation of a `ComputeFloat` rounds as one PyTorch tensor operation does: for
//! `f64` and `f32` after each `+ − × ÷ √`; for `bf16` and `f16` once at the end
//! of the whole operation, which itself runs in `f32`. One rule source thus has
//! two roundings: computed in `f32` and stored narrow (PyTorch's *fused* kernels,
//! our default), or computed in the narrow type itself (PyTorch's *eager* ones): in [`Eager`](crate::eager::Eager).

use core::fmt::Debug;
use core::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use crate::sqrt;

/// The type of a plain number in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE binary16.
    F16,
}

impl Dtype {
    /// What saved files call it. It never changes.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }

    /// Bytes per number.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }
}

/// A number in memory. Conversions round once, to nearest even.
pub trait StoredFloat: Copy + Default + Debug + PartialEq + Send + Sync + 'static {
    /// Its type as a value.
    const DTYPE: Dtype;
    /// To `f32`; exact but for `f64`.
    fn to_f32(self) -> f32;
    /// To `f64`; always exact.
    fn to_f64(self) -> f64;
    /// From `f32`.
    fn from_f32(x: f32) -> Self;
    /// From `f64`; to the 16-bit types by way of `f32`, as PyTorch does.
    fn from_f64(x: f64) -> Self;
    /// From an `f32` that is one of this type's numbers, or NaN.
    #[inline(always)]
    fn from_exact(x: f32) -> Self {
        Self::from_f32(x)
    }
}

impl StoredFloat for f64 {
    const DTYPE: Dtype = Dtype::F64;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x.into()
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }
}

impl StoredFloat for f32 {
    const DTYPE: Dtype = Dtype::F32;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }
}

// The conversions below are written out, without a branch, because those of
// `half` choose hardware at run time for each element, which stops a loop from
// vectorising. The results are the same.

impl StoredFloat for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        StoredFloat::to_f32(self).into()
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let nan = if x.is_nan() { u32::MAX } else { 0 };
        bf16::from_bits(((rounded | nan) >> 16) as u16)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        Self::from_f32(x as f32)
    }
    #[inline(always)]
    fn from_exact(x: f32) -> Self {
        bf16::from_bits((x.to_bits() >> 16) as u16)
    }
}

impl StoredFloat for f16 {
    const DTYPE: Dtype = Dtype::F16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        let bits = u32::from(self.to_bits());
        // Exponent bias 15 to 127.
        let normal = ((bits & 0x7fff) << 13) + (112 << 23);
        // Subnormal: one exponent up it has a leading one, which is taken off again. A multiplication
        // by 2^112 would be shorter, but processors are slow where an operand is subnormal.
        let subnormal = f32::from_bits(normal + (1 << 23)) - f32::from_bits(113 << 23);
        let finite = if normal < 113 << 23 { subnormal.to_bits() } else { normal };
        let special = if normal >= 143 << 23 { 0x7f80_0000 } else { 0 };
        f32::from_bits(finite | special | ((bits & 0x8000) << 16))
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        StoredFloat::to_f32(self).into()
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        // Normal: exponent bias 127 to 15, and half an ulp less one, plus one if odd.
        let odd = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_add(0xc800_0fff).wrapping_add(odd) >> 13;
        // Subnormal: adding one half aligns the last bit; the adder rounds.
        let half = f32::from_bits(magnitude) + 0.5;
        let subnormal = half.to_bits().wrapping_sub(0.5f32.to_bits());
        let special = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
        let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
        let narrow = if magnitude >= 0x4780_0000 { special } else { finite };
        f16::from_bits((narrow | ((bits >> 16) & 0x8000)) as u16)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        Self::from_f32(x as f32)
    }
    #[inline(always)]
    fn from_exact(x: f32) -> Self {
        let bits = x.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        // Exponent bias 127 to 15; an exponent of all ones stays one.
        let bias = if magnitude >= 255 << 23 { 224 << 10 } else { 112 << 10 };
        let normal = (magnitude >> 13).wrapping_sub(bias);
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let narrow = if magnitude < 113 << 23 { subnormal } else { normal };
        f16::from_bits((narrow | ((bits >> 16) & 0x8000)) as u16)
    }
}

/// A number that a rule computes in.
///
/// The provided methods are the whole vocabulary of the rules, under PyTorch's
/// names. A `Scalar` argument is a step's constant, already rounded to `f32`
/// (`f64` for `f64`). As PyTorch does, `add_scalar` and `add_scaled` round it to
/// `Self` first; the other operations take it as it is.
pub trait ComputeFloat:
    StoredFloat
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// Numbers of this type in memory.
    type Stored: StoredFloat;
    /// Constants of a step, operations inside an operation, and sums: `f64` for `f64`, else `f32`.
    type Scalar: ComputeFloat<Scalar = Self::Scalar>;

    /// Zero.
    const ZERO: Self;
    /// One.
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
    fn narrow_every_16_bit_pattern_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
            assert!(
                b.is_nan() && StoredFloat::to_f32(b).is_nan()
                    || <bf16 as StoredFloat>::from_f32(StoredFloat::to_f32(b)) == b
            );
            assert!(
                h.is_nan() && StoredFloat::to_f32(h).is_nan()
                    || <f16 as StoredFloat>::from_f32(StoredFloat::to_f32(h)) == h
            );
            assert!(h.is_nan() || StoredFloat::to_f32(h) == half::f16::to_f32_const(h));
        }
    }

    #[test]
    fn narrow_a_stratified_sample_rounds_as_half_does() {
        // A prime step visits every exponent and all low-bit patterns.
        for bits in (0..=u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            let (b, h) = (<bf16 as StoredFloat>::from_f32(x), <f16 as StoredFloat>::from_f32(x));
            if x.is_nan() {
                assert!(b.is_nan() && h.is_nan());
            } else {
                assert_eq!(b.to_bits(), bf16::from_f32_const(x).to_bits(), "{bits:#x}");
                assert_eq!(h.to_bits(), f16::from_f32_const(x).to_bits(), "{bits:#x}");
            }
        }
    }

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
