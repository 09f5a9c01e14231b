//! The contract of an optimizer rule, and the loops that run one over a tensor.
//!
//! There are five kinds of rules, those of [`crate::backend`]:
//!
//! * **elementwise**: one function of a parameter, its gradient, its state slots
//!   and the step's coefficients ([`Rule::update`]);
//! * **tensorwise**: elementwise, with coefficients that depend on sums over the
//!   tensor ([`Rule::NUM_SUMS`], [`Rule::sum_terms`], [`Rule::apply_sums`]);
//! * **factored**: a matrix with row and column state ([`factored`]);
//! * **Newton–Schulz**: a matrix that goes through products of matrices
//!   ([`newton_schulz`]);
//! * **projected**: another rule, run on a low-rank projection of a matrix
//!   ([`crate::lowrank`]).
//!
//! [`step`] runs one step on slices; [`sums`] and [`apply`] are its two loops, for
//! callers that cut a tensor into parts. [`DynRule`] is a rule whose type is known
//! at run time only.
//!
//! Not here: the rules themselves ([`crate::optim`]), state with its step count
//! ([`crate::state`]), parameter groups ([`crate::optimizer`]), storage formats
//! ([`crate::storage`]).

mod array;
mod context;
mod contract;
pub(crate) mod dynamic;
pub(crate) mod elementwise;
pub mod factored;
mod info;
pub mod mode;
pub mod newton_schulz;
mod policy;
mod slices;

pub use array::Array;
pub(crate) use context::check_norm;
pub use context::{DecayPowers, StepContext, UpdateBuffers};
pub use contract::{MAX_SCALARS, Mode, Rule, ScalarState, Scope, SlotInit};
pub(crate) use contract::{allow_negative_decay, no_decay};
pub(crate) use dynamic::NOT_EAGER;
pub use dynamic::{
    DynRule, begin_group, begin_parameter, begin_single, check_tensor, step_buffered,
};
pub(crate) use elementwise::{
    ActiveParts, Elementwise, KernelSet, WithParamSums, active_slots_at, param_sums, run,
    run_in_scratch, with_active_slots,
};
pub use elementwise::{apply, replace_param_sums, scaled_sum, sums};
pub use factored::{FactoredRule, FactoredUpdate, MatrixLayout};
pub use info::RuleInfo;
pub use newton_schulz::NewtonSchulz;
pub use policy::ComputePolicy;
pub use slices::step;
pub(crate) use slices::{check_slices, step_slices};
