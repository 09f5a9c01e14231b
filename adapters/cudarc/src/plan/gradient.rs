//! Elementwise operations on gradients.

use bitstep::float::Dtype;

use crate::plan::{LaunchPlan, Workspace, launch, name};
use crate::table::GradientDesc;
use crate::{Device, Error};

/// A contiguous array of unquantized elements in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSlice {
    /// Its address.
    pub at: u64,
    /// The number of elements.
    pub len: usize,
    /// Their type.
    pub dtype: Dtype,
}

/// An operation on a gradient, as the core does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GradientOp {
    /// [`bitstep::gradient::scale_in_place`].
    Multiply(f64),
    /// Multiplication by the `f64` at a device address.
    MultiplyBy(u64),
    /// [`bitstep::gradient::clip_grad_value`].
    ClipValue(f64),
    /// [`bitstep::gradient::GradientAccumulator::add`] of a micro-batch's gradient.
    Accumulate {
        /// The micro-batch's gradient.
        from: DeviceSlice,
        /// The number of micro-batches of the window.
        window: u64,
        /// The number of micro-batches added before this one.
        seen: u64,
        /// Whether to compute the mean rather than the sum.
        mean: bool,
    },
    /// [`bitstep::gradient::Neftune::add_from_uniform`].
    Unit {
        /// Uniform random values between 0 and 1: of the type of the numbers, or for 16 bits in `f32`.
        from: DeviceSlice,
        /// The noise's magnitude: `Neftune::alpha`.
        magnitude: f64,
        /// The length of a sequence in tokens, and the width of a token.
        dimensions: [u64; 2],
    },
    /// [`bitstep::gradient::Neftune::add_noise`].
    Noise(DeviceSlice),
}

/// Applies operations to any number of gradients, in one launch for each kind of operation and type.
///
/// # Errors
/// Lengths or types that differ, before anything is launched. Or an error of the device.
///
/// # Safety
/// The memory belongs to the device, has the stated lengths, and is not used by anything else until
/// the launches have run.
pub unsafe fn apply_gradient_ops<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    gradients: &[(DeviceSlice, GradientOp)],
) -> Result<(), Error<D::Error>> {
    launch(device, workspace, |plan| gradients.iter().try_for_each(|g| add(plan, g)))?;
    Ok(())
}

fn add<E>(plan: &mut LaunchPlan, (to, op): &(DeviceSlice, GradientOp)) -> Result<(), Error<E>> {
    add_at(0, plan, to, op)
}

/// Adds an operation to a phase of a plan.
pub(crate) fn add_at<E>(
    phase: u32,
    plan: &mut LaunchPlan,
    to: &DeviceSlice,
    op: &GradientOp,
) -> Result<(), Error<E>> {
    let desc = GradientDesc { len: to.len as u64, to: to.at, ..GradientDesc::default() };
    let (kernel, from, desc) = match *op {
        GradientOp::Multiply(c) => ("scale", None, GradientDesc { number: c.to_bits(), ..desc }),
        GradientOp::MultiplyBy(at) => ("scale_by", None, GradientDesc { number: at, ..desc }),
        GradientOp::ClipValue(limit) => {
            ("clip_value", None, GradientDesc { number: limit.to_bits(), ..desc })
        }
        GradientOp::Accumulate { from, window, seen, mean } => {
            // Those of this window: the next one starts from zero.
            let seen = seen.checked_rem(window).unwrap_or(0);
            let counts = [window, seen, mean.into()];
            ("accumulate", Some(from), GradientDesc { counts, ..desc })
        }
        GradientOp::Unit { from, magnitude, dimensions: [length, width] } => {
            let counts = [length, width, 0];
            ("unit", Some(from), GradientDesc { number: magnitude.to_bits(), counts, ..desc })
        }
        GradientOp::Noise(from) => ("noise", Some(from), desc),
    };
    let mut kernel = format!("gradient_{kernel}_{}", name(to.dtype));
    let mut desc = desc;
    if let Some(from) = from {
        if from.len != to.len {
            let (got, expected) = (from.len, to.len);
            return Err(bitstep::Error::LengthMismatch { argument: "grad", got, expected }.into());
        }
        let is_drawn_wide = matches!(op, GradientOp::Unit { .. })
            && matches!((to.dtype, from.dtype), (Dtype::Bf16 | Dtype::F16, Dtype::F32));
        if is_drawn_wide {
            kernel.push_str("_f32");
        } else if from.dtype != to.dtype {
            return Err(Error::NoKernel(format!("{:?} beside {:?}", from.dtype, to.dtype)));
        }
        desc.from = from.at;
    }
    plan.launch_per_block(phase, kernel, desc.len, desc);
    Ok(())
}
