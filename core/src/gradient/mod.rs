//! What happens to gradients before a rule sees them: clipping, accumulation,
//! noise on embeddings, loss scaling.

mod accumulate;
mod clip;
mod neftune;
mod scale;

pub use accumulate::Accumulation;
pub(crate) use clip::global_norm;
pub use clip::{ClipByGlobalNorm, ClipGradNorm, clip_grad_value, norm, total_norm, unscaled_norm};
pub(crate) use neftune::random;
pub use neftune::{Neftune, uniform};
pub use scale::{LossScale, is_finite, multiply};

/// What norms over gradients are made of, for backends with loops of their own.
#[doc(hidden)]
pub mod parts {
    pub use super::clip::{Order, half, limited_square, promote, round, whole};
    pub use super::scale::multiplied;
}
