//! Memory as a set of regions with gaps between them, so that an overrun is an error.

use crate::Error;

/// The first address: a null pointer plus a small offset is an error.
const START: u64 = 1 << 32;
/// Regions begin at multiples of this, as on a GPU.
const ALIGN: u64 = 256;

#[derive(Clone, Default)]
pub(crate) struct Memory {
    /// Sorted by address.
    regions: Vec<(u64, Vec<u8>)>,
    next: u64,
}

fn access(address: u64, bytes: usize, what: &'static str) -> Error {
    Error::Access { address, bytes, what }
}

impl Memory {
    pub(crate) fn alloc(&mut self, bytes: Vec<u8>) -> u64 {
        let address = self.next.max(START);
        // A gap of at least ALIGN.
        self.next = (address + bytes.len() as u64).next_multiple_of(ALIGN) + ALIGN;
        self.regions.push((address, bytes));
        address
    }

    pub(crate) fn free(&mut self, address: u64) -> Result<(), Error> {
        match self.regions.binary_search_by_key(&address, |r| r.0) {
            Ok(i) => {
                self.regions.remove(i);
                Ok(())
            }
            Err(_) => Err(access(address, 0, "freed where no memory begins")),
        }
    }

    /// The region of an access, and the offset in it.
    fn find(&self, address: u64, bytes: usize) -> Result<(usize, usize), Error> {
        let i = self.regions.partition_point(|r| r.0 <= address);
        let Some((start, region)) = i.checked_sub(1).map(|i| &self.regions[i]) else {
            return Err(access(address, bytes, "out of bounds"));
        };
        let at = (address - start) as usize;
        match at.checked_add(bytes) {
            Some(end) if end <= region.len() => Ok((i - 1, at)),
            _ => Err(access(address, bytes, "out of bounds")),
        }
    }

    pub(crate) fn get(&self, address: u64, bytes: usize) -> Result<&[u8], Error> {
        if bytes == 0 {
            return Ok(&[]);
        }
        self.find(address, bytes).map(|(i, at)| &self.regions[i].1[at..at + bytes])
    }

    pub(crate) fn get_mut(&mut self, address: u64, bytes: usize) -> Result<&mut [u8], Error> {
        if bytes == 0 {
            return Ok(&mut []);
        }
        self.find(address, bytes).map(|(i, at)| &mut self.regions[i].1[at..at + bytes])
    }
}

/// Refuses an address that is not a multiple of the access's size.
pub(crate) fn aligned(address: u64, bytes: usize) -> Result<(), Error> {
    let ok = address.is_multiple_of(bytes as u64);
    if ok { Ok(()) } else { Err(access(address, bytes, "misaligned")) }
}
