//! What went wrong, for a caller that knows numbers and strings.

use alloc::string::{String, ToString};
use core::ffi::c_char;

/// All is well.
pub const BITSTEP_OK: i32 = 0;
/// A pointer is NULL, not aligned, or overlaps another that is written to.
pub const BITSTEP_POINTER: i32 = 1;
/// An argument is unknown, or has a value that is refused.
pub const BITSTEP_ARGUMENT: i32 = 2;
/// A buffer has the wrong length, or there is the wrong number of them.
pub const BITSTEP_LENGTH: i32 = 3;
/// Saved state is damaged, or of another optimizer.
pub const BITSTEP_STATE: i32 = 4;
/// A defect of this library; the handle must only be freed.
pub const BITSTEP_PANIC: i32 = 5;
/// There is no memory for what was asked for.
pub const BITSTEP_MEMORY: i32 = 6;

/// Room for a message. The caller owns it; NULL in its place for none.
#[repr(C)]
pub struct ErrorMessage {
    /// What went wrong, ended by a 0, cut off if it is longer. Only written on an error, and not
    /// where it is seen to overlap anything else that the call got.
    pub message: [c_char; 256],
}

/// A status and its message.
pub(crate) struct Fault(pub(crate) i32, pub(crate) String);

impl From<bitstep::Error> for Fault {
    fn from(e: bitstep::Error) -> Self {
        let status = match e {
            bitstep::Error::LengthMismatch { .. } => BITSTEP_LENGTH,
            bitstep::Error::OutOfMemory { .. } => BITSTEP_MEMORY,
            e if e.is_saved() => BITSTEP_STATE,
            _ => BITSTEP_ARGUMENT,
        };
        Fault(status, e.to_string())
    }
}

impl From<bitstep::hyper::ArgError> for Fault {
    fn from(e: bitstep::hyper::ArgError) -> Self {
        match e {
            bitstep::hyper::ArgError::InvalidConfig(e) => e.into(),
            e => Fault(BITSTEP_ARGUMENT, e.to_string()),
        }
    }
}

pub(crate) fn fault<T>(status: i32, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(status, message.into()))
}
