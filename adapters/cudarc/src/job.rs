//! The per-parameter job of a step.

use bitstep::float::Dtype;
use bitstep::rule::{ComputePolicy, DynRule};
use bitstep::rule::{ScalarState, StepContext};

use crate::device_storage::{Conversions, DeviceStorage};
use crate::kernel_spec::KernelSpec;
use crate::plan::{LaunchPlan, Readback, ReadbackKind, name, phase};
use crate::table::CodecDesc;

/// The update of one tensor.
pub struct ParamJob<'a> {
    /// The rule.
    pub rule: &'a dyn DynRule,
    /// How 16-bit parameters are computed.
    pub policy: ComputePolicy,
    /// The step's context.
    pub step: StepContext<'a>,
    /// The per-step scalars, already advanced to this step.
    pub scalars: &'a mut ScalarState,
    /// The parameter's dimensions.
    pub shape: &'a [usize],
    /// The parameter's memory.
    pub param: DeviceStorage,
    /// The gradient's type and address.
    pub grad: (Dtype, u64),
    /// The state slots; `None` for a slot that is not in use.
    pub slots: Vec<Option<DeviceStorage>>,
    /// Whether to initialize the slots that start as a copy of the parameter.
    pub starts: bool,
    /// Address of [`PERSISTENT_BYTES`] bytes where the device keeps its per-step scalars between steps.
    /// With `None` they are read back after each step.
    pub persistent: Option<u64>,
    /// Device address of an `f64` by which the step multiplies the gradient when it loads it. The
    /// gradient in memory is not modified.
    pub grad_scale: Option<u64>,
}

/// The size of [`ParamJob::persistent`] in bytes.
pub const PERSISTENT_BYTES: usize = 512;
/// The offset of the constants in it, after a norm and its limiter.
const PERSISTENT_COEFS: u64 = 64;

/// Where constants that the device completes are kept for the next steps; 0 for nowhere.
pub(crate) fn kept(kernels: &dyn KernelSpec, job: &ParamJob<'_>) -> u64 {
    let at = job.persistent.filter(|_| kernels.exports_scalars());
    at.map_or(0, |at| at + PERSISTENT_COEFS)
}

impl LaunchPlan {
    /// The address of a job's gradient in the compute type, scaled. Adds the conversion unless the
    /// gradient can be used as it is.
    pub(crate) fn gradient(
        &mut self,
        conversions: &mut Conversions,
        compute: Dtype,
        job: &ParamJob<'_>,
        len: u64,
    ) -> u64 {
        let (dtype, main) = job.grad;
        if dtype == compute && job.grad_scale.is_none() {
            return main;
        }
        let (plain, with) = (self.alloc_scratch(len, compute), [job.grad_scale.unwrap_or(0), 0]);
        let desc = CodecDesc { items: len, len, main, plain, with, ..CodecDesc::default() };
        let kernel = format!("load_{}_{}", name(dtype), name(compute));
        conversions.push((phase::LOAD, kernel, len, desc));
        plain
    }

    /// Adds the readback of a job's exported scalars, if it has any.
    pub(crate) fn read_back(
        &mut self,
        index: usize,
        job: &ParamJob<'_>,
        (kernels, compute): (&'static dyn KernelSpec, Dtype),
        (at, coefs): (u64, Vec<u8>),
        on_device: bool,
    ) {
        if !kernels.exports_scalars() {
            return;
        }
        let what = match kept(kernels, job) {
            _ if !on_device => ReadbackKind::HostConstants(kernels, compute, coefs),
            0 => ReadbackKind::DeviceConstants(kernels, compute, at, coefs.len()),
            kept => ReadbackKind::DeviceConstants(kernels, compute, kept, coefs.len()),
        };
        self.readbacks.push(Readback { index, what });
    }
}
