//! The learning-rate schedules of `tf.keras.optimizers.schedules`, for [`WarmUp`](super::WarmUp) to run after warm-up.
//!
//! Each has a file of its own. They compute in `f32`, as TensorFlow does: arguments are rounded to `f32` first, then the
//! result of every operation. To use one as a [`Schedule`](super::Schedule), wrap it in a [`WarmUp`](super::WarmUp) with
//! `warmup_steps: 0`.

mod cosine_decay;
mod cosine_decay_restarts;
mod decay;
#[cfg(feature = "alloc")]
mod entry;
mod exponential_decay;
mod inverse_time_decay;
#[cfg(feature = "alloc")]
pub(super) mod named;
mod piecewise_constant_decay;
mod polynomial_decay;

pub use cosine_decay::CosineDecay;
pub use cosine_decay_restarts::CosineDecayRestarts;
pub use decay::Decay;
#[cfg(feature = "alloc")]
pub use entry::AnyDecay;
#[cfg(feature = "alloc")]
pub(super) use entry::{Entry, Make, decay_of};
pub use exponential_decay::ExponentialDecay;
pub use inverse_time_decay::InverseTimeDecay;
pub use piecewise_constant_decay::PiecewiseConstantDecay;
pub use polynomial_decay::PolynomialDecay;
