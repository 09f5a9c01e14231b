//! Atomic replacement of a file.

use std::fs::{self, File, Permissions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::{Builder, NamedTempFile};

/// Prefix and suffix of the names of files being written.
const NAME: [&str; 2] = [".bitstep-checkpoint-", ".tmp"];

/// A file being written in the folder of the one that it will replace. The writer holds a lock on it,
/// which ends with the process: an unlocked file was left by a killed process.
pub(super) struct Replacement {
    part: NamedTempFile,
    to: PathBuf,
    permissions: Option<Permissions>,
}

impl Replacement {
    /// Begins to replace `path`, or its target if it is a link, and removes files left by killed processes.
    pub(super) fn begin(path: &Path) -> io::Result<Replacement> {
        let to = follow(path)?;
        let permissions = match fs::metadata(&to) {
            Ok(old) if old.is_file() => Some(old.permissions()),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let folder = folder(&to);
        clear(folder);
        let mut builder = Builder::new();
        builder.prefix(NAME[0]).suffix(NAME[1]);
        // A new file has the permissions that the process's umask allows.
        #[cfg(unix)]
        if permissions.is_none() {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(Permissions::from_mode(0o666));
        }
        let part = builder.tempfile_in(folder)?;
        // May fail on a file system without locks, where nothing is removed either.
        let _ = part.as_file().lock();
        Ok(Replacement { part, to, permissions })
    }

    /// The path of the new file while it is being written.
    pub(super) fn path(&self) -> &Path {
        self.part.path()
    }

    /// Replaces the old file, keeping its permissions. Data is flushed before the rename: a crash in
    /// between leaves the old file.
    pub(super) fn finish(self) -> io::Result<()> {
        if let Some(permissions) = self.permissions {
            self.part.as_file().set_permissions(permissions)?;
        }
        self.part.as_file().sync_all()?;
        self.part.persist(&self.to).map_err(|e| e.error)?;
        // The folder's entry needs flushing too, on systems where a folder can be opened.
        match File::open(folder(&self.to)) {
            Ok(folder) => folder.sync_all(),
            Err(_) => Ok(()),
        }
    }
}

/// The final target of a path through links; it need not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = folder(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Removes files that no process is writing any more. Failures are ignored, as they do not prevent saving.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with(NAME[0]) && name.ends_with(NAME[1]);
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
        // An empty file may have just been created, and not be locked yet.
        let begun = file.metadata().is_ok_and(|about| {
            let age = about.modified().ok().and_then(|at| at.elapsed().ok());
            about.len() > 0 || age.is_some_and(|age| age > Duration::from_secs(60))
        });
        if begun && file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
