//! faer's products and singular vectors agree with the core's up to rounding.

use bitstep::lowrank::{LinearAlgebra, PortableLinearAlgebra};
use bitstep::math::matmul::MatrixView;
use bitstep_rayon::Faer;

type Find = fn([usize; 2], &mut [f64], &mut [f64], &mut [f64], &mut [f64]);

fn numbers(n: usize, salt: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f64 / 1001.5 - 1.0).collect()
}

fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

fn layouts(x: &[f64], rows: usize, cols: usize) -> [MatrixView<'_, f64>; 2] {
    [MatrixView::new(x, cols), MatrixView::new(x, rows).transposed()]
}

#[test]
fn products_of_every_layout_are_the_cores_but_for_rounding() {
    for [m, k, n] in [[1, 1, 1], [5, 7, 3], [33, 300, 17], [4, 0, 2], [0, 3, 2]] {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        for (i, x) in layouts(&a, m, k).into_iter().enumerate() {
            for (j, y) in layouts(&b, k, n).into_iter().enumerate() {
                let (mut got, mut want) = (vec![f64::NAN; m * n], vec![f64::NAN; m * n]);
                Faer::matmul([m, k, n], x, y, &mut got);
                PortableLinearAlgebra::matmul([m, k, n], x, y, &mut want);
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-12, "{m} {k} {n}, layouts {i} {j}");
                }
            }
        }
        let (a, b) = (narrow(&a), narrow(&b));
        let (mut got, mut want) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
        Faer::matmul([m, k, n], MatrixView::new(&a, k), MatrixView::new(&b, n), &mut got);
        PortableLinearAlgebra::matmul(
            [m, k, n],
            MatrixView::new(&a, k),
            MatrixView::new(&b, n),
            &mut want,
        );
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-3, "{m} {k} {n} in f32");
        }
    }
}

/// The core computes what faer can't take: strides where neither rows nor columns are contiguous, short slices.
#[test]
fn views_that_faer_does_not_know_are_the_cores() {
    let x = numbers(64, 3);
    let apart = MatrixView { data: &x[..], strides: (8, 2) };
    let short = MatrixView::new(&x[..5], 4);
    for view in [apart, short] {
        let (mut got, mut want) = ([f64::NAN; 16], [f64::NAN; 16]);
        Faer::matmul([4, 4, 4], view, MatrixView::new(&x, 4), &mut got);
        PortableLinearAlgebra::matmul([4, 4, 4], view, MatrixView::new(&x, 4), &mut want);
        assert_eq!(got, want);
    }
}

#[test]
fn singular_vectors_are_the_cores_up_to_their_sign() {
    let ([rows, cols], rank) = ([6, 9], 4);
    // A dominant diagonal: well separated singular values.
    let mut matrix = numbers(rows * cols, 4);
    for (i, x) in [40.0, 25.0, 15.0, 9.0, 5.0, 2.0].into_iter().enumerate() {
        matrix[i * cols + i] += x;
    }
    let find = |by: Find| {
        let (mut short, mut long) = (vec![0.0; rank * rows], vec![0.0; rank * cols]);
        let mut scratch = vec![0.0; PortableLinearAlgebra::scratch(rows)];
        by([rows, cols], &mut matrix.clone(), &mut short, &mut long, &mut scratch);
        (short, long)
    };
    let (got, want) =
        (find(Faer::truncated_svd::<f64>), find(PortableLinearAlgebra::truncated_svd::<f64>));
    for (got, want, len) in [(got.0, want.0, rows), (got.1, want.1, cols)] {
        for (got, want) in got.chunks(len).zip(want.chunks(len)) {
            let dot: f64 = got.iter().zip(want).map(|(a, b)| a * b).sum();
            assert!((dot.abs() - 1.0).abs() < 1e-12, "{got:?} {want:?}");
        }
    }
}

#[test]
fn a_nan_leaves_the_singular_vectors_to_the_core() {
    let mut matrix = numbers(12, 5);
    matrix[3] = f64::NAN;
    let bits = |by: Find| {
        let (mut short, mut long) = ([0.0; 6], [0.0; 8]);
        by(
            [3, 4],
            &mut matrix.clone(),
            &mut short,
            &mut long,
            &mut vec![0.0; PortableLinearAlgebra::scratch(3)],
        );
        let bits = |x: f64| if x.is_nan() { 0 } else { x.to_bits() };
        short.into_iter().chain(long).map(bits).collect::<Vec<_>>()
    };
    assert_eq!(bits(Faer::truncated_svd::<f64>), bits(PortableLinearAlgebra::truncated_svd::<f64>));
}
