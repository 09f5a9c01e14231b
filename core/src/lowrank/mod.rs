//! Training in a space of low rank: GaLore and APOLLO, over any rule.
//!
//! A gradient matrix is projected; a rule finds the [direction](crate::rule::Rule::update_direction)
//! of the projection, with state of the projection's size; the direction is [brought
//! back](GaLore), or only [tells how long](Apollo) a step along the gradient is. A
//! [`Projected`] is the whole, and an [`DynRule`](crate::rule::DynRule) again: GaLore × Lion is
//! `Projected::<Lion, GaLore>`.
//!
//! Now and then the projector is renewed, from the gradient's singular vectors or at random.
//! It rests in slots of its own; a caller who has a better one writes it there, and says so by
//! handing the slot's name to the step as a [given](crate::rule::StepContext::extra) number.
//!
//! Products and singular vectors come from an [`LinearAlgebra`]. [`PortableLinearAlgebra`] has the same
//! bits everywhere; another one, with a vendor's products, has its own.

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
