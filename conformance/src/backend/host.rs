//! Where parameters are stored and how a step reaches them: the only difference between this library's backends.

use bitstep::optimizer::{Buffer, GroupId, Optimizer, Param};

use crate::backend::{BackendError, failed};

/// Storage for parameters, with their optimizer.
pub(crate) trait ParamStore {
    /// Adds a parameter to a group of the optimizer.
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), BackendError>;

    /// Groups and state.
    fn optimizer(&self) -> &Optimizer;

    /// Groups and state, for setup and loading.
    fn optimizer_mut(&mut self) -> &mut Optimizer;

    /// Overwrites a parameter with values in row-major order.
    fn set(&mut self, i: usize, value: Buffer) -> Result<(), BackendError>;

    /// A parameter's values in row-major order.
    fn value(&self, i: usize) -> Buffer;

    /// One step.
    fn step(&mut self, grads: &[Option<Buffer>], extra: &[(&str, f64)])
    -> Result<(), BackendError>;
}

/// Parameters in host memory, and their optimizer.
#[derive(Default)]
pub(crate) struct HostParams {
    pub(crate) optimizer: Optimizer,
    pub(crate) values: Vec<Buffer>,
}

/// A backend whose parameters are stored in host memory, and which defines only the step.
pub(crate) trait HostBackend {
    fn params(&self) -> &HostParams;
    fn params_mut(&mut self) -> &mut HostParams;
    /// [`ParamStore::step`].
    fn step(&mut self, grads: &[Option<Buffer>], extra: &[(&str, f64)])
    -> Result<(), BackendError>;
}

impl<T: HostBackend> ParamStore for T {
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), BackendError> {
        let dtype = value.data().map(|d| d.dtype());
        let dtype = dtype.ok_or_else(|| failed("a parameter that is not plain"))?;
        let params = self.params_mut();
        params.optimizer.add_param_to(GroupId(group), shape, dtype).map_err(failed)?;
        params.values.push(value);
        Ok(())
    }

    fn optimizer(&self) -> &Optimizer {
        &self.params().optimizer
    }

    fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.params_mut().optimizer
    }

    fn set(&mut self, i: usize, value: Buffer) -> Result<(), BackendError> {
        self.params_mut().values[i] = value;
        Ok(())
    }

    fn value(&self, i: usize) -> Buffer {
        self.params().values[i].clone()
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        extra: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        HostBackend::step(self, grads, extra)
    }
}

/// Steps slices, sequentially on the caller's thread.
#[derive(Default)]
pub(crate) struct Slices(HostParams);

impl HostBackend for Slices {
    fn params(&self) -> &HostParams {
        &self.0
    }

    fn params_mut(&mut self) -> &mut HostParams {
        &mut self.0
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        extra: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        let params = self.0.values.iter_mut().zip(grads).map(|(value, grad)| Param {
            value: value.data_mut(),
            grad: grad.as_ref().and_then(Buffer::data),
        });
        let mut params: Vec<Param<'_>> = params.collect();
        self.0.optimizer.step_all(&mut params, extra).map_err(failed)
    }
}
