//! Converts between the suite's tensors and the core's buffers, and from JSON to the core's arguments.

use bitstep::float::{self, StoredFloat};
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::Buffer;
use bitstep::storage::DataMut;
use serde_json::{Map, Value as Json};

use crate::backend::{BackendError, failed};
use crate::tensor::{Dtype, Tensor};

/// A JSON value as an argument of the core.
pub(crate) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::Str(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        Json::Object(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), value(v))).collect()),
    }
}

pub(crate) fn args(hyper: &Map<String, Json>) -> Args {
    hyper.iter().map(|(k, v)| (k.clone(), value(v))).collect()
}

/// The core's [`Dtype`](float::Dtype) of a parameter.
pub(crate) fn dtype(dtype: Dtype) -> Result<float::Dtype, BackendError> {
    Ok(match dtype {
        Dtype::F64 => float::Dtype::F64,
        Dtype::F32 => float::Dtype::F32,
        Dtype::Bf16 => float::Dtype::Bf16,
        Dtype::F16 => float::Dtype::F16,
        other => {
            return Err(BackendError::Unsupported(format!(
                "core has no parameters of type {other}"
            )));
        }
    })
}

/// A buffer with a tensor's elements.
pub(crate) fn buffer(t: &Tensor) -> Result<Buffer, BackendError> {
    let mut buffer = Buffer::zeros(dtype(t.dtype)?, t.len()).map_err(failed)?;
    buffer.data_mut().set_bytes(&t.bytes).map_err(failed)?;
    Ok(buffer)
}

/// A tensor with the elements of a plain buffer; empty for an encoded one.
pub(crate) fn tensor(buffer: &Buffer, shape: &[usize]) -> Tensor {
    let (dtype, bytes) = match buffer.data() {
        Some(data) => (of(data.dtype()), data.bytes()),
        None => (Dtype::F32, Vec::new()),
    };
    Tensor { dtype, shape: shape.to_vec(), bytes }
}

/// The suite's [`Dtype`] of one of the core's.
fn of(dtype: float::Dtype) -> Dtype {
    match dtype {
        float::Dtype::F64 => Dtype::F64,
        float::Dtype::F32 => Dtype::F32,
        float::Dtype::Bf16 => Dtype::Bf16,
        float::Dtype::F16 => Dtype::F16,
    }
}

/// Copies a tensor into data of equal length, rounding where its type is narrower.
pub(crate) fn write(to: &mut DataMut<'_>, t: &Tensor) {
    fn all<T: StoredFloat>(to: &mut [T], t: &Tensor) {
        to.iter_mut().enumerate().for_each(|(i, x)| *x = T::from_f64(t.get(i)));
    }
    match to {
        DataMut::F64(x) => all(x, t),
        DataMut::F32(x) => all(x, t),
        DataMut::Bf16(x) => all(x, t),
        DataMut::F16(x) => all(x, t),
        DataMut::Encoded(_) => {}
    }
}

/// Writable views of buffers.
pub(crate) fn views(buffers: &mut [Buffer]) -> Vec<DataMut<'_>> {
    buffers.iter_mut().map(Buffer::data_mut).collect()
}
