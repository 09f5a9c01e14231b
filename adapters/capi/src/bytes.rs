//! State as bytes: little-endian numbers, lists with their length in front.

use alloc::format;
use bitstep::optimizer::Buffer;
use bitstep::storage::Raw;

use crate::error::{BITSTEP_LENGTH, BITSTEP_STATE, Fault, fault};
use crate::tensor::slice_mut;

/// Where state is written to, a few bytes at a time.
pub(crate) struct Writer<'a>(&'a mut dyn FnMut(&[u8]));

/// The version of saved state that is written.
const VERSION: u64 = 3;

impl Writer<'_> {
    /// What it is the state of, and the version.
    pub(crate) fn beginning(&mut self, magic: &[u8; 7]) {
        (self.0)(magic);
        (self.0)(&[0]);
        self.number(VERSION);
    }

    pub(crate) fn number(&mut self, x: u64) {
        (self.0)(&x.to_le_bytes());
    }

    pub(crate) fn floats(&mut self, all: &[f64]) {
        all.iter().for_each(|x| self.number(x.to_bits()));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        (self.0)(bytes);
    }

    fn list<T: Copy, const N: usize>(&mut self, list: &[T], of: fn(T) -> [u8; N]) {
        self.number((list.len() * N) as u64);
        let mut bytes = [[0; N]; 64];
        for few in list.chunks(64) {
            bytes.iter_mut().zip(few).for_each(|(to, &x)| *to = of(x));
            (self.0)(bytes.get(..few.len()).unwrap_or_default().as_flattened());
        }
    }

    pub(crate) fn raw(&mut self, raw: &Raw) {
        match raw {
            Raw::F32(x) => self.list(x, f32::to_le_bytes),
            Raw::Bf16(x) => self.list(x, |x| x.to_le_bytes()),
            Raw::F16(x) => self.list(x, |x| x.to_le_bytes()),
            Raw::I16(x) => self.list(x, i16::to_le_bytes),
            Raw::I8(x) => self.list(x, i8::to_le_bytes),
            Raw::U8(x) => self.bytes(x),
        }
    }

    /// A slot: one list if its numbers are plain, else two.
    pub(crate) fn buffer(&mut self, buffer: &Buffer) {
        match buffer {
            Buffer::F64(x) => self.list(x, f64::to_le_bytes),
            Buffer::F32(x) => self.list(x, f32::to_le_bytes),
            Buffer::Bf16(x) => self.list(x, |x| x.to_le_bytes()),
            Buffer::F16(x) => self.list(x, |x| x.to_le_bytes()),
            Buffer::Coded(coded) => coded.raws().into_iter().for_each(|raw| self.raw(raw)),
        }
    }
}

/// How many bytes `save` writes.
pub(crate) fn size(save: impl Fn(&mut Writer<'_>)) -> usize {
    let mut size = 0;
    save(&mut Writer(&mut |bytes| size += bytes.len()));
    size
}

/// Has `save` write to the caller's memory, which must have just the size for it.
///
/// # Safety
/// There are `size` bytes at `memory`, noted in places that were checked.
pub(crate) unsafe fn copy_out(
    save: impl Fn(&mut Writer<'_>),
    memory: *mut u8,
    size: usize,
) -> Result<(), Fault> {
    let wanted = self::size(&save);
    if size != wanted {
        return fault(BITSTEP_LENGTH, format!("memory has {size} bytes, {wanted} are needed"));
    }
    // SAFETY: the caller's promise.
    let mut rest = unsafe { slice_mut(memory, size) };
    save(&mut Writer(&mut |bytes| {
        if let Some((to, later)) = core::mem::take(&mut rest).split_at_mut_checked(bytes.len()) {
            to.copy_from_slice(bytes);
            rest = later;
        }
    }));
    Ok(())
}

/// Reads state again. What is read is only compared until everything is known to fit.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
    /// Whether anything is put in its place.
    pub(crate) puts: bool,
}

const SHORT: &str = "saved state: ends too soon";

impl<'a> Reader<'a> {
    pub(crate) fn new(rest: &'a [u8], puts: bool) -> Self {
        Reader { rest, puts }
    }

    pub(crate) fn number(&mut self) -> Result<u64, Fault> {
        let Some((head, rest)) = self.rest.split_first_chunk() else {
            return fault(BITSTEP_STATE, SHORT);
        };
        self.rest = rest;
        Ok(u64::from_le_bytes(*head))
    }

    /// A number that means yes or no.
    pub(crate) fn truth(&mut self, what: &str) -> Result<bool, Fault> {
        match self.number()? {
            0 => Ok(false),
            1 => Ok(true),
            n => fault(BITSTEP_STATE, format!("saved state: {what} is {n}, neither 0 nor 1")),
        }
    }

    pub(crate) fn floats<const N: usize>(&mut self) -> Result<[f64; N], Fault> {
        let mut all = [0.0; N];
        for x in &mut all {
            *x = f64::from_bits(self.number()?);
        }
        Ok(all)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return fault(BITSTEP_STATE, SHORT);
        };
        self.rest = rest;
        Ok(head)
    }

    /// Refuses state of anything else, or of a version that is not known.
    pub(crate) fn beginning(&mut self, magic: &[u8; 7]) -> Result<(), Fault> {
        let begin = self.number()?.to_le_bytes();
        let version = match begin.strip_prefix(magic) {
            // Version 2 ends here; what follows is that of 3.
            Some(b"2") => return Ok(()),
            Some([0]) => self.number()?,
            _ => return fault(BITSTEP_STATE, "saved state: it does not begin as such state does"),
        };
        match version {
            VERSION => Ok(()),
            other => {
                let message = format!("saved state: of version {other}, known are 2 and {VERSION}");
                fault(BITSTEP_STATE, message)
            }
        }
    }

    /// Refuses a number other than the one that belongs here.
    pub(crate) fn expect(&mut self, what: &str, wanted: u64) -> Result<(), Fault> {
        let got = self.number()?;
        if got == wanted {
            return Ok(());
        }
        fault(BITSTEP_STATE, format!("saved state: {what} is {got}, here it is {wanted}"))
    }

    /// Refuses what goes on after the end.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        match self.rest.len() {
            0 => Ok(()),
            n => fault(BITSTEP_STATE, format!("saved state: goes on for {n} bytes after its end")),
        }
    }

    fn list<T, const N: usize>(&mut self, to: &mut [T], of: fn([u8; N]) -> T) -> Result<(), Fault> {
        let bytes = self.bytes()?;
        let (chunks, over) = bytes.as_chunks();
        if chunks.len() != to.len() || !over.is_empty() {
            return fault(BITSTEP_STATE, "saved state: a slot of another size");
        }
        if self.puts {
            to.iter_mut().zip(chunks).for_each(|(t, b)| *t = of(*b));
        }
        Ok(())
    }

    pub(crate) fn raw(&mut self, raw: &mut Raw) -> Result<(), Fault> {
        match raw {
            Raw::F32(x) => self.list(x, f32::from_le_bytes),
            Raw::Bf16(x) => self.list(x, half::bf16::from_le_bytes),
            Raw::F16(x) => self.list(x, half::f16::from_le_bytes),
            Raw::I16(x) => self.list(x, i16::from_le_bytes),
            Raw::I8(x) => self.list(x, i8::from_le_bytes),
            Raw::U8(x) => self.list(x, u8::from_le_bytes),
        }
    }

    pub(crate) fn buffer(&mut self, buffer: &mut Buffer) -> Result<(), Fault> {
        match buffer {
            Buffer::F64(x) => self.list(x, f64::from_le_bytes),
            Buffer::F32(x) => self.list(x, f32::from_le_bytes),
            Buffer::Bf16(x) => self.list(x, half::bf16::from_le_bytes),
            Buffer::F16(x) => self.list(x, half::f16::from_le_bytes),
            Buffer::Coded(coded) => coded.raws_mut().into_iter().try_for_each(|raw| self.raw(raw)),
        }
    }
}
