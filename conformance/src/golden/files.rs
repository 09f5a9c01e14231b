//! Finds the files of a suite.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use super::{GoldenError, Problem};

/// Identifies a folder independently of the path to it.
#[cfg(unix)]
fn identity(dir: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(dir)?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(dir: &Path) -> std::io::Result<PathBuf> {
    // A system that can't resolve paths has no links either.
    Ok(fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()))
}

/// The cases of a suite: every `*.safetensors` below `root` that is not a folder, sorted. A folder is entered
/// once, whatever links lead to it.
///
/// # Errors
/// A folder that can't be read, or has none.
pub fn files(root: &Path) -> Result<Vec<PathBuf>, GoldenError> {
    let mut out = Vec::new();
    let located = |problem| GoldenError { file: root.to_owned(), problem };
    walk(root, &mut out).map_err(|e| located(Problem::Io(e.to_string())))?;
    if out.is_empty() {
        return Err(located(Problem::Empty));
    }
    out.sort();
    Ok(out)
}

fn walk(root: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut seen = BTreeSet::new();
    // Links last, so that a folder is known by its own path.
    let (mut folders, mut links) = (vec![root.to_owned()], VecDeque::new());
    while let Some(dir) = folders.pop().or_else(|| links.pop_front()) {
        if !seen.insert(identity(&dir)?) {
            continue;
        }
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let (path, link) = (entry.path(), entry.file_type()?.is_symlink());
            if path.is_dir() {
                if link { links.push_back(path) } else { folders.push(path) }
            } else if path.extension().is_some_and(|e| e == "safetensors") {
                out.push(path);
            }
        }
    }
    Ok(())
}
