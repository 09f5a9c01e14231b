//! Clipping by the norm over all gradients, which stays on the device.

use bitstep::float::Dtype;
use bitstep::gradient::kernel::{NormKind, promote};
use bitstep::gradient::{ClipByGlobalNorm, ClipGradNorm};

use crate::plan::gradient::add_at;
use crate::plan::{Granularity, LaunchPlan, Workspace, launch, name, wide};
use crate::table::{CHUNK, NormDesc};
use crate::{Device, DeviceSlice, Error, GradientOp};

/// How gradients are clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// PyTorch's `clip_grad_norm_`.
    Norm(ClipGradNorm),
    /// TensorFlow's `clip_by_global_norm`.
    Global(ClipByGlobalNorm),
}

const TERMS: u32 = 0;
const FOLD: u32 = 1;
const PER_TENSOR: u32 = 20;
const REDUCE_NORMS: u32 = 21;
const FOLD_LIST: u32 = 22;
const TOTAL: u32 = 40;
const SCALE: u32 = 41;

/// Clips gradients in place, as the core does ([`ClipGradNorm::clip`], [`ClipByGlobalNorm::clip`]).
/// Writes two `f64` to `to`, a device address aligned to 8: the total norm before clipping, and the
/// factor of the gradients. The host does not wait for them, unless `clip` refuses a norm that is not
/// finite.
///
/// # Errors
/// A norm that is not finite, if `clip` refuses it: gradients are unchanged then. Or an error of the
/// device.
///
/// # Safety
/// As [`apply_gradient_ops`](crate::apply_gradient_ops); `to` has room for two `f64`.
pub unsafe fn clip<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    gradients: &[DeviceSlice],
    clip: Clip,
    to: u64,
) -> Result<(), Error<D::Error>> {
    let syncs_host = matches!(clip, Clip::Norm(ClipGradNorm { error_if_nonfinite: true, .. }));
    let scale = |plan: &mut LaunchPlan| {
        let by = GradientOp::MultiplyBy(to + 8);
        gradients.iter().try_for_each(|g| add_at(SCALE, plan, g, &by))
    };
    launch(device, workspace, |plan| {
        plan.norm(gradients, clip, to);
        if syncs_host { Ok(()) } else { scale(plan) }
    })?;
    if syncs_host {
        let mut norm = [0; 8];
        device.read(to, &mut norm).map_err(Error::Device)?;
        let value = f64::from_le_bytes(norm);
        if !value.is_finite() {
            let (argument, expected) = ("total_norm", "finite");
            return Err(bitstep::Error::OutOfRange { argument, value, expected }.into());
        }
        launch(device, workspace, scale)?;
    }
    Ok(())
}

/// The first half of [`clip`]: computes norm and factor, and does not modify the gradients. A step can
/// apply the factor ([`DeviceOptimizer::set_grad_scale`](crate::DeviceOptimizer::set_grad_scale)).
///
/// # Errors
/// An error of the device.
///
/// # Safety
/// As [`clip`].
pub unsafe fn norm<D: Device>(
    device: &mut D,
    workspace: &mut Workspace,
    gradients: &[DeviceSlice],
    clip: Clip,
    to: u64,
) -> Result<(), Error<D::Error>> {
    launch(device, workspace, |plan| {
        plan.norm(gradients, clip, to);
        Ok(())
    })?;
    Ok(())
}

/// The kernels of a norm's order: for the elements, and for their partial results.
fn kernels(order: NormKind) -> (&'static str, &'static str) {
    match order {
        NormKind::Two => ("norm_two", "fold"),
        NormKind::One => ("norm_one", "fold"),
        NormKind::Largest => ("norm_largest", "largest"),
        NormKind::Smallest => ("norm_smallest", "smallest"),
        NormKind::Count => ("norm_count", "fold"),
        NormKind::Power => ("norm_power", "fold"),
    }
}

impl LaunchPlan {
    /// Plans the norm over the gradients and their factor.
    fn norm(&mut self, gradients: &[DeviceSlice], clip: Clip, to: u64) {
        let dtype = gradients.iter().map(|g| g.dtype).reduce(promote).unwrap_or(Dtype::F32);
        let of = wide(dtype);
        let (order, max_norm) = match clip {
            Clip::Norm(clip) => (clip.norm_type, clip.max_norm),
            Clip::Global(clip) => (f64::INFINITY, clip.clip_norm),
        };
        let kernels = |n| kernels(NormKind::of(order, n));
        let desc =
            NormDesc { number: order.to_bits(), most: max_norm.to_bits(), ..NormDesc::default() };
        let list = self.alloc_scratch(gradients.len() as u64, of);
        for (i, g) in gradients.iter().enumerate() {
            let to = list + (i * of.size()) as u64;
            let desc =
                NormDesc { len: g.len as u64, from: g.at, wide: (of == Dtype::F64).into(), ..desc };
            let (terms, fold, one, sum) = match clip {
                Clip::Norm(_) => {
                    let (terms, fold) = kernels(g.len);
                    let name = name(g.dtype);
                    (format!("{terms}_{name}"), fold, format!("norm_root_{name}"), wide(g.dtype))
                }
                Clip::Global(_) => {
                    let terms = format!("norm_squares_{}_{}", name(g.dtype), name(of));
                    (terms, "fold", format!("norm_halves_{}", name(dtype)), of)
                }
            };
            let from = self.blocks([TERMS, FOLD], [&terms, fold], sum, desc);
            self.launch(PER_TENSOR, one, Granularity::Block, [1, 1], NormDesc { from, to, ..desc });
        }
        let all = NormDesc { len: gradients.len() as u64, from: list, ..desc };
        let (from, total) = match clip {
            Clip::Norm(_) => {
                let (terms, fold) = kernels(gradients.len());
                let terms = format!("{terms}_{}", name(of));
                (self.blocks([REDUCE_NORMS, FOLD_LIST], [&terms, fold], of, all), "total")
            }
            Clip::Global(_) if gradients.is_empty() => (self.push_zeros(1, of), "global"),
            Clip::Global(_) => (self.fold(FOLD_LIST, of, 1, all.len, list), "global"),
        };
        let kernel = format!("norm_{total}_{}", name(dtype));
        self.launch(TOTAL, kernel, Granularity::Block, [1, 1], NormDesc { from, to, ..all });
    }

    /// Reduces the values of a descriptor to one; returns its address.
    fn blocks(
        &mut self,
        [first, next]: [u32; 2],
        [terms, fold]: [&str; 2],
        of: Dtype,
        desc: NormDesc,
    ) -> u64 {
        if desc.len == 0 {
            let nothing: f64 = NormKind::of(f64::from_bits(desc.number), 0).start();
            let bytes = match of {
                Dtype::F64 => nothing.to_le_bytes().to_vec(),
                _ => (nothing as f32).to_le_bytes().to_vec(),
            };
            // TensorFlow's squares are summed, whatever `number` holds.
            return self.push(if fold == "fold" { &[0; 8] } else { &bytes });
        }
        let blocks = desc.len.div_ceil(CHUNK);
        let to = self.alloc_scratch(blocks, of);
        self.launch(
            first,
            terms.to_owned(),
            Granularity::Warp,
            [blocks, desc.len],
            NormDesc { to, ..desc },
        );
        self.fold_by(fold, next, of, 1, blocks, to)
    }
}
