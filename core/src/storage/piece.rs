//! Tensors cut into stretches, so that several threads can step one.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::real::Number;
use crate::storage::blocks::code_bytes;
use crate::storage::coded::{each_codec, each_pair};
use crate::storage::split::{Correction, Narrow, Split};
use crate::storage::stochastic::{Dithered, Noise, Stochastic};
use crate::storage::{Blocks, Codec, Coded, DataMut, Format, Kahan, Plain, Raw, Storage};

/// A stretch of a tensor.
pub(crate) enum Piece<'a> {
    Plain(DataMut<'a>),
    Coded(Box<dyn Storage + 'a>),
}

impl Piece<'_> {
    /// No elements.
    pub(crate) fn empty() -> Self {
        Piece::Plain(DataMut::F32(&mut []))
    }

    pub(crate) fn data_mut(&mut self) -> DataMut<'_> {
        match self {
            Piece::Plain(x) => x.reborrow(),
            Piece::Coded(x) => DataMut::Coded(&mut **x),
        }
    }
}

/// Plain numbers in pieces of `len` elements, the last one shorter.
pub(crate) fn plain(data: DataMut<'_>, len: usize) -> Vec<Piece<'_>> {
    macro_rules! chunks {
        ($($variant:ident)*) => {
            match data {
                $(DataMut::$variant(x) => {
                    x.chunks_mut(len).map(|x| Piece::Plain(DataMut::$variant(x))).collect()
                })*
                DataMut::Coded(x) => alloc::vec![Piece::Plain(DataMut::Coded(x))],
            }
        };
    }
    chunks!(F64 F32 Bf16 F16)
}

/// A 16-bit parameter and what is kept beside it, in pieces.
pub(crate) fn paired<'a>(param: DataMut<'a>, beside: &'a mut Raw, len: usize) -> Vec<Piece<'a>> {
    match (param, beside) {
        (DataMut::Bf16(x), Raw::I8(e)) => splits(x, e, len),
        (DataMut::Bf16(x), Raw::I16(e)) => splits(x, e, len),
        (DataMut::F16(x), Raw::I8(e)) => splits(x, e, len),
        (DataMut::F16(x), Raw::I16(e)) => splits(x, e, len),
        (DataMut::Bf16(x), Raw::Bf16(c)) => kahans(x, c, len),
        (DataMut::F16(x), Raw::F16(c)) => kahans(x, c, len),
        (param, _) => plain(param, len),
    }
}

/// A 16-bit parameter that is rounded at random, in pieces.
pub(crate) fn dithered<'a>(param: DataMut<'a>, noise: Noise<'a>, len: usize) -> Vec<Piece<'a>> {
    fn all<'a, N: Stochastic>(x: &'a mut [N], noise: Noise<'a>, len: usize) -> Vec<Piece<'a>> {
        let pieces = x.chunks_mut(len).enumerate();
        pieces.map(|(i, x)| Piece::Coded(Box::new(Dithered::new(x, noise.from(i * len))))).collect()
    }
    match param {
        DataMut::Bf16(x) => all(x, noise, len),
        DataMut::F16(x) => all(x, noise, len),
        param => plain(param, len),
    }
}

fn splits<'a, N: Narrow, E: Correction>(
    x: &'a mut [N],
    error: &'a mut [E],
    len: usize,
) -> Vec<Piece<'a>> {
    let pieces = x.chunks_mut(len).zip(error.chunks_mut(len));
    pieces.filter_map(|(x, e)| Some(Piece::Coded(Box::new(Split::new(x, e).ok()?)))).collect()
}

fn kahans<'a, N: Number>(x: &'a mut [N], compensation: &'a mut [N], len: usize) -> Vec<Piece<'a>> {
    let pieces = x.chunks_mut(len).zip(compensation.chunks_mut(len));
    pieces.filter_map(|(x, c)| Some(Piece::Coded(Box::new(Kahan::new(x, c).ok()?)))).collect()
}

impl Coded {
    /// In pieces of `len` elements, a multiple of the block; the last one is shorter.
    pub(crate) fn pieces(&mut self, len: usize) -> Vec<Piece<'_>> {
        fn blocks<'a, C: Codec + 'static>(
            codec: C,
            total: usize,
            codes: &'a mut Raw,
            scales: &'a mut Raw,
            len: usize,
        ) -> Vec<Piece<'a>> {
            let (Raw::U8(codes), Some(scales)) = (codes, scales.data_mut()) else {
                return Vec::new();
            };
            let Some(scales) = C::Scale::taken(scales) else { return Vec::new() };
            let codes = codes.chunks_mut(code_bytes(C::BITS, len).max(1));
            let scales = scales.chunks_mut((len / codec.block().max(1)).max(1));
            let starts = (0..total).step_by(len.max(1));
            starts
                .zip(codes.zip(scales))
                .filter_map(|(start, (codes, scales))| {
                    let blocks = Blocks::new(codec, len.min(total - start), codes, scales).ok()?;
                    Some(Piece::Coded(Box::new(blocks)))
                })
                .collect()
        }
        let total = self.len();
        let (format, main, side) = self.raw_mut();
        each_codec!(format, c => blocks(c, total, main, side, len), {
            let mut pieces = Vec::new();
            each_pair!((main, side), a, b =>
                pieces = splits(a, b, len), pieces = kahans(a, b, len));
            pieces
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Companded, Fp8, Scaled4, Scaled8};
    use half::bf16;
    use std::vec::Vec;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| 0.375 * i as f32 - 7.0).collect()
    }

    #[test]
    fn pieces_of_codes_hold_what_the_whole_holds() {
        let formats = [
            Format::Companded(Companded::Momentum),
            Format::Scaled8(Scaled8 { signed: true, block: 16 }),
            Format::Scaled4(Scaled4 { signed: true, block: 16 }),
            Format::Fp8(Fp8 { block: 16 }),
            Format::Split(crate::real::Dtype::Bf16, 8),
            Format::Kahan(crate::real::Dtype::F16),
        ];
        for format in formats {
            let (x, mut whole) = (numbers(75), Coded::zeros(format, 75).unwrap());
            whole.store(0, &x);
            let mut cut = Coded::zeros(format, 75).unwrap();
            let mut at = 0;
            for mut piece in cut.pieces(32) {
                let mut data = piece.data_mut();
                let len = data.len();
                data.store(0, &x[at..at + len]);
                at += len;
            }
            assert_eq!(at, 75);
            let bytes = |c: &Coded| c.parts("").into_iter().map(|p| p.bytes).collect::<Vec<_>>();
            assert_eq!(bytes(&cut), bytes(&whole), "{format:?}");
        }
    }

    #[test]
    fn pieces_that_are_rounded_at_random_have_the_noise_of_their_place() {
        let noise: Vec<u16> = (0..75).map(|i| i * 871).collect();
        let x: Vec<f32> = numbers(75).iter().map(|x| x + 0.003).collect();
        let (mut whole, mut cut) = ([bf16::ZERO; 75], [bf16::ZERO; 75]);
        Dithered::new(&mut whole, Noise::Given(&noise)).store(0, &x);
        let pieces = dithered(DataMut::Bf16(&mut cut), Noise::Given(&noise), 32);
        for (mut piece, x) in pieces.into_iter().zip(x.chunks(32)) {
            piece.data_mut().store(0, x);
        }
        assert_eq!(cut, whole);
    }
}
