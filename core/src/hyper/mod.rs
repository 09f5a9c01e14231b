//! Hyper-parameters by name.
//!
//! A rule or schedule says once, in [`HyperParams::fields`], which argument goes into which of its fields.
//! Setting them from a name and a value, listing them and writing them out are all derived from that.

#[cfg(feature = "alloc")]
mod args;
#[cfg(feature = "alloc")]
mod value;
mod visitor;

#[cfg(feature = "alloc")]
pub use args::*;
#[cfg(feature = "alloc")]
pub use value::*;
pub use visitor::*;
