//! Device memory for the duration of one step: written, read back, and freed on drop.

use bitstep::optimizer::Buffer;
use bitstep::storage::StorageFormat;
use bitstep_cudarc::{Device, DeviceStorage};

use crate::backend::{BackendError, failed};

/// A device and the addresses to be freed.
pub(crate) struct DeviceBuffers<'a, D: Device>(pub(crate) &'a mut D, pub(crate) Vec<u64>);

/// Address and length in bytes of an allocation.
pub(crate) type DeviceAlloc = (u64, usize);

impl<D: Device> DeviceBuffers<'_, D> {
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<DeviceAlloc, BackendError> {
        let at = self.0.alloc(bytes.len()).map_err(failed)?;
        self.1.push(at);
        self.0.write(at, bytes).map_err(failed)?;
        Ok((at, bytes.len()))
    }

    /// Uploads a slot; `None` if it is not in use.
    pub(crate) fn slot(
        &mut self,
        slot: &Buffer,
    ) -> Result<Option<(DeviceStorage, Vec<DeviceAlloc>)>, BackendError> {
        let (format, parts) = match slot {
            slot if slot.is_empty() => return Ok(None),
            Buffer::Encoded(encoded) => {
                (encoded.format(), encoded.parts("").into_iter().map(|p| p.bytes).collect())
            }
            plain => {
                let data = plain.data().ok_or_else(|| failed("a slot of no known kind"))?;
                (StorageFormat::Plain(data.dtype()), vec![data.bytes()])
            }
        };
        let parts: Vec<DeviceAlloc> =
            parts.iter().map(|p| self.add(p)).collect::<Result<_, _>>()?;
        let side = parts.get(1).map_or(0, |p| p.0);
        Ok(parts
            .first()
            .map(|p| DeviceStorage::At(format, p.0, side))
            .map(|storage| (storage, parts)))
    }

    pub(crate) fn read(&mut self, (at, len): DeviceAlloc) -> Result<Vec<u8>, BackendError> {
        let mut bytes = vec![0; len];
        self.0.read(at, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

impl<D: Device> Drop for DeviceBuffers<'_, D> {
    fn drop(&mut self) {
        for at in self.1.drain(..) {
            // Errors in Drop can't be reported.
            let _ = self.0.free(at);
        }
    }
}
