//! The state slots of a parameter.

use std::collections::BTreeMap;

use bitstep::float::{Dtype, StoredFloat};
use bitstep::optimizer::{Buffer, ParamState};
use bitstep::storage::{DataMut, EncodedBuffer, RawDtype, RawPart, Storage, StorageFormat};
use half::{bf16, f16};

use super::ResumeError;

type Numbers = BTreeMap<String, Vec<f64>>;

/// Fills every slot in use of parameter i.
pub(super) fn fill(
    i: usize,
    param: &mut ParamState,
    names: &[&str],
    state: &Numbers,
) -> Result<(), ResumeError> {
    let dtype = param.dtype;
    for (k, slot) in param.slots.iter_mut().enumerate() {
        if slot.is_empty() {
            continue;
        }
        let name = names[k];
        let from = Saved { i, state, which: stack_position(names, k), name };
        match slot {
            Buffer::Encoded(encoded) => from.encoded(encoded)?,
            plain => from.plain(plain, dtype)?,
        }
    }
    let Some(correction) = &mut param.correction else { return Ok(()) };
    // The compensation of optimi, and of AnyPrecision.
    const KEYS: [&str; 2] = ["kahan_comp", "compensation"];
    let key = KEYS.into_iter().find(|key| state.contains_key(*key));
    let from = Saved { i, state, which: (0, 1), name: key.unwrap_or(KEYS[0]) };
    if correction.element() != dtype.into() {
        return Err(from.storage("plain numbers", "correction bits"));
    }
    let bytes = bytes(correction.element(), from.numbers(from.name, correction.len())?);
    Ok(correction.set_bytes(&bytes)?)
}

/// The position of slot k among the slots of its name, and their number: the reference stacks them.
fn stack_position(names: &[&str], k: usize) -> (usize, usize) {
    let count = |names: &[&str], name: &str| names.iter().filter(|n| **n == name).count();
    (count(&names[..k], names[k]), count(names, names[k]))
}

/// The saved values of one slot.
struct Saved<'a> {
    i: usize,
    state: &'a Numbers,
    which: (usize, usize),
    name: &'a str,
}

impl Saved<'_> {
    /// The `expected` values of this slot under a key.
    fn numbers(&self, key: &str, expected: usize) -> Result<&[f64], ResumeError> {
        let of = || format!("parameter {}", self.i);
        let missing = || ResumeError::Missing { of: of(), key: key.to_owned() };
        let all = self.state.get(key).ok_or_else(missing)?;
        let (which, stacked) = self.which;
        if expected.checked_mul(stacked) != Some(all.len()) {
            let what = format!("numbers in `{key}` of {}", of());
            let here = expected.saturating_mul(stacked);
            return Err(ResumeError::Count { what, saved: all.len(), here });
        }
        Ok(all.get(which * expected..(which + 1) * expected).unwrap_or_default())
    }

    fn storage(&self, saved: impl Into<String>, here: impl Into<String>) -> ResumeError {
        let (parameter, slot) = (self.i, self.name.to_owned());
        ResumeError::Storage { parameter, slot, saved: saved.into(), here: here.into() }
    }

    /// The key of an array that belongs to the slot: `absmax1` for `state1`.
    fn beside(&self, what: &str) -> Option<String> {
        Some(format!("{what}{}", self.name.strip_prefix("state")?))
    }

    fn plain(&self, to: &mut Buffer, param: Dtype) -> Result<(), ResumeError> {
        let absmax = self.beside("absmax");
        if absmax.as_ref().is_some_and(|key| self.state.contains_key(key)) {
            return Err(self.storage("8-bit codes", "plain numbers"));
        }
        let numbers = self.numbers(self.name, to.len())?;
        // bitsandbytes never casts its state.
        let cast = absmax.is_none();
        write(&mut to.data_mut(), numbers, if cast { param } else { Dtype::F64 });
        Ok(())
    }

    fn encoded(&self, to: &mut EncodedBuffer) -> Result<(), ResumeError> {
        let here = to.format().to_string();
        if let StorageFormat::DynamicQuant8(_) = to.format() {
            let [absmax, map] = ["absmax", "qmap"].map(|what| self.beside(what));
            let map = map.and_then(|key| self.state.get(&key));
            let (Some(map), Some(_)) = (map, absmax.and_then(|key| self.state.get(&key))) else {
                return Err(self.storage("plain numbers", here));
            };
            if !same_map(to.format(), map)? {
                return Err(self.storage("8-bit codes of another map", here));
            }
        }
        for part in to.parts(self.name) {
            let len = part.bytes.len() / part.element.size();
            let bytes = bytes(part.element, self.numbers(&part.key, len)?);
            to.set_part(self.name, &RawPart { bytes, ..part })?;
        }
        Ok(())
    }
}

/// Whether a quantization map is that of a block-wise format, to the bit.
fn same_map(format: StorageFormat, map: &[f64]) -> Result<bool, ResumeError> {
    let mut all = EncodedBuffer::zeros(format, 256)?;
    for part in all.parts("") {
        let bytes = match part.element {
            RawDtype::U8 => (0..=255).collect(),
            element => bytes(element, &vec![1.0; part.bytes.len() / element.size()]),
        };
        all.set_part("", &RawPart { bytes, ..part })?;
    }
    let mut here = [0f32; 256];
    all.load(0, &mut here);
    let bits = |x: f64| (x as f32).to_bits();
    Ok(map.len() == here.len()
        && map.iter().zip(here).all(|(&a, b)| bits(a) == b.to_bits() || a == 0.0 && b == 0.0))
}

/// Values as the little-endian bytes of a type.
fn bytes(element: RawDtype, numbers: &[f64]) -> Vec<u8> {
    fn all<const N: usize>(numbers: &[f64], to: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
        numbers.iter().flat_map(|&x| to(x)).collect()
    }
    match element {
        RawDtype::F64 => all(numbers, f64::to_le_bytes),
        RawDtype::F32 => all(numbers, |x| (x as f32).to_le_bytes()),
        RawDtype::Bf16 => all(numbers, |x| bf16::from_f64(x).to_le_bytes()),
        RawDtype::F16 => all(numbers, |x| f16::from_f64(x).to_le_bytes()),
        RawDtype::I16 => all(numbers, |x| (x as i16).to_le_bytes()),
        RawDtype::I8 => all(numbers, |x| (x as i8).to_le_bytes()),
        RawDtype::U8 | RawDtype::F8E4M3 => all(numbers, |x| [x as u8]),
    }
}

/// Writes values, rounded to the type of their parameter first.
fn write(to: &mut DataMut<'_>, numbers: &[f64], param: Dtype) {
    fn all<T: StoredFloat>(to: &mut [T], numbers: &[f64], cast: impl Fn(f64) -> f64) {
        to.iter_mut().zip(numbers).for_each(|(x, &n)| *x = T::from_f64(cast(n)));
    }
    let cast = |x: f64| match param {
        Dtype::F64 => x,
        Dtype::F32 => f64::from(x as f32),
        Dtype::Bf16 => bf16::from_f64(x).to_f64(),
        Dtype::F16 => f16::from_f64(x).to_f64(),
    };
    match to {
        DataMut::F64(x) => all(x, numbers, cast),
        DataMut::F32(x) => all(x, numbers, cast),
        DataMut::Bf16(x) => all(x, numbers, cast),
        DataMut::F16(x) => all(x, numbers, cast),
        DataMut::Encoded(_) => {}
    }
}
