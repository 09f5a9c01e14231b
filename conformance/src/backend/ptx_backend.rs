//! The backends `ptx` and `cuda`: the CUDA kernels, run by an interpreter and by a GPU.

use std::sync::OnceLock;

use bitstep::float::Dtype;
use bitstep::optimizer::Buffer;
use bitstep::storage::{Data, RawBuffer, RawPart, RoundingBits, StorageFormat};
use bitstep_cudarc::{Device, DeviceStorage, Error, ParamJob, Workspace};
use bitstep_ptx::Machine;

use crate::backend::core_backend::{Core, CoreRun};
use crate::backend::device_buffers::{DeviceAlloc, DeviceBuffers};
use crate::backend::gpu_gradient;
use crate::backend::host::{HostBackend, HostParams};
use crate::backend::{
    Backend, BackendError, GradientAnswer, GradientSpec, OptimizerSpec, Run, ScheduleSpec, failed,
};

/// `bitstep-cudarc`'s kernels and launch plans on the interpreter `bitstep-ptx`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ptx;

impl Backend for Ptx {
    fn name(&self) -> &str {
        "ptx"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        Ok(Box::new(CoreRun::new(spec, DeviceTensors::on(machine()?))?))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        Core.schedule(spec)
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        let mut machine = machine()?;
        gpu_gradient::answer(&mut machine, spec)
    }
}

/// The interpreter with all kernels, which are parsed once.
fn machine() -> Result<Machine, BackendError> {
    static MACHINE: OnceLock<Result<Machine, bitstep_ptx::Error>> = OnceLock::new();
    let machine = MACHINE.get_or_init(|| Machine::new(bitstep_cudarc::ptx()));
    machine.clone().map_err(failed)
}

/// `bitstep-cudarc` on the first GPU.
#[cfg(feature = "cuda")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cuda;

#[cfg(feature = "cuda")]
impl Cuda {
    /// The GPU, or why there is none.
    fn open() -> Result<bitstep_cudarc::Cuda, BackendError> {
        use bitstep_cudarc::CudaError;
        bitstep_cudarc::Cuda::open(0).map_err(|e| match e {
            CudaError::NoDriver | CudaError::NoDevice => {
                BackendError::Unsupported("no CUDA device".to_owned())
            }
            other => failed(other),
        })
    }
}

#[cfg(feature = "cuda")]
impl Backend for Cuda {
    fn name(&self) -> &str {
        "cuda"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        Ok(Box::new(CoreRun::new(spec, DeviceTensors::on(Cuda::open()?))?))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        Cuda::open()?;
        Core.schedule(spec)
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        gpu_gradient::answer(&mut Cuda::open()?, spec)
    }
}

/// Parameters and state in host memory, copied to the device and back in every step.
struct DeviceTensors<D> {
    gpu: D,
    workspace: Workspace,
    params: HostParams,
}

impl<D> DeviceTensors<D> {
    fn on(gpu: D) -> Self {
        DeviceTensors { gpu, workspace: Workspace::default(), params: HostParams::default() }
    }
}

/// Writes a slot's parts into the host's copy.
fn write_back(slot: &mut Buffer, parts: Vec<Vec<u8>>) -> Result<(), BackendError> {
    let Buffer::Encoded(encoded) = slot else {
        let written = parts.first().map_or(Ok(()), |bytes| slot.data_mut().set_bytes(bytes));
        return written.map_err(failed);
    };
    let old: Vec<RawPart> = encoded.parts("");
    old.into_iter().zip(parts).try_for_each(|(part, bytes)| {
        encoded.set_part("", &RawPart { bytes, ..part }).map_err(failed)
    })
}

/// How a parameter is stored on the device: plain, with its correction, or with bits for stochastic rounding.
fn param_storage<D: Device>(
    buffers: &mut DeviceBuffers<'_, D>,
    dtype: Dtype,
    at: u64,
    correction: Option<&RawBuffer>,
    rounding_bits: Option<RoundingBits<'_>>,
) -> Result<(DeviceStorage, Option<DeviceAlloc>), BackendError> {
    if let Some(correction) = correction {
        let beside = buffers.add(&correction.bytes())?;
        let format = match correction {
            RawBuffer::I8(_) => StorageFormat::SplitFloat(dtype, 8),
            RawBuffer::I16(_) => StorageFormat::SplitFloat(dtype, 16),
            _ => StorageFormat::KahanPair(dtype),
        };
        return Ok((DeviceStorage::At(format, at, beside.0), Some(beside)));
    }
    let narrow = matches!(dtype, Dtype::Bf16 | Dtype::F16);
    Ok(match rounding_bits.filter(|_| narrow) {
        None => (DeviceStorage::plain(dtype, at), None),
        Some(RoundingBits::Counter { seed, step, .. }) => {
            (DeviceStorage::Dithered { dtype, at, bits: 0, counter: [seed, step] }, None)
        }
        Some(RoundingBits::Provided(bits)) => {
            let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
            let bits = buffers.add(&bytes)?.0;
            (DeviceStorage::Dithered { dtype, at, bits, counter: [0; 2] }, None)
        }
    })
}

impl<D: Device> HostBackend for DeviceTensors<D> {
    fn params(&self) -> &HostParams {
        &self.params
    }

    fn params_mut(&mut self) -> &mut HostParams {
        &mut self.params
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        extra: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        let all: Vec<Option<Data<'_>>> =
            grads.iter().map(|g| g.as_ref().and_then(Buffer::data)).collect();
        let HostParams { optimizer, values } = &mut self.params;
        let types = values.iter().zip(&all);
        let types: Vec<_> =
            types.map(|(v, g)| Some([v.data()?.dtype(), g.as_ref()?.dtype()])).collect();
        let present: Vec<Data<'_>> = all.iter().filter_map(|&g| g).collect();
        let prepared_steps =
            optimizer.prepare_all(&types, extra, |rule, scale| rule.grad_norm(&present, scale));
        let mut prepared_steps = prepared_steps.map_err(failed)?;

        let mut buffers = DeviceBuffers(&mut self.gpu, Vec::new());
        let mut jobs = Vec::new();
        let mut allocations = Vec::new();
        for (index, prepared) in &mut prepared_steps {
            let (Some(data), Some(grad)) = (values[index.0].data(), all[index.0]) else {
                return Err(failed("a parameter that is not plain"));
            };
            let value = buffers.add(&data.bytes())?;
            let gradient = buffers.add(&grad.bytes())?;
            let (param, correction) = param_storage(
                &mut buffers,
                data.dtype(),
                value.0,
                prepared.correction.as_deref(),
                prepared.rounding_bits,
            )?;
            let slots: Vec<_> =
                prepared.slots.iter().map(|slot| buffers.slot(slot)).collect::<Result<_, _>>()?;
            jobs.push(ParamJob {
                rule: prepared.rule,
                policy: prepared.policy,
                step: prepared.step,
                scalars: prepared.scalars.get(),
                shape: prepared.shape,
                param,
                grad: (grad.dtype(), gradient.0),
                slots: slots
                    .iter()
                    .map(|slot| slot.as_ref().map(|(storage, _)| *storage))
                    .collect(),
                starts: prepared.step.is_first,
                persistent: None,
                grad_scale: None,
            });
            allocations.push((value, correction, slots));
        }
        bitstep_cudarc::run(buffers.0, &mut self.workspace, &mut jobs).map_err(|e| match e {
            Error::NoKernel(what) => BackendError::Unsupported(format!("no kernel for {what}")),
            other => failed(other),
        })?;
        drop(jobs);

        for ((index, prepared), (value, correction, slots)) in
            prepared_steps.into_iter().zip(allocations)
        {
            values[index.0].data_mut().set_bytes(&buffers.read(value)?).map_err(failed)?;
            if let (Some(at), Some(to)) = (correction, prepared.correction) {
                to.set_bytes(&buffers.read(at)?).map_err(failed)?;
            }
            for (slot, parts) in prepared.slots.iter_mut().zip(slots) {
                let parts = parts.into_iter().flat_map(|(_, parts)| parts);
                let parts: Vec<_> = parts.map(|at| buffers.read(at)).collect::<Result<_, _>>()?;
                write_back(slot, parts)?;
            }
        }
        Ok(())
    }
}
