//! The floating-point types: how they are stored, converted and computed with.
//!
//! [`StoredFloat`] is a type in memory, [`ComputeFloat`] one that rules compute in, [`Eager`] a 16-bit type that is
//! rounded after every operation, and [`Dtype`] names a type at run time; [`bytes`] converts values to bytes.
//! Nothing here depends on an optimizer. Formats of several parts, such as codes with scales, are in [`crate::storage`],
//! functions such as `pow` in [`crate::math`].

#[macro_use]
pub mod bytes;
mod compute;
mod dtype;
mod eager;
mod narrow;
mod stored;

pub use compute::ComputeFloat;
pub use dtype::Dtype;
pub use eager::{Eager, EagerFloat};
pub use narrow::RoundNarrow;
pub use stored::StoredFloat;
