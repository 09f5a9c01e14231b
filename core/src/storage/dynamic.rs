//! bitsandbytes' block-wise format: blocks of 256 values in 8-bit codes of a dynamic map.

use crate::float::ComputeFloat;
use crate::storage::Codec;
use crate::storage::quant_maps::{self, BNB_SIGNED, BNB_UNSIGNED, EIGHT_SIGNED, EIGHT_UNSIGNED};

/// bitsandbytes' block-wise dynamic 8-bit codes: 8.125 bits per element.
///
/// The scale of a block of 256 (the last may be shorter) is its largest magnitude; the codes are those of a dynamic
/// map. There are two encodings:
///
/// * The nearest code, ties to the lower one, as bitsandbytes does on a GPU. A block of zeros has the scale 1. A NaN
///   makes its whole block NaN, permanently.
/// * With `cpu_grid`, as bitsandbytes does on a CPU: the scaled value is first rounded to a grid of 65536 points evenly
///   spaced over [−1, 1], so that the codes closest to 0 never occur: 0 itself becomes 2.1e-5 (unsigned 1.56e-5) times
///   the scale. A block of zeros has the scale 0. A NaN is ignored for the scale and gets code 0, which is −0.993
///   (unsigned 0) times the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DynamicQuant8 {
    /// Whether values of both signs are stored.
    pub signed: bool,
    /// Whether to encode as bitsandbytes does on a CPU.
    pub cpu_grid: bool,
}

/// The largest magnitude; NaN if any value is. Magnitudes are ordered as their bits are, NaN above infinity, and
/// compilers vectorise a maximum of integers.
#[inline(always)]
pub(crate) fn abs_max(values: &[f32]) -> f32 {
    let most = values.iter().fold(0, |most: u32, &x| most.max(magnitude_bits(x)));
    f32::from_bits(most)
}

/// The bits of the magnitude.
#[inline(always)]
pub(crate) fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// ⌊x⌋ for x from 0 to 65536.
#[inline(always)]
fn floor_f32(x: f32) -> f32 {
    // In [2²³, 2²⁴) neighbouring floats are 1 apart: the addition rounds to an integer.
    const BASE: f32 = 12_582_912.0;
    let near = x + BASE - BASE;
    if near > x { near - 1.0 } else { near }
}

/// The largest magnitude, ignoring NaN.
#[inline(always)]
fn abs_max_ignoring_nan(values: &[f32]) -> f32 {
    let largest = abs_max(values);
    if !largest.is_nan() {
        return largest;
    }
    let numbers = values.iter().filter(|x| !x.is_nan());
    numbers
        .fold(0.0, |most, &x| if ComputeFloat::abs(x) > most { ComputeFloat::abs(x) } else { most })
}

impl Codec for DynamicQuant8 {
    type Scale = f32;
    const BITS: usize = 8;

    fn block(self) -> usize {
        256
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], scale: f32, values: &mut [f32]) {
        let table = if self.signed { &EIGHT_SIGNED } else { &EIGHT_UNSIGNED };
        quant_maps::decode(table, codes, scale, values);
    }

    #[inline(always)]
    fn encode(self, values: &[f32], codes: &mut [u8]) -> f32 {
        if self.cpu_grid {
            let scale = abs_max_ignoring_nan(values);
            let inverse = 1.0 / scale;
            self.encode_with(values, codes, |x| grid_point(x, inverse));
            return scale;
        }
        let scale = nearest_scale(abs_max(values));
        self.encode_with(values, codes, |x| x / scale);
        scale
    }

    #[inline(always)]
    fn magnitude(self, shaped: f32) -> u32 {
        if self.cpu_grid && shaped.is_nan() { 0 } else { magnitude_bits(shaped) }
    }

    #[inline(always)]
    fn scale(self, largest: u32) -> f32 {
        let largest = f32::from_bits(largest);
        if self.cpu_grid { largest } else { nearest_scale(largest) }
    }

    #[inline(always)]
    fn code(self, shaped: f32, scale: f32) -> u8 {
        let x = if self.cpu_grid { grid_point(shaped, 1.0 / scale) } else { shaped / scale };
        if self.signed { BNB_SIGNED.code(x) } else { BNB_UNSIGNED.code(x) }
    }

    #[inline(always)]
    fn value(self, code: u8, scale: f32) -> f32 {
        let table = if self.signed { &EIGHT_SIGNED } else { &EIGHT_UNSIGNED };
        table.values[usize::from(code)] * scale
    }
}

/// The scale of a block with this largest magnitude, where codes are the nearest.
#[inline(always)]
fn nearest_scale(largest: f32) -> f32 {
    match largest {
        0.0 => 1.0,
        x if x.is_nan() => f32::NAN, // the canonical NaN
        x => x,
    }
}

/// The grid's point of a value, which is scaled by this factor.
#[inline(always)]
fn grid_point(x: f32, inverse: f32) -> f32 {
    // The reference clamps the cell to 0..=65535 and divides it by 65535. Neither changes a code: values beyond ±1 get
    // the codes of ±1, and the division has been compared for all cells.
    let cell = floor_f32((x * inverse + 1.0) * 0.5 * 65535.0 + 0.5);
    cell * (2.0 / 65535.0) - 1.0
}

impl DynamicQuant8 {
    /// Writes the codes nearest to `f` of each value.
    #[inline(always)]
    fn encode_with(self, values: &[f32], codes: &mut [u8], f: impl Fn(f32) -> f32) {
        if self.signed {
            BNB_SIGNED.encode(values, codes, f);
        } else {
            BNB_UNSIGNED.encode(values, codes, f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::quant_maps::{SIGNED_8, Tie, UNSIGNED_8, nearest};

    #[test]
    fn nearest_code_of_zero_is_zero_and_the_grid_misses_it() {
        let mut codes = [0u8; 2];
        let near = DynamicQuant8 { signed: true, cpu_grid: false };
        assert_eq!(near.encode(&[2.0, 0.0], &mut codes), 2.0);
        assert_eq!(codes, [255, 127]);
        let grid = DynamicQuant8 { signed: true, cpu_grid: true };
        assert_eq!(grid.encode(&[2.0, 0.0], &mut codes), 2.0);
        assert_eq!(codes, [255, 131]);
        assert_eq!(
            DynamicQuant8 { signed: false, cpu_grid: true }.encode(&[2.0, 0.0], &mut codes),
            2.0
        );
        assert_eq!(codes, [255, 7]);
    }

    #[test]
    fn every_cell_of_the_grid_has_the_code_of_the_quotient() {
        for (map, signed) in [(&SIGNED_8, true), (&UNSIGNED_8, false)] {
            for cell in 0..=65535u16 {
                let quotient = f32::from(cell) / 65535.0 * 2.0 - 1.0;
                // In the middle of the cell, with 1 as the largest.
                let x = (f64::from(cell) / 65535.0 * 2.0 - 1.0) as f32;
                let mut codes = [0; 2];
                DynamicQuant8 { signed, cpu_grid: true }.encode(&[x, 1.0], &mut codes);
                assert_eq!(codes[0], nearest(map, Tie::Lower, quotient), "{cell}");
            }
        }
    }

    #[test]
    fn block_of_zeros_has_the_scale_of_its_reference() {
        let mut codes = [9u8; 3];
        assert_eq!(
            DynamicQuant8 { signed: true, cpu_grid: false }.encode(&[0.0; 3], &mut codes),
            1.0
        );
        assert_eq!(codes, [127; 3]);
        assert_eq!(
            DynamicQuant8 { signed: true, cpu_grid: true }.encode(&[0.0; 3], &mut codes),
            0.0
        );
        assert_eq!(codes, [0; 3]);
    }

    #[test]
    fn nan_poisons_the_block_or_becomes_code_zero() {
        let mut codes = [9u8; 3];
        let values = [0.5, f32::NAN, 0.5];
        assert!(
            DynamicQuant8 { signed: true, cpu_grid: false }.encode(&values, &mut codes).is_nan()
        );
        assert_eq!(DynamicQuant8 { signed: true, cpu_grid: true }.encode(&values, &mut codes), 0.5);
        assert_eq!(codes, [255, 0, 255]);
    }
}
