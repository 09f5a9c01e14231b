//! Groups of 32 numbers in 8 bits each, bent so that the codes lie where the numbers are.

use half::f16;

use crate::real::{Number, Real};
use crate::storage::Codec;

/// FlashOptim's codes: 8.5 bits a number.
///
/// The largest magnitude of a group, at least 1e-12, scales it; it is kept as
/// `f16`, so that it reads back as 0 below about 3e-8 and as infinity above
/// 65504 (the group is then NaN when it is read). Ties between two codes go up.
/// NaN is passed over when the scale is sought, and becomes code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Companded {
    /// Signed: 127 · 2x / (1 + |x|), which is finer towards 0.
    Momentum,
    /// Unsigned: 255 · √x; negative numbers become 0.
    Variance,
}

/// Numbers in a group.
const GROUP: usize = 32;

/// ⌊x⌋ of a number between −2²² and 2²²; 0 for NaN.
#[inline(always)]
fn floor(x: f32) -> i32 {
    let near = x as i32;
    if near as f32 > x { near - 1 } else { near }
}

impl Codec for Companded {
    type Scale = f16;
    const BITS: usize = 8;

    fn block(self) -> usize {
        GROUP
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], scale: f16, values: &mut [f32]) {
        let scale = Number::to_f32(scale);
        match self {
            Companded::Momentum => {
                for (x, &code) in values.iter_mut().zip(codes) {
                    let y = f32::from(code as i8) / 127.0;
                    *x = y / (2.0 - Real::abs(y)) * scale;
                }
            }
            Companded::Variance => {
                for (x, &code) in values.iter_mut().zip(codes) {
                    let root = f32::from(code) / 255.0 * scale;
                    *x = root * root;
                }
            }
        }
    }

    #[inline(always)]
    fn encode(self, values: &[f32], codes: &mut [u8]) -> f16 {
        let mut group = [0.0f32; GROUP];
        for (to, &x) in group.iter_mut().zip(values) {
            *to = if self == Companded::Variance { Real::sqrt(x) } else { x };
        }
        // The absent numbers of a short group are 0 and change nothing.
        let mut largest = group;
        for x in &mut largest {
            *x = Real::abs(*x);
            *x = if *x > 1e-12 { *x } else { 1e-12 };
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
        let mut bytes = [0u8; GROUP];
        match self {
            Companded::Momentum => {
                for (code, x) in bytes.iter_mut().zip(group) {
                    let x = x / scale;
                    let y = 2.0 * x / (1.0 + Real::abs(x));
                    *code = floor(y * 127.0 + 0.5) as u8;
                }
            }
            Companded::Variance => {
                for (code, x) in bytes.iter_mut().zip(group) {
                    *code = floor(x / scale * 255.0 + 0.5) as u8;
                }
            }
        }
        for (to, code) in codes.iter_mut().zip(bytes) {
            *to = code;
        }
        Number::from_f32(scale)
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
