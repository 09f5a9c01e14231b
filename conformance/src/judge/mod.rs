//! Decides whether a backend's answers are right.
//!
//! [`check`] runs a case, `comparator` compares values, [`bounds`] and `derived` define the tolerances,
//! `systematic` finds errors common to all elements, [`diagnose`] names the [mistake](mutations) that explains a
//! failure, `common` what failures have in common, [`percent`] finds whether an argument off
//! by one per cent is noticed. Errors are in *ULP at scale* ([`compare`]): in units of the spacing of the value's
//! type at the larger magnitude of the expected value and the value before the step. Backends are in
//! [`crate::backend`], printing in [`crate::report`].

pub mod bounds;
pub mod check;
mod common;
mod comparator;
pub mod compare;
pub(crate) mod derived;
pub mod diagnose;
pub mod mutations;
pub mod percent;
pub mod spread;
mod systematic;

pub use comparator::{Failure, Sample, TensorTally};
