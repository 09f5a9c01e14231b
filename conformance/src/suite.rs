//! Runs backends over whole suites: reads the files, orders and bounds the work, collects the reports.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use globset::{GlobBuilder, GlobMatcher};
use rayon::prelude::*;

use crate::backend::{Backend, BackendError};
use crate::golden::{self, Case, GoldenError, LARGEST, Problem};
use crate::judge::bounds::Bounds;
use crate::judge::check::{self, Report};
use crate::{built_in, fresh, judge::diagnose};

/// A file of a suite after reading.
#[derive(Debug)]
pub struct Entry {
    /// The file as a report names it.
    pub file: String,
    /// The case, or what keeps the file from being one.
    pub case: Result<Case, GoldenError>,
}

/// Where the cases of a suite are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suite {
    /// A folder, with `KIND/NAME/CASE.safetensors` in it.
    Folder(PathBuf),
    /// The committed suite as it was when this was built (feature `vectors`).
    BuiltIn,
}

impl From<PathBuf> for Suite {
    fn from(folder: PathBuf) -> Suite {
        Suite::Folder(folder)
    }
}

/// The committed suite: of the checkout that this was built in, or of that in the current folder, or
/// where there is none, as it was built in.
#[must_use]
pub fn committed() -> Suite {
    built_in::checkout().map_or(Suite::BuiltIn, |at| Suite::Folder(at.join("golden")))
}

/// Selects cases by a glob over `KIND/NAME/CASE`, or over the name or the case alone.
#[derive(Clone, Debug)]
pub struct CaseFilter(Option<GlobMatcher>);

impl CaseFilter {
    /// A filter from a glob; `None` selects all cases.
    ///
    /// # Errors
    /// An ill-formed glob.
    pub fn new(glob: Option<&str>) -> Result<CaseFilter, globset::Error> {
        let glob = glob.map(|g| GlobBuilder::new(g).build().map(|g| g.compile_matcher()));
        Ok(CaseFilter(glob.transpose()?))
    }

    /// Whether it selects all cases.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it selects this case.
    #[must_use]
    pub fn wants(&self, id: &str) -> bool {
        let Some(glob) = &self.0 else { return true };
        let mut parts = id.rsplitn(3, '/');
        let (case, name) = (parts.next(), parts.next());
        glob.is_match(id) || [case, name].into_iter().flatten().any(|part| glob.is_match(part))
    }
}

/// The most bytes that one call of [`read`] loads.
const MAX_TOTAL: u64 = 1 << 32;

/// Reads the selected files of suites, in order. A file that is not a case is selected
/// by its path below the suite's folder.
///
/// # Errors
/// A folder that can't be read, or has no cases; no cases that are built in.
pub fn read(suites: &[Suite], only: &CaseFilter) -> Result<Vec<Entry>, GoldenError> {
    let mut entries = Vec::new();
    let mut bytes = 0u64;
    for suite in suites {
        match suite {
            Suite::Folder(root) => entries.append(&mut folder(root, only, &mut bytes)?),
            Suite::BuiltIn => entries.append(&mut inside(only)?),
        }
    }
    Ok(entries)
}

/// The selected cases of a folder; `bytes` is how many the files before it have.
fn folder(root: &Path, only: &CaseFilter, bytes: &mut u64) -> Result<Vec<Entry>, GoldenError> {
    let mut files = Vec::new();
    for path in golden::files(root)? {
        // A file that can't be read, or is too large, takes no memory.
        let own = path.metadata().map_or(0, |m| if m.len() > LARGEST { 0 } else { m.len() });
        files.push((path, *bytes));
        *bytes += own;
    }
    let read = files.into_par_iter().filter_map(|(path, before)| {
        let inside = path.strip_prefix(root).unwrap_or(&path).with_extension("");
        let case = if before < MAX_TOTAL {
            Case::read(&path, root)
        } else {
            Err(GoldenError { file: path.clone(), problem: Problem::TooMuch(before) })
        };
        let id = case.as_ref().map_or_else(|_| inside.display().to_string(), |c| c.id.clone());
        let file = path.display().to_string();
        only.wants(&id).then_some(Entry { file, case })
    });
    Ok(read.collect())
}

/// The selected cases of those that are built in.
fn inside(only: &CaseFilter) -> Result<Vec<Entry>, GoldenError> {
    let files = built_in::golden();
    if files.is_empty() {
        return Err(GoldenError { file: "golden vectors".into(), problem: Problem::NotBuiltIn });
    }
    let read = files.par_iter().filter_map(|&(path, bytes)| {
        let case = Case::of(bytes, Path::new(path), Path::new(""));
        let id = path.strip_suffix(".safetensors").unwrap_or(path);
        only.wants(id).then(|| Entry { file: path.to_owned(), case })
    });
    Ok(read.collect())
}

/// The cases with [other inputs](mod@crate::fresh).
#[must_use]
pub fn fresh(entries: Vec<Entry>, seed: u64) -> Vec<Entry> {
    let draw = |mut entry: Entry| {
        entry.case = entry.case.and_then(|case| {
            fresh::case(&case, seed).map_err(|why| {
                let why = match why {
                    BackendError::Unsupported(why) | BackendError::Failed(why) => why,
                    BackendError::NeedsState(slot) => {
                        format!("the start of the run lacks `{slot}`")
                    }
                };
                GoldenError { file: case.path, problem: Problem::NoOracle(why) }
            })
        });
        entry
    };
    entries.into_par_iter().map(draw).collect()
}

/// The order of a run, and its deadline.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The seed of a random order of the cases; `None` keeps their own.
    pub shuffle: Option<u64>,
    /// The deadline.
    pub until: Option<Instant>,
}

/// Everything that a run needs.
struct Job<'a> {
    entries: &'a [Entry],
    backends: &'a [Box<dyn Backend>],
    bounds: &'a Bounds,
}

impl Job<'_> {
    fn len(&self) -> usize {
        self.entries.len() * self.backends.len()
    }

    fn pair(&self, k: usize) -> (&Entry, &dyn Backend) {
        let backends = self.backends.len().max(1);
        (&self.entries[k / backends], &*self.backends[k % backends])
    }

    fn check(&self, k: usize) -> Vec<Report> {
        let (entry, backend) = self.pair(k);
        match &entry.case {
            Ok(case) => diagnosed(case, check::case(case, backend, self.bounds)),
            Err(e) => vec![Report::unreadable(&entry.file, backend.name(), &e.to_string())],
        }
    }

    fn not_reached(&self, k: usize, why: &str) -> Vec<Report> {
        let (entry, backend) = self.pair(k);
        match &entry.case {
            Ok(case) => Report::not_reached(case, backend.name(), why),
            Err(e) => vec![Report::unreadable(&entry.file, backend.name(), &e.to_string())],
        }
    }
}

/// Checks every entry with every backend; `done` is called after each.
pub fn run(
    entries: &[Entry],
    backends: &[Box<dyn Backend>],
    bounds: &Bounds,
    done: impl Fn() + Sync,
) -> Vec<Report> {
    let job = Job { entries, backends, bounds };
    let all = (0..job.len()).into_par_iter();
    let checked = all.flat_map_iter(|k| {
        let reports = job.check(k);
        done();
        reports
    });
    let mut reports: Vec<Report> = checked.collect();
    settle(&mut reports, entries);
    reports
}

/// [`run`] with a [`Plan`]. Reports are in the order of the entries, whatever the order of the work.
///
/// After a deadline, work that is under way goes on in the background: the caller should
/// [end](crate::exec::finish) it, and then the process.
pub fn run_as(
    plan: &Plan,
    entries: Vec<Entry>,
    backends: Vec<Box<dyn Backend>>,
    bounds: &Arc<Bounds>,
    done: impl Fn() + Send + Sync + 'static,
) -> Vec<Report> {
    let all = Arc::new((entries, backends, bounds.clone()));
    fn job(all: &(Vec<Entry>, Vec<Box<dyn Backend>>, Arc<Bounds>)) -> Job<'_> {
        Job { entries: &all.0, backends: &all.1, bounds: &all.2 }
    }
    let count = job(&all).len();
    let mut order: Vec<usize> = (0..count).collect();
    if let Some(seed) = plan.shuffle {
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
    }
    let found = Arc::new(Mutex::new(vec![None; count]));
    let work = {
        let (all, found) = (all.clone(), found.clone());
        let until = plan.until;
        move || {
            // On one thread exactly in this order; on several, nearly so.
            order.into_par_iter().with_max_len(1).for_each(|k| {
                if until.is_some_and(|until| Instant::now() >= until) {
                    return;
                }
                let reports = job(&all).check(k);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                // After the deadline the list has been taken.
                if let Some(place) = found.get_mut(k) {
                    *place = Some(reports);
                    done();
                }
            });
        }
    };
    match plan.until {
        // No thread is spawned: not every target has them.
        None => work(),
        Some(until) => {
            let (sender, finished) = channel();
            thread::spawn(move || {
                work();
                // After the deadline the receiver is gone.
                let _ = sender.send(());
            });
            let _ = finished.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    let reports = found.into_iter().enumerate().flat_map(|(k, reports)| {
        reports.unwrap_or_else(|| job(&all).not_reached(k, "the time for the whole run was over"))
    });
    let mut reports: Vec<Report> = reports.collect();
    // After the deadline the checks that passed are not asked.
    let is_over = plan.until.is_some_and(|until| Instant::now() >= until);
    settle(&mut reports, if is_over { &[] } else { &all.0 });
    reports
}

/// Names the mistakes that explain the failures.
fn settle(reports: &mut [Report], entries: &[Entry]) {
    let cases = entries.iter().filter_map(|e| e.case.as_ref().ok());
    let cases: HashMap<&str, &Case> = cases.map(|c| (c.id.as_str(), c)).collect();
    diagnose::settle(reports, |r| cases.get(r.case.as_str()).copied());
}

/// Adds the mutations that would explain a failure.
fn diagnosed(case: &Case, mut reports: Vec<Report>) -> Vec<Report> {
    reports.iter_mut().for_each(|r| diagnose::examine(case, r));
    reports
}

/// Whether a run covers the whole committed suite, so that unused exemptions can be reported.
#[must_use]
pub fn is_committed(suites: &[Suite], only: &CaseFilter) -> bool {
    let plain = |suite: &Suite| match suite {
        Suite::Folder(folder) => folder.canonicalize().ok().map(Suite::Folder),
        Suite::BuiltIn => Some(Suite::BuiltIn),
    };
    let committed = plain(&committed());
    only.is_all() && suites.iter().any(|suite| plain(suite) == committed)
}

#[cfg(all(test, feature = "vectors"))]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_are_built_in_are_the_committed_ones() {
        let Suite::Folder(root) = committed() else { panic!("this is a checkout") };
        let files = golden::files(&root).unwrap();
        assert_eq!(files.len(), built_in::golden().len());
        for (path, (inside, bytes)) in files.iter().zip(built_in::golden()) {
            assert_eq!(*path, root.join(inside));
            assert_eq!(std::fs::read(path).unwrap(), *bytes, "{inside}");
        }
    }

    #[test]
    fn read_gives_the_same_cases_from_a_folder_and_built_in() {
        let only = CaseFilter::new(Some("*/{linear,sgd}/default*")).unwrap();
        let ids = |suite| -> Vec<String> {
            read(&[suite], &only).unwrap().into_iter().map(|e| e.case.unwrap().id).collect()
        };
        assert_eq!(ids(committed()), ids(Suite::BuiltIn));
        assert!(ids(Suite::BuiltIn).len() > 3);
    }
}
