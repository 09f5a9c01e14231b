//! Matrix products with a fixed order of summation.
//!
//! An element of a product is a sum over the inner dimension: the products of a block of [`K_BLOCK`] are added one after
//! the other, from +0; then the sums of the blocks, one after the other. No sum is split in any other way, so tiles,
//! vectors and threads can't change a result: lanes of a vector are different elements of the product.
//!
//! The loops are those of Goto and van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008): panels of
//! one factor and a strip of the other are packed into contiguous memory, and a microkernel keeps a tile of the product
//! in registers.

use core::ops::Range;

use crate::arch::simd::{self, Kernel};
use crate::float::ComputeFloat;

/// The number of products in a block of the inner dimension.
pub const K_BLOCK: usize = 256;
/// Rows and columns of a tile of the product, whose accumulators stay in registers.
const ROWS: usize = 6;
const COLS: usize = 16;
/// Packed panels of `COLS` columns on the stack: each strip of rows is packed once for all of them. Small devices have
/// small stacks.
const PANELS: usize = if cfg!(feature = "std") { 8 } else { 1 };

/// A matrix in a slice: element (i, j) is at index `i · strides.0 + j · strides.1`.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a, A> {
    /// The elements.
    pub data: &'a [A],
    /// The distance, in elements, from one row to the next, and from one column to the next.
    pub strides: (usize, usize),
}

impl<'a, A: ComputeFloat> MatrixView<'a, A> {
    /// A row-major matrix with rows of `cols` elements.
    #[must_use]
    pub const fn new(data: &'a [A], cols: usize) -> Self {
        MatrixView { data, strides: (cols, 1) }
    }

    /// The transposed matrix.
    #[must_use]
    pub const fn transposed(self) -> Self {
        MatrixView { data: self.data, strides: (self.strides.1, self.strides.0) }
    }

    /// Element (i, j); 0 beyond the end of the slice.
    #[inline(always)]
    fn at(&self, i: usize, j: usize) -> A {
        self.data.get(i * self.strides.0 + j * self.strides.1).copied().unwrap_or(A::ZERO)
    }
}

/// `out` (rows × cols, row-major) = `a` (rows × depth) · `b` (depth × cols).
/// Does nothing if `out` has another length.
///
/// ```
/// use bitstep::math::matmul::{MatrixView, matmul};
/// let (a, b) = ([1.0f32, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let mut out = [0.0; 4];
/// matmul([2, 2, 2], MatrixView::new(&a, 2), MatrixView::new(&b, 2).transposed(), &mut out);
/// assert_eq!(out, [17.0, 23.0, 39.0, 53.0]);
/// ```
pub fn matmul<A: ComputeFloat<Scalar = A>>(
    [rows, depth, cols]: [usize; 3],
    a: MatrixView<'_, A>,
    b: MatrixView<'_, A>,
    out: &mut [A],
) {
    // A matrix without elements may have any number of rows.
    if !out.is_empty() && out.len() == rows.saturating_mul(cols) {
        run(Matmul { rows, depth, cols, a, b, symmetric: false, out });
    }
}

/// `out` (rows × rows) = `a` (rows × depth) · `a`ᵀ, with the bits of [`matmul`] in little more than half of its time:
/// elements (i, j) and (j, i) are sums of the same products in the same order, so one is computed and the other copied.
///
/// ```
/// use bitstep::math::matmul::{MatrixView, gram};
/// let (a, mut out) = ([1.0f32, 2.0, 3.0, 4.0], [0.0; 4]);
/// gram([2, 2], MatrixView::new(&a, 2), &mut out);
/// assert_eq!(out, [5.0, 11.0, 11.0, 25.0]);
/// ```
pub fn gram<A: ComputeFloat<Scalar = A>>(
    [rows, depth]: [usize; 2],
    a: MatrixView<'_, A>,
    out: &mut [A],
) {
    if !out.is_empty() && out.len() == rows.saturating_mul(rows) {
        let (cols, b) = (rows, a.transposed());
        run(Matmul { rows, depth, cols, a, b, symmetric: true, out });
    }
}

/// Elements of a product by the definition, for backends with their own loops: as many elements as `S` holds.
/// `add(block, k)` adds the products at index k of the inner dimension, `join(all, block)` the sums of a block.
#[inline(always)]
pub fn dot_in_order<S: Copy>(
    depth: usize,
    zero: S,
    add: impl Fn(S, usize) -> S,
    join: impl Fn(S, S) -> S,
) -> S {
    let mut all = zero;
    let mut k = 0;
    while k < depth {
        let end = if depth - k < K_BLOCK { depth } else { k + K_BLOCK };
        let mut block = zero;
        while k < end {
            block = add(block, k);
            k += 1;
        }
        all = join(all, block);
    }
    all
}

fn run<A: ComputeFloat<Scalar = A>>(product: Matmul<'_, A>) {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    let Some(product) = narrow::run(product) else { return };
    simd::dispatch(product);
}

struct Matmul<'a, A> {
    rows: usize,
    depth: usize,
    cols: usize,
    a: MatrixView<'a, A>,
    b: MatrixView<'a, A>,
    /// Whether the part above the diagonal is copied from the part below.
    symmetric: bool,
    out: &'a mut [A],
}

impl<A: ComputeFloat<Scalar = A>> Kernel for Matmul<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Matmul { rows, depth, cols, a, b, symmetric, out } = self;
        if depth == 0 {
            return out.fill(A::ZERO);
        }
        let (a, b) = (a.transposed(), b);
        let mut panels = [[[A::ZERO; COLS]; K_BLOCK]; PANELS];
        let mut strip = [[A::ZERO; ROWS]; K_BLOCK];
        for k in (0..depth).step_by(K_BLOCK) {
            let len = (depth - k).min(K_BLOCK);
            for from in (0..cols).step_by(COLS * PANELS) {
                let starts = (from..cols).step_by(COLS);
                if b.strides.1 == 1 {
                    pack_rows(b, k..k + len, from..cols.min(from + COLS * PANELS), &mut panels);
                } else {
                    for (panel, j) in panels.iter_mut().zip(starts.clone()) {
                        let panel = panel.get_mut(..len).unwrap_or_default();
                        pack(b, k, j, (cols - j).min(COLS), panel);
                    }
                }
                let first = if symmetric { from / ROWS * ROWS } else { 0 };
                for i in (first..rows).step_by(ROWS) {
                    let height = (rows - i).min(ROWS);
                    let strip = strip.get_mut(..len).unwrap_or_default();
                    pack(a, k, i, height, strip);
                    for (panel, j) in panels.iter().zip(starts.clone()) {
                        if symmetric && j >= i + height {
                            break; // above the diagonal, from here on
                        }
                        let sums = microkernel(strip, panel);
                        for (ii, sums) in sums.iter().enumerate().take(height) {
                            let start = (i + ii) * cols + j;
                            let end = start + (cols - j).min(COLS);
                            let to = out.get_mut(start..end).unwrap_or_default();
                            for (to, sum) in to.iter_mut().zip(sums) {
                                // A sum that starts from +0 is never -0, so adding the first block to +0 would not
                                // change it.
                                *to = if k == 0 { *sum } else { *to + *sum };
                            }
                        }
                    }
                }
            }
        }
        if symmetric {
            mirror(rows, out);
        }
    }
}

/// Products of `f32` matrices that hold bf16 numbers, two products at a time, with the same bits.
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod narrow {
    use core::any::TypeId;

    use super::{K_BLOCK, Matmul, MatrixView, mirror};
    use crate::arch::bf16::{self, COLS, PAIRS, ROWS};
    use crate::arch::simd::{self, Kernel};
    use crate::float::ComputeFloat;

    /// Packed panels on the stack.
    const PANELS: usize = 8;
    /// Below so many products the other loop is done before the numbers have been looked at.
    const LEAST: usize = 1 << 15;

    /// Computes the product, or gives it back where its numbers are others or the processor has no such instruction.
    pub(super) fn run<A: ComputeFloat<Scalar = A>>(
        product: Matmul<'_, A>,
    ) -> Option<Matmul<'_, A>> {
        let Matmul { rows, depth, cols, a, b, .. } = product;
        let is_large =
            rows.min(cols) >= ROWS && rows.saturating_mul(depth).saturating_mul(cols) >= LEAST;
        if is_large && bf16::is_available() && holds(a) && (product.symmetric || holds(b)) {
            simd::dispatch(Narrow(product));
            return None;
        }
        Some(product)
    }

    /// Whether the numbers are such that the instruction has the bits of single operations.
    fn holds<A: ComputeFloat>(view: MatrixView<'_, A>) -> bool {
        TypeId::of::<A>() == TypeId::of::<f32>() && bf16::are_narrow(view.data)
    }

    struct Narrow<'a, A>(Matmul<'a, A>);

    impl<A: ComputeFloat<Scalar = A>> Kernel for Narrow<'_, A> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            let Matmul { rows, depth, cols, a, b, symmetric, out } = self.0;
            let mut panels = [[[0; COLS]; PAIRS]; PANELS];
            let mut strip = [[0; PAIRS]; ROWS];
            let mut sums = [[0.0; COLS]; ROWS];
            for k in (0..depth).step_by(K_BLOCK) {
                let len = (depth - k).min(K_BLOCK);
                for from in (0..cols).step_by(COLS * PANELS) {
                    let starts = (from..cols).step_by(COLS);
                    for (panel, j) in panels.iter_mut().zip(starts.clone()) {
                        pack_panel(b, [k, len], [j, (cols - j).min(COLS)], panel);
                    }
                    let first = if symmetric { from / ROWS * ROWS } else { 0 };
                    for i in (first..rows).step_by(ROWS) {
                        let height = (rows - i).min(ROWS);
                        for (row, i) in strip.iter_mut().zip(i..i + height) {
                            pack_row(a, i, [k, len], row);
                        }
                        for (panel, j) in panels.iter().zip(starts.clone()) {
                            if symmetric && j >= i + height {
                                break; // above the diagonal, from here on
                            }
                            let panel = panel.get(..len.div_ceil(2)).unwrap_or_default();
                            bf16::tile(&strip, panel, &mut sums);
                            for (ii, sums) in sums.iter().enumerate().take(height) {
                                let start = (i + ii) * cols + j;
                                let end = start + (cols - j).min(COLS);
                                let to = out.get_mut(start..end).unwrap_or_default();
                                for (to, sum) in to.iter_mut().zip(sums) {
                                    let sum = A::from_exact(*sum);
                                    *to = if k == 0 { sum } else { *to + sum };
                                }
                            }
                        }
                    }
                }
            }
            if symmetric {
                mirror(rows, out);
            }
        }
    }

    /// Elements k to k + len of a row, as pairs. An odd one has a 0 beside it, whose product changes no sum.
    #[inline(always)]
    fn pack_row<A: ComputeFloat>(
        from: MatrixView<'_, A>,
        i: usize,
        [k, len]: [usize; 2],
        to: &mut [u32; PAIRS],
    ) {
        let (down, right) = from.strides;
        let start = i * down + k * right;
        if let (1, Some(row)) = (right, from.data.get(start..start + len)) {
            let (pairs, rest) = row.as_chunks();
            for (to, [x, y]) in to.iter_mut().zip(pairs) {
                *to = bf16::pair(x.to_f32(), y.to_f32());
            }
            if let (Some(to), Some(x)) = (to.get_mut(pairs.len()), rest.first()) {
                *to = bf16::pair(x.to_f32(), 0.0);
            }
            return;
        }
        for (to, kk) in to.iter_mut().zip((0..len).step_by(2)) {
            let second = if kk + 1 < len { from.at(i, k + kk + 1).to_f32() } else { 0.0 };
            *to = bf16::pair(from.at(i, k + kk).to_f32(), second);
        }
    }

    /// Columns of the panel: rows k to k + len of the matrix, as pairs of rows.
    #[inline(always)]
    fn pack_panel<A: ComputeFloat>(
        from: MatrixView<'_, A>,
        [k, len]: [usize; 2],
        [j, width]: [usize; 2],
        to: &mut [[u32; COLS]; PAIRS],
    ) {
        let (down, right) = from.strides;
        if right == 1 {
            let row = |kk: usize| {
                let start = (k + kk) * down + j;
                from.data.get(start..start + width).filter(|_| kk < len)
            };
            for (to, kk) in to.iter_mut().zip((0..len).step_by(2)) {
                let (first, second) = (row(kk).unwrap_or_default(), row(kk + 1));
                match second {
                    Some(second) => {
                        for ((to, x), y) in to.iter_mut().zip(first).zip(second) {
                            *to = bf16::pair(x.to_f32(), y.to_f32());
                        }
                    }
                    None => {
                        for (to, x) in to.iter_mut().zip(first) {
                            *to = bf16::pair(x.to_f32(), 0.0);
                        }
                    }
                }
            }
            return;
        }
        let transposed = from.transposed();
        let mut column = [0; PAIRS];
        for jj in 0..width {
            pack_row(transposed, j + jj, [k, len], &mut column);
            for (to, pair) in to.iter_mut().zip(column).take(len.div_ceil(2)) {
                if let Some(to) = to.get_mut(jj) {
                    *to = pair;
                }
            }
        }
    }
}

/// Copies the part below the diagonal above it, square by square: rows may be pages apart, so each part of one is read
/// and written as a whole.
#[inline(always)]
fn mirror<A: ComputeFloat>(n: usize, out: &mut [A]) {
    const SIDE: usize = 16;
    let mut square = [[A::ZERO; SIDE]; SIDE];
    for top in (0..n).step_by(SIDE) {
        let height = (n - top).min(SIDE);
        for left in (0..=top).step_by(SIDE) {
            for (ii, i) in (top..top + height).enumerate() {
                let below = out.get(i * n + left..).unwrap_or_default();
                for (column, &x) in square.iter_mut().zip(below) {
                    column[ii] = x;
                }
            }
            for (j, column) in (left..(left + SIDE).min(n)).zip(&square) {
                // On the diagonal, what lies beyond it.
                let start = (j + 1).max(top);
                let (from, to) =
                    (column.get(start - top..height), j * n + start..j * n + top + height);
                if let (Some(from), Some(to)) = (from, out.get_mut(to)) {
                    to.copy_from_slice(from);
                }
            }
        }
    }
}

/// Copies the part of a matrix from element (k, j) on: as many rows as `to` has, `width` columns.
#[inline(always)]
fn pack<A: ComputeFloat, const N: usize>(
    from: MatrixView<'_, A>,
    k: usize,
    j: usize,
    width: usize,
    to: &mut [[A; N]],
) {
    let (down, right) = from.strides;
    let part = |start: usize, len| from.data.get(start..start + len);
    let mut columns = [&[][..]; N];
    for (jj, column) in columns.iter_mut().enumerate() {
        // Columns beyond the width are not used.
        let start = k * down + (j + jj.min(width - 1)) * right;
        *column = part(start, to.len()).unwrap_or_default();
    }
    if down == 1 && columns.iter().all(|c| c.len() == to.len()) {
        for (kk, to) in to.iter_mut().enumerate() {
            for (to, column) in to.iter_mut().zip(&columns) {
                *to = column.get(kk).copied().unwrap_or(A::ZERO);
            }
        }
        return;
    }
    for (kk, to) in to.iter_mut().enumerate() {
        let row = part((k + kk) * down + j * right, width).filter(|_| right == 1);
        for (jj, to) in to.iter_mut().enumerate().take(width) {
            let x = || from.at(k + kk, j + jj);
            *to = row.map_or_else(x, |row| row.get(jj).copied().unwrap_or(A::ZERO));
        }
    }
}

/// Copies rows of a matrix into the panels. Rows may be pages apart, so each is read as a whole.
#[inline(always)]
fn pack_rows<A: ComputeFloat>(
    from: MatrixView<'_, A>,
    rows: Range<usize>,
    cols: Range<usize>,
    panels: &mut [[[A; COLS]; K_BLOCK]],
) {
    for (kk, k) in rows.enumerate() {
        let start = k * from.strides.0;
        let row = from.data.get(start + cols.start..start + cols.end).unwrap_or_default();
        for (panel, row) in panels.iter_mut().zip(row.chunks(COLS)) {
            let Some(to) = panel.get_mut(kk) else { return };
            match <&[A; COLS]>::try_from(row) {
                Ok(row) => *to = *row,
                Err(_) => to.iter_mut().zip(row).for_each(|(to, x)| *to = *x),
            }
        }
    }
}

/// The sums of one block for a tile of the product.
#[inline(always)]
fn microkernel<A: ComputeFloat<Scalar = A>>(
    strip: &[[A; ROWS]],
    panel: &[[A; COLS]],
) -> [[A; COLS]; ROWS] {
    // Unrolled by hand: a loop over the rows would be vectorised across them, with gathers.
    let [mut a, mut b, mut c, mut d, mut e, mut f] = [[A::ZERO; COLS]; ROWS];
    for (x, row) in strip.iter().zip(panel) {
        a = axpy(a, x[0], row);
        b = axpy(b, x[1], row);
        c = axpy(c, x[2], row);
        d = axpy(d, x[3], row);
        e = axpy(e, x[4], row);
        f = axpy(f, x[5], row);
    }
    [a, b, c, d, e, f]
}

#[inline(always)]
fn axpy<A: ComputeFloat<Scalar = A>>(mut sums: [A; COLS], x: A, row: &[A; COLS]) -> [A; COLS] {
    for (sum, y) in sums.iter_mut().zip(row) {
        *sum = *sum + x * *y;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn turned(x: &[f32], cols: usize) -> Vec<f32> {
        (0..cols).flat_map(|j| x.iter().skip(j).step_by(cols).copied()).collect()
    }

    #[test]
    fn product_of_any_size_follows_the_definition() {
        let numbers = |n: usize, f: f32| -> Vec<f32> {
            (0..n).map(|i| libm::sinf(i as f32 * f) * libm::expf((i % 9) as f32)).collect()
        };
        for [m, k, n] in [
            [1, 1, 1],
            [3, 5, 2],
            [4, 16, 16],
            [5, 257, 17],
            [9, 600, 33],
            [13, 300, 150],
            [2, 0, 3],
        ] {
            let (a, b) = (numbers(m * k, 1.3), numbers(k * n, 0.7));
            let mut out = std::vec![f32::NAN; m * n];
            matmul([m, k, n], MatrixView::new(&a, k), MatrixView::new(&b, n), &mut out);
            let (across, down) = (turned(&a, k), turned(&b, n));
            let mut other = std::vec![f32::NAN; m * n];
            let (x, y) =
                (MatrixView::new(&across, m).transposed(), MatrixView::new(&down, k).transposed());
            matmul([m, k, n], x, y, &mut other);
            assert_eq!(out, other, "{m} {k} {n}");
            for i in 0..m {
                for j in 0..n {
                    let add = |s, l| s + a[i * k + l] * b[l * n + j];
                    let element = dot_in_order(k, 0.0, add, |s, t| s + t);
                    assert_eq!(element.to_bits(), out[i * n + j].to_bits(), "{m} {k} {n}");
                    let mut sum = 0.0f32;
                    for block in (0..k).collect::<Vec<_>>().chunks(K_BLOCK) {
                        sum += block.iter().fold(0.0, |s, &l| s + a[i * k + l] * b[l * n + j]);
                    }
                    assert_eq!(out[i * n + j].to_bits(), sum.to_bits(), "{m} {k} {n}");
                }
            }
        }
    }

    /// Every way of a product has the bits of the definition, where the numbers are of bf16: those of ordinary size, some
    /// that would be subnormal or overflow, and some that are no bf16 numbers.
    #[test]
    fn product_of_bf16_numbers_follows_the_definition() {
        let narrow = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
        let ordinary = |i: usize| match i % 13 {
            0 => -0.0,
            1 => 3e12 * libm::sinf(i as f32),
            2 => 1e-12 * libm::sinf(i as f32),
            _ => libm::sinf(i as f32 * 1.3) * libm::expf((i % 9) as f32),
        };
        for [m, k, n] in [[12, 64, 64], [13, 301, 45], [50, 600, 33], [64, 129, 300]] {
            for (scale, exact) in
                [(1.0, true), (1e-30, true), (1e-38, true), (1e26, true), (1.0, false)]
            {
                let numbers = |n: usize, f: usize| -> Vec<f32> {
                    let number = |i: usize| ordinary(i * f) * scale;
                    (0..n).map(|i| if exact { narrow(number(i)) } else { number(i) }).collect()
                };
                let (a, b) = (numbers(m * k, 3), numbers(k * n, 7));
                let mut out = std::vec![f32::NAN; m * n];
                let mut check = |x: MatrixView<'_, f32>, y: MatrixView<'_, f32>| {
                    matmul([m, k, n], x, y, &mut out);
                    for i in 0..m {
                        for j in 0..n {
                            let add = |s, l| s + a[i * k + l] * b[l * n + j];
                            let (is, was) =
                                (out[i * n + j], dot_in_order(k, 0.0, add, |s, t| s + t));
                            let same = is.to_bits() == was.to_bits() || is.is_nan() && was.is_nan();
                            assert!(same, "{m} {k} {n} times {scale}: {is} {was}");
                        }
                    }
                };
                check(MatrixView::new(&a, k), MatrixView::new(&b, n));
                let (across, down) = (turned(&a, k), turned(&b, n));
                check(
                    MatrixView::new(&across, m).transposed(),
                    MatrixView::new(&down, k).transposed(),
                );
                let mut square = std::vec![f32::NAN; m * m];
                gram([m, k], MatrixView::new(&a, k), &mut square);
                for (l, is) in square.iter().enumerate() {
                    let (i, j) = (l / m, l % m);
                    let add = |s, l| s + a[i * k + l] * a[j * k + l];
                    let was = dot_in_order(k, 0.0, add, |s, t| s + t);
                    assert!(
                        is.to_bits() == was.to_bits() || is.is_nan() && was.is_nan(),
                        "{m} {k} times {scale}"
                    );
                }
            }
        }
    }

    #[test]
    fn gram_has_the_bits_of_the_product() {
        for [m, k] in [[1, 1], [2, 3], [7, 20], [17, 257], [40, 600], [150, 300], [3, 0]] {
            // Large values next to small ones, zeros of both signs, and values that overflow.
            let number = |i: usize| match i % 11 {
                0 => -0.0,
                1 => 3e30 * libm::sinf(i as f32),
                2 => 1e-30 * libm::sinf(i as f32),
                _ => libm::sinf(i as f32 * 1.3) * libm::expf((i % 9) as f32),
            };
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let (mut whole, mut half) = (std::vec![f32::NAN; m * m], std::vec![f32::NAN; m * m]);
            for view in [MatrixView::new(&a, k), MatrixView::new(&a, m).transposed()] {
                matmul([m, k, m], view, view.transposed(), &mut whole);
                gram([m, k], view, &mut half);
                let same =
                    |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                assert!(whole.iter().zip(&half).all(same), "{m} {k}");
            }
        }
    }
}
