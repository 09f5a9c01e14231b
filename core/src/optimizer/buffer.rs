//! Memory of a state slot, of any format.

use alloc::vec::Vec;

use half::{bf16, f16};

use crate::error::Error;
use crate::float::Dtype;
use crate::storage::memory::filled;
use crate::storage::{
    Chunk, Data, DataMut, EncodedBuffer, Storage, StorageFormat, plain_chunks_mut,
};

/// Numbers, owned.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Buffer {
    F64(Vec<f64>),
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    /// Not plain numbers.
    Encoded(EncodedBuffer),
}

impl Buffer {
    /// Zeros in any format.
    ///
    /// # Errors
    /// A format that does not exist, or no memory for it.
    pub fn new(format: StorageFormat, len: usize) -> Result<Buffer, Error> {
        Ok(match format {
            StorageFormat::Plain(dtype) => Buffer::zeros(dtype, len)?,
            coded => Buffer::Encoded(EncodedBuffer::zeros(coded, len)?),
        })
    }

    /// Plain zeros.
    ///
    /// # Errors
    /// No memory for them.
    pub fn zeros(dtype: Dtype, len: usize) -> Result<Buffer, Error> {
        const OF: &str = "numbers";
        Ok(match dtype {
            Dtype::F64 => Buffer::F64(filled(OF, 0.0, len)?),
            Dtype::F32 => Buffer::F32(filled(OF, 0.0, len)?),
            Dtype::Bf16 => Buffer::Bf16(filled(OF, bf16::ZERO, len)?),
            Dtype::F16 => Buffer::F16(filled(OF, f16::ZERO, len)?),
        })
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Buffer::F64(x) => x.len(),
            Buffer::F32(x) => x.len(),
            Buffer::Bf16(x) => x.len(),
            Buffer::F16(x) => x.len(),
            Buffer::Encoded(x) => x.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many elements are handled together.
    pub(super) fn block(&self) -> usize {
        match self {
            Buffer::Encoded(x) => x.block(),
            _ => 1,
        }
    }

    /// To read, if the numbers are plain.
    #[must_use]
    pub fn data(&self) -> Option<Data<'_>> {
        Some(match self {
            Buffer::F64(x) => Data::F64(x),
            Buffer::F32(x) => Data::F32(x),
            Buffer::Bf16(x) => Data::Bf16(x),
            Buffer::F16(x) => Data::F16(x),
            Buffer::Encoded(_) => return None,
        })
    }

    /// In pieces of `len` elements, a multiple of the block.
    pub(super) fn chunks_mut(&mut self, len: usize) -> Vec<Chunk<'_>> {
        match self {
            Buffer::Encoded(x) => x.chunks_mut(len),
            numbers => plain_chunks_mut(numbers.data_mut(), len),
        }
    }

    /// To read and write.
    pub fn data_mut(&mut self) -> DataMut<'_> {
        match self {
            Buffer::F64(x) => DataMut::F64(x),
            Buffer::F32(x) => DataMut::F32(x),
            Buffer::Bf16(x) => DataMut::Bf16(x),
            Buffer::F16(x) => DataMut::F16(x),
            Buffer::Encoded(x) => DataMut::Encoded(x),
        }
    }
}
