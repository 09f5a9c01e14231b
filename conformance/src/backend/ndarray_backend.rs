//! The backend `ndarray`: the core's rules over array views.

use bitstep::optimizer::{Buffer, GroupId, Optimizer};
use bitstep::storage::Plain;
use bitstep_ndarray::{ArrayParam, add_param, par_step_with_grain};
use half::{bf16, f16};
use ndarray::{Array, ArrayD, IxDyn, ShapeBuilder};

use crate::backend::core_backend::{Core, CoreRun};
use crate::backend::host::ParamStore;
use crate::backend::{
    Backend, BackendError, GradientAnswer, GradientSpec, OptimizerSpec, Run, ScheduleSpec, failed,
};

/// `bitstep-ndarray`; schedules and gradient strategies are the core's.
#[derive(Clone, Copy, Debug)]
pub struct Ndarray {
    /// Whether parameters and gradients are column-major.
    pub fortran: bool,
    /// Number of elements below which work is not split over threads.
    pub grain: usize,
}

impl Backend for Ndarray {
    fn name(&self) -> &str {
        "ndarray"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let host = Arrays { settings: *self, optimizer: Optimizer::empty(), values: Vec::new() };
        Ok(Box::new(CoreRun::new(spec, host)?))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        Core.schedule(spec)
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        Core.gradient(spec)
    }
}

enum AnyArray {
    F64(ArrayD<f64>),
    F32(ArrayD<f32>),
    Bf16(ArrayD<bf16>),
    F16(ArrayD<f16>),
}

struct Arrays {
    settings: Ndarray,
    optimizer: Optimizer,
    values: Vec<AnyArray>,
}

fn array<T: Plain>(
    rows: Vec<T>,
    shape: &[usize],
    fortran: bool,
) -> Result<ArrayD<T>, BackendError> {
    let standard = Array::from_shape_vec(IxDyn(shape), rows).map_err(failed)?;
    if !fortran {
        return Ok(standard);
    }
    let mut other = Array::from_elem(IxDyn(shape).f(), T::default());
    other.assign(&standard);
    Ok(other)
}

impl Arrays {
    fn array(&self, value: Buffer, shape: &[usize]) -> Result<AnyArray, BackendError> {
        let f = self.settings.fortran;
        Ok(match value {
            Buffer::F64(x) => AnyArray::F64(array(x, shape, f)?),
            Buffer::F32(x) => AnyArray::F32(array(x, shape, f)?),
            Buffer::Bf16(x) => AnyArray::Bf16(array(x, shape, f)?),
            Buffer::F16(x) => AnyArray::F16(array(x, shape, f)?),
            Buffer::Encoded(_) => return Err(failed("an array that is not plain")),
        })
    }
}

impl ParamStore for Arrays {
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), BackendError> {
        let value = self.array(value, shape)?;
        match &value {
            AnyArray::F64(x) => add_param(&mut self.optimizer, GroupId(group), &x.view()),
            AnyArray::F32(x) => add_param(&mut self.optimizer, GroupId(group), &x.view()),
            AnyArray::Bf16(x) => add_param(&mut self.optimizer, GroupId(group), &x.view()),
            AnyArray::F16(x) => add_param(&mut self.optimizer, GroupId(group), &x.view()),
        }
        .map_err(failed)?;
        self.values.push(value);
        Ok(())
    }

    fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    fn set(&mut self, i: usize, value: Buffer) -> Result<(), BackendError> {
        let shape = self.optimizer.params()[i].shape.clone();
        self.values[i] = self.array(value, &shape)?;
        Ok(())
    }

    fn value(&self, i: usize) -> Buffer {
        match &self.values[i] {
            AnyArray::F64(x) => Buffer::F64(x.iter().copied().collect()),
            AnyArray::F32(x) => Buffer::F32(x.iter().copied().collect()),
            AnyArray::Bf16(x) => Buffer::Bf16(x.iter().copied().collect()),
            AnyArray::F16(x) => Buffer::F16(x.iter().copied().collect()),
        }
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        extra: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        let shapes = self.optimizer.params().iter().map(|p| &p.shape);
        let grads = grads
            .iter()
            .zip(shapes)
            .map(|(g, shape)| g.clone().map(|g| self.array(g, shape)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let mut params = Vec::new();
        for (value, grad) in self.values.iter_mut().zip(&grads) {
            params.push(match (value, grad) {
                (AnyArray::F64(v), Some(AnyArray::F64(g))) => {
                    ArrayParam::new(v.view_mut(), Some(g.view()))
                }
                (AnyArray::F32(v), Some(AnyArray::F32(g))) => {
                    ArrayParam::new(v.view_mut(), Some(g.view()))
                }
                (AnyArray::Bf16(v), Some(AnyArray::Bf16(g))) => {
                    ArrayParam::new(v.view_mut(), Some(g.view()))
                }
                (AnyArray::F16(v), Some(AnyArray::F16(g))) => {
                    ArrayParam::new(v.view_mut(), Some(g.view()))
                }
                (AnyArray::F64(v), None) => ArrayParam::new(v.view_mut(), None),
                (AnyArray::F32(v), None) => ArrayParam::new(v.view_mut(), None),
                (AnyArray::Bf16(v), None) => ArrayParam::new(v.view_mut(), None),
                (AnyArray::F16(v), None) => ArrayParam::new(v.view_mut(), None),
                _ => return Err(failed("a gradient of another type than its parameter")),
            });
        }
        par_step_with_grain(&mut self.optimizer, &mut params, extra, self.settings.grain)
            .map_err(failed)
    }
}
