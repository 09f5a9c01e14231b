//! The setup of training of Transformers' Trainer, for any backend: a `TrainingArguments` file
//! becomes groups, a schedule, clipping and accumulation ([`Arguments`], [`Setup`]). Runs are saved
//! and resumed ([`checkpoint`]), including runs that were started in Python ([`torch`], [`resume`]).
//!
//! ```
//! use bitstep_trainer::{Arguments, Parameter};
//! let text = r#"{"optim": "adamw_torch", "learning_rate": 0.001, "weight_decay": 0.1,
//!     "lr_scheduler_type": "cosine", "warmup_steps": 10, "max_steps": 100}"#;
//! let args = Arguments::from_json(text)?;
//! let parameters = [
//!     Parameter::new("up.weight", &[8, 4]),
//!     Parameter::new("up.bias", &[8]),
//! ];
//! let setup = args.setup(&parameters, None)?;
//! assert_eq!(setup.groups[0].members, [0]); // decays
//! assert_eq!(setup.groups[1].members, [1]); // does not
//! assert_eq!(setup.scheduler.lrs(), [0.0, 0.0]); // start of the warm-up
//! # Ok::<(), bitstep_trainer::TrainingError>(())
//! ```
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
