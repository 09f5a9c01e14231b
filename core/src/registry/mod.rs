//! From registry names and arguments to specs: `optim="adamw_torch"` of Transformers, `torch.optim.Adagrad`, ….
//!
//! [`optimizer`] knows every name (feature `names`); with [`entries`] a program declares a list of its own and
//! compiles only the rules in it. A name means a rule, a compute policy and storage formats: an
//! [`OptimizerSpec`](crate::optimizer::OptimizerSpec). Schedules have theirs in [`crate::schedule`].

pub mod entries;
mod entry;
// Not for the unit tests, for which every rule would be compiled a second time.
#[cfg(all(feature = "names", not(test)))]
mod list;

pub use entry::{OptimizerEntry, optimizer_of};
#[cfg(all(feature = "names", not(test)))]
pub use list::{OPTIMIZERS, optimizer};
