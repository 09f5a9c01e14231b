//! What a number is: how it is stored, and what a rule computes in.
//!
//! [`StoredFloat`] is a number in memory, [`ComputeFloat`] one in a computation, [`Eager`] a 16-bit type that is
//! rounded after every operation, and [`Dtype`] names a type at run time. `bytes` turns constants into bytes.
//! Nothing here knows of optimizers; formats of several parts are in [`crate::storage`].

#[macro_use]
pub mod bytes;
mod compute;
mod dtype;
mod eager;
mod stored;

pub use compute::ComputeFloat;
pub use dtype::Dtype;
pub use eager::{Eager, EagerFloat, RoundNarrow};
pub use stored::StoredFloat;
