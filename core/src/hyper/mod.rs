//! Hyper-parameters by name: values, lists of arguments, and the visitor that connects them with fields.
//!
//! A rule or schedule lists once, in [`HyperParams::fields`], which argument belongs to which of its fields. Setting
//! fields from names and values, listing their names and writing them out are derived from that. Names and defaults are
//! in the rule's or schedule's own file, range checks in its `check`; here is no table of either. The names of
//! optimizers are in [`crate::registry`].

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
