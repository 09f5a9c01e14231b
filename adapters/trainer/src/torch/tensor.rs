//! Tensors of a file.

use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// A tensor: a view of a storage, which tensors may share.
#[derive(Clone)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    /// Little-endian. Contains all elements of the view.
    storage: Arc<Vec<u8>>,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?} {:?})", self.dtype, self.shape)
    }
}

/// The bytes of an element.
pub(super) fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// The number of elements of a shape.
pub(super) fn numel(shape: &[usize]) -> Option<usize> {
    // torch too refuses a shape whose nonzero dimensions overflow.
    let mut others = shape.iter().filter(|&&d| d > 0);
    let others = others.try_fold(1usize, |n, &d| n.checked_mul(d))?;
    Some(if shape.contains(&0) { 0 } else { others })
}

impl Tensor {
    /// `None` if an element is outside the storage.
    pub(super) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        storage: Arc<Vec<u8>>,
    ) -> Option<Tensor> {
        let len = numel(&shape).filter(|_| shape.len() == strides.len())?;
        let last = shape.iter().zip(&strides).try_fold(offset, |at, (&d, &stride)| {
            at.checked_add(d.saturating_sub(1).checked_mul(stride)?)
        });
        if len > 0 && last? >= storage.len() / width(dtype) {
            return None;
        }
        Some(Tensor { dtype, shape, strides, offset, storage })
    }

    /// The type of its elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of its elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        numel(&self.shape).unwrap_or(0)
    }

    /// The little-endian bytes of its elements in row-major order.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.numel() * width(self.dtype));
        self.each(|element| bytes.extend_from_slice(element));
        bytes
    }

    /// Its elements in row-major order; `None` for 8-bit floating-point types.
    #[must_use]
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        let mut numbers = Vec::with_capacity(self.numel());
        self.each(|element| numbers.extend(number(self.dtype, element)));
        (numbers.len() == self.numel()).then_some(numbers)
    }

    fn each(&self, mut f: impl FnMut(&[u8])) {
        let size = width(self.dtype);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..self.numel() {
            let steps = index.iter().zip(&self.strides).map(|(i, stride)| i * stride);
            let at = (self.offset + steps.sum::<usize>()) * size;
            f(self.storage.get(at..at + size).unwrap_or_default());
            for (i, &d) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < d {
                    break;
                }
                *i = 0;
            }
        }
    }
}

/// A number from its little-endian bytes.
pub(super) fn number(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    macro_rules! of {
        ($t:ty, $to:expr) => {
            $to(<$t>::from_le_bytes(bytes.try_into().ok()?))
        };
    }
    Some(match dtype {
        Dtype::F64 => of!(f64, f64::from),
        Dtype::F32 => of!(f32, f64::from),
        Dtype::F16 => of!(f16, f64::from),
        Dtype::BF16 => of!(bf16, f64::from),
        Dtype::I64 => of!(i64, |x| x as f64),
        Dtype::I32 => of!(i32, f64::from),
        Dtype::I16 => of!(i16, f64::from),
        Dtype::I8 => of!(i8, f64::from),
        Dtype::U64 => of!(u64, |x| x as f64),
        Dtype::U32 => of!(u32, f64::from),
        Dtype::U16 => of!(u16, f64::from),
        Dtype::U8 | Dtype::BOOL => of!(u8, f64::from),
        _ => return None,
    })
}
