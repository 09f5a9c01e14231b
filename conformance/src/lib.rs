//! The conformance suite: golden vectors of the real references, and what is
//! needed to check any backend against them.

pub mod backend;
pub mod bounds;
pub mod check;
pub mod compare;
pub mod golden;
mod judge;
pub mod tensor;

pub use judge::Failure;
