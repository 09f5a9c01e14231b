//! The conformance suite: checks any backend against golden vectors of the reference implementations.
//!
//! [`golden`] reads cases, [`backend`] runs an implementation, [`judge`] compares, [`report`] prints; [`suite`]
//! drives them over whole folders, [`exec`] makes a program in any language a backend, and [`fuzz`] looks for inputs
//! at which one is wrong. The only arithmetic here is that of errors and their bounds: the update rules are in the
//! crate `bitstep`, and the Python code that runs the references is in `conformance/export`.
// docs.rs marks what a feature brings.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod add;
pub mod backend;
mod built_in;
mod convert;
pub mod exec;
pub mod export;
pub mod fresh;
pub mod fuzz;
pub mod golden;
pub mod judge;
pub mod pack;
mod read;
pub mod report;
pub mod suite;
pub mod tensor;

#[cfg(feature = "candle")]
pub use backend::Candle;
pub use backend::Core;
#[cfg(feature = "cuda")]
pub use backend::Cuda;
#[cfg(feature = "ndarray")]
pub use backend::Ndarray;
#[cfg(feature = "ptx")]
pub use backend::Ptx;
pub use fuzz::fuzz_rule;
pub use judge::{Failure, Sample};
