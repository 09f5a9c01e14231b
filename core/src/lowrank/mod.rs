//! Training with low-rank projections: GaLore and APOLLO, over any rule.
//!
//! A gradient matrix is projected; a rule computes the [direction](crate::rule::Rule::update_direction) of the projected
//! gradient, with state of the projection's size; the direction is [projected back](GaLore), or only
//! [scales](Apollo) the gradient. [`Projected`] combines the rule and the method, and is itself a
//! [`DynRule`](crate::rule::DynRule): GaLore with Lion is `Projected<Lion, GaLore>`. [`SplitRule`] is the rule as two
//! parts, a direction and its application.
//!
//! The projector is refreshed every `update_proj_gap` updates, from the gradient's singular vectors or at random. It is
//! stored in slots of its own. A caller with a projector of its own writes it there, and passes the slot's name to the
//! step as an [extra argument](crate::rule::StepContext::extra), so that it is not refreshed.
//!
//! Products and singular vectors come from a [`LinearAlgebra`]; [`PortableLinearAlgebra`] has the same bits everywhere.
//! The numerical code itself is in [`crate::math`], the rules are in [`crate::optim`].

mod algebra;
mod apollo;
mod force_f32;
mod galore;
mod projected;
mod projection;
mod split_rule;
#[cfg(all(test, feature = "alloc"))]
mod tests;

pub use crate::math::random::{Mt19937, next_seed, nth_seed, rademacher};
pub use algebra::{LinearAlgebra, PortableLinearAlgebra};
pub use apollo::{Apollo, Channels, ScaleType};
pub use force_f32::ForceF32;
pub use galore::GaLore;
pub use projected::{Projected, ProjectedUpdate, ProjectionMethod};
pub use projection::{ProjType, Projection, ProjectionShape, ProjectorKind, Side};
pub use split_rule::SplitRule;
