//! Rules that follow the orthogonal matrix nearest to their momentum, pass by pass: for backends
//! that make loops of their own.

use crate::float::ComputeFloat;
use crate::rule::DynRule;
use crate::rule::StepContext;

/// Between these passes stand products of matrices ([`crate::math::matmul`]) and one sum
/// ([`crate::math::reduce`]). X is the momentum as a wide matrix: of a tall one, transposed.
///
/// ```text
/// X, m ← momentum(m, g)
/// X ← divided(X, norm(Σ X²))
/// rounds times:  G ← gram(X Xᵀ);  B ← polynomial(G, G G);  X ← next(X, B X)
/// p ← element(p, X)
/// ```
pub trait NewtonSchulz: DynRule + Copy {
    /// The step's constants.
    type Coefs<C: ComputeFloat>: Copy + Send + Sync;

    /// How many rounds.
    fn iterations(&self) -> u64;
    /// The constants for a matrix of that many rows and columns.
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, shape: [usize; 2]) -> Self::Coefs<C>;
    /// An element of the momentum, and of X.
    fn momentum<C: ComputeFloat>(k: &Self::Coefs<C>, m: C, g: C) -> (C, C::Scalar);
    /// What X is divided by.
    fn norm<C: ComputeFloat>(k: &Self::Coefs<C>, squares: C::Scalar) -> C::Scalar;
    /// An element of X, divided.
    fn normalize<C: ComputeFloat>(x: C::Scalar, norm: C::Scalar) -> C::Scalar;
    /// An element of G.
    fn gram<C: ComputeFloat>(product: C::Scalar) -> C::Scalar;
    /// An element of B.
    fn polynomial<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        gram: C::Scalar,
        square: C::Scalar,
    ) -> C::Scalar;
    /// An element of the next X.
    fn next<C: ComputeFloat>(k: &Self::Coefs<C>, x: C::Scalar, product: C::Scalar) -> C::Scalar;
    /// An element of the parameter.
    fn update<C: ComputeFloat>(k: &Self::Coefs<C>, p: C, x: C::Scalar) -> C;
}

/// Where elements of a matrix stand in the wide one.
#[derive(Clone, Copy, Debug)]
pub struct WideIndex {
    cols: usize,
    long: usize,
    tall: bool,
}

impl WideIndex {
    /// For a matrix of that many rows and columns.
    #[must_use]
    pub const fn new([rows, cols]: [usize; 2]) -> Self {
        WideIndex { cols, long: if rows > cols { rows } else { cols }, tall: rows > cols }
    }

    /// Where element i, row by row, stands.
    #[must_use]
    #[inline(always)]
    pub const fn of(self, i: usize) -> usize {
        if self.tall && self.cols > 0 { i % self.cols * self.long + i / self.cols } else { i }
    }
}
