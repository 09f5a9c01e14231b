//! Keras' Adam, as `transformers.create_optimizer` makes it for TensorFlow, and its clipping.
//!
//! One rule per file; shared code is in `common`.

mod common;
pub mod keras_adam;

pub(crate) use common::Clip;
pub use common::KerasClip;
pub use keras_adam::KerasAdam;
