//! Why a file can't be read.

use thiserror::Error;

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
