//! What a text or a kernel may do wrong.

use thiserror::Error;

/// Why a text can't be read, or a kernel not be run to its end.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The text is no PTX of the kind that this interpreter knows.
    #[error("line {line}: {what}")]
    Parse {
        /// Counted from 1.
        line: usize,
        /// What was found, or expected.
        what: String,
    },
    /// No such kernel, or other parameters than it has.
    #[error("{0}")]
    Launch(String),
    /// An access that a GPU would fault at, or make of it what it likes.
    #[error("{bytes} bytes at {address:#x}: {what}")]
    Access {
        /// Where.
        address: u64,
        /// How many.
        bytes: usize,
        /// What is wrong about it.
        what: &'static str,
    },
    /// An error in the midst of a kernel.
    #[error("{kernel}, line {line}, thread {thread} of block {block}: {error}")]
    Fault {
        /// The kernel.
        kernel: String,
        /// The line of the instruction.
        line: usize,
        /// The first thread that it befell.
        thread: u32,
        /// Its block.
        block: u32,
        /// What happened.
        error: Box<Error>,
    },
}
