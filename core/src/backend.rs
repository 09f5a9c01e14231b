//! For authors of backends: what a loop outside the core needs of a rule.
//!
//! [`Optimizer`](crate::optimizer::Optimizer) steps host memory. A backend that keeps its tensors elsewhere (a GPU,
//! another process), or has its own loops, takes each parameter's [`PreparedStep`](crate::optimizer::PreparedStep),
//! downcasts to the rule's type, and calls the functions below in its loops. The core's loops call the same functions,
//! so the bits are the same.
//!
//! | kind of rule | calls, in this order |
//! | --- | --- |
//! | elementwise | [`Rule::coefs`] once a step, [`Rule::update`] for each element |
//! | tensorwise | [`Rule::sum_terms`] summed in the order of [`reduce`](crate::math::reduce), [`Rule::apply_sums`], then as above |
//! | factored | [`factored`]: row and column moments, then as above with a scale for each element |
//! | Newton–Schulz | [`NewtonSchulz`], between [products](crate::math::matmul) |
//! | projected | [`crate::lowrank`]: project, run the inner rule on a zero parameter, project its direction back |
//!
//! * [`Constants`] converts a step's constants to bytes, to copy them to a device.
//! * A group's step begins with [`begin_group`], a parameter's with [`begin_parameter`]; [`begin_single`] does both.
//! * [`sums`] and [`apply`] are the core's two loops over slices. [`scaled_sum`] and [`replace_param_sums`] are for a
//!   projected rule whose sums are over the full parameter.
//! * [`gradient`] has the terms of norms and of clipping, one element at a time.
//! * [`each_rule!`](crate::each_rule) lists the rules by kind, for backends that need code for each of them.
//! * [`Optimizer::add_part`](crate::optimizer::Optimizer::add_part) is for parameters that several processes hold in
//!   parts.
//! * [`collected`] and [`filled`] allocate, and report a lack of memory as an error.

pub use crate::float::bytes::Constants;
pub use crate::rule::{
    NewtonSchulz, Rule, apply, begin_group, begin_parameter, begin_single, factored,
    replace_param_sums, scaled_sum, sums,
};
#[cfg(feature = "alloc")]
pub use crate::storage::memory::{collected, filled};

/// Norms and clipping, one element at a time.
pub mod gradient {
    pub use crate::gradient::kernel::*;
}
