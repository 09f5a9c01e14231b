//! The byte format of saved state, the same on every machine.
//!
//! It consists of little-endian words of 8 bytes. A list is its length in bytes, then those bytes, padded with zeros to
//! whole words. The first word is the kind of state, as 8 ASCII letters; the second is the version; the last is a checksum
//! of all words before it, which detects a half-written page of flash. `docs/checkpoints.md` describes it too.

use crate::error::{Error, ensure_len, ensure_saved};
use crate::float::bytes::{Constants, in_pieces, read_all};
use crate::storage::{Data, DataMut};

/// The version that [`Writer`] writes.
const VERSION: u64 = 3;

/// Receives the bytes, a few at a time.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) + 'a;

fn mixed(sum: u64, word: [u8; 8]) -> u64 {
    let sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    sum ^ sum >> 32
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, &word| mixed(sum, word))
}

/// Writes state; without a sink, it only counts the bytes.
pub(crate) struct Writer<'a, 'b> {
    to: Option<&'a mut Sink<'b>>,
    sum: u64,
    len: usize,
}

impl<'a, 'b> Writer<'a, 'b> {
    /// Writes the kind and the version.
    pub(crate) fn new(kind: &[u8; 8], to: Option<&'a mut Sink<'b>>) -> Self {
        let mut writer = Writer { to, sum: 0, len: 0 };
        writer.number(u64::from_le_bytes(*kind));
        writer.number(VERSION);
        writer
    }

    fn put(&mut self, words: &[u8]) {
        self.len = self.len.saturating_add(words.len());
        if let Some(to) = &mut self.to {
            self.sum = words.as_chunks().0.iter().fold(self.sum, |sum, &word| mixed(sum, word));
            to(words);
        }
    }

    pub(crate) fn number(&mut self, x: u64) {
        self.put(&x.to_le_bytes());
    }

    pub(crate) fn floats(&mut self, all: &[f64]) {
        all.iter().for_each(|x| self.number(x.to_bits()));
    }

    /// Counts a list of this many bytes.
    pub(crate) fn list_of(&mut self, bytes: usize) {
        let padded = bytes.checked_next_multiple_of(8).unwrap_or(usize::MAX);
        self.len = self.len.saturating_add(8).saturating_add(padded);
    }

    pub(crate) fn list<T: Constants>(&mut self, all: &[T]) {
        if self.to.is_none() {
            return self.list_of(size_of_val(all));
        }
        self.number(size_of_val(all) as u64);
        in_pieces(all, 8, &mut |words| self.put(words));
    }

    pub(crate) fn data(&mut self, all: Data<'_>) {
        match all {
            Data::F64(x) => self.list(x),
            Data::F32(x) => self.list(x),
            Data::Bf16(x) => self.list(x),
            Data::F16(x) => self.list(x),
        }
    }

    /// Writes the checksum; returns the number of bytes in total.
    pub(crate) fn end(mut self) -> usize {
        self.number(self.sum);
        self.len
    }
}

/// Reads what [`Writer`] wrote.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Whether values are stored; if not, they are only checked.
    pub(crate) is_applying: bool,
    /// The version of the saved state.
    pub(crate) version: u64,
}

/// An error about saved state that reports no value.
const fn refused<T>(expected: &'static str) -> Result<T, Error> {
    Err(Error::InvalidArgument { argument: Error::SAVED, expected })
}

impl<'a> Reader<'a> {
    /// Calls `load` twice on state of this kind: the first pass only checks, and the second, once everything is known
    /// to fit, stores the values. So an error leaves everything unchanged.
    pub(crate) fn validate_then_apply(
        kind: &[u8; 8],
        bytes: &'a [u8],
        mut load: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let reader = Self::new(kind, bytes)?;
        for is_applying in [false, true] {
            let mut reader = Reader { is_applying, ..reader };
            load(&mut reader)?;
            ensure_saved("number of bytes after the end", reader.rest.len() as u64, 0)?;
        }
        Ok(())
    }

    fn new(kind: &[u8; 8], bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader { rest: bytes, is_applying: false, version: VERSION };
        let begin = reader.number()?.to_le_bytes();
        if begin != *kind {
            // Version 2 has a '2' where the kind now ends in 0; its lists are not padded, and it has no checksum.
            if kind.strip_suffix(&[0]).is_some_and(|kind| begin.strip_prefix(kind) == Some(b"2")) {
                return Ok(Reader { version: 2, ..reader });
            }
            return refused("state of this kind: its first 8 bytes say of which");
        }
        ensure_saved("version", reader.number()?, VERSION)?;
        let Some((before, sum)) = bytes.split_last_chunk() else {
            return refused("a checksum at its end");
        };
        ensure_saved("checksum", u64::from_le_bytes(*sum), checksum(before))?;
        reader.rest = before.get(16..).unwrap_or_default();
        Ok(reader)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return refused("more bytes than there are");
        };
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        Ok(self.take(8)?.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)))
    }

    /// A boolean: 0 or 1.
    #[cfg(feature = "alloc")]
    pub(crate) fn read_bool(&mut self, what: &'static str) -> Result<bool, Error> {
        let number = self.number()?;
        ensure_saved(what, number, number.min(1))?;
        Ok(number == 1)
    }

    /// Refuses any number other than `expected`.
    pub(crate) fn expect(&mut self, what: &'static str, expected: u64) -> Result<(), Error> {
        ensure_saved(what, self.number()?, expected)
    }

    /// A number of words to follow, at most as many as there are.
    #[cfg(feature = "alloc")]
    pub(crate) fn count_of_words(&mut self, what: &'static str) -> Result<usize, Error> {
        let (number, most) = (self.number()?, self.rest.len() / 8);
        ensure_saved(what, number, number.min(most as u64))?;
        Ok(usize::try_from(number).unwrap_or(most))
    }

    pub(crate) fn float(&mut self) -> Result<f64, Error> {
        self.number().map(f64::from_bits)
    }

    pub(crate) fn floats<const N: usize>(&mut self) -> Result<[f64; N], Error> {
        let mut all = [0.0; N];
        for x in &mut all {
            *x = self.float()?;
        }
        Ok(all)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let bytes = self.take(len)?;
        if self.version > 2 {
            self.take(len.wrapping_neg() % 8)?;
        }
        Ok(bytes)
    }

    /// Refuses any bytes other than `here`.
    pub(crate) fn expect_bytes(
        &mut self,
        here: &[u8],
        expected: &'static str,
    ) -> Result<(), Error> {
        if self.bytes()? == here { Ok(()) } else { refused(expected) }
    }

    pub(crate) fn list<T: Constants>(&mut self, to: &mut [T]) -> Result<(), Error> {
        let bytes = self.bytes()?;
        ensure_saved("bytes of a slot", bytes.len() as u64, size_of_val(to) as u64)?;
        if self.is_applying {
            read_all(bytes, to);
        }
        Ok(())
    }

    pub(crate) fn data(&mut self, to: DataMut<'_>) -> Result<(), Error> {
        match to {
            DataMut::F64(x) => self.list(x),
            DataMut::F32(x) => self.list(x),
            DataMut::Bf16(x) => self.list(x),
            DataMut::F16(x) => self.list(x),
            DataMut::Encoded(_) => Ok(()),
        }
    }
}

/// Runs `save` into a buffer of exactly the right length.
pub(crate) fn copied(
    to: &mut [u8],
    save: impl Fn(Option<&mut Sink<'_>>) -> usize,
) -> Result<(), Error> {
    ensure_len("memory", to.len(), save(None))?;
    let mut rest = to;
    save(Some(&mut |bytes| {
        if let Some((to, later)) = core::mem::take(&mut rest).split_at_mut_checked(bytes.len()) {
            to.copy_from_slice(bytes);
            rest = later;
        }
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that must not be looked at.
    #[derive(Clone, Copy)]
    struct Unread(#[expect(dead_code, reason = "it is only counted")] u64);

    impl Constants for Unread {
        fn write(&self, _: &mut [u8]) {
            panic!("a size is counted, not written");
        }
        fn read(_: &[u8]) -> Option<Self> {
            None
        }
    }

    #[test]
    fn size_is_counted_without_a_look_at_the_numbers() {
        let mut writer = Writer::new(b"counting", None);
        writer.list(&[Unread(1); 3]);
        assert_eq!(writer.end(), 16 + 8 + 3 * 8 + 8); // kind and version, length, numbers, checksum
    }
}
