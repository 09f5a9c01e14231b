//! Decides whether a backend's answers are right.
//!
//! [`check`] runs a case, `comparator` compares values, [`bounds`] and `derived` define the tolerances,
//! `sensitivity` measures how much an input's last bit matters, `systematic` finds errors common to all elements,
//! [`diagnose`] names the [mutation](mutations) that explains a failure, [`percent`] finds whether an argument off
//! by one per cent is noticed. Errors are in *ULP at scale* ([`compare`]): in units of the spacing of the value's
//! type at the larger magnitude of the expected value and the value before the step. Backends are in
//! [`crate::backend`], printing in [`crate::report`].

pub mod bounds;
pub mod check;
mod comparator;
pub mod compare;
pub(crate) mod derived;
pub mod diagnose;
pub mod mutations;
pub mod percent;
mod sensitivity;
pub mod spread;
mod systematic;

pub use comparator::{Failure, Sample};
