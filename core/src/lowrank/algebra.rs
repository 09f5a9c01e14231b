//! [`LinearAlgebra`]: the source of matrix products and singular vectors.

use crate::float::ComputeFloat;
use crate::math::matmul::{self, MatrixView};
use crate::math::svd;
use crate::storage::Plain;

/// The matrix products and singular vectors of low-rank training, for an implementation by a vendor's library.
///
/// An implementation tells `f32` from `f64` by [`Plain::data`].
pub trait LinearAlgebra:
    Copy + PartialEq + core::fmt::Debug + Default + Send + Sync + 'static
{
    /// `out` (rows × cols) = `a` (rows × depth) · `b` (depth × cols).
    fn matmul<A: ComputeFloat<Scalar = A> + Plain>(
        dims: [usize; 3],
        a: MatrixView<'_, A>,
        b: MatrixView<'_, A>,
        out: &mut [A],
    );

    /// `out` (rows × rows) = `a` (rows × depth) · `a`ᵀ.
    fn gram<A: ComputeFloat<Scalar = A> + Plain>(
        [rows, depth]: [usize; 2],
        a: MatrixView<'_, A>,
        out: &mut [A],
    ) {
        Self::matmul([rows, depth, rows], a, a.transposed(), out);
    }

    /// The singular vectors of the largest singular values of a row-major matrix of `rows` ≤ `cols`, each as a row, with
    /// either sign: the left ones (`rows` elements each) into `short`, the right ones (`cols` elements) into `long`, as
    /// many as fit. The matrix may be overwritten; `scratch` has [`LinearAlgebra::scratch`] elements.
    fn truncated_svd<A: ComputeFloat<Scalar = A> + Plain>(
        dims: [usize; 2],
        matrix: &mut [A],
        short: &mut [A],
        long: &mut [A],
        scratch: &mut [A],
    );

    /// The elements of scratch memory for the singular vectors of a matrix whose short side is `rows`.
    #[must_use]
    fn scratch(rows: usize) -> usize {
        svd::scratch(rows)
    }
}

/// The implementation in this crate, with the same bits on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortableLinearAlgebra;

impl LinearAlgebra for PortableLinearAlgebra {
    fn matmul<A: ComputeFloat<Scalar = A> + Plain>(
        dims: [usize; 3],
        a: MatrixView<'_, A>,
        b: MatrixView<'_, A>,
        out: &mut [A],
    ) {
        matmul::matmul(dims, a, b, out);
    }

    fn gram<A: ComputeFloat<Scalar = A> + Plain>(
        dims: [usize; 2],
        a: MatrixView<'_, A>,
        out: &mut [A],
    ) {
        matmul::gram(dims, a, out);
    }

    fn truncated_svd<A: ComputeFloat<Scalar = A> + Plain>(
        dims: [usize; 2],
        matrix: &mut [A],
        short: &mut [A],
        long: &mut [A],
        scratch: &mut [A],
    ) {
        svd::vectors(dims, matrix, short, long, scratch);
    }
}
