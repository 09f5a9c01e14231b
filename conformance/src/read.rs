//! Reads untrusted files: opened once, checked to be plain, and read up to a limit.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;

/// Reads a plain file of at most `most` bytes. A link to one is followed; it never blocks (on a pipe without a
/// writer, on a device), and a file that grows meanwhile is not read to its end.
pub(crate) fn at_most(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    // Opening a device may have side effects. The check that counts is made on the opened file below.
    if !std::fs::metadata(path).map_err(|e| e.to_string())?.is_file() {
        return Err(NOT_PLAIN.to_owned());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    }
    opened(options.open(path).map_err(|e| e.to_string())?, most)
}

/// The error for a pipe, a device or a folder.
pub(crate) const NOT_PLAIN: &str = "it is no plain file";

/// Reads an open file if it is a plain one of at most `most` bytes.
pub(crate) fn opened(file: File, most: u64) -> Result<Vec<u8>, String> {
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err(NOT_PLAIN.to_owned());
    }
    if meta.len() > most {
        return Err(format!("it has {} bytes, at most {most} are read", meta.len()));
    }
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if read as u64 > most {
        return Err(format!("it grows while it is read, at most {most} bytes are read"));
    }
    Ok(bytes)
}
