//! Singular vectors by rotations, in a fixed order.

use crate::real::Real;
use crate::reduce;

/// After so many sweeps, rows that are not numbers are left as they are.
const SWEEPS: usize = 40;

/// Numbers of scratch memory that [`rotate`] needs beside the matrix.
pub(crate) const fn scratch(rows: usize) -> usize {
    rows.saturating_mul(rows).saturating_add(rows)
}

/// A matrix of `rows` ≤ `cols` whose rows have been rotated until they are
/// orthogonal: the singular vectors times the singular values.
pub(crate) struct Rotated<'a, A> {
    rows: usize,
    cols: usize,
    matrix: &'a [A],
    rotation: &'a [A],
    /// Squared lengths of the rows; those chosen already are negative.
    norms: &'a mut [A],
}

/// One-sided Jacobi rotations (Hestenes): pairs of rows in order, until a sweep
/// finds all orthogonal. The accumulated rotation and the matrix itself then hold the
/// singular vectors of the short side and of the long side.
pub(crate) fn rotate<'a, A: Real<Scalar = A>>(
    [rows, cols]: [usize; 2],
    matrix: &'a mut [A],
    scratch: &'a mut [A],
) -> Option<Rotated<'a, A>> {
    let (rotation, norms) = scratch.split_at_mut_checked(rows.checked_mul(rows)?)?;
    let norms = norms.get_mut(..rows)?;
    let matrix = matrix.get_mut(..rows.checked_mul(cols)?)?;
    for (i, row) in rotation.chunks_mut(rows.max(1)).enumerate() {
        for (j, x) in row.iter_mut().enumerate() {
            *x = if i == j { A::ONE } else { A::ZERO };
        }
    }
    let tolerance = if size_of::<A>() == 4 { 1.2e-7 } else { 2.2e-16 };
    for _ in 0..SWEEPS {
        let mut turned = false;
        for i in 0..rows {
            for j in i + 1..rows {
                let Some([x, y]) = pair(matrix, cols, i, j) else { continue };
                let [a, b, c] = reduce::sums::<f64, 3>(cols, |l| match (x.get(l), y.get(l)) {
                    (Some(x), Some(y)) => {
                        let (x, y) = (x.to_f64(), y.to_f64());
                        [x * x, y * y, x * y]
                    }
                    _ => [0.0; 3],
                });
                // A NaN counts as orthogonal: no rotation would change it.
                if c.abs() > tolerance * (a.sqrt() * b.sqrt()) && c.abs() < f64::INFINITY {
                    turned = true;
                    let zeta = (b - a) / (c + c);
                    let sign = if zeta < 0.0 { -1.0 } else { 1.0 };
                    let tan = sign / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                    let cos = 1.0 / (1.0 + tan * tan).sqrt();
                    let (cos, sin) = (A::from_f64(cos), A::from_f64(cos * tan));
                    turn(x, y, cos, sin);
                    if let Some([x, y]) = pair(rotation, rows, i, j) {
                        turn(x, y, cos, sin);
                    }
                }
            }
        }
        if !turned {
            break;
        }
    }
    for (norm, row) in norms.iter_mut().zip(matrix.chunks(cols.max(1))) {
        *norm = A::from_f64(dot(row, row));
    }
    Some(Rotated { rows, cols, matrix, rotation, norms })
}

fn pair<A>(x: &mut [A], width: usize, i: usize, j: usize) -> Option<[&mut [A]; 2]> {
    let (low, high) = x.split_at_mut_checked(j * width)?;
    Some([low.get_mut(i * width..(i + 1) * width)?, high.get_mut(..width)?])
}

fn turn<A: Real>(x: &mut [A], y: &mut [A], cos: A, sin: A) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

fn dot<A: Real>(x: &[A], y: &[A]) -> f64 {
    reduce::sum(x.len(), |i| match (x.get(i), y.get(i)) {
        (Some(x), Some(y)) => x.to_f64() * y.to_f64(),
        _ => 0.0,
    })
}

impl<A: Real<Scalar = A>> Rotated<'_, A> {
    /// Writes the singular vectors of the largest singular values, in falling order: those of
    /// the short side into the rows of `short`, those of the long side into the rows of `long`.
    pub(crate) fn vectors(self, short: &mut [A], long: &mut [A]) {
        let (rows, cols) = (self.rows.max(1), self.cols.max(1));
        let count = (short.len() / rows).max(long.len() / cols).min(self.rows);
        for k in 0..count {
            let mut best = None;
            for (i, &norm) in self.norms.iter().enumerate() {
                let free = norm >= A::ZERO || norm.is_nan();
                if free && best.is_none_or(|(_, n)| norm > n) {
                    best = Some((i, norm));
                }
            }
            let Some((i, norm)) = best else { return };
            if let Some(x) = self.norms.get_mut(i) {
                *x = -A::ONE;
            }
            if let Some(to) = short.get_mut(k * rows..(k + 1) * rows) {
                let from = self.rotation.get(i * rows..(i + 1) * rows).unwrap_or_default();
                to.copy_from_slice(from);
            }
            let (before, rest) = long.split_at_mut_checked(k * cols).unwrap_or_default();
            if let Some(to) = rest.get_mut(..cols) {
                let from = self.matrix.get(i * cols..(i + 1) * cols).unwrap_or_default();
                if norm == A::ZERO {
                    complete(before, to);
                } else {
                    let length = dot(from, from).sqrt();
                    for (to, x) in to.iter_mut().zip(from) {
                        *to = A::from_f64(x.to_f64() / length);
                    }
                }
            }
        }
    }
}

/// Any unit vector orthogonal to those before: a unit vector of the axes, less its part in them.
fn complete<A: Real>(before: &[A], to: &mut [A]) {
    for axis in 0..to.len() {
        for (i, x) in to.iter_mut().enumerate() {
            *x = if i == axis { A::ONE } else { A::ZERO };
        }
        for _ in 0..2 {
            for other in before.chunks(to.len()) {
                let part = A::from_f64(dot(other, to));
                for (x, y) in to.iter_mut().zip(other) {
                    *x = *x - part * *y;
                }
            }
        }
        let length = dot(to, to).sqrt();
        if length > 0.5 / (to.len() as f64).sqrt() {
            for x in to.iter_mut() {
                *x = A::from_f64(x.to_f64() / length);
            }
            return;
        }
    }
}

/// Turns a vector so that its largest component (the first of several) is positive.
pub(crate) fn orient<A: Real>(x: &mut [A]) {
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
