//! What went wrong, for a caller that knows numbers and strings.

use alloc::string::{String, ToString};
use core::ffi::c_char;

use crate::places::Places;

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
pub struct Failure {
    /// What went wrong, ended by a 0, cut off if it is longer. Only written on an error, and not
    /// where it is seen to overlap anything else that the call got.
    pub message: [c_char; 256],
}

/// A status and its message.
pub(crate) struct Fault(pub(crate) i32, pub(crate) String);

impl From<bitstep::Error> for Fault {
    fn from(e: bitstep::Error) -> Self {
        let status = match e {
            bitstep::Error::Length { .. } => BITSTEP_LENGTH,
            bitstep::Error::Memory { .. } => BITSTEP_MEMORY,
            e if e.is_saved() => BITSTEP_STATE,
            _ => BITSTEP_ARGUMENT,
        };
        Fault(status, e.to_string())
    }
}

impl From<bitstep::args::ArgError> for Fault {
    fn from(e: bitstep::args::ArgError) -> Self {
        match e {
            bitstep::args::ArgError::Refused(e) => e.into(),
            e => Fault(BITSTEP_ARGUMENT, e.to_string()),
        }
    }
}

pub(crate) fn fault<T>(status: i32, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault(status, message.into()))
}

/// Runs the body of a function of the interface.
///
/// # Safety
/// `error` is NULL or points to a [`Failure`].
pub(crate) unsafe fn answer(
    error: *mut Failure,
    body: impl FnOnce(&mut Places) -> Result<(), Fault>,
) -> i32 {
    let mut places = Places::default();
    let run = || body(&mut places);
    #[cfg(feature = "std")]
    let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(run))
        .unwrap_or_else(|_| fault(BITSTEP_PANIC, "a defect of bitstep: it panicked"));
    #[cfg(not(feature = "std"))]
    let result = run();
    let Err(Fault(status, message)) = result else { return BITSTEP_OK };
    if error.is_null() || places.meet(error as usize, size_of::<Failure>()) {
        return status;
    }
    // SAFETY: not NULL, and aligned as bytes always are; the rest is the caller's promise.
    let room = unsafe { &mut (*error).message };
    room.fill(0);
    // The last byte stays 0. A message cut within a character is still a string of bytes.
    let most = room.len() - 1;
    for (to, byte) in room.iter_mut().zip(message.bytes().take(most)) {
        *to = byte as c_char;
    }
    status
}
