//! Reading files of `torch.save` as plain data.
//!
//! A `.pt` file is a zip archive of a pickle and the storages of its tensors. A pickle is a program for
//! a stack machine, which could call anything. Here nothing is executed: the constructors of tensors,
//! parameters, dictionaries, sets and numpy's numbers are understood, and anything else becomes
//! [`Value::Opaque`] with its name.
//!
//! Files are untrusted, and their demands are limited: [`DEPTH`], [`OBJECTS`], [`OPERATIONS`],
//! [`PICKLE`]. Each storage is read once and shared by its tensors; its declared length is checked
//! against the actual one. Tensors that share storages may have, all copied out, at most twice the bytes
//! of the archive, or [`SHARED`] if that is more.
//!
//! ```no_run
//! use bitstep_trainer::torch::{Value, read};
//! let Value::Dict(entries) = read("checkpoint-500/optimizer.pt".as_ref())? else { return Ok(()) };
//! # Ok::<(), bitstep_trainer::torch::TorchError>(())
//! ```

mod archive;
mod error;
mod pickle;
mod plain;
mod state;
mod tensor;

use std::path::Path;

pub use safetensors::tensor::Dtype;

pub use error::TorchError;
pub use pickle::{OBJECTS, OPERATIONS, PICKLE};
pub use plain::{DEPTH, SHARED, Value, unpickle};
pub use state::{optimizer, scaler, scheduler};
pub use tensor::Tensor;

/// Reads a file.
///
/// # Errors
/// [`TorchError`].
pub fn read(path: &Path) -> Result<Value, TorchError> {
    let io = |source| TorchError::Io { path: path.display().to_string(), source };
    let (file, _) = crate::file::open(path).map_err(io)?;
    archive::read(std::io::BufReader::new(file))
}

/// Reads the bytes of a file.
///
/// # Errors
/// [`TorchError`].
pub fn parse(bytes: &[u8]) -> Result<Value, TorchError> {
    archive::read(std::io::Cursor::new(bytes))
}
