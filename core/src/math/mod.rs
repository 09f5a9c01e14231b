//! Numerical functions with the same bits on every machine.
//!
//! [`pow`] and [`cos`] in double-double arithmetic, sums in a fixed order ([`reduce`]), matrix products ([`matmul`]),
//! singular vectors (`svd`) and random generators ([`random`]). Nothing here depends on an optimizer or a storage format.
//! The single operations of the number types are in [`crate::float`], vector instructions and square roots in `arch`,
//! norms of gradients in [`crate::gradient`].

mod double_double;
pub mod matmul;
pub mod random;
pub mod reduce;
pub(crate) mod svd;

pub use double_double::{cos, pow};
