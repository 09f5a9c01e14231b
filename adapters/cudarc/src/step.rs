//! The kernels of a step of all tensors.

use bitstep::float::Dtype;
use bitstep::rule::SlotInit;
use bitstep::rule::factored::MatrixLayout;
use bitstep::rule::{ComputePolicy, DynRule, ScalarState};

use crate::Error;
use crate::bytes::bytes;
use crate::device::Device;
use crate::device_storage::{DeviceStorage, direct, place};
use crate::job::{ParamJob, kept};
use crate::kernel_spec::{Shape, low_rank_parts, newton_schulz_kernels};
use crate::plan::lowrank::new_projectors;
use crate::plan::{
    Granularity, LaunchList, LaunchPlan, Readback, Workspace, name, no_kernel, phase, prepare,
};
use crate::table::{CHUNK, EncodedDesc, MAX_PLACES, Place, TensorDesc};

/// Runs one step of all jobs.
///
/// # Errors
/// A rule or storage without kernels, before anything is launched; or an error of the device.
pub fn run<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    jobs: &mut [ParamJob<'_>],
) -> Result<(), Error<D::Error>> {
    let (launch_list, readbacks) = plan(device, workspace, jobs)?;
    launch_list.launch(device)?;
    for readback in readbacks {
        readback.read_back(device, jobs[readback.index].scalars).map_err(Error::Device)?;
    }
    Ok(())
}

/// Plans one step of all jobs. An error leaves their scalars, and memory of the device other than the
/// workspace, as they were.
pub(crate) fn plan<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    jobs: &mut [ParamJob<'_>],
) -> Result<(LaunchList, Vec<Readback>), Error<D::Error>> {
    let before: Vec<ScalarState> = jobs.iter().map(|job| *job.scalars).collect();
    let planned = plan_jobs(device, workspace, jobs);
    if planned.is_err() {
        for (job, before) in jobs.iter_mut().zip(before) {
            *job.scalars = before;
        }
    }
    planned
}

fn plan_jobs<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    jobs: &mut [ParamJob<'_>],
) -> Result<(LaunchList, Vec<Readback>), Error<D::Error>> {
    let mut projectors = Vec::new();
    for job in jobs.iter_mut() {
        projectors.extend(new_projectors(device, job)?);
    }
    let planned = prepare(device, workspace, |plan| {
        jobs.iter().enumerate().try_for_each(|(index, job)| plan.job(index, job))
    })?;
    // Last, when nothing can be refused any more.
    for (at, buffer) in projectors {
        device.write(at, &bytes(&buffer)).map_err(Error::Device)?;
    }
    Ok(planned)
}

impl LaunchPlan {
    fn job<E>(&mut self, index: usize, job: &ParamJob<'_>) -> Result<(), Error<E>> {
        if let Some((kernels, iterations)) = newton_schulz_kernels(job.rule) {
            return self.newton_schulz(kernels, iterations, job);
        }
        let compute = |policy: ComputePolicy| policy.compute(job.param.dtype());
        match low_rank_parts(job.rule) {
            None => self.rule(index, job, job.rule, compute(job.policy)),
            Some(low) if low.projection.projects() => self.projected(index, job, &low),
            Some(low) if low.is_single_precision => {
                self.rule(index, job, low.inner, compute(ComputePolicy::Single))
            }
            Some(low) => self.rule(index, job, low.inner, compute(job.policy)),
        }
    }

    fn rule<E>(
        &mut self,
        index: usize,
        job: &ParamJob<'_>,
        rule: &dyn DynRule,
        compute: Dtype,
    ) -> Result<(), Error<E>> {
        let len = job.shape.iter().product::<usize>() as u64;
        let (kernels, mut coefs, at) = self.constants(rule, compute, &job.step, job.scalars)?;
        let sums = kernels.needs_sums(rule).ok_or_else(|| no_kernel(rule))?;
        if sums && len == 0 {
            kernels.finish_empty(compute, &mut coefs);
        }
        let sums = sums && len > 0;
        let layout = MatrixLayout::of(job.shape).filter(|_| kernels.shape() == Shape::Matrix);
        let slots = job.slots.get(..kernels.slots()).unwrap_or_default();
        let direct = match layout {
            None => direct(compute, &job.param, job.grad.0, slots),
            // Matrix rules have kernels for tensors of the compute type only.
            Some(_) => {
                direct(compute, &job.param, job.grad.0, slots).filter(|s| *s == name(compute))
            }
        };
        self.start(job, rule, len)?;
        if direct.is_none()
            && kernels.shape() == Shape::Elements
            && compute == Dtype::F32
            && let Some(desc) = encoded(job, slots)
        {
            let (stem, chunks) = (kernels.stem(), len.div_ceil(CHUNK));
            let desc = EncodedDesc { len, coefs: at, ..desc };
            if sums {
                let ([sums, counters], _) = self.partials(compute, [1, 2, chunks]);
                let desc = EncodedDesc { sums, counters, persist: kept(kernels, job), ..desc };
                let kernel = format!("{stem}_sums_encoded_f32");
                self.launch(phase::SUMS, kernel, Granularity::Shared, [chunks, len], desc);
            }
            let kernel = format!("{stem}_encoded_f32");
            self.launch(phase::APPLY, kernel, Granularity::Shared, [chunks, len], desc);
            self.read_back(index, job, (kernels, compute), (at, coefs), sums);
            return Ok(());
        }
        let mut desc = TensorDesc { len, coefs: at, ..TensorDesc::default() };
        let mut conversions = Vec::new();
        if direct.is_some() {
            (desc.param, desc.grad, desc.grad_scale) =
                (job.param.address(), job.grad.1, job.grad_scale.unwrap_or(0));
            for (to, slot) in desc.slots.iter_mut().zip(slots) {
                *to = slot.map_or(0, |s| s.address());
            }
        } else {
            desc.param = self.open(&mut conversions, compute, &job.param, len, true)?;
            if layout.is_none() {
                desc.grad = self.gradient(&mut conversions, compute, job, len);
            }
            for (to, slot) in desc.slots.iter_mut().zip(slots) {
                if let Some(slot) = slot {
                    *to = self.open(&mut conversions, compute, slot, len, true)?;
                }
            }
        }
        let suffix = direct.unwrap_or_else(|| name(compute));
        let stem = kernels.stem();
        let mut prefix = stem.to_owned();
        if let Some(layout) = layout {
            // The passes over rows and columns read the gradient without a scale.
            desc.grad = self.gradient(&mut conversions, compute, job, len);
            desc.grad_scale = 0;
            self.matrix(&mut conversions, kernels, compute, layout, &job.slots, &mut desc)?;
            prefix.push_str("_scaled");
        }
        if sums {
            let desc = TensorDesc { persist: kept(kernels, job), ..desc };
            self.sums(format!("{prefix}_sums_{suffix}"), compute, &desc);
        }
        self.launch_per_block(
            phase::APPLY,
            format!("{prefix}_apply_{suffix}"),
            len,
            TensorDesc { ..desc },
        );
        self.read_back(index, job, (kernels, compute), (at, coefs), sums);
        self.add_conversions(conversions);
        Ok(())
    }

    /// On the first step, initializes the slots that start as a copy of the parameter.
    pub(crate) fn start<E>(
        &mut self,
        job: &ParamJob<'_>,
        rule: &dyn DynRule,
        len: u64,
    ) -> Result<(), Error<E>> {
        for (k, slot) in job.slots.iter().enumerate().filter(|_| job.starts) {
            if let Some(slot) = slot
                && rule.slot_init(k) == SlotInit::CopyParam
            {
                self.copy(&job.param, slot, len)?;
            }
        }
        Ok(())
    }
}

/// The tensors of a job as a kernel for encoded tensors takes them; `None` if it can't.
fn encoded(job: &ParamJob<'_>, slots: &[Option<DeviceStorage>]) -> Option<EncodedDesc> {
    let (dtype, at) = job.grad;
    let grad = DeviceStorage::plain(dtype, at);
    let mut places = [Place::default(); MAX_PLACES];
    let all = [Some(grad), Some(job.param)].into_iter().chain(slots.iter().copied());
    for (k, storage) in all.enumerate() {
        if let Some(storage) = storage {
            *places.get_mut(k)? = place(&storage)?;
        }
    }
    let grad_scale = job.grad_scale.unwrap_or(0);
    Some(EncodedDesc { grad_scale, places, ..EncodedDesc::default() })
}
