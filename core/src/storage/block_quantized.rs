//! Block-wise quantization: blocks of codes that share one scale.

use crate::arch::simd::{self, Kernel};
use crate::error::ensure_len;
use crate::storage::{Plain, Storage};

/// Encodes a block of values: a code of a few bits for each, and one scale for all.
pub trait Codec: Copy + Send + Sync {
    /// The type of the scales.
    type Scale: Plain;
    /// Bits per code: 8, or 4 with two codes per byte.
    const BITS: usize;
    /// Elements per block: at least 1, and even where two codes share a byte. The last block of a tensor may be shorter.
    fn block(self) -> usize;
    /// Decodes one block.
    fn decode(self, codes: &[u8], scale: Self::Scale, values: &mut [f32]);
    /// Encodes one block.
    fn encode(self, values: &[f32], codes: &mut [u8]) -> Self::Scale;

    /// What a value is encoded by: itself, or a function of it. The first of four steps by which threads that each hold
    /// a part of a block encode it, to the codes and the scale of [`encode`](Self::encode).
    #[inline(always)]
    fn shape(self, value: f32) -> f32 {
        value
    }
    /// How much a [shaped](Self::shape) value counts for the scale. Of a block, the largest counts; of none, 0.
    fn magnitude(self, shaped: f32) -> u32;
    /// The scale of a block with this largest [magnitude](Self::magnitude), before it is rounded to be stored.
    fn scale(self, largest: u32) -> f32;
    /// The code of a [shaped](Self::shape) value in a block with this [scale](Self::scale).
    fn code(self, shaped: f32, scale: f32) -> u8;
    /// The value of a code in a block with this stored scale.
    fn value(self, code: u8, scale: f32) -> f32;
}

/// Where in its byte code `index` of a block is: in codes of 4 bits the first of two is the upper half.
#[must_use]
#[inline(always)]
pub const fn code_shift<C: Codec>(index: u32) -> u32 {
    if C::BITS == 4 && index.is_multiple_of(2) { 4 } else { 0 }
}

/// The bytes of `len` codes of this many bits.
pub(crate) const fn code_bytes(bits: usize, len: usize) -> usize {
    if bits == 4 { len.div_ceil(2) } else { len }
}

/// A tensor encoded by a [`Codec`], in the caller's memory.
///
/// ```
/// use bitstep::storage::{BlockQuantized, Companded, Storage};
/// let (mut codes, mut scales) = ([0u8; 40], [half::f16::ZERO; 2]);
/// let mut momentum = BlockQuantized::new(Companded::Momentum, 40, &mut codes, &mut scales)?;
/// momentum.store(0, &[0.5; 40]);
/// let mut back = [0.0; 40];
/// momentum.load(0, &mut back);
/// assert_eq!(back, [0.5; 40]);
/// # Ok::<(), bitstep::Error>(())
/// ```
pub struct BlockQuantized<'a, C: Codec> {
    codec: C,
    len: usize,
    codes: &'a mut [u8],
    scales: &'a mut [C::Scale],
}

impl<'a, C: Codec> BlockQuantized<'a, C> {
    /// A tensor of `len` elements in `codes` (a byte per code, or per two) and `scales` (one per block).
    ///
    /// # Errors
    /// Slices of the wrong length.
    pub fn new(
        codec: C,
        len: usize,
        codes: &'a mut [u8],
        scales: &'a mut [C::Scale],
    ) -> Result<Self, crate::Error> {
        ensure_len("codes", codes.len(), code_bytes(C::BITS, len))?;
        ensure_len("scales", scales.len(), len.div_ceil(codec.block().max(1)))?;
        Ok(BlockQuantized { codec, len, codes, scales })
    }
}

impl<C: Codec> Storage for BlockQuantized<'_, C> {
    fn len(&self) -> usize {
        self.len
    }
    fn block(&self) -> usize {
        self.codec.block()
    }
    fn load(&self, start: usize, values: &mut [f32]) {
        load(self.codec, self.codes, self.scales, start, values);
    }
    fn store(&mut self, start: usize, values: &[f32]) {
        store(self.codec, self.codes, self.scales, start, values);
    }
    fn zero(&mut self) {
        self.codes.fill(0);
        self.scales.fill(C::Scale::default());
    }
}

/// Decodes the elements from `start` on, which is the beginning of a block.
pub(crate) fn load<C: Codec>(
    codec: C,
    codes: &[u8],
    scales: &[C::Scale],
    start: usize,
    values: &mut [f32],
) {
    let (codes, scales, block) = locate_block::<C>(codec, codes.len(), scales.len(), start)
        .map_or((&[][..], &[][..], 1), |(at, s, b)| {
            (codes.get(at..).unwrap_or_default(), scales.get(s..).unwrap_or_default(), b)
        });
    simd::dispatch(Load { codec, codes, scales, block, values });
}

/// Encodes the elements from `start` on, which is the beginning of a block.
pub(crate) fn store<C: Codec>(
    codec: C,
    codes: &mut [u8],
    scales: &mut [C::Scale],
    start: usize,
    values: &[f32],
) {
    let Some((at, s, block)) = locate_block::<C>(codec, codes.len(), scales.len(), start) else {
        return;
    };
    let codes = codes.get_mut(at..).unwrap_or_default();
    let scales = scales.get_mut(s..).unwrap_or_default();
    simd::dispatch(Store { codec, codes, scales, block, values });
}

/// The indices of the first code byte and of the first scale of the elements from `start` on, and the block size.
fn locate_block<C: Codec>(
    codec: C,
    codes: usize,
    scales: usize,
    start: usize,
) -> Option<(usize, usize, usize)> {
    let block = codec.block().max(1);
    let at = code_bytes(C::BITS, start);
    (at <= codes && start / block <= scales).then_some((at, start / block, block))
}

struct Load<'a, C: Codec> {
    codec: C,
    codes: &'a [u8],
    scales: &'a [C::Scale],
    block: usize,
    values: &'a mut [f32],
}

impl<C: Codec> Kernel for Load<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let codes = self.codes.chunks(code_bytes(C::BITS, self.block));
        for ((values, codes), &scale) in
            self.values.chunks_mut(self.block).zip(codes).zip(self.scales)
        {
            self.codec.decode(codes, scale, values);
        }
    }
}

struct Store<'a, C: Codec> {
    codec: C,
    codes: &'a mut [u8],
    scales: &'a mut [C::Scale],
    block: usize,
    values: &'a [f32],
}

impl<C: Codec> Kernel for Store<'_, C> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let codes = self.codes.chunks_mut(code_bytes(C::BITS, self.block));
        for ((values, codes), scale) in self.values.chunks(self.block).zip(codes).zip(self.scales) {
            *scale = self.codec.encode(values, codes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::StoredFloat;
    use crate::storage::{BlockFp8, BlockQuant4, BlockQuant8, Companded, DynamicQuant8};
    use std::vec::Vec;
    extern crate std;

    /// Encodes a block in single steps, as threads do that hold one value each.
    fn check<C: Codec + core::fmt::Debug>(codec: C, values: &[f32]) {
        let shaped: Vec<f32> = values.iter().map(|&x| codec.shape(x)).collect();
        let largest = shaped.iter().fold(0, |most, &x| most.max(codec.magnitude(x)));
        let scale = codec.scale(largest);
        let mut codes = std::vec![0u8; code_bytes(C::BITS, values.len())];
        for (i, &x) in shaped.iter().enumerate() {
            let byte = if C::BITS == 4 { i / 2 } else { i };
            codes[byte] |= codec.code(x, scale) << code_shift::<C>(i as u32);
        }
        let mut whole = std::vec![0u8; codes.len()];
        let stored = codec.encode(values, &mut whole);
        assert_eq!(codes, whole, "{codec:?} {values:?}");
        let own: C::Scale = StoredFloat::from_f32(scale);
        assert_eq!(own.to_f64().to_bits(), stored.to_f64().to_bits(), "{codec:?} {values:?}");

        let mut back = std::vec![0.0; values.len()];
        codec.decode(&whole, stored, &mut back);
        for (i, x) in back.iter().enumerate() {
            let byte = if C::BITS == 4 { i / 2 } else { i };
            let mask = if C::BITS == 4 { 15 } else { 255 };
            let code = whole[byte] >> code_shift::<C>(i as u32) & mask;
            let value = codec.value(code, StoredFloat::to_f32(stored));
            assert!(
                value.to_bits() == x.to_bits() || value.is_nan() && x.is_nan(),
                "{codec:?} {i}"
            );
        }
    }

    #[test]
    fn block_in_single_steps_has_the_codes_and_the_scale_of_the_whole() {
        let wild = [0.0, -0.0, 1e-13, 3.5, -2.0, 1e-30, f32::INFINITY, f32::NAN, -f32::NAN, 1e38];
        let smooth: Vec<f32> = (0..32).map(|i| ((i * 37) % 61) as f32 * 0.013 - 0.35).collect();
        let blocks =
            [&smooth[..], &smooth[..7], &[0.0; 5], &wild[..6], &wild[..7], &wild[..8], &wild];
        for values in blocks {
            for signed in [false, true] {
                for cpu_grid in [false, true] {
                    check(DynamicQuant8 { signed, cpu_grid }, values);
                }
                check(BlockQuant8 { signed, block: 32 }, values);
                check(BlockQuant4 { signed, block: 32 }, values);
            }
            check(BlockFp8 { block: 32 }, values);
            check(Companded::Momentum, values);
            check(Companded::Variance, values);
        }
    }
}
