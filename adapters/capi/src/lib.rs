//! bitstep's optimizers, schedules and gradient clipping for C, and for any language that can call C.
//! The header is `include/bitstep.h`.
//!
//! ```c
//! bitstep_error error;
//! bitstep_optimizer *optimizer;
//! bitstep_optimizer_new(&optimizer, &error);
//! size_t group, shape[] = {2};
//! bitstep_optimizer_add_group(optimizer, "adamw_torch", "lr=1e-2", &group, &error);
//! bitstep_optimizer_add_param(optimizer, group, shape, 1, BITSTEP_F32, &error);
//!
//! float weight[2] = {1, 2}, grad[2] = {0.5f, -0.5f};
//! bitstep_tensor tensor = {weight, 2, BITSTEP_F32, BITSTEP_F32, grad};
//! if (bitstep_optimizer_step(optimizer, &tensor, 1, NULL, 0, &error) != BITSTEP_OK)
//!     fputs(error.message, stderr);
//! bitstep_optimizer_free(optimizer);
//! ```
//!
//! `bitstep_rule_step` steps one parameter with its state in the caller's memory instead.
//!
//! Functions return a status code and, on an error, write a message to the `bitstep_error` passed in, if
//! any. Nothing else is written on an error.
//!
//! * **Pointers.** NULL, misalignment and overlap are detected: memory that a call writes to (data,
//!   outputs, state, a handle) must not overlap anything else that it is passed (lists, strings, shapes,
//!   gradients). The caller guarantees what can't be checked: that a handle is alive, that pointers have
//!   as many elements as stated, that strings are NUL-terminated, that no pointer leads into memory that
//!   a handle owns.
//! * **Sizes.** Memory for a shape, a rank, a window or a count is allocated and written at once, or
//!   refused (`BITSTEP_MEMORY`). Names have at most 64 bytes, arguments as text 65536, lists of named
//!   numbers 1024 entries.
//! * **Threads.** A handle may be used by one thread at a time, or by several through `const` pointers.
//!   Handles are independent of each other.
//! * **The process** is neither ended nor unwound, with one exception: if even a small allocation (a list
//!   of the parameters, a message) fails, Rust's allocator ends the process; without std it calls
//!   `bitstep_abort`.
//!
//! It does not compute gradients. A step is made on the calling thread, unless it is asked for on others:
//! `bitstep_optimizer_step_threads`, `bitstep_optimizer_step_tasks`.
// docs.rs marks what a feature brings.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod args;
mod error;
mod gradient;
mod names;
#[cfg(not(feature = "std"))]
mod no_std_runtime;
mod optimizer;
mod places;
mod rule;
mod saved;
mod schedule;
mod state;
mod steps;
mod tensor;
mod text;
#[cfg(feature = "std")]
mod threads;
#[cfg(feature = "trainer")]
mod training;

pub use args::NamedNumber;
pub use error::*;
pub use gradient::*;
pub use names::*;
pub use optimizer::*;
pub use rule::*;
pub use saved::*;
pub use schedule::*;
pub use state::*;
pub use steps::*;
pub use tensor::*;
pub use text::Name;
#[cfg(feature = "trainer")]
pub use training::*;
