//! [`Projection`]: how matrices are projected, and the shapes that result.

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
    /// The right side.
    Right,
    /// The left side.
    Left,
    /// Both sides.
    Full,
}

/// How projectors are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProjectorKind {
    /// The top singular vectors of the gradient.
    #[default]
    Svd,
    /// Normal values over √rank, as `torch.randn` draws them.
    Random,
    /// Random [signs](crate::lowrank::rademacher) over √rank. Not in any reference; cheap, and reproducible from the seed.
    Rademacher,
}

/// The projected side of a matrix G (m × n), with the projector P and the projection, for rank r.
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
    /// The rank of the projection; `None`: nothing is projected.
    pub rank: Option<u64>,
    /// The number of a parameter's updates between two refreshes of its projector.
    pub update_proj_gap: u64,
    /// The factor of the update.
    pub scale: f64,
    /// Which side is projected.
    pub proj_type: ProjType,
    /// How the projector is made.
    pub proj: ProjectorKind,
}

impl Projection {
    /// Whether anything is projected.
    #[must_use]
    pub const fn projects(&self) -> bool {
        self.rank.is_some()
    }

    /// √scale, for [`Apollo`](super::Apollo) here and on devices.
    #[must_use]
    pub fn sqrt_scale(&self) -> f64 {
        libm::sqrt(self.scale)
    }

    /// A projection of the short side, refreshed every 200 updates.
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

    /// How a parameter of this shape is projected; `None` if it is not a matrix, or if nothing is projected.
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

/// How one matrix is projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectionShape {
    /// Rows of the matrix.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
    /// The projected side.
    pub side: Side,
    /// The rank of the projection.
    pub rank: usize,
}

impl ProjectionShape {
    /// The rank of the projection.
    #[must_use]
    pub const fn intermediate_len(&self) -> usize {
        self.rank
    }

    /// The dimensions of the projected gradient.
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

    /// The elements of the intermediate product, rows × rank, when both sides are projected back.
    pub(crate) const fn between(&self) -> usize {
        match self.side {
            Side::Both => self.rows.saturating_mul(self.rank),
            Side::Right | Side::Left => 0,
        }
    }

    /// The elements of the left and of the right projector.
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
