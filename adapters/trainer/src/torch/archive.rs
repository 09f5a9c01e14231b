//! The zip archive around a pickle and its storages.

use std::io::{Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive};

use super::error::TorchError;
use super::pickle::PICKLE;
use super::plain::{Value, unpickle};

/// The start of a file of the old format: the protocol and the pickled magic number
/// 0x1950a86a20f9469cfc6c.
const OLD: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Reads an archive.
pub(super) fn read<R: Read + Seek>(mut reader: R) -> Result<Value, TorchError> {
    let mut start = Vec::new();
    reader.by_ref().take(32).read_to_end(&mut start).map_err(wrong)?;
    if start.first() == Some(&0x80) && start.get(2..).is_some_and(|s| s.starts_with(OLD)) {
        return Err(TorchError::OldFormat);
    }
    let total = reader.seek(SeekFrom::End(0)).map_err(wrong)?;
    reader.rewind().map_err(wrong)?;
    let mut archive = ZipArchive::new(reader).map_err(wrong)?;
    let mut names = archive.file_names().filter_map(Result::ok);
    let folder = names.find_map(|name| name.strip_suffix("data.pkl").map(str::to_owned));
    let folder = folder.ok_or_else(|| wrong("no `data.pkl`"))?;
    drop(names);
    // The bytes read so far: entries may overlap, and the total must not exceed the file.
    let mut seen = 0u64;
    let mut entry = |name: &str, most: u64| {
        let name = format!("{folder}{name}");
        let wrong = |e: &dyn std::fmt::Display| wrong(format!("`{name}`: {e}"));
        let file = archive.by_name(&name).map_err(|e| wrong(&e))?;
        // torch.save does not compress, so no entry is longer than the file.
        if file.compression() != CompressionMethod::Stored {
            return Err(wrong(&"compressed"));
        }
        let size = file.size();
        seen = seen.saturating_add(size);
        if seen > total {
            return Err(wrong(&format!("{size} bytes of a file of {total}")));
        }
        if size > most {
            return Err(TorchError::Limit { what: "bytes of a pickle", limit: most });
        }
        let mut bytes = Vec::new();
        let len = usize::try_from(size).map_err(|e| wrong(&e))?;
        bytes.try_reserve_exact(len).map_err(|e| wrong(&e))?;
        // Read to the end, where the checksum is verified.
        file.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| wrong(&e))?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(wrong(&format!("{} bytes of {size}", bytes.len()))),
        }
    };
    match entry("byteorder", 16) {
        Ok(order) if order != b"little" => {
            return Err(TorchError::Archive("numbers that are not little-endian".to_owned()));
        }
        _ => {}
    }
    let pickle = entry("data.pkl", PICKLE)?;
    unpickle(&pickle, total, &mut |key| entry(&format!("data/{key}"), u64::MAX))
}

fn wrong(what: impl std::fmt::Display) -> TorchError {
    TorchError::Archive(what.to_string())
}
