//! Keras' Adam, as `transformers.create_optimizer` makes it for TensorFlow, and its clipping.
//!
//! One rule a file; what they share is in `common`.

mod common;
pub mod keras_adam;

pub(crate) use common::Clip;
pub use common::KerasClip;
pub use keras_adam::KerasAdam;
