//! Replays golden cases, packed by `bitstep_conformance::pack`, and hashes the bits.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bitstep::float::Dtype;
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::{Buffer, GroupId, Optimizer, Param};
use bitstep::registry;
use bitstep::storage::{RawBuffer, RawDtype};
use half::{bf16, f16};

/// Replays every case; `show` gets a case's name and a hash of the bits of parameters and state after each step.
///
/// # Errors
/// Data that can't be read, or a case that the core refuses.
pub fn all(packed: &[u8], mut show: impl FnMut(&str, u64)) -> Result<(), String> {
    let mut from = Reader(packed);
    for _ in 0..from.number()? {
        let id = from.text()?;
        let sum = one(&mut from).map_err(|e| format!("{id}: {e}"))?;
        show(id, sum);
    }
    Ok(())
}

fn one(from: &mut Reader<'_>) -> Result<u64, String> {
    let name = from.text()?;
    let steps = from.number()?;
    let mut optimizer = Optimizer::empty();
    for _ in 0..from.number()? {
        let json = serde_json::from_str(from.text()?).map_err(|e| format!("{e}"))?;
        let spec = registry::optimizer(name, args(json)).map_err(|e| format!("{e}"))?;
        optimizer.add_group(spec).map_err(|e| format!("{e}"))?;
    }
    let mut values = Vec::new();
    for _ in 0..from.number()? {
        let group = GroupId(from.number()? as usize);
        let dtype = from.number()?;
        let dims = from.number()?;
        let shape =
            (0..dims).map(|_| Ok(from.number()? as usize)).collect::<Result<Vec<_>, String>>()?;
        values.push(buffer(dtype, from.bytes()?)?);
        optimizer.add_param_to(group, &shape, self::dtype(dtype)?).map_err(|e| format!("{e}"))?;
    }
    let mut sum = Fnv(0xcbf2_9ce4_8422_2325);
    for _ in 0..steps {
        let lr = from.float()?;
        if !lr.is_nan() {
            optimizer.groups_mut().iter_mut().for_each(|g| g.lr = lr);
        }
        let count = from.number()?;
        let extra = (0..count)
            .map(|_| Ok((from.text()?, from.float()?)))
            .collect::<Result<Vec<_>, String>>()?;
        let mut grads = Vec::new();
        for _ in &values {
            grads.push(match from.number()? {
                99 => None,
                dtype => Some(buffer(dtype, from.bytes()?)?),
            });
        }
        let mut params: Vec<Param<'_>> = values
            .iter_mut()
            .zip(&grads)
            .map(|(value, grad)| Param {
                value: value.data_mut(),
                grad: grad.as_ref().and_then(Buffer::data),
            })
            .collect();
        optimizer.step_all(&mut params, &extra).map_err(|e| format!("{e}"))?;
        values.iter().for_each(|v| sum.buffer(v));
        for param in optimizer.params() {
            param.slots.iter().for_each(|slot| sum.buffer(slot));
            param.scalars.iter().for_each(|&x| sum.float(x));
            if let Some(correction) = &param.correction {
                sum.raw(correction);
            }
        }
        optimizer.groups().iter().flat_map(|g| g.scalars).for_each(|x| sum.float(x));
    }
    Ok(sum.0)
}

fn args(json: serde_json::Map<String, serde_json::Value>) -> Args {
    json.into_iter().map(|(name, value)| (name, self::value(value))).collect()
}

fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(b),
        Json::Number(n) => {
            n.as_i64().map_or(Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        Json::String(s) => Value::Str(s),
        Json::Array(list) => Value::List(list.into_iter().map(value).collect()),
        Json::Object(map) => Value::Map(map.into_iter().map(|(k, v)| (k, value(v))).collect()),
    }
}

fn dtype(number: u32) -> Result<Dtype, String> {
    [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16]
        .get(number as usize)
        .copied()
        .ok_or_else(|| format!("no type {number}"))
}

fn buffer(dtype: u32, bytes: &[u8]) -> Result<Buffer, String> {
    let dtype = self::dtype(dtype)?;
    let mut buffer =
        Buffer::zeros(dtype, bytes.len() / dtype.size()).map_err(|e| format!("{e}"))?;
    buffer.data_mut().set_bytes(bytes).map_err(|e| format!("{e}"))?;
    Ok(buffer)
}

/// FNV-1a over bits, with all NaNs equal.
struct Fnv(u64);

impl Fnv {
    fn bits(&mut self, bits: u64) {
        for byte in bits.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn float(&mut self, x: f64) {
        self.bits(if x.is_nan() { u64::MAX } else { x.to_bits() });
    }

    fn buffer(&mut self, buffer: &Buffer) {
        // Widening is exact.
        match buffer {
            Buffer::F64(x) => x.iter().for_each(|&x| self.float(x)),
            Buffer::F32(x) => x.iter().for_each(|&x| self.float(x.into())),
            Buffer::Bf16(x) => x.iter().for_each(|&x| self.float(x.into())),
            Buffer::F16(x) => x.iter().for_each(|&x| self.float(x.into())),
            Buffer::Encoded(coded) => {
                for part in coded.parts("") {
                    match part.element {
                        RawDtype::F32 => {
                            self.floats::<4>(&part.bytes, |b| f32::from_le_bytes(b).into())
                        }
                        RawDtype::F16 => {
                            self.floats::<2>(&part.bytes, |b| f16::from_le_bytes(b).into())
                        }
                        RawDtype::Bf16 => {
                            self.floats::<2>(&part.bytes, |b| bf16::from_le_bytes(b).into());
                        }
                        RawDtype::F64 => self.floats::<8>(&part.bytes, f64::from_le_bytes),
                        _ => part.bytes.iter().for_each(|&b| self.bits(b.into())),
                    }
                }
            }
        }
    }

    fn floats<const N: usize>(&mut self, bytes: &[u8], float: impl Fn([u8; N]) -> f64) {
        bytes.as_chunks().0.iter().for_each(|&b| self.float(float(b)));
    }

    fn raw(&mut self, raw: &RawBuffer) {
        match raw {
            RawBuffer::Bf16(x) => x.iter().for_each(|&x| self.float(x.into())),
            RawBuffer::F16(x) => x.iter().for_each(|&x| self.float(x.into())),
            other => other.bytes().iter().for_each(|&b| self.bits(b.into())),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.0.split_first_chunk().ok_or("the cases end too soon")?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    fn float(&mut self) -> Result<f64, String> {
        self.take().map(f64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let len = self.number()? as usize;
        let (head, rest) = self.0.split_at_checked(len).ok_or("the cases end too soon")?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        core::str::from_utf8(self.bytes()?).map_err(|e| format!("{e}"))
    }
}
