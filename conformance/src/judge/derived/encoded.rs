//! Encoded storages: which codes, scales and corrections the values within an error bound may get.

use bitstep::float::Dtype;
use bitstep::optimizer::Buffer;
use bitstep::storage::{EncodedBuffer, RawBuffer, RawDtype, Storage, StorageFormat};

use super::follow::Answer;
use super::number::half_ulp;

/// The operations between a value and its code that round, at most: a root, the division by the scale (or two: its
/// inverse, and a product), and the two to four of a curve or a grid. Each adds half an ULP to a value's bound.
const ROUNDINGS: f64 = 4.0;

/// What values may be stored as.
pub(super) struct Stored {
    /// The first and the last code of each element, as raw bits, in the order of the codes.
    pub(super) codes: [Vec<u64>; 2],
    /// How far apart two correct scales may be.
    pub(super) scales: Vec<f64>,
    /// The error bound of each value once it is loaded again, as long as its code is the one that was stored.
    pub(super) errors: Vec<f64>,
}

/// The bits of each element of a raw buffer.
fn bits(raw: &RawBuffer) -> Vec<u64> {
    let size = raw.element().size();
    let one = |x: &[u8]| x.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
    raw.bytes().chunks(size).map(one).collect()
}

/// The smallest and the largest code of a type.
fn all_codes(element: RawDtype) -> [u64; 2] {
    match element {
        RawDtype::I8 => [0x80, 0x7f],
        RawDtype::F8E4M3 => [0xfe, 0x7e],
        _ => [0, 0xff],
    }
}

fn loaded(encoded: &EncodedBuffer) -> Vec<f32> {
    let mut values = vec![0.0; encoded.len()];
    encoded.load(0, &mut values);
    values
}

/// Stores values in blocks of codes, and returns what they may be stored as. A code depends on its value and the block's
/// scale, and is monotone in both; the scale on the largest magnitude. So the two ends are: every magnitude as large as
/// it may be and the scale as small as it may be, and the reverse. `None` for another storage.
pub(super) fn store(to: &mut EncodedBuffer, answers: &[Answer]) -> Option<Stored> {
    let element = to.format().layout(to.len())?[0].0;
    let is_blocks = !matches!(
        to.format(),
        StorageFormat::SplitFloat(..) | StorageFormat::KahanPair(_) | StorageFormat::Plain(_)
    );
    if !is_blocks || answers.len() != to.len() {
        return None;
    }
    let block = to.block().max(1);
    let nominal: Vec<f32> = answers.iter().map(|x| x.value as f32).collect();
    let (mut outer, mut inner) = (nominal.clone(), nominal.clone());
    let mut unknown = vec![false; answers.len().div_ceil(block)];
    for (b, answers) in answers.chunks(block).enumerate() {
        // NaN and infinity are stored as they are.
        let bounded = || answers.iter().filter(|x| x.value.is_finite());
        let most = bounded().map(|x| x.value.abs() + x.tolerance).fold(0.0, f64::max);
        let least = bounded().map(|x| x.value.abs() - x.tolerance).fold(0.0, f64::max);
        if !most.is_finite() || least <= 0.0 && most > 0.0 {
            unknown[b] = true;
            continue;
        }
        for (i, x) in answers.iter().enumerate().filter(|(_, x)| x.value.is_finite()) {
            let magnitude = x.value.abs();
            let slack = x.tolerance + ROUNDINGS * half_ulp(Dtype::F32, magnitude);
            let slack = if magnitude == 0.0 && x.tolerance == 0.0 { 0.0 } else { slack };
            // The largest of the block must stay the largest, at its end of the scale.
            let is_scale = |end: f64, scale: f64| end >= scale;
            let large = if magnitude - x.tolerance >= least {
                least
            } else {
                (magnitude + slack).min(least)
            };
            let small =
                if is_scale(magnitude + x.tolerance, most) { most } else { magnitude - slack };
            let sign = 1f64.copysign(x.value);
            outer[b * block + i] = (sign * large) as f32;
            inner[b * block + i] = (sign * small) as f32;
        }
    }
    let [mut outer_codes, mut inner_codes] = [to.clone(), to.clone()];
    outer_codes.store(0, &outer);
    inner_codes.store(0, &inner);
    to.store(0, &nominal);

    let [mut low, mut high] = [bits(outer_codes.raws()[0]), bits(inner_codes.raws()[0])];
    let per_byte = if low.len() < answers.len() { 2 } else { 1 };
    let [first, last] = all_codes(element);
    for b in unknown.iter().enumerate().filter(|(_, unknown)| **unknown).map(|(b, _)| b) {
        for i in (b * block..((b + 1) * block).min(answers.len())).step_by(per_byte) {
            (low[i / per_byte], high[i / per_byte]) = (first, last);
        }
    }

    let numbers = |raw: &RawBuffer| -> Vec<f64> {
        match raw {
            RawBuffer::F32(x) => x.iter().map(|&x| f64::from(x)).collect(),
            RawBuffer::F16(x) => x.iter().map(|&x| f64::from(f32::from(x))).collect(),
            RawBuffer::Bf16(x) => x.iter().map(|&x| f64::from(f32::from(x))).collect(),
            _ => Vec::new(),
        }
    };
    let [a, b] = [&outer_codes, &inner_codes].map(|x| numbers(x.raws()[1]));
    let scales = a.iter().zip(&b).zip(&unknown).map(|((a, b), unknown)| match unknown {
        true => f64::INFINITY,
        false if a == b || (a - b).is_nan() => 0.0,
        false => (a - b).abs(),
    });
    let scales: Vec<f64> = scales.collect();

    // The stored codes with either end's scales.
    let middle = loaded(to);
    let mut errors = vec![0.0f64; answers.len()];
    for end in [&outer_codes, &inner_codes] {
        let mut other = to.clone();
        let bytes = end.raws()[1].bytes();
        if other.raws_mut()[1].set_bytes(&bytes).is_err() {
            return None;
        }
        for ((error, x), y) in errors.iter_mut().zip(loaded(&other)).zip(&middle) {
            let apart = f64::from((x - y).abs());
            *error = error.max(if apart.is_nan() { 0.0 } else { apart });
        }
    }
    for (b, unknown) in unknown.iter().enumerate() {
        if *unknown {
            let end = ((b + 1) * block).min(errors.len());
            errors[b * block..end].fill(f64::INFINITY);
        }
    }
    Some(Stored { codes: [low, high], scales, errors })
}

/// A 16-bit parameter and its correction as one storage.
pub(super) fn joined(value: &Buffer, correction: &RawBuffer) -> Option<EncodedBuffer> {
    let (dtype, bytes) = match value {
        Buffer::Bf16(x) => (Dtype::Bf16, RawBuffer::Bf16(x.clone()).bytes()),
        Buffer::F16(x) => (Dtype::F16, RawBuffer::F16(x.clone()).bytes()),
        _ => return None,
    };
    let format = match correction {
        RawBuffer::I8(_) => StorageFormat::SplitFloat(dtype, 8),
        RawBuffer::I16(_) => StorageFormat::SplitFloat(dtype, 16),
        RawBuffer::Bf16(_) | RawBuffer::F16(_) => StorageFormat::KahanPair(dtype),
        _ => return None,
    };
    let mut joined = EncodedBuffer::zeros(format, value.len()).ok()?;
    let [a, b] = joined.raws_mut();
    a.set_bytes(&bytes).ok()?;
    b.set_bytes(&correction.bytes()).ok()?;
    Some(joined)
}

/// How far apart two correct 16-bit values may be, and two correct corrections beside them; and the error bound of
/// their sum.
pub(super) struct StoredPair {
    pub(super) value: Vec<f64>,
    pub(super) correction: Vec<f64>,
    /// The first and the last correction of 8 bits that each may have.
    pub(super) codes: Option<[Vec<u64>; 2]>,
    pub(super) errors: Vec<f64>,
}

/// Stores values in 16 bits with a correction.
pub(super) fn store_pair(to: &mut EncodedBuffer, answers: &[Answer]) -> StoredPair {
    let numbers = |raw: &RawBuffer| -> Vec<f64> {
        let size = raw.element().size();
        let of = |x: &[u8]| match (raw, x) {
            (RawBuffer::I8(_), &[a]) => f64::from(a as i8),
            (RawBuffer::I16(_), &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
            (RawBuffer::Bf16(_), &[a, b]) => {
                f64::from(half::bf16::from_bits(u16::from_le_bytes([a, b])))
            }
            (RawBuffer::F16(_), &[a, b]) => {
                f64::from(half::f16::from_bits(u16::from_le_bytes([a, b])))
            }
            _ => f64::NAN,
        };
        raw.bytes().chunks(size).map(of).collect()
    };
    let at = |way: f64| -> EncodedBuffer {
        let mut end = to.clone();
        let values: Vec<f32> =
            answers.iter().map(|x| (x.value + way * x.tolerance) as f32).collect();
        end.store(0, &values);
        end
    };
    let ends = [at(-1.0), at(1.0)];
    let [[low, low_correction], [high, high_correction]] =
        ends.each_ref().map(|end| end.raws().map(numbers));
    let is_split = matches!(to.format(), StorageFormat::SplitFloat(..));
    let is_bytes = matches!(to.format(), StorageFormat::SplitFloat(_, 8));
    let nominal: Vec<f32> = answers.iter().map(|x| x.value as f32).collect();
    to.store(0, &nominal);
    let apart = |a: f64, b: f64| if a == b || (a - b).is_nan() { 0.0 } else { (a - b).abs() };
    let value: Vec<f64> = low.iter().zip(&high).map(|(a, b)| apart(*a, *b)).collect();
    let correction = value.iter().enumerate().map(|(i, open)| {
        let (a, b) = (low_correction[i], high_correction[i]);
        if is_split {
            // On the other side of a tie the correction has the other sign.
            if *open > 0.0 { 65535.0 } else { apart(a, b) }
        } else if answers[i].tolerance == 0.0 {
            0.0
        } else {
            let dtype = to.format().layout(1).map_or(Dtype::F16, |[(d, _), _]| match d {
                RawDtype::Bf16 => Dtype::Bf16,
                _ => Dtype::F16,
            });
            answers[i].tolerance + 2.0 * half_ulp(dtype, a.abs().max(b.abs()).max(*open))
        }
    });
    let correction = correction.collect();
    let codes = is_bytes.then(|| {
        let mut codes = ends.each_ref().map(|end| bits(end.raws()[1]));
        for i in (0..value.len()).filter(|&i| value[i] > 0.0) {
            let [first, last] = all_codes(RawDtype::I8);
            (codes[0][i], codes[1][i]) = (first, last);
        }
        codes
    });
    let loaded = loaded(to);
    let errors = answers.iter().zip(loaded).map(|(x, y)| {
        // The last bit of the correction may differ as well.
        let rounding = (x.value - f64::from(y)).abs();
        if x.tolerance == 0.0 {
            0.0
        } else {
            x.tolerance / 2.0 + if rounding.is_nan() { 0.0 } else { rounding }
        }
    });
    StoredPair { value, correction, codes, errors: errors.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitstep::storage::Companded;

    fn answers(values: &[f64], tolerance: f64) -> Vec<Answer> {
        values.iter().map(|&value| Answer { value, tolerance }).collect()
    }

    #[test]
    fn code_is_open_only_where_the_band_crosses_a_boundary() {
        // Of 3, 1 has code 63.5: a tie, which goes up; 1.1 has one far from any.
        let format = StorageFormat::Companded(Companded::Momentum);
        let mut to = EncodedBuffer::zeros(format, 3).unwrap();
        let stored = store(&mut to, &answers(&[3.0, 1.0, 1.1], 0.0)).unwrap();
        let widths: Vec<_> =
            (0..3).map(|i| stored.codes[0][i].abs_diff(stored.codes[1][i])).collect();
        assert_eq!(widths, [0, 1, 0], "{:?}", stored.codes);
        assert_eq!((&stored.scales[..], &stored.errors[..]), (&[0.0][..], &[0.0; 3][..]));
    }

    #[test]
    fn scale_has_the_band_of_the_largest_and_codes_follow_it() {
        let format =
            StorageFormat::BlockQuant8(bitstep::storage::BlockQuant8 { signed: true, block: 4 });
        let mut to = EncodedBuffer::zeros(format, 4).unwrap();
        // The map has 1, but not -1.
        let mut all = answers(&[0.5, 2.0, 1.0, 0.0], 0.0);
        all[1].tolerance = 0.25;
        let stored = store(&mut to, &all).unwrap();
        assert!((stored.scales[0] - 0.5).abs() < 1e-6, "{:?}", stored.scales);
        assert_eq!(stored.codes[0][1], stored.codes[1][1], "the largest has its code anyway");
        assert!(stored.codes[0][2] > stored.codes[1][2], "the others have not: {:?}", stored.codes);
        let errors = &stored.errors;
        assert!((errors[1] - 0.25).abs() < 1e-6 && errors[3] == 0.0, "{errors:?}");
    }

    #[test]
    fn block_that_may_be_zero_can_have_any_code() {
        let format = StorageFormat::Companded(Companded::Variance);
        let mut to = EncodedBuffer::zeros(format, 2).unwrap();
        let stored = store(&mut to, &answers(&[1e-3, 0.0], 2e-3)).unwrap();
        assert_eq!(stored.codes, [vec![0, 0], vec![255, 255]]);
        assert_eq!(stored.scales, [f64::INFINITY]);
    }
}
