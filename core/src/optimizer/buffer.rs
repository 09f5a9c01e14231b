//! [`Buffer`]: the owned memory of a state slot, in any storage format.

use alloc::vec::Vec;

use half::{bf16, f16};

use crate::error::{Error, ensure_len};
use crate::float::Dtype;
use crate::storage::memory::{collected, filled};
use crate::storage::{
    Chunk, Data, DataMut, EncodedBuffer, MAX_BLOCK, Plain, Storage, StorageFormat, chunk_len,
    plain_chunks_mut,
};

/// Owned values of one of the storage formats.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Buffer {
    F64(Vec<f64>),
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    /// Values in an encoded storage, such as 8-bit codes with scales.
    Encoded(EncodedBuffer),
}

impl Buffer {
    /// `len` zeros in any format.
    ///
    /// # Errors
    /// An invalid format, or [no memory](Error::OutOfMemory).
    pub fn new(format: StorageFormat, len: usize) -> Result<Buffer, Error> {
        Ok(match format {
            StorageFormat::Plain(dtype) => Buffer::zeros(dtype, len)?,
            encoded => Buffer::Encoded(EncodedBuffer::zeros(encoded, len)?),
        })
    }

    /// `len` plain zeros of this type.
    ///
    /// # Errors
    /// [No memory](Error::OutOfMemory).
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

    /// The number of elements that are encoded together; 1 for plain values.
    pub(super) fn block(&self) -> usize {
        match self {
            Buffer::Encoded(x) => x.block(),
            _ => 1,
        }
    }

    /// The values, if they are plain; `None` for an encoded storage.
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

    /// Copies the values, decoded, to plain ones of any type.
    ///
    /// # Errors
    /// Another number of elements, or a `to` that is not plain. Nothing is written then.
    ///
    /// ```
    /// use bitstep::{optimizer::Buffer, storage::{Companded, DataMut, StorageFormat}};
    /// let mut slot = Buffer::new(StorageFormat::Companded(Companded::Momentum), 3)?;
    /// slot.data_mut().fill(0.5);
    /// let mut values = [0.0f64; 3];
    /// slot.decode(&mut DataMut::F64(&mut values))?;
    /// assert_eq!(values, [0.5; 3]);
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    pub fn decode(&self, to: &mut DataMut<'_>) -> Result<(), Error> {
        ensure_len("values", to.len(), self.len())?;
        if to.dtype().is_none() {
            return Err(Error::InvalidArgument { argument: "values", expected: "plain values" });
        }
        fn plain<T: Plain>(from: &[T], to: &mut DataMut<'_>) {
            for (at, part) in from.chunks(MAX_BLOCK).enumerate() {
                to.store(at * MAX_BLOCK, part);
            }
        }
        match self {
            Buffer::F64(x) => plain(x, to),
            Buffer::F32(x) => plain(x, to),
            Buffer::Bf16(x) => plain(x, to),
            Buffer::F16(x) => plain(x, to),
            Buffer::Encoded(x) => {
                let chunk = chunk_len([x.block()]).unwrap_or(1);
                let mut values = [0.0f32; MAX_BLOCK];
                for start in (0..x.len()).step_by(chunk) {
                    let len = (x.len() - start).min(chunk);
                    let values = values.get_mut(..len).unwrap_or_default();
                    x.load(start, values);
                    to.store(start, values);
                }
            }
        }
        Ok(())
    }

    /// Converts values to this buffer's format: the inverse of [`decode`](Self::decode).
    ///
    /// # Errors
    /// Another number of elements. Nothing is written then.
    pub fn encode(&mut self, from: Data<'_>) -> Result<(), Error> {
        ensure_len("values", from.len(), self.len())?;
        fn all<S: Plain>(mut to: DataMut<'_>, from: Data<'_>, chunk: usize) {
            let mut values = [S::default(); MAX_BLOCK];
            for start in (0..from.len()).step_by(chunk) {
                let len = (from.len() - start).min(chunk);
                let values = values.get_mut(..len).unwrap_or_default();
                from.load(start, values);
                to.store(start, values);
            }
        }
        let chunk = chunk_len([self.block()]).unwrap_or(1);
        match from.dtype() {
            Dtype::F64 => all::<f64>(self.data_mut(), from, chunk),
            _ => all::<f32>(self.data_mut(), from, chunk),
        }
        Ok(())
    }

    /// A copy.
    ///
    /// # Errors
    /// [No memory](Error::OutOfMemory).
    pub fn try_clone(&self) -> Result<Buffer, Error> {
        const OF: &str = "numbers";
        Ok(match self {
            Buffer::F64(x) => Buffer::F64(collected(OF, x.iter().copied())?),
            Buffer::F32(x) => Buffer::F32(collected(OF, x.iter().copied())?),
            Buffer::Bf16(x) => Buffer::Bf16(collected(OF, x.iter().copied())?),
            Buffer::F16(x) => Buffer::F16(collected(OF, x.iter().copied())?),
            Buffer::Encoded(x) => Buffer::Encoded(x.try_clone()?),
        })
    }

    /// Chunks of `len` elements, a multiple of the block; the last may be shorter.
    pub(super) fn chunks_mut(&mut self, len: usize) -> Vec<Chunk<'_>> {
        match self {
            Buffer::Encoded(x) => x.chunks_mut(len),
            plain => plain_chunks_mut(plain.data_mut(), len),
        }
    }

    /// The values, to read and write.
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
