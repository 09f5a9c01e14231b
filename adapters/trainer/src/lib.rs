#![doc = include_str!("../README.md")]
//!
//! It has no training loop: an adapter such as `bitstep-candle` computes gradients and applies the
//! setup. Data, logging, evaluation and distributed training are outside its scope; arguments for them
//! are ignored, or refused where they would change the updates.

mod arguments;
pub mod checkpoint;
mod file;
mod groups;
mod guess;
mod json;
mod keys;
mod layers;
mod model_layers;
mod optim_args;
pub mod resume;
mod setup;
mod spec;
pub mod torch;
mod training_arguments;
mod version;

pub use arguments::{Arguments, Targets, TrainingError};
pub use layers::{Layer, Parameter};
pub use model_layers::{LayersError, ModelLayers};
pub use setup::{Group, Setup, follows_metric};
pub use training_arguments::{GroupKind, TrainingArguments, has_weight_decay};
pub use version::Version;
