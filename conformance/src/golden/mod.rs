//! Reads `bitstep-golden/1`: a file becomes a [`Case`] whose parts are known to fit together.
//!
//! Files are untrusted. One that is damaged, truncated, of another format or inconsistent gives a
//! [`GoldenError`] that names the file, the defect and the expected content; `limits` bounds the memory and
//! time that it may cause. Nothing here runs or compares anything: that is [`crate::backend`] and
//! [`crate::judge`].

mod error;
mod files;
mod gradient;
mod limits;
mod optimizer;
mod schedule;
mod tensors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use error::{GoldenError, Problem};
pub use files::files;
pub use gradient::{GradientCase, GradientTensor};
pub use limits::LARGEST;
pub use optimizer::{Given, Group, OptimizerCase, ParamCase};
pub use schedule::ScheduleCase;

use crate::read;
use crate::tensor::{Dtype, Tensor};
use tensors::Tensors;

/// The format's name, the value of `format` in every case.
pub const FORMAT: &str = "bitstep-golden/1";

/// The kind of reference that a case records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Optimizer,
    Schedule,
    Gradient,
}

impl Kind {
    /// The value of `kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Optimizer => "optimizer",
            Kind::Schedule => "schedule",
            Kind::Gradient => "gradient",
        }
    }
}

/// One run of one reference implementation.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file.
    pub path: PathBuf,
    /// `KIND/NAME/CASE`.
    pub id: String,
    /// Optimizer, schedule or gradient strategy.
    pub kind: Kind,
    /// Transformers' string, or the reference's class in snake case.
    pub name: String,
    /// Import path of the reference.
    pub reference: String,
    /// The reference's constructor arguments, without `groups`.
    pub hyper: Map<String, Value>,
    /// Number of steps.
    pub steps: usize,
    /// The mistake that the case is there to catch.
    pub note: String,
    /// All metadata, verbatim.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, by kind.
    pub data: Data,
}

/// The tensors of a case.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Data {
    Optimizer(OptimizerCase),
    Schedule(ScheduleCase),
    Gradient(GradientCase),
}

impl Case {
    /// Reads a file; `root` is the suite's folder, in which it should lie as `KIND/NAME/CASE.safetensors`.
    ///
    /// # Errors
    /// Anything that keeps the file from being a case.
    pub fn read(path: &Path, root: &Path) -> Result<Case, GoldenError> {
        let located = |problem| GoldenError { file: path.to_owned(), problem };
        let bytes = read::at_most(path, LARGEST).map_err(|e| located(Problem::Io(e)))?;
        Case::of(&bytes, path, root)
    }

    /// The case of a file's bytes, at its place in a suite.
    pub(crate) fn of(bytes: &[u8], path: &Path, root: &Path) -> Result<Case, GoldenError> {
        let located = |problem| GoldenError { file: path.to_owned(), problem };
        let mut case = Case::parse(bytes).map_err(located)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        case.id = format!("{}/{}/{stem}", case.kind.name(), case.name);
        path.clone_into(&mut case.path);
        if let Ok(inside) = path.strip_prefix(root)
            && inside.components().count() == 3
            && inside.with_extension("") != Path::new(&case.id)
        {
            let (folder, says) = (inside.display().to_string(), case.id);
            return Err(located(Problem::Misplaced { folder, says }));
        }
        Ok(case)
    }

    /// Reads the bytes of a file; path and id stay empty.
    ///
    /// # Errors
    /// Anything that keeps the bytes from being a case.
    pub fn parse(bytes: &[u8]) -> Result<Case, Problem> {
        let (metadata, tensors) = split(bytes)?;
        match metadata.get("format") {
            Some(f) if f == FORMAT => {}
            found => return Err(Problem::Foreign { found: found.cloned() }),
        }
        let key = |key: &'static str| metadata.get(key).ok_or(Problem::MissingKey(key));
        let kind = match key("kind")?.as_str() {
            "optimizer" => Kind::Optimizer,
            "schedule" => Kind::Schedule,
            "gradient" => Kind::Gradient,
            other => return Err(Problem::UnknownKind(other.to_owned())),
        };
        let name = key("name")?.clone();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Problem::key("name", &name, "a name that can be a folder's"));
        }
        let steps = key("steps")?;
        let steps = steps
            .parse()
            .map_err(|_| Problem::key("steps", steps, "a whole number, at least 0"))?;
        limits::steps(steps, bytes.len())?;
        let hyper_text = key("hyper")?;
        limits::length("hyper", hyper_text)?;
        let Ok(Value::Object(mut hyper)) = serde_json::from_str(&quote_non_finite(hyper_text))
        else {
            return Err(Problem::key("hyper", hyper_text, "a JSON object"));
        };
        limits::sizes(&hyper)?;
        let mut tensors = Tensors(tensors);
        let data = match kind {
            Kind::Optimizer => {
                let groups = hyper.remove("groups");
                let data = optimizer::read(&mut tensors, steps, &hyper, groups)?;
                limits::rank(&data, bytes.len())?;
                Data::Optimizer(data)
            }
            Kind::Schedule => Data::Schedule(schedule::read(&mut tensors, steps)?),
            Kind::Gradient => Data::Gradient(gradient::read(&mut tensors, &name)?),
        };
        let text = |key| metadata.get(key).cloned().unwrap_or_default();
        let (reference, note) = (text("reference"), text("note"));
        let (path, id) = (PathBuf::new(), String::new());
        Ok(Case { path, id, kind, name, reference, hyper, steps, note, metadata, data })
    }

    /// The type that a report shows: the first parameter's, the first gradient's, `f64` for rates.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        match &self.data {
            Data::Optimizer(c) => c.params.first().map_or(Dtype::F32, |p| p.init.dtype),
            Data::Schedule(_) => Dtype::F64,
            Data::Gradient(c) => c.tensors.first().map_or(Dtype::F32, |g| g.input.dtype),
        }
    }
}

pub(crate) type Split = (BTreeMap<String, String>, BTreeMap<String, Tensor>);

/// Splits a safetensors file into metadata and tensors.
pub(crate) fn split(bytes: &[u8]) -> Result<Split, Problem> {
    let damaged = |e: safetensors::SafeTensorError| Problem::Damaged(e.to_string());
    limits::header(bytes)?;
    let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let file = safetensors::SafeTensors::deserialize(bytes).map_err(damaged)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    for (name, view) in file.iter() {
        limits::shape(name, view.shape(), bytes.len())?;
    }
    let tensors = file.iter().filter_map(|(name, view)| {
        // A tensor of a type that no case uses is unknown, and skipped.
        let dtype = Dtype::of(view.dtype())?;
        let tensor = Tensor { dtype, shape: view.shape().to_vec(), bytes: view.data().to_vec() };
        Some((name.to_owned(), tensor))
    });
    Ok((metadata, tensors.collect()))
}

/// Quotes `NaN`, `Infinity` and `-Infinity`, which Python writes into JSON and JSON does not have.
fn quote_non_finite(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    let mut inside = false;
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].iter().find(|w| rest.starts_with(**w));
        let taken = match word {
            Some(word) if !inside => {
                out.extend(["\"", word, "\""]);
                word.len()
            }
            _ => {
                let escaped = inside && c == '\\';
                let n = rest.chars().take(1 + usize::from(escaped)).map(char::len_utf8).sum();
                out.push_str(&rest[..n]);
                inside ^= c == '"';
                n
            }
        };
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::quote_non_finite;

    #[test]
    fn quote_non_finite_leaves_strings_alone() {
        let json = r#"{"a": Infinity, "b": [-Infinity, NaN], "c\"NaN": "Infinity \\", "d": NaN}"#;
        let want =
            r#"{"a": "Infinity", "b": ["-Infinity", "NaN"], "c\"NaN": "Infinity \\", "d": "NaN"}"#;
        assert_eq!(quote_non_finite(json), want);
    }
}
