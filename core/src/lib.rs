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

pub mod accurate;
pub mod any;
pub mod args;
mod array;
#[macro_use]
pub mod constants;
pub mod eager;
pub mod error;
pub mod factored;
pub mod gradient;
mod lookup;
pub mod lowrank;
pub mod matmul;
#[cfg(feature = "alloc")]
pub mod memory;
pub mod mode;
#[cfg(feature = "alloc")]
pub mod named;
pub mod optim;
#[cfg(feature = "alloc")]
pub mod optimizer;
pub mod orthogonal;
pub mod real;
pub mod reduce;
pub mod rule;
mod saved;
pub mod schedule;
mod simd;
mod sqrt;
pub mod state;
pub mod storage;

#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;

pub use array::Array;
pub use error::Error;
