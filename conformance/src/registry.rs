//! Backends by name.

use thiserror::Error;

use crate::Core;
use crate::backend::Backend;

/// A name that no backend has.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("unknown backend `{0}`, known: {known}", known = NAMES.join(", "))]
pub struct UnknownBackend(pub String);

/// Every name that [`backend`] knows.
pub const NAMES: &[&str] = &["core"];

/// The backend of a name.
///
/// # Errors
/// An unknown name.
pub fn backend(name: &str) -> Result<Box<dyn Backend>, UnknownBackend> {
    match name {
        "core" => Ok(Box::new(Core)),
        _ => Err(UnknownBackend(name.to_owned())),
    }
}
