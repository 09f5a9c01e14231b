//! Update rules and learning-rate schedules over slices and scalar state.
#![no_std]
// Kernels are compiled where unstable features are at hand: the GPU's own square root is one.
#![cfg_attr(target_arch = "nvptx64", feature(core_float_math))]
#![deny(unsafe_code)]

#[cfg(all(target_arch = "x86", not(target_feature = "sse2")))]
compile_error!(
    "x86 without SSE2 computes in 80 bits: results would differ from every other processor"
);

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod arch;
pub mod backend;
pub mod error;
#[macro_use]
pub mod float;
pub mod gradient;
pub mod hyper;
pub mod lowrank;
pub mod math;
pub mod optim;
#[cfg(feature = "alloc")]
pub mod optimizer;
pub mod prelude;
#[cfg(feature = "alloc")]
pub mod registry;
pub mod rule;
pub mod schedule;
pub mod state;
pub mod storage;

#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;

pub use error::Error;
