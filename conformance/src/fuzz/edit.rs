//! Changes to the inputs of a case: fewer steps, parameters, elements; other types and numbers.

use std::collections::BTreeMap;

use crate::golden::{Case, Data, Given, Group, OptimizerCase, ParamCase};
use crate::tensor::{Dtype, Tensor};

/// A tensor with some of the entries of its first dimension.
pub(crate) fn pick_rows(t: &Tensor, keep: &[usize]) -> Tensor {
    let shape = [&[keep.len()], t.shape.get(1..).unwrap_or_default()].concat();
    let bytes = keep.iter().flat_map(|&row| t.row(row).bytes).collect();
    Tensor { dtype: t.dtype, shape, bytes }
}

/// A tensor with some of its elements, in another shape.
fn pick_elements(t: &Tensor, keep: &[usize], shape: &[usize]) -> Tensor {
    let size = t.dtype.size();
    let one = |&i: &usize| t.bytes.get(i * size..(i + 1) * size).unwrap_or_default().to_vec();
    Tensor { dtype: t.dtype, shape: shape.to_vec(), bytes: keep.iter().flat_map(one).collect() }
}

/// Rows of elements with some of the elements of each.
fn pick_columns(rows: &Tensor, count: usize, keep: &[usize], shape: &[usize]) -> Tensor {
    let all: Vec<Tensor> = (0..count).map(|t| pick_elements(&rows.row(t), keep, shape)).collect();
    let shape = [&[count], shape].concat();
    let bytes = all.into_iter().flat_map(|t| t.bytes).collect();
    Tensor { dtype: rows.dtype, shape, bytes }
}

/// The case with other data; answers are those of the old inputs until the oracle has filled them in.
pub(crate) fn with_data(case: &Case, data: OptimizerCase) -> Case {
    Case { data: Data::Optimizer(data), ..case.clone() }
}

/// The data of an optimizer's case.
pub(crate) fn optimizer(case: &Case) -> Option<&OptimizerCase> {
    match &case.data {
        Data::Optimizer(data) => Some(data),
        _ => None,
    }
}

/// The case with some of its steps.
pub(crate) fn with_steps(case: &Case, keep: &[usize]) -> Option<Case> {
    let mut data = optimizer(case)?.clone();
    for p in &mut data.params {
        p.grad = pick_rows(&p.grad, keep);
        p.value = pick_rows(&p.value, keep);
        p.has_grad = keep.iter().filter_map(|&t| p.has_grad.get(t).copied()).collect();
        for given in p.given.values_mut() {
            if let Given::Steps(rows) = given {
                *rows = pick_rows(rows, keep);
            }
        }
    }
    let some = |rows: &Vec<f64>| keep.iter().filter_map(|&t| rows.get(t).copied()).collect();
    data.lr = data.lr.as_ref().map(some);
    data.given.values_mut().for_each(|rows| *rows = some(rows));
    Some(Case { steps: keep.len(), ..with_data(case, data) })
}

/// The case with some of its parameters.
pub(crate) fn with_params(case: &Case, keep: &[usize]) -> Option<Case> {
    let mut data = optimizer(case)?.clone();
    let place = |i: &usize| keep.iter().position(|k| k == i);
    data.groups = data
        .groups
        .iter()
        .map(|g| Group { params: g.params.iter().filter_map(place).collect(), ..g.clone() })
        .filter(|g| !g.params.is_empty())
        .collect();
    data.params = keep.iter().filter_map(|&i| data.params.get(i).cloned()).collect();
    Some(with_data(case, data))
}

/// The case with one parameter changed.
pub(crate) fn with_param(
    case: &Case,
    i: usize,
    change: impl FnOnce(&mut ParamCase) -> Option<()>,
) -> Option<Case> {
    let mut data = optimizer(case)?.clone();
    change(data.params.get_mut(i)?)?;
    Some(with_data(case, data))
}

/// The case with some elements of a parameter, in another shape. State that it starts from has to be of one element
/// or of the parameter's.
pub(crate) fn with_elements(
    case: &Case,
    i: usize,
    keep: &[usize],
    shape: &[usize],
) -> Option<Case> {
    let steps = case.steps;
    with_param(case, i, |p| {
        let n = p.init.len();
        if keep.iter().any(|&k| k >= n) || shape.iter().product::<usize>() != keep.len() {
            return None;
        }
        let mut state0 = BTreeMap::new();
        for (slot, t) in &p.state0 {
            let new = match t.len() {
                len if len == n && t.shape == p.init.shape => pick_elements(t, keep, shape),
                1 if t.shape.is_empty() => t.clone(),
                _ => return None,
            };
            state0.insert(slot.clone(), new);
        }
        for given in p.given.values_mut() {
            if let Given::Steps(rows) = given
                && rows.len() == n * steps
            {
                *rows = pick_columns(rows, steps, keep, shape);
            }
        }
        p.state0 = state0;
        p.grad = pick_columns(&p.grad, steps, keep, shape);
        p.value = pick_columns(&p.value, steps, keep, shape);
        p.init = pick_elements(&p.init, keep, shape);
        Some(())
    })
}

/// The numbers of a tensor through a function, in the tensor's type.
pub(crate) fn map(t: &Tensor, f: impl Fn(usize, f64) -> f64) -> Tensor {
    let values: Vec<f64> = t.to_f64s().into_iter().enumerate().map(|(i, x)| f(i, x)).collect();
    Tensor::round(t.dtype, &t.shape, &values).unwrap_or_else(|| t.clone())
}

/// The case with all parameters in another type.
pub(crate) fn with_dtype(case: &Case, dtype: Dtype) -> Option<Case> {
    let mut data = optimizer(case)?.clone();
    for p in &mut data.params {
        let old = p.init.dtype;
        let to = |t: &Tensor| Tensor::round(dtype, &t.shape, &t.to_f64s());
        p.init = to(&p.init)?;
        p.grad = to(&p.grad)?;
        p.value = to(&p.value)?;
        for t in p.state0.values_mut().filter(|t| t.dtype == old && !t.shape.is_empty()) {
            *t = to(t)?;
        }
        p.given.remove("rand16");
    }
    Some(with_data(case, data))
}

/// The case with an argument changed, for every group that does not override it.
pub(crate) fn with_argument(case: &Case, key: &str, value: &serde_json::Value) -> Case {
    let mut new = case.clone();
    let old = new.hyper.insert(key.to_owned(), value.clone());
    if let Data::Optimizer(data) = &mut new.data {
        for group in &mut data.groups {
            if group.hyper.get(key) == old.as_ref() {
                group.hyper.insert(key.to_owned(), value.clone());
            }
        }
    }
    new
}
