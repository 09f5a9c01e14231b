//! Common imports: `use bitstep::prelude::*` brings the rules, steps with state, data views, and (with `alloc`)
//! optimizers by name.

pub use crate::error::Error;
pub use crate::float::Dtype;
pub use crate::optim::*;
pub use crate::rule::{ComputePolicy, Rule, StepContext};
pub use crate::schedule::{Schedule, ScheduleFacts};
pub use crate::state::{Optimize, State};
pub use crate::storage::{Data, DataMut};
#[cfg(feature = "alloc")]
pub use crate::{
    hyper::{Args, HyperParams},
    optimizer::{Optimizer, OptimizerSpec, Param},
    registry,
};
