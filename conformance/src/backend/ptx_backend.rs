//! The backends `ptx` and `cuda`: the GPU's kernels, run by an interpreter and by a GPU.

use std::sync::OnceLock;

use bitstep::float::Dtype;
use bitstep::optimizer::Buffer;
use bitstep::storage::{Data, RawBuffer, RawPart, RoundingBits, StorageFormat};
use bitstep_cudarc::{Device, DeviceStorage, Error, ParamJob, Workspace};
use bitstep_ptx::Machine;

use crate::backend::core_backend::{Core, CoreRun};
use crate::backend::device_buffers::{DeviceBuffers, Lodging};
use crate::backend::gpu_gradient;
use crate::backend::host::{Home, HostBackend};
use crate::backend::{
    Backend, BackendError, GradientAnswer, GradientSpec, OptimizerSpec, Run, ScheduleSpec, failed,
};

/// `bitstep-cudarc`'s kernels and plans on `bitstep-ptx`.
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

/// The kernels, read once.
fn machine() -> Result<Machine, BackendError> {
    static MACHINE: OnceLock<Result<Machine, bitstep_ptx::Error>> = OnceLock::new();
    let machine = MACHINE.get_or_init(|| Machine::new(bitstep_cudarc::ptx()));
    machine.clone().map_err(failed)
}

/// The same on the first GPU.
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

/// Parameters and state at home in the host's memory: they go to the device for a step, and come back.
struct DeviceTensors<D> {
    gpu: D,
    workspace: Workspace,
    home: Home,
}

impl<D> DeviceTensors<D> {
    fn on(gpu: D) -> Self {
        DeviceTensors { gpu, workspace: Workspace::default(), home: Home::default() }
    }
}

/// Writes a slot's parts back.
fn put_back(slot: &mut Buffer, parts: Vec<Vec<u8>>) -> Result<(), BackendError> {
    let Buffer::Encoded(coded) = slot else {
        let numbers = parts.first().map_or(Ok(()), |bytes| slot.data_mut().set_bytes(bytes));
        return numbers.map_err(failed);
    };
    let old: Vec<RawPart> = coded.parts("");
    old.into_iter().zip(parts).try_for_each(|(part, bytes)| {
        coded.set_part("", &RawPart { bytes, ..part }).map_err(failed)
    })
}

/// How a parameter rests beside its companion, or with its noise.
fn place<D: Device>(
    guests: &mut DeviceBuffers<'_, D>,
    dtype: Dtype,
    at: u64,
    companion: Option<&RawBuffer>,
    noise: Option<RoundingBits<'_>>,
) -> Result<(DeviceStorage, Option<Lodging>), BackendError> {
    if let Some(companion) = companion {
        let beside = guests.add(&companion.bytes())?;
        let format = match companion {
            RawBuffer::I8(_) => StorageFormat::SplitFloat(dtype, 8),
            RawBuffer::I16(_) => StorageFormat::SplitFloat(dtype, 16),
            _ => StorageFormat::KahanPair(dtype),
        };
        return Ok((DeviceStorage::At(format, at, beside.0), Some(beside)));
    }
    let narrow = matches!(dtype, Dtype::Bf16 | Dtype::F16);
    Ok(match noise.filter(|_| narrow) {
        None => (DeviceStorage::plain(dtype, at), None),
        Some(RoundingBits::Counter { seed, step, .. }) => {
            (DeviceStorage::Dithered { dtype, at, bits: 0, counter: [seed, step] }, None)
        }
        Some(RoundingBits::Provided(bits)) => {
            let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
            let bits = guests.add(&bytes)?.0;
            (DeviceStorage::Dithered { dtype, at, bits, counter: [0; 2] }, None)
        }
    })
}

impl<D: Device> HostBackend for DeviceTensors<D> {
    fn home(&self) -> &Home {
        &self.home
    }

    fn home_mut(&mut self) -> &mut Home {
        &mut self.home
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        given: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        let all: Vec<Option<Data<'_>>> =
            grads.iter().map(|g| g.as_ref().and_then(Buffer::data)).collect();
        let Home { optimizer, values } = &mut self.home;
        let types = values.iter().zip(&all);
        let types: Vec<_> =
            types.map(|(v, g)| Some([v.data()?.dtype(), g.as_ref()?.dtype()])).collect();
        let present: Vec<Data<'_>> = all.iter().filter_map(|&g| g).collect();
        let turns =
            optimizer.prepare_all(&types, given, |rule, scale| rule.grad_norm(&present, scale));
        let mut turns = turns.map_err(failed)?;

        let mut guests = DeviceBuffers(&mut self.gpu, Vec::new());
        let mut jobs = Vec::new();
        let mut lodgings = Vec::new();
        for (index, turn) in &mut turns {
            let (Some(data), Some(grad)) = (values[index.0].data(), all[index.0]) else {
                return Err(failed("a parameter that is not plain"));
            };
            let value = guests.add(&data.bytes())?;
            let gradient = guests.add(&grad.bytes())?;
            let (param, companion) = place(
                &mut guests,
                data.dtype(),
                value.0,
                turn.correction.as_deref(),
                turn.rounding_bits,
            )?;
            let slots: Vec<_> =
                turn.slots.iter().map(|slot| guests.slot(slot)).collect::<Result<_, _>>()?;
            jobs.push(ParamJob {
                rule: turn.rule,
                policy: turn.policy,
                step: turn.step,
                scalars: turn.scalars.get(),
                shape: turn.shape,
                param,
                grad: (grad.dtype(), gradient.0),
                slots: slots.iter().map(|slot| slot.as_ref().map(|(place, _)| *place)).collect(),
                starts: turn.step.is_first,
                persistent: None,
                grad_scale: None,
            });
            lodgings.push((value, companion, slots));
        }
        bitstep_cudarc::run(guests.0, &mut self.workspace, &mut jobs).map_err(|e| match e {
            Error::NoKernel(what) => BackendError::Unsupported(format!("no kernel for {what}")),
            other => failed(other),
        })?;
        drop(jobs);

        for ((index, turn), (value, companion, slots)) in turns.into_iter().zip(lodgings) {
            values[index.0].data_mut().set_bytes(&guests.read(value)?).map_err(failed)?;
            if let (Some(at), Some(to)) = (companion, turn.correction) {
                to.set_bytes(&guests.read(at)?).map_err(failed)?;
            }
            for (slot, parts) in turn.slots.iter_mut().zip(slots) {
                let parts = parts.into_iter().flat_map(|(_, parts)| parts);
                let parts: Vec<_> = parts.map(|at| guests.read(at)).collect::<Result<_, _>>()?;
                put_back(slot, parts)?;
            }
        }
        Ok(())
    }
}
