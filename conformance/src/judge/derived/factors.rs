//! Factored (row and column) state in bounded arithmetic.

use bitstep::float::{ComputeFloat, StoredFloat};
use bitstep::rule::factored::{FactoredUpdate, MatrixLayout};

use super::follow::{Held, Shape, sum};
use super::number::Bounded;

/// The row and column factors of an element's scale, and the state that they are computed from.
pub(super) struct Factors<T: ComputeFloat> {
    layout: MatrixLayout,
    rows: Vec<Bounded<T>>,
    cols: Vec<Bounded<T>>,
    means: Vec<Bounded<T>>,
    /// The row state and the column state after the step.
    pub(super) states: [Vec<Bounded<T>>; 2],
}

impl<T: ComputeFloat> Factors<T> {
    /// Updates the state by a gradient and computes the factors.
    pub(super) fn new<R: FactoredUpdate>(
        k: &R::Coefs<Bounded<T>>,
        layout: MatrixLayout,
        grad: &[Bounded<T>],
        states: &[Held<'_>],
    ) -> Self {
        let MatrixLayout { batches, rows, cols } = layout;
        let square = |i: usize| {
            R::accumulate_term::<Bounded<T>>(k, grad.get(i).copied().unwrap_or(Bounded::ZERO))
        };
        let length = |n: usize| Bounded::<T::Scalar>::from_f64(n as f64);
        let state = |which: usize| states.get(which).map(|x| x.load::<T>()).unwrap_or_default();
        let track = |old: Bounded<T>, sum, n| {
            let mean = R::mean::<Bounded<T>>(k, sum, length(n));
            R::update_moment::<Bounded<T>>(k, old, mean)
        };
        let of_row = |(row, old): (usize, Bounded<T>)| {
            track(old, sum((0..cols).map(|col| square(row * cols + col))), cols)
        };
        let of_col = |(at, old): (usize, Bounded<T>)| {
            let (batch, col) = (at / cols.max(1), at % cols.max(1));
            let column = (0..rows).map(|row| square((batch * rows + row) * cols + col));
            track(old, sum(column), rows)
        };
        let states = [
            state(0).into_iter().enumerate().map(of_row).collect::<Vec<_>>(),
            state(1).into_iter().enumerate().map(of_col).collect::<Vec<_>>(),
        ];
        let mut factors =
            Factors { layout, rows: Vec::new(), cols: Vec::new(), means: Vec::new(), states };
        for batch in 0..batches {
            let own = factors.states[0].get(batch * rows..(batch + 1) * rows).unwrap_or_default();
            let total = sum(own.iter().map(|x| x.widen()));
            let mean = R::mean_of_rows::<Bounded<T>>(k, total, length(rows));
            factors.rows.extend(own.iter().map(|&row| R::row_factor::<Bounded<T>>(k, row, mean)));
            factors.means.push(mean);
        }
        let cols = factors.states[1].iter().map(|&col| R::col_factor::<Bounded<T>>(k, col));
        factors.cols = cols.collect();
        factors
    }

    fn scale<R: FactoredUpdate>(&self, k: &R::Coefs<Bounded<T>>, i: usize) -> Bounded<T> {
        let MatrixLayout { rows, cols, .. } = self.layout;
        let row = i / cols.max(1);
        let batch = row / rows.max(1);
        let at = |x: &[Bounded<T>], i: usize| x.get(i).copied().unwrap_or(Bounded::ZERO);
        let col = at(&self.cols, batch * cols + i % cols.max(1));
        R::element_scale::<Bounded<T>>(k, at(&self.rows, row), col, at(&self.means, batch))
    }
}

impl<R: FactoredUpdate, T: ComputeFloat> Shape<R, T> for Factors<T> {
    fn terms(
        &self,
        k: &R::Coefs<Bounded<T>>,
        i: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> [Bounded<T::Scalar>; 2] {
        R::factored_terms::<Bounded<T>>(k, p, g, self.scale::<R>(k, i), slots)
    }
    fn element(
        &self,
        k: &R::Coefs<Bounded<T>>,
        i: usize,
        p: Bounded<T>,
        g: Bounded<T>,
        slots: R::Slots<Bounded<T>>,
    ) -> (Bounded<T>, R::Slots<Bounded<T>>) {
        R::factored_update::<Bounded<T>>(k, p, g, self.scale::<R>(k, i), slots)
    }
}
