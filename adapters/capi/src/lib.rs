//! bitstep for C.
//!
//! Functions return a status, `BITSTEP_OK` or what went wrong, and write a message into the
//! `bitstep_error` that they are given, if any. On an error nothing else is written.
//!
//! * **Pointers.** NULL, wrong alignment and overlap are found: what a call writes to (data, an answer,
//!   memory, a handle) must be apart from everything else that it gets (lists, strings, shapes,
//!   gradients). What can't be found is the caller's to know: that a handle is alive, that there is as
//!   much memory behind a pointer as is said, that a string ends, that nothing points into what a handle
//!   owns.
//! * **Sizes.** Whatever a shape, a rank, a window or a count asks for is granted or refused
//!   (`BITSTEP_MEMORY`), and written to at once. Names have at most 64 bytes, arguments as text 65536,
//!   lists of named numbers 1024 entries.
//! * **Threads.** A handle may be used by one thread at a time; by several where all of them have it
//!   `const`. Different handles have nothing in common.
//! * **The process** is neither ended nor unwound. The exception: no memory even for something small, a
//!   list of the parameters or a message. Rust's allocator ends the process then; without std it is
//!   `bitstep_abort`.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod args;
mod error;
mod gradient;
#[cfg(not(feature = "std"))]
mod no_std_runtime;
mod optimizer;
mod places;
mod rule;
mod saved;
mod schedule;
mod tensor;

pub use args::NamedNumber;
pub use error::*;
pub use gradient::*;
pub use optimizer::*;
pub use rule::*;
pub use saved::*;
pub use schedule::*;
pub use tensor::*;
