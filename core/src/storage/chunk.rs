//! Tensors split into chunks, so that several threads can step one tensor.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::float::StoredFloat;
use crate::storage::block_quantized::code_bytes;
use crate::storage::encoded::{each_codec, each_pair};
use crate::storage::split::{CorrectionInt, HalfPrecision, SplitFloat};
use crate::storage::stochastic::{RoundingBits, StochasticRound, StochasticRounded};
use crate::storage::{
    BlockQuantized, Codec, DataMut, EncodedBuffer, KahanPair, Plain, RawBuffer, Storage,
    StorageFormat,
};

/// A chunk of a tensor.
pub(crate) enum Chunk<'a> {
    Plain(DataMut<'a>),
    Encoded(Box<dyn Storage + 'a>),
}

impl Chunk<'_> {
    /// No elements.
    pub(crate) fn empty() -> Self {
        Chunk::Plain(DataMut::F32(&mut []))
    }

    pub(crate) fn data_mut(&mut self) -> DataMut<'_> {
        match self {
            Chunk::Plain(x) => x.reborrow(),
            Chunk::Encoded(x) => DataMut::Encoded(&mut **x),
        }
    }
}

/// Plain floats in chunks of `len` elements; the last one may be shorter.
pub(crate) fn plain_chunks_mut(data: DataMut<'_>, len: usize) -> Vec<Chunk<'_>> {
    macro_rules! chunks {
        ($($variant:ident)*) => {
            match data {
                $(DataMut::$variant(x) => {
                    x.chunks_mut(len).map(|x| Chunk::Plain(DataMut::$variant(x))).collect()
                })*
                DataMut::Encoded(x) => alloc::vec![Chunk::Plain(DataMut::Encoded(x))],
            }
        };
    }
    chunks!(F64 F32 Bf16 F16)
}

/// A 16-bit parameter and its correction, in chunks.
pub(crate) fn paired_chunks_mut<'a>(
    param: DataMut<'a>,
    correction: &'a mut RawBuffer,
    len: usize,
) -> Vec<Chunk<'a>> {
    match (param, correction) {
        (DataMut::Bf16(x), RawBuffer::I8(e)) => split_float_chunks_mut(x, e, len),
        (DataMut::Bf16(x), RawBuffer::I16(e)) => split_float_chunks_mut(x, e, len),
        (DataMut::F16(x), RawBuffer::I8(e)) => split_float_chunks_mut(x, e, len),
        (DataMut::F16(x), RawBuffer::I16(e)) => split_float_chunks_mut(x, e, len),
        (DataMut::Bf16(x), RawBuffer::Bf16(c)) => kahan_pair_chunks_mut(x, c, len),
        (DataMut::F16(x), RawBuffer::F16(c)) => kahan_pair_chunks_mut(x, c, len),
        (param, _) => plain_chunks_mut(param, len),
    }
}

/// A 16-bit parameter that is stored with stochastic rounding, in chunks.
pub(crate) fn stochastic_chunks_mut<'a>(
    param: DataMut<'a>,
    rounding_bits: RoundingBits<'a>,
    len: usize,
) -> Vec<Chunk<'a>> {
    fn all<'a, N: StochasticRound>(
        x: &'a mut [N],
        rounding_bits: RoundingBits<'a>,
        len: usize,
    ) -> Vec<Chunk<'a>> {
        let chunks = x.chunks_mut(len).enumerate();
        chunks
            .map(|(i, x)| {
                Chunk::Encoded(Box::new(StochasticRounded::new(x, rounding_bits.skip(i * len))))
            })
            .collect()
    }
    match param {
        DataMut::Bf16(x) => all(x, rounding_bits, len),
        DataMut::F16(x) => all(x, rounding_bits, len),
        param => plain_chunks_mut(param, len),
    }
}

fn split_float_chunks_mut<'a, N: HalfPrecision, E: CorrectionInt>(
    x: &'a mut [N],
    error: &'a mut [E],
    len: usize,
) -> Vec<Chunk<'a>> {
    let chunks = x.chunks_mut(len).zip(error.chunks_mut(len));
    chunks
        .filter_map(|(x, e)| Some(Chunk::Encoded(Box::new(SplitFloat::new(x, e).ok()?))))
        .collect()
}

fn kahan_pair_chunks_mut<'a, N: StoredFloat>(
    x: &'a mut [N],
    compensation: &'a mut [N],
    len: usize,
) -> Vec<Chunk<'a>> {
    let chunks = x.chunks_mut(len).zip(compensation.chunks_mut(len));
    chunks.filter_map(|(x, c)| Some(Chunk::Encoded(Box::new(KahanPair::new(x, c).ok()?)))).collect()
}

impl EncodedBuffer {
    /// Chunks of `len` elements, a multiple of the block size; the last one may be shorter.
    pub(crate) fn chunks_mut(&mut self, len: usize) -> Vec<Chunk<'_>> {
        fn blocks<'a, C: Codec + 'static>(
            codec: C,
            total: usize,
            codes: &'a mut RawBuffer,
            scales: &'a mut RawBuffer,
            len: usize,
        ) -> Vec<Chunk<'a>> {
            let (RawBuffer::U8(codes), Some(scales)) = (codes, scales.data_mut()) else {
                return Vec::new();
            };
            let Some(scales) = C::Scale::into_slice(scales) else { return Vec::new() };
            let codes = codes.chunks_mut(code_bytes(C::BITS, len).max(1));
            let scales = scales.chunks_mut((len / codec.block().max(1)).max(1));
            let starts = (0..total).step_by(len.max(1));
            starts
                .zip(codes.zip(scales))
                .filter_map(|(start, (codes, scales))| {
                    let blocks =
                        BlockQuantized::new(codec, len.min(total - start), codes, scales).ok()?;
                    Some(Chunk::Encoded(Box::new(blocks)))
                })
                .collect()
        }
        let total = self.len();
        let (format, values_or_codes, scales_or_corrections) = self.format_and_parts_mut();
        each_codec!(format, c => blocks(c, total, values_or_codes, scales_or_corrections, len), {
            let mut chunks = Vec::new();
            each_pair!((values_or_codes, scales_or_corrections), a, b =>
                chunks = split_float_chunks_mut(a, b, len), chunks = kahan_pair_chunks_mut(a, b, len));
            chunks
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{BlockFp8, BlockQuant4, BlockQuant8, Companded};
    use half::bf16;
    use std::vec::Vec;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| 0.375 * i as f32 - 7.0).collect()
    }

    #[test]
    fn pieces_of_codes_hold_what_the_whole_holds() {
        let formats = [
            StorageFormat::Companded(Companded::Momentum),
            StorageFormat::BlockQuant8(BlockQuant8 { signed: true, block: 16 }),
            StorageFormat::BlockQuant4(BlockQuant4 { signed: true, block: 16 }),
            StorageFormat::BlockFp8(BlockFp8 { block: 16 }),
            StorageFormat::SplitFloat(crate::float::Dtype::Bf16, 8),
            StorageFormat::KahanPair(crate::float::Dtype::F16),
        ];
        for format in formats {
            let (x, mut whole) = (numbers(75), EncodedBuffer::zeros(format, 75).unwrap());
            whole.store(0, &x);
            let mut cut = EncodedBuffer::zeros(format, 75).unwrap();
            let mut at = 0;
            for mut chunk in cut.chunks_mut(32) {
                let mut data = chunk.data_mut();
                let len = data.len();
                data.store(0, &x[at..at + len]);
                at += len;
            }
            assert_eq!(at, 75);
            let bytes =
                |c: &EncodedBuffer| c.parts("").into_iter().map(|p| p.bytes).collect::<Vec<_>>();
            assert_eq!(bytes(&cut), bytes(&whole), "{format:?}");
        }
    }

    #[test]
    fn pieces_that_are_rounded_at_random_have_the_noise_of_their_place() {
        let rounding_bits: Vec<u16> = (0..75).map(|i| i * 871).collect();
        let x: Vec<f32> = numbers(75).iter().map(|x| x + 0.003).collect();
        let (mut whole, mut cut) = ([bf16::ZERO; 75], [bf16::ZERO; 75]);
        StochasticRounded::new(&mut whole, RoundingBits::Provided(&rounding_bits)).store(0, &x);
        let chunks = stochastic_chunks_mut(
            DataMut::Bf16(&mut cut),
            RoundingBits::Provided(&rounding_bits),
            32,
        );
        for (mut chunk, x) in chunks.into_iter().zip(x.chunks(32)) {
            chunk.data_mut().store(0, x);
        }
        assert_eq!(cut, whole);
    }
}
