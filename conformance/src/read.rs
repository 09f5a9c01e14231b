//! Files whose names come from others: opened once, looked at, and read only as far as is allowed.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;

/// Reads a plain file of at most `most` bytes. A link to one is followed; nothing is waited for
/// (a pipe without a writer, a device), and what grows meanwhile is not read to its end.
pub(crate) fn at_most(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    // Opening a device may have effects of its own; what is read is what is looked at below.
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

/// What is said of a pipe, a device, a folder.
pub(crate) const NOT_PLAIN: &str = "it is no plain file";

/// Reads an opened file if it is a plain one of at most `most` bytes.
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
