//! What happens to gradients on the device, element by element.

use bitstep::float::Dtype;

use crate::plan::{LaunchPlan, Workspace, launch, name};
use crate::table::GradientDesc;
use crate::{Device, Error};

/// Memory of so many plain numbers of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSlice {
    /// Where it is.
    pub at: u64,
    /// How many numbers.
    pub len: usize,
    /// Their type.
    pub dtype: Dtype,
}

/// What is to be done to a gradient, as the core does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GradientOp {
    /// [`bitstep::gradient::scale_in_place`].
    Multiply(f64),
    /// The same by a number of type `f64` that is on the device, there.
    MultiplyBy(u64),
    /// [`bitstep::gradient::clip_grad_value`].
    ClipValue(f64),
    /// [`bitstep::gradient::GradientAccumulator::add`] of a micro-batch's gradient.
    Accumulate {
        /// The micro-batch's.
        from: DeviceSlice,
        /// Micro-batches that are added up.
        window: u64,
        /// Those added before it.
        seen: u64,
        /// Whether their mean is expected, or their sum.
        mean: bool,
    },
    /// [`bitstep::gradient::Neftune::add_from_uniform`].
    Unit {
        /// Numbers between 0 and 1.
        from: DeviceSlice,
        /// The noise's magnitude: `Neftune::alpha`.
        magnitude: f64,
        /// Numbers in a sequence, and in a token.
        dimensions: [u64; 2],
    },
    /// [`bitstep::gradient::Neftune::add_noise`].
    Noise(DeviceSlice),
}

/// Changes any number of gradients, in one launch for each kind of change and type.
///
/// # Errors
/// Lengths that differ, or types that do not go together: before anything is launched. Or the
/// device's own.
///
/// # Safety
/// The memory is the device's, has the lengths that it is said to have, and is used by nobody
/// else until what is launched here has run.
pub unsafe fn apply_gradient_ops<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    gradients: &[(DeviceSlice, GradientOp)],
) -> Result<(), Error<D::Error>> {
    launch(device, workspace, |plan| gradients.iter().try_for_each(|g| add(plan, g)))?;
    Ok(())
}

fn add<E>(plan: &mut LaunchPlan, (to, change): &(DeviceSlice, GradientOp)) -> Result<(), Error<E>> {
    add_at(0, plan, to, change)
}

/// Adds a change to a phase of a plan.
pub(crate) fn add_at<E>(
    phase: u32,
    plan: &mut LaunchPlan,
    to: &DeviceSlice,
    change: &GradientOp,
) -> Result<(), Error<E>> {
    let line = GradientDesc { len: to.len as u64, to: to.at, ..GradientDesc::default() };
    let (kernel, from, line) = match *change {
        GradientOp::Multiply(c) => ("scale", None, GradientDesc { number: c.to_bits(), ..line }),
        GradientOp::MultiplyBy(at) => ("scale_by", None, GradientDesc { number: at, ..line }),
        GradientOp::ClipValue(limit) => {
            ("clip_value", None, GradientDesc { number: limit.to_bits(), ..line })
        }
        GradientOp::Accumulate { from, window, seen, mean } => {
            // How many of this window: the first one of the next begins anew.
            let seen = seen.checked_rem(window).unwrap_or(0);
            let counts = [window, seen, mean.into()];
            ("accumulate", Some(from), GradientDesc { counts, ..line })
        }
        GradientOp::Unit { from, magnitude, dimensions: [length, width] } => {
            let counts = [length, width, 0];
            ("unit", Some(from), GradientDesc { number: magnitude.to_bits(), counts, ..line })
        }
        GradientOp::Noise(from) => ("noise", Some(from), line),
    };
    let kernel = format!("gradient_{kernel}_{}", name(to.dtype));
    let mut line = line;
    if let Some(from) = from {
        if from.len != to.len {
            let (got, expected) = (from.len, to.len);
            return Err(bitstep::Error::LengthMismatch { argument: "grad", got, expected }.into());
        }
        if from.dtype != to.dtype {
            return Err(Error::NoKernel(format!("{:?} beside {:?}", from.dtype, to.dtype)));
        }
        line.from = from.at;
    }
    plan.launch_per_block(phase, kernel, line.len, line);
    Ok(())
}
