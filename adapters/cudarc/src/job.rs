//! What a step is asked to do to one tensor.

use bitstep::float::Dtype;
use bitstep::rule::{ComputePolicy, DynRule};
use bitstep::rule::{ScalarState, StepContext};

use crate::device_storage::{DeviceStorage, Moves};
use crate::kernel_spec::KernelSpec;
use crate::plan::{LaunchPlan, Readback, ReadbackKind, name, phase};
use crate::table::CodecDesc;

/// The update of one tensor.
pub struct ParamJob<'a> {
    /// What moves it.
    pub rule: &'a dyn DynRule,
    /// How 16-bit parameters are computed.
    pub policy: ComputePolicy,
    /// The step.
    pub step: StepContext<'a>,
    /// The carried numbers, which have been advanced.
    pub scalars: &'a mut ScalarState,
    /// The parameter's dimensions.
    pub shape: &'a [usize],
    /// The parameter.
    pub param: DeviceStorage,
    /// Its gradient: plain numbers.
    pub grad: (Dtype, u64),
    /// Its state; `None` for a slot that is not in use.
    pub slots: Vec<Option<DeviceStorage>>,
    /// Whether the slots that start as the parameter are to be filled.
    pub starts: bool,
    /// Memory of [`PERSISTENT_BYTES`] bytes where the device keeps what it finds out for the carried numbers,
    /// from step to step; `None`: they are read back at once.
    pub persistent: Option<u64>,
    /// Where the device has a number of type `f64` that the gradient is multiplied by on its way
    /// into the step, if it is; the gradient itself stays as it is.
    pub grad_scale: Option<u64>,
}

/// Bytes of [`ParamJob::persistent`].
pub const PERSISTENT_BYTES: usize = 512;
/// Where constants are kept, after the number of a norm and its limiter.
const PERSISTENT_COEFS: u64 = 64;

impl LaunchPlan {
    /// Makes sure that a job's gradient is there in the type to compute in, and multiplied if it is
    /// to be; returns where.
    pub(crate) fn gradient(
        &mut self,
        moves: &mut Moves,
        compute: Dtype,
        job: &ParamJob<'_>,
        len: u64,
    ) -> u64 {
        let (dtype, main) = job.grad;
        if dtype == compute && job.grad_scale.is_none() {
            return main;
        }
        let (plain, with) = (self.alloc_scratch(len, compute), [job.grad_scale.unwrap_or(0), 0]);
        let line = CodecDesc { items: len, len, main, plain, with, ..CodecDesc::default() };
        let kernel = format!("load_{}_{}", name(dtype), name(compute));
        moves.push((phase::LOAD, kernel, len, line));
        plain
    }

    /// Notes numbers of a job's constants in the end.
    pub(crate) fn read_back(
        &mut self,
        index: usize,
        job: &ParamJob<'_>,
        (typed, compute): (&'static dyn KernelSpec, Dtype),
        (at, coefs): (u64, Vec<u8>),
        on_device: bool,
    ) {
        if !typed.exports_scalars() {
            return;
        }
        let what = if !on_device {
            ReadbackKind::Finished(typed, compute, coefs)
        } else if let Some(kept) = job.persistent.map(|kept| kept + PERSISTENT_COEFS) {
            let words = coefs.len().div_ceil(8) as u64;
            let line = CodecDesc { items: words, main: at, plain: kept, ..CodecDesc::default() };
            self.launch_per_block(phase::KEEP, "load_f64_f64".to_owned(), words, line);
            ReadbackKind::Constants(typed, compute, kept, coefs.len())
        } else {
            ReadbackKind::Constants(typed, compute, at, coefs.len())
        };
        self.records.push(Readback { index, what });
    }
}
