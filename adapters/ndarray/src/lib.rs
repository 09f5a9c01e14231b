#![doc = include_str!("../README.md")]
//!
//! State is stored in logical (row-major) order, so neither checkpoints nor sums over
//! a tensor depend on the views' memory order. A view in standard order is stepped in
//! place. Any other view (Fortran order, permuted, strided, reversed) is gathered into
//! a buffer, stepped and scattered back, with the same bits, at the cost of one copy
//! each way. The feature `rayon` adds `par_step`, which runs on rayon's threads.
//!
//! It does not compute gradients; groups, schedules and saving are those of
//! [`Optimizer`] itself.
// docs.rs marks what a feature brings.
#![cfg_attr(docsrs, feature(doc_cfg))]

use bitstep::Error;
use bitstep::optimizer::{GroupId, Optimizer, Param, ParamId};
use bitstep::storage::memory::collected;
use bitstep::storage::{Data, Plain};
use ndarray::{ArrayView, ArrayViewMut, CowArray, Dimension, IxDyn};

/// A parameter and its gradient.
pub struct ArrayParam<'a>(Box<dyn DynArrayParam + 'a>);

impl<'a> ArrayParam<'a> {
    /// A parameter whose `grad` is `None` keeps its value and state.
    pub fn new<T: Plain, D: Dimension>(
        value: ArrayViewMut<'a, T, D>,
        grad: Option<ArrayView<'a, T, D>>,
    ) -> ArrayParam<'a> {
        let shape_matches = grad.as_ref().is_none_or(|g| g.shape() == value.shape());
        let grad = grad.map(|g| CowArray::from(g.into_dyn()));
        ArrayParam(Box::new(Views { value: value.into_dyn(), gathered: None, grad, shape_matches }))
    }
}

trait DynArrayParam {
    fn gather(&mut self) -> Result<(), Error>;
    fn param(&mut self) -> Option<Param<'_>>;
    fn scatter(&mut self);
}

struct Views<'a, T> {
    value: ArrayViewMut<'a, T, IxDyn>,
    /// The values in standard order, if the view has another order.
    gathered: Option<Vec<T>>,
    grad: Option<CowArray<'a, T, IxDyn>>,
    shape_matches: bool,
}

impl<T: Plain> DynArrayParam for Views<'_, T> {
    fn gather(&mut self) -> Result<(), Error> {
        if !self.shape_matches {
            return Err(Error::InvalidArgument {
                argument: "grad",
                expected: "the parameter's shape",
            });
        }
        if !self.value.is_standard_layout() {
            self.gathered = Some(collected("param", self.value.iter().copied())?);
        }
        if let Some(grad) = self.grad.take() {
            let standard = grad.is_standard_layout();
            self.grad = Some(if standard {
                grad
            } else {
                let shape = grad.raw_dim();
                let rows: Vec<T> = collected("grad", grad.iter().copied())?;
                ndarray::Array::from_shape_vec(shape, rows).map(CowArray::from).map_err(|_| {
                    Error::InvalidArgument { argument: "grad", expected: "a valid view" }
                })?
            });
        }
        Ok(())
    }

    fn param(&mut self) -> Option<Param<'_>> {
        let value = match &mut self.gathered {
            Some(rows) => rows.as_mut_slice(),
            None => self.value.as_slice_mut()?,
        };
        let grad: Option<Data<'_>> = match &self.grad {
            Some(g) => Some(T::data(g.as_slice()?)),
            None => None,
        };
        Some(Param { value: T::data_mut(value), grad })
    }

    fn scatter(&mut self) {
        if let Some(rows) = self.gathered.take() {
            self.value.iter_mut().zip(rows).for_each(|(to, from)| *to = from);
        }
    }
}

/// Adds a parameter of this view's shape and type to a group.
///
/// # Errors
/// Those of [`Optimizer::add_param_to`].
pub fn add_param<T: Plain, D: Dimension>(
    optimizer: &mut Optimizer,
    group: GroupId,
    value: &ArrayView<'_, T, D>,
) -> Result<ParamId, Error> {
    optimizer.add_param_to(group, value.shape(), T::DTYPE)
}

/// Steps all parameters, in the order in which they were added. `extra` are extra
/// arguments by name, for the rules that use any.
///
/// # Errors
/// A gradient of another shape than its parameter, or an error of
/// [`Optimizer::step_all`]. Nothing is written then.
pub fn step(
    optimizer: &mut Optimizer,
    items: &mut [ArrayParam<'_>],
    extra: &[(&str, f64)],
) -> Result<(), Error> {
    with_params(items, |params| optimizer.step_all(params, extra))
}

/// [`step`] on rayon's threads, with the same bits whatever their number.
///
/// Tensors are split where the rule allows it; below [`bitstep_rayon::GRAIN`]
/// elements they are not.
///
/// # Errors
/// As [`step`].
#[cfg(feature = "rayon")]
pub fn par_step(
    optimizer: &mut Optimizer,
    items: &mut [ArrayParam<'_>],
    extra: &[(&str, f64)],
) -> Result<(), Error> {
    par_step_with_grain(optimizer, items, extra, bitstep_rayon::GRAIN)
}

/// [`par_step`] with another size below which tensors are not split.
///
/// # Errors
/// As [`step`].
#[cfg(feature = "rayon")]
pub fn par_step_with_grain(
    optimizer: &mut Optimizer,
    items: &mut [ArrayParam<'_>],
    extra: &[(&str, f64)],
    grain: usize,
) -> Result<(), Error> {
    with_params(items, |params| {
        bitstep_rayon::run_with_grain(optimizer.tasks_batched(params, extra, grain)?, grain)
    })
}

fn with_params(
    items: &mut [ArrayParam<'_>],
    f: impl FnOnce(&mut [Param<'_>]) -> Result<(), Error>,
) -> Result<(), Error> {
    items.iter_mut().try_for_each(|item| item.0.gather())?;
    let params: Option<Vec<Param<'_>>> = items.iter_mut().map(|item| item.0.param()).collect();
    let Some(mut params) = params else {
        return Err(Error::InvalidArgument { argument: "param", expected: "a valid view" });
    };
    f(&mut params)?;
    drop(params);
    items.iter_mut().for_each(|item| item.0.scatter());
    Ok(())
}
