//! Borrowing candle's storage on the CPU.

use std::cell::RefCell;

use bitstep::gradient::{ClipGradNorm, multiply, total_norm};
use bitstep::optimizer::Optimizer;
use bitstep::storage::{Data, DataMut};
use candle_core::{
    CpuStorage, DType, Error, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor,
};

/// The update of one variable, as an operation in place on its storage.
pub(crate) struct Step<'a> {
    pub(crate) state: RefCell<&'a mut Optimizer>,
    pub(crate) index: usize,
    pub(crate) layer: u32,
    pub(crate) given: &'a [(&'a str, f64)],
    pub(crate) grain: usize,
}

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "bitstep"
    }

    fn cpu_fwd(
        &self,
        param: &mut CpuStorage,
        param_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        self.run(data_mut(param, param_layout)?, data(grad, grad_layout)?)
    }
}

impl Step<'_> {
    /// A step of a variable that has no elements.
    pub(crate) fn without_elements(&self, dtype: DType) -> Result<()> {
        match dtype {
            DType::F64 => self.run(DataMut::F64(&mut []), Data::F64(&[])),
            DType::BF16 => self.run(DataMut::Bf16(&mut []), Data::Bf16(&[])),
            DType::F16 => self.run(DataMut::F16(&mut []), Data::F16(&[])),
            _ => self.run(DataMut::F32(&mut []), Data::F32(&[])),
        }
    }

    fn run(&self, mut value: DataMut<'_>, grad: Data<'_>) -> Result<()> {
        let mut state = self.state.borrow_mut();
        let task = state
            .step_param(self.index, value.reborrow(), grad, self.layer, self.given)
            .map_err(Error::wrap)?;
        bitstep_rayon::run_in_grains(vec![task], self.grain).map_err(Error::wrap)
    }
}

const CONTIGUOUS: &str = "wanted a contiguous tensor of f64, f32, bf16 or f16";

fn data<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Data<'a>> {
    let range = layout.contiguous_offsets().map(|(start, end)| start..end);
    let range = range.ok_or_else(|| Error::msg(CONTIGUOUS))?;
    let data = match storage {
        CpuStorage::F64(x) => x.get(range).map(Data::F64),
        CpuStorage::F32(x) => x.get(range).map(Data::F32),
        CpuStorage::BF16(x) => x.get(range).map(Data::Bf16),
        CpuStorage::F16(x) => x.get(range).map(Data::F16),
        _ => None,
    };
    data.ok_or_else(|| Error::msg(CONTIGUOUS))
}

fn data_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<DataMut<'a>> {
    let range = layout.contiguous_offsets().map(|(start, end)| start..end);
    let range = range.ok_or_else(|| Error::msg(CONTIGUOUS))?;
    let data = match storage {
        CpuStorage::F64(x) => x.get_mut(range).map(DataMut::F64),
        CpuStorage::F32(x) => x.get_mut(range).map(DataMut::F32),
        CpuStorage::BF16(x) => x.get_mut(range).map(DataMut::Bf16),
        CpuStorage::F16(x) => x.get_mut(range).map(DataMut::F16),
        _ => None,
    };
    data.ok_or_else(|| Error::msg(CONTIGUOUS))
}

/// Borrows all gradients at once.
pub(crate) fn with_data<T>(
    grads: &[Option<Tensor>],
    f: impl FnOnce(&[Option<Data<'_>>]) -> Result<T>,
) -> Result<T> {
    let guards: Vec<_> = grads.iter().map(|g| g.as_ref().map(Tensor::storage_and_layout)).collect();
    let slices: Vec<Option<Data<'_>>> = guards
        .iter()
        .map(|guard| match guard {
            Some((storage, layout)) => match &**storage {
                Storage::Cpu(storage) => data(storage, layout).map(Some),
                _ => Err(Error::msg(CONTIGUOUS)),
            },
            None => Ok(None),
        })
        .collect::<Result<_>>()?;
    f(&slices)
}

/// A multiplication in place.
struct Multiply(f64);

impl InplaceOp1 for Multiply {
    fn name(&self) -> &'static str {
        "bitstep-multiply"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        multiply(&mut data_mut(storage, layout)?, self.0);
        Ok(())
    }
}

/// Clips gradients in place by their total norm.
pub(crate) fn clip(grads: &[&Tensor], clip: &ClipGradNorm) -> Result<f64> {
    let owned: Vec<Option<Tensor>> = grads.iter().map(|&g| Some(g.clone())).collect();
    let (total, dtype) = with_data(&owned, |data| {
        let data: Vec<Data<'_>> = data.iter().copied().flatten().collect();
        Ok(total_norm(&data, clip.norm_type))
    })?;
    let factor = clip.checked_coefficient(total, dtype).map_err(Error::wrap)?;
    let mut some = grads.iter().filter(|grad| grad.elem_count() > 0);
    some.try_for_each(|grad| grad.inplace_op1(&Multiply(factor)))?;
    Ok(total)
}
