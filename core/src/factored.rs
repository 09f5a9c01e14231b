//! Matrix rules with row and column state: Adafactor and its kin.
//!
//! Instead of one number per element, such a rule keeps one per row and one per
//! column of the last two dimensions (leading ones are batches). A step reads the
//! gradient three times and the parameter twice:
//!
//! 1. [`squares`]: sums of a function of the gradient along rows and down columns;
//!    [`Factors::track`] then moves the state and leaves a factor per row and column;
//! 2. [`sums`]: [`Factored::scaled_terms`] over the whole tensor, in the flat order
//!    of [`crate::reduce`]; [`Rule::finish`] completes the constants;
//! 3. [`apply`] runs [`Factored::scaled_element`].
//!
//! Tensors below two dimensions go through the rule's own [`Rule::element`].
//! [`Matrix`] is the whole job, for tensors of any shape and type.

use half::{bf16, f16};

use crate::any::{self, AnyRule, Arithmetic, RuleInfo};
use crate::args::Hyper;
use crate::array::Array;
use crate::eager::Eager;
use crate::error::Error;
use crate::mode::Mode;
use crate::real::{Dtype, Number, Real};
use crate::reduce::{self, CHUNK, Columns, Terms, column_levels};
use crate::rule::{
    InPlaceOf, Passes, Rule, Scalars, Start, Step, Tensor, Uses, check_group, mask_at, run,
    sums_of_param, with_mask,
};
use crate::simd::{self, Kernel};
use crate::storage::{Data, DataMut, MAX_BLOCK, Plain, numel, stretch};

/// A rule that keeps row and column state for matrices. As a [`Rule`] it is what
/// it does to tensors that are none.
pub trait Factored: Rule {
    /// [`Rule::SLOTS`], then the names of the row state and of the column state.
    const NAMES: &'static [&'static str];
    /// The slots (as bits) that row and column state stand in for. Both the masks
    /// with and without them are among [`Rule::MASKS`].
    const REPLACED: u32;
    /// Whether the reference keeps the dimension that was summed, as 1, in the state's shape.
    const KEEPS_DIMS: bool = false;

    /// What is averaged along rows and down columns.
    fn square<C: Real>(k: &Self::Coefs<C>, g: C) -> C::Scalar;
    /// The average of n squares.
    #[inline(always)]
    fn mean<C: Real>(k: &Self::Coefs<C>, sum: C::Scalar, n: C::Scalar) -> C {
        let _ = k;
        C::narrow(sum / n)
    }
    /// The state afterwards.
    fn track<C: Real>(k: &Self::Coefs<C>, old: C, mean: C) -> C;
    /// The average of the row state of a matrix of n rows.
    #[inline(always)]
    fn mean_of_rows<C: Real>(k: &Self::Coefs<C>, sum: C::Scalar, n: C::Scalar) -> C {
        let _ = k;
        C::narrow(sum / n)
    }
    /// What is computed of a row's state once.
    #[inline(always)]
    fn row_factor<C: Real>(k: &Self::Coefs<C>, row: C, mean_of_rows: C) -> C {
        let _ = (k, mean_of_rows);
        row
    }
    /// What is computed of a column's state once.
    #[inline(always)]
    fn col_factor<C: Real>(k: &Self::Coefs<C>, col: C) -> C {
        let _ = k;
        col
    }
    /// What multiplies the gradient of an element.
    fn scale<C: Real>(k: &Self::Coefs<C>, row_factor: C, col_factor: C, mean_of_rows: C) -> C;
    /// [`Rule::terms`] of an element.
    fn scaled_terms<C: Real>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        scale: C,
        slots: Self::Slots<C>,
    ) -> [C::Scalar; 2];
    /// [`Rule::element`] of an element.
    fn scaled_element<C: Real>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        scale: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>);
}

/// A tensor as a batch of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How many matrices.
    pub batches: usize,
    /// Their rows.
    pub rows: usize,
    /// Their columns.
    pub cols: usize,
}

impl Layout {
    /// The last two dimensions are the matrix; `None` below two dimensions.
    #[must_use]
    pub fn of(shape: &[usize]) -> Option<Layout> {
        let (leading, &[rows, cols]) = shape.split_last_chunk::<2>()?;
        Some(Layout { batches: numel(leading), rows, cols })
    }

    /// The number of elements.
    #[must_use]
    pub fn len(self) -> usize {
        numel(&[self.batches, self.rows, self.cols])
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many numbers of scratch memory a step needs.
    #[must_use]
    pub fn workspace(self) -> usize {
        [
            numel(&[self.batches, self.rows]),
            numel(&[self.batches, self.cols]),
            self.batches,
            numel(&[column_levels(self.rows), self.cols]),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}

/// The scratch memory of a step: sums first, then the factors that take their place.
struct Work<'w, A> {
    rows: &'w mut [A],
    cols: &'w mut [A],
    means: &'w mut [A],
    levels: &'w mut [A],
}

impl<'w, A> Work<'w, A> {
    fn split(layout: Layout, work: &'w mut [A]) -> Option<Self> {
        let Layout { batches, rows, cols } = layout;
        let (rows_, work) = work.split_at_mut_checked(numel(&[batches, rows]))?;
        let (cols_, work) = work.split_at_mut_checked(numel(&[batches, cols]))?;
        let (means, work) = work.split_at_mut_checked(batches)?;
        let levels = work.get_mut(..numel(&[column_levels(rows), cols]))?;
        Some(Work { rows: rows_, cols: cols_, means, levels })
    }
}

/// Writes the sums of [`Factored::square`] along every row and down every column
/// into `work`. Does nothing if a slice is too short.
pub fn squares<R: Factored, C: Real<Stored: Plain>>(
    coefs: &R::Coefs<C>,
    layout: Layout,
    grad: Data<'_>,
    work: &mut [C::Scalar],
) {
    let Some(work) = Work::split(layout, work) else { return };
    if grad.len() == layout.len() {
        simd::dispatch_in::<C, C, _>(Squares::<R, C> { coefs, layout, grad, work });
    }
}

struct Squares<'a, R: Rule, C: Real> {
    coefs: &'a R::Coefs<C>,
    layout: Layout,
    grad: Data<'a>,
    work: Work<'a, C::Scalar>,
}

impl<R: Factored, C: Real<Stored: Plain>> Kernel for Squares<'_, R, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Layout { batches, rows, cols } = self.layout;
        let Work { rows: row_sums, cols: col_sums, levels, .. } = self.work;
        let mut buffers = [[C::Scalar::ZERO; CHUNK]];
        for batch in 0..batches {
            let mut columns = Columns::new(levels, cols);
            for row in batch * rows..(batch + 1) * rows {
                let (coefs, grad, first) = (self.coefs, self.grad, row * cols);
                let squares = RowSquares::<R, C> { coefs, grad, first, columns: columns.row() };
                let [sum] = reduce::sums_within(&mut buffers, cols, squares);
                if let Some(x) = row_sums.get_mut(row) {
                    *x = sum;
                }
                columns.added();
            }
            let to = col_sums.get_mut(batch * cols..(batch + 1) * cols).unwrap_or_default();
            for (x, sum) in to.iter_mut().zip(columns.finish()) {
                *x = *sum;
            }
        }
    }
}

/// The squares of a row, which are added to the columns in passing.
struct RowSquares<'a, R: Factored, C: Real> {
    coefs: &'a R::Coefs<C>,
    grad: Data<'a>,
    /// Where the row begins.
    first: usize,
    columns: &'a mut [C::Scalar],
}

impl<R: Factored, C: Real<Stored: Plain>> Terms<C::Scalar, 1> for RowSquares<'_, R, C> {
    #[inline(always)]
    #[expect(
        clippy::collapsible_if,
        reason = "a constant guard keeps what can not run from being compiled"
    )]
    fn fill(&mut self, start: usize, [squares]: [&mut [C::Scalar]; 1]) {
        let columns = self.columns.get_mut(start..).unwrap_or_default();
        let first = self.first + start;
        if let Some(grad) = C::Stored::of(&self.grad) {
            let grad = grad.get(first..).unwrap_or_default();
            return squares_of::<R, C, _>(self.coefs, grad, squares, columns);
        }
        // The usual types of large models need no buffer.
        if const { matches!(C::DTYPE, Dtype::F32) } {
            if let Data::Bf16(grad) = &self.grad {
                let grad = grad.get(first..).unwrap_or_default();
                return squares_of::<R, C, _>(self.coefs, grad, squares, columns);
            }
        }
        let mut buffer = [C::Stored::default(); CHUNK];
        let grad = buffer.get_mut(..squares.len()).unwrap_or_default();
        self.grad.load(first, grad);
        squares_of::<R, C, _>(self.coefs, grad, squares, columns);
    }
}

#[inline(always)]
fn squares_of<R: Factored, C: Real, G: Number>(
    coefs: &R::Coefs<C>,
    grad: &[G],
    squares: &mut [C::Scalar],
    columns: &mut [C::Scalar],
) {
    for ((x, g), column) in squares.iter_mut().zip(grad).zip(columns) {
        *x = R::square::<C>(coefs, C::load(*g));
        *column = *column + *x;
    }
}

/// What an element's row and column contribute.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a, A> {
    layout: Layout,
    rows: &'a [A],
    cols: &'a [A],
    means: &'a [A],
}

impl<'a, A: Real<Scalar = A>> Factors<'a, A> {
    /// Moves row and column state by the sums that [`squares`] left in `work`,
    /// which holds the factors from then on. `None` if a slice is too short.
    pub fn track<R: Factored, C: Real<Scalar = A, Stored: Plain>>(
        coefs: &R::Coefs<C>,
        layout: Layout,
        work: &'a mut [A],
        row: &mut DataMut<'_>,
        col: &mut DataMut<'_>,
    ) -> Option<Self> {
        let Work { rows, cols, means, .. } = Work::split(layout, work)?;
        let (height, width) = (layout.rows, layout.cols);
        track::<R, C>(coefs, rows, width, row);
        track::<R, C>(coefs, cols, height, col);
        for (batch, mean) in means.iter_mut().enumerate() {
            let rows = rows.get_mut(batch * height..(batch + 1) * height).unwrap_or_default();
            let sum = reduce::sum(rows.len(), |i| rows.get(i).copied().unwrap_or(A::ZERO));
            let mean_of_rows = R::mean_of_rows::<C>(coefs, sum, A::from_f64(height as f64));
            for x in rows {
                *x = R::row_factor::<C>(coefs, C::narrow(*x), mean_of_rows).wide();
            }
            *mean = mean_of_rows.wide();
        }
        for x in cols.iter_mut() {
            *x = R::col_factor::<C>(coefs, C::narrow(*x)).wide();
        }
        Some(Factors { layout, rows, cols, means })
    }

    /// Cuts a stretch of `len` elements from `start` on at the ends of rows.
    #[inline(always)]
    fn segments(&self, start: usize, len: usize) -> Segments<'_, A> {
        let Layout { rows, cols, .. } = self.layout;
        let len = if rows == 0 || cols == 0 { 0 } else { len };
        let width = cols.max(1);
        Segments { factors: self, row: start / width, col: start % width, at: 0, len }
    }
}

/// The parts of a stretch, one row's at a time.
struct Segments<'a, A> {
    factors: &'a Factors<'a, A>,
    row: usize,
    col: usize,
    at: usize,
    len: usize,
}

/// One of them.
struct Segment<'a, A> {
    /// Where it begins in the stretch.
    at: usize,
    row: A,
    mean: A,
    cols: &'a [A],
}

impl<'a, A: Real> Segments<'a, A> {
    #[inline(always)]
    fn next(&mut self) -> Option<Segment<'a, A>> {
        if self.at >= self.len {
            return None;
        }
        let Layout { rows, cols, .. } = self.factors.layout;
        let width = (cols - self.col).min(self.len - self.at);
        let batch = self.row / rows;
        let first = batch * cols + self.col;
        let segment = Segment {
            at: self.at,
            row: *self.factors.rows.get(self.row)?,
            mean: *self.factors.means.get(batch)?,
            cols: self.factors.cols.get(first..first + width)?,
        };
        (self.row, self.col, self.at) = (self.row + 1, 0, self.at + width);
        Some(segment)
    }
}

/// Turns sums over n squares into averages, and those into the state afterwards.
fn track<R: Factored, C: Real<Stored: Plain>>(
    coefs: &R::Coefs<C>,
    sums: &mut [C::Scalar],
    n: usize,
    state: &mut DataMut<'_>,
) {
    let n = C::scalar(n as f64);
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    let stretch = stretch([state.block()]).unwrap_or(MAX_BLOCK);
    for (block, sums) in sums.chunks_mut(stretch).enumerate() {
        let values = buffer.get_mut(..sums.len()).unwrap_or_default();
        state.load(block * stretch, values);
        for (x, sum) in values.iter_mut().zip(sums) {
            let tracked = R::track::<C>(coefs, C::load(*x), R::mean::<C>(coefs, *sum, n));
            (*x, *sum) = (tracked.store(), tracked.wide());
        }
        state.store(block * stretch, values);
    }
}

/// The sums of [`Factored::scaled_terms`] over a tensor, or over a part of one cut
/// at a multiple of [`reduce::PART`] that begins at element `start`.
pub fn sums<R: Factored, C: Real, P: Number, G: Number, S: Number>(
    coefs: &R::Coefs<C>,
    mask: u32,
    factors: &Factors<'_, C::Scalar>,
    start: usize,
    param: &[P],
    grad: &[G],
    slots: &R::Slots<&[S]>,
) -> [C::Scalar; 2] {
    with_mask!(R, mask, I => simd::dispatch_in::<C, P, _>(Sums::<R, C, P, G, S, I> {
        coefs, factors, start, param, grad, slots
    }))
}

struct Sums<'a, 's, R: Rule, C: Real, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    factors: &'a Factors<'a, C::Scalar>,
    start: usize,
    param: &'a [P],
    grad: &'a [G],
    slots: &'a R::Slots<&'s [S]>,
}

impl<R: Factored, C: Real, P: Number, G: Number, S: Number, const I: usize>
    Sums<'_, '_, R, C, P, G, S, I>
{
    /// The terms from element `from` of the slices on.
    #[inline(always)]
    fn terms(&self, from: usize, [a, b]: [&mut [C::Scalar]; 2]) {
        let mask = const { mask_at::<R, I>() };
        let views = self.slots.as_ref();
        let mut segments = self.factors.segments(self.start + from, a.len());
        while let Some(Segment { at, row, mean, cols }) = segments.next() {
            let (begin, n) = (from + at, cols.len());
            let part = begin..begin + n;
            let (Some(param), Some(grad), Some(a), Some(b)) = (
                self.param.get(part.clone()),
                self.grad.get(part.clone()),
                a.get_mut(at..at + n),
                b.get_mut(at..at + n),
            ) else {
                return;
            };
            let slots = R::Slots::<&[S]>::from_fn(|k| {
                views.get(k).and_then(|s| s.get(part.clone())).unwrap_or_default()
            });
            let slots = slots.as_ref();
            if slots.iter().enumerate().any(|(k, s)| mask >> k & 1 == 1 && s.len() != n) {
                return;
            }
            let (row, mean) = (C::narrow(row), C::narrow(mean));
            for i in 0..n {
                let state = R::Slots::<C>::from_fn(|k| {
                    if mask >> k & 1 == 1 { C::load(slots[k][i]) } else { C::ZERO }
                });
                let scale = R::scale::<C>(self.coefs, row, C::narrow(cols[i]), mean);
                let (p, g) = (C::load(param[i]), C::load(grad[i]));
                [a[i], b[i]] = R::scaled_terms::<C>(self.coefs, p, g, scale, state);
            }
        }
    }
}

impl<R: Factored, C: Real, P: Number, G: Number, S: Number, const I: usize> Kernel
    for Sums<'_, '_, R, C, P, G, S, I>
{
    type Output = [C::Scalar; 2];

    #[inline(always)]
    fn run(self) -> [C::Scalar; 2] {
        reduce::sums_by_chunk::<_, 2>(self.param.len(), self)
    }
}

impl<R: Factored, C: Real, P: Number, G: Number, S: Number, const I: usize> Terms<C::Scalar, 2>
    for Sums<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn fill(&mut self, from: usize, terms: [&mut [C::Scalar]; 2]) {
        self.terms(from, terms);
    }
}

/// Updates a tensor, or any part of one that begins at element `start`, with
/// finished coefficients. Leaves alone what a slice is too short for.
pub fn apply<R: Factored, C: Real, P: Number, G: Number, S: Number>(
    coefs: &R::Coefs<C>,
    mask: u32,
    factors: &Factors<'_, C::Scalar>,
    start: usize,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    with_mask!(R, mask, I => simd::dispatch_in::<C, P, _>(Apply::<R, C, P, G, S, I> {
        coefs, factors, start, param, grad, slots
    }))
}

struct Apply<'a, 's, R: Rule, C: Real, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    factors: &'a Factors<'a, C::Scalar>,
    start: usize,
    param: &'a mut [P],
    grad: &'a [G],
    slots: R::Slots<&'s mut [S]>,
}

impl<R: Factored, C: Real, P: Number, G: Number, S: Number, const I: usize> Kernel
    for Apply<'_, '_, R, C, P, G, S, I>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.each::<true>();
    }

    #[inline(always)]
    fn run_scalar(self) {
        self.each::<false>();
    }
}

impl<R: Factored, C: Real, P: Number, G: Number, S: Number, const I: usize>
    Apply<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn each<const VECTORS: bool>(mut self) {
        let mask = const { mask_at::<R, I>() };
        let coefs = *self.coefs;
        let views = self.slots.as_mut();
        let len = self.param.len();
        let mut segments = self.factors.segments(self.start, len);
        while let Some(Segment { at, row, mean, cols }) = segments.next() {
            let n = cols.len();
            let (Some(param), Some(grad)) =
                (self.param.get_mut(at..at + n), self.grad.get(at..at + n))
            else {
                return;
            };
            let mut views = views.iter_mut();
            let mut slots = R::Slots::<&mut [S]>::from_fn(|_| {
                views.next().and_then(|s| s.get_mut(at..at + n)).unwrap_or_default()
            });
            let slots = slots.as_mut();
            if slots.iter().enumerate().any(|(k, s)| mask >> k & 1 == 1 && s.len() != n) {
                return;
            }
            let (row, mean) = (C::narrow(row), C::narrow(mean));
            for i in 0..n {
                if !VECTORS {
                    simd::one_by_one();
                }
                let state = R::Slots::<C>::from_fn(|k| {
                    if mask >> k & 1 == 1 { C::load(slots[k][i]) } else { C::ZERO }
                });
                let scale = R::scale::<C>(&coefs, row, C::narrow(cols[i]), mean);
                let (p, g) = (C::load(param[i]), C::load(grad[i]));
                let (p, state) = R::scaled_element::<C>(&coefs, p, g, scale, state);
                param[i] = p.store();
                for (k, x) in state.as_ref().iter().enumerate() {
                    if mask >> k & 1 == 1 {
                        slots[k][i] = x.store();
                    }
                }
            }
        }
    }
}

impl<R: Factored, C: Real> Passes<R, C> for &Factors<'_, C::Scalar> {
    fn sums<P: Number, G: Number, S: Number>(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2] {
        sums::<R, C, P, G, S>(k, mask, self, 0, param, grad, slots)
    }

    fn terms(
        self,
        coefs: &R::Coefs<C>,
        mask: u32,
        start: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        terms: [&mut [C::Scalar]; 2],
    ) {
        with_mask!(R, mask, I => Sums::<R, C, C::Stored, C::Stored, C::Stored, I> {
            coefs, factors: self, start, param, grad, slots
        }.terms(0, terms));
    }

    fn apply<P: Number, G: Number, S: Number>(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        start: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    ) {
        apply::<R, C, P, G, S>(k, mask, self, start, param, grad, slots);
    }
}

/// The slots that a factored tensor has in full.
fn factored_mask<R: Factored>(rule: &R, compute: Dtype) -> u32 {
    rule.mask(compute) & !R::REPLACED
}

/// A factored rule for tensors of any shape: row and column state from two dimensions on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Matrix<R>(pub R);

impl<R: Factored> AnyRule for Matrix<R> {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part(R::ID);
    }
    fn check(&self) -> Result<(), Error> {
        Rule::check(&self.0)
    }
    fn info(&self) -> RuleInfo {
        RuleInfo { slots: R::NAMES, is_elementwise: false, ..self.0.info() }
    }
    fn hyper(&mut self) -> &mut dyn Hyper {
        &mut self.0
    }
    fn lr(&self) -> f64 {
        Rule::lr(&self.0)
    }
    fn settle(&mut self) {
        Rule::settle(&mut self.0);
    }
    fn norm_scale(&self, given: &[(&str, f64)]) -> Option<f64> {
        Rule::norm_scale(&self.0, given)
    }
    fn grad_norm(&self, grads: &[Data<'_>], scale: f64) -> f64 {
        Rule::grad_norm(&self.0, grads, scale)
    }
    fn scalars_of(&self, index: usize) -> Scalars {
        self.0.scalars_of(index)
    }
    fn advance(&self, step: &Step, scalars: &mut Scalars) {
        Rule::advance(&self.0, step, scalars);
    }
    fn slot_len(&self, slot: usize, shape: &[usize], compute: Dtype) -> usize {
        let full = R::SLOTS.len();
        match Layout::of(shape) {
            None if slot < full => self.0.slot_len(slot, shape, compute),
            None => 0,
            Some(l) if slot == full => numel(&[l.batches, l.rows]),
            Some(l) if slot == full + 1 => numel(&[l.batches, l.cols]),
            Some(_) if factored_mask(&self.0, compute) >> slot & 1 == 1 => numel(shape),
            Some(_) => 0,
        }
    }
    fn slot_dims(&self, slot: usize, shape: &[usize], dims: &mut dyn FnMut(usize)) {
        // Rows are summed along the last dimension, columns along the one before.
        let summed = (shape.len() + R::SLOTS.len()).checked_sub(slot + 1);
        let partial = slot >= R::SLOTS.len() && shape.len() > 1;
        for (axis, &d) in shape.iter().enumerate() {
            match partial && Some(axis) == summed {
                false => dims(d),
                true if R::KEEPS_DIMS => dims(1),
                true => {}
            }
        }
    }
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        Rule::slot_dtype(&self.0, slot, param)
    }
    fn slot_start(&self, slot: usize) -> Start {
        if slot < R::SLOTS.len() { self.0.start(slot) } else { Start::Value(0.0) }
    }
    fn workspace(&self, shape: &[usize]) -> usize {
        Layout::of(shape).map_or(0, Layout::workspace)
    }
    fn update(
        &self,
        arithmetic: Arithmetic,
        step: &Step,
        scalars: &mut Scalars,
        mut tensor: Tensor<'_, '_>,
    ) -> Result<(), Error> {
        check_group(Rule::check(&self.0))?;
        any::check_tensor(self, arithmetic, step, &tensor)?;
        let Some(layout) = Layout::of(tensor.shape) else {
            tensor.slots = tensor.slots.get_mut(..R::SLOTS.len()).unwrap_or_default();
            return self.0.update(arithmetic, step, scalars, tensor);
        };
        match arithmetic.compute(tensor.param.dtype()) {
            Dtype::F64 => update::<R, f64>(&self.0, step, scalars, layout, tensor, None).map(drop),
            Dtype::F32 => update::<R, f32>(&self.0, step, scalars, layout, tensor, None).map(drop),
            _ if const { !R::EAGER } => Err(any::NOT_EAGER),
            Dtype::Bf16 => {
                update::<R, Eager<bf16>>(&self.0, step, scalars, layout, tensor, None).map(drop)
            }
            Dtype::F16 => {
                update::<R, Eager<f16>>(&self.0, step, scalars, layout, tensor, None).map(drop)
            }
        }
    }
    fn convert(
        &self,
        arithmetic: Arithmetic,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        let full = slots.get_mut(..R::SLOTS.len()).unwrap_or_default();
        AnyRule::convert(&self.0, arithmetic, to, param, full)
    }
    #[cfg(feature = "alloc")]
    fn boxed(&self) -> alloc::boxed::Box<dyn AnyRule> {
        alloc::boxed::Box::new(*self)
    }
}

/// A step of a matrix. Where it is a projection, a tensor of zeros in place of `whole`, that
/// parameter's own sums count.
pub(crate) fn update<R: Factored, C: Real<Scalar: Plain, Stored: Plain>>(
    rule: &R,
    step: &Step,
    scalars: &mut Scalars,
    layout: Layout,
    mut t: Tensor<'_, '_>,
    whole: Option<&DataMut<'_>>,
) -> Result<R::Coefs<C>, Error> {
    let mut work = core::mem::replace(&mut t.work, DataMut::F32(&mut []));
    let (Some(work), Some((slots, [row, col]))) =
        (<C::Scalar as Plain>::of_mut(&mut work), t.slots.split_last_chunk_mut::<2>())
    else {
        return Err(Error::Invalid {
            argument: "work",
            wanted: "f64 numbers if computed in f64, else f32",
        });
    };
    let mut k = rule.coefs::<C>(&step.of(t.shape), scalars);
    squares::<R, C>(&k, layout, t.grad, work);
    if let Some(factors) = Factors::track::<R, C>(&k, layout, work, row, col) {
        t.slots = slots;
        let uses = Uses { mask: factored_mask(rule, C::DTYPE), ..Uses::of(rule, C::DTYPE) };
        if let Some(whole) = whole {
            let sums = sums_of_param::<R, C>(&k, whole, t.param.len());
            run::<R, C, _>(InPlaceOf(&factors, sums), &mut k, uses, scalars, &mut t);
        } else {
            run::<R, C, _>(&factors, &mut k, uses, scalars, &mut t);
        }
    }
    Ok(k)
}
