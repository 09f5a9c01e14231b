//! Where parameters live and how a step reaches them: all that tells the backends of
//! this library apart.

use bitstep::optimizer::{Buffer, Optimizer, Param};

use crate::backend::Refused;
use crate::core_backend::failed;

/// Parameters at home somewhere, and their optimizer.
pub(crate) trait Host {
    /// Adds a parameter to a group of the optimizer.
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), Refused>;

    /// Groups and state.
    fn optimizer(&self) -> &Optimizer;

    /// The same, to set up and load.
    fn optimizer_mut(&mut self) -> &mut Optimizer;

    /// Overwrites a parameter; the numbers in row-major order.
    fn set(&mut self, i: usize, value: Buffer) -> Result<(), Refused>;

    /// A parameter's numbers in row-major order.
    fn value(&self, i: usize) -> Buffer;

    /// One step.
    fn step(&mut self, grads: &[Option<Buffer>], given: &[(&str, f64)]) -> Result<(), Refused>;
}

/// Slices, one after the other on the caller's thread.
#[derive(Default)]
pub(crate) struct Slices {
    optimizer: Optimizer,
    values: Vec<Buffer>,
}

impl Host for Slices {
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), Refused> {
        let dtype = value.data().map(|d| d.dtype());
        let dtype = dtype.ok_or_else(|| failed("a parameter that is not plain"))?;
        self.optimizer.add_param(group, shape, dtype).map_err(failed)?;
        self.values.push(value);
        Ok(())
    }

    fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    fn set(&mut self, i: usize, value: Buffer) -> Result<(), Refused> {
        self.values[i] = value;
        Ok(())
    }

    fn value(&self, i: usize) -> Buffer {
        self.values[i].clone()
    }

    fn step(&mut self, grads: &[Option<Buffer>], given: &[(&str, f64)]) -> Result<(), Refused> {
        let mut params: Vec<Param<'_>> = self
            .values
            .iter_mut()
            .zip(grads)
            .map(|(value, grad)| Param {
                value: value.data_mut(),
                grad: grad.as_ref().and_then(Buffer::data),
            })
            .collect();
        self.optimizer.step(&mut params, given).map_err(failed)
    }
}
