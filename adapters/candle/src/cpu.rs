//! Operations on candle's CPU storage, in place.

use std::cell::{Cell, RefCell};

use bitstep::gradient::{
    ClipGradNorm, GradientAccumulator, LossScale, Neftune, scale_in_place, total_norm,
};
use bitstep::optimizer::{Buffer, Optimizer, ParamId};
use bitstep::storage::{Data, DataMut};
use bitstep_trainer::checkpoint::Checkpoint;
use candle_core::{
    CpuStorage, DType, Error, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor, Var,
};

/// The update of one variable as an in-place operation.
pub(crate) struct Step<'a> {
    pub(crate) state: RefCell<&'a mut Optimizer>,
    pub(crate) index: usize,
    pub(crate) layer: u32,
    pub(crate) extra: &'a [(&'a str, f64)],
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
    /// The step of a variable without elements.
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
            .step_param(ParamId(self.index), value.reborrow(), grad, self.layer, self.extra)
            .map_err(Error::wrap)?;
        bitstep_rayon::run_with_grain(vec![task], self.grain).map_err(Error::wrap)
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

/// An in-place multiplication.
struct Multiply(f64);

impl InplaceOp1 for Multiply {
    fn name(&self) -> &'static str {
        "bitstep-multiply"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        scale_in_place(&mut data_mut(storage, layout)?, self.0);
        Ok(())
    }
}

/// The factor that clips the gradients, and their total norm.
pub(crate) fn clip_factor(grads: &[Option<Tensor>], clip: &ClipGradNorm) -> Result<(f64, f64)> {
    let (total, dtype) = with_data(grads, |data| {
        let data: Vec<Data<'_>> = data.iter().copied().flatten().collect();
        Ok(total_norm(&data, clip.norm_type))
    })?;
    let factor = clip.checked_coefficient(total, dtype).map_err(Error::wrap)?;
    Ok((factor, total))
}

/// Copies the gradients, so that they can be written to: backward passes and callers may pass one
/// tensor for several variables. Each original is dropped once it is copied, so that twice the
/// memory is needed only where others hold them.
pub(crate) fn own(grads: &mut [Option<Tensor>]) -> Result<()> {
    for grad in grads.iter_mut().flatten().filter(|grad| grad.elem_count() > 0) {
        *grad = grad.copy()?;
    }
    Ok(())
}

/// Multiplies gradients that [no one else holds](own).
pub(crate) fn scale(grads: &[Option<Tensor>], factor: f64) -> Result<()> {
    each(grads, &Multiply(factor))
}

/// Runs an in-place operation on every gradient with elements: candle refuses the others.
fn each(grads: &[Option<Tensor>], op: &impl InplaceOp1) -> Result<()> {
    let mut some = grads.iter().flatten().filter(|grad| grad.elem_count() > 0);
    some.try_for_each(|grad| grad.inplace_op1(op))
}

/// Division by the loss scale, and whether all gradients so far were finite.
struct Unscale<'a>(&'a LossScale, Cell<bool>);

impl InplaceOp1 for Unscale<'_> {
    fn name(&self) -> &'static str {
        "bitstep-unscale"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let finite = self.0.unscale(&mut [data_mut(storage, layout)?]).map_err(Error::wrap)?;
        self.1.set(self.1.get() && finite);
        Ok(())
    }
}

/// Divides gradients that [no one else holds](own) by a loss scale; returns whether all were finite.
pub(crate) fn unscale(grads: &[Option<Tensor>], scale: &LossScale) -> Result<bool> {
    let op = Unscale(scale, Cell::new(true));
    each(grads, &op)?;
    Ok(op.1.get())
}

/// NEFTune's noise, draw number `draw` of a seed, added to zeros of the output's shape.
struct Noise<'a>(&'a Neftune, [u64; 2], u64, u64);

impl InplaceOp1 for Noise<'_> {
    fn name(&self) -> &'static str {
        "bitstep-neftune"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Noise(neftune, [length, width], seed, draw) = self;
        let output = data_mut(storage, layout)?;
        neftune.add(output, *length, *width, *seed, *draw).map_err(Error::wrap)
    }
}

/// The output with noise added, through which gradients pass to the output.
pub(crate) fn add_noise(
    output: &Tensor,
    neftune: &Neftune,
    seed: u64,
    draw: u64,
) -> Result<Tensor> {
    let [.., length, width] = *output.dims() else {
        return Err(Error::msg("an embedding's output of tokens and their numbers was wanted"));
    };
    if output.elem_count() == 0 {
        return Ok(output.clone());
    }
    let noise = output.detach().zeros_like()?;
    noise.inplace_op1(&Noise(neftune, [length as u64, width as u64], seed, draw))?;
    output + noise
}

/// Adds a micro-batch's gradient to the total.
struct Add<'a>(&'a GradientAccumulator, f64);

impl InplaceOp2 for Add<'_> {
    fn name(&self) -> &'static str {
        "bitstep-accumulate"
    }

    fn cpu_fwd(
        &self,
        total: &mut CpuStorage,
        total_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let (total, grad) = (data_mut(total, total_layout)?, data(grad, grad_layout)?);
        self.0.add_weighted(total, grad, self.1).map_err(Error::wrap)
    }
}

/// Adds a gradient with a weight to a total of its shape and type.
pub(crate) fn accumulate(
    total: &Tensor,
    grad: &Tensor,
    accumulator: &GradientAccumulator,
    weight: f64,
) -> Result<()> {
    match total.elem_count() {
        0 => Ok(()),
        _ => total.inplace_op2(&grad.contiguous()?, &Add(accumulator, weight)),
    }
}

/// Fills a variable from a checkpoint.
struct Fill<'a>(&'a Checkpoint, &'a str);

impl InplaceOp1 for Fill<'_> {
    fn name(&self) -> &'static str {
        "bitstep-fill"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.0.fill(self.1, &mut data_mut(storage, layout)?).map_err(Error::wrap)
    }
}

/// Overwrites a variable with the checkpoint's tensor of that name.
pub(crate) fn fill(var: &Tensor, name: &str, from: &Checkpoint) -> Result<()> {
    match var.elem_count() {
        0 => Ok(()),
        _ => var.inplace_op1(&Fill(from, name)),
    }
}

/// A copy of a variable's values.
pub(crate) fn buffer(var: &Tensor) -> Result<Buffer> {
    let flat = var.flatten_all()?;
    Ok(match flat.dtype() {
        DType::F64 => Buffer::F64(flat.to_vec1()?),
        DType::F32 => Buffer::F32(flat.to_vec1()?),
        DType::BF16 => Buffer::Bf16(flat.to_vec1()?),
        DType::F16 => Buffer::F16(flat.to_vec1()?),
        _ => return Err(Error::msg(CONTIGUOUS)),
    })
}

/// Overwrites a variable with a buffer.
pub(crate) fn set(var: &Var, buffer: Buffer) -> Result<()> {
    let (shape, device) = (var.dims(), var.device());
    let tensor = match buffer {
        Buffer::F64(x) => Tensor::from_vec(x, shape, device),
        Buffer::F32(x) => Tensor::from_vec(x, shape, device),
        Buffer::Bf16(x) => Tensor::from_vec(x, shape, device),
        Buffer::F16(x) => Tensor::from_vec(x, shape, device),
        Buffer::Encoded(_) => return Err(Error::msg(CONTIGUOUS)),
    };
    var.set(&tensor?)
}

/// Data without elements, for where only the type of a gradient matters.
pub(crate) fn empty_data(dtype: DType) -> Option<Data<'static>> {
    match dtype {
        DType::F64 => Some(Data::F64(&[])),
        DType::F32 => Some(Data::F32(&[])),
        DType::BF16 => Some(Data::Bf16(&[])),
        DType::F16 => Some(Data::F16(&[])),
        _ => None,
    }
}
