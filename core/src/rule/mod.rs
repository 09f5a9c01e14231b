//! What a rule is, and the loops that run one.
//!
//! Three shapes cover every optimizer:
//!
//! * **elementwise**: one function of a parameter, its gradient, its state slots
//!   and the step's coefficients ([`Rule::update`]);
//! * **tensorwise**: the same, with coefficients that depend on sums over the
//!   tensor ([`Rule::NUM_SUMS`], [`Rule::sum_terms`], [`Rule::apply_sums`]);
//! * **matrix**: row and column state ([`crate::rule::factored`]), or products of
//!   matrices.
//!
//! [`step`] is the whole job for slices of plain numbers. [`sums`] and [`apply`]
//! are its two halves, for callers that cut a tensor into parts.

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
pub(crate) use contract::{check_group, no_decay};
pub use dynamic::{DynRule, begin_group, begin_parameter, begin_single, step_buffered};
pub(crate) use dynamic::{NOT_EAGER, check_tensor};
pub(crate) use elementwise::{
    ActiveParts, Elementwise, KernelSet, WithParamSums, mask_at, param_sums, run, run_in_scratch,
    with_mask,
};
pub use elementwise::{apply, replace_param_sums, scaled_sum, sums};
pub use factored::{FactoredRule, FactoredUpdate, MatrixLayout};
pub use info::RuleInfo;
pub use newton_schulz::NewtonSchulz;
pub use policy::ComputePolicy;
pub use slices::step;
pub(crate) use slices::{check_slices, step_slices};
