//! What happens to gradients before a rule sees them: clipping, accumulation,
//! noise on embeddings, loss scaling.

mod accumulate;
mod clip;
mod neftune;
mod scale;

pub use accumulate::GradientAccumulator;
pub(crate) use clip::global_norm;
pub use clip::{
    ClipByGlobalNorm, ClipGradNorm, clip_grad_norm, clip_grad_value, norm, total_norm,
    unscaled_norm,
};
pub use neftune::{Neftune, uniform};
pub use scale::{LossScale, is_finite, scale_in_place};

/// What norms over gradients are made of, for backends with loops of their own.
pub mod kernel {
    pub use super::clip::{NormKind, clamped_square, promote, round, tf_half_square, tf_norm};
    pub use super::scale::scaled;
}
