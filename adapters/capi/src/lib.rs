//! bitstep for C.
//!
//! Functions return a status, `BITSTEP_OK` or what went wrong, and write a message into the
//! `bitstep_error` that they are given, if any. On an error nothing else is written. Nothing here
//! ends the process or unwinds into the caller. Handles may be used by one thread at a time.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod args;
#[cfg(not(feature = "std"))]
mod bare;
mod bytes;
mod error;
mod gradient;
mod optimizer;
mod rule;
mod schedule;
mod tensor;

pub use args::Number;
pub use error::*;
pub use gradient::*;
pub use optimizer::*;
pub use rule::*;
pub use schedule::*;
pub use tensor::*;
