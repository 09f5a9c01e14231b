//! One step of all tensors: which kernels the update of each takes.

use bitstep::float::Dtype;
use bitstep::rule::SlotInit;
use bitstep::rule::factored::MatrixLayout;
use bitstep::rule::{ComputePolicy, DynRule};

use crate::Error;
use crate::device::Device;
use crate::device_storage::direct;
use crate::job::ParamJob;
use crate::kernel_spec::{Shape, low_rank_parts, newton_schulz_kernels};
use crate::plan::lowrank::renew;
use crate::plan::{
    Granularity, LaunchList, LaunchPlan, Readback, Workspace, name, no_kernel, phase, prepare,
};
use crate::table::TensorDesc;

/// Runs one step of all jobs.
///
/// # Errors
/// A rule or storage without kernels, before anything is launched; or the device's own.
pub fn run<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    jobs: &mut [ParamJob<'_>],
) -> Result<(), Error<D::Error>> {
    let (ready, records) = plan(device, workspace, jobs)?;
    ready.launch(device)?;
    for record in records {
        record.read_back(device, jobs[record.index].scalars).map_err(Error::Device)?;
    }
    Ok(())
}

/// Plans one step of all jobs.
pub(crate) fn plan<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    jobs: &mut [ParamJob<'_>],
) -> Result<(LaunchList, Vec<Readback>), Error<D::Error>> {
    jobs.iter_mut().try_for_each(|job| renew(device, job))?;
    prepare(device, workspace, |plan| {
        jobs.iter().enumerate().try_for_each(|(index, job)| plan.job(index, job))
    })
}

impl LaunchPlan {
    fn job<E>(&mut self, index: usize, job: &ParamJob<'_>) -> Result<(), Error<E>> {
        if let Some((typed, rounds)) = newton_schulz_kernels(job.rule) {
            return self.orthogonal(typed, rounds, job);
        }
        let compute = |arithmetic: ComputePolicy| arithmetic.compute(job.param.dtype());
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
        let (typed, mut coefs, at) = self.constants(rule, compute, &job.step, job.scalars)?;
        let sums = typed.needs_sums(rule).ok_or_else(|| no_kernel(rule))?;
        if sums && len == 0 {
            typed.finish_empty(compute, &mut coefs);
        }
        let sums = sums && len > 0;
        let layout = MatrixLayout::of(job.shape).filter(|_| typed.shape() == Shape::Matrix);
        let slots = job.slots.get(..typed.slots()).unwrap_or_default();
        let direct = match layout {
            None => direct(compute, &job.param, job.grad.0, slots),
            // A matrix rule has kernels for tensors of the type to compute in only.
            Some(_) => {
                direct(compute, &job.param, job.grad.0, slots).filter(|s| *s == name(compute))
            }
        };
        self.start(job, rule, len)?;
        let mut row = TensorDesc { len, coefs: at, ..TensorDesc::default() };
        let mut moves = Vec::new();
        if direct.is_some() {
            (row.param, row.grad, row.by) =
                (job.param.address(), job.grad.1, job.grad_scale.unwrap_or(0));
            for (to, slot) in row.slots.iter_mut().zip(slots) {
                *to = slot.map_or(0, |s| s.address());
            }
        } else {
            row.param = self.open(&mut moves, compute, &job.param, len, true)?;
            if layout.is_none() {
                row.grad = self.gradient(&mut moves, compute, job, len);
            }
            for (to, slot) in row.slots.iter_mut().zip(slots) {
                if let Some(slot) = slot {
                    *to = self.open(&mut moves, compute, slot, len, true)?;
                }
            }
        }
        let suffix = direct.unwrap_or_else(|| name(compute));
        let stem = typed.stem();
        let mut prefix = stem.to_owned();
        if let Some(layout) = layout {
            // The sums of its squares take gradients as they come.
            row.grad = self.gradient(&mut moves, compute, job, len);
            row.by = 0;
            self.matrix(&mut moves, typed, compute, layout, &job.slots, &mut row)?;
            prefix.push_str("_scaled");
        }
        if sums {
            let sums = self.sums(format!("{prefix}_sums_{suffix}"), compute, &row);
            let kernel = format!("{stem}_finish_{}", name(compute));
            self.launch(
                phase::FINISH,
                kernel,
                Granularity::Block,
                [1, 1],
                TensorDesc { sums, ..row },
            );
        }
        self.launch_per_block(
            phase::APPLY,
            format!("{prefix}_apply_{suffix}"),
            len,
            TensorDesc { ..row },
        );
        self.read_back(index, job, (typed, compute), (at, coefs), sums);
        self.moved(moves);
        Ok(())
    }

    /// Fills the slots that start as the parameter, if it is time.
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
