//! The tensors of a `gradient` case.

use std::collections::BTreeMap;

use super::Problem;
use super::tensors::{Tensors, check_dtype, check_shape};
use crate::tensor::{Dtype, Tensor};

/// Gradients before and after a strategy.
#[derive(Clone, Debug)]
pub struct GradientCase {
    /// In order.
    pub tensors: Vec<GradientTensor>,
    /// The total norm that the reference returned.
    pub norm: Option<f64>,
}

/// One gradient.
#[derive(Clone, Debug)]
pub struct GradientTensor {
    /// The input; for `accumulate` one row per micro-batch.
    pub input: Tensor,
    /// The expected output.
    pub output: Tensor,
    /// Random tensors that the reference drew (`g{i}.given.…`).
    pub given: BTreeMap<String, Tensor>,
}

pub(super) fn read(tensors: &mut Tensors, name: &str) -> Result<GradientCase, Problem> {
    let count = tensors.numbered('g', "in")?;
    let mut out = Vec::new();
    for i in 0..count {
        let (name_in, name_out) = (format!("g{i}.in"), format!("g{i}.out"));
        let input = tensors.required(&name_in)?;
        let output = tensors.required(&name_out)?;
        for (name, t) in [(&name_in, &input), (&name_out, &output)] {
            check_dtype(name, t.dtype, t.dtype.float().is_some(), "a floating-point type")?;
        }
        if name == "accumulate" {
            let inner = input.shape.get(1..);
            let expected = format!("micro-batches × {:?}", output.shape);
            if inner != Some(&output.shape[..]) {
                return Err(Problem::Dimensions { tensor: name_in, got: input.shape, expected });
            }
        } else {
            check_shape(&name_out, &output, &input.shape)?;
        }
        let given = tensors.with_prefix(&format!("g{i}.given."));
        out.push(GradientTensor { input, output, given });
    }
    let norm = match (tensors.optional("norm"), name) {
        (None, "clip_grad_norm") => return Err(Problem::MissingTensor("norm".into())),
        (None, _) => None,
        (Some(norm), _) => {
            check_dtype("norm", norm.dtype, norm.dtype == Dtype::F64, "f64")?;
            check_shape("norm", &norm, &[])?;
            Some(norm.get(0))
        }
    };
    Ok(GradientCase { tensors: out, norm })
}
