//! Why a reference's run can't be gone on with.

use bitstep::hyper::ArgError;
use thiserror::Error;

/// Why a reference's run can't be gone on with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// Not the same number of something.
    #[error("{what}: {saved} in the checkpoint, {here} here")]
    Count {
        /// What is counted.
        what: String,
        /// In the checkpoint.
        saved: usize,
        /// Here.
        here: usize,
    },
    /// Something that the next step depends on is missing.
    #[error("{of}: no `{key}` in the checkpoint")]
    Missing {
        /// Whose it is.
        of: String,
        /// Its key.
        key: String,
    },
    /// State that rests in memory otherwise than here.
    #[error("parameter {parameter}, `{slot}`: {saved} in the checkpoint, {here} here")]
    Storage {
        /// The parameter's number.
        parameter: usize,
        /// Which of its state.
        slot: String,
        /// How it rests in the checkpoint.
        saved: String,
        /// How it rests here.
        here: String,
    },
    /// A schedule of another kind.
    #[error("a schedule of {saved} in the checkpoint, `{here}` here")]
    Schedule {
        /// The reference's class.
        saved: String,
        /// The name here.
        here: String,
    },
    /// A hyper-parameter that is refused.
    #[error(transparent)]
    Argument(#[from] ArgError),
    /// A state that is refused.
    #[error(transparent)]
    Core(#[from] bitstep::Error),
}
