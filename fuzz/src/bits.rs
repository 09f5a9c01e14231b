//! Converts between buffers and bit patterns.

use bitstep::float::Dtype;
use bitstep::optimizer::Buffer;
use bitstep::storage::{Data, Storage};
use half::{bf16, f16};

/// A buffer from bit patterns, truncated to the type's width.
#[must_use]
pub fn buffer(dtype: Dtype, bits: &[u64]) -> Buffer {
    match dtype {
        Dtype::F64 => Buffer::F64(bits.iter().map(|&b| f64::from_bits(b)).collect()),
        Dtype::F32 => Buffer::F32(bits.iter().map(|&b| f32::from_bits(b as u32)).collect()),
        Dtype::Bf16 => Buffer::Bf16(bits.iter().map(|&b| bf16::from_bits(b as u16)).collect()),
        Dtype::F16 => Buffer::F16(bits.iter().map(|&b| f16::from_bits(b as u16)).collect()),
    }
}

/// The bits of a buffer, with all NaNs equal; for an encoded one, the bytes of its codes and scales.
#[must_use]
pub fn bits(buffer: &Buffer) -> Vec<u64> {
    let Some(data) = buffer.data() else {
        let Buffer::Encoded(coded) = buffer else { unreachable!("plain numbers have data") };
        return coded.parts("").iter().flat_map(|p| p.bytes.iter().map(|&b| b.into())).collect();
    };
    fn alike<T: Copy>(x: &[T], is_nan: fn(T) -> bool, nan: u64, bits: fn(T) -> u64) -> Vec<u64> {
        x.iter().map(|&x| if is_nan(x) { nan } else { bits(x) }).collect()
    }
    match data {
        Data::F64(x) => alike(x, f64::is_nan, f64::NAN.to_bits(), f64::to_bits),
        Data::F32(x) => alike(x, f32::is_nan, f32::NAN.to_bits().into(), |x| x.to_bits().into()),
        Data::Bf16(x) => alike(x, bf16::is_nan, bf16::NAN.to_bits().into(), |x| x.to_bits().into()),
        Data::F16(x) => alike(x, f16::is_nan, f16::NAN.to_bits().into(), |x| x.to_bits().into()),
    }
}

/// The values of a buffer, exactly.
#[must_use]
pub fn numbers(buffer: &Buffer) -> Vec<f64> {
    match buffer {
        Buffer::F64(x) => x.clone(),
        Buffer::F32(x) => x.iter().map(|&x| x.into()).collect(),
        Buffer::Bf16(x) => x.iter().map(|x| x.to_f64()).collect(),
        Buffer::F16(x) => x.iter().map(|x| x.to_f64()).collect(),
        Buffer::Encoded(coded) => {
            let mut wide = vec![0.0; coded.len()];
            coded.load(0, &mut wide);
            wide.into_iter().map(f64::from).collect()
        }
    }
}

/// Whether two values are equal, where zeros of both signs are equal, and all NaNs.
#[must_use]
pub fn eq_ignoring_zero_sign(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan()
}
