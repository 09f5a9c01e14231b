//! Packs golden cases into one byte string for firmware, which has no file system.
//!
//! It holds the inputs alone: the device and its host both replay them, and must get identical bits.
//! Little-endian. Strings and byte strings are prefixed by a u32 length, lists by a u32 count:
//!
//! ```text
//! list of cases: id, name, steps u32,
//!   list of groups:     arguments as JSON
//!   list of parameters: group u32, dtype u32 (core's order), list of dimensions u32, bytes
//!   for each step:      learning rate f64 (NaN if none), list of (name, f64),
//!                       for each parameter: dtype u32 (99 if no gradient), bytes
//! ```

use serde_json::Value;

use crate::backend::core_backend;
use crate::backend::{BackendError, OptimizerSpec};
use crate::convert;
use crate::golden::{Case, Data, OptimizerCase};
use crate::tensor::Tensor;

/// Marks a missing gradient.
const NONE: u32 = 99;

/// Packs the optimizer cases among `cases`.
///
/// # Errors
/// A case that the core can't be built for.
pub fn pack<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Result<Vec<u8>, BackendError> {
    let mut out = Vec::new();
    let mut count = 0u32;
    for case in cases {
        if let Data::Optimizer(data) = &case.data {
            one(case, data, &mut out)?;
            count += 1;
        }
    }
    Ok([&count.to_le_bytes()[..], &out].concat())
}

fn number(x: usize, out: &mut Vec<u8>) {
    out.extend(u32::try_from(x).unwrap_or(u32::MAX).to_le_bytes());
}

fn bytes(b: &[u8], out: &mut Vec<u8>) {
    number(b.len(), out);
    out.extend(b);
}

fn tensor(t: &Tensor, out: &mut Vec<u8>) -> Result<(), BackendError> {
    let dtype = match convert::dtype(t.dtype)? {
        bitstep::float::Dtype::F64 => 0,
        bitstep::float::Dtype::F32 => 1,
        bitstep::float::Dtype::Bf16 => 2,
        bitstep::float::Dtype::F16 => 3,
    };
    number(dtype, out);
    Ok(())
}

fn one(case: &Case, data: &OptimizerCase, out: &mut Vec<u8>) -> Result<(), BackendError> {
    let spec = OptimizerSpec::new(case, data);
    bytes(case.id.as_bytes(), out);
    bytes(spec.name.as_bytes(), out);
    number(case.steps, out);
    number(spec.groups.len(), out);
    for group in spec.groups {
        let hyper = core_backend::completed(&spec, &group.hyper);
        bytes(Value::Object(hyper).to_string().as_bytes(), out);
    }
    number(data.params.len(), out);
    for (i, param) in data.params.iter().enumerate() {
        let group = data.groups.iter().position(|g| g.params.contains(&i));
        number(group.unwrap_or_default(), out);
        tensor(&param.init, out)?;
        number(param.init.shape.len(), out);
        param.init.shape.iter().for_each(|&d| number(d, out));
        bytes(&param.init.bytes, out);
    }
    for t in 0..case.steps {
        let lr = data.lr.as_ref().map_or(f64::NAN, |lr| lr[t]);
        out.extend(lr.to_le_bytes());
        number(data.given.len(), out);
        for (name, series) in &data.given {
            bytes(name.as_bytes(), out);
            out.extend(series[t].to_le_bytes());
        }
        for param in &data.params {
            if param.has_grad[t] {
                let grad = param.grad.row(t);
                tensor(&grad, out)?;
                bytes(&grad.bytes, out);
            } else {
                number(NONE as usize, out);
            }
        }
    }
    Ok(())
}
