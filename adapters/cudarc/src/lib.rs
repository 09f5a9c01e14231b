//! bitstep's optimizers on CUDA devices.
//!
//! The kernels are the core itself, compiled by rustc for the GPU: the same source, the same
//! roundings, and so the same bits. They come with this crate as PTX ([`ptx`]). Running them needs
//! the driver only, which is loaded at run time: no nvcc, no NVRTC, no toolkit.
//!
//! [`DeviceOptimizer`] keeps an optimizer's state in device memory and steps any number of tensors in a
//! few launches, on the caller's stream:
//!
//! ```no_run
//! use bitstep::prelude::*;
//! use bitstep_cudarc::{Cuda, Device, DeviceOptimizer, Tensor};
//! let mut optimizer = DeviceOptimizer::new(Cuda::open(0)?);
//! let group = optimizer.add_group(registry::optimizer("adamw_torch", &Args::new())?)?;
//! optimizer.add_param(group, &[1024, 1024], Dtype::F32)?;
//! // Raw device memory; for `CudaSlice`s there is `step_slices`, which is safe.
//! let value = optimizer.device().alloc(4 << 20)?;
//! let grad = optimizer.device().alloc(4 << 20)?;
//! let tensor = Tensor { value, len: 1 << 20, grad: Some((Dtype::F32, grad)) };
//! // SAFETY: both were allocated above, and nothing else uses them.
//! unsafe { optimizer.step(&[tensor], &[])? };
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The host computes the scalars of a step, as for every backend. All tensors that need the same
//! kernel share a launch. Tensors of common types have kernels that read them directly. Elementwise rules
//! that compute in `f32` decode, step and encode every other storage in one launch: split weights, Kahan's
//! compensation, stochastic rounding, and codes in blocks of 32, 64, 128 or 256, in any combination. What
//! remains (`f64` computed in `f32`, eager 16-bit arithmetic over codes, other blocks, rules that need sums)
//! is decoded in a workspace, stepped, and encoded again.
//!
//! [`apply_gradient_ops`] multiplies gradients, clips them by value, accumulates them and adds NEFTune's
//! noise. [`clip`] clips them by their norm, which stays on the device. [`norm`] only computes it, and a
//! step [applies the factor](DeviceOptimizer::set_grad_scale).
//!
//! A step consists of [`DeviceOptimizer::prepare`], the host's part, and [`DeviceOptimizer::launch`], the
//! device's, which may be captured in a CUDA graph. [`DeviceOptimizer::download`] reads the state, and
//! [`DeviceOptimizer::load`] writes it. Scalars that only the device computes (Adafactor's root mean
//! square, the norm of APOLLO's limiter) are read [on request](DeviceOptimizer::scalars).
//!
//! [`run`] steps with state that the caller manages, on any [`Device`]: the suite's backend `ptx` runs
//! it on an interpreter.
//!
//! Limits: products of matrices keep the core's fixed order, without cuBLAS. The host refreshes
//! projectors (GaLore, APOLLO), from the gradient that it reads back, or at random; a better projector
//! can be written to its slot. The core can project any rule, this crate those that the references
//! project. A rule or storage without kernels is refused before anything is launched.
// docs.rs marks what a feature brings.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(doctest, feature = "cuda"))]
#[doc = include_str!("../README.md")]
struct Page;

mod bytes;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod device_optimizer;
mod device_storage;
mod job;
mod kernel_spec;
mod plan;
#[cfg(feature = "cuda")]
mod slices;
mod step;
mod table;

use std::sync::OnceLock;

#[cfg(feature = "cuda")]
pub use cuda::{Cuda, CudaError};
pub use device::Device;
pub use device_optimizer::{DeviceOptimizer, Tensor};
pub use device_storage::DeviceStorage;
pub use job::{PERSISTENT_BYTES, ParamJob};
pub use plan::Workspace;
pub use plan::gradient::{DeviceSlice, GradientOp, apply_gradient_ops};
pub use plan::norms::{Clip, clip, norm};
#[cfg(feature = "cuda")]
pub use slices::{Pair, Slice, SliceMut};
pub use step::run;
use thiserror::Error;

/// The error of a step.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Error<E> {
    /// There is no kernel for this rule or storage. Nothing has been launched.
    #[error("no kernel for {0}")]
    NoKernel(String),
    /// An error of the core. Nothing has been launched.
    #[error(transparent)]
    Core(#[from] bitstep::Error),
    /// A null pointer, or one that is misaligned for the tensor's type. Nothing has been launched.
    #[error("tensor {tensor} is at {address:#x}, no multiple of {size} above 0")]
    Misaligned {
        /// The tensor, or its gradient.
        tensor: usize,
        /// Its address.
        address: u64,
        /// The size of an element.
        size: u64,
    },
    /// A tensor that is written overlaps another. Nothing has been launched.
    #[error("tensors {} and {} overlap", tensors[0], tensors[1])]
    Overlap {
        /// Their indices; either may be the tensor itself or its gradient.
        tensors: [usize; 2],
    },
    /// A parameter of another type than it was added with. Nothing has been launched.
    #[error("tensor {tensor} is of {got:?}, wanted {expected:?}")]
    Type {
        /// The tensor.
        tensor: usize,
        /// Its type.
        got: bitstep::float::Dtype,
        /// The type it was added with.
        expected: bitstep::float::Dtype,
    },
    /// An error of the device.
    #[error(transparent)]
    Device(E),
}

/// The PTX of all kernels.
pub fn ptx() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let packed = include_bytes!("../ptx/bitstep.ptx.zlib");
        let text = miniz_oxide::inflate::decompress_to_vec_zlib(packed).unwrap_or_default();
        String::from_utf8(text).unwrap_or_default()
    })
}

/// The PTX of one kernel with its header; `None` if there is no kernel of that name. A driver compiles
/// it much faster than all kernels.
pub fn kernel(name: &str) -> Option<String> {
    let text = ptx();
    let (head, _) = text.split_once(".visible .entry")?;
    let start = text.find(&format!(".visible .entry {name}("))?;
    let end = start + text[start..].find("\n}\n")? + 3;
    Some(format!("{head}{}", &text[start..end]))
}
