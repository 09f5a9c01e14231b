//! bitstep on CUDA.
//!
//! The kernels are the core itself, compiled by rustc for the GPU: the same source, the same
//! roundings, and so the same bits. They come with this crate as PTX ([`ptx`]); what is needed to
//! run is the driver alone, and that is found at run time.
//!
//! [`DeviceOptimizer`] keeps an optimizer's state in the device's memory and makes one step of any number
//! of tensors in a few launches, on a stream of the caller's:
//!
//! ```no_run
//! use bitstep::{hyper::Args, registry, float::Dtype};
//! use bitstep_cudarc::{Cuda, Device, DeviceOptimizer, UpdateBuffers};
//! let mut optimizer = DeviceOptimizer::new(Cuda::open(0)?);
//! let group = optimizer.add_group(registry::optimizer("adamw_torch", &Args::new())?)?;
//! optimizer.add_param(group, &[1024, 1024], Dtype::F32)?;
//! // Memory of your own; for `CudaSlice`s there is `step_slices`, which is safe.
//! let value = optimizer.device().alloc(4 << 20)?;
//! let grad = optimizer.device().alloc(4 << 20)?;
//! let tensor = UpdateBuffers { value, len: 1 << 20, grad: Some((Dtype::F32, grad)) };
//! // SAFETY: both were allocated above, and nobody else has them.
//! unsafe { optimizer.step(&[tensor], &[])? };
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The numbers of a step are computed by the host, as for every backend. All tensors that need the
//! same kernel go in one launch. Tensors of one type run kernels of their own; other storages are
//! decoded to plain numbers in a workspace, and encoded again.
//!
//! [`apply_gradient_ops`] is for gradients: multiplication, clipping by value, accumulation, NEFTune; [`clip`]
//! clips them by their norm, which never leaves the device; or [`norm`] only finds it, and a step
//! [reads it](DeviceOptimizer::set_grad_scale).
//!
//! Products of matrices have the core's fixed order. Projectors (GaLore, APOLLO) are renewed by the
//! host, from the gradient, which is read back when it is time, or drawn at random; a better one is
//! written into its slot. In the core, any rule can be projected; here, those of the references can.
//! What has no kernels is refused before anything is launched.
//!
//! A step is [`DeviceOptimizer::prepare`], the host's part, and [`DeviceOptimizer::launch`], the device's, which
//! may be captured in a CUDA graph. State comes back with [`DeviceOptimizer::download`] and goes on with
//! [`DeviceOptimizer::load`]. What a device keeps for itself (the root mean square that Adafactor notes,
//! the norm that APOLLO limits) is read when it is [asked for](DeviceOptimizer::scalars).
//!
//! [`run`] is the same for state of the caller's, on any [`Device`]: the suite's backend `ptx` runs
//! it on an interpreter.

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
#[path = "../kernels/src/table.rs"]
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

/// Why a step was not made.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Error<E> {
    /// There is no kernel for this rule or storage. Nothing has been launched.
    #[error("no kernel for {0}")]
    NoKernel(String),
    /// Refused by the core. Nothing has been launched.
    #[error(transparent)]
    Core(#[from] bitstep::Error),
    /// A null pointer, or one that no number of the tensor's type can have. Nothing has been launched.
    #[error("tensor {tensor} is at {address:#x}, no multiple of {size} above 0")]
    Misaligned {
        /// The tensor, or its gradient.
        tensor: usize,
        /// Where it was said to be.
        address: u64,
        /// The size of a number.
        size: u64,
    },
    /// Memory that is written here and used there. Nothing has been launched.
    #[error("tensors {} and {} overlap", tensors[0], tensors[1])]
    Overlap {
        /// Which, each with its gradient.
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
    /// The device's own.
    #[error(transparent)]
    Device(E),
}

/// The kernels' text.
pub fn ptx() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let packed = include_bytes!("../ptx/bitstep.ptx.zlib");
        let text = miniz_oxide::inflate::decompress_to_vec_zlib(packed).unwrap_or_default();
        String::from_utf8(text).unwrap_or_default()
    })
}

/// The text of one kernel alone, with what it needs of the rest; `None` if there is none of that
/// name. A driver compiles it much faster than all of them.
pub fn kernel(name: &str) -> Option<String> {
    let text = ptx();
    let (head, _) = text.split_once(".visible .entry")?;
    let start = text.find(&format!(".visible .entry {name}("))?;
    let end = start + text[start..].find("\n}\n")? + 3;
    Some(format!("{head}{}", &text[start..end]))
}
