//! From the references' names and argument names to recipes.
//!
//! `optim="adamw_torch"` and the arguments of its constructor make a [`Recipe`](crate::optimizer::Recipe).

pub mod entries;
mod entry;
#[cfg(feature = "names")]
mod list;

pub use entry::{Entry, optimizer_of};
#[cfg(feature = "names")]
pub use list::{LIST, optimizer};
