//! Gradient clipping.

use bitstep::float::Dtype;
use bitstep::gradient::ClipGradNorm;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

use crate::args::{list, number};
use crate::error::Result;
use crate::memory::{ArrayOf, Tensor};

/// The clipping with these arguments.
pub(crate) fn clip(max_norm: &JsValue, norm_type: &JsValue) -> Result<ClipGradNorm> {
    let norm_type = if norm_type.is_undefined() { 2.0 } else { number("normType", norm_type)? };
    let max_norm = number("maxNorm", max_norm)?;
    Ok(ClipGradNorm { max_norm, norm_type, error_if_nonfinite: false })
}

/// Clips gradients in place to a total norm of at most `maxNorm`, as torch's `clip_grad_norm_` does, and returns the norm
/// before.
#[wasm_bindgen(js_name = clipGradNorm)]
pub fn clip_grad_norm(
    #[wasm_bindgen(unchecked_param_type = "readonly (Float32Array | Float64Array)[]")]
    grads: &JsValue,
    #[wasm_bindgen(js_name = maxNorm, unchecked_param_type = "number")] max_norm: &JsValue,
    #[wasm_bindgen(js_name = normType, unchecked_optional_param_type = "number")]
    norm_type: &JsValue,
) -> Result<f64> {
    let clip = clip(max_norm, norm_type)?;
    let (mut arrays, mut copies) = (Vec::new(), Vec::new());
    for grad in list("grads", grads)?.iter() {
        let dtype =
            if grad.is_instance_of::<js_sys::Float64Array>() { Dtype::F64 } else { Dtype::F32 };
        let array = ArrayOf::of("grads", &grad, dtype)?;
        copies.push(Tensor::zeros(dtype, array.len())?);
        arrays.push(array);
    }
    for (array, copy) in arrays.iter().zip(&mut copies) {
        array.expect_len("grads", copy.data().len())?;
        copy.copy_from(array);
    }
    let mut data: Vec<_> = copies.iter_mut().map(Tensor::data_mut).collect();
    let norm = clip.clip(&mut data)?;
    for (array, copy) in arrays.iter().zip(&copies) {
        copy.copy_to(array);
    }
    Ok(norm)
}
