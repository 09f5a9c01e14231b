//! The conformance suite: golden vectors of the real references, and what is
//! needed to check any backend against them.

pub mod backend;
pub mod bounds;
pub mod check;
pub mod compare;
mod condition;
mod core_backend;
mod core_gradient;
mod core_schedule;
pub mod golden;
pub mod html;
mod judge;
pub mod neighbour;
mod plain;
pub mod registry;
pub mod report;
pub mod suite;
pub mod tensor;

pub use core_backend::Core;
pub use judge::Failure;
