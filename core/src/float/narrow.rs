//! Rounding an `f32` to the values of a 16-bit type, in loops that become vectors.

use half::{bf16, f16};

use crate::float::StoredFloat;

/// A 16-bit type to whose values an `f32` can be rounded.
pub trait RoundNarrow: StoredFloat {
    /// The nearest value of this type, ties to even, as an `f32`.
    fn round(x: f32) -> f32;
}

impl RoundNarrow for bf16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let nan = if x.is_nan() { u32::MAX } else { 0 };
        f32::from_bits((rounded | nan) & 0xffff_0000)
    }
}

impl RoundNarrow for f16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        let bits = x.to_bits();
        // Adding 1.5 times a power of two whose ulp is that of an f16 of the size of x rounds x to that ulp, and the
        // subtraction is exact. The lower limit gives subnormals the ulp of the smallest normal number.
        let exponent = (bits & 0x7f80_0000).clamp(113 << 23, 143 << 23);
        let large = f32::from_bits(exponent + (13 << 23) + (1 << 22));
        let rounded = (x + large) - large;
        // From 2^16 on, the product with 2^112 overflows to infinity; smaller values come back unchanged.
        let limited = rounded * f32::from_bits(239 << 23) * f32::from_bits(15 << 23);
        f32::from_bits(limited.to_bits() | (bits & 0x8000_0000))
    }
}
