//! Numbers of any type, plain or not: what a step reads and writes.

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::error::{Error, ensure_len, ensure_range};
use crate::float::bytes;
use crate::float::{Dtype, StoredFloat};

/// Numbers of one plain type, to read.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Data<'a> {
    F64(&'a [f64]),
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

/// Numbers in any representation, to read and write.
#[allow(missing_docs)]
pub enum DataMut<'a> {
    F64(&'a mut [f64]),
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
    F16(&'a mut [f16]),
    /// Not plain numbers.
    Encoded(&'a mut dyn Storage),
}

/// A representation that is decoded to `f32` and encoded again, in blocks.
///
/// Stretches handed to [`load`](Storage::load) and [`store`](Storage::store) start
/// at a multiple of [`block`](Storage::block) and end at one or at the end.
pub trait Storage: Send {
    /// Number of elements.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many elements are decoded and encoded together: 1 to [`MAX_BLOCK`].
    fn block(&self) -> usize;
    /// Decodes the elements from `start` on.
    fn load(&self, start: usize, values: &mut [f32]);
    /// Encodes the elements from `start` on.
    fn store(&mut self, start: usize, values: &[f32]);
    /// Sets every code and scale to 0, which reads as 0: how state starts.
    fn zero(&mut self);
}

/// The largest block that a [`Storage`] may have.
pub const MAX_BLOCK: usize = 2048;

/// ⌊x⌋ of a number between −2²² and 2²²; 0 for NaN. A cast would do the same, but not in vectors.
#[inline(always)]
pub(crate) fn floor(x: f32) -> i32 {
    // In [2²³, 2²⁴) neighbours are 1 apart: the adder rounds, and the low bits are the number.
    const BASE: f32 = 12_582_912.0;
    let x = if x.is_nan() { 0.0 } else { x };
    let near = x + BASE;
    (near.to_bits() as i32) - (BASE.to_bits() as i32) - i32::from(near - BASE > x)
}

/// The most elements, at most [`MAX_BLOCK`], that are a whole number of blocks of every size.
pub(crate) fn chunk_len(blocks: impl IntoIterator<Item = usize>) -> Option<usize> {
    chunk_len_within(MAX_BLOCK, blocks)
}

/// The same, but at most `most`.
pub(crate) fn chunk_len_within(
    most: usize,
    blocks: impl IntoIterator<Item = usize>,
) -> Option<usize> {
    fn gcd(a: usize, b: usize) -> usize {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let all = blocks.into_iter().try_fold(1usize, |all, block| {
        let next = all.checked_mul(block)? / gcd(all, block).max(1);
        (1..=most).contains(&next).then_some(next)
    })?;
    // `all` is 1 where there are no blocks, whatever `most` is; never 0.
    (most >= all).then(|| most / all.max(1) * all)
}

/// Refuses sizes of blocks that do not go together.
pub(crate) fn check_blocks(blocks: impl Iterator<Item = usize> + Clone) -> Result<(), Error> {
    if blocks.clone().all(|block| block == 1) {
        return Ok(());
    }
    let largest = blocks.clone().max().unwrap_or(1) as f64;
    let ok = chunk_len(blocks).is_some();
    ensure_range(ok, "block", largest, "a least common multiple of blocks from 1 to 2048")
}

/// The number of elements of a shape; `usize::MAX` where that overflows.
pub(crate) fn numel(shape: &[usize]) -> usize {
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

/// Applies `$body` to the slice in a plain variant of [`DataMut`], or `$coded` to a storage.
macro_rules! each_data_mut {
    ($data:expr, $x:ident => $body:expr, $s:ident => $coded:expr) => {
        match $data {
            DataMut::F64($x) => $body,
            DataMut::F32($x) => $body,
            DataMut::Bf16($x) => $body,
            DataMut::F16($x) => $body,
            DataMut::Encoded($s) => $coded,
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

    /// The elements of this range; none of one beyond the end.
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

    /// The type of the numbers.
    pub fn dtype(&self) -> Dtype {
        match self {
            Data::F64(_) => Dtype::F64,
            Data::F32(_) => Dtype::F32,
            Data::Bf16(_) => Dtype::Bf16,
            Data::F16(_) => Dtype::F16,
        }
    }

    /// The numbers, little-endian.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn bytes(&self) -> alloc::vec::Vec<u8> {
        each_data!(self, x => bytes::to_bytes(x))
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

/// Numbers in another type, as many as there are of both.
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

    /// The type of plain numbers; `None` for a storage.
    pub fn dtype(&self) -> Option<Dtype> {
        match self {
            DataMut::F64(_) => Some(Dtype::F64),
            DataMut::F32(_) => Some(Dtype::F32),
            DataMut::Bf16(_) => Some(Dtype::Bf16),
            DataMut::F16(_) => Some(Dtype::F16),
            DataMut::Encoded(_) => None,
        }
    }

    /// Plain numbers, to read.
    pub fn as_data(&self) -> Option<Data<'_>> {
        match self {
            DataMut::F64(x) => Some(Data::F64(x)),
            DataMut::F32(x) => Some(Data::F32(x)),
            DataMut::Bf16(x) => Some(Data::Bf16(x)),
            DataMut::F16(x) => Some(Data::F16(x)),
            DataMut::Encoded(_) => None,
        }
    }

    /// Overwrites plain numbers with [bytes](Data::bytes).
    ///
    /// # Errors
    /// Another number of bytes, or a storage. Nothing is written then.
    pub fn set_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let size = self.dtype().map_or(1, Dtype::size);
        let expected = "plain numbers";
        ensure_len("bytes", bytes.len(), self.len().saturating_mul(size))?;
        each_data_mut!(self, x => bytes::read_all(bytes, x),
            _s => return Err(Error::InvalidArgument { argument: "bytes", expected }));
        Ok(())
    }

    /// How many elements have to be handled together.
    pub(crate) fn block(&self) -> usize {
        match self {
            DataMut::Encoded(s) => s.block(),
            _ => 1,
        }
    }

    /// The same, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> DataMut<'_> {
        match self {
            DataMut::F64(x) => DataMut::F64(x),
            DataMut::F32(x) => DataMut::F32(x),
            DataMut::Bf16(x) => DataMut::Bf16(x),
            DataMut::F16(x) => DataMut::F16(x),
            DataMut::Encoded(s) => DataMut::Encoded(&mut **s),
        }
    }

    /// Decodes the elements from `start` on, as many as `out` holds.
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

    /// Encodes the elements from `start` on.
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

    /// Writes the same number everywhere.
    pub fn fill(&mut self, value: f64) {
        fn plain<T: StoredFloat>(x: &mut [T], value: f64) {
            x.fill(T::from_f64(value));
        }
        each_data_mut!(self, x => plain(x, value), s => {
            if value == 0.0 {
                return s.zero();
            }
            let wide = [value as f32; MAX_BLOCK];
            let stretch = chunk_len([s.block()]).unwrap_or(1);
            for start in (0..s.len()).step_by(stretch) {
                let len = (s.len() - start).min(stretch);
                s.store(start, wide.get(..len).unwrap_or_default());
            }
        });
    }

    /// Copies the numbers of another buffer, converting each. Does nothing if no
    /// stretch of [`MAX_BLOCK`] elements is a whole number of blocks of both.
    pub fn copy_from_mut(&mut self, from: &DataMut<'_>) {
        fn all<S: Plain>(to: &mut DataMut<'_>, from: &DataMut<'_>) {
            let mut buffer = [S::default(); MAX_BLOCK];
            let Some(stretch) = chunk_len([to.block(), from.block()]) else { return };
            for start in (0..to.len()).step_by(stretch) {
                let part = buffer.get_mut(..(to.len() - start).min(stretch)).unwrap_or_default();
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

/// A plain number type whose slices can be taken out of [`Data`] and [`DataMut`].
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
