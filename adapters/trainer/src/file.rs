//! Reading files from untrusted paths.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Opens a regular file. A pipe or a device is an error, since opening or reading it may block forever.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let regular = |about: &std::fs::Metadata| match about.is_file() {
        true => Ok(about.len()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    };
    regular(&std::fs::metadata(path)?)?;
    let mut options = File::options();
    options.read(true);
    // The file may have been replaced since: opening a pipe would wait for its writer.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = options.open(path)?;
    let len = regular(&file.metadata()?)?;
    Ok((file, len))
}

/// Reads a regular file of at most `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open(path)?;
    let mut bytes = Vec::new();
    if len <= most {
        bytes.try_reserve_exact(usize::try_from(len).map_err(io::Error::other)?)?;
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    match len <= most && bytes.len() as u64 <= most {
        true => Ok(bytes),
        false => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes")))
        }
    }
}
