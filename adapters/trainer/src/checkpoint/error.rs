//! The error of saving or resuming a run.

use bitstep::hyper::{ArgError, Short};
use serde_json::Value as Json;
use thiserror::Error;

/// The error of saving or resuming a run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("not a whole safetensors file: {0}")]
    SafeTensors(#[from] safetensors::SafeTensorError),
    /// A safetensors file that is no checkpoint.
    #[error("metadata: {0}")]
    Metadata(String),
    /// A checkpoint of another program, or of a later version of this one.
    #[error("`format` is {}, known are {known}", Short(found))]
    Format {
        /// The format of the file.
        found: String,
        /// The formats that can be read.
        known: String,
    },
    /// A value that the earlier version never wrote.
    #[error("`{key}` is {}, which no version has written", Short(found))]
    Word {
        /// The key.
        key: &'static str,
        /// Its value in the file.
        found: String,
    },
    /// A duplicate name, a name that a file can't have, or another number of names than parameters.
    #[error("names of parameters: {0}")]
    Names(String),
    /// A missing tensor.
    #[error("no tensor `{}`", Short(.0))]
    Missing(String),
    /// A tensor or parameter that is not used here.
    #[error("`{}` belongs to nothing that is being resumed", Short(.0))]
    Surplus(String),
    /// A tensor of another shape or type.
    #[error("`{}` is {}, wanted {expected}", Short(name), Short(got))]
    Tensor {
        /// The tensor.
        name: String,
        /// Shape and type in the file.
        got: String,
        /// Shape and type in the optimizer.
        expected: String,
    },
    /// A group with another spec than when it was saved.
    #[error("group {group}: {} was {} and is {here}", Short(what), Short(saved))]
    Recipe {
        /// The group's index.
        group: usize,
        /// The rule, a hyper-parameter, or a storage.
        what: String,
        /// The saved value.
        saved: String,
        /// The value here.
        here: String,
    },
    /// Another number of groups or schedules, or another group of a parameter.
    #[error("{what} were {saved} and are {here}")]
    Layout {
        /// The objects.
        what: String,
        /// The saved value.
        saved: usize,
        /// The value here.
        here: usize,
    },
    /// The written file reads back differently. The old file is unchanged.
    #[error("{path}: what was written is not what is read back: {what}")]
    ReadBack {
        /// The file.
        path: String,
        /// The difference.
        what: String,
    },
    /// A schedule that differs from the saved one.
    #[error("schedule {schedule}: {what} was {saved} and is {here}")]
    Schedule {
        /// The schedule's index.
        schedule: usize,
        /// Its name, or an argument.
        what: String,
        /// The saved value.
        saved: String,
        /// The value here.
        here: String,
    },
    /// An argument that is refused.
    #[error(transparent)]
    Argument(#[from] ArgError),
    /// A state that the core refuses.
    #[error(transparent)]
    Core(#[from] bitstep::Error),
}

/// A value of a file, as error messages show it.
pub(super) fn in_words(json: Option<&Json>) -> String {
    json.map_or("nothing".to_owned(), Json::to_string)
}
