//! bitstep on CUDA.
//!
//! The kernels are the core itself, compiled by rustc for the GPU: the same source, the same
//! roundings, and so the same bits. They come with this crate as PTX ([`ptx`]); what is needed to
//! run is the driver alone.
//!
//! [`run`] makes one step of any number of tensors in a few launches, on any [`Device`].

mod device;
mod plan;
#[path = "../kernels/src/table.rs"]
mod table;
mod typed;

use std::sync::OnceLock;

pub use device::Device;
pub use plan::{Job, Place, Workspace, run};
use thiserror::Error;

/// Why a step was not made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error<E> {
    /// There is no kernel for this rule or storage. Nothing has been launched.
    #[error("no kernel for {0}")]
    NoKernel(String),
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
