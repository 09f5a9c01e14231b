//! What a text or a kernel may do wrong.

use thiserror::Error;

/// Why a module can't be parsed, or a kernel not run to its end.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// PTX that this interpreter does not implement.
    #[error("line {line}: {what}")]
    Parse {
        /// The line, from 1.
        line: usize,
        /// The unknown or the expected item.
        what: String,
    },
    /// An unknown kernel, or a wrong number of parameters.
    #[error("{0}")]
    Launch(String),
    /// An access that faults, or is undefined, on a GPU.
    #[error("{bytes} bytes at {address:#x}: {what}")]
    Access {
        /// The address.
        address: u64,
        /// The number of bytes.
        bytes: usize,
        /// The kind of error.
        what: &'static str,
    },
    /// An error inside of a kernel.
    #[error("{kernel}, line {line}, thread {thread} of block {block}: {error}")]
    Fault {
        /// The kernel.
        kernel: String,
        /// The line of the instruction.
        line: usize,
        /// The first thread with the error.
        thread: u32,
        /// Its block.
        block: u32,
        /// The error.
        error: Box<Error>,
    },
}
