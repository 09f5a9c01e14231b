//! Reading what `torch.save` wrote, as plain data.
//!
//! A `.pt` file is a zip archive that holds a pickle, which is a program for a small machine that
//! may call anything, and the storages of its tensors. Here nothing is executed: of what a pickle
//! names, the constructors of tensors, parameters, dictionaries, sets and numpy's numbers are
//! understood; everything else becomes [`Value::Opaque`] under its name.
//!
//! What a file may ask for is limited, whatever it says of itself: [`DEPTH`], [`OBJECTS`],
//! [`OPERATIONS`], [`PICKLE`]. Each storage is read once and shared by its tensors; none is taken
//! to be longer than it is; and tensors that share storages have, laid out one by one, at most
//! twice the bytes of the archive, or [`SHARED`] if that is more.
//!
//! ```no_run
//! use bitstep_training::torch::{Value, read};
//! let Value::Dict(entries) = read("checkpoint-500/optimizer.pt".as_ref())? else { return Ok(()) };
//! # Ok::<(), bitstep_training::torch::TorchError>(())
//! ```

mod archive;
mod pickle;
mod plain;
mod state;
mod tensor;

use std::path::Path;

pub use safetensors::tensor::Dtype;
use thiserror::Error;

pub use state::{optimizer, scaler, scheduler};
pub use tensor::Tensor;

/// How deep values may nest.
pub const DEPTH: u32 = 100;
/// How many values a pickle may have, each counted as often as it is referred to.
pub const OBJECTS: u64 = 4 << 20;
/// How many operations a pickle may have.
pub const OPERATIONS: u64 = 16 << 20;
/// How many bytes a pickle may have, and its strings in all, each counted as often as it is
/// referred to.
pub const PICKLE: u64 = 64 << 20;
/// How many bytes tensors that share storages may have in any case.
pub const SHARED: u64 = 64 << 20;

/// Why a file can't be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// What `torch.save` wrote before PyTorch 1.6, and with
    /// `_use_new_zipfile_serialization=False`.
    #[error(
        "the format of torch.save before PyTorch 1.6, which is not read; to convert it: \
         `torch.save(torch.load(path, weights_only=True), path)`"
    )]
    OldFormat,
    /// Not a zip archive that `torch.save` wrote.
    #[error("not what torch.save writes: {0}")]
    Archive(String),
    /// A pickle that is cut off, or damaged, or of another kind than Python's.
    #[error("not what torch.save writes: byte {at} of its pickle: {what}")]
    Pickle {
        /// Where.
        at: usize,
        /// What is wrong there.
        what: String,
    },
    /// A file that asks for more than a file may.
    #[error("more {what} than the {limit} that a file may have")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// A tensor that does not fit its storage, or a storage that is not what it is said to be.
    #[error("not what torch.save writes: {0}")]
    Tensor(String),
    /// Readable, but not what was looked for.
    #[error("not what torch.save writes of {of}: {what}")]
    Content {
        /// What was looked for.
        of: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// A value of Python's, as plain data.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`; numpy's, too.
    Bool(bool),
    /// A whole number of up to 64 bits; numpy's, too.
    Int(i64),
    /// Any other number; numpy's, too.
    Float(f64),
    /// A string.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list, tuple or set.
    List(Vec<Value>),
    /// A dictionary in its order. Of two entries of one key, the later one counts.
    Dict(Vec<(Value, Value)>),
    /// A tensor or parameter.
    Tensor(Tensor),
    /// Anything else: its class, or what was called to make it. What it was made of is left out.
    Opaque(String),
}

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

/// Reads a pickle alone: `data.pkl` of an archive of `archive` bytes. `storage` is asked once for
/// the bytes of each storage by its key.
///
/// # Errors
/// [`TorchError`], those of `storage` among them.
pub fn unpickle(
    pickle: &[u8],
    archive: u64,
    storage: &mut dyn FnMut(&str) -> Result<Vec<u8>, TorchError>,
) -> Result<Value, TorchError> {
    plain::value(&pickle::run(pickle)?, archive, storage)
}
