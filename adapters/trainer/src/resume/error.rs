//! The error of resuming a reference's run.

use bitstep::hyper::ArgError;
use thiserror::Error;

/// The error of resuming a reference's run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// A number that differs.
    #[error("{what}: {saved} in the checkpoint, {here} here")]
    Count {
        /// The counted objects.
        what: String,
        /// Their number in the checkpoint.
        saved: usize,
        /// Their number here.
        here: usize,
    },
    /// A value that the next step needs is missing.
    #[error("{of}: no `{key}` in the checkpoint")]
    Missing {
        /// The object it belongs to.
        of: String,
        /// Its key.
        key: String,
    },
    /// State in another storage than here.
    #[error("parameter {parameter}, `{slot}`: {saved} in the checkpoint, {here} here")]
    Storage {
        /// The parameter's index.
        parameter: usize,
        /// The state slot.
        slot: String,
        /// The storage in the checkpoint.
        saved: String,
        /// The storage here.
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
