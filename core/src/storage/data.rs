//! Tensors of any storage type, as a step reads and writes them.

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::error::{Error, ensure_len, ensure_range};
use crate::float::bytes;
use crate::float::{Dtype, StoredFloat};

/// A slice of one of the plain types, to read.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Data<'a> {
    F64(&'a [f64]),
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

/// A tensor in any representation, to read and write.
#[allow(missing_docs)]
pub enum DataMut<'a> {
    F64(&'a mut [f64]),
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    F16(&'a mut [f16]),
    /// A format that is decoded and encoded block-wise.
    Encoded(&'a mut dyn Storage),
}

/// A representation that is decoded to `f32` and encoded again, in blocks.
///
/// A chunk passed to [`load`](Storage::load) or [`store`](Storage::store) starts at a multiple of
/// [`block`](Storage::block), and ends at one or at the end of the tensor.
pub trait Storage: Send {
    /// The number of elements.
    fn len(&self) -> usize;
    /// Whether there are no elements.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The number of elements that are decoded and encoded together: 1 to [`MAX_BLOCK`].
    fn block(&self) -> usize;
    /// Decodes the elements from `start` on.
    fn load(&self, start: usize, values: &mut [f32]);
    /// Encodes the elements from `start` on.
    fn store(&mut self, start: usize, values: &[f32]);
    /// Sets every code and scale to 0, which decodes to 0: the initial state.
    fn zero(&mut self);
}

/// The largest block that a [`Storage`] may have.
pub const MAX_BLOCK: usize = 2048;

/// ⌊x⌋ for |x| ≤ 2²²; 0 for NaN. A cast would do the same, but would not be vectorised.
#[inline(always)]
pub(crate) fn floor(x: f32) -> i32 {
    // In [2²³, 2²⁴) neighbouring floats are 1 apart: the addition rounds to an integer, which is in the low bits.
    const BASE: f32 = 12_582_912.0;
    let x = if x.is_nan() { 0.0 } else { x };
    let near = x + BASE;
    (near.to_bits() as i32) - (BASE.to_bits() as i32) - i32::from(near - BASE > x)
}

/// The largest chunk of at most [`MAX_BLOCK`] elements that is a whole number of blocks of every size in `blocks`.
pub(crate) fn chunk_len(blocks: impl IntoIterator<Item = usize>) -> Option<usize> {
    chunk_len_within(MAX_BLOCK, blocks)
}

/// The largest chunk of at most `max` elements that is a whole number of blocks of every size in `blocks`.
pub(crate) fn chunk_len_within(
    max: usize,
    blocks: impl IntoIterator<Item = usize>,
) -> Option<usize> {
    let lcm = common_block(max, blocks)?;
    // It is 1 without blocks and never 0; `max` may be 0.
    (max >= lcm).then(|| max / lcm.max(1) * lcm)
}

/// The least common multiple of all `blocks`, if it is at most `max`.
pub(crate) fn common_block(max: usize, blocks: impl IntoIterator<Item = usize>) -> Option<usize> {
    fn gcd(a: usize, b: usize) -> usize {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    blocks.into_iter().try_fold(1usize, |lcm, block| {
        let next = lcm.checked_mul(block)? / gcd(lcm, block).max(1);
        (1..=max).contains(&next).then_some(next)
    })
}

/// Refuses block sizes whose least common multiple is more than [`MAX_BLOCK`].
pub(crate) fn check_blocks(blocks: impl Iterator<Item = usize> + Clone) -> Result<(), Error> {
    if blocks.clone().all(|block| block == 1) {
        return Ok(());
    }
    let largest = blocks.clone().max().unwrap_or(1) as f64;
    let ok = chunk_len(blocks).is_some();
    ensure_range(ok, "block", largest, "a least common multiple of blocks from 1 to 2048")
}

/// The number of elements of a shape; `usize::MAX` where that overflows.
#[must_use]
pub fn numel(shape: &[usize]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX)
}

/// Applies `$body` to the slice in a plain variant of [`Data`].
macro_rules! each_data {
    ($data:expr, $x:ident => $body:expr) => {
        match $data {
            Data::F64($x) => $body,
            Data::F32($x) => $body,
            Data::Bf16($x) => $body,
            Data::F16($x) => $body,
        }
    };
}

/// Applies `$body` to the slice in a plain variant of [`DataMut`], or `$encoded` to a storage.
macro_rules! each_data_mut {
    ($data:expr, $x:ident => $body:expr, $s:ident => $encoded:expr) => {
        match $data {
            DataMut::F64($x) => $body,
            DataMut::F32($x) => $body,
            DataMut::Bf16($x) => $body,
            DataMut::F16($x) => $body,
            DataMut::Encoded($s) => $encoded,
        }
    };
}

impl Data<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each_data!(self, x => x.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of this range; empty if it goes beyond the end.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub(crate) fn part(self, range: core::ops::Range<usize>) -> Self {
        match self {
            Data::F64(x) => Data::F64(x.get(range).unwrap_or_default()),
            Data::F32(x) => Data::F32(x.get(range).unwrap_or_default()),
            Data::Bf16(x) => Data::Bf16(x.get(range).unwrap_or_default()),
            Data::F16(x) => Data::F16(x.get(range).unwrap_or_default()),
        }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        match self {
            Data::F64(_) => Dtype::F64,
            Data::F32(_) => Dtype::F32,
            Data::Bf16(_) => Dtype::Bf16,
            Data::F16(_) => Dtype::F16,
        }
    }

    /// The elements as little-endian bytes.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn bytes(&self) -> alloc::vec::Vec<u8> {
        each_data!(self, x => bytes::to_bytes(x))
    }

    /// [`Data::bytes`] into the caller's memory.
    ///
    /// # Errors
    /// Another number of bytes. Nothing is written then.
    #[cfg(feature = "alloc")]
    pub fn write_bytes(&self, to: &mut [u8]) -> Result<(), Error> {
        crate::error::ensure_len("bytes", to.len(), self.len() * self.dtype().size())?;
        each_data!(self, x => bytes::write_all(x, to));
        Ok(())
    }

    /// Converts the elements from `start` on.
    #[cfg_attr(not(any(target_os = "none", target_os = "cuda")), inline(never))]
    pub(crate) fn load<S: Plain>(&self, start: usize, out: &mut [S]) {
        each_data!(self, x => load_plain(x, start, out));
    }
}

fn load_plain<S: Plain, T: Plain>(from: &[T], start: usize, out: &mut [S]) {
    convert(from.get(start..).unwrap_or_default(), out);
}

fn store_plain<S: Plain, T: Plain>(to: &mut [T], start: usize, values: &[S]) {
    convert(values, to.get_mut(start..).unwrap_or_default());
}

/// Converts elements to another type, up to the length of the shorter slice.
fn convert<A: Plain, B: Plain>(from: &[A], to: &mut [B]) {
    struct Convert<'a, A, B>(&'a [A], &'a mut [B]);
    impl<A: Plain, B: Plain> Kernel for Convert<'_, A, B> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            for (to, &x) in self.1.iter_mut().zip(self.0) {
                *to = if const { matches!(A::DTYPE, Dtype::F64) } {
                    B::from_f64(x.to_f64())
                } else {
                    B::from_f32(x.to_f32())
                };
            }
        }
    }
    simd::dispatch_in::<A, B, _>(Convert(from, to));
}

impl DataMut<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each_data_mut!(self, x => x.len(), s => s.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements; `None` for an encoded tensor.
    pub fn dtype(&self) -> Option<Dtype> {
        match self {
            DataMut::F64(_) => Some(Dtype::F64),
            DataMut::F32(_) => Some(Dtype::F32),
            DataMut::Bf16(_) => Some(Dtype::Bf16),
            DataMut::F16(_) => Some(Dtype::F16),
            DataMut::Encoded(_) => None,
        }
    }

    /// The elements, to read; `None` for an encoded tensor.
    pub fn as_data(&self) -> Option<Data<'_>> {
        match self {
            DataMut::F64(x) => Some(Data::F64(x)),
            DataMut::F32(x) => Some(Data::F32(x)),
            DataMut::Bf16(x) => Some(Data::Bf16(x)),
            DataMut::F16(x) => Some(Data::F16(x)),
            DataMut::Encoded(_) => None,
        }
    }

    /// Overwrites the elements from [bytes](Data::bytes).
    ///
    /// # Errors
    /// Another number of bytes, or an encoded tensor. Nothing is written then.
    pub fn set_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let size = self.dtype().map_or(1, Dtype::size);
        let expected = "plain numbers";
        ensure_len("bytes", bytes.len(), self.len().saturating_mul(size))?;
        each_data_mut!(self, x => bytes::read_all(bytes, x),
            _s => return Err(Error::InvalidArgument { argument: "bytes", expected }));
        Ok(())
    }

    /// The number of elements that have to be decoded and encoded together.
    pub(crate) fn block(&self) -> usize {
        match self {
            DataMut::Encoded(s) => s.block(),
            _ => 1,
        }
    }

    /// Borrows the tensor for a shorter time.
    pub fn reborrow(&mut self) -> DataMut<'_> {
        match self {
            DataMut::F64(x) => DataMut::F64(x),
            DataMut::F32(x) => DataMut::F32(x),
            DataMut::Bf16(x) => DataMut::Bf16(x),
            DataMut::F16(x) => DataMut::F16(x),
            DataMut::Encoded(s) => DataMut::Encoded(&mut **s),
        }
    }

    /// Decodes or converts the elements from `start` on, as many as `out` holds.
    #[cfg_attr(not(any(target_os = "none", target_os = "cuda")), inline(never))]
    pub(crate) fn load<S: Plain>(&self, start: usize, out: &mut [S]) {
        each_data_mut!(self, x => load_plain(x, start, out), s => {
            if let DataMut::F32(out) = S::data_mut(out) {
                return s.load(start, out);
            }
            let mut wide = [0.0f32; MAX_BLOCK];
            let Some(wide) = wide.get_mut(..out.len()) else { return };
            s.load(start, wide);
            convert(wide, out);
        });
    }

    /// Encodes or converts `values` into the elements from `start` on.
    #[cfg_attr(not(any(target_os = "none", target_os = "cuda")), inline(never))]
    pub(crate) fn store<S: Plain>(&mut self, start: usize, values: &[S]) {
        each_data_mut!(self, x => store_plain(x, start, values), s => {
            if let Data::F32(values) = S::data(values) {
                return s.store(start, values);
            }
            let mut wide = [0.0f32; MAX_BLOCK];
            let Some(wide) = wide.get_mut(..values.len()) else { return };
            convert(values, wide);
            s.store(start, wide);
        });
    }

    /// Sets every element to `value`.
    pub fn fill(&mut self, value: f64) {
        fn plain<T: StoredFloat>(x: &mut [T], value: f64) {
            x.fill(T::from_f64(value));
        }
        each_data_mut!(self, x => plain(x, value), s => {
            if value == 0.0 {
                return s.zero();
            }
            let wide = [value as f32; MAX_BLOCK];
            let chunk = chunk_len([s.block()]).unwrap_or(1);
            for start in (0..s.len()).step_by(chunk) {
                let len = (s.len() - start).min(chunk);
                s.store(start, wide.get(..len).unwrap_or_default());
            }
        });
    }

    /// Copies the elements of another tensor, converting each. Does nothing if the least common multiple of both block
    /// sizes is more than [`MAX_BLOCK`].
    pub fn copy_from_mut(&mut self, from: &DataMut<'_>) {
        fn all<S: Plain>(to: &mut DataMut<'_>, from: &DataMut<'_>) {
            let mut buffer = [S::default(); MAX_BLOCK];
            let Some(chunk) = chunk_len([to.block(), from.block()]) else { return };
            for start in (0..to.len()).step_by(chunk) {
                let part = buffer.get_mut(..(to.len() - start).min(chunk)).unwrap_or_default();
                from.load(start, part);
                to.store(start, part);
            }
        }
        if from.dtype() == Some(Dtype::F64) {
            all::<f64>(self, from)
        } else {
            all::<f32>(self, from)
        }
    }
}

/// A plain type whose slices can be taken out of [`Data`] and [`DataMut`].
pub trait Plain: StoredFloat {
    /// The slice, if it is of this type.
    fn of<'a>(data: &Data<'a>) -> Option<&'a [Self]>;
    /// The slice, if it is of this type.
    fn of_mut<'a>(data: &'a mut DataMut<'_>) -> Option<&'a mut [Self]> {
        Self::into_slice(data.reborrow())
    }
    /// The slice, if it is of this type, for as long as the data lives.
    fn into_slice(data: DataMut<'_>) -> Option<&mut [Self]>;
    /// Wraps a slice.
    fn data(x: &[Self]) -> Data<'_>;
    /// Wraps a slice.
    fn data_mut(x: &mut [Self]) -> DataMut<'_>;
}

macro_rules! plain {
    ($($type:ty, $variant:ident;)*) => {$(
        impl Plain for $type {
            fn of<'a>(data: &Data<'a>) -> Option<&'a [Self]> {
                match data {
                    Data::$variant(x) => Some(x),
                    _ => None,
                }
            }
            fn into_slice(data: DataMut<'_>) -> Option<&mut [Self]> {
                match data {
                    DataMut::$variant(x) => Some(x),
                    _ => None,
                }
            }
            fn data(x: &[Self]) -> Data<'_> {
                Data::$variant(x)
            }
            fn data_mut(x: &mut [Self]) -> DataMut<'_> {
                DataMut::$variant(x)
            }
        }

        impl<'a> From<&'a [$type]> for Data<'a> {
            fn from(x: &'a [$type]) -> Self {
                Data::$variant(x)
            }
        }

        impl<'a, const N: usize> From<&'a [$type; N]> for Data<'a> {
            fn from(x: &'a [$type; N]) -> Self {
                Data::$variant(x)
            }
        }

        impl<'a> From<&'a mut [$type]> for DataMut<'a> {
            fn from(x: &'a mut [$type]) -> Self {
                DataMut::$variant(x)
            }
        }

        impl<'a, const N: usize> From<&'a mut [$type; N]> for DataMut<'a> {
            fn from(x: &'a mut [$type; N]) -> Self {
                DataMut::$variant(x)
            }
        }

        #[cfg(feature = "alloc")]
        impl<'a> From<&'a alloc::vec::Vec<$type>> for Data<'a> {
            fn from(x: &'a alloc::vec::Vec<$type>) -> Self {
                Data::$variant(x)
            }
        }

        #[cfg(feature = "alloc")]
        impl<'a> From<&'a mut alloc::vec::Vec<$type>> for DataMut<'a> {
            fn from(x: &'a mut alloc::vec::Vec<$type>) -> Self {
                DataMut::$variant(x)
            }
        }
    )*};
}
plain! { f64, F64; f32, F32; bf16, Bf16; f16, F16; }
