//! Where parameters live and how a step reaches them: all that tells the backends of
//! this library apart.

use bitstep::optimizer::{Buffer, GroupId, Optimizer, Param};

use crate::backend::{BackendError, failed};

/// Parameters at home somewhere, and their optimizer.
pub(crate) trait ParamStore {
    /// Adds a parameter to a group of the optimizer.
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), BackendError>;

    /// Groups and state.
    fn optimizer(&self) -> &Optimizer;

    /// The same, to set up and load.
    fn optimizer_mut(&mut self) -> &mut Optimizer;

    /// Overwrites a parameter; the numbers in row-major order.
    fn set(&mut self, i: usize, value: Buffer) -> Result<(), BackendError>;

    /// A parameter's numbers in row-major order.
    fn value(&self, i: usize) -> Buffer;

    /// One step.
    fn step(&mut self, grads: &[Option<Buffer>], given: &[(&str, f64)])
    -> Result<(), BackendError>;
}

/// Parameters in the host's own memory, and their optimizer.
#[derive(Default)]
pub(crate) struct Home {
    pub(crate) optimizer: Optimizer,
    pub(crate) values: Vec<Buffer>,
}

/// A host whose parameters rest in the host's own memory: only the step is its own.
pub(crate) trait HostBackend {
    fn home(&self) -> &Home;
    fn home_mut(&mut self) -> &mut Home;
    /// [`Host::step`].
    fn step(&mut self, grads: &[Option<Buffer>], given: &[(&str, f64)])
    -> Result<(), BackendError>;
}

impl<T: HostBackend> ParamStore for T {
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), BackendError> {
        let dtype = value.data().map(|d| d.dtype());
        let dtype = dtype.ok_or_else(|| failed("a parameter that is not plain"))?;
        let home = self.home_mut();
        home.optimizer.add_param_to(GroupId(group), shape, dtype).map_err(failed)?;
        home.values.push(value);
        Ok(())
    }

    fn optimizer(&self) -> &Optimizer {
        &self.home().optimizer
    }

    fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.home_mut().optimizer
    }

    fn set(&mut self, i: usize, value: Buffer) -> Result<(), BackendError> {
        self.home_mut().values[i] = value;
        Ok(())
    }

    fn value(&self, i: usize) -> Buffer {
        self.home().values[i].clone()
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        given: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        HostBackend::step(self, grads, given)
    }
}

/// Slices, one after the other on the caller's thread.
#[derive(Default)]
pub(crate) struct Slices(Home);

impl HostBackend for Slices {
    fn home(&self) -> &Home {
        &self.0
    }

    fn home_mut(&mut self) -> &mut Home {
        &mut self.0
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        given: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        let params = self.0.values.iter_mut().zip(grads).map(|(value, grad)| Param {
            value: value.data_mut(),
            grad: grad.as_ref().and_then(Buffer::data),
        });
        let mut params: Vec<Param<'_>> = params.collect();
        self.0.optimizer.step_all(&mut params, given).map_err(failed)
    }
}
