//! Functions and sums with one result on every machine.
//!
//! [`pow`] and [`cos`] in double-double arithmetic, sums in one order ([`reduce`]), products of matrices
//! ([`matmul`]), singular vectors and random generators. Vector instructions are in `arch`; what a rule
//! makes of all this is in [`crate::rule`].

mod double_double;
pub mod matmul;
pub mod random;
pub mod reduce;
pub(crate) mod svd;

pub use double_double::{cos, pow};
