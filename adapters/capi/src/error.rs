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

/// Room for a message. The caller owns it; NULL in its place for none.
#[repr(C)]
pub struct Failure {
    /// What went wrong, ended by a 0, cut off if it is longer. Only written on an error.
    pub message: [c_char; 256],
}

/// A status and its message.
pub(crate) struct Fault(pub(crate) i32, pub(crate) String);

impl From<bitstep::Error> for Fault {
    fn from(e: bitstep::Error) -> Self {
        let length = matches!(e, bitstep::Error::Length { .. });
        Fault(if length { BITSTEP_LENGTH } else { BITSTEP_ARGUMENT }, e.to_string())
    }
}

impl From<bitstep::args::ArgError> for Fault {
    fn from(e: bitstep::args::ArgError) -> Self {
        Fault(BITSTEP_ARGUMENT, e.to_string())
    }
}

pub(crate) fn fault<T>(status: i32, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(status, message.into()))
}

/// Runs the body of a function of the interface.
///
/// # Safety
/// `error` is NULL or points to a [`Failure`].
pub(crate) unsafe fn answer(error: *mut Failure, body: impl FnOnce() -> Result<(), Fault>) -> i32 {
    #[cfg(feature = "std")]
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(body))
        .unwrap_or_else(|_| fault(BITSTEP_PANIC, "a defect of bitstep: it panicked"));
    #[cfg(not(feature = "std"))]
    let result = body();
    let Err(Fault(status, message)) = result else { return BITSTEP_OK };
    // SAFETY: the caller's promise.
    if let Some(error) = unsafe { error.as_mut() } {
        error.message.fill(0);
        // The last byte stays 0. A message cut within a character is still a string of bytes.
        let room = error.message.len() - 1;
        for (to, byte) in error.message.iter_mut().zip(message.bytes().take(room)) {
            *to = byte as c_char;
        }
    }
    status
}
