//! Backends by name.

use thiserror::Error;

use crate::Core;
use crate::backend::Backend;

/// A name that no backend has, or none that was compiled in.
#[derive(Clone, Debug, Error, PartialEq)]
#[error(
    "unknown backend `{0}`, known: {known} (`candle` needs `--features candle`)",
    known = NAMES.join(", ")
)]
pub struct UnknownBackend(pub String);

/// Every name that [`backend`] knows.
pub const NAMES: &[&str] = &[
    "core",
    #[cfg(feature = "ndarray")]
    "ndarray",
    #[cfg(feature = "candle")]
    "candle",
];

/// The backend of a name.
///
/// # Errors
/// An unknown name.
pub fn backend(name: &str) -> Result<Box<dyn Backend>, UnknownBackend> {
    match name {
        "core" => Ok(Box::new(Core)),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Box::new(crate::Ndarray { fortran: false, grain: 1 << 15 })),
        #[cfg(feature = "candle")]
        "candle" => Ok(Box::new(crate::Candle { grain: 1 << 15 })),
        _ => Err(UnknownBackend(name.to_owned())),
    }
}
