//! The one order in which matrices are multiplied.
//!
//! An element of a product is a sum over the inner dimension: in blocks of
//! [`DEPTH`], each added in turn from +0; the blocks' sums in turn. No sum is
//! split any other way, so tiles, vectors and threads can't change a result.

use crate::real::Real;
use crate::simd::{self, Kernel};

/// How many products are added up before they join the sum.
pub const DEPTH: usize = 256;
/// A tile of the result: its accumulators stay in registers.
const ROWS: usize = 4;
const COLS: usize = 16;

/// A matrix in a slice: element (i, j) stands at `i · strides.0 + j · strides.1`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, A> {
    /// Where the elements stand.
    pub data: &'a [A],
    /// From one row, and from one column, to the next.
    pub strides: (usize, usize),
}

impl<'a, A: Real> View<'a, A> {
    /// Rows of `cols` elements, one after the other.
    #[must_use]
    pub const fn new(data: &'a [A], cols: usize) -> Self {
        View { data, strides: (cols, 1) }
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub const fn transposed(self) -> Self {
        View { data: self.data, strides: (self.strides.1, self.strides.0) }
    }

    /// Element (i, j); 0 beyond the end.
    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> A {
        self.data.get(i * self.strides.0 + j * self.strides.1).copied().unwrap_or(A::ZERO)
    }
}

/// `out` (rows × cols, row after row) = `a` (rows × depth) · `b` (depth × cols).
/// Does nothing if `out` has another length.
///
/// ```
/// use bitstep::matmul::{View, product};
/// let (a, b) = ([1.0f32, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let mut out = [0.0; 4];
/// product([2, 2, 2], View::new(&a, 2), View::new(&b, 2).transposed(), &mut out);
/// assert_eq!(out, [17.0, 23.0, 39.0, 53.0]);
/// ```
pub fn product<A: Real<Scalar = A>>(
    [rows, depth, cols]: [usize; 3],
    a: View<'_, A>,
    b: View<'_, A>,
    out: &mut [A],
) {
    if out.len() == rows.saturating_mul(cols) {
        simd::dispatch(Product { rows, depth, cols, a, b, out });
    }
}

struct Product<'a, A> {
    rows: usize,
    depth: usize,
    cols: usize,
    a: View<'a, A>,
    b: View<'a, A>,
    out: &'a mut [A],
}

impl<A: Real<Scalar = A>> Kernel for Product<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Product { rows, depth, cols, a, b, out } = self;
        out.fill(A::ZERO);
        let mut panel = [[A::ZERO; COLS]; DEPTH];
        for j in (0..cols).step_by(COLS) {
            let width = (cols - j).min(COLS);
            for k in (0..depth).step_by(DEPTH) {
                let len = (depth - k).min(DEPTH);
                for (kk, row) in panel.iter_mut().enumerate().take(len) {
                    for (jj, x) in row.iter_mut().enumerate().take(width) {
                        *x = b.at(k + kk, j + jj);
                    }
                }
                for i in (0..rows).step_by(ROWS) {
                    let height = (rows - i).min(ROWS);
                    let mut tile = [[A::ZERO; COLS]; ROWS];
                    for (kk, row) in panel.iter().enumerate().take(len) {
                        for (ii, sums) in tile.iter_mut().enumerate() {
                            let x = a.at((i + ii).min(rows - 1), k + kk);
                            for (sum, y) in sums.iter_mut().zip(row) {
                                *sum = *sum + x * *y;
                            }
                        }
                    }
                    for (ii, sums) in tile.iter().enumerate().take(height) {
                        let start = (i + ii) * cols + j;
                        let to = out.get_mut(start..start + width).unwrap_or_default();
                        for (to, sum) in to.iter_mut().zip(sums) {
                            *to = *to + *sum;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn product_of_any_size_follows_the_definition() {
        let numbers = |n: usize, f: f32| -> Vec<f32> {
            (0..n).map(|i| libm::sinf(i as f32 * f) * libm::expf((i % 9) as f32)).collect()
        };
        for [m, k, n] in [[1, 1, 1], [3, 5, 2], [4, 16, 16], [5, 257, 17], [9, 600, 33], [2, 0, 3]]
        {
            let (a, b) = (numbers(m * k, 1.3), numbers(k * n, 0.7));
            let mut out = std::vec![f32::NAN; m * n];
            product([m, k, n], View::new(&a, k), View::new(&b, n), &mut out);
            for i in 0..m {
                for j in 0..n {
                    let mut sum = 0.0f32;
                    for block in (0..k).collect::<Vec<_>>().chunks(DEPTH) {
                        sum += block.iter().fold(0.0, |s, &l| s + a[i * k + l] * b[l * n + j]);
                    }
                    assert_eq!(out[i * n + j].to_bits(), sum.to_bits(), "{m} {k} {n}");
                }
            }
        }
    }
}
