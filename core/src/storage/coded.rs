//! Storages that own their memory, and their raw parts for checkpoints.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use half::{bf16, f16};

use crate::constants::{read_all, to_bytes};
use crate::error::Error;
use crate::memory::filled;
use crate::real::{Dtype, Number};
use crate::saved::{Reader, Writer};
use crate::storage::{
    Blocks, Codec, Companded, Data, DataMut, Dynamic, Fp8, Plain, Scaled4, Scaled8, Storage,
    blocks, blocks::code_bytes, kahan, split,
};

/// How the numbers of a tensor rest in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Plain numbers.
    Plain(Dtype),
    /// Groups of 32 in 8 bits: [`Companded`].
    Companded(Companded),
    /// Blocks of 256 in 8 bits: [`Dynamic`].
    Dynamic(Dynamic),
    /// Blocks in 8 bits: [`Scaled8`].
    Scaled8(Scaled8),
    /// Blocks in 4 bits: [`Scaled4`].
    Scaled4(Scaled4),
    /// Blocks in floating-point 8 bits: [`Fp8`].
    Fp8(Fp8),
    /// `bf16` or `f16` with 8 or 16 correction bits: [`crate::storage::Split`].
    Split(Dtype, u32),
    /// `bf16` or `f16` with a compensation of the same type: [`crate::storage::Kahan`].
    Kahan(Dtype),
}

/// What saved files call the format. It never changes.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |signed| if signed { "signed" } else { "unsigned" };
        match *self {
            Format::Plain(dtype) => f.write_str(dtype.id()),
            Format::Companded(Companded::Momentum) => f.write_str("companded:momentum"),
            Format::Companded(Companded::Variance) => f.write_str("companded:variance"),
            Format::Dynamic(Dynamic { signed, grid }) => {
                write!(f, "dynamic8:{}:{}", sign(signed), if grid { "cpu" } else { "nearest" })
            }
            Format::Scaled8(Scaled8 { signed, block }) => {
                write!(f, "scaled8:{}:{block}", sign(signed))
            }
            Format::Scaled4(Scaled4 { signed, block }) => {
                write!(f, "scaled4:{}:{block}", sign(signed))
            }
            Format::Fp8(Fp8 { block }) => write!(f, "fp8:{block}"),
            Format::Split(dtype, bits) => write!(f, "split:{}:{bits}", dtype.id()),
            Format::Kahan(dtype) => write!(f, "kahan:{}", dtype.id()),
        }
    }
}

impl From<Dtype> for Format {
    fn from(dtype: Dtype) -> Format {
        Format::Plain(dtype)
    }
}

/// The type of a raw part's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Element {
    F64,
    F32,
    Bf16,
    F16,
    I16,
    I8,
    U8,
    /// 4 exponent bits, 3 mantissa bits, no infinity.
    F8E4M3,
}

impl Element {
    /// Bytes an element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Element::F64 => 8,
            Element::F32 => 4,
            Element::Bf16 | Element::F16 | Element::I16 => 2,
            Element::I8 | Element::U8 | Element::F8E4M3 => 1,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Element {
        match dtype {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::Bf16 => Element::Bf16,
            Dtype::F16 => Element::F16,
        }
    }
}

/// A raw part of a buffer: numbers, codes, scales or correction bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The reference's key: the slot's own, or one made of it (`exp_avg::scales`).
    pub key: String,
    /// The type of the elements.
    pub element: Element,
    /// The elements, little-endian.
    pub bytes: Vec<u8>,
}

/// Raw elements, owned: plain numbers, codes or correction bits.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Raw {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    I16(Vec<i16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
}

/// Applies `$body` to the vector in a [`Raw`].
macro_rules! each_raw {
    ($raw:expr, $x:ident => $body:expr) => {
        match $raw {
            Raw::F32($x) => $body,
            Raw::Bf16($x) => $body,
            Raw::F16($x) => $body,
            Raw::I16($x) => $body,
            Raw::I8($x) => $body,
            Raw::U8($x) => $body,
        }
    };
}

impl Raw {
    /// Zeros; `f64` is not among the types that are kept.
    ///
    /// # Errors
    /// No memory for them.
    pub fn zeros(element: Element, len: usize) -> Result<Raw, Error> {
        const OF: &str = "codes";
        Ok(match element {
            Element::F64 | Element::F32 => Raw::F32(filled(OF, 0.0, len)?),
            Element::Bf16 => Raw::Bf16(filled(OF, bf16::ZERO, len)?),
            Element::F16 => Raw::F16(filled(OF, f16::ZERO, len)?),
            Element::I16 => Raw::I16(filled(OF, 0, len)?),
            Element::I8 => Raw::I8(filled(OF, 0, len)?),
            Element::U8 | Element::F8E4M3 => Raw::U8(filled(OF, 0, len)?),
        })
    }

    /// The elements, little-endian.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        each_raw!(self, x => to_bytes(x))
    }

    /// The type of the elements.
    #[must_use]
    pub fn element(&self) -> Element {
        match self {
            Raw::F32(_) => Element::F32,
            Raw::Bf16(_) => Element::Bf16,
            Raw::F16(_) => Element::F16,
            Raw::I16(_) => Element::I16,
            Raw::I8(_) => Element::I8,
            Raw::U8(_) => Element::U8,
        }
    }

    /// Puts elements back that [`Raw::bytes`] gave.
    ///
    /// # Errors
    /// Another number of bytes. Nothing is written then.
    pub fn set_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Error::length("part", bytes.len(), self.len() * self.element().size())?;
        each_raw!(self, x => read_all(bytes, x));
        Ok(())
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        each_raw!(self, x => x.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn data(&self) -> Option<Data<'_>> {
        match self {
            Raw::F32(x) => Some(Data::F32(x)),
            Raw::Bf16(x) => Some(Data::Bf16(x)),
            Raw::F16(x) => Some(Data::F16(x)),
            _ => None,
        }
    }

    pub(crate) fn data_mut(&mut self) -> Option<DataMut<'_>> {
        match self {
            Raw::F32(x) => Some(DataMut::F32(x)),
            Raw::Bf16(x) => Some(DataMut::Bf16(x)),
            Raw::F16(x) => Some(DataMut::F16(x)),
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

/// A tensor in a [`Format`] that is not plain, with memory of its own.
///
/// ```
/// use bitstep::storage::{Coded, Companded, Format, Storage};
/// let mut momentum = Coded::zeros(Format::Companded(Companded::Momentum), 40)?;
/// momentum.store(0, &[0.25; 40]);
/// let parts = momentum.parts("exp_avg");
/// assert_eq!(parts[0].key, "exp_avg::quantized");
/// assert_eq!((parts[0].bytes.len(), parts[1].bytes.len()), (40, 4)); // 40 codes, 2 scales
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Coded {
    format: Format,
    len: usize,
    main: Raw,
    side: Raw,
}

/// Binds `$c` to the codec of a block-wise format, `$main` to its codes and `$side` to its scales.
macro_rules! each_codec {
    ($format:expr, $c:ident => $body:expr, $other:expr) => {
        match $format {
            Format::Companded($c) => $body,
            Format::Dynamic($c) => $body,
            Format::Scaled8($c) => $body,
            Format::Scaled4($c) => $body,
            Format::Fp8($c) => $body,
            _ => $other,
        }
    };
}

pub(crate) use each_codec;

/// Binds `$a` and `$b` to the two vectors of an elementwise format.
macro_rules! each_pair {
    ($coded:expr, $a:ident, $b:ident => $split:expr, $kahan:expr) => {
        match $coded {
            (Raw::Bf16($a), Raw::I8($b)) => $split,
            (Raw::Bf16($a), Raw::I16($b)) => $split,
            (Raw::F16($a), Raw::I8($b)) => $split,
            (Raw::F16($a), Raw::I16($b)) => $split,
            (Raw::Bf16($a), Raw::Bf16($b)) => $kahan,
            (Raw::F16($a), Raw::F16($b)) => $kahan,
            _ => {}
        }
    };
}

pub(crate) use each_pair;

impl Format {
    /// The elements and lengths of the two parts of a tensor of `len` numbers: codes and scales, or numbers and
    /// corrections. `None` if it has but one, being plain, or if there is no such format.
    #[must_use]
    pub fn layout(self, len: usize) -> Option<[(Element, usize); 2]> {
        fn blocks<C: Codec>(c: C, code: Element, len: usize) -> Option<[(Element, usize); 2]> {
            let scales = len.div_ceil(c.block().max(1));
            Some([(code, code_bytes(C::BITS, len)), (C::Scale::DTYPE.into(), scales)])
        }
        let narrow = |d| matches!(d, Dtype::Bf16 | Dtype::F16);
        match self {
            Format::Plain(_) => None,
            Format::Companded(c @ Companded::Momentum) => blocks(c, Element::I8, len),
            Format::Companded(c @ Companded::Variance) => blocks(c, Element::U8, len),
            Format::Dynamic(c) => blocks(c, Element::U8, len),
            Format::Scaled8(c) => blocks(c, Element::U8, len),
            Format::Scaled4(c) => blocks(c, Element::U8, len),
            Format::Fp8(c) => blocks(c, Element::F8E4M3, len),
            Format::Split(d, 8) if narrow(d) => Some([(d.into(), len), (Element::I8, len)]),
            Format::Split(d, 16) if narrow(d) => Some([(d.into(), len), (Element::I16, len)]),
            Format::Kahan(d) if narrow(d) => Some([(d.into(), len), (d.into(), len)]),
            Format::Split(..) | Format::Kahan(_) => None,
        }
    }

    /// The keys of the parts, as the reference of the format makes them from the slot's.
    fn keys(self, slot: &str) -> [String; 2] {
        let key = |suffix: &str| alloc::format!("{slot}{suffix}");
        match self {
            Format::Plain(_) => [key(""), String::new()],
            Format::Companded(_) => [key("::quantized"), key("::scales")],
            // `state1` and `absmax1`.
            Format::Dynamic(_) => match slot.strip_prefix("state") {
                Some(number) => [key(""), alloc::format!("absmax{number}")],
                None => [key(""), key(".absmax")],
            },
            Format::Scaled8(_) | Format::Scaled4(_) | Format::Fp8(_) => {
                [key(".codes"), key(".scale")]
            }
            Format::Split(..) => [key(""), key(".error_bits")],
            Format::Kahan(_) => [key(""), key(".compensation")],
        }
    }

    /// A tensor of blocks in memory of the caller's, where the format is known at run time only.
    ///
    /// # Errors
    /// A format without codes and scales, or slices of another type or length than [`Format::layout`] says.
    ///
    /// ```
    /// use bitstep::storage::{Companded, DataMut, Format};
    /// let (mut codes, mut scales) = ([0; 40], [half::f16::ZERO; 2]);
    /// let mut scales = DataMut::F16(&mut scales);
    /// let mut momentum = Format::Companded(Companded::Momentum).view(40, &mut codes, &mut scales)?;
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
            let wanted = "numbers of the format's own type";
            let scales =
                C::Scale::of_mut(scales).ok_or(Error::Invalid { argument: "scales", wanted })?;
            Ok(Box::new(Blocks::new(codec, len, codes, scales)?))
        }
        let wanted = "a format of codes and scales";
        each_codec!(self, c => blocks(c, len, codes, scales),
            Err(Error::Invalid { argument: "format", wanted }))
    }

    /// Bytes that a tensor of `len` numbers takes; `usize::MAX` where that overflows.
    #[must_use]
    pub fn bytes(self, len: usize) -> usize {
        if let Format::Plain(dtype) = self {
            return len.saturating_mul(dtype.size());
        }
        let bytes = |(e, n): &(Element, usize)| e.size().saturating_mul(*n);
        self.layout(len).map_or(0, |[a, b]| bytes(&a).saturating_add(bytes(&b)))
    }
}

impl Coded {
    /// All codes and scales 0.
    ///
    /// # Errors
    /// A plain format, one that does not exist (correction bits of an `f32`), or no memory for it.
    pub fn zeros(format: Format, len: usize) -> Result<Coded, Error> {
        let Some([(a, n), (b, m)]) = format.layout(len) else {
            return Err(Error::Invalid { argument: "format", wanted: "a coded storage" });
        };
        // Codes are bytes, whatever their meaning.
        let a = each_codec!(format, _c => Element::U8, a);
        let coded = Coded { format, len, main: Raw::zeros(a, n)?, side: Raw::zeros(b, m)? };
        crate::storage::check_blocks([coded.block()].into_iter())?;
        Ok(coded)
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The raw parts, under the keys that the reference gives them in this slot.
    #[must_use]
    pub fn parts(&self, slot: &str) -> Vec<Part> {
        let [a, b] = self.format.keys(slot);
        let elements = self.format.layout(self.len).unwrap_or([(Element::U8, 0); 2]);
        [(a, &self.main), (b, &self.side)]
            .into_iter()
            .zip(elements)
            .map(|((key, raw), (element, _))| Part { key, element, bytes: raw.bytes() })
            .collect()
    }

    /// What [`Coded::parts`] are of, where it rests.
    #[must_use]
    pub fn raws(&self) -> [&Raw; 2] {
        [&self.main, &self.side]
    }

    /// The same, to [put back](Raw::set_bytes).
    pub fn raws_mut(&mut self) -> [&mut Raw; 2] {
        [&mut self.main, &mut self.side]
    }

    /// Format, codes or numbers, and what belongs to these.
    pub(crate) fn raw_mut(&mut self) -> (Format, &mut Raw, &mut Raw) {
        (self.format, &mut self.main, &mut self.side)
    }

    /// Puts a raw part back.
    ///
    /// # Errors
    /// No part of that key, another type, or another number of bytes. Nothing is written then.
    pub fn set_part(&mut self, slot: &str, part: &Part) -> Result<(), Error> {
        let keys = self.format.keys(slot);
        let elements = self.format.layout(self.len).unwrap_or([(Element::U8, 0); 2]);
        let at = keys.iter().position(|k| *k == part.key);
        let (Some(at), raw) = (at, if at == Some(0) { &mut self.main } else { &mut self.side })
        else {
            return Err(Error::Invalid { argument: "part", wanted: "a key of this storage" });
        };
        let element = elements.get(at).map_or(Element::U8, |e| e.0);
        if element != part.element {
            return Err(Error::Invalid { argument: "part", wanted: "elements of its own type" });
        }
        raw.set_bytes(&part.bytes)
    }
}

impl Storage for Coded {
    fn len(&self) -> usize {
        self.len
    }

    fn block(&self) -> usize {
        each_codec!(self.format, c => c.block(), 1)
    }

    fn load(&self, start: usize, values: &mut [f32]) {
        fn block<C: Codec>(c: C, codes: &Raw, scales: &Raw, start: usize, values: &mut [f32]) {
            if let (Raw::U8(codes), Some(scales)) = (codes, scales.data())
                && let Some(scales) = C::Scale::of(&scales)
            {
                blocks::load(c, codes, scales, start, values);
            }
        }
        each_codec!(self.format, c => block(c, &self.main, &self.side, start, values), {
            each_pair!((&self.main, &self.side), a, b =>
                split::load(a, b, start, values), kahan::load(a, b, start, values))
        });
    }

    fn store(&mut self, start: usize, values: &[f32]) {
        fn block<C: Codec>(c: C, codes: &mut Raw, scales: &mut Raw, start: usize, values: &[f32]) {
            if let (Raw::U8(codes), Some(mut scales)) = (codes, scales.data_mut())
                && let Some(scales) = C::Scale::of_mut(&mut scales)
            {
                blocks::store(c, codes, scales, start, values);
            }
        }
        each_codec!(self.format, c => block(c, &mut self.main, &mut self.side, start, values), {
            each_pair!((&mut self.main, &mut self.side), a, b =>
                split::store(a, b, start, values), kahan::store(a, b, start, values))
        });
    }

    fn zero(&mut self) {
        self.main.zero();
        self.side.zero();
    }
}
