//! GaLore: the direction of the projected gradient, projected back.

use crate::error::Error;
use crate::float::ComputeFloat;
use crate::hyper::FieldVisitor;
use crate::lowrank::projected::DirectionSource;
use crate::lowrank::{
    LinearAlgebra, ProjectedUpdate, Projection, ProjectionMethod, ProjectionShape, ProjectorKind,
    Side, SplitRule,
};
use crate::math::matmul::MatrixView;
use crate::rule::StepContext;
use crate::storage::{DataMut, Plain};

/// The update is the rule's direction for the projected gradient, projected back and scaled.
///
/// # Formula
/// ```text
/// P ← top singular vectors of G            every update_proj_gap updates
/// D ← direction of the rule for G Pᵀ       left projector: for Pᵀ G
/// p ← p moved along scale · D P            left projector: scale · P D
/// ```
///
/// # Order of operations
/// Products as in [`crate::math::matmul`], rounded to the compute type; each element times `scale`; then the rule's
/// [`apply_direction`](crate::rule::Rule::apply_direction), which includes decoupled weight decay.
///
/// # Source
/// Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
/// Projection", 2024. Reference: `galore_torch`.
/// There the signs of singular vectors are those that LAPACK returns; here the component of the largest magnitude is
/// positive. State is kept when a projector is refreshed, so signs matter from the second projector on.
///
/// # Hyper-parameters
/// | field | range | default |
/// | --- | --- | --- |
/// | `rank` | any, or none: nothing is projected | none |
/// | `update_proj_gap` | ≥ 1 | 200 |
/// | `scale` | any | 0.25 |
/// | `proj_type` | `std`, `reverse_std`, `right`, `left`, `full` | `std` |
///
/// # State
/// The rule's slots, with the projection's dimensions; `projector`, or `projector_0` and `projector_1` for `full`.
///
/// # Errors
/// In a group with a rank, a parameter that does not have two dimensions; `reverse_std` for a wide matrix with a rank of
/// its height or more, where the reference fails too.
///
/// # Non-finite input
/// The reference fails when it refreshes a projector from a non-finite gradient. Here the projector is non-finite then,
/// and so is the parameter.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
///
/// let args = Args::parse("lr=0.5, eps=0, rank=1, scale=1")?;
/// let mut optimizer = Optimizer::new(registry::optimizer("galore_adamw", &args)?)?;
/// let weight = optimizer.add_param(&[2, 2], Dtype::F32)?;
/// // A gradient of rank 1: its right singular vector is (0, 1), its projection (4, -2), the direction (1, -1).
/// let (mut p, g) = ([0.0f32; 4], [0.0f32, 4.0, 0.0, -2.0]);
/// optimizer.step([(weight, DataMut::F32(&mut p), Data::F32(&g))])?;
/// assert!((p[1] + 0.5).abs() < 1e-6 && (p[3] - 0.5).abs() < 1e-6 && p[0] == 0.0 && p[2] == 0.0);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GaLore;

impl GaLore {
    /// An element of the direction, from an element of the product.
    #[inline(always)]
    pub fn scaled<C: ComputeFloat>(x: C, scale: C::Scalar) -> C {
        x.mul_scalar(scale)
    }
}

impl ProjectionMethod for GaLore {
    const ID: &'static str = "galore";
    const SCALAR_NAMES: &'static [&'static str] = &[];

    fn projection() -> Projection {
        Projection::new(None, ProjectorKind::Svd, 0.25)
    }

    fn fields(&mut self, _: &mut Projection, _: &mut dyn FieldVisitor) {}

    fn extra_scratch(&self, plan: &ProjectionShape) -> usize {
        plan.rows.min(BAND).saturating_mul(plan.cols)
    }

    fn check_plan(&self, projection: &Projection, plan: &ProjectionShape) -> Result<(), Error> {
        let _ = projection;
        let refused = plan.side == Side::Right
            && projection.proj_type == crate::lowrank::ProjType::ReverseStd
            && plan.rank >= plan.rows;
        if refused {
            return Err(Error::InvalidArgument {
                argument: "rank",
                expected: "less than the height, for reverse_std of a wide matrix",
            });
        }
        Ok(())
    }

    fn apply<R: SplitRule, L: LinearAlgebra, C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        projection: &Projection,
        _: &StepContext,
        k: &R::Coefs<C>,
        update: ProjectedUpdate<'_, C::Scalar>,
        param: &mut DataMut<'_>,
        _: &mut [f64],
    ) {
        let ProjectedUpdate { plan, left, right, direction, spare, between, .. } = update;
        let ProjectionShape { rows, cols, rank, side } = plan;
        // A matrix without elements may have any number of rows.
        let rows = if param.is_empty() { 0 } else { rows };
        let (mut tall, wide) = match side {
            Side::Right => (direction, right),
            Side::Left => (left, direction),
            Side::Both => {
                let (left, low) = (MatrixView::new(left, rank), MatrixView::new(direction, rank));
                L::matmul([rows, rank, rank], left, low, between);
                super::projected::round::<C>(between);
                (&*between, right)
            }
        };
        let scale = C::scalar(projection.scale);
        // In bands of rows, each applied while it is in the cache. Blocks of an encoded parameter may extend across rows:
        // then the whole product at once.
        let height = if param.block() == 1 { BAND } else { rows };
        for first in (0..rows).step_by(height.max(1)) {
            let height = (rows - first).min(height);
            let product = spare.get_mut(..height * cols).unwrap_or_default();
            L::matmul(
                [height, rank, cols],
                MatrixView::new(tall, rank),
                MatrixView::new(wide, cols),
                product,
            );
            tall = tall.get(height * rank..).unwrap_or_default();
            let (start, end) = (first * cols, (first + height) * cols);
            let directions = Scaled { start, product, scale };
            super::projected::apply_directions::<R, C>(k, param, start..end, &directions);
        }
    }
}

/// Rows of the product that are computed together: enough to amortize the packing of a projector.
const BAND: usize = 384;

/// A band of the product, from element `start` on, and its scale.
struct Scaled<'a, A> {
    start: usize,
    product: &'a [A],
    scale: A,
}

impl<C: ComputeFloat> DirectionSource<C> for Scaled<'_, C::Scalar> {
    #[inline(always)]
    fn fill(&self, start: usize, out: &mut [C]) {
        let product = self.product.get(start - self.start..).unwrap_or_default();
        for (to, x) in out.iter_mut().zip(product) {
            *to = GaLore::scaled(C::round_from(*x), self.scale);
        }
    }
}
