//! The [`Error`] type, and the range checks that rules and schedules share.
//!
//! NaN fails all of the checks, except [`ensure_range`], whose caller evaluates the condition.
//!
//! ```
//! use bitstep::Error;
//! use bitstep::error::{ensure_fraction, ensure_not_negative, ensure_range};
//! /// The checks of torch's SGD, and a custom one.
//! fn check(lr: f64, momentum: f64, power: f64) -> Result<(), Error> {
//!     ensure_not_negative("lr", lr)?;
//!     ensure_fraction("momentum", momentum)?;
//!     ensure_range(power > 1.0, "power", power, "power > 1")
//! }
//! assert_eq!(check(0.1, 0.9, 2.0), Ok(()));
//! assert_eq!(check(-0.1, 0.9, 2.0).unwrap_err().to_string(), "lr is -0.1, but must satisfy >= 0");
//! assert_eq!(check(0.1, 0.9, 1.0).unwrap_err().to_string(), "power is 1, but must satisfy power > 1");
//! ```

use core::fmt;

/// A refused argument: which one, its value, and what was expected.
///
/// A function that returns one has written nothing, unless its documentation says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A value outside its range.
    OutOfRange {
        /// The argument, under the reference's name.
        argument: &'static str,
        /// Its value.
        value: f64,
        /// The accepted range, as a condition.
        expected: &'static str,
    },
    /// A buffer of the wrong length.
    LengthMismatch {
        /// The buffer: `param`, `grad`, or a state slot's name.
        argument: &'static str,
        /// Its number of elements.
        got: usize,
        /// The required number of elements.
        expected: usize,
    },
    /// An allocation failed, or would have more elements than `usize` can count.
    OutOfMemory {
        /// The buffer: a state slot's name, `shape`, `window`.
        argument: &'static str,
        /// Its number of elements; `usize::MAX` if they can't be counted.
        len: usize,
    },
    /// Saved state that is damaged, of another version, or of another object.
    SavedState {
        /// The field that differs.
        what: &'static str,
        /// Its saved value.
        got: u64,
        /// The required value.
        expected: u64,
    },
    /// Two arguments that exclude each other, or a call that does not fit the state.
    InvalidArgument {
        /// The argument.
        argument: &'static str,
        /// The accepted value or state.
        expected: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::OutOfRange { argument, value, expected } => {
                write!(f, "{argument} is {value}, but must satisfy {expected}")
            }
            Error::LengthMismatch { argument, got, expected } => {
                write!(f, "{argument} has {got} elements, but {expected} are needed")
            }
            Error::OutOfMemory { argument, len: usize::MAX } => {
                write!(f, "{argument} has more elements than there can be memory for")
            }
            Error::OutOfMemory { argument, len } => {
                write!(f, "no memory for {len} elements of {argument}")
            }
            Error::SavedState { what, got, expected } => {
                write!(f, "{}: {what} is {got}, but must be {expected}", Error::SAVED)
            }
            Error::InvalidArgument { argument, expected } => {
                write!(f, "{argument}: wanted {expected}")
            }
        }
    }
}

impl core::error::Error for Error {}

impl Error {
    /// The argument of errors about saved state.
    pub(crate) const SAVED: &str = "saved state";

    /// Whether saved state was refused: it is damaged, of another version, or of another object.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        matches!(self, Error::SavedState { .. })
            || matches!(self, Error::InvalidArgument { argument: Self::SAVED, .. })
    }
}

/// `Ok` if a field of saved state has the expected value, else an [`Error::SavedState`].
pub(crate) fn ensure_saved(what: &'static str, got: u64, expected: u64) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::SavedState { what, got, expected }) }
}

/// `Ok` if `ok`, else an [`Error::OutOfRange`] about `value`.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn ensure_range(
    ok: bool,
    argument: &'static str,
    value: f64,
    expected: &'static str,
) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(Error::OutOfRange { argument, value, expected }) }
}

/// `Ok` if a buffer has the expected length, else an [`Error::LengthMismatch`].
pub(crate) fn ensure_len(argument: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::LengthMismatch { argument, got, expected }) }
}

/// Requires `value` ≥ 0.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn ensure_not_negative(argument: &'static str, value: f64) -> Result<(), Error> {
    ensure_range(value >= 0.0, argument, value, ">= 0")
}

/// Requires `value` in [0, 1).
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn ensure_fraction(argument: &'static str, value: f64) -> Result<(), Error> {
    ensure_range((0.0..1.0).contains(&value), argument, value, "0 <= value < 1")
}

/// Requires `value` in [0, 1].
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn ensure_unit(argument: &'static str, value: f64) -> Result<(), Error> {
    ensure_range((0.0..=1.0).contains(&value), argument, value, "0 <= value <= 1")
}

/// Requires both betas in [0, 1); errors name `betas[0]` or `betas[1]`.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn ensure_betas((beta1, beta2): (f64, f64)) -> Result<(), Error> {
    ensure_fraction("betas[0]", beta1)?;
    ensure_fraction("betas[1]", beta2)
}
