//! State as bytes: little-endian numbers, lists with their length in front.

use alloc::vec::Vec;

use crate::error::{BITSTEP_STATE, Fault, fault};

/// Writes state.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn number(&mut self, x: u64) {
        self.0.extend(x.to_le_bytes());
    }

    pub(crate) fn floats(&mut self, all: &[f64]) {
        all.iter().for_each(|x| self.number(x.to_bits()));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

/// Reads it again.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

const SHORT: &str = "saved state: ends too soon";

impl<'a> Reader<'a> {
    pub(crate) fn number(&mut self) -> Result<u64, Fault> {
        let Some((head, rest)) = self.0.split_first_chunk() else {
            return fault(BITSTEP_STATE, SHORT);
        };
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
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
        let Some((head, rest)) = self.0.split_at_checked(len) else {
            return fault(BITSTEP_STATE, SHORT);
        };
        self.0 = rest;
        Ok(head)
    }

    /// Refuses a number other than the one that belongs here.
    pub(crate) fn expect(&mut self, what: &str, wanted: u64) -> Result<(), Fault> {
        let got = self.number()?;
        if got == wanted {
            return Ok(());
        }
        fault(BITSTEP_STATE, alloc::format!("saved state: {what} is {got}, here it is {wanted}"))
    }
}
