//! Fallible allocation, for sizes that come from the caller.
//!
//! A shape, a rank, a window or a count may be any number. If its memory can't be allocated, the caller gets an
//! [`Error::OutOfMemory`] and the process continues. Allocated memory is written to at once, so that a system that
//! overcommits fails here and not in the middle of a step.

use alloc::vec::Vec;

use crate::error::Error;

/// Collects items into a vector; `argument` names the size in the error.
///
/// # Errors
/// [`Error::OutOfMemory`].
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
    // Even if the iterator is wrong about its length, the vector must not grow.
    all.extend(items.take(len));
    Ok(all)
}

/// A vector of `len` copies of a value; `argument` names the size in the error.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn filled<T: Copy>(argument: &'static str, value: T, len: usize) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    all.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { argument, len })?;
    all.resize(len, value);
    Ok(all)
}
