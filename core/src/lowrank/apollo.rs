//! APOLLO: the direction of the projected gradient scales the gradient itself.

use crate::arch::simd::{self, Kernel};
use crate::error::Error;
use crate::float::ComputeFloat;
use crate::hyper::FieldVisitor;
use crate::lowrank::projected::DirectionSource;
use crate::lowrank::{
    LinearAlgebra, ProjectedUpdate, Projection, ProjectionMethod, ProjectionShape, ProjectorKind,
    SplitRule,
};
use crate::math::reduce::{self, CHUNK, TermSource};
use crate::rule::StepContext;
use crate::storage::{DataMut, Plain};

/// The elements that share one scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// One scale per row of a tall or square matrix, per column of a wide one.
    #[default]
    Channel,
    /// One scale for the whole matrix.
    Tensor,
}

/// The update is the gradient itself, scaled as the rule scales the projected gradient.
///
/// # Formula
/// ```text
/// P ← N(0, 1) / √rank, or top singular vectors of G     every update_proj_gap updates
/// R ← G Pᵀ                                              left projector: Pᵀ G
/// D ← direction of the rule for R
/// S ← G · ‖D‖ / ‖R‖                                     per channel, or for the tensor
/// S ← S / max(1, ‖S‖ / (1.01 ‖S of the last update‖))   unless disable_nl
/// p ← p moved along √scale · S
/// ```
///
/// # Order of operations
/// ```text
/// f ← ‖D‖ / (‖R‖ + 10⁻⁸)
/// S ← G · f                      scale_front: (G · f) · √scale
/// l ← max(‖S‖ / (s + 10⁻⁸), 1.01) / 1.01
/// S ← S / l, s ← ‖S‖ / l         the first update: s ← ‖S‖
/// p along S · √scale             scale_front: along S
/// ```
/// each operation rounded to the compute type.
///
/// # Source
/// Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", 2024; the limiter is that of Fira (Chen et al., 2024).
/// Reference: `apollo_torch.APOLLOAdamW`. Its random projectors are drawn as by PyTorch on a CPU
/// ([`crate::lowrank::Mt19937`]); a parameter's first seed is its position in the optimizer, from 1.
///
/// # Hyper-parameters
/// | field | range | default |
/// | --- | --- | --- |
/// | `rank` | any (random projectors even beyond the matrix's dimensions), or none: nothing is projected | none |
/// | `update_proj_gap` | ≥ 1 | 200 |
/// | `scale` | any | 1 |
/// | `proj_type` | as [GaLore](crate::lowrank::GaLore)'s; `full` with `svd` only | `std` |
/// | `proj` | `random`, `svd`; not in the reference: [`signs`](crate::lowrank::rademacher) | `random` |
/// | `scale_type` | `channel`, `tensor` | `channel` |
/// | `scale_front` | | false |
/// | `disable_nl` | | false |
///
/// # State
/// That of [GaLore](crate::lowrank::GaLore), and two scalars: `seed`, and `scaled_grad`, the norm of the last S.
///
/// # Errors
/// In a group with a rank, a parameter that does not have two dimensions; as in the reference, with
/// [`ScaleType::Channel`], a projection with another number of channels than the matrix (and than 1).
///
/// # Non-finite input
/// A NaN in the gradient makes the norm, and so the whole parameter, NaN. A gradient of zeros leaves a norm of 0, which
/// limits the updates after it to nearly 0.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
///
/// let args = Args::parse("lr=0.5, eps=0, rank=1, scale=4")?;
/// let mut optimizer = Optimizer::new(registry::optimizer("apollo_adamw", &args)?)?;
/// let weight = optimizer.add_param(&[2, 1], Dtype::F32)?;
/// // AdamW's first direction is ±1: whatever x was drawn, the scales are 1 / |3x| and 1 / |6x|.
/// let (mut p, g) = ([0.0f32; 2], [3.0f32, -6.0]);
/// optimizer.step([(weight, DataMut::F32(&mut p), Data::F32(&g))])?;
/// assert!(p[0] < 0.0 && (p[0] + p[1]).abs() < 1e-5);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Apollo {
    /// The elements that share one scale.
    pub scale_type: ScaleType,
    /// Whether √scale is applied before the norm is limited, rather than after.
    pub scale_front: bool,
    /// Whether to disable the limit on the growth of the norm.
    pub disable_nl: bool,
    /// Whether every parameter has an optimizer of its own, so that all start with seed 1.
    pub layerwise: bool,
}

/// The channels of a projection, each with one factor: element i of channel c is at index `c · start + i · stride`.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    /// The number of channels.
    pub count: usize,
    /// Elements per channel.
    pub len: usize,
    /// The distance from one channel to the next.
    pub start: usize,
    /// The distance from one element to the next.
    pub stride: usize,
    /// Whether channels are columns of the matrix, rather than rows.
    pub by_column: bool,
}

// The steps of the update, for backends with their own loops.
impl Apollo {
    /// Whether √scale is applied before the limiter.
    #[must_use]
    pub const fn scale_first(&self) -> bool {
        self.scale_front
    }

    /// Whether the growth of the norm is limited.
    #[must_use]
    pub const fn limits_growth(&self) -> bool {
        !self.disable_nl
    }

    /// The channels of a projection.
    #[must_use]
    pub fn factors(&self, plan: &ProjectionShape) -> Channels {
        let [low_rows, low_cols] = plan.low_rank_shape();
        let (count, by_column) = match self.scale_type {
            ScaleType::Channel => Self::channels(plan),
            ScaleType::Tensor => (1, false),
        };
        let len = match (self.scale_type, by_column) {
            (ScaleType::Tensor, _) => low_rows.saturating_mul(low_cols),
            (ScaleType::Channel, true) => low_rows,
            (ScaleType::Channel, false) => low_cols,
        };
        let (start, stride) = if by_column { (1, low_cols) } else { (len, 1) };
        Channels { count, len, start, stride, by_column }
    }

    /// The factor of a channel, from the sums of squares of its direction and its projected gradient. `single`: the
    /// channel has one element.
    #[inline(always)]
    pub fn factor<C: ComputeFloat>(direction: C::Scalar, projected: C::Scalar, single: bool) -> C {
        let [of_direction, of_projected] =
            [direction, projected].map(|x| C::round_from(reduce::root(x, single)));
        of_direction / of_projected.add_scalar(C::scalar(1e-8))
    }

    /// The limiter, and the norm to store for the next update: from the sum of squares of the scaled gradient and, after
    /// the first update, the stored norm.
    #[inline(always)]
    pub fn limiter<C: ComputeFloat>(
        squares: C::Scalar,
        single: bool,
        before: Option<f64>,
    ) -> (C, C) {
        let length = C::round_from(reduce::root(squares, single));
        let Some(before) = before else { return (C::ONE, length) };
        let growth = length / C::from_f64(before).add_scalar(C::scalar(1e-8));
        // Python's max(growth, 1.01), which keeps a NaN.
        let grows = growth >= C::round_from(C::scalar(1.01)) || growth.is_nan();
        let limiter = if grows { growth.div_scalar(C::scalar(1.01)) } else { C::ONE };
        (limiter, length / limiter)
    }

    /// A scaled element of the gradient; with a limiter, an element of the direction.
    #[inline(always)]
    pub fn scaled<C: ComputeFloat>(
        g: C,
        factor: C,
        root: C::Scalar,
        front: bool,
        by: Option<C>,
    ) -> C {
        let scaled = g * factor;
        let scaled = if front { scaled.mul_scalar(root) } else { scaled };
        match by {
            None => scaled,
            Some(limiter) if front => scaled / limiter,
            Some(limiter) => (scaled / limiter).mul_scalar(root),
        }
    }
}

impl Apollo {
    /// The number of channels of the projection, and whether they are columns.
    fn channels(plan: &ProjectionShape) -> (usize, bool) {
        let [rows, cols] = plan.low_rank_shape();
        if plan.rows < plan.cols { (cols, true) } else { (rows, false) }
    }
}

impl ProjectionMethod for Apollo {
    const ID: &'static str = "apollo";
    const SCALAR_NAMES: &'static [&'static str] = &["seed", "scaled_grad"];

    fn projection() -> Projection {
        Projection::new(None, ProjectorKind::Random, 1.0)
    }

    fn fields(&mut self, projection: &mut Projection, f: &mut dyn FieldVisitor) {
        let table = [
            ("random", ProjectorKind::Random),
            ("svd", ProjectorKind::Svd),
            ("signs", ProjectorKind::Rademacher),
        ];
        f.choice("proj", &mut projection.proj, &table);
        let table = [("channel", ScaleType::Channel), ("tensor", ScaleType::Tensor)];
        f.choice("scale_type", &mut self.scale_type, &table);
        f.bool("scale_front", &mut self.scale_front);
        f.bool("disable_nl", &mut self.disable_nl);
    }

    fn start_scalars(&self, projected: bool) -> usize {
        if projected && !self.disable_nl { 2 } else { 1 }
    }

    fn start(&self, index: usize, scalars: &mut [f64]) {
        if let Some(seed) = scalars.first_mut() {
            *seed = if self.layerwise { 1.0 } else { index as f64 + 1.0 };
        }
    }

    fn seed(scalars: &[f64]) -> u64 {
        scalars.first().map_or(0, |&seed| seed as u64)
    }

    fn extra_scratch(&self, plan: &ProjectionShape) -> usize {
        self.factors(plan).count
    }

    fn check_plan(&self, _: &Projection, plan: &ProjectionShape) -> Result<(), Error> {
        let (count, by_column) = Self::channels(plan);
        let expected = if by_column { plan.cols } else { plan.rows };
        if self.scale_type == ScaleType::Channel && count != expected && count != 1 {
            return Err(Error::InvalidArgument {
                argument: "scale_type",
                expected: "tensor, where the channels are projected",
            });
        }
        Ok(())
    }

    fn apply<R: SplitRule, L: LinearAlgebra, C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        projection: &Projection,
        step: &StepContext,
        k: &R::Coefs<C>,
        update: ProjectedUpdate<'_, C::Scalar>,
        param: &mut DataMut<'_>,
        scalars: &mut [f64],
    ) {
        let ProjectedUpdate { plan, projected, direction, against, grad, spare, .. } = update;

        let Channels { count, len, start, stride, by_column } = self.factors(&plan);
        let factors = spare.get_mut(..count).unwrap_or_default();
        for (channel, factor) in factors.iter_mut().enumerate() {
            let of = |x: &[C::Scalar]| {
                let at = |i| x.get(channel * start + i * stride).map_or(C::Scalar::ZERO, |&x| x);
                reduce::sum(len, |i| reduce::square(at(i), len == 1))
            };
            let length = Self::factor::<C>(of(direction), of(projected), len == 1);
            *factor = if against { -length } else { length }.widen();
        }

        let root = C::scalar(projection.sqrt_scale());
        let (front, cols) = (self.scale_front, plan.cols);
        let scaled = Scaled::<C> { grad, factors, cols, by_column, root, front, limiter: None };
        let mut limiter = C::ONE;
        if !self.disable_nl {
            let squares = simd::dispatch_in::<C, C, _>(Squares(&scaled));
            if let Some(stored) = scalars.get_mut(1) {
                let last;
                let before = (!step.is_first).then_some(*stored);
                (limiter, last) = Self::limiter::<C>(squares, grad.len() == 1, before);
                *stored = last.to_f64();
            }
        }
        let limited = Scaled { limiter: Some(limiter), ..scaled };
        super::projected::apply_directions::<R, C>(k, param, 0..grad.len(), &limited);
    }
}

/// The scaled gradient; with a limiter, the direction.
struct Scaled<'a, C: ComputeFloat> {
    grad: &'a [C::Scalar],
    /// One factor for all, or one per row or column.
    factors: &'a [C::Scalar],
    cols: usize,
    by_column: bool,
    root: C::Scalar,
    front: bool,
    limiter: Option<C>,
}

impl<C: ComputeFloat> Scaled<'_, C> {
    #[inline(always)]
    fn element(&self, g: C::Scalar, factor: C) -> C {
        Apollo::scaled(C::round_from(g), factor, self.root, self.front, self.limiter)
    }
}

impl<C: ComputeFloat> DirectionSource<C> for Scaled<'_, C> {
    #[inline(always)]
    fn fill(&self, mut start: usize, mut out: &mut [C]) {
        let cols = self.cols.max(1);
        // Row by row; the first and the last row may be partial.
        while !out.is_empty() {
            let (row, col) = (start / cols, start % cols);
            let (now, later) = out.split_at_mut((cols - col).min(out.len()));
            let grad = self.grad.get(start..).unwrap_or_default();
            let factors = self.factors.get(col..).unwrap_or_default();
            if self.by_column && self.factors.len() > 1 {
                for ((to, g), factor) in now.iter_mut().zip(grad).zip(factors) {
                    *to = self.element(*g, C::round_from(*factor));
                }
            } else {
                let factor = self.factors.get(row).or(self.factors.first());
                let factor = C::round_from(factor.copied().unwrap_or(C::Scalar::ZERO));
                for (to, g) in now.iter_mut().zip(grad) {
                    *to = self.element(*g, factor);
                }
            }
            start += now.len();
            out = later;
        }
    }
}

/// The sum of the squares of the scaled gradient.
struct Squares<'a, C: ComputeFloat>(&'a Scaled<'a, C>);

impl<C: ComputeFloat> Kernel for Squares<'_, C> {
    type Output = C::Scalar;

    #[inline(always)]
    fn run(self) -> C::Scalar {
        let [sum] = reduce::sums_by_chunk(self.0.grad.len(), self);
        sum
    }
}

impl<C: ComputeFloat> TermSource<C::Scalar, 1> for Squares<'_, C> {
    #[inline(always)]
    fn fill(&mut self, start: usize, [terms]: [&mut [C::Scalar]; 1]) {
        let mut buffer = [C::ZERO; CHUNK];
        let scaled = buffer.get_mut(..terms.len()).unwrap_or_default();
        self.0.fill(start, scaled);
        for (to, x) in terms.iter_mut().zip(scaled) {
            *to = reduce::square(x.widen(), self.0.grad.len() == 1);
        }
    }
}
