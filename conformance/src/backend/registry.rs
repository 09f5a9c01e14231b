//! Looks up backends by name.

use std::time::Duration;

use thiserror::Error;

use crate::Core;
use crate::backend::Backend;
use crate::exec::Exec;

/// A failed lookup.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum UnknownBackend {
    /// No backend that is compiled in has this name.
    #[error(
        "unknown backend `{0}`, known: {known}, exec:COMMAND, exec-loop:COMMAND \
         (`candle` and `cuda` need `--features` of their names)",
        known = [NAMES, PARTIAL].concat().join(", ")
    )]
    Unknown(String),
}

/// The compiled-in backends that run by default.
pub const NAMES: &[&str] = &[
    "core",
    #[cfg(feature = "ndarray")]
    "ndarray",
    #[cfg(feature = "candle")]
    "candle",
];

/// Further names that [`backend`] knows: backends without an implementation of everything, which run on request.
pub const PARTIAL: &[&str] = &[
    #[cfg(feature = "ptx")]
    "ptx",
    #[cfg(feature = "cuda")]
    "cuda",
];

/// The backend of a name: one of [`NAMES`] or [`PARTIAL`], or a program. `limit` bounds the time that a program
/// has for an answer.
///
/// # Errors
/// An unknown name.
pub fn backend(name: &str, limit: Duration) -> Result<Box<dyn Backend>, UnknownBackend> {
    if let Some(exec) = Exec::new(name, limit) {
        return Ok(Box::new(exec));
    }
    match name {
        "core" => Ok(Box::new(Core)),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Box::new(crate::Ndarray { fortran: false, grain: 1 << 15 })),
        #[cfg(feature = "candle")]
        "candle" => Ok(Box::new(crate::Candle { grain: 1 << 15 })),
        #[cfg(feature = "ptx")]
        "ptx" => Ok(Box::new(crate::Ptx)),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Box::new(crate::Cuda)),
        _ => Err(UnknownBackend::Unknown(name.to_owned())),
    }
}
