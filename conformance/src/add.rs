//! Begins an optimizer: writes what follows from its name and its reference, and says what is left to do.
//!
//! Everything that an optimizer touches is in [`TOUCHED`], which `CONTRIBUTING.md` shows as a table; a test compares the two.

mod edits;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use crate::built_in;
use crate::export::{self, ExportError};

/// How a file comes to know of a new optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `add NAME` writes it, or into it.
    Added,
    /// The same, and a command completes it.
    Completed(&'static str),
    /// A command writes it anew: `add NAME --regenerate`.
    Regenerated(&'static str),
    /// By hand, where a check asks for it.
    ByHand,
}

/// What an optimizer touches, in the order of the work; `NAME` is its name.
pub const TOUCHED: &[(&str, Way)] = &[
    (RULE, Way::Added),
    (MODULES, Way::Added),
    (NAMES, Way::Added),
    (CASES, Way::Added),
    (RANGES, Way::Added),
    (SAVED, Way::Added),
    (PACKAGES, Way::Added),
    (LOCK, Way::Added),
    (
        "conformance/golden/optimizer/NAME",
        Way::Regenerated("conformance/export/run --only NAME --out conformance/golden"),
    ),
    (
        README,
        Way::Completed(
            "BITSTEP_RENEW=1 cargo test --quiet -p bitstep-conformance --test coverage every_readme_row",
        ),
    ),
    (
        "docs/one-percent.md",
        Way::Regenerated(
            "cargo run --quiet --release -p bitstep-conformance -- one-percent > docs/one-percent.md",
        ),
    ),
    (
        "docs/edge-cases.md",
        Way::Regenerated("cargo run --quiet --release -p bitstep-fuzz --example edges"),
    ),
    (
        "fuzz/ranges/ranges.json",
        Way::Regenerated(
            "${BITSTEP_VENV_MAIN:-conformance/export/.venv}/bin/python fuzz/ranges/export.py NAME",
        ),
    ),
    (
        "fuzz/corpus",
        Way::Regenerated("cargo run --quiet --release -p bitstep-fuzz --example seeds"),
    ),
    ("adapters/cudarc/ptx/bitstep.ptx.zlib", Way::Regenerated(".ci/ptx write")),
    ("docs/hashes.md", Way::Regenerated("fuzz/hashes --write opt-3")),
    ("conformance/src/judge/mutations.rs", Way::ByHand),
    ("conformance/tests/mutation_kill.rs", Way::ByHand),
    ("conformance/src/judge/bounds.rs", Way::ByHand),
    ("core/src/lowrank/tests.rs", Way::ByHand),
    ("fuzz/tests/ranges.rs", Way::ByHand),
    ("fuzz/src/properties.rs", Way::ByHand),
    ("fuzz/tests/oracle.rs", Way::ByHand),
];

const RULE: &str = "core/src/optim/NAME.rs";
const MODULES: &str = "core/src/optim/mod.rs";
const NAMES: &str = "core/src/registry/list.rs";
const CASES: &str = "conformance/export/cases/NAME.py";
const RANGES: &str = "fuzz/ranges/export.py";
const README: &str = "README.md";
const SAVED: &str = "docs/checkpoints.md";
const PACKAGES: &str = "conformance/export/pyproject.toml";
const LOCK: &str = "conformance/export/main.lock";

/// The tests that an optimizer meets, and that name what was forgotten.
pub const CHECKS: &[&str] = &[
    "cargo test -p bitstep",
    "cargo test -p bitstep-conformance --test coverage --test mutation_kill --test one_percent",
    "cargo test -p bitstep-fuzz",
    "cargo test -p bitstep-trainer -p bitstep-capi --test saved_files",
    ".ci/ptx check assemble",
];

/// What every template of ours says where there is something to fill in.
pub const BLANK: &str = "FILL IN";

/// Which numbers the reference computes 16-bit parameters in: the entry of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Entry {
    /// It rounds after every operation
    Eager,
    /// It computes in f32 throughout
    Fused,
    /// Its argument `fused` chooses
    Fusible,
    /// It computes in f32 even where parameters are f64
    Single,
}

/// An optimizer to be.
#[derive(Clone, Debug)]
pub struct NewOptimizer<'a> {
    /// In the project's tables, and of everything that belongs to it.
    pub name: &'a str,
    /// The reference's import path.
    pub reference: &'a str,
    /// The Rust type, if it is not the name in another spelling.
    pub type_name: Option<&'a str>,
    /// What its reference computes in.
    pub entry: Entry,
    /// The package that brings the reference, as `NAME==VERSION`, if the exporter has not got it yet.
    pub package: Option<&'a str>,
}

/// Why nothing was begun, or a command did not succeed.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum AddError {
    #[error(
        "the name `{0}` is not snake_case: wanted words of a-z and 0-9 with one _ between them, a letter first"
    )]
    Name(String),
    #[error("the name `{0}` is a word of Rust's")]
    Reserved(String),
    #[error("the type `{0}` is not CamelCase: wanted a capital letter, then letters and digits")]
    Type(String),
    #[error("there is a `{name}` already: {place}")]
    Exists { name: String, place: String },
    #[error("there is no `{0}` yet: begin it with `add {0} --reference PATH`")]
    Unknown(String),
    #[error("{0} still says FILL IN")]
    Blank(PathBuf),
    #[error("the package `{0}` is not pinned: wanted NAME==VERSION")]
    Package(String),
    #[error("{0} is no checkout of bitstep: {1} is not there")]
    NotACheckout(PathBuf, &'static str),
    #[error("{0} does not look as it should: there is no place for `{1}`")]
    NoPlace(&'static str, String),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error("`{0}` did not succeed: {1}")]
    Command(String, std::process::ExitStatus),
}

/// The checkout that this was built in, or the current folder.
#[must_use]
pub fn checkout() -> PathBuf {
    let built = built_in::checkout().and_then(|at| at.parent().map(Path::to_path_buf));
    built.filter(|at| !at.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("."))
}

fn ensure_name(name: &str) -> Result<(), AddError> {
    let word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.split('_').all(word) {
        return Err(AddError::Name(name.to_owned()));
    }
    const WORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern \
        false final fn for gen if impl in let loop macro match mod move mut override priv pub ref return self \
        static struct super trait true try type typeof unsafe unsized use virtual where while yield";
    if WORDS.split_whitespace().any(|reserved| reserved == name) {
        return Err(AddError::Reserved(name.to_owned()));
    }
    Ok(())
}

/// `schedule_free_sgd` as a type's name.
fn camel_case(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect()
}

/// Whether an identifier stands in a text as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|found| found == word)
}

/// The sources that a new optimizer is written into.
struct Checkout<'a> {
    root: &'a Path,
    name: &'a str,
}

impl Checkout<'_> {
    fn path(&self, file: &str) -> PathBuf {
        self.root.join(file.replace("NAME", self.name))
    }

    fn read(&self, file: &'static str) -> Result<String, AddError> {
        fs::read_to_string(self.path(file))
            .map_err(|_| AddError::NotACheckout(self.root.to_path_buf(), file))
    }

    /// Where the name is known already.
    fn place(&self) -> Result<Option<String>, AddError> {
        let name = self.name;
        for file in [RULE, CASES, "conformance/golden/optimizer/NAME", "core/src/optim/NAME"] {
            let path = self.path(file);
            if path.exists() {
                return Ok(Some(path.display().to_string()));
            }
        }
        let said = [
            (MODULES, format!(" {name}: ")),
            (MODULES, format!("mod {name};")),
            (NAMES, format!("(\"{name}\")")),
            (README, format!("| `{name}` |")),
        ];
        for (file, text) in said {
            if self.read(file)?.contains(&text) {
                return Ok(Some(file.to_owned()));
            }
        }
        Ok(None)
    }

    /// A text with a change, or that there is no place for it.
    fn edited(
        &self,
        file: &'static str,
        edit: impl Fn(&str) -> Option<String>,
    ) -> Result<(PathBuf, String), AddError> {
        let text = edit(&self.read(file)?);
        let no_place = || AddError::NoPlace(file, self.name.to_owned());
        Ok((self.path(file), text.ok_or_else(no_place)?))
    }
}

/// Begins an optimizer in a checkout; the files that were written.
///
/// # Errors
/// A name, type, reference or package that is none, one that there is already, a folder that is no checkout: then
/// nothing has been written. A file that can't be written.
pub fn begin(root: &Path, new: &NewOptimizer<'_>) -> Result<Vec<PathBuf>, AddError> {
    let NewOptimizer { name, reference, type_name, package, .. } = *new;
    ensure_name(name)?;
    let type_name = type_name.map_or_else(|| camel_case(name), str::to_owned);
    let camel = type_name.starts_with(|c: char| c.is_ascii_uppercase())
        && type_name.chars().all(|c| c.is_ascii_alphanumeric());
    if !camel {
        return Err(AddError::Type(type_name));
    }
    let at = Checkout { root, name };
    let exists =
        |name: &str, place: &str| AddError::Exists { name: name.into(), place: place.into() };
    if let Some(place) = at.place()? {
        return Err(exists(name, &place));
    }
    if has_word(&at.read(MODULES)?, &type_name) {
        return Err(exists(&type_name, MODULES));
    }
    let (module, class) = export::import_path(reference)?;

    let mut files = vec![(at.path(RULE), rule(name, &type_name, reference))];
    files.push(at.edited(MODULES, |text| modules(text, name, &type_name))?);
    files.push(at.edited(NAMES, |text| names(text, new, &type_name))?);
    files.push((at.path(CASES), export::optimizer_case(name, module, class)));
    files.push(at.edited(RANGES, |text| {
        let table = text.find("\nPAIRS = [")?;
        let (before, rest) = text.split_at(text[..table].rfind("\n\n\n")?);
        let class =
            format!("    from {module} import {class}\n\n    yield \"{name}\", {class}, {{}}");
        Some(format!("{before}\n\n{class}{rest}"))
    })?);
    files.push(at.edited(README, |text| {
        let row = format!("| `{name}` | {reference} | x | x | x |");
        edits::line(text, ["<!-- optimizers -->", "<!-- /optimizers -->"], &row, |line| {
            Some(line.strip_prefix("| `")?.split_once('`')?.0)
        })
    })?);
    files.push(at.edited(SAVED, |text| {
        let (new, comma) = (format!("`{name}`"), |c| c == ',');
        edits::word(text, ["**Rules**: ", "."], &new, comma, |words| words.join(", "))
    })?);
    if let Some(package) = package {
        let sound = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+!".contains(c);
            !text.is_empty() && text.chars().all(plain)
        };
        let pinned =
            package.split_once("==").filter(|(name, version)| sound(name) && sound(version));
        pinned.ok_or_else(|| AddError::Package(package.to_owned()))?;
        files.push(at.edited(PACKAGES, |text| {
            let main = format!("  \"{package}\",\n]");
            let (before, rest) = text.split_once("main = [\n")?;
            Some(format!("{before}main = [\n{}", rest.replacen(']', &main, 1)))
        })?);
        files.push(at.edited(LOCK, |text| {
            let mut lines: Vec<&str> = text.lines().collect();
            let folded = |line: &str| line.to_ascii_lowercase();
            let after = |line: &&str| folded(line) > folded(package);
            lines.insert(lines.iter().position(after).unwrap_or(lines.len()), package);
            Some(lines.join("\n") + "\n")
        })?);
    }
    for (path, text) in &files {
        fs::write(path, text).map_err(|e| AddError::Io(path.clone(), e))?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

fn rule(name: &str, type_name: &str, reference: &str) -> String {
    include_str!("add/rule.template")
        .replace("@name@", name)
        .replace("@Type@", type_name)
        .replace("@reference@", reference)
}

/// The module, its type, and the stem in the table of rules: all that there is of it in `optim/mod.rs`.
fn modules(text: &str, name: &str, type_name: &str) -> Option<String> {
    let text = edits::line(text, ["//!", "pub use"], &format!("pub mod {name};"), |line| {
        line.strip_prefix("pub mod ")?.strip_suffix(';')
    })?;
    let import = format!("pub use {name}::{type_name};");
    let text = edits::line(&text, ["//!", "macro_rules! each_rule"], &import, |line| {
        Some(line.strip_prefix("pub use ")?.split_once("::")?.0)
    })?;
    // A line of its own: nothing formats the inside of a macro.
    let stem = format!("                {name}: {type_name},");
    let marks = ["            elementwise {\n", "            }\n            tensorwise {"];
    edits::line(&text, marks, &stem, |line| Some(line.trim_start().split_once(": ")?.0))
}

/// The import, and the name's line in its family, in `registry/list.rs`.
fn names(text: &str, new: &NewOptimizer<'_>, type_name: &str) -> Option<String> {
    let marks = ["use crate::optim::{", "};"];
    let text = edits::word(text, marks, type_name, |c| c == ',', edits::wrapped)?;
    let entry = match new.entry {
        Entry::Eager => "eager",
        Entry::Fused => "fused",
        Entry::Fusible => "fusible",
        Entry::Single => "single",
    };
    let torch = new.reference.starts_with("torch.optim.");
    let marks = [if torch { "const TORCH:" } else { "const OTHERS:" }, "];"];
    edits::line(&text, marks, &format!("    {entry}::<{type_name}>(\"{}\"),", new.name), |line| {
        Some(line.split_once("(\"")?.1.split_once('"')?.0)
    })
}

/// A template is no rule, and what it makes no golden.
fn ensure_filled(root: &Path, name: &str) -> Result<(), AddError> {
    ensure_name(name)?;
    for file in [RULE, CASES] {
        let path = Checkout { root, name }.path(file);
        let text = fs::read_to_string(&path).map_err(|_| AddError::Unknown(name.to_owned()))?;
        if text.contains(BLANK) {
            return Err(AddError::Blank(path));
        }
    }
    Ok(())
}

/// What is left to do: of each file, the command that writes it anew.
pub fn commands(name: &str) -> impl Iterator<Item = (String, String)> {
    TOUCHED.iter().filter_map(move |(file, way)| match way {
        Way::Completed(command) | Way::Regenerated(command) => {
            Some((file.replace("NAME", name), command.replace("NAME", name)))
        }
        Way::Added | Way::ByHand => None,
    })
}

/// Runs them one after the other, in the checkout, and says which.
///
/// # Errors
/// A name that is not begun or not filled in, and a command that does not succeed: it has said why. What it was to write is as before
/// where its output is redirected.
pub fn regenerate(root: &Path, name: &str, mut say: impl FnMut(&str)) -> Result<(), AddError> {
    ensure_filled(root, name)?;
    for (file, command) in commands(name) {
        say(&command);
        // Of a command that fails, half a page shall not be left.
        let (run, to) = match command.split_once(" > ") {
            Some((run, _)) => (run, Some(root.join(&file))),
            None => (command.as_str(), None),
        };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(run).current_dir(root);
        let failed = |e| AddError::Io(PathBuf::from(&command), e);
        let (status, page) = if to.is_some() {
            let output = shell.stderr(std::process::Stdio::inherit()).output().map_err(failed)?;
            (output.status, output.stdout)
        } else {
            (shell.status().map_err(failed)?, Vec::new())
        };
        if !status.success() {
            return Err(AddError::Command(command, status));
        }
        if let Some(to) = to {
            fs::write(&to, page).map_err(|e| AddError::Io(to.clone(), e))?;
        }
    }
    Ok(())
}
