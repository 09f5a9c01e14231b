//! Gradient processing before the optimizer step: clipping, accumulation, loss
//! scaling; and NEFTune's noise on embeddings.
//!
//! All of it works on slices, without a heap, and with the same bits on every
//! backend.
//!
//! Not here: clipping that is part of a rule (LAMB, Keras: [`crate::optim`]), and
//! the order of sums ([`crate::math::reduce`]).

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

/// The elementwise parts of the gradient strategies, for backends with their own loops.
pub mod kernel {
    pub use super::accumulate::accumulated;
    pub use super::clip::{
        NormKind, clamped, clamped_square, coefficient, promote, round, tf_half_square, tf_norm,
    };
    pub use super::neftune::noisy;
    pub use super::scale::scaled;
}
