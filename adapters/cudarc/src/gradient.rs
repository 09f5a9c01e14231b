//! What happens to gradients on the device, element by element.

use bitstep::real::Dtype;

use crate::plan::{Plan, Workspace, launch, name};
use crate::table::Gradient;
use crate::{Device, Error};

/// Memory of so many plain numbers of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Where it is.
    pub at: u64,
    /// How many numbers.
    pub len: usize,
    /// Their type.
    pub dtype: Dtype,
}

/// What is to be done to a gradient, as the core does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// [`bitstep::gradient::multiply`].
    Multiply(f64),
    /// The same by a number of type `f64` that is on the device, there.
    MultiplyBy(u64),
    /// [`bitstep::gradient::clip_grad_value`].
    ClipValue(f64),
    /// [`bitstep::gradient::Accumulation::add`] of a micro-batch's gradient.
    Accumulate {
        /// The micro-batch's.
        from: Numbers,
        /// Micro-batches that are added up.
        window: u64,
        /// Those added before it.
        seen: u64,
        /// Whether their mean is expected, or their sum.
        mean: bool,
    },
    /// [`bitstep::gradient::Neftune::add_unit`].
    Unit {
        /// Numbers between 0 and 1.
        from: Numbers,
        /// The noise's magnitude: `Neftune::alpha`.
        magnitude: f64,
        /// Numbers in a sequence, and in a token.
        dimensions: [u64; 2],
    },
    /// [`bitstep::gradient::Neftune::add_noise`].
    Noise(Numbers),
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
pub unsafe fn change<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    gradients: &[(Numbers, Change)],
) -> Result<(), Error<D::Error>> {
    launch(device, workspace, |plan| gradients.iter().try_for_each(|g| add(plan, g)))?;
    Ok(())
}

fn add<E>(plan: &mut Plan, (to, change): &(Numbers, Change)) -> Result<(), Error<E>> {
    add_at(0, plan, to, change)
}

/// Adds a change to a phase of a plan.
pub(crate) fn add_at<E>(
    phase: u32,
    plan: &mut Plan,
    to: &Numbers,
    change: &Change,
) -> Result<(), Error<E>> {
    let line = Gradient { len: to.len as u64, to: to.at, ..Gradient::default() };
    let (kernel, from, line) = match *change {
        Change::Multiply(c) => ("scale", None, Gradient { number: c.to_bits(), ..line }),
        Change::MultiplyBy(at) => ("scale_by", None, Gradient { number: at, ..line }),
        Change::ClipValue(limit) => {
            ("clip_value", None, Gradient { number: limit.to_bits(), ..line })
        }
        Change::Accumulate { from, window, seen, mean } => {
            // How many of this window: the first one of the next begins anew.
            let seen = seen.checked_rem(window).unwrap_or(0);
            let counts = [window, seen, mean.into()];
            ("accumulate", Some(from), Gradient { counts, ..line })
        }
        Change::Unit { from, magnitude, dimensions: [length, width] } => {
            let counts = [length, width, 0];
            ("unit", Some(from), Gradient { number: magnitude.to_bits(), counts, ..line })
        }
        Change::Noise(from) => ("noise", Some(from), line),
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
    plan.each(phase, kernel, line.len, line);
    Ok(())
}
