//! Plain numbers as bytes, and back.

use bitstep::optimizer::Buffer;

use crate::Device;

/// The bytes of plain numbers; of others, none.
pub(crate) fn bytes(buffer: &Buffer) -> Vec<u8> {
    buffer.data().map(|data| data.bytes()).unwrap_or_default()
}

/// Fills a buffer of plain numbers from the device.
pub(crate) fn read<D: Device>(device: &mut D, at: u64, to: &mut Buffer) -> Result<(), D::Error> {
    let mut raw = bytes(to);
    if !raw.is_empty() {
        device.read(at, &mut raw)?;
    }
    // Of plain numbers there are as many bytes; of others, none.
    _ = to.data_mut().set_bytes(&raw);
    Ok(())
}

/// Multiplies a gradient by a number of the device's, if there is one.
pub(crate) fn multiply<D: Device>(
    device: &mut D,
    by: Option<u64>,
    grad: &mut Buffer,
) -> Result<(), D::Error> {
    if let Some(at) = by.filter(|_| !grad.is_empty()) {
        let mut raw = [0; 8];
        device.read(at, &mut raw)?;
        bitstep::gradient::scale_in_place(&mut grad.data_mut(), f64::from_le_bytes(raw));
    }
    Ok(())
}
