//! Rules that replace a matrix of momenta by an approximation of the nearest orthogonal matrix (Muon), kernel by
//! kernel: for backends with their own loops.

use crate::float::ComputeFloat;
use crate::rule::DynRule;
use crate::rule::StepContext;

/// An update by Newton–Schulz iteration. The methods are its elementwise steps; between them are matrix products
/// ([`crate::math::matmul`]) and one sum ([`crate::math::reduce`]). X is the momentum as a wide matrix; that of a tall
/// parameter is transposed ([`WideIndex`]). Here m is the momentum and g the gradient; G is
/// the Gram matrix of X and B a polynomial of G, both computed anew in each iteration.
///
/// ```text
/// m, X ← momentum(m, g)
/// X ← normalize(X, norm(Σ X²))
/// iterations times:  G ← gram(X Xᵀ);  B ← polynomial(G, G G);  X ← next(X, B X)
/// p ← update(p, X)
/// ```
pub trait NewtonSchulz: DynRule + Copy {
    /// The step's constants.
    type Coefs<C: ComputeFloat>: Copy + Send + Sync;

    /// The number of iterations.
    fn iterations(&self) -> u64;
    /// The step's constants for a matrix of `[rows, columns]`.
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, shape: [usize; 2]) -> Self::Coefs<C>;
    /// The new momentum, and X before it is normalized.
    fn momentum<C: ComputeFloat>(k: &Self::Coefs<C>, m: C, g: C) -> (C, C::Scalar);
    /// The divisor of X, from the sum of its squares.
    fn norm<C: ComputeFloat>(k: &Self::Coefs<C>, squares: C::Scalar) -> C::Scalar;
    /// An element of X divided by the norm.
    fn normalize<C: ComputeFloat>(x: C::Scalar, norm: C::Scalar) -> C::Scalar;
    /// An element of G, from that of X Xᵀ.
    fn gram<C: ComputeFloat>(product: C::Scalar) -> C::Scalar;
    /// An element of B, from those of G and G G.
    fn polynomial<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        gram: C::Scalar,
        square: C::Scalar,
    ) -> C::Scalar;
    /// An element of the next X, from those of X and B X.
    fn next<C: ComputeFloat>(k: &Self::Coefs<C>, x: C::Scalar, product: C::Scalar) -> C::Scalar;
    /// The new parameter.
    fn update<C: ComputeFloat>(k: &Self::Coefs<C>, p: C, x: C::Scalar) -> C;
}

/// Maps the elements of a row-major matrix to their places in the wide matrix: its transpose if it is tall.
#[derive(Clone, Copy, Debug)]
pub struct WideIndex {
    cols: usize,
    long: usize,
    tall: bool,
}

impl WideIndex {
    /// For a matrix of `[rows, columns]`.
    #[must_use]
    pub const fn new([rows, cols]: [usize; 2]) -> Self {
        WideIndex { cols, long: if rows > cols { rows } else { cols }, tall: rows > cols }
    }

    /// The index in the wide matrix of element i of the row-major matrix.
    #[must_use]
    #[inline(always)]
    pub const fn of(self, i: usize) -> usize {
        if self.tall && self.cols > 0 { i % self.cols * self.long + i / self.cols } else { i }
    }
}
