//! GaLore: the direction is brought back.

use crate::error::Error;
use crate::float::ComputeFloat;
use crate::hyper::FieldVisitor;
use crate::lowrank::projected::Directions;
use crate::lowrank::{
    LinearAlgebra, ProjectedUpdate, Projection, ProjectionMethod, ProjectionShape, ProjectorKind,
    Side, SplitRule,
};
use crate::math::matmul::MatrixView;
use crate::rule::StepContext;
use crate::storage::{DataMut, Plain};

/// The rule's direction, brought back from the projection and scaled.
///
/// # Formula
/// ```text
/// P ← top singular vectors of G            every update_proj_gap updates
/// D ← direction of the rule for G Pᵀ       from the left: for Pᵀ G
/// p ← p moved along scale · D P            from the left: scale · P D
/// ```
///
/// # Order of operations
/// Products as in [`crate::math::matmul`], rounded to the compute type; each element times
/// `scale`, then the rule's own second half, decay included.
///
/// # Source
/// Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
/// Projection", 2024. Reference: `galore_torch`.
/// Singular vectors there have whatever signs LAPACK gives them; here the largest
/// component is positive ([`crate::lowrank::PortableLinearAlgebra`]). As state stays as it is when a
/// projector is renewed, signs matter from the second one on.
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
/// The rule's, with the projection's dimensions; `projector`, or `projector_0` and
/// `projector_1` of `full`.
///
/// # Errors
/// A parameter in a group with a rank that has not two dimensions; `reverse_std` of a wide matrix
/// with a rank of its height or more, where the reference fails too.
///
/// # Non-finite input
/// The reference fails where a projector is renewed. Here it has non-finite entries then,
/// and so has the parameter.
///
/// # Example
/// ```
/// use bitstep::{hyper::Args, registry, optimizer::{Optimizer, Param}, float::Dtype, storage::{Data, DataMut}};
/// let mut optimizer = Optimizer::new();
/// let group = optimizer.add_group(registry::optimizer("galore_adamw", &Args::parse("lr=0.5, eps=0, rank=1, scale=1")?)?)?;
/// optimizer.add_param(group, &[2, 2], Dtype::F32)?;
/// // Rank 1 already: its right singular vector is (0, 1), its projection (4, -2), the direction (1, -1).
/// let (mut p, g) = ([0.0f32; 4], [0.0f32, 4.0, 0.0, -2.0]);
/// optimizer.step(&mut [Param { value: DataMut::F32(&mut p), grad: Some(Data::F32(&g)) }], &[])?;
/// assert!((p[1] + 0.5).abs() < 1e-6 && (p[3] - 0.5).abs() < 1e-6 && p[0] == 0.0 && p[2] == 0.0);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GaLore;

impl GaLore {
    /// An element of the direction, from one of the product.
    #[doc(hidden)]
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
        found: ProjectedUpdate<'_, C::Scalar>,
        param: &mut DataMut<'_>,
        _: &mut [f64],
    ) {
        let ProjectedUpdate { plan, left, right, direction, spare, between, .. } = found;
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
        // A band of the product is used while it is near. Storages may have blocks across rows.
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
            super::projected::follow::<R, C>(k, param, start..end, &directions);
        }
    }
}

/// Rows that are brought back together: enough to pack a projector for.
const BAND: usize = 384;

/// A band of the product, from element `start` on, and its factor.
struct Scaled<'a, A> {
    start: usize,
    product: &'a [A],
    scale: A,
}

impl<C: ComputeFloat> Directions<C> for Scaled<'_, C::Scalar> {
    #[inline(always)]
    fn fill(&self, start: usize, out: &mut [C]) {
        let product = self.product.get(start - self.start..).unwrap_or_default();
        for (to, x) in out.iter_mut().zip(product) {
            *to = GaLore::scaled(C::round_from(*x), self.scale);
        }
    }
}
