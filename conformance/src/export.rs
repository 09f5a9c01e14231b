//! Starts the Python exporter, which runs the references, and writes the skeleton of a new case for it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use crate::built_in;

/// Why the exporter failed, or no skeleton was written.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum ExportError {
    #[error("the exporter can't be started: {0}: {1}")]
    Start(PathBuf, std::io::Error),
    #[error("the exporter did not succeed: {0}")]
    Failed(std::process::ExitStatus),
    #[error(
        "the exporter is not built in (feature `vectors` of bitstep-conformance): build with the feature, or \
         run this in a checkout"
    )]
    NotBuiltIn,
    #[error("the name `{0}` is none for a file: wanted a-z, 0-9 and _, a letter first")]
    Name(String),
    #[error("the reference `{0}` is no import path, such as torch.optim.AdamW")]
    Reference(String),
    #[error("{0}: {1}")]
    Write(PathBuf, std::io::Error),
}

/// The exporter's folder in a place without a checkout.
const UNPACKED: &str = "bitstep-export";

/// The exporter's folder: that of a checkout, or where there is none, `bitstep-export` in the current folder. It
/// is written the first time; from then on it is the user's, cases of theirs included.
///
/// # Errors
/// It can't be written, or the exporter is not built in.
pub fn folder() -> Result<PathBuf, ExportError> {
    if let Some(checkout) = built_in::checkout() {
        return Ok(checkout.join("export"));
    }
    let folder = PathBuf::from(UNPACKED);
    if !folder.is_dir() {
        if built_in::exporter().is_empty() {
            return Err(ExportError::NotBuiltIn);
        }
        let failed = |e| ExportError::Write(folder.clone(), e);
        // Half an exporter must not be taken for a whole one.
        let unpacked = tempfile::tempdir_in(".").map_err(failed)?;
        unpack(unpacked.path()).map_err(failed)?;
        std::fs::rename(unpacked.path(), &folder).map_err(failed)?;
        eprintln!("the exporter is in {UNPACKED}");
    }
    Ok(folder)
}

/// Writes the exporter's files.
fn unpack(to: &Path) -> std::io::Result<()> {
    for (inside, bytes) in built_in::exporter() {
        let path = to.join(inside);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, bytes)?;
        #[cfg(unix)]
        if bytes.starts_with(b"#!") {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Writes a suite of this seed to a folder: one name's cases, or all.
///
/// # Errors
/// The exporter can't be started, or ends with an error, which it has printed.
pub fn run(seed: u64, out: &Path, only: Option<&str>) -> Result<(), ExportError> {
    let program = folder()?.join("run");
    let mut command = Command::new(&program);
    command.arg("--seed").arg(seed.to_string()).arg("--out").arg(out);
    command.args(only.iter().flat_map(|name| ["--only", name]));
    let status = command.status().map_err(|e| ExportError::Start(program, e))?;
    if status.success() { Ok(()) } else { Err(ExportError::Failed(status)) }
}

/// The references as a program, by the exporter's Python: that of `BITSTEP_VENV_MAIN`, or of the environment that
/// `export/run` made.
///
/// # Errors
/// As [`folder`].
pub fn reference() -> Result<String, ExportError> {
    let folder = folder()?;
    let venv = std::env::var_os("BITSTEP_VENV_MAIN").map(PathBuf::from);
    let python = venv.unwrap_or_else(|| folder.join(".venv")).join("bin").join("python");
    let program = folder.join("reference.py");
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
    Ok(format!("exec-loop:{} -B {}", quoted(&python), quoted(&program)))
}

/// Writes the skeleton of the file that exports a reference.
///
/// # Errors
/// An invalid name or reference, or a file that exists already.
pub fn new_case(
    name: &str,
    reference: &str,
    schedule: bool,
    folder: &Path,
) -> Result<PathBuf, ExportError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
        return Err(ExportError::Name(name.to_owned()));
    }
    let (module, class) = import_path(reference)?;
    let path = folder.join(format!("{name}.py"));
    let text = if schedule {
        format!(
            "from {module} import {class}

from schedules import Schedules

ENV = \"main\"


def cases(seed):
    s = Schedules(\"{name}\", {class}, seed)
    # Arguments without a default have to be given; the steps go beyond whatever the schedule has an end.
    yield s.case(\"default\", \"what it is there to catch\", {{}}, steps=50)
    yield s.case(\"groups\", \"each group from its own rate\", {{}}, groups=3, steps=60)
    yield s.case(\"resumed\", \"resumed after step 20\", {{\"last_epoch\": 20}}, steps=40)
"
        )
    } else {
        optimizer_case(name, module, class)
    };
    let failed = |e| ExportError::Write(path.clone(), e);
    let mut file = std::fs::File::create_new(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(path)
}

/// The module and the class of an import path.
pub(crate) fn import_path(reference: &str) -> Result<(&str, &str), ExportError> {
    let word = |part: &str| {
        let rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && part.chars().all(rest)
    };
    let path = reference.rsplit_once('.').filter(|_| reference.split('.').all(word));
    path.ok_or_else(|| ExportError::Reference(reference.to_owned()))
}

/// The beginning of the file that exports an optimizer.
pub(crate) fn optimizer_case(name: &str, module: &str, class: &str) -> String {
    format!(
        "from {module} import {class}

from battery import battery, maker

ENV = \"main\"


def cases(seed):
    case = maker(\"{name}\", {class}, seed)
    # FILL IN arguments under which wrong rules part from the right one: a large rate, a large decay, no default.
    yield from battery(case, {{\"lr\": 0.05}})
    # FILL IN what the battery doesn't know: a case for every option of its own.
    for d in (\"f32\", \"f64\", \"bf16\", \"f16\"):
        yield case(f\"option_{{d}}\", \"what it is there to catch\", {{\"lr\": 0.05}}, dtype=d, steps=12)
"
    )
}
