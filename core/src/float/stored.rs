//! [`StoredFloat`]: the types in memory, and their conversions without branches.

use core::fmt::Debug;

use half::{bf16, f16};

use super::Dtype;

/// A type of plain floats in memory. Conversions round to nearest even.
pub trait StoredFloat: Copy + Default + Debug + PartialEq + Send + Sync + 'static {
    /// The type as a run-time value.
    const DTYPE: Dtype;
    /// To `f32`; exact except from `f64`.
    fn to_f32(self) -> f32;
    /// To `f64`; exact.
    fn to_f64(self) -> f64;
    /// From `f32`; rounds once.
    fn from_f32(x: f32) -> Self;
    /// From `f64`; rounds once, but twice to the 16-bit types: via `f32`, as PyTorch does.
    fn from_f64(x: f64) -> Self;
    /// From an `f32` that is a value of this type, or NaN.
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

// The conversions below are branchless, because those of `half` detect hardware support at run time for each element,
// which keeps a loop from being vectorised. The results are the same.

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
        // The exponent's bias from 15 to 127.
        let normal = ((bits & 0x7fff) << 13) + (112 << 23);
        // Subnormal: with the smallest normal exponent the implicit one is added, and subtracted again. A multiplication
        // by 2^112 would be shorter, but is slow on processors that handle subnormal operands in microcode.
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
        // Normal: the exponent's bias from 127 to 15; adding half an ulp less one, plus one if odd, rounds to nearest even.
        let odd = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_add(0xc800_0fff).wrapping_add(odd) >> 13;
        // Subnormal: in an f32 of size ½ the last bit is 2⁻²⁴, as in a subnormal; the addition rounds.
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
        // The exponent's bias from 127 to 15; an exponent of all ones (infinity, NaN) stays all ones.
        let bias = if magnitude >= 255 << 23 { 224 << 10 } else { 112 << 10 };
        let normal = (magnitude >> 13).wrapping_sub(bias);
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let narrow = if magnitude < 113 << 23 { subnormal } else { normal };
        f16::from_bits((narrow | ((bits >> 16) & 0x8000)) as u16)
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
}
