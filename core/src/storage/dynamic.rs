//! Blocks of 256 numbers in 8 bits each, as bitsandbytes has them.

use crate::real::Real;
use crate::storage::maps::{LOWER_SIGNED, LOWER_UNSIGNED, SIGNED_8, UNSIGNED_8};
use crate::storage::{Codec, floor};

/// bitsandbytes' block-wise dynamic 8-bit codes: 8.125 bits a number.
///
/// The largest magnitude of a block of 256 (the last may be shorter) scales it;
/// the codes are those of a dynamic map. Two ways to encode:
///
/// * the nearest code, the lower of two equally near: what a GPU does. A block of
///   zeros has the scale 1. A NaN makes its whole block NaN, and that for good.
/// * with `grid`, what bitsandbytes does on a CPU: the number is first rounded to
///   one of 65536 evenly spread over [−1, 1], so that codes close to 0 never
///   occur: 0 itself becomes 2.1e-5 (unsigned 1.56e-5) of the largest. A block of
///   zeros has the scale 0. A NaN is left out of the scale and becomes code 0,
///   which is −0.993 (unsigned 0) of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dynamic {
    /// For numbers of both signs.
    pub signed: bool,
    /// Encode as bitsandbytes does on a CPU.
    pub grid: bool,
}

impl Dynamic {
    #[inline(always)]
    fn map(self) -> &'static [f32; 256] {
        if self.signed { &SIGNED_8 } else { &UNSIGNED_8 }
    }
}

/// The largest magnitude; NaN if any number is. The bits of magnitudes are in the numbers' order,
/// those of NaN above infinity's: compilers make vectors of a maximum of integers.
#[inline(always)]
pub(crate) fn largest_or_nan(values: &[f32]) -> f32 {
    let most = values.iter().fold(0, |most: u32, x| most.max(x.to_bits() & 0x7fff_ffff));
    f32::from_bits(most)
}

/// The largest magnitude; NaN does not count.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let largest = largest_or_nan(values);
    if !largest.is_nan() {
        return largest;
    }
    let numbers = values.iter().filter(|x| !x.is_nan());
    numbers.fold(0.0, |most, &x| if Real::abs(x) > most { Real::abs(x) } else { most })
}

impl Codec for Dynamic {
    type Scale = f32;
    const BITS: usize = 8;

    fn block(self) -> usize {
        256
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], scale: f32, values: &mut [f32]) {
        let map = self.map();
        for (x, &code) in values.iter_mut().zip(codes) {
            *x = map[usize::from(code)] * scale;
        }
    }

    #[inline(always)]
    fn encode(self, values: &[f32], codes: &mut [u8]) -> f32 {
        if self.grid {
            let scale = largest(values);
            let inverse = 1.0 / scale;
            self.write(values, codes, |x| {
                // Clamped as a cast would do it, which takes NaN to 0.
                let cell = (x * inverse + 1.0) * 0.5 * 65535.0 + 0.5;
                let cell = if cell > 0.0 { cell } else { 0.0 };
                let cell = floor(if cell < 65535.0 { cell } else { 65535.0 });
                cell as f32 / 65535.0 * 2.0 - 1.0
            });
            return scale;
        }
        let scale = match largest_or_nan(values) {
            0.0 => 1.0,
            x if x.is_nan() => f32::NAN, // the usual one
            x => x,
        };
        self.write(values, codes, |x| x / scale);
        scale
    }
}

impl Dynamic {
    /// Writes the codes nearest to what `f` makes of the values.
    #[inline(always)]
    fn write(self, values: &[f32], codes: &mut [u8], f: impl Fn(f32) -> f32) {
        if self.signed {
            LOWER_SIGNED.encode(values, codes, f);
        } else {
            LOWER_UNSIGNED.encode(values, codes, f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_code_of_zero_is_zero_and_the_grid_misses_it() {
        let mut codes = [0u8; 2];
        let near = Dynamic { signed: true, grid: false };
        assert_eq!(near.encode(&[2.0, 0.0], &mut codes), 2.0);
        assert_eq!(codes, [255, 127]);
        let grid = Dynamic { signed: true, grid: true };
        assert_eq!(grid.encode(&[2.0, 0.0], &mut codes), 2.0);
        assert_eq!(codes, [255, 131]);
        assert_eq!(Dynamic { signed: false, grid: true }.encode(&[2.0, 0.0], &mut codes), 2.0);
        assert_eq!(codes, [255, 7]);
    }

    #[test]
    fn block_of_zeros_has_the_scale_of_its_reference() {
        let mut codes = [9u8; 3];
        assert_eq!(Dynamic { signed: true, grid: false }.encode(&[0.0; 3], &mut codes), 1.0);
        assert_eq!(codes, [127; 3]);
        assert_eq!(Dynamic { signed: true, grid: true }.encode(&[0.0; 3], &mut codes), 0.0);
        assert_eq!(codes, [0; 3]);
    }

    #[test]
    fn nan_poisons_the_block_or_becomes_code_zero() {
        let mut codes = [9u8; 3];
        let values = [0.5, f32::NAN, 0.5];
        assert!(Dynamic { signed: true, grid: false }.encode(&values, &mut codes).is_nan());
        assert_eq!(Dynamic { signed: true, grid: true }.encode(&values, &mut codes), 0.5);
        assert_eq!(codes, [255, 0, 255]);
    }
}
