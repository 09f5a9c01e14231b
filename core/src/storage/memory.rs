//! Memory whose size comes from outside.
//!
//! A shape, a rank, a window or a count may be any number. What it asks for is reserved in a way that can
//! fail, and failing is an [`Error::OutOfMemory`]: the process goes on. What is granted is written to at once, so
//! that a system that promises more memory than it has shows it here and not in the middle of a step.

use alloc::vec::Vec;

use crate::error::Error;

/// The items in memory of their own.
///
/// # Errors
/// No memory for them.
///
/// ```
/// use bitstep::{Error, storage::memory::collected};
/// assert_eq!(collected("shape", [2, 3].into_iter())?, [2, 3]);
/// let none = collected("window", core::iter::repeat_n(0.0, usize::MAX)).unwrap_err();
/// assert_eq!(none, Error::OutOfMemory { argument: "window", len: usize::MAX });
/// # Ok::<(), Error>(())
/// ```
pub fn collected<T>(
    argument: &'static str,
    items: impl ExactSizeIterator<Item = T>,
) -> Result<Vec<T>, Error> {
    let len = items.len();
    let mut all = Vec::new();
    all.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { argument, len })?;
    // An iterator may be mistaken about its length, but not make the vector grow.
    all.extend(items.take(len));
    Ok(all)
}

/// As many copies of a number.
///
/// # Errors
/// No memory for them.
pub fn filled<T: Copy>(argument: &'static str, value: T, len: usize) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    all.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { argument, len })?;
    all.resize(len, value);
    Ok(all)
}
