//! Plain numbers as bytes, and back.

use bitstep::optimizer::Buffer;
use bitstep::storage::DataMut;
use half::{bf16, f16};

use crate::Device;

/// The bytes of plain numbers; of others, none.
pub(crate) fn bytes(buffer: &Buffer) -> Vec<u8> {
    match buffer {
        Buffer::F64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Bf16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F16(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Coded(_) => Vec::new(),
    }
}

/// Plain numbers from their bytes.
pub(crate) fn set(to: &mut DataMut<'_>, bytes: &[u8]) {
    fn all<const N: usize, T>(to: &mut [T], bytes: &[u8], from: fn([u8; N]) -> T) {
        to.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, b)| *to = from(*b));
    }
    match to {
        DataMut::F64(x) => all(x, bytes, f64::from_le_bytes),
        DataMut::F32(x) => all(x, bytes, f32::from_le_bytes),
        DataMut::Bf16(x) => all(x, bytes, bf16::from_le_bytes),
        DataMut::F16(x) => all(x, bytes, f16::from_le_bytes),
        DataMut::Coded(_) => {}
    }
}

/// Fills a buffer of plain numbers from the device.
pub(crate) fn read<D: Device>(device: &mut D, at: u64, to: &mut Buffer) -> Result<(), D::Error> {
    let mut raw = bytes(to);
    if !raw.is_empty() {
        device.read(at, &mut raw)?;
    }
    set(&mut to.data_mut(), &raw);
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
        bitstep::gradient::multiply(&mut grad.data_mut(), f64::from_le_bytes(raw));
    }
    Ok(())
}
