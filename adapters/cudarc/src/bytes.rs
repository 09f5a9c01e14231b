//! Transfer of unquantized buffers.

use bitstep::optimizer::Buffer;

use crate::Device;

/// The bytes of an unquantized buffer; empty for an encoded one.
pub(crate) fn bytes(buffer: &Buffer) -> Vec<u8> {
    buffer.data().map(|data| data.bytes()).unwrap_or_default()
}

/// Fills an unquantized buffer from the device.
pub(crate) fn read<D: Device>(device: &mut D, at: u64, to: &mut Buffer) -> Result<(), D::Error> {
    let mut raw = bytes(to);
    if !raw.is_empty() {
        device.read(at, &mut raw)?;
    }
    // The length matches: `raw` has the bytes of this buffer.
    _ = to.data_mut().set_bytes(&raw);
    Ok(())
}

/// Multiplies a gradient by the scale at a device address, if there is one.
pub(crate) fn apply_grad_scale<D: Device>(
    device: &mut D,
    grad_scale: Option<u64>,
    grad: &mut Buffer,
) -> Result<(), D::Error> {
    if let Some(at) = grad_scale.filter(|_| !grad.is_empty()) {
        let mut raw = [0; 8];
        device.read(at, &mut raw)?;
        bitstep::gradient::scale_in_place(&mut grad.data_mut(), f64::from_le_bytes(raw));
    }
    Ok(())
}
