//! Whether a backend's answers are right.
//!
//! [`check`] runs a case, `comparator` compares numbers, [`bounds`] and `derived` say how far off they may be,
//! `sensitivity` how much an input's last bit matters, [`diagnose`] which known mistake ([`mutations`]) explains
//! what is wrong, [`percent`] whether an argument off by one percent is noticed. Running a backend is in
//! [`crate::backend`], printing in [`crate::report`].

pub mod bounds;
pub mod check;
mod comparator;
pub mod compare;
mod derived;
pub mod diagnose;
pub mod mutations;
pub mod percent;
mod sensitivity;
pub mod spread;
mod systematic;

pub use comparator::{Failure, Sample};
