//! Training as Transformers' Trainer sets it up, on any backend: a `TrainingArguments` file
//! becomes groups, a schedule, clipping and accumulation ([`Arguments`], [`Setup`]), and a run
//! is saved and resumed ([`checkpoint`]), also one that was begun in Python ([`torch`], [`resume`]).
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
//! assert_eq!(setup.scheduler.lrs(), [0.0, 0.0]); // warming up
//! # Ok::<(), bitstep_trainer::TrainingError>(())
//! ```

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
mod recipe;
pub mod resume;
mod setup;
pub mod torch;
mod training_arguments;
mod version;

pub use arguments::{Arguments, Targets, TrainingError};
pub use layers::{Layer, Parameter};
pub use model_layers::{LayersError, ModelLayers};
pub use setup::{Group, Setup, follows_metric};
pub use training_arguments::{GroupKind, TrainingArguments, has_weight_decay};
pub use version::Version;
