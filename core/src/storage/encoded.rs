//! Encoded tensors that own their memory, the names of storage formats, and the raw parts for checkpoints.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use half::{bf16, f16};

use crate::error::{Error, ensure_len};
use crate::float::bytes::{read_all, to_bytes, write_all};
use crate::float::{Dtype, StoredFloat};
use crate::state::saved::{Reader, Writer};
use crate::storage::memory::{collected, filled};
use crate::storage::{
    BlockFp8, BlockQuant4, BlockQuant8, BlockQuantized, Codec, Companded, Data, DataMut,
    DynamicQuant8, MAX_BLOCK, Plain, Storage, block_quantized, block_quantized::code_bytes, kahan,
    split,
};

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageFormat {
    /// Plain floats.
    Plain(Dtype),
    /// Groups of 32 in 8-bit codes: [`Companded`].
    Companded(Companded),
    /// Blocks of 256 in 8-bit codes: [`DynamicQuant8`].
    DynamicQuant8(DynamicQuant8),
    /// Blocks in 8-bit codes: [`BlockQuant8`].
    BlockQuant8(BlockQuant8),
    /// Blocks in 4-bit codes: [`BlockQuant4`].
    BlockQuant4(BlockQuant4),
    /// Blocks in 8-bit floats: [`BlockFp8`].
    BlockFp8(BlockFp8),
    /// `bf16` or `f16` with 8 or 16 correction bits: [`crate::storage::SplitFloat`].
    SplitFloat(Dtype, u32),
    /// `bf16` or `f16` with a compensation of the same type: [`crate::storage::KahanPair`].
    KahanPair(Dtype),
}

/// The name of the format in saved files. It never changes.
impl fmt::Display for StorageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |signed| if signed { "signed" } else { "unsigned" };
        match *self {
            StorageFormat::Plain(dtype) => f.write_str(dtype.id()),
            StorageFormat::Companded(Companded::Momentum) => f.write_str("companded:momentum"),
            StorageFormat::Companded(Companded::Variance) => f.write_str("companded:variance"),
            StorageFormat::DynamicQuant8(DynamicQuant8 { signed, cpu_grid: grid }) => {
                write!(f, "dynamic8:{}:{}", sign(signed), if grid { "cpu" } else { "nearest" })
            }
            StorageFormat::BlockQuant8(BlockQuant8 { signed, block }) => {
                write!(f, "scaled8:{}:{block}", sign(signed))
            }
            StorageFormat::BlockQuant4(BlockQuant4 { signed, block }) => {
                write!(f, "scaled4:{}:{block}", sign(signed))
            }
            StorageFormat::BlockFp8(BlockFp8 { block }) => write!(f, "fp8:{block}"),
            StorageFormat::SplitFloat(dtype, bits) => write!(f, "split:{}:{bits}", dtype.id()),
            StorageFormat::KahanPair(dtype) => write!(f, "kahan:{}", dtype.id()),
        }
    }
}

/// The inverse of its `Display`.
impl FromStr for StorageFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<StorageFormat, Error> {
        let expected =
            "a format as in saved files: `f32`, `companded:momentum`, `scaled8:signed:256`";
        let none = Error::InvalidArgument { argument: "storage", expected };
        let mut words = text.split(':');
        let all = [words.next(), words.next(), words.next(), words.next()];
        let dtype = |word: Option<&str>| {
            [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16]
                .into_iter()
                .find(|d| Some(d.id()) == word)
        };
        let sign = |word: &str| match word {
            "signed" => Some(true),
            "unsigned" => Some(false),
            _ => None,
        };
        let block = |word: &str| word.parse().ok().filter(|block| (1..=MAX_BLOCK).contains(block));
        let format = match all {
            [word, None, ..] => dtype(word).map(StorageFormat::Plain),
            [Some("companded"), Some("momentum"), None, _] => {
                Some(StorageFormat::Companded(Companded::Momentum))
            }
            [Some("companded"), Some("variance"), None, _] => {
                Some(StorageFormat::Companded(Companded::Variance))
            }
            [Some("dynamic8"), Some(signed), Some(grid @ ("cpu" | "nearest")), None] => {
                sign(signed)
                    .map(|signed| DynamicQuant8 { signed, cpu_grid: grid == "cpu" })
                    .map(StorageFormat::DynamicQuant8)
            }
            [Some("scaled8"), Some(signed), Some(len), None] => sign(signed)
                .zip(block(len))
                .map(|(signed, block)| StorageFormat::BlockQuant8(BlockQuant8 { signed, block })),
            [Some("scaled4"), Some(signed), Some(len), None] => sign(signed)
                .zip(block(len).filter(|block| block.is_multiple_of(2)))
                .map(|(signed, block)| StorageFormat::BlockQuant4(BlockQuant4 { signed, block })),
            [Some("fp8"), Some(len), None, _] => {
                block(len).map(|block| StorageFormat::BlockFp8(BlockFp8 { block }))
            }
            [Some("split"), narrow, Some(bits @ ("8" | "16")), None] => dtype(narrow)
                .map(|dtype| StorageFormat::SplitFloat(dtype, if bits == "8" { 8 } else { 16 })),
            [Some("kahan"), narrow, None, _] => dtype(narrow).map(StorageFormat::KahanPair),
            _ => None,
        };
        // A correction of an `f32` does not exist.
        format
            .filter(|format| {
                matches!(format, StorageFormat::Plain(_)) || format.layout(1).is_some()
            })
            .ok_or(none)
    }
}

impl From<Dtype> for StorageFormat {
    fn from(dtype: Dtype) -> StorageFormat {
        StorageFormat::Plain(dtype)
    }
}

/// The type of a raw part's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RawDtype {
    F64,
    F32,
    Bf16,
    F16,
    I16,
    I8,
    U8,
    /// 8-bit float: 4 exponent bits, 3 mantissa bits, no infinity.
    F8E4M3,
}

impl RawDtype {
    /// Bytes per element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            RawDtype::F64 => 8,
            RawDtype::F32 => 4,
            RawDtype::Bf16 | RawDtype::F16 | RawDtype::I16 => 2,
            RawDtype::I8 | RawDtype::U8 | RawDtype::F8E4M3 => 1,
        }
    }
}

impl From<Dtype> for RawDtype {
    fn from(dtype: Dtype) -> RawDtype {
        match dtype {
            Dtype::F64 => RawDtype::F64,
            Dtype::F32 => RawDtype::F32,
            Dtype::Bf16 => RawDtype::Bf16,
            Dtype::F16 => RawDtype::F16,
        }
    }
}

/// One raw part of an encoded tensor: codes, scales, 16-bit values or corrections.
#[derive(Clone, Debug, PartialEq)]
pub struct RawPart {
    /// The reference's key: that of the slot, or one derived from it (`exp_avg::scales`).
    pub key: String,
    /// The type of the elements.
    pub element: RawDtype,
    /// The elements as little-endian bytes.
    pub bytes: Vec<u8>,
}

/// Owned raw elements: codes, scales, 16-bit values or corrections.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum RawBuffer {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    I16(Vec<i16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
}

/// Applies `$body` to the vector in a [`RawBuffer`].
macro_rules! each_raw {
    ($raw:expr, $x:ident => $body:expr) => {
        match $raw {
            RawBuffer::F32($x) => $body,
            RawBuffer::Bf16($x) => $body,
            RawBuffer::F16($x) => $body,
            RawBuffer::I16($x) => $body,
            RawBuffer::I8($x) => $body,
            RawBuffer::U8($x) => $body,
        }
    };
}

impl RawBuffer {
    /// `len` zeros; of type `f32` for [`RawDtype::F64`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn zeros(element: RawDtype, len: usize) -> Result<RawBuffer, Error> {
        const OF: &str = "codes";
        Ok(match element {
            RawDtype::F64 | RawDtype::F32 => RawBuffer::F32(filled(OF, 0.0, len)?),
            RawDtype::Bf16 => RawBuffer::Bf16(filled(OF, bf16::ZERO, len)?),
            RawDtype::F16 => RawBuffer::F16(filled(OF, f16::ZERO, len)?),
            RawDtype::I16 => RawBuffer::I16(filled(OF, 0, len)?),
            RawDtype::I8 => RawBuffer::I8(filled(OF, 0, len)?),
            RawDtype::U8 | RawDtype::F8E4M3 => RawBuffer::U8(filled(OF, 0, len)?),
        })
    }

    /// The elements as little-endian bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        each_raw!(self, x => to_bytes(x))
    }

    /// The type of the elements.
    #[must_use]
    pub fn element(&self) -> RawDtype {
        match self {
            RawBuffer::F32(_) => RawDtype::F32,
            RawBuffer::Bf16(_) => RawDtype::Bf16,
            RawBuffer::F16(_) => RawDtype::F16,
            RawBuffer::I16(_) => RawDtype::I16,
            RawBuffer::I8(_) => RawDtype::I8,
            RawBuffer::U8(_) => RawDtype::U8,
        }
    }

    /// [`RawBuffer::bytes`] into the caller's memory.
    ///
    /// # Errors
    /// Another number of bytes. Nothing is written then.
    pub fn write_bytes(&self, to: &mut [u8]) -> Result<(), Error> {
        ensure_len("part", to.len(), self.len() * self.element().size())?;
        each_raw!(self, x => write_all(x, to));
        Ok(())
    }

    /// A copy.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_clone(&self) -> Result<RawBuffer, Error> {
        const OF: &str = "codes";
        Ok(match self {
            RawBuffer::F32(x) => RawBuffer::F32(collected(OF, x.iter().copied())?),
            RawBuffer::Bf16(x) => RawBuffer::Bf16(collected(OF, x.iter().copied())?),
            RawBuffer::F16(x) => RawBuffer::F16(collected(OF, x.iter().copied())?),
            RawBuffer::I16(x) => RawBuffer::I16(collected(OF, x.iter().copied())?),
            RawBuffer::I8(x) => RawBuffer::I8(collected(OF, x.iter().copied())?),
            RawBuffer::U8(x) => RawBuffer::U8(collected(OF, x.iter().copied())?),
        })
    }

    /// Overwrites the elements from [`RawBuffer::bytes`].
    ///
    /// # Errors
    /// Another number of bytes. Nothing is written then.
    pub fn set_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        ensure_len("part", bytes.len(), self.len() * self.element().size())?;
        each_raw!(self, x => read_all(bytes, x));
        Ok(())
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        each_raw!(self, x => x.len())
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn data(&self) -> Option<Data<'_>> {
        match self {
            RawBuffer::F32(x) => Some(Data::F32(x)),
            RawBuffer::Bf16(x) => Some(Data::Bf16(x)),
            RawBuffer::F16(x) => Some(Data::F16(x)),
            _ => None,
        }
    }

    pub(crate) fn data_mut(&mut self) -> Option<DataMut<'_>> {
        match self {
            RawBuffer::F32(x) => Some(DataMut::F32(x)),
            RawBuffer::Bf16(x) => Some(DataMut::Bf16(x)),
            RawBuffer::F16(x) => Some(DataMut::F16(x)),
            _ => None,
        }
    }

    pub(crate) fn save(&self, to: &mut Writer<'_, '_>) {
        each_raw!(self, x => to.list(x));
    }

    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Result<(), Error> {
        each_raw!(self, x => from.list(x))
    }

    fn zero(&mut self) {
        each_raw!(self, x => x.fill(Default::default()));
    }
}

/// A tensor in a [`StorageFormat`] that is not plain, in memory of its own.
///
/// ```
/// use bitstep::storage::{EncodedBuffer, Companded, StorageFormat, Storage};
/// let mut momentum = EncodedBuffer::zeros(StorageFormat::Companded(Companded::Momentum), 40)?;
/// momentum.store(0, &[0.25; 40]);
/// let parts = momentum.parts("exp_avg");
/// assert_eq!(parts[0].key, "exp_avg::quantized");
/// assert_eq!((parts[0].bytes.len(), parts[1].bytes.len()), (40, 4)); // 40 codes, 2 scales
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedBuffer {
    format: StorageFormat,
    len: usize,
    values_or_codes: RawBuffer,
    scales_or_corrections: RawBuffer,
}

/// Evaluates `$body` with `$c` bound to the codec of a block-wise format; `$other` for any other format.
macro_rules! each_codec {
    ($format:expr, $c:ident => $body:expr, $other:expr) => {
        match $format {
            StorageFormat::Companded($c) => $body,
            StorageFormat::DynamicQuant8($c) => $body,
            StorageFormat::BlockQuant8($c) => $body,
            StorageFormat::BlockQuant4($c) => $body,
            StorageFormat::BlockFp8($c) => $body,
            _ => $other,
        }
    };
}

pub(crate) use each_codec;

/// Binds `$a` and `$b` to the two vectors of an elementwise format.
macro_rules! each_pair {
    ($encoded:expr, $a:ident, $b:ident => $split:expr, $kahan:expr) => {
        match $encoded {
            (RawBuffer::Bf16($a), RawBuffer::I8($b)) => $split,
            (RawBuffer::Bf16($a), RawBuffer::I16($b)) => $split,
            (RawBuffer::F16($a), RawBuffer::I8($b)) => $split,
            (RawBuffer::F16($a), RawBuffer::I16($b)) => $split,
            (RawBuffer::Bf16($a), RawBuffer::Bf16($b)) => $kahan,
            (RawBuffer::F16($a), RawBuffer::F16($b)) => $kahan,
            _ => {}
        }
    };
}

pub(crate) use each_pair;

impl StorageFormat {
    /// The number of elements that are encoded together; 1 for a format without blocks.
    pub(crate) fn block(self) -> usize {
        each_codec!(self, c => c.block(), 1)
    }

    /// The element types and lengths of the two parts of a tensor of `len` elements: codes and scales, or 16-bit values
    /// and corrections. `None` if the format is plain, with a single part, or does not exist (a correction for `f32`).
    #[must_use]
    pub fn layout(self, len: usize) -> Option<[(RawDtype, usize); 2]> {
        fn blocks<C: Codec>(c: C, code: RawDtype, len: usize) -> Option<[(RawDtype, usize); 2]> {
            let scales = len.div_ceil(c.block().max(1));
            Some([(code, code_bytes(C::BITS, len)), (C::Scale::DTYPE.into(), scales)])
        }
        let narrow = |d| matches!(d, Dtype::Bf16 | Dtype::F16);
        match self {
            StorageFormat::Plain(_) => None,
            StorageFormat::Companded(c @ Companded::Momentum) => blocks(c, RawDtype::I8, len),
            StorageFormat::Companded(c @ Companded::Variance) => blocks(c, RawDtype::U8, len),
            StorageFormat::DynamicQuant8(c) => blocks(c, RawDtype::U8, len),
            StorageFormat::BlockQuant8(c) => blocks(c, RawDtype::U8, len),
            StorageFormat::BlockQuant4(c) => blocks(c, RawDtype::U8, len),
            StorageFormat::BlockFp8(c) => blocks(c, RawDtype::F8E4M3, len),
            StorageFormat::SplitFloat(d, 8) if narrow(d) => {
                Some([(d.into(), len), (RawDtype::I8, len)])
            }
            StorageFormat::SplitFloat(d, 16) if narrow(d) => {
                Some([(d.into(), len), (RawDtype::I16, len)])
            }
            StorageFormat::KahanPair(d) if narrow(d) => Some([(d.into(), len), (d.into(), len)]),
            StorageFormat::SplitFloat(..) | StorageFormat::KahanPair(_) => None,
        }
    }

    /// The keys of the parts, derived from the slot's as in the reference of the format. The second is empty for plain
    /// values.
    #[must_use]
    pub fn keys(self, slot: &str) -> [String; 2] {
        let key = |suffix: &str| alloc::format!("{slot}{suffix}");
        match self {
            StorageFormat::Plain(_) => [key(""), String::new()],
            StorageFormat::Companded(_) => [key("::quantized"), key("::scales")],
            // `state1` and `absmax1`.
            StorageFormat::DynamicQuant8(_) => match slot.strip_prefix("state") {
                Some(number) => [key(""), alloc::format!("absmax{number}")],
                None => [key(""), key(".absmax")],
            },
            StorageFormat::BlockQuant8(_)
            | StorageFormat::BlockQuant4(_)
            | StorageFormat::BlockFp8(_) => [key(".codes"), key(".scale")],
            StorageFormat::SplitFloat(..) => [key(""), key(".error_bits")],
            StorageFormat::KahanPair(_) => [key(""), key(".compensation")],
        }
    }

    /// A block-wise tensor in the caller's memory, for a format that is known at run time only.
    ///
    /// # Errors
    /// A format without codes and scales, or slices whose type or length is not that of [`StorageFormat::layout`].
    ///
    /// ```
    /// use bitstep::storage::{Companded, DataMut, StorageFormat};
    /// let (mut codes, mut scales) = ([0; 40], [half::f16::ZERO; 2]);
    /// let mut scales = DataMut::F16(&mut scales);
    /// let mut momentum = StorageFormat::Companded(Companded::Momentum).view(40, &mut codes, &mut scales)?;
    /// momentum.store(0, &[0.25; 40]);
    /// let mut back = [0.0; 40];
    /// momentum.load(0, &mut back);
    /// assert_eq!(back, [0.25; 40]);
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    pub fn view<'a>(
        self,
        len: usize,
        codes: &'a mut [u8],
        scales: &'a mut DataMut<'_>,
    ) -> Result<Box<dyn Storage + 'a>, Error> {
        fn blocks<'a, C: Codec + 'static>(
            codec: C,
            len: usize,
            codes: &'a mut [u8],
            scales: &'a mut DataMut<'_>,
        ) -> Result<Box<dyn Storage + 'a>, Error> {
            let expected = "numbers of the format's own type";
            let scales = C::Scale::of_mut(scales)
                .ok_or(Error::InvalidArgument { argument: "scales", expected })?;
            Ok(Box::new(BlockQuantized::new(codec, len, codes, scales)?))
        }
        let expected = "a format of codes and scales";
        each_codec!(self, c => blocks(c, len, codes, scales),
            Err(Error::InvalidArgument { argument: "format", expected }))
    }

    /// The bytes of a tensor of `len` elements; `usize::MAX` if that overflows.
    #[must_use]
    pub fn bytes(self, len: usize) -> usize {
        if let StorageFormat::Plain(dtype) = self {
            return len.saturating_mul(dtype.size());
        }
        let bytes = |(e, n): &(RawDtype, usize)| e.size().saturating_mul(*n);
        self.layout(len).map_or(0, |[a, b]| bytes(&a).saturating_add(bytes(&b)))
    }
}

impl EncodedBuffer {
    /// A tensor with all codes and scales 0.
    ///
    /// # Errors
    /// A plain format, one that does not exist (correction bits of an `f32`), blocks of an unsupported size, or
    /// [`Error::OutOfMemory`].
    pub fn zeros(format: StorageFormat, len: usize) -> Result<EncodedBuffer, Error> {
        let Some([(a, n), (b, m)]) = format.layout(len) else {
            return Err(Error::InvalidArgument {
                argument: "format",
                expected: "an encoded format",
            });
        };
        // All codes are kept as bytes, whatever the type of the part in a checkpoint.
        let a = each_codec!(format, _c => RawDtype::U8, a);
        let buffer = EncodedBuffer {
            format,
            len,
            values_or_codes: RawBuffer::zeros(a, n)?,
            scales_or_corrections: RawBuffer::zeros(b, m)?,
        };
        crate::storage::check_blocks([buffer.block()].into_iter())?;
        Ok(buffer)
    }

    /// A copy.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_clone(&self) -> Result<EncodedBuffer, Error> {
        let [values_or_codes, scales_or_corrections] = self.raws();
        Ok(EncodedBuffer {
            values_or_codes: values_or_codes.try_clone()?,
            scales_or_corrections: scales_or_corrections.try_clone()?,
            ..*self
        })
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> StorageFormat {
        self.format
    }

    /// Copies of the raw parts, under the keys that the reference gives them in this slot.
    #[must_use]
    pub fn parts(&self, slot: &str) -> Vec<RawPart> {
        let [a, b] = self.format.keys(slot);
        let elements = self.format.layout(self.len).unwrap_or([(RawDtype::U8, 0); 2]);
        [(a, &self.values_or_codes), (b, &self.scales_or_corrections)]
            .into_iter()
            .zip(elements)
            .map(|((key, raw), (element, _))| RawPart { key, element, bytes: raw.bytes() })
            .collect()
    }

    /// The memory of the two [parts](EncodedBuffer::parts).
    #[must_use]
    pub fn raws(&self) -> [&RawBuffer; 2] {
        [&self.values_or_codes, &self.scales_or_corrections]
    }

    /// The memory of the two parts, to [overwrite](RawBuffer::set_bytes).
    pub fn raws_mut(&mut self) -> [&mut RawBuffer; 2] {
        [&mut self.values_or_codes, &mut self.scales_or_corrections]
    }

    /// The format; codes or 16-bit values; scales or corrections.
    pub(crate) fn format_and_parts_mut(
        &mut self,
    ) -> (StorageFormat, &mut RawBuffer, &mut RawBuffer) {
        (self.format, &mut self.values_or_codes, &mut self.scales_or_corrections)
    }

    /// Overwrites a raw part.
    ///
    /// # Errors
    /// An unknown key, another type, or another number of bytes. Nothing is written then.
    pub fn set_part(&mut self, slot: &str, part: &RawPart) -> Result<(), Error> {
        let keys = self.format.keys(slot);
        let elements = self.format.layout(self.len).unwrap_or([(RawDtype::U8, 0); 2]);
        let at = keys.iter().position(|k| *k == part.key);
        let (Some(at), raw) = (
            at,
            if at == Some(0) { &mut self.values_or_codes } else { &mut self.scales_or_corrections },
        ) else {
            return Err(Error::InvalidArgument {
                argument: "part",
                expected: "a key of this storage",
            });
        };
        let element = elements.get(at).map_or(RawDtype::U8, |e| e.0);
        if element != part.element {
            return Err(Error::InvalidArgument {
                argument: "part",
                expected: "elements of its own type",
            });
        }
        raw.set_bytes(&part.bytes)
    }
}

impl Storage for EncodedBuffer {
    fn len(&self) -> usize {
        self.len
    }

    fn block(&self) -> usize {
        self.format.block()
    }

    fn load(&self, start: usize, values: &mut [f32]) {
        fn block<C: Codec>(
            c: C,
            codes: &RawBuffer,
            scales: &RawBuffer,
            start: usize,
            values: &mut [f32],
        ) {
            if let (RawBuffer::U8(codes), Some(scales)) = (codes, scales.data())
                && let Some(scales) = C::Scale::of(&scales)
            {
                block_quantized::load(c, codes, scales, start, values);
            }
        }
        each_codec!(self.format, c => block(c, &self.values_or_codes, &self.scales_or_corrections, start, values), {
            each_pair!((&self.values_or_codes, &self.scales_or_corrections), a, b =>
                split::load(a, b, start, values), kahan::load(a, b, start, values))
        });
    }

    fn store(&mut self, start: usize, values: &[f32]) {
        fn block<C: Codec>(
            c: C,
            codes: &mut RawBuffer,
            scales: &mut RawBuffer,
            start: usize,
            values: &[f32],
        ) {
            if let (RawBuffer::U8(codes), Some(mut scales)) = (codes, scales.data_mut())
                && let Some(scales) = C::Scale::of_mut(&mut scales)
            {
                block_quantized::store(c, codes, scales, start, values);
            }
        }
        each_codec!(self.format, c => block(c, &mut self.values_or_codes, &mut self.scales_or_corrections, start, values), {
            each_pair!((&mut self.values_or_codes, &mut self.scales_or_corrections), a, b =>
                split::store(a, b, start, values), kahan::store(a, b, start, values))
        });
    }

    fn zero(&mut self) {
        self.values_or_codes.zero();
        self.scales_or_corrections.zero();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn name_of_a_format_leads_back_to_it() {
        let formats = [
            StorageFormat::Plain(Dtype::F16),
            StorageFormat::Companded(Companded::Momentum),
            StorageFormat::Companded(Companded::Variance),
            StorageFormat::DynamicQuant8(DynamicQuant8 { signed: true, cpu_grid: false }),
            StorageFormat::DynamicQuant8(DynamicQuant8 { signed: false, cpu_grid: true }),
            StorageFormat::BlockQuant8(BlockQuant8 { signed: true, block: 256 }),
            StorageFormat::BlockQuant4(BlockQuant4 { signed: false, block: 128 }),
            StorageFormat::BlockFp8(BlockFp8 { block: 2048 }),
            StorageFormat::SplitFloat(Dtype::Bf16, 16),
            StorageFormat::KahanPair(Dtype::F16),
        ];
        for format in formats {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
    }

    #[test]
    fn what_names_no_format_is_refused() {
        for text in [
            "",
            "f8",
            "f32:8",
            "companded",
            "companded:momentum:8",
            "dynamic8:signed",
            "scaled8:signed:0",
            "scaled8:signed:2049",
            "scaled4:signed:7",
            "fp8:-1",
            "split:f32:8",
            "split:bf16:9",
            "kahan:f64",
        ] {
            assert!(text.parse::<StorageFormat>().is_err(), "{text}");
        }
    }

    #[test]
    fn copy_has_the_values_and_bytes_of_the_original() {
        let format = StorageFormat::Companded(Companded::Variance);
        let mut original = EncodedBuffer::zeros(format, 40).unwrap();
        original.store(0, &[0.25; 32]);
        let copy = original.try_clone().unwrap();
        assert_eq!(copy, original);
        for (raw, other) in original.raws().iter().zip(copy.raws()) {
            let mut bytes = raw.bytes();
            assert!(raw.write_bytes(&mut bytes[1..]).is_err());
            bytes.fill(0xee);
            raw.write_bytes(&mut bytes).unwrap();
            assert_eq!(bytes, other.bytes());
        }
    }
}
