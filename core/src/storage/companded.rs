//! FlashOptim's companded format: groups of 32 values in 8-bit codes, through a curve that makes codes denser where
//! values are.

use half::f16;

use crate::float::{ComputeFloat, StoredFloat};
use crate::storage::{Codec, floor};

/// FlashOptim's codes: 8.5 bits per element.
///
/// The scale of a group is its largest magnitude (of `Variance`: of the square roots), at least 1e-12. Values are
/// encoded with this scale in `f32`; it is stored in `f16`, and so reads back as 0 below about 3e-8 and as infinity
/// above 65504 (the group then decodes to NaN or infinity). Ties between two codes go up. NaN is ignored for the scale,
/// and gets code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Companded {
    /// Signed: code 127 · 2x / (1 + |x|) of the scaled value x, which is finer towards 0.
    Momentum,
    /// Unsigned: code 255 · √x / scale; negative values become 0.
    Variance,
}

/// Elements per block, which FlashOptim calls a group.
const GROUP: usize = 32;
/// Whether full blocks have a code path of their own, with constant lengths. It pays where there are vector units; on
/// small processors full blocks take the path of short ones.
const FAST_FULL_BLOCKS: bool = cfg!(not(target_os = "none"));

impl Codec for Companded {
    type Scale = f16;
    const BITS: usize = 8;

    fn block(self) -> usize {
        GROUP
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], scale: f16, values: &mut [f32]) {
        let scale = StoredFloat::to_f32(scale);
        if FAST_FULL_BLOCKS
            && let (Ok(values), Ok(codes)) =
                (<&mut [f32; GROUP]>::try_from(&mut *values), <&[u8; GROUP]>::try_from(codes))
        {
            *values = self.expand(*codes, scale);
            return;
        }
        let mut bytes = [0; GROUP];
        bytes.iter_mut().zip(codes).for_each(|(to, &code)| *to = code);
        let group = self.expand(bytes, scale);
        values.iter_mut().zip(group).for_each(|(to, x)| *to = x);
    }

    #[inline(always)]
    fn encode(self, values: &[f32], codes: &mut [u8]) -> f16 {
        if FAST_FULL_BLOCKS
            && let (Ok(values), Ok(codes)) =
                (<&[f32; GROUP]>::try_from(values), <&mut [u8; GROUP]>::try_from(&mut *codes))
        {
            return StoredFloat::from_f32(self.compress(*values, codes));
        }
        // A short group is padded with zeros, which do not change the scale.
        let (mut group, mut bytes) = ([0.0; GROUP], [0; GROUP]);
        group.iter_mut().zip(values).for_each(|(to, &x)| *to = x);
        let scale = self.compress(group, &mut bytes);
        codes.iter_mut().zip(bytes).for_each(|(to, code)| *to = code);
        StoredFloat::from_f32(scale)
    }

    #[inline(always)]
    fn shape(self, value: f32) -> f32 {
        if self == Companded::Variance { ComputeFloat::sqrt(value) } else { value }
    }

    #[inline(always)]
    fn magnitude(self, shaped: f32) -> u32 {
        at_least_tiny(shaped).to_bits()
    }

    #[inline(always)]
    fn scale(self, largest: u32) -> f32 {
        f32::from_bits(largest)
    }

    #[inline(always)]
    fn code(self, shaped: f32, scale: f32) -> u8 {
        match self {
            Companded::Momentum => momentum_code(shaped, scale),
            Companded::Variance => variance_code(shaped, scale),
        }
    }

    #[inline(always)]
    fn value(self, code: u8, scale: f32) -> f32 {
        match self {
            Companded::Momentum => momentum_value(code, scale),
            Companded::Variance => variance_value(code, scale),
        }
    }
}

/// The magnitude, at least 1e-12, which NaN counts as.
#[inline(always)]
fn at_least_tiny(x: f32) -> f32 {
    let x = ComputeFloat::abs(x);
    if x > 1e-12 { x } else { 1e-12 }
}

#[inline(always)]
fn momentum_value(code: u8, scale: f32) -> f32 {
    let y = f32::from(code as i8) / 127.0;
    y / (2.0 - ComputeFloat::abs(y)) * scale
}

#[inline(always)]
fn variance_value(code: u8, scale: f32) -> f32 {
    let root = f32::from(code) / 255.0 * scale;
    root * root
}

#[inline(always)]
fn momentum_code(x: f32, scale: f32) -> u8 {
    let x = x / scale;
    let y = 2.0 * x / (1.0 + ComputeFloat::abs(x));
    floor(y * 127.0 + 0.5) as u8
}

#[inline(always)]
fn variance_code(root: f32, scale: f32) -> u8 {
    floor(root / scale * 255.0 + 0.5) as u8
}

impl Companded {
    #[inline(always)]
    fn expand(self, codes: [u8; GROUP], scale: f32) -> [f32; GROUP] {
        let mut values = [0.0; GROUP];
        match self {
            Companded::Momentum => {
                for (x, code) in values.iter_mut().zip(codes) {
                    *x = momentum_value(code, scale);
                }
            }
            Companded::Variance => {
                for (x, code) in values.iter_mut().zip(codes) {
                    *x = variance_value(code, scale);
                }
            }
        }
        values
    }

    #[inline(always)]
    fn compress(self, mut group: [f32; GROUP], codes: &mut [u8; GROUP]) -> f32 {
        if self == Companded::Variance {
            for x in &mut group {
                *x = ComputeFloat::sqrt(*x);
            }
        }
        let mut largest = group;
        for x in &mut largest {
            *x = at_least_tiny(*x);
        }
        let mut width = GROUP / 2;
        while width > 0 {
            let (low, high) = largest.split_at_mut(width);
            for (a, &b) in low.iter_mut().zip(high.iter()) {
                *a = if *a > b { *a } else { b };
            }
            width /= 2;
        }
        let scale = largest[0];
        match self {
            Companded::Momentum => {
                for (code, x) in codes.iter_mut().zip(group) {
                    *code = momentum_code(x, scale);
                }
            }
            Companded::Variance => {
                for (code, x) in codes.iter_mut().zip(group) {
                    *code = variance_code(x, scale);
                }
            }
        }
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(
        codec: Companded,
        values: &[f32],
    ) -> (std::vec::Vec<u8>, f16, std::vec::Vec<f32>) {
        let mut codes = std::vec![0; values.len()];
        let scale = codec.encode(values, &mut codes);
        let mut back = std::vec![0.0; values.len()];
        codec.decode(&codes, scale, &mut back);
        (codes, scale, back)
    }
    extern crate std;

    #[test]
    fn momentum_hand_worked_group_has_these_codes() {
        // x = 1/3 of the largest: 127 · (2/3) / (4/3) = 63.5, a tie, goes up; −63.5 goes up to −63.
        let (codes, scale, back) = round_trip(Companded::Momentum, &[3.0, 1.0, -1.0, -3.0, 0.0]);
        assert_eq!(
            codes.iter().map(|&c| c as i8).collect::<std::vec::Vec<_>>(),
            [127, 64, -63, -127, 0]
        );
        assert_eq!(scale.to_f32(), 3.0);
        assert_eq!((back[0], back[3], back[4]), (3.0, -3.0, 0.0));
    }

    #[test]
    fn variance_hand_worked_group_has_these_codes() {
        let (codes, scale, back) =
            round_trip(Companded::Variance, &[4.0, 1.0, 0.0, f32::NAN, -1.0]);
        assert_eq!(codes, [255, 128, 0, 0, 0]); // √1/√4 · 255 = 127.5, up
        assert_eq!((scale.to_f32(), back[0], back[2]), (2.0, 4.0, 0.0));
    }

    #[test]
    fn scale_outside_of_f16_reads_as_zero_or_nan() {
        assert_eq!(round_trip(Companded::Momentum, &[1e-9]).2, [0.0]);
        assert!(round_trip(Companded::Momentum, &[1e6, 0.0]).2[1].is_nan());
    }
}
