//! torchao's block-wise formats: blocks of any size in 8-bit or 4-bit codes, or in 8-bit floats.

use crate::storage::Codec;
use crate::storage::dynamic::{abs_max, magnitude_bits};
use crate::storage::quant_maps::{
    self, BATCH, EIGHT_SIGNED, EIGHT_UNSIGNED, FOUR_SIGNED, FOUR_UNSIGNED, TORCHAO_SIGNED,
    TORCHAO_SIGNED_4, TORCHAO_UNSIGNED, TORCHAO_UNSIGNED_4, code_by_thresholds,
};

/// torchao's 8-bit codes: a dynamic map; a tie between two codes goes to the upper one.
///
/// The scale of a block is its largest magnitude, at least 1e-12. A NaN makes its whole block NaN, permanently.
///
/// Source: `torchao.optim.subclass_8bit.OptimState8bit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockQuant8 {
    /// Whether values of both signs are stored; otherwise negative ones become 0.
    pub signed: bool,
    /// Elements per block.
    pub block: usize,
}

/// torchao's 4-bit codes, two per byte, the first in the upper half.
///
/// Signed: a dynamic map of three decades. Unsigned: the sixteenths from 1/16 to 1, without 0. Scale, ties and NaN as
/// in [`BlockQuant8`].
///
/// Source: `torchao.optim.subclass_4bit.OptimState4bit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockQuant4 {
    /// Whether values of both signs are stored; otherwise negative ones get the smallest code.
    pub signed: bool,
    /// Elements per block; even.
    pub block: usize,
}

/// torchao's fp8 codes (E4M3): 4 exponent and 3 mantissa bits, no infinity.
///
/// The scale of a block is its largest magnitude, at least 1e-12, divided by 448, the largest E4M3 value. Ties go to
/// even. A NaN makes its whole block NaN.
///
/// Source: `torchao.optim.subclass_fp8.OptimStateFp8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockFp8 {
    /// Elements per block.
    pub block: usize,
}

/// The largest magnitude, at least 1e-12; NaN if that is.
#[inline(always)]
fn scale(largest: f32) -> f32 {
    match largest {
        x if x.is_nan() => f32::NAN, // the canonical NaN
        x if x > 1e-12 => x,
        _ => 1e-12,
    }
}

impl Codec for BlockQuant8 {
    type Scale = f32;
    const BITS: usize = 8;

    fn block(self) -> usize {
        self.block
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], scale: f32, values: &mut [f32]) {
        let table = if self.signed { &EIGHT_SIGNED } else { &EIGHT_UNSIGNED };
        quant_maps::decode(table, codes, scale, values);
    }

    #[inline(always)]
    fn encode(self, values: &[f32], codes: &mut [u8]) -> f32 {
        let scale = scale(abs_max(values));
        if self.signed {
            TORCHAO_SIGNED.encode(values, codes, |x| x / scale);
        } else {
            TORCHAO_UNSIGNED.encode(values, codes, |x| x / scale);
        }
        scale
    }

    #[inline(always)]
    fn magnitude(self, shaped: f32) -> u32 {
        magnitude_bits(shaped)
    }

    #[inline(always)]
    fn scale(self, largest: u32) -> f32 {
        scale(f32::from_bits(largest))
    }

    #[inline(always)]
    fn code(self, shaped: f32, scale: f32) -> u8 {
        let x = shaped / scale;
        if self.signed { TORCHAO_SIGNED.code(x) } else { TORCHAO_UNSIGNED.code(x) }
    }

    #[inline(always)]
    fn value(self, code: u8, scale: f32) -> f32 {
        let table = if self.signed { &EIGHT_SIGNED } else { &EIGHT_UNSIGNED };
        table.values[usize::from(code)] * scale
    }
}

impl Codec for BlockQuant4 {
    type Scale = f32;
    const BITS: usize = 4;

    fn block(self) -> usize {
        self.block
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], scale: f32, values: &mut [f32]) {
        let table = if self.signed { &FOUR_SIGNED } else { &FOUR_UNSIGNED };
        let mut each = [0; BATCH];
        for (values, codes) in values.chunks_mut(BATCH).zip(codes.chunks(BATCH / 2)) {
            for (pair, &code) in each.as_chunks_mut().0.iter_mut().zip(codes) {
                *pair = [code >> 4, code & 15];
            }
            quant_maps::decode(table, &each, scale, values);
        }
    }

    #[inline(always)]
    fn encode(self, values: &[f32], codes: &mut [u8]) -> f32 {
        let thresholds = if self.signed { &TORCHAO_SIGNED_4 } else { &TORCHAO_UNSIGNED_4 };
        let scale = scale(abs_max(values));
        for (values, codes) in values.chunks(BATCH).zip(codes.chunks_mut(BATCH / 2)) {
            let mut each = [0; BATCH];
            for (code, &x) in each.iter_mut().zip(values) {
                *code = code_by_thresholds(thresholds, x / scale);
            }
            for (code, &[first, second]) in codes.iter_mut().zip(each.as_chunks().0) {
                *code = first << 4 | second;
            }
        }
        scale
    }

    #[inline(always)]
    fn magnitude(self, shaped: f32) -> u32 {
        magnitude_bits(shaped)
    }

    #[inline(always)]
    fn scale(self, largest: u32) -> f32 {
        scale(f32::from_bits(largest))
    }

    #[inline(always)]
    fn code(self, shaped: f32, scale: f32) -> u8 {
        // Each on its own, so that thresholds are constants of the program.
        if self.signed {
            code_by_thresholds(&TORCHAO_SIGNED_4, shaped / scale)
        } else {
            code_by_thresholds(&TORCHAO_UNSIGNED_4, shaped / scale)
        }
    }

    #[inline(always)]
    fn value(self, code: u8, scale: f32) -> f32 {
        let table = if self.signed { &FOUR_SIGNED } else { &FOUR_UNSIGNED };
        table.values[usize::from(code)] * scale
    }
}

/// `f32` to E4M3, to nearest even; NaN on overflow, as in PyTorch.
#[inline(always)]
pub(crate) fn to_e4m3(x: f32) -> u8 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Normal: the exponent's bias from 127 to 7; adding half an ulp less one, plus one if odd, rounds to nearest even.
    let odd = (magnitude >> 20) & 1;
    let normal = magnitude.wrapping_sub(120 << 23).wrapping_add(0x7_ffff + odd) >> 20;
    // Subnormal, below 2⁻⁶: in an f32 of size 2¹⁴ the last bit is 2⁻⁹, as in a subnormal; the addition rounds.
    let subnormal =
        (f32::from_bits(magnitude) + 16384.0).to_bits().wrapping_sub(16384.0f32.to_bits());
    let finite = if magnitude < 121 << 23 { subnormal } else { normal };
    let code = if magnitude >= 0x43f0_0000 || finite > 0x7f { 0x7f } else { finite };
    (code | (bits >> 24 & 0x80)) as u8
}

/// E4M3 to `f32`; exact.
#[inline(always)]
pub(crate) fn from_e4m3(code: u8) -> f32 {
    let magnitude = u32::from(code & 0x7f) << 20;
    // The exponent's bias from 7 to 127: a multiplication by 2¹²⁰, exact for subnormals too.
    let x = f32::from_bits(magnitude) * f32::from_bits(247 << 23);
    let x = if magnitude == 0x7f << 20 { f32::NAN } else { x };
    f32::from_bits(x.to_bits() | u32::from(code & 0x80) << 24)
}

impl Codec for BlockFp8 {
    type Scale = f32;
    const BITS: usize = 8;

    fn block(self) -> usize {
        self.block
    }

    #[inline(always)]
    fn decode(self, codes: &[u8], scale: f32, values: &mut [f32]) {
        for (x, &code) in values.iter_mut().zip(codes) {
            *x = from_e4m3(code) * scale;
        }
    }

    #[inline(always)]
    fn encode(self, values: &[f32], codes: &mut [u8]) -> f32 {
        let scale = scale(abs_max(values)) / 448.0;
        for (code, &x) in codes.iter_mut().zip(values) {
            *code = to_e4m3(x / scale);
        }
        scale
    }

    #[inline(always)]
    fn magnitude(self, shaped: f32) -> u32 {
        magnitude_bits(shaped)
    }

    #[inline(always)]
    fn scale(self, largest: u32) -> f32 {
        scale(f32::from_bits(largest)) / 448.0
    }

    #[inline(always)]
    fn code(self, shaped: f32, scale: f32) -> u8 {
        to_e4m3(shaped / scale)
    }

    #[inline(always)]
    fn value(self, code: u8, scale: f32) -> f32 {
        from_e4m3(code) * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::quant_maps::SIGNED_4;

    #[test]
    fn four_bits_lie_two_in_a_byte_the_first_above() {
        let codec = BlockQuant4 { signed: false, block: 4 };
        let mut codes = [0u8; 2];
        assert_eq!(codec.encode(&[0.5, 1.0, 0.0], &mut codes), 1.0);
        assert_eq!(codes, [0x7f, 0x00]);
        let mut back = [0.0; 3];
        codec.decode(&codes, 1.0, &mut back);
        assert_eq!(back, [0.5, 1.0, 1.0 / 16.0]);
    }

    #[test]
    fn e4m3_round_trips_and_rounds_to_even() {
        for code in 0..=u8::MAX {
            let x = from_e4m3(code);
            assert!(x.is_nan() && code & 0x7f == 0x7f || to_e4m3(x) == code, "{code:#x}");
        }
        assert_eq!(from_e4m3(0x7e), 448.0);
        assert_eq!(from_e4m3(0x01), 1.0 / 512.0);
        assert_eq!(to_e4m3(1.0625), 0x38); // between 1 and 1.125: to even
        assert_eq!(to_e4m3(1.1875), 0x3a); // between 1.125 and 1.25: to even
        assert_eq!(to_e4m3(464.0), 0x7e);
        assert_eq!(to_e4m3(465.0), 0x7f);
        assert_eq!(to_e4m3(1.0 / 1024.0), 0); // half of the smallest: to even
        assert_eq!(to_e4m3(-3.0 / 1024.0), 0x82);
        assert_eq!(to_e4m3(f32::INFINITY), 0x7f);
    }

    #[test]
    fn block_of_4_bits_that_is_longer_than_a_batch_is_coded_as_its_parts_are() {
        let values: [f32; 512] = core::array::from_fn(|i| ((i * 37) % 512) as f32 - 256.0);
        let (mut whole, mut back) = ([0u8; 256], [0.0; 512]);
        let codec = BlockQuant4 { signed: true, block: 512 };
        let scale = codec.encode(&values, &mut whole);
        codec.decode(&whole, scale, &mut back);
        let codes = |i: usize| whole[i / 2] >> (4 * (1 - i % 2)) & 15;
        for (i, x) in values.iter().enumerate() {
            assert_eq!(codes(i), code_by_thresholds(&TORCHAO_SIGNED_4, x / scale), "{i}");
            assert_eq!(back[i], SIGNED_4[usize::from(codes(i))] * scale, "{i}");
        }
    }
}
