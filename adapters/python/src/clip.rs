//! The parts of clipping by a norm over all gradients, some of which may be held in other processes.

use bitstep::float::Dtype;
use bitstep::gradient::{self, ClipGradNorm, scale_in_place, total_norm};
use bitstep::storage::Data;
use half::{bf16, f16};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::args::error;
use crate::memory::{Memory, Reader, Refusal, dtype};

/// Where the gradients of a list lie. The list keeps them.
fn memory(py: Python<'_>, grads: &Bound<'_, PyList>) -> PyResult<Vec<Memory>> {
    let mut reader = Reader::new(py);
    let mut all = Vec::with_capacity(grads.len());
    for (i, grad) in grads.iter().enumerate() {
        let shape: Vec<usize> = grad.getattr("shape")?.extract()?;
        let read = reader.memory(&grad, &shape, &|| format!("grads[{i}]"));
        all.push(read.map_err(|refusal| match refusal {
            Refusal::Other(error) => error,
            Refusal::Strided => PyValueError::new_err(format!(
                "grads[{i}]: its elements are not contiguous and aligned"
            )),
        })?);
    }
    Ok(all)
}

/// The norm of each of these whole gradients, rounded to its type.
#[pyfunction]
pub(crate) fn norms(
    py: Python<'_>,
    grads: &Bound<'_, PyList>,
    norm_type: f64,
) -> PyResult<Vec<f64>> {
    let memory = memory(py, grads)?;
    // SAFETY: `grads` keeps the tensors, which the caller must not change meanwhile.
    Ok(py
        .detach(|| memory.iter().map(|m| gradient::norm(unsafe { m.data() }, norm_type)).collect()))
}

/// The norm of all gradients by theirs, and the factor that clips them.
#[pyfunction]
pub(crate) fn clip_coefficient(
    norms: Vec<f64>,
    dtypes: Vec<String>,
    max_norm: f64,
    norm_type: f64,
    error_if_nonfinite: bool,
) -> PyResult<(f64, f64)> {
    enum One {
        F64([f64; 1]),
        F32([f32; 1]),
        Bf16([bf16; 1]),
        F16([f16; 1]),
    }
    // A norm has its gradient's type, and is the norm of itself.
    let ones = norms.iter().zip(&dtypes).map(|(&norm, name)| {
        Ok(match self::dtype(name)? {
            Dtype::F64 => One::F64([norm]),
            Dtype::F32 => One::F32([norm as f32]),
            Dtype::Bf16 => One::Bf16([bf16::from_f64(norm)]),
            Dtype::F16 => One::F16([f16::from_f64(norm)]),
        })
    });
    let ones: Vec<One> = ones.collect::<PyResult<_>>()?;
    let all: Vec<Data<'_>> = ones
        .iter()
        .map(|one| match one {
            One::F64(x) => Data::F64(x),
            One::F32(x) => Data::F32(x),
            One::Bf16(x) => Data::Bf16(x),
            One::F16(x) => Data::F16(x),
        })
        .collect();
    let (norm, dtype) = total_norm(&all, norm_type);
    let clip = ClipGradNorm { max_norm, norm_type, error_if_nonfinite };
    // As torch's, a RuntimeError.
    let refused = |e| PyRuntimeError::new_err(error(e).to_string());
    Ok((norm, clip.checked_coefficient(norm, dtype).map_err(refused)?))
}

/// Multiplies gradients by a factor, in place.
#[pyfunction]
pub(crate) fn scale(py: Python<'_>, grads: &Bound<'_, PyList>, factor: f64) -> PyResult<()> {
    let memory = memory(py, grads)?;
    // SAFETY: as in `norms`; they are written one after the other, so none while another is.
    py.detach(|| memory.iter().for_each(|m| scale_in_place(&mut unsafe { m.data_mut() }, factor)));
    Ok(())
}
