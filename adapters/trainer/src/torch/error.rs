//! The error of reading a file.

use thiserror::Error;

/// The error of reading a file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of the format of `torch.save` before PyTorch 1.6, or with
    /// `_use_new_zipfile_serialization=False`.
    #[error(
        "the format of torch.save before PyTorch 1.6, which is not read; to convert it: \
         `torch.save(torch.load(path, weights_only=True), path)`"
    )]
    OldFormat,
    /// Not a zip archive of `torch.save`.
    #[error("not what torch.save writes: {0}")]
    Archive(String),
    /// A pickle that is truncated, damaged or not valid.
    #[error("not what torch.save writes: byte {at} of its pickle: {what}")]
    Pickle {
        /// The offset.
        at: usize,
        /// The problem.
        what: String,
    },
    /// A file that exceeds a limit.
    #[error("more {what} than the {limit} that a file may have")]
    Limit {
        /// The limited resource.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A tensor that exceeds its storage, or a storage of another size than declared.
    #[error("not what torch.save writes: {0}")]
    Tensor(String),
    /// A readable file with other contents than expected.
    #[error("not what torch.save writes of {of}: {what}")]
    Content {
        /// The expected contents.
        of: &'static str,
        /// The problem.
        what: String,
    },
}
