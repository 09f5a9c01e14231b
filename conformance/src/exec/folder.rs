//! A private temporary folder for one request and its answer.
//!
//! It is created with mode 0700 under a random new name, and kept open: files are created and read relative to the
//! open folder, so a program can't substitute another one for it. No existing file is written to, and no link is
//! followed.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use tempfile::{Builder, TempDir};

use super::live;
use crate::read;

#[derive(Debug)]
pub(super) struct Folder {
    dir: TempDir,
    #[cfg(unix)]
    handle: std::os::fd::OwnedFd,
}

impl Folder {
    pub(super) fn new() -> io::Result<Folder> {
        let mut builder = Builder::new();
        builder.prefix("bitstep-").rand_bytes(16);
        #[cfg(unix)]
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        #[cfg(unix)]
        builder.permissions(mode);
        let dir = live::folder(|| builder.tempdir())?;
        #[cfg(unix)]
        let handle = {
            use rustix::fs::{Mode, OFlags, open};
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            open(dir.path(), flags, Mode::empty())?
        };
        Ok(Folder {
            dir,
            #[cfg(unix)]
            handle,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that must not exist yet.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        #[cfg(unix)]
        let mut file = {
            use rustix::fs::{Mode, OFlags, openat};
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            File::from(openat(
                &self.handle,
                name,
                flags | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )?)
        };
        #[cfg(not(unix))]
        let mut file = File::create_new(self.path(name))?;
        file.write_all(bytes)
    }

    /// Reads a plain file of at most `most` bytes, without blocking.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, String> {
        #[cfg(unix)]
        let opened = {
            use rustix::fs::{Mode, OFlags, openat};
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            openat(&self.handle, name, flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
        };
        #[cfg(unix)]
        let opened = opened.map_err(|e| match e {
            rustix::io::Errno::NOENT => "no file was written".to_owned(),
            // A link or a socket.
            rustix::io::Errno::LOOP | rustix::io::Errno::NXIO => read::NOT_PLAIN.to_owned(),
            e => io::Error::from(e).to_string(),
        });
        #[cfg(not(unix))]
        let opened = File::open(self.path(name)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "no file was written".to_owned(),
            _ => e.to_string(),
        });
        read::opened(opened?, most)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        live::remove(self.dir.path());
    }
}
