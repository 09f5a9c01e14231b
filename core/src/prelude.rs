//! What most programs need: `use bitstep::prelude::*`.

pub use crate::error::Error;
pub use crate::float::Dtype;
pub use crate::optim::*;
pub use crate::rule::{ComputePolicy, Rule, StepContext};
pub use crate::schedule::Schedule;
pub use crate::state::{Optimize, State};
pub use crate::storage::{Data, DataMut};
#[cfg(feature = "alloc")]
pub use crate::{
    hyper::{Args, HyperParams},
    optimizer::{Optimizer, OptimizerSpec, Param},
    registry,
};
