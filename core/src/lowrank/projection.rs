//! How matrices are projected.

use crate::error::{Error, ensure_range};
use crate::hyper::FieldVisitor;

/// Which sides of a matrix are projected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProjType {
    /// The short side: tall and square matrices from the right, wide ones from the left.
    #[default]
    Std,
    /// The long side.
    ReverseStd,
    /// The right.
    Right,
    /// The left.
    Left,
    /// Both.
    Full,
}

/// Where projectors come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProjectorKind {
    /// Singular vectors of the gradient.
    #[default]
    Svd,
    /// Normal numbers over √rank, drawn as `torch.randn` draws them.
    Random,
    /// Random [signs](crate::lowrank::rademacher) over √rank: no reference's numbers, but cheap, and without memory.
    Rademacher,
}

/// A projected side, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// P (r × n): G Pᵀ.
    Right,
    /// P (m × r): Pᵀ G.
    Left,
    /// P₀ (m × r) and P₁ (r × n): P₀ᵀ G P₁ᵀ.
    Both,
}

/// How the matrices of a group are projected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Projection {
    /// The dimension of the space; without, nothing is projected.
    pub rank: Option<u64>,
    /// After so many updates of a parameter its projector is renewed.
    pub update_proj_gap: u64,
    /// How much of the update is taken.
    pub scale: f64,
    /// Which side is projected.
    pub proj_type: ProjType,
    /// Where the projector comes from.
    pub proj: ProjectorKind,
}

impl Projection {
    /// Whether anything is projected.
    #[doc(hidden)]
    #[must_use]
    pub const fn projects(&self) -> bool {
        self.rank.is_some()
    }

    /// √scale, for [`Apollo`](super::Apollo) and the devices that are told of it.
    #[doc(hidden)]
    #[must_use]
    pub fn sqrt_scale(&self) -> f64 {
        libm::sqrt(self.scale)
    }

    /// Of rank r, renewed every 200 updates.
    #[must_use]
    pub const fn new(rank: Option<u64>, proj: ProjectorKind, scale: f64) -> Self {
        Projection { rank, update_proj_gap: 200, scale, proj_type: ProjType::Std, proj }
    }

    pub(crate) fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.opt_u64("rank", &mut self.rank);
        f.u64("update_proj_gap", &mut self.update_proj_gap);
        f.f64("scale", &mut self.scale);
        let table = [
            ("std", ProjType::Std),
            ("reverse_std", ProjType::ReverseStd),
            ("right", ProjType::Right),
            ("left", ProjType::Left),
            ("full", ProjType::Full),
        ];
        f.choice("proj_type", &mut self.proj_type, &table);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let gap = self.update_proj_gap;
        ensure_range(gap > 0 || self.rank.is_none(), "update_proj_gap", gap as f64, ">= 1")?;
        if self.proj != ProjectorKind::Svd && self.proj_type == ProjType::Full {
            return Err(Error::InvalidArgument {
                argument: "proj_type",
                expected: "one side, if at random",
            });
        }
        Ok(())
    }

    /// What becomes of a matrix of this shape; `None` if it is none, or if nothing is projected.
    #[must_use]
    pub fn shape_of(&self, shape: &[usize]) -> Option<ProjectionShape> {
        let (&[rows, cols], Some(rank)) = (shape, self.rank) else { return None };
        let tall = rows >= cols;
        let side = match self.proj_type {
            ProjType::Std if tall => Side::Right,
            ProjType::Std => Side::Left,
            ProjType::ReverseStd if tall => Side::Left,
            ProjType::ReverseStd => Side::Right,
            ProjType::Right => Side::Right,
            ProjType::Left => Side::Left,
            ProjType::Full => Side::Both,
        };
        let rank = usize::try_from(rank).unwrap_or(usize::MAX);
        let rank = match self.proj {
            ProjectorKind::Svd => rank.min(rows).min(cols),
            ProjectorKind::Random | ProjectorKind::Rademacher => rank,
        };
        Some(ProjectionShape { rows, cols, side, rank })
    }
}

/// What becomes of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectionShape {
    /// Rows of the matrix.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
    /// What is projected.
    pub side: Side,
    /// The dimension of the space.
    pub rank: usize,
}

impl ProjectionShape {
    /// The dimension of the space.
    #[doc(hidden)]
    #[must_use]
    pub const fn intermediate_len(&self) -> usize {
        self.rank
    }

    /// The dimensions of the projection.
    #[must_use]
    pub const fn low_rank_shape(&self) -> [usize; 2] {
        match self.side {
            Side::Right => [self.rows, self.rank],
            Side::Left => [self.rank, self.cols],
            Side::Both => [self.rank, self.rank],
        }
    }

    /// The dimensions of the projectors: `projector`, `projector_0` and `projector_1`.
    #[must_use]
    pub const fn projector_lens(&self) -> [Option<[usize; 2]>; 3] {
        let (left, right) = ([self.rows, self.rank], [self.rank, self.cols]);
        match self.side {
            Side::Right => [Some(right), None, None],
            Side::Left => [Some(left), None, None],
            Side::Both => [None, Some(left), Some(right)],
        }
    }

    /// The numbers of what stands between two products on the way back.
    pub(crate) const fn between(&self) -> usize {
        match self.side {
            Side::Both => self.rows.saturating_mul(self.rank),
            Side::Right | Side::Left => 0,
        }
    }

    /// The numbers of the left projector and of the right one.
    pub(crate) const fn sizes(&self) -> [usize; 2] {
        let left = self.rows.saturating_mul(self.rank);
        let right = self.rank.saturating_mul(self.cols);
        match self.side {
            Side::Right => [0, right],
            Side::Left => [left, 0],
            Side::Both => [left, right],
        }
    }
}
