//! From registry names and arguments to specs: `optim="adamw_torch"` of Transformers, `torch.optim.Adagrad`, ….
//!
//! [`optimizer`] knows every name (feature `names`), or those of some families (features `names-torch`, `names-bnb`, …);
//! with [`entries`] a program declares a list of its own and compiles only the rules in it. A name means a rule, a compute policy and storage formats: an
//! [`OptimizerSpec`](crate::optimizer::OptimizerSpec).
//!
//! Not here: the rules and their defaults ([`crate::optim`]), how arguments are parsed ([`crate::hyper`]), names of
//! schedules ([`crate::schedule`]).

pub mod entries;
mod entry;
// Left out of unit tests, which would compile every rule a second time.
#[cfg(all(feature = "registry", not(test)))]
mod list;

pub use entry::{OptimizerEntry, optimizer_of};
#[cfg(all(feature = "registry", not(test)))]
pub use list::{OPTIMIZERS, optimizer};
