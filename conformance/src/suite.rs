//! A run over whole suites.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use rayon::prelude::*;

use crate::backend::Backend;
use crate::bounds::Bounds;
use crate::check::{self, Report};
use crate::diagnose;
use crate::golden::{self, Case, GoldenError};

/// A file of a suite, read.
#[derive(Debug)]
pub struct Entry {
    /// The suite's folder.
    pub root: PathBuf,
    /// The file as a report names it.
    pub file: String,
    /// The case, or what keeps the file from being one.
    pub case: Result<Case, GoldenError>,
}

/// The committed suite.
#[must_use]
pub fn committed() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let here = Path::new("conformance").join("golden");
    if built.is_dir() || !here.is_dir() { built } else { here }
}

/// Which cases are wanted: a glob over `KIND/NAME/CASE`, or over the name or the case alone.
#[derive(Clone, Debug)]
pub struct Only(Option<GlobMatcher>);

impl Only {
    /// Of a glob; none for all.
    ///
    /// # Errors
    /// An ill-formed glob.
    pub fn new(glob: Option<&str>) -> Result<Only, globset::Error> {
        let glob = glob.map(|g| GlobBuilder::new(g).build().map(|g| g.compile_matcher()));
        Ok(Only(glob.transpose()?))
    }

    /// Whether all are wanted.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a case is wanted.
    #[must_use]
    pub fn wants(&self, id: &str) -> bool {
        let Some(glob) = &self.0 else { return true };
        let mut parts = id.rsplitn(3, '/');
        let (case, name) = (parts.next(), parts.next());
        glob.is_match(id) || [case, name].into_iter().flatten().any(|part| glob.is_match(part))
    }
}

/// Reads the wanted files of suites, in order. A file that is no case is wanted
/// if its path below the suite's folder is.
///
/// # Errors
/// A folder that can't be read, or holds no cases.
pub fn read(roots: &[PathBuf], only: &Only) -> Result<Vec<Entry>, GoldenError> {
    let mut entries = Vec::new();
    for root in roots {
        let files = golden::files(root)?;
        let read = files.into_par_iter().filter_map(|path| {
            let inside = path.strip_prefix(root).unwrap_or(&path).with_extension("");
            let case = Case::read(&path, root);
            let id = case.as_ref().map_or_else(|_| inside.display().to_string(), |c| c.id.clone());
            let file = path.display().to_string();
            only.wants(&id).then(|| Entry { root: root.clone(), file, case })
        });
        entries.par_extend(read);
    }
    Ok(entries)
}

/// Checks every entry with every backend; `done` is called after each.
pub fn run(
    entries: &[Entry],
    backends: &[Box<dyn Backend>],
    bounds: &Bounds,
    done: impl Fn() + Sync,
) -> Vec<Report> {
    let pairs: Vec<_> = entries.iter().flat_map(|e| backends.iter().map(move |b| (e, b))).collect();
    let mut reports: Vec<Report> = pairs
        .into_par_iter()
        .flat_map_iter(|(entry, backend)| {
            let reports = match &entry.case {
                Ok(case) => diagnosed(case, check::case(case, &**backend, bounds)),
                Err(e) => {
                    vec![Report::unreadable(&entry.file, backend.name(), &e.to_string())]
                }
            };
            done();
            reports
        })
        .collect();
    diagnose::settle(&mut reports);
    reports
}

/// With the mistakes that would explain it.
fn diagnosed(case: &Case, mut reports: Vec<Report>) -> Vec<Report> {
    for r in &mut reports {
        r.candidates = diagnose::candidates(case, r);
        r.samples = Vec::new();
    }
    reports
}

/// Whether a run covers the whole committed suite, so that its bounds can be judged too.
#[must_use]
pub fn is_committed(golden: &[PathBuf], only: &Only) -> bool {
    let same = |p: &PathBuf| p.canonicalize().ok() == committed().canonicalize().ok();
    only.is_all() && golden.iter().any(same)
}
