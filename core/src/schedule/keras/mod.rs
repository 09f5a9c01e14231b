//! The decays of Keras, for [`WarmUp`](super::WarmUp) to run after its warm-up.
//!
//! They are in f32, as TensorFlow computes them: arguments are rounded first, then every operation is.

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
pub(super) use decay::pow;
use decay::{cos, log};
#[cfg(feature = "alloc")]
pub(super) use entry::{AnyDecay, Entry, Make, decay_of};
pub use exponential_decay::ExponentialDecay;
pub use inverse_time_decay::InverseTimeDecay;
pub use piecewise_constant_decay::PiecewiseConstantDecay;
pub use polynomial_decay::PolynomialDecay;
