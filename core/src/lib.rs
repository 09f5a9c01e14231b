//! Update rules and learning-rate schedules over slices and scalar state.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod args;
mod error;
pub mod gradient;
pub mod schedule;

pub use error::Error;
