//! The conformance suite: golden vectors of the real references, and what is
//! needed to check any backend against them.

pub mod add;
pub mod backend;
mod convert;
pub mod exec;
pub mod export;
pub mod fresh;
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
pub use judge::{Failure, Sample};
