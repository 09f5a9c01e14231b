//! From the references' names and argument names to recipes.
//!
//! `optim="adamw_torch"` and the arguments of its constructor make a [`OptimizerSpec`](crate::optimizer::OptimizerSpec).

pub mod entries;
mod entry;
// Not for the unit tests, for which every rule would be compiled a second time.
#[cfg(all(feature = "names", not(test)))]
mod list;

pub use entry::{OptimizerEntry, optimizer_of};
#[cfg(all(feature = "names", not(test)))]
pub use list::{OPTIMIZERS, optimizer};
