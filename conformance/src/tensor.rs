//! Tensors as typed bytes with a shape: what the suite and a backend exchange.

use std::fmt;

use half::{bf16, f16};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    Bf16,
    F16,
    /// 4 exponent bits, 3 mantissa bits, no infinity (`float8_e4m3fn`).
    F8E4M3,
    /// 5 exponent bits, 2 mantissa bits.
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::Bf16 | Dtype::F16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Bits of precision (the hidden one included) and the exponent of the smallest normal number; `None` for
    /// integers.
    #[must_use]
    pub const fn float(self) -> Option<(i32, i32)> {
        Some(match self {
            Dtype::F64 => (53, -1022),
            Dtype::F32 => (24, -126),
            Dtype::Bf16 => (8, -126),
            Dtype::F16 => (11, -14),
            Dtype::F8E4M3 => (4, -6),
            Dtype::F8E5M2 => (3, -14),
            _ => return None,
        })
    }

    /// The short name: `f32`, `bf16`, `u8`, ….
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
            Dtype::F8E4M3 => "f8_e4m3",
            Dtype::F8E5M2 => "f8_e5m2",
            Dtype::I64 => "i64",
            Dtype::I32 => "i32",
            Dtype::I16 => "i16",
            Dtype::I8 => "i8",
            Dtype::U64 => "u64",
            Dtype::U32 => "u32",
            Dtype::U16 => "u16",
            Dtype::U8 => "u8",
            Dtype::Bool => "bool",
        }
    }

    /// The corresponding safetensors type.
    #[must_use]
    pub const fn stored(self) -> safetensors::Dtype {
        use safetensors::Dtype as S;
        match self {
            Dtype::F64 => S::F64,
            Dtype::F32 => S::F32,
            Dtype::Bf16 => S::BF16,
            Dtype::F16 => S::F16,
            Dtype::F8E4M3 => S::F8_E4M3,
            Dtype::F8E5M2 => S::F8_E5M2,
            Dtype::I64 => S::I64,
            Dtype::I32 => S::I32,
            Dtype::I16 => S::I16,
            Dtype::I8 => S::I8,
            Dtype::U64 => S::U64,
            Dtype::U32 => S::U32,
            Dtype::U16 => S::U16,
            Dtype::U8 => S::U8,
            Dtype::Bool => S::BOOL,
        }
    }

    /// From a safetensors type; `None` for one that no case uses.
    #[must_use]
    pub fn of(dtype: safetensors::Dtype) -> Option<Dtype> {
        use safetensors::Dtype as S;
        Some(match dtype {
            S::F64 => Dtype::F64,
            S::F32 => Dtype::F32,
            S::BF16 => Dtype::Bf16,
            S::F16 => Dtype::F16,
            S::F8_E4M3 => Dtype::F8E4M3,
            S::F8_E5M2 => Dtype::F8E5M2,
            S::I64 => Dtype::I64,
            S::I32 => Dtype::I32,
            S::I16 => Dtype::I16,
            S::I8 => Dtype::I8,
            S::U64 => Dtype::U64,
            S::U32 => Dtype::U32,
            S::U16 => Dtype::U16,
            S::U8 => Dtype::U8,
            S::BOOL => Dtype::Bool,
            _ => return None,
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Elements in row-major order, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The type of the elements.
    pub dtype: Dtype,
    /// The dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements' bytes.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of `f64`s.
    #[must_use]
    pub fn f64(shape: &[usize], values: &[f64]) -> Tensor {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor { dtype: Dtype::F64, shape: shape.to_vec(), bytes }
    }

    /// One `f64`.
    #[must_use]
    pub fn scalar(value: f64) -> Tensor {
        Tensor::f64(&[], &[value])
    }

    /// Values rounded to a floating-point type (to the 16-bit types by way of `f32`); `None` for other types.
    #[must_use]
    pub fn round(dtype: Dtype, shape: &[usize], values: &[f64]) -> Option<Tensor> {
        let bytes = match dtype {
            Dtype::F64 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F32 => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            Dtype::Bf16 => {
                values.iter().flat_map(|&x| bf16::from_f32(x as f32).to_le_bytes()).collect()
            }
            Dtype::F16 => {
                values.iter().flat_map(|&x| f16::from_f32(x as f32).to_le_bytes()).collect()
            }
            _ => return None,
        };
        Some(Tensor { dtype, shape: shape.to_vec(), bytes })
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Entry `i` of the first dimension.
    #[must_use]
    pub fn row(&self, i: usize) -> Tensor {
        let shape = self.shape.get(1..).unwrap_or_default().to_vec();
        // The product may overflow; the row is out of bounds then, and empty.
        let size = shape.iter().fold(self.dtype.size(), |n, &d| n.saturating_mul(d));
        let at = i.saturating_mul(size)..(i.saturating_add(1)).saturating_mul(size);
        let bytes = self.bytes.get(at).unwrap_or_default().to_vec();
        Tensor { dtype: self.dtype, shape, bytes }
    }

    /// The bits of element `i`, zero-extended.
    #[must_use]
    pub fn bits(&self, i: usize) -> u64 {
        let size = self.dtype.size();
        let bytes = self.bytes.get(i * size..(i + 1) * size).unwrap_or_default();
        bytes.iter().rev().fold(0, |bits, &b| bits << 8 | u64::from(b))
    }

    /// Element `i` as an `f64`: exact for every type but 64-bit integers above 2⁵³.
    #[must_use]
    pub fn get(&self, i: usize) -> f64 {
        let bits = self.bits(i);
        match self.dtype {
            Dtype::F64 => f64::from_bits(bits),
            Dtype::F32 => f32::from_bits(bits as u32).into(),
            Dtype::Bf16 => bf16::from_bits(bits as u16).into(),
            Dtype::F16 => f16::from_bits(bits as u16).into(),
            Dtype::F8E4M3 => {
                if bits & 0x7f == 0x7f {
                    f64::NAN
                } else {
                    small_float(bits, 4, 3)
                }
            }
            Dtype::F8E5M2 => match bits & 0x7f {
                0x7c => f64::INFINITY * if bits & 0x80 == 0 { 1.0 } else { -1.0 },
                0x7d.. => f64::NAN,
                _ => small_float(bits, 5, 2),
            },
            Dtype::I64 => bits.cast_signed() as f64,
            Dtype::I32 => f64::from((bits as u32).cast_signed()),
            Dtype::I16 => f64::from((bits as u16).cast_signed()),
            Dtype::I8 => f64::from((bits as u8).cast_signed()),
            Dtype::U64 => bits as f64,
            Dtype::U32 | Dtype::U16 | Dtype::U8 | Dtype::Bool => bits as f64,
        }
    }

    /// All elements as `f64`s.
    #[must_use]
    pub fn to_f64s(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }

    /// Whether any element is NaN.
    #[must_use]
    pub fn has_nan(&self) -> bool {
        (0..self.len()).any(|i| self.get(i).is_nan())
    }
}

/// The value of a finite 8-bit float.
fn small_float(bits: u64, exponent_bits: i32, mantissa_bits: i32) -> f64 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = (bits >> mantissa_bits) as i32 & ((1 << exponent_bits) - 1);
    let mantissa = (bits & ((1 << mantissa_bits) - 1)) as f64;
    let bias = (1 << (exponent_bits - 1)) - 1;
    let unit = 2f64.powi(exponent.max(1) - bias - mantissa_bits);
    let hidden = if exponent == 0 { 0.0 } else { f64::from(1 << mantissa_bits) };
    sign * (hidden + mantissa) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(dtype: Dtype, bytes: &[u8]) -> f64 {
        Tensor { dtype, shape: vec![], bytes: bytes.to_vec() }.get(0)
    }

    #[test]
    fn get_every_type_reads_little_endian() {
        assert_eq!(one(Dtype::F64, &1.5f64.to_le_bytes()), 1.5);
        assert_eq!(one(Dtype::F32, &[0, 0, 0xc0, 0x3f]), 1.5);
        assert_eq!(one(Dtype::Bf16, &[0xc0, 0x3f]), 1.5);
        assert_eq!(one(Dtype::F16, &[0, 0x3e]), 1.5);
        assert_eq!(one(Dtype::I16, &[0xfe, 0xff]), -2.0);
        assert_eq!(one(Dtype::U16, &[0xfe, 0xff]), 65534.0);
        assert_eq!(one(Dtype::I8, &[0x81]), -127.0);
        assert_eq!(one(Dtype::F8E4M3, &[0x38]), 1.0);
        assert_eq!(one(Dtype::F8E4M3, &[0x7e]), 448.0);
        assert_eq!(one(Dtype::F8E4M3, &[0x81]), -(2f64.powi(-9)));
        assert!(one(Dtype::F8E4M3, &[0xff]).is_nan());
        assert_eq!(one(Dtype::F8E5M2, &[0x7b]), 57344.0);
        assert_eq!(one(Dtype::F8E5M2, &[0xfc]), f64::NEG_INFINITY);
    }

    #[test]
    fn row_takes_one_entry_of_the_first_dimension() {
        let t = Tensor::f64(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(t.row(1), Tensor::f64(&[2], &[3.0, 4.0]));
        assert_eq!(Tensor::f64(&[2], &[7.0, 8.0]).row(1), Tensor::scalar(8.0));
    }
}
