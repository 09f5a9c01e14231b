//! The singular vectors of the largest singular values, in a fixed order of operations.
//!
//! With A = U Σ Vᵀ of m ≤ n, the eigenvectors of the Gram matrix A Aᵀ = U Σ² Uᵀ (m × m) are the left singular vectors, and
//! the right ones are vᵢ = Aᵀ uᵢ / σᵢ. In order:
//!
//! 1. `gram`: A Aᵀ, summed in `f64`.
//! 2. `tridiagonalize`: Householder reflections H = 1 − v vᵀ with ‖v‖² = 2 turn it into a tridiagonal T (Golub and Van
//!    Loan, "Matrix Computations", §8.3). H M H = M − v wᵀ − w vᵀ with p = M v, w = p − ½ (vᵀp) v; this update is deferred
//!    and made in the same sweep over M that computes the next p.
//! 3. `eigenvalue`: bisection on the number of eigenvalues above a value, which is the number of positive pivots of the
//!    elimination of T − value (Sturm; ibid., §8.4).
//! 4. `eigenvector`: inverse iteration, orthogonalized against the vectors before, as in LAPACK's `stein`.
//! 5. `apply_reflectors`: from eigenvectors of T to those of A Aᵀ; then `gemv_t` and `orthonormalize` for the long side.
//!
//! Squaring the singular values costs half of the digits: errors are relative to σ₁, and singular values below some
//! 2⁻²⁶ σ₁ are lost in `f64`. The elements of an `f32` matrix are themselves rounded to 2⁻²⁴.
//!
//! Intermediate results are `f64`, stored as pairs of the matrix's type ([`HiLo`]: some 48 bits for `f32`), so that no
//! memory of another type is needed.
//!
//! Every sum has a fixed order: blocks of [`BLOCK`] for the Gram matrix and of [`CHUNK`] elsewhere; in a block eight
//! [`LANES`], folded to 4, 2, 1; the blocks one after the other.

use super::random::counter_u64;
use crate::arch::simd::{self, Kernel};
use crate::float::ComputeFloat;
use crate::math::reduce::BLOCK;

const CHUNK: usize = 256;
const LANES: usize = 8;
/// Rows of the matrix that stay in the cache while their products with all others are summed.
const BAND: usize = 32;
/// Vectors of the short side's length that are needed in addition to the Gram matrix.
const VECTORS: usize = 6;
/// More than the halvings until a bracket around an eigenvalue has the width of one ulp.
const MAX_BISECTIONS: usize = 64;
/// No reflection is made if the squares of the elements to be zeroed sum to at most this: 2⁻¹⁴⁰.
const REFLECT_EPS: f64 = f64::from_bits((1023 - 140) << 52);
/// Inverse iterations: after the second one the components along other eigenvectors are negligible.
const ITERATIONS: u64 = 2;

/// The elements of scratch memory that [`vectors`] needs for a matrix of `rows` rows.
pub(crate) const fn scratch(rows: usize) -> usize {
    rows.saturating_mul(rows.saturating_add(1 + 2 * VECTORS))
}

/// Writes the singular vectors of the largest singular values of a matrix of `rows` ≤ `cols`, in descending order: the
/// left ones into the rows of `short`, the right ones into the rows of `long`, as many as fit. Their signs are not
/// fixed. All elements become NaN if one of the matrix is not finite; of a zero matrix the vectors are unit vectors.
pub(crate) fn vectors<A: ComputeFloat<Scalar = A>>(
    [rows, cols]: [usize; 2],
    matrix: &mut [A],
    short: &mut [A],
    long: &mut [A],
    scratch: &mut [A],
) {
    let count = (short.len().checked_div(rows)).max(long.len().checked_div(cols));
    let Some(count) = count.map(|count| count.min(rows)) else { return };
    let Some(matrix) = rows.checked_mul(cols).and_then(|n| matrix.get_mut(..n)) else { return };
    let largest = matrix.iter().fold(0.0, |largest: f64, x| {
        let x = x.to_f64().abs();
        if x > largest || x.is_nan() { x } else { largest }
    });
    if largest == 0.0 || !matrix.iter().all(|x| x.to_f64().abs() < f64::INFINITY) {
        for (out, len) in [(short, rows), (long, cols)] {
            for (i, x) in out.iter_mut().enumerate() {
                let axis = A::from_f64(f64::from(u8::from(i / len == i % len)));
                *x = if largest == 0.0 { axis } else { A::from_f64(f64::NAN) };
            }
        }
        return;
    }
    // Scales by a power of two, which is exact, so that the largest element is about 1 and no square overflows.
    let power = f64::from_bits((2046 - (largest.to_bits() >> 52)).clamp(1, 2046) << 52);
    for x in matrix.iter_mut() {
        *x = A::from_f64(x.to_f64() * power);
    }
    let Some((square, rest)) = scratch.split_at_mut_checked(rows * (rows + 1)) else { return };
    let Some(rest) = rest.get_mut(..2 * VECTORS * rows) else { return };
    let square = PackedSymmetric { n: rows, data: square };
    simd::dispatch(Vectors { count, cols, matrix, short, long, square, rest });
}

struct Vectors<'a, A> {
    count: usize,
    cols: usize,
    matrix: &'a [A],
    short: &'a mut [A],
    long: &'a mut [A],
    square: PackedSymmetric<'a, A>,
    rest: &'a mut [A],
}

impl<A: ComputeFloat<Scalar = A>> Kernel for Vectors<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Vectors { count, cols, matrix, short, long, mut square, rest } = self;
        let n = square.n;
        let mut parts = rest.chunks_mut(2 * n.max(1));
        let mut part = || HiLo::new(parts.next().unwrap_or_default());
        let (mut diagonal, mut off_diagonal) = (part(), part());
        let mut work = [part(), part(), part(), part()];

        gram(matrix, cols, &mut square);
        tridiagonalize(&mut square, &mut diagonal, &mut off_diagonal, &mut work);
        let (diagonal, off_diagonal) = (&diagonal, &off_diagonal);
        let mut norm = 0.0f64;
        for i in 0..n {
            let before = if i > 0 { off_diagonal.get(i - 1) } else { 0.0 };
            let sum = before.abs() + diagonal.get(i).abs() + off_diagonal.get(i).abs();
            norm = if sum > norm { sum } else { norm };
        }

        // Until step 5 the eigenvectors of T are stored in the memory of the results.
        let inside = short.len() >= count * n;
        let (found, width) = if inside { (&mut *short, n) } else { (&mut *long, cols) };
        let mut high = norm;
        for i in 0..count {
            let (before, rest) = found.split_at_mut_checked(i * width).unwrap_or_default();
            let to = rest.get_mut(..n).unwrap_or_default();
            high = eigenvalue(diagonal, off_diagonal, i, [0.0, high], norm);
            let before = before.chunks(width.max(1)).map(|row| row.get(..n).unwrap_or_default());
            let [x, upper @ ..] = &mut work;
            if !eigenvector([diagonal, off_diagonal], high, norm, i, before.clone(), x, upper) {
                complete_basis(before, to);
                continue;
            }
            for (i, to) in to.iter_mut().enumerate() {
                *to = A::from_f64(x.get(i));
            }
        }

        let [x, ..] = &mut work;
        for i in 0..count {
            let found: &[A] = if inside { short } else { long };
            for (j, z) in found.get(i * width..).unwrap_or_default().iter().take(n).enumerate() {
                x.set(j, z.to_f64());
            }
            apply_reflectors(&mut square, x);
            for (j, to) in short.iter_mut().skip(i * n).take(n).enumerate() {
                *to = A::from_f64(x.get(j));
            }
            let (before, rest) = long.split_at_mut_checked(i * cols).unwrap_or_default();
            if let Some(to) = rest.get_mut(..cols) {
                gemv_t(matrix, cols, x, to);
                let before = before.chunks(cols.max(1));
                if !orthonormalize(before.clone(), to) {
                    complete_basis(before, to);
                }
            }
        }
    }
}

/// A vector of `f64`, each element stored as two of type A: the rounded value and the rounding error.
struct HiLo<'a, A> {
    high: &'a mut [A],
    low: &'a mut [A],
}

impl<'a, A: ComputeFloat<Scalar = A>> HiLo<'a, A> {
    fn new(memory: &'a mut [A]) -> Self {
        let (high, low) = memory.split_at_mut(memory.len() / 2);
        HiLo { high, low }
    }

    #[inline(always)]
    fn get(&self, i: usize) -> f64 {
        match (self.high.get(i), self.low.get(i)) {
            (Some(high), Some(low)) => high.to_f64() + low.to_f64(),
            _ => 0.0,
        }
    }

    #[inline(always)]
    fn set(&mut self, i: usize, x: f64) {
        if let (Some(high), Some(low)) = (self.high.get_mut(i), self.low.get_mut(i)) {
            (*high, *low) = split(x);
        }
    }

    /// Copies the elements from `start` on.
    #[inline(always)]
    fn load(&self, start: usize, to: &mut [f64]) {
        let high = self.high.get(start..).unwrap_or_default();
        let low = self.low.get(start..).unwrap_or_default();
        for ((to, high), low) in to.iter_mut().zip(high).zip(low) {
            *to = high.to_f64() + low.to_f64();
        }
    }

    #[inline(always)]
    fn store(&mut self, start: usize, from: &[f64]) {
        let high = self.high.get_mut(start..).unwrap_or_default();
        let low = self.low.get_mut(start..).unwrap_or_default();
        for ((from, high), low) in from.iter().zip(high).zip(low) {
            (*high, *low) = split(*from);
        }
    }
}

#[inline(always)]
fn split<A: ComputeFloat<Scalar = A>>(x: f64) -> (A, A) {
    let high = A::from_f64(x);
    (high, A::from_f64(x - high.to_f64()))
}

/// A symmetric matrix of `f64`, stored as pairs: the rounded values of its upper triangle in their places in a square;
/// the rounding errors in the lower triangle and one more row, those of row i at the beginning of row n - i.
struct PackedSymmetric<'a, A> {
    n: usize,
    data: &'a mut [A],
}

impl<A: ComputeFloat<Scalar = A>> PackedSymmetric<'_, A> {
    /// Row i, from the diagonal on.
    #[inline(always)]
    fn row(&mut self, i: usize) -> HiLo<'_, A> {
        let (n, len) = (self.n, self.n - i);
        let (high, low) = (i * n + i, len * n);
        let cut = if high < low { low } else { high };
        let (before, after) = self.data.split_at_mut_checked(cut).unwrap_or_default();
        let before = before.get_mut(high + low - cut..).unwrap_or_default();
        let (high, low) = if high < low { (before, after) } else { (after, before) };
        match (high.get_mut(..len), low.get_mut(..len)) {
            (Some(high), Some(low)) => HiLo { high, low },
            _ => HiLo { high: &mut [], low: &mut [] },
        }
    }
}

#[inline(always)]
fn fold(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// The dot products of the matrix's rows with each other: A Aᵀ.
#[inline(always)]
fn gram<A: ComputeFloat<Scalar = A>>(
    matrix: &[A],
    cols: usize,
    square: &mut PackedSymmetric<'_, A>,
) {
    let n = square.n;
    square.data.fill(A::ZERO);
    for start in (0..cols).step_by(BLOCK) {
        let row = |i: usize| {
            let from = (i.min(n - 1)) * cols + start;
            matrix.get(from..from + (cols - start).min(BLOCK)).unwrap_or_default()
        };
        for first in (0..n).step_by(BAND) {
            let band = n.min(first + BAND);
            for i in (0..band).step_by(2) {
                for j in (first.max(i)..band).step_by(2) {
                    let sums = products([row(i), row(i + 1)], [row(j), row(j + 1)]);
                    for (i, sums) in (i..n).zip(sums) {
                        let mut to = square.row(i);
                        for (j, sum) in (j..n).zip(sums) {
                            // Only the upper triangle is stored.
                            if let Some(at) = j.checked_sub(i) {
                                to.set(at, to.get(at) + sum);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The dot products of two rows with two others.
#[inline(always)]
fn products<A: ComputeFloat<Scalar = A>>([a, b]: [&[A]; 2], [c, d]: [&[A]; 2]) -> [[f64; 2]; 2] {
    let [mut ac, mut ad, mut bc, mut bd] = [[0.0; LANES]; 4];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let ((c, c_rest), (d, d_rest)) = (c.as_chunks::<LANES>(), d.as_chunks::<LANES>());
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        for l in 0..LANES {
            let (a, b, c, d) = (a[l].to_f64(), b[l].to_f64(), c[l].to_f64(), d[l].to_f64());
            ac[l] += a * c;
            ad[l] += a * d;
            bc[l] += b * c;
            bd[l] += b * d;
        }
    }
    for (l, (((a, b), c), d)) in a_rest.iter().zip(b_rest).zip(c_rest).zip(d_rest).enumerate() {
        if l < LANES {
            let (a, b, c, d) = (a.to_f64(), b.to_f64(), c.to_f64(), d.to_f64());
            ac[l] += a * c;
            ad[l] += a * d;
            bc[l] += b * c;
            bd[l] += b * d;
        }
    }
    [[fold(ac), fold(ad)], [fold(bc), fold(bd)]]
}

/// The dot product.
#[inline(always)]
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for l in 0..LANES {
            lanes[l] += x[l] * y[l];
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(x_rest).zip(y_rest) {
        *lane += x * y;
    }
    fold(lanes)
}

/// Reduces the matrix to tridiagonal form by reflections from both sides. Reflection i = 1 - v vᵀ acts on the elements
/// after i; its v is stored in row i, after the diagonal.
#[inline(always)]
fn tridiagonalize<A: ComputeFloat<Scalar = A>>(
    square: &mut PackedSymmetric<'_, A>,
    diagonal: &mut HiLo<'_, A>,
    off_diagonal: &mut HiLo<'_, A>,
    work: &mut [HiLo<'_, A>; 4],
) {
    let n = square.n;
    // The current matrix is `square` - v wᵀ - w vᵀ, with v and w of the reflection before.
    let [v, w, next, p] = work;
    for pairs in [&mut *v, &mut *w, &mut *next] {
        pairs.high.fill(A::ZERO);
        pairs.low.fill(A::ZERO);
    }
    for k in 0..n {
        let mut row = square.row(k);
        let (vk, wk) = (v.get(k), w.get(k));
        let mut tail = 0.0;
        for start in (0..n - k).step_by(CHUNK) {
            let [mut x, mut vs, mut ws] = [[0.0; CHUNK]; 3];
            let len = (n - k - start).min(CHUNK);
            let (x, vs, ws) = (&mut x[..len], &mut vs[..len], &mut ws[..len]);
            row.load(start, x);
            v.load(k + start, vs);
            w.load(k + start, ws);
            for ((x, v), w) in x.iter_mut().zip(&*vs).zip(&*ws) {
                *x -= vk * w + wk * v;
            }
            row.store(start, x);
            // The elements to be zeroed: all but the diagonal and the one after it.
            let rest = x.get(2usize.saturating_sub(start)..).unwrap_or_default();
            tail += dot(rest, rest);
        }
        diagonal.set(k, row.get(0));
        let x = row.get(1);
        let length = (x * x + tail).sqrt();
        // Elements far below an ulp of the Gram matrix, whose largest element is at least 1, are treated as 0.
        let reflects = tail > REFLECT_EPS;
        let after = if x > 0.0 { -length } else { length };
        off_diagonal.set(k, if reflects { after } else { x });
        let root = (length * (length + x.abs())).sqrt();
        let first = if x > 0.0 { x + length } else { x - length };
        next.set(k, 0.0);
        for j in 1..n - k {
            let x = if j == 1 { first } else { row.get(j) };
            let x = if reflects { x / root } else { 0.0 };
            row.set(j, x);
            next.set(k + j, x);
        }
        advance(square, k + 1, [&*v, &*w, &*next], p);
        // w = p - v (vᵀ p) / 2
        let mut half = 0.0;
        for start in ((k + 1) / CHUNK * CHUNK..n).step_by(CHUNK) {
            let [mut x, mut y] = [[0.0; CHUNK]; 2];
            next.load(start, &mut x);
            p.load(start, &mut y);
            half += dot(&x, &y) / 2.0;
        }
        for j in k + 1..n {
            let x = next.get(j);
            v.set(j, x);
            w.set(j, p.get(j) - half * x);
        }
    }
}

/// Subtracts v wᵀ + w vᵀ from the rows of the square from `first` on, and multiplies the result by `next`, into `p`.
#[inline(always)]
fn advance<A: ComputeFloat<Scalar = A>>(
    square: &mut PackedSymmetric<'_, A>,
    first: usize,
    [v, w, next]: [&HiLo<'_, A>; 3],
    p: &mut HiLo<'_, A>,
) {
    let n = square.n;
    p.high.fill(A::ZERO);
    p.low.fill(A::ZERO);
    for start in (first / CHUNK * CHUNK..n).step_by(CHUNK) {
        let [mut vs, mut ws, mut xs, mut ps] = [[0.0; CHUNK]; 4];
        v.load(start, &mut vs);
        w.load(start, &mut ws);
        next.load(start, &mut xs);
        p.load(start, &mut ps);
        let end = n.min(start + CHUNK);
        for i in first..end {
            let (vi, wi, xi) = (v.get(i), w.get(i), next.get(i));
            let mut row = square.row(i);
            let mut sum = 0.0;
            if i >= start {
                let a = row.get(0) - (vi * wi + wi * vi);
                row.set(0, a);
                sum = a * xi;
            }
            // The elements of row i after the diagonal that are in this block of columns.
            let from = if i < start { start } else { i + 1 };
            let within = |x: usize| x.saturating_sub(start)..end - start;
            let HiLo { high, low } = row;
            let (high, low) = (
                high.get_mut(from - i..end - i).unwrap_or_default(),
                low.get_mut(from - i..end - i).unwrap_or_default(),
            );
            let (vs, ws, xs) = (
                vs.get(within(from)).unwrap_or_default(),
                ws.get(within(from)).unwrap_or_default(),
                xs.get(within(from)).unwrap_or_default(),
            );
            sum += sweep(
                [high, low],
                [vs, ws, xs],
                ps.get_mut(within(from)).unwrap_or_default(),
                [vi, wi, xi],
            );
            if i >= start {
                if let Some(p) = ps.get_mut(i - start) {
                    *p += sum;
                }
            } else {
                p.set(i, p.get(i) + sum);
            }
        }
        p.store(start, ps.get(..end - start).unwrap_or_default());
    }
}

/// [`advance`] for a part of one row: updates it, returns its product with `xs`, and adds `xi` times it to `ps` for the
/// symmetric part.
#[inline(always)]
fn sweep<A: ComputeFloat<Scalar = A>>(
    [high, low]: [&mut [A]; 2],
    [vs, ws, xs]: [&[f64]; 3],
    ps: &mut [f64],
    [vi, wi, xi]: [f64; 3],
) -> f64 {
    let mut lanes = [0.0; LANES];
    let (high, high_rest) = high.as_chunks_mut::<LANES>();
    let (low, low_rest) = low.as_chunks_mut::<LANES>();
    let ((vs, vs_rest), (ws, ws_rest)) = (vs.as_chunks::<LANES>(), ws.as_chunks::<LANES>());
    let ((xs, xs_rest), (ps, ps_rest)) = (xs.as_chunks::<LANES>(), ps.as_chunks_mut::<LANES>());
    let one = |high: &mut A, low: &mut A, v: f64, w: f64, x: f64, p: &mut f64, lane: &mut f64| {
        let a = high.to_f64() + low.to_f64() - (vi * w + wi * v);
        (*high, *low) = split(a);
        *lane += a * x;
        *p += a * xi;
    };
    for (((((high, low), v), w), x), p) in high.iter_mut().zip(low).zip(vs).zip(ws).zip(xs).zip(ps)
    {
        for l in 0..LANES {
            one(&mut high[l], &mut low[l], v[l], w[l], x[l], &mut p[l], &mut lanes[l]);
        }
    }
    let rest = high_rest.iter_mut().zip(low_rest).zip(vs_rest).zip(ws_rest).zip(xs_rest);
    for ((((((high, low), v), w), x), p), lane) in rest.zip(ps_rest).zip(&mut lanes) {
        one(high, low, *v, *w, *x, p, lane);
    }
    fold(lanes)
}

/// The eigenvalue number i from above, with an error of at most 2⁻⁵² of the matrix's norm. By bisection: the number of
/// eigenvalues above a value is the number of positive pivots in the elimination of T - value (Sturm).
#[inline(never)] // one number after the other, whatever the vector unit
fn eigenvalue<A: ComputeFloat<Scalar = A>>(
    diagonal: &HiLo<'_, A>,
    off_diagonal: &HiLo<'_, A>,
    i: usize,
    [mut low, mut high]: [f64; 2],
    norm: f64,
) -> f64 {
    let tiny = norm * f64::EPSILON * f64::EPSILON;
    for _ in 0..MAX_BISECTIONS {
        if high - low <= norm * f64::EPSILON {
            break;
        }
        let middle = low + (high - low) / 2.0;
        let (mut above, mut pivot, mut across) = (0, 1.0, 0.0);
        for j in 0..diagonal.high.len() {
            pivot = diagonal.get(j) - middle - across * across / pivot;
            if pivot.abs() < tiny {
                pivot = -tiny;
            }
            above += usize::from(pivot > 0.0);
            across = off_diagonal.get(j);
        }
        if above > i {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Computes the eigenvector of an eigenvalue into `x`, orthogonal to those before; false if none was found.
#[inline(always)]
fn eigenvector<'b, A: ComputeFloat<Scalar = A>>(
    matrix: [&HiLo<'_, A>; 2],
    value: f64,
    norm: f64,
    number: usize,
    before: impl Iterator<Item = &'b [A]> + Clone,
    x: &mut HiLo<'_, A>,
    upper: &mut [HiLo<'_, A>],
) -> bool {
    let n = x.high.len();
    for at in 0..n {
        // Uniform in [-1, 1): the start has a component along every eigenvector.
        x.set(
            at,
            (counter_u64(0, number as u64, at as u64) >> 11) as f64 / f64::from_bits(1075 << 52)
                - 1.0,
        );
    }
    for _ in 0..ITERATIONS {
        solve(matrix, value, norm, x, upper);
        // If most of the vector is removed, the rest is mostly rounding errors: orthogonalized again.
        for round in 0..4 {
            if round > 0 {
                for before in before.clone() {
                    let part = -dot_along(x, before);
                    axpy(x, before, part);
                }
            }
            let mut square = 0.0;
            for at in 0..n {
                square += x.get(at) * x.get(at);
            }
            let length = square.sqrt();
            if !(length > 0.0 && length < f64::INFINITY) {
                return false;
            }
            for at in 0..n {
                x.set(at, x.get(at) / length);
            }
            if round > 0 && length > 0.9 {
                break;
            }
        }
    }
    true
}

/// Solves (T - value) y = x up to a factor, by Gaussian elimination with partial pivoting.
#[inline(never)] // one number after the other, whatever the vector unit
fn solve<A: ComputeFloat<Scalar = A>>(
    [diagonal, off_diagonal]: [&HiLo<'_, A>; 2],
    value: f64,
    norm: f64,
    x: &mut HiLo<'_, A>,
    upper: &mut [HiLo<'_, A>],
) {
    let [pivots, first, second] = upper else { return };
    let n = x.high.len();
    let tiny = norm * f64::EPSILON;
    let (mut pivot, mut right) = (diagonal.get(0) - value, off_diagonal.get(0));
    // T - value is nearly singular, so that the solution grows by up to 1 / tiny: scaled in advance.
    let mut here = x.get(0) * tiny;
    for i in 0..n {
        let last = i + 1 == n;
        let left = if last { 0.0 } else { off_diagonal.get(i) };
        let (next, after) = (diagonal.get(i + 1) - value, off_diagonal.get(i + 1));
        let there = x.get(i + 1) * tiny;
        let (row, solved);
        if pivot.abs() >= left.abs() || last {
            let p = if pivot.abs() < tiny { tiny } else { pivot };
            let factor = left / p;
            (row, solved) = ([p, if last { 0.0 } else { right }, 0.0], here);
            (pivot, right, here) = (next - factor * right, after, there - factor * here);
        } else {
            let factor = pivot / left;
            (row, solved) = ([left, next, after], there);
            (pivot, right, here) = (right - factor * next, -factor * after, here - factor * there);
        }
        pivots.set(i, row[0]);
        first.set(i, row[1]);
        second.set(i, row[2]);
        x.set(i, solved);
    }
    let (mut one, mut two) = (0.0, 0.0);
    for i in (0..n).rev() {
        let solved = (x.get(i) - first.get(i) * one - second.get(i) * two) / pivots.get(i);
        x.set(i, solved);
        (one, two) = (solved, one);
    }
}

/// The dot product with a vector of the matrix's type.
#[inline(always)]
fn dot_along<A: ComputeFloat<Scalar = A>>(x: &HiLo<'_, A>, y: &[A]) -> f64 {
    let mut sum = 0.0;
    for (at, y) in y.chunks(CHUNK).enumerate() {
        let [mut xs, mut ys] = [[0.0; CHUNK]; 2];
        x.load(at * CHUNK, &mut xs);
        for (to, y) in ys.iter_mut().zip(y) {
            *to = y.to_f64();
        }
        sum += dot(&xs, &ys);
    }
    sum
}

#[inline(always)]
fn axpy<A: ComputeFloat<Scalar = A>>(x: &mut HiLo<'_, A>, y: &[A], factor: f64) {
    for ((high, low), y) in x.high.iter_mut().zip(&mut *x.low).zip(y) {
        (*high, *low) = split(high.to_f64() + low.to_f64() + factor * y.to_f64());
    }
}

/// Turns an eigenvector of the tridiagonal matrix into one of the Gram matrix: all reflections, the last one first.
#[inline(always)]
fn apply_reflectors<A: ComputeFloat<Scalar = A>>(
    square: &mut PackedSymmetric<'_, A>,
    x: &mut HiLo<'_, A>,
) {
    let n = square.n;
    for k in (0..n.saturating_sub(1)).rev() {
        let row = square.row(k);
        let mut sum = 0.0;
        for start in (1..n - k).step_by(CHUNK) {
            let [mut v, mut y] = [[0.0; CHUNK]; 2];
            row.load(start, &mut v);
            x.load(k + start, &mut y);
            sum += dot(&v, &y);
        }
        let v = row.high.iter().zip(&*row.low).skip(1);
        let x = x.high.iter_mut().zip(&mut *x.low).skip(k + 1);
        for ((high, low), (v, rest)) in x.zip(v) {
            let v = v.to_f64() + rest.to_f64();
            (*high, *low) = split(high.to_f64() + low.to_f64() - sum * v);
        }
    }
}

/// Aᵀ x: the sum of the matrix's rows, each times an element of `x`.
#[inline(always)]
fn gemv_t<A: ComputeFloat<Scalar = A>>(matrix: &[A], cols: usize, x: &HiLo<'_, A>, to: &mut [A]) {
    const WIDE: usize = 4 * CHUNK;
    for (at, to) in to.chunks_mut(WIDE).enumerate() {
        let mut sums = [0.0; WIDE];
        for (i, row) in matrix.chunks(cols.max(1)).enumerate() {
            let row = row.get(at * WIDE..).unwrap_or_default();
            let factor = x.get(i);
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += factor * x.to_f64();
            }
        }
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = A::from_f64(sum);
        }
    }
}

/// Orthogonalizes `x` against the unit vectors before (Gram–Schmidt), and normalizes it; false if nothing is left.
#[inline(always)]
fn orthonormalize<'b, A: ComputeFloat<Scalar = A>>(
    before: impl Iterator<Item = &'b [A]> + Clone,
    x: &mut [A],
) -> bool {
    let inner = |x: &[A], y: &[A]| {
        let mut sum = 0.0;
        for (x, y) in x.chunks(CHUNK).zip(y.chunks(CHUNK)) {
            let [mut xs, mut ys] = [[0.0; CHUNK]; 2];
            for (to, x) in xs.iter_mut().zip(x) {
                *to = x.to_f64();
            }
            for (to, y) in ys.iter_mut().zip(y) {
                *to = y.to_f64();
            }
            sum += dot(&xs, &ys);
        }
        sum
    };
    let mut length = inner(x, x).sqrt();
    // If most of the vector is removed, the rest is mostly rounding errors: orthogonalized again.
    for _ in 0..3 {
        if !(length > 0.0 && length < f64::INFINITY) {
            return false;
        }
        for x in x.iter_mut() {
            *x = A::from_f64(x.to_f64() / length);
        }
        for y in before.clone() {
            let part = inner(y, x);
            for (x, y) in x.iter_mut().zip(y) {
                *x = A::from_f64(x.to_f64() - part * y.to_f64());
            }
        }
        length = inner(x, x).sqrt();
        if length > 0.9 {
            for x in x.iter_mut() {
                *x = A::from_f64(x.to_f64() / length);
            }
            return true;
        }
    }
    false
}

/// Writes any unit vector orthogonal to those before: that of an axis, orthogonalized.
#[inline(never)] // hardly ever needed
fn complete_basis<'b, A: ComputeFloat<Scalar = A>>(
    before: impl Iterator<Item = &'b [A]> + Clone,
    to: &mut [A],
) {
    let (len, number) = (to.len(), before.clone().count());
    // First the axes along which the vectors before are likely to have small components.
    for axis in (number..len).chain(0..number) {
        for (i, x) in to.iter_mut().enumerate() {
            *x = if i == axis { A::ONE } else { A::ZERO };
        }
        if orthonormalize(before.clone(), to) {
            return;
        }
    }
}

/// Flips the sign of a vector if its component of the largest magnitude (the first of several) is negative.
pub(crate) fn fix_sign<A: ComputeFloat>(x: &mut [A]) {
    let mut largest = A::ZERO;
    for v in x.iter() {
        if v.abs() > largest.abs() {
            largest = *v;
        }
    }
    if largest < A::ZERO {
        x.iter_mut().for_each(|v| *v = -*v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    fn normal(n: usize, salt: u64) -> Vec<f64> {
        let mut x = vec![0.0; n];
        crate::lowrank::Mt19937::new(salt).normal(&mut x);
        x
    }

    /// The largest error of: the vectors' lengths, their orthogonality, A v = σ u and Aᵀ u = σ v.
    fn worst<A: ComputeFloat<Scalar = A>>(
        [rows, cols]: [usize; 2],
        count: usize,
        matrix: &[f64],
    ) -> f64 {
        let matrix: Vec<A> = matrix.iter().map(|x| A::from_f64(*x)).collect();
        let (mut short, mut long) = (vec![A::ONE; count * rows], vec![A::ONE; count * cols]);
        let memory = &mut vec![A::ONE; scratch(rows)];
        vectors([rows, cols], &mut matrix.clone(), &mut short, &mut long, memory);
        let at = |x: &[A], i: usize| x[i].to_f64();
        let (mut worst, mut first, mut before) = (0.0f64, 0.0f64, f64::INFINITY);
        for i in 0..count {
            let (u, v) = (&short[i * rows..], &long[i * cols..]);
            let row =
                |r: usize| (0..cols).map(|c| at(&matrix, r * cols + c) * at(v, c)).sum::<f64>();
            let col =
                |c: usize| (0..rows).map(|r| at(&matrix, r * cols + c) * at(u, r)).sum::<f64>();
            let av: Vec<f64> = (0..rows).map(row).collect();
            let sigma: f64 = (0..rows).map(|r| av[r] * at(u, r)).sum();
            first = if i == 0 { sigma } else { first };
            assert!(sigma <= before + 1e-6 * first, "{sigma} after {before}");
            before = sigma;
            let scale = if first > 0.0 { first } else { 1.0 };
            for (r, av) in av.iter().enumerate() {
                worst = worst.max((av - sigma * at(u, r)).abs() / scale);
            }
            for c in 0..cols {
                worst = worst.max((col(c) - sigma * at(v, c)).abs() / scale);
            }
            for j in 0..=i {
                for (x, len) in [(&short, rows), (&long, cols)] {
                    let dot: f64 = (0..len).map(|k| at(x, i * len + k) * at(x, j * len + k)).sum();
                    worst = worst.max((dot - f64::from(u8::from(i == j))).abs());
                }
            }
        }
        worst
    }

    #[test]
    fn vectors_of_any_matrix_are_orthonormal_and_singular() {
        let mut seen = 0;
        for [rows, cols] in [[1, 1], [1, 7], [2, 2], [2, 5], [3, 3], [8, 9], [33, 70], [70, 300]] {
            let n = rows * cols;
            let random = normal(n, 1);
            let (a, b) = (normal(rows * 2, 2), normal(2 * cols, 3));
            let low = |i: usize, r: usize| a[i / cols * 2 + r] * b[r * cols + i % cols];
            let matrices: [Vec<f64>; 10] = [
                random.clone(),
                random.iter().map(|x| x * 1e-38).collect(),
                random.iter().map(|x| x * 1e37).collect(),
                (0..n).map(|i| low(i, 0)).collect(),
                (0..n).map(|i| low(i, 0) + low(i, 1)).collect(),
                (0..n).map(|i| random[i] * 0.5f64.powi((i / cols) as i32)).collect(),
                (0..n).map(|i| f64::from(u8::from(i / cols == i % cols))).collect(),
                (0..n)
                    .map(|i| if i / cols == i % cols { 1.0 / (1 + i % cols) as f64 } else { 0.0 })
                    .collect(),
                vec![1.0; n],
                vec![0.0; n],
            ];
            for (kind, matrix) in matrices.iter().enumerate() {
                for count in [1, rows.div_ceil(2), rows] {
                    let (single, double) = (
                        worst::<f32>([rows, cols], count, matrix),
                        worst::<f64>([rows, cols], count, matrix),
                    );
                    // Squared singular values: those below 2⁻²⁶ of the largest are lost in f64.
                    assert!(
                        single < 1e-6 && double < 3e-8,
                        "{rows} x {cols}, matrix {kind}: {single:e} {double:e}"
                    );
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 240);
    }

    #[test]
    fn vectors_of_separated_values_are_exact_to_rounding_in_f64() {
        let (rows, cols) = (20, 30);
        let mut matrix = normal(rows * cols, 5);
        for i in 0..rows {
            matrix[i * cols + i] += 10.0 * (rows - i) as f64;
        }
        let worst = worst::<f64>([rows, cols], rows, &matrix);
        assert!(worst < 1e-14, "{worst:e}");
    }

    #[test]
    fn vectors_of_one_side_are_those_of_both() {
        let (rows, cols, count) = (12, 40, 5);
        let matrix: Vec<f32> = normal(rows * cols, 6).iter().map(|x| *x as f32).collect();
        let run = |short: &mut [f32], long: &mut [f32]| {
            vectors([rows, cols], &mut matrix.clone(), short, long, &mut vec![0.0; scratch(rows)]);
        };
        let (mut short, mut long) = (vec![0.0; count * rows], vec![0.0; count * cols]);
        run(&mut short, &mut long);
        let (mut alone, mut other) = (vec![0.0; count * rows], vec![0.0; count * cols]);
        run(&mut alone, &mut []);
        run(&mut [], &mut other);
        assert!(alone == short && other == long);
        // With too little memory, or none requested, nothing happens.
        vectors([rows, cols], &mut matrix.clone(), &mut alone, &mut [], &mut [0.0; 7]);
        vectors([rows, cols], &mut matrix.clone(), &mut [], &mut [], &mut []);
        vectors([0, 0], &mut [], &mut alone, &mut other, &mut []);
        assert!(alone == short && other == long);
    }

    #[test]
    fn vectors_of_what_is_not_finite_are_nan() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut short, mut long) = ([0.0; 4], [0.0; 6]);
            let matrix = &mut [1.0, 2.0, bad, 0.0, 1.0, 5.0];
            vectors([2, 3], matrix, &mut short, &mut long, &mut [0.0; 64]);
            assert!(short.iter().chain(&long).all(|x| x.is_nan()));
        }
    }
}
