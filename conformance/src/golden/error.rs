//! Why a file is not a case.

use std::path::PathBuf;

use bitstep::hyper::Short;
use thiserror::Error;

use crate::tensor::Dtype;

/// A file and its defect.
#[derive(Debug, Error)]
#[error("{}: {problem}", file.display())]
pub struct GoldenError {
    /// The file, or the suite's folder.
    pub file: PathBuf,
    /// The defect.
    pub problem: Problem,
}

/// A defect of a file.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Problem {
    #[error("can't be read: {0}")]
    Io(String),
    #[error(
        "not read: the files before it in the suites have {0} bytes, as many as are read at once"
    )]
    TooMuch(u64),
    #[error("can't be drawn anew: the core, which has to say what is right, refuses it: {0}")]
    NoOracle(String),
    #[error("no golden cases (`*.safetensors`) in this folder")]
    Empty,
    #[error(
        "not built in (feature `vectors` of bitstep-conformance), and there is no checkout: build with the \
         feature, or pass the folder of a suite (--golden DIR)"
    )]
    NotBuiltIn,
    #[error("damaged, or no safetensors file: {0}")]
    Damaged(String),
    #[error("foreign: `format` is {}, wanted `bitstep-golden/1`", found.as_ref().map_or("missing".into(), |f| format!("`{}`", Short(f))))]
    Foreign { found: Option<String> },
    #[error("the metadata lacks `{0}`")]
    MissingKey(&'static str),
    #[error("`{}` in the metadata is `{}`, wanted {expected}", Short(key), Short(value))]
    Key { key: String, value: String, expected: String },
    #[error("unknown kind `{}`, wanted `optimizer`, `schedule` or `gradient`", Short(.0))]
    UnknownKind(String),
    #[error("lies at `{folder}` but says that it is `{says}`")]
    Misplaced { folder: String, says: String },
    #[error("tensor `{}` is missing", Short(.0))]
    MissingTensor(String),
    #[error("tensor `{tensor}` has shape {got:?}, wanted {expected:?}")]
    Shape { tensor: String, got: Vec<usize>, expected: Vec<usize> },
    #[error("tensor `{tensor}` has shape {got:?}, wanted {expected}")]
    Dimensions { tensor: String, got: Vec<usize>, expected: String },
    #[error("tensor `{tensor}` is of type {got}, wanted {expected}")]
    Dtype { tensor: String, got: Dtype, expected: String },
    #[error("tensor `{tensor}` is NaN at index {index}, where none may be")]
    Nan { tensor: String, index: usize },
    #[error("tensor `{tensor}` is {value} at index {index}, wanted {expected}")]
    Value { tensor: String, index: usize, value: f64, expected: String },
}

impl Problem {
    pub(super) fn key(key: &str, value: &str, expected: &str) -> Problem {
        // The head of a long value is enough to recognize it.
        let mut shown: String = value.chars().take(200).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Problem::Key { key: key.to_owned(), value: shown, expected: expected.to_owned() }
    }
}
