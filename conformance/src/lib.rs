//! The conformance suite: golden vectors of the real references, and what is
//! needed to check any backend against them.

pub mod backend;
pub mod bounds;
#[cfg(feature = "candle")]
mod candle_backend;
pub mod check;
pub mod compare;
mod condition;
mod core_backend;
mod core_gradient;
mod core_schedule;
mod derived;
pub mod device;
pub mod diagnose;
pub mod exec;
pub mod export;
pub mod fresh;
pub mod golden;
#[cfg(feature = "ptx")]
mod gpu_gradient;
#[cfg(feature = "ptx")]
mod guests;
mod host;
pub mod html;
mod judge;
mod lacking;
mod movement;
#[cfg(feature = "ndarray")]
mod ndarray_backend;
pub mod neighbour;
mod parted;
pub mod percent;
mod plain;
#[cfg(feature = "ptx")]
mod ptx_backend;
mod read;
pub mod registry;
pub mod report;
pub mod spread;
pub mod suite;
pub mod tensor;
pub mod text;

#[cfg(feature = "candle")]
pub use candle_backend::Candle;
pub use core_backend::Core;
pub use judge::{Failure, Sample};
#[cfg(feature = "ndarray")]
pub use ndarray_backend::Ndarray;
#[cfg(feature = "cuda")]
pub use ptx_backend::Cuda;
#[cfg(feature = "ptx")]
pub use ptx_backend::Ptx;
