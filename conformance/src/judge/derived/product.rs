//! Products of matrices in bounded arithmetic.

use bitstep::float::{ComputeFloat, Dtype};
use bitstep::math::matmul::{MatrixView, matmul};

use super::number::{Bounded, Source, added, half_ulp};

/// A matrix in a slice: element (i, j) is at index `i · strides.0 + j · strides.1`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, A> {
    data: &'a [Bounded<A>],
    strides: (usize, usize),
}

impl<'a, A: ComputeFloat> Matrix<'a, A> {
    /// A row-major matrix with rows of `cols` elements.
    pub(super) fn new(data: &'a [Bounded<A>], cols: usize) -> Self {
        Matrix { data, strides: (cols, 1) }
    }

    pub(super) fn transposed(self) -> Self {
        Matrix { strides: (self.strides.1, self.strides.0), ..self }
    }

    fn at(self, i: usize, j: usize) -> Bounded<A> {
        let at = i * self.strides.0 + j * self.strides.1;
        self.data.get(at).copied().unwrap_or(Bounded::ZERO)
    }
}

/// `a` (rows × depth) · `b` (depth × cols) with the bits of the core's product. The bound of an element holds for a sum
/// in any order, fused or not: n · u · |A| |B| for n products that are not 0.
pub(super) fn product<A: ComputeFloat<Scalar = A>>(
    [rows, depth, cols]: [usize; 3],
    a: Matrix<'_, A>,
    b: Matrix<'_, A>,
) -> Vec<Bounded<A>> {
    product_summed_in(A::DTYPE, [rows, depth, cols], a, b)
}

/// [`product`] with the bounds of sums in a type that the reference may compute in.
pub(super) fn product_summed_in<A: ComputeFloat<Scalar = A>>(
    dtype: Dtype,
    [rows, depth, cols]: [usize; 3],
    a: Matrix<'_, A>,
    b: Matrix<'_, A>,
) -> Vec<Bounded<A>> {
    let values = |m: Matrix<'_, A>| m.data.iter().map(|x| x.value).collect::<Vec<_>>();
    let view = |data, m: Matrix<'_, A>| MatrixView { data, strides: m.strides };
    let (left, right) = (values(a), values(b));
    let mut out = vec![A::ZERO; rows * cols];
    matmul([rows, depth, cols], view(&left, a), view(&right, b), &mut out);
    let bounds = errors(dtype, [rows, depth, cols], a, b);
    out.into_iter().zip(bounds).map(|(value, error)| Bounded { value, error }).collect()
}

/// The sums over the inner dimension that the bound of an element is made of.
#[derive(Clone, Copy, Default)]
struct Sums {
    magnitude: f64,
    inherited: f64,
    terms: f64,
    /// Whether the products are exact in the type.
    is_exact: bool,
}

fn errors<A: ComputeFloat>(
    dtype: Dtype,
    [rows, depth, cols]: [usize; 3],
    a: Matrix<'_, A>,
    b: Matrix<'_, A>,
) -> Vec<f64> {
    let mut out = Vec::with_capacity(rows * cols);
    // b by rows, so that the inner loop runs over contiguous memory.
    let by_row = |k: usize| (0..cols).map(move |j| b.at(k, j));
    let right: Vec<[f64; 2]> =
        (0..depth).flat_map(by_row).map(|y| [y.value.to_f64().abs(), y.error]).collect();
    let mut sums = vec![Sums::default(); cols];
    for i in 0..rows {
        sums.fill(Sums { is_exact: true, ..Sums::default() });
        for k in 0..depth {
            let x = a.at(i, k);
            let (x, e) = (x.value.to_f64().abs(), x.error);
            if x == 0.0 && e == 0.0 {
                continue;
            }
            for (sum, &[y, f]) in sums.iter_mut().zip(right.get(k * cols..).unwrap_or_default()) {
                let product = x * y;
                sum.magnitude += product;
                sum.inherited += x * f + e * (y + f);
                sum.terms += f64::from(product != 0.0);
                sum.is_exact &= A::from_f64(product).to_f64() == product;
            }
        }
        out.extend(sums.iter().map(|sum| {
            let Sums { magnitude, inherited, terms, is_exact } = *sum;
            let rounding = match terms {
                _ if inherited > 0.0 => terms,
                0.0 => 0.0,
                1.0 if is_exact => 0.0,
                terms => terms,
            };
            let rounding = if rounding > 0.0 {
                rounding * half_ulp(dtype, magnitude + inherited)
            } else {
                0.0
            };
            let error = inherited + added(Source::Product, rounding);
            if error.is_nan() { f64::INFINITY } else { error }
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(x: &[f32]) -> Vec<Bounded<f32>> {
        x.iter().map(|&x| Bounded::exact(x)).collect()
    }

    #[test]
    fn bound_is_that_of_a_sum_in_any_order() {
        let (a, b) = (exact(&[1.0, -3.0, 0.0]), exact(&[1.0 / 3.0, 1.0 / 7.0, 5.0]));
        let all = product([1, 3, 1], Matrix::new(&a, 3), Matrix::new(&b, 1));
        let magnitude = f64::from(1.0f32 / 3.0) + 3.0 * f64::from(1.0f32 / 7.0);
        let u = f64::from(f32::EPSILON) / 2.0;
        assert!((all[0].error / (2.0 * u * magnitude) - 1.0).abs() < 1e-12, "{:?}", all[0]);
    }

    #[test]
    fn errors_of_factors_are_handed_on_and_exact_products_add_none() {
        let (mut a, b) = (exact(&[2.0, 0.0]), exact(&[4.0, 0.0, 3.0, 1.0]));
        let of = |a: &[Bounded<f32>]| product([1, 2, 2], Matrix::new(a, 2), Matrix::new(&b, 2));
        assert_eq!(
            of(&a).iter().map(|x| (x.value, x.error)).collect::<Vec<_>>(),
            [(8.0, 0.0), (0.0, 0.0)]
        );
        a[1].error = 0.5;
        let all = of(&a);
        assert!((all[0].error - 1.5).abs() < 1e-5 && (all[1].error - 0.5).abs() < 1e-5, "{all:?}");
    }
}
