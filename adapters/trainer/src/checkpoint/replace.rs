//! Replacing a file by another one at once.

use std::fs::{self, File, Permissions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::{Builder, NamedTempFile};

/// What the names of files that are being written begin and end with.
const NAME: [&str; 2] = [".bitstep-checkpoint-", ".tmp"];

/// A file that is being written beside the one that it will replace. Whoever writes it holds a
/// lock on it, which ends with the process: what is not locked was left by one that was killed.
pub(super) struct Replacement {
    part: NamedTempFile,
    to: PathBuf,
    permissions: Option<Permissions>,
}

impl Replacement {
    /// Begins to replace `path`, or what it links to, and clears what killed processes left there.
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
        // Whom others let read and write a new file, as the system has it.
        #[cfg(unix)]
        if permissions.is_none() {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(Permissions::from_mode(0o666));
        }
        let part = builder.tempfile_in(folder)?;
        // A file system without locks: there nothing is cleared.
        let _ = part.as_file().lock();
        Ok(Replacement { part, to, permissions })
    }

    /// Where the new file is being written.
    pub(super) fn path(&self) -> &Path {
        self.part.path()
    }

    /// Puts the new file in the old one's place, with its permissions. The data first, then the
    /// name: a crash in between leaves the old file.
    pub(super) fn finish(self) -> io::Result<()> {
        if let Some(permissions) = self.permissions {
            self.part.as_file().set_permissions(permissions)?;
        }
        self.part.as_file().sync_all()?;
        self.part.persist(&self.to).map_err(|e| e.error)?;
        // The folder's entry is data, too, where a folder can be opened at all.
        match File::open(folder(&self.to)) {
            Ok(folder) => folder.sync_all(),
            Err(_) => Ok(()),
        }
    }
}

/// What a path links to in the end; it need not be there.
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

/// Removes what nobody writes any more. What can't be is left there: it is no reason not to save.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with(NAME[0]) && name.ends_with(NAME[1]);
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
        // An empty one may have been made just now, and be locked next.
        let begun = file.metadata().is_ok_and(|about| {
            let age = about.modified().ok().and_then(|at| at.elapsed().ok());
            about.len() > 0 || age.is_some_and(|age| age > Duration::from_secs(60))
        });
        if begun && file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
