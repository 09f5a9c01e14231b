//! Blocks of 256 numbers in 8 bits each, as bitsandbytes has them.

use crate::real::Real;
use crate::storage::Codec;
use crate::storage::maps::{SIGNED_8, UNSIGNED_8, floor};

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

/// The nearest code, the lower of two equally near.
#[inline(always)]
fn nearest(map: &[f32; 256], x: f32) -> u8 {
    let low = floor(map, x);
    let high = if low < 255 { low + 1 } else { 255 };
    let up = map[high] - x < x - map[low];
    (if up { high } else { low }) as u8
}

/// The largest magnitude; NaN does not count.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for part in values.chunks(8) {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            let x = Real::abs(x);
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().fold(0.0, |a, &b| if b > a { b } else { a })
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
        let map = self.map();
        let scale = largest(values);
        if self.grid {
            let inverse = 1.0 / scale;
            for (code, &x) in codes.iter_mut().zip(values) {
                // A cast takes NaN to 0 and what lies outside to the ends.
                let cell = ((x * inverse + 1.0) * 0.5 * 65535.0 + 0.5) as u16;
                let centre = f32::from(cell) / 65535.0 * 2.0 - 1.0;
                *code = nearest(map, centre);
            }
            return scale;
        }
        let is_nan = values.iter().any(|x| x.is_nan());
        let scale = if is_nan { f32::NAN } else { scale };
        let scale = if scale == 0.0 { 1.0 } else { scale };
        for (code, &x) in codes.iter_mut().zip(values) {
            let x = x / scale;
            let near = nearest(map, x);
            *code = if x.is_nan() { 0 } else { near };
        }
        scale
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
