//! The tensors of a file, and checks of their names, shapes and types.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;
use crate::tensor::{Dtype, Tensor};

/// The tensors of a file; each is removed when it is read.
pub(super) struct Tensors(pub(super) BTreeMap<String, Tensor>);

impl Tensors {
    pub(super) fn optional(&mut self, name: &str) -> Option<Tensor> {
        self.0.remove(name)
    }

    pub(super) fn required(&mut self, name: &str) -> Result<Tensor, Problem> {
        self.optional(name).ok_or_else(|| Problem::MissingTensor(name.to_owned()))
    }

    /// All tensors whose names have this prefix, by the rest of the name.
    pub(super) fn with_prefix(&mut self, prefix: &str) -> BTreeMap<String, Tensor> {
        let names: Vec<String> = self.0.keys().filter(|k| k.starts_with(prefix)).cloned().collect();
        names
            .into_iter()
            .filter_map(|k| self.0.remove(&k).map(|t| (k[prefix.len()..].to_owned(), t)))
            .collect()
    }

    /// How many n there are with a tensor `{letter}{n}.…`; they must be 0, 1, 2, ….
    pub(super) fn numbered(&self, letter: char, needed: &str) -> Result<usize, Problem> {
        let number = |k: &String| k.strip_prefix(letter)?.split_once('.')?.0.parse::<usize>().ok();
        let found: BTreeSet<usize> = self.0.keys().filter_map(number).collect();
        // The first missing index, or the end.
        let count = found.iter().zip(0..).take_while(|&(&n, i)| n == i).count();
        if count < found.len() || count == 0 {
            return Err(Problem::MissingTensor(format!("{letter}{count}.{needed}")));
        }
        Ok(count)
    }
}

pub(super) fn check_shape(name: &str, tensor: &Tensor, expected: &[usize]) -> Result<(), Problem> {
    if tensor.shape == expected {
        return Ok(());
    }
    let (tensor, got, expected) = (name.to_owned(), tensor.shape.clone(), expected.to_vec());
    Err(Problem::Shape { tensor, got, expected })
}

pub(super) fn check_dtype(name: &str, got: Dtype, ok: bool, expected: &str) -> Result<(), Problem> {
    if ok {
        return Ok(());
    }
    Err(Problem::Dtype { tensor: name.to_owned(), got, expected: expected.to_owned() })
}

/// A vector of T values in `f64`.
pub(super) fn series(name: &str, tensor: Tensor, steps: usize) -> Result<Vec<f64>, Problem> {
    check_dtype(name, tensor.dtype, tensor.dtype == Dtype::F64, "f64")?;
    check_shape(name, &tensor, &[steps])?;
    Ok(tensor.to_f64s())
}

pub(super) fn no_nan(name: &str, values: &[f64]) -> Result<(), Problem> {
    match values.iter().position(|x| x.is_nan()) {
        None => Ok(()),
        Some(index) => Err(Problem::Nan { tensor: name.to_owned(), index }),
    }
}
