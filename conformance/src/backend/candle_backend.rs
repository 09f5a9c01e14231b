//! The backend `candle`: the core's rules over candle's variables on the CPU.

use bitstep::optimizer::{Buffer, GroupId, Optimizer};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use crate::backend::core_backend::{Core, CoreRun};
use crate::backend::host::ParamStore;
use crate::backend::{
    Backend, BackendError, GradientAnswer, GradientSpec, OptimizerSpec, Run, ScheduleSpec, failed,
};

/// `bitstep-candle`; schedules and gradient strategies are the core's.
#[derive(Clone, Copy, Debug)]
pub struct Candle {
    /// Number of elements below which work is not split over threads.
    pub grain: usize,
}

impl Backend for Candle {
    fn name(&self) -> &str {
        "candle"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let mut optimizer = bitstep_candle::Optimizer::empty();
        optimizer.set_grain(self.grain);
        Ok(Box::new(CoreRun::new(spec, Vars(optimizer))?))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        Core.schedule(spec)
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        Core.gradient(spec)
    }
}

struct Vars(bitstep_candle::Optimizer);

fn tensor(value: Buffer, shape: &[usize]) -> Result<Tensor, BackendError> {
    let cpu = &Device::Cpu;
    match value {
        Buffer::F64(x) => Tensor::from_vec(x, shape, cpu),
        Buffer::F32(x) => Tensor::from_vec(x, shape, cpu),
        Buffer::Bf16(x) => Tensor::from_vec(x, shape, cpu),
        Buffer::F16(x) => Tensor::from_vec(x, shape, cpu),
        Buffer::Encoded(_) => return Err(failed("a variable that is not plain")),
    }
    .map_err(failed)
}

fn buffer(t: &Tensor) -> candle_core::Result<Buffer> {
    let t = t.flatten_all()?;
    Ok(match t.dtype() {
        DType::F64 => Buffer::F64(t.to_vec1()?),
        DType::F32 => Buffer::F32(t.to_vec1()?),
        DType::BF16 => Buffer::Bf16(t.to_vec1()?),
        DType::F16 => Buffer::F16(t.to_vec1()?),
        other => return Err(candle_core::Error::msg(format!("no variable is {other:?}"))),
    })
}

/// Gradients in a `GradStore`, which only a backward pass can create.
fn store(vars: &[(String, Var)], grads: &[Option<Buffer>]) -> Result<GradStore, BackendError> {
    let empty = Tensor::zeros((), DType::F32, &Device::Cpu).map_err(failed)?;
    let mut store = empty.backward().map_err(failed)?;
    for ((_, var), grad) in vars.iter().zip(grads) {
        if let Some(grad) = grad {
            store.insert(var, tensor(grad.clone(), var.dims())?);
        }
    }
    Ok(store)
}

impl ParamStore for Vars {
    fn add(&mut self, group: usize, shape: &[usize], value: Buffer) -> Result<(), BackendError> {
        let var = Var::from_tensor(&tensor(value, shape)?).map_err(failed)?;
        let name = self.0.vars().len().to_string();
        self.0.add_var(GroupId(group), name, var).map_err(failed)
    }

    fn optimizer(&self) -> &Optimizer {
        self.0.inner()
    }

    fn optimizer_mut(&mut self) -> &mut Optimizer {
        self.0.inner_mut()
    }

    fn set(&mut self, i: usize, value: Buffer) -> Result<(), BackendError> {
        let var = &self.0.vars()[i].1;
        var.set(&tensor(value, var.dims())?).map_err(failed)
    }

    #[allow(clippy::expect_used)] // variables of other types were refused by `add`
    fn value(&self, i: usize) -> Buffer {
        buffer(&self.0.vars()[i].1).expect("a variable of plain numbers")
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        extra: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        let store = store(self.0.vars(), grads)?;
        self.0.step_with_extra_args(&store, extra).map_err(failed)
    }
}
