//! Why a run can't be saved or resumed.

use bitstep::hyper::{ArgError, Short};
use serde_json::Value as Json;
use thiserror::Error;

/// Why a run can't be saved or resumed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("not a whole safetensors file: {0}")]
    SafeTensors(#[from] safetensors::SafeTensorError),
    /// A safetensors file, but not one of these.
    #[error("metadata: {0}")]
    Metadata(String),
    /// A checkpoint of another program, or of a later version of this one.
    #[error("`format` is {}, known are {known}", Short(found))]
    Format {
        /// What the file says.
        found: String,
        /// What can be read.
        known: String,
    },
    /// A word of an earlier version that it never wrote.
    #[error("`{key}` is {}, which no version has written", Short(found))]
    Word {
        /// The key.
        key: &'static str,
        /// What stands there.
        found: String,
    },
    /// Two parameters of one name, one that a file can't have, or not a name for each parameter.
    #[error("names of parameters: {0}")]
    Names(String),
    /// A tensor that is needed and not there.
    #[error("no tensor `{}`", Short(.0))]
    Missing(String),
    /// A tensor, or a parameter, that nothing here asks for.
    #[error("`{}` belongs to nothing that is being resumed", Short(.0))]
    Surplus(String),
    /// A tensor of another shape or type.
    #[error("`{}` is {}, wanted {expected}", Short(name), Short(got))]
    Tensor {
        /// The tensor.
        name: String,
        /// What stands in the file.
        got: String,
        /// What the optimizer has.
        expected: String,
    },
    /// A group that moves otherwise than when it was saved.
    #[error("group {group}: {} was {} and is {here}", Short(what), Short(saved))]
    Recipe {
        /// The group's number.
        group: usize,
        /// The rule, a hyper-parameter, or a storage.
        what: String,
        /// What was saved.
        saved: String,
        /// What is being resumed.
        here: String,
    },
    /// Not the same number of groups or schedules, or another group for a parameter.
    #[error("{what} were {saved} and are {here}")]
    Layout {
        /// What is counted.
        what: String,
        /// When saved.
        saved: usize,
        /// Now.
        here: usize,
    },
    /// What has been written is not what is read back. The old file is still there.
    #[error("{path}: what was written is not what is read back: {what}")]
    ReadBack {
        /// The file.
        path: String,
        /// What differs.
        what: String,
    },
    /// A schedule that runs otherwise than when it was saved.
    #[error("schedule {schedule}: {what} was {saved} and is {here}")]
    Schedule {
        /// The schedule's number.
        schedule: usize,
        /// Its name, or an argument.
        what: String,
        /// What was saved.
        saved: String,
        /// What is being resumed.
        here: String,
    },
    /// An argument that is refused.
    #[error(transparent)]
    Argument(#[from] ArgError),
    /// A state that the core refuses.
    #[error(transparent)]
    Core(#[from] bitstep::Error),
}

/// What stands in a file, in the words of an error.
pub(super) fn in_words(json: Option<&Json>) -> String {
    json.map_or("nothing".to_owned(), Json::to_string)
}
