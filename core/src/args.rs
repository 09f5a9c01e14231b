//! Hyper-parameters by name.
//!
//! A rule or schedule says once, in [`HyperParams::fields`], which argument goes into which of its fields.
//! Setting them from a name and a value, listing them and writing them out are all derived from that.

mod hyper;
#[cfg(feature = "alloc")]
mod owned;
#[cfg(feature = "alloc")]
mod value;

pub use hyper::*;
#[cfg(feature = "alloc")]
pub use owned::*;
#[cfg(feature = "alloc")]
pub use value::*;
