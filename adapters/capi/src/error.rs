//! Status codes and error messages.

use alloc::string::{String, ToString};
use core::ffi::c_char;

/// Success.
pub const BITSTEP_OK: i32 = 0;
/// A pointer is NULL or misaligned, or memory that is written to overlaps other memory of the call.
pub const BITSTEP_POINTER: i32 = 1;
/// An argument is unknown or its value is refused.
pub const BITSTEP_ARGUMENT: i32 = 2;
/// A buffer has the wrong length, or the number of buffers is wrong.
pub const BITSTEP_LENGTH: i32 = 3;
/// Saved state is damaged or belongs to another optimizer.
pub const BITSTEP_STATE: i32 = 4;
/// A bug in this library. The handle must not be used any more, except to free it.
pub const BITSTEP_PANIC: i32 = 5;
/// Out of memory.
pub const BITSTEP_MEMORY: i32 = 6;

/// A buffer for an error message, owned by the caller. Functions take NULL where no message is wanted.
#[repr(C)]
pub struct ErrorMessage {
    /// The message, NUL-terminated and truncated to fit. Written on an error only, and not if the buffer
    /// is found to overlap other memory passed to the call.
    pub message: [c_char; 256],
}

/// A status code and its message.
pub(crate) struct Status(pub(crate) i32, pub(crate) String);

impl From<bitstep::Error> for Status {
    fn from(e: bitstep::Error) -> Self {
        let status = match e {
            bitstep::Error::LengthMismatch { .. } => BITSTEP_LENGTH,
            bitstep::Error::OutOfMemory { .. } => BITSTEP_MEMORY,
            e if e.is_saved() => BITSTEP_STATE,
            _ => BITSTEP_ARGUMENT,
        };
        Status(status, e.to_string())
    }
}

impl From<bitstep::hyper::ArgError> for Status {
    fn from(e: bitstep::hyper::ArgError) -> Self {
        match e {
            bitstep::hyper::ArgError::InvalidConfig(e) => e.into(),
            e => Status(BITSTEP_ARGUMENT, e.to_string()),
        }
    }
}

pub(crate) fn err<T>(status: i32, message: impl Into<String>) -> Result<T, Status> {
    Err(Status(status, message.into()))
}
