//! Matrix rules with row and column state: Adafactor and its relatives.
//!
//! Instead of a moment per element, such a rule keeps one per row and one per
//! column of the last two dimensions (leading ones are batches). A step reads the
//! gradient three times and the parameter twice:
//!
//! 1. [`squares`]: sums of [`FactoredUpdate::accumulate_term`] along rows and down columns;
//!    [`Factors::track`] then updates the state and leaves a factor per row and column;
//! 2. [`sums`]: [`FactoredUpdate::factored_terms`] over the whole tensor, in the flat order
//!    of [`crate::math::reduce`]; [`Rule::apply_sums`] completes the constants;
//! 3. [`apply`] runs [`FactoredUpdate::factored_update`].
//!
//! Tensors of fewer than two dimensions use the rule's own [`Rule::update`].
//! [`FactoredRule`] does all of this, for tensors of any shape and type.

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::error::Error;
use crate::float::Eager;
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::hyper::HyperParams;
use crate::math::reduce::{self, CHUNK, Columns, TermSource, column_levels};
use crate::rule::elementwise::{Terms, are_as_long, load_slots_at, parts, parts_mut};
use crate::rule::mode::Mode;
use crate::rule::{self, ComputePolicy, DynRule, RuleInfo};
use crate::rule::{
    ActiveParts, KernelSet, Rule, ScalarState, SlotInit, StepContext, UpdateBuffers, WithParamSums,
    active_slots_at, allow_negative_decay, param_sums, run, with_active_slots,
};
use crate::storage::{Data, DataMut, MAX_BLOCK, Plain, chunk_len, numel};

/// A rule that keeps row and column state for matrices. Its [`Rule`] methods apply to
/// tensors of fewer than two dimensions.
pub trait FactoredUpdate: Rule {
    /// [`Rule::SLOTS`], then the names of the row state and of the column state.
    const SLOT_NAMES: &'static [&'static str];
    /// The slots (bit k: slot k) that row and column state replace. [`Rule::SLOT_MASKS`] lists
    /// the combinations with and without them.
    const FACTORED_SLOTS: u32;
    /// Whether the reference keeps the reduced dimension, as 1, in the state's shape (`keepdim`).
    const KEEPDIM: bool = false;

    /// The function of the gradient that is averaged along rows and down columns, such as g² + ε.
    fn accumulate_term<C: ComputeFloat>(k: &Self::Coefs<C>, g: C) -> C::Scalar;
    /// The mean of n terms, from their sum.
    #[inline(always)]
    fn mean<C: ComputeFloat>(k: &Self::Coefs<C>, sum: C::Scalar, n: C::Scalar) -> C {
        let _ = k;
        C::round_from(sum / n)
    }
    /// The new row or column state, from the old one and the mean.
    fn update_moment<C: ComputeFloat>(k: &Self::Coefs<C>, old: C, mean: C) -> C;
    /// The mean of a matrix's row state, from its sum over n rows.
    #[inline(always)]
    fn mean_of_rows<C: ComputeFloat>(k: &Self::Coefs<C>, sum: C::Scalar, n: C::Scalar) -> C {
        let _ = k;
        C::round_from(sum / n)
    }
    /// The factor of a row, computed once from its state.
    #[inline(always)]
    fn row_factor<C: ComputeFloat>(k: &Self::Coefs<C>, row: C, mean_of_rows: C) -> C {
        let _ = (k, mean_of_rows);
        row
    }
    /// The factor of a column, computed once from its state.
    #[inline(always)]
    fn col_factor<C: ComputeFloat>(k: &Self::Coefs<C>, col: C) -> C {
        let _ = k;
        col
    }
    /// The factor of an element's gradient.
    fn element_scale<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        row_factor: C,
        col_factor: C,
        mean_of_rows: C,
    ) -> C;
    /// [`Rule::sum_terms`] of an element.
    fn factored_terms<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        scale: C,
        slots: Self::Slots<C>,
    ) -> [C::Scalar; 2];
    /// [`Rule::update`] of an element.
    fn factored_update<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        scale: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>);
}

/// A tensor as a batch of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixLayout {
    /// The number of matrices.
    pub batches: usize,
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub cols: usize,
}

impl MatrixLayout {
    /// The last two dimensions are the matrix; `None` below two dimensions.
    #[must_use]
    pub fn of(shape: &[usize]) -> Option<MatrixLayout> {
        let (leading, &[rows, cols]) = shape.split_last_chunk::<2>()?;
        Some(MatrixLayout { batches: numel(leading), rows, cols })
    }

    /// The number of elements.
    #[must_use]
    pub fn len(self) -> usize {
        numel(&[self.batches, self.rows, self.cols])
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The number of scratch elements that a step needs.
    #[must_use]
    pub fn scratch_len(self) -> usize {
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

/// The scratch space of a step: row and column sums, then the factors that replace them.
struct Scratch<'w, A> {
    rows: &'w mut [A],
    cols: &'w mut [A],
    means: &'w mut [A],
    /// Partial sums of the columns of one matrix: a row of them for each of its [`column_levels`].
    levels: &'w mut [A],
}

impl<'w, A> Scratch<'w, A> {
    fn split(layout: MatrixLayout, scratch: &'w mut [A]) -> Option<Self> {
        let MatrixLayout { batches, rows: height, cols: width } = layout;
        let (rows, scratch) = scratch.split_at_mut_checked(numel(&[batches, height]))?;
        let (cols, scratch) = scratch.split_at_mut_checked(numel(&[batches, width]))?;
        let (means, scratch) = scratch.split_at_mut_checked(batches)?;
        let levels = scratch.get_mut(..numel(&[column_levels(height), width]))?;
        Some(Scratch { rows, cols, means, levels })
    }
}

/// Writes the sums of [`FactoredUpdate::accumulate_term`] along every row and down every column
/// into `scratch` ([`MatrixLayout::scratch_len`] elements). Does nothing if a slice is too short.
pub fn squares<R: FactoredUpdate, C: ComputeFloat<Stored: Plain>>(
    coefs: &R::Coefs<C>,
    layout: MatrixLayout,
    grad: Data<'_>,
    scratch: &mut [C::Scalar],
) {
    let Some(scratch) = Scratch::split(layout, scratch) else { return };
    if grad.len() == layout.len() {
        simd::dispatch_in::<C, C, _>(Squares::<R, C> { coefs, layout, grad, scratch });
    }
}

struct Squares<'a, R: Rule, C: ComputeFloat> {
    coefs: &'a R::Coefs<C>,
    layout: MatrixLayout,
    grad: Data<'a>,
    scratch: Scratch<'a, C::Scalar>,
}

impl<R: FactoredUpdate, C: ComputeFloat<Stored: Plain>> Kernel for Squares<'_, R, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let MatrixLayout { batches, rows, cols } = self.layout;
        let Scratch { rows: row_sums, cols: col_sums, levels, .. } = self.scratch;
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
                columns.commit_row();
            }
            let to = col_sums.get_mut(batch * cols..(batch + 1) * cols).unwrap_or_default();
            for (x, sum) in to.iter_mut().zip(columns.finish()) {
                *x = *sum;
            }
        }
    }
}

/// The terms of a row, which are added to the column sums on the way.
struct RowSquares<'a, R: FactoredUpdate, C: ComputeFloat> {
    coefs: &'a R::Coefs<C>,
    grad: Data<'a>,
    /// Index of the row's first element.
    first: usize,
    columns: &'a mut [C::Scalar],
}

impl<R: FactoredUpdate, C: ComputeFloat<Stored: Plain>> TermSource<C::Scalar, 1>
    for RowSquares<'_, R, C>
{
    #[inline(always)]
    #[expect(
        clippy::collapsible_if,
        reason = "a constant guard keeps unreachable code from being compiled"
    )]
    fn fill(&mut self, start: usize, [squares]: [&mut [C::Scalar]; 1]) {
        let columns = self.columns.get_mut(start..).unwrap_or_default();
        let first = self.first + start;
        if let Some(grad) = C::Stored::of(&self.grad) {
            let grad = grad.get(first..).unwrap_or_default();
            return squares_of::<R, C, _>(self.coefs, grad, squares, columns);
        }
        // `bf16` gradients, the usual type of large models, are read without a buffer too.
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
fn squares_of<R: FactoredUpdate, C: ComputeFloat, G: StoredFloat>(
    coefs: &R::Coefs<C>,
    grad: &[G],
    squares: &mut [C::Scalar],
    columns: &mut [C::Scalar],
) {
    for ((x, g), column) in squares.iter_mut().zip(grad).zip(columns) {
        *x = R::accumulate_term::<C>(coefs, C::load(*g));
        *column = *column + *x;
    }
}

/// The factor of each row and column, and the mean of each matrix's row state.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a, A> {
    layout: MatrixLayout,
    rows: &'a [A],
    cols: &'a [A],
    means: &'a [A],
}

impl<'a, A: ComputeFloat<Scalar = A>> Factors<'a, A> {
    /// Updates row and column state from the sums that [`squares`] left in `scratch`,
    /// and replaces those by the factors. `None` if a slice is too short.
    pub fn track<R: FactoredUpdate, C: ComputeFloat<Scalar = A, Stored: Plain>>(
        coefs: &R::Coefs<C>,
        layout: MatrixLayout,
        scratch: &'a mut [A],
        row: &mut DataMut<'_>,
        col: &mut DataMut<'_>,
    ) -> Option<Self> {
        let Scratch { rows, cols, means, .. } = Scratch::split(layout, scratch)?;
        let (height, width) = (layout.rows, layout.cols);
        update_moments::<R, C>(coefs, rows, width, row);
        update_moments::<R, C>(coefs, cols, height, col);
        for (batch, mean) in means.iter_mut().enumerate() {
            let rows = rows.get_mut(batch * height..(batch + 1) * height).unwrap_or_default();
            let sum = reduce::sum(rows.len(), |i| rows.get(i).copied().unwrap_or(A::ZERO));
            let mean_of_rows = R::mean_of_rows::<C>(coefs, sum, A::from_f64(height as f64));
            for x in rows {
                *x = R::row_factor::<C>(coefs, C::round_from(*x), mean_of_rows).widen();
            }
            *mean = mean_of_rows.widen();
        }
        for x in cols.iter_mut() {
            *x = R::col_factor::<C>(coefs, C::round_from(*x)).widen();
        }
        Some(Factors { layout, rows, cols, means })
    }

    /// Splits `start..start + len` at row boundaries.
    #[inline(always)]
    fn segments(&self, start: usize, len: usize) -> Segments<'_, A> {
        let MatrixLayout { rows, cols, .. } = self.layout;
        let len = if rows == 0 || cols == 0 { 0 } else { len };
        let width = cols.max(1);
        Segments { factors: self, row: start / width, col: start % width, at: 0, len }
    }
}

/// The segments of a chunk, each within one row.
struct Segments<'a, A> {
    factors: &'a Factors<'a, A>,
    row: usize,
    col: usize,
    at: usize,
    len: usize,
}

/// The part of a chunk that lies in one row.
struct Segment<'a, A> {
    /// Its first element's index in the chunk.
    at: usize,
    row: A,
    mean: A,
    cols: &'a [A],
}

impl<'a, A: ComputeFloat> Segments<'a, A> {
    #[inline(always)]
    fn next(&mut self) -> Option<Segment<'a, A>> {
        if self.at >= self.len {
            return None;
        }
        let MatrixLayout { rows, cols, .. } = self.factors.layout;
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

/// Turns sums of n terms into means, updates `state` with them, and leaves the new state in `sums`.
fn update_moments<R: FactoredUpdate, C: ComputeFloat<Stored: Plain>>(
    coefs: &R::Coefs<C>,
    sums: &mut [C::Scalar],
    n: usize,
    state: &mut DataMut<'_>,
) {
    let n = C::scalar(n as f64);
    let mut buffer = [C::Stored::default(); MAX_BLOCK];
    let chunk_len = chunk_len([state.block()]).unwrap_or(MAX_BLOCK);
    for (block, sums) in sums.chunks_mut(chunk_len).enumerate() {
        let values = buffer.get_mut(..sums.len()).unwrap_or_default();
        state.load(block * chunk_len, values);
        for (x, sum) in values.iter_mut().zip(sums) {
            let moment = R::update_moment::<C>(coefs, C::load(*x), R::mean::<C>(coefs, *sum, n));
            (*x, *sum) = (moment.store(), moment.widen());
        }
        state.store(block * chunk_len, values);
    }
}

/// The sums of [`FactoredUpdate::factored_terms`] over a tensor, or over the part from element
/// `start` on, cut at multiples of [`reduce::PARTIAL_LEN`].
pub fn sums<R: FactoredUpdate, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    active: u32,
    factors: &Factors<'_, C::Scalar>,
    start: usize,
    param: &[P],
    grad: &[G],
    slots: &R::Slots<&[S]>,
) -> [C::Scalar; 2] {
    with_active_slots!(R, active, I => simd::dispatch_in::<C, P, _>(Sums::<R, C, P, G, S, I> {
        coefs, factors, start, param, grad, slots
    }))
}

struct Sums<'a, 's, R: Rule, C: ComputeFloat, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    factors: &'a Factors<'a, C::Scalar>,
    start: usize,
    param: &'a [P],
    grad: &'a [G],
    slots: &'a R::Slots<&'s [S]>,
}

impl<
    R: FactoredUpdate,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const I: usize,
> Sums<'_, '_, R, C, P, G, S, I>
{
    /// Writes the terms from element `from` of the slices on.
    #[inline(always)]
    fn terms<const VECTORS: bool>(&self, from: usize, [a, b]: [&mut [C::Scalar]; 2]) {
        let active = const { active_slots_at::<R, I>() };
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
            let slots: R::Slots<&[S]> = parts(views, part);
            let slots = slots.as_ref();
            if !are_as_long(slots, active, n) {
                return;
            }
            let (row, mean) = (C::round_from(row), C::round_from(mean));
            for i in 0..n {
                if !VECTORS {
                    simd::prevent_vectorization();
                }
                let state: R::Slots<C> = load_slots_at(slots, active, i);
                let scale = R::element_scale::<C>(self.coefs, row, C::round_from(cols[i]), mean);
                let (p, g) = (C::load(param[i]), C::load(grad[i]));
                [a[i], b[i]] = R::factored_terms::<C>(self.coefs, p, g, scale, state);
            }
        }
    }
}

impl<
    R: FactoredUpdate,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const I: usize,
> Kernel for Sums<'_, '_, R, C, P, G, S, I>
{
    type Output = [C::Scalar; 2];

    #[inline(always)]
    fn run(self) -> [C::Scalar; 2] {
        reduce::sums_by_chunk::<_, 2>(self.param.len(), Terms::<_, true>(self))
    }

    #[inline(always)]
    fn run_scalar(self) -> [C::Scalar; 2] {
        reduce::sums_by_chunk::<_, 2>(self.param.len(), Terms::<_, false>(self))
    }
}

impl<
    R: FactoredUpdate,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const I: usize,
    const VECTORS: bool,
> TermSource<C::Scalar, 2> for Terms<Sums<'_, '_, R, C, P, G, S, I>, VECTORS>
{
    #[inline(always)]
    fn fill(&mut self, from: usize, terms: [&mut [C::Scalar]; 2]) {
        self.0.terms::<VECTORS>(from, terms);
    }
}

/// Updates a tensor, or the part that begins at its element `start`, with completed
/// coefficients. Elements for which a slice is too short stay as they are.
pub fn apply<R: FactoredUpdate, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    active: u32,
    factors: &Factors<'_, C::Scalar>,
    start: usize,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    with_active_slots!(R, active, I => simd::dispatch_in::<C, P, _>(Apply::<R, C, P, G, S, I> {
        coefs, factors, start, param, grad, slots
    }))
}

struct Apply<'a, 's, R: Rule, C: ComputeFloat, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    factors: &'a Factors<'a, C::Scalar>,
    start: usize,
    param: &'a mut [P],
    grad: &'a [G],
    slots: R::Slots<&'s mut [S]>,
}

impl<
    R: FactoredUpdate,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const I: usize,
> Kernel for Apply<'_, '_, R, C, P, G, S, I>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.update_all::<true>();
    }

    #[inline(always)]
    fn run_scalar(self) {
        self.update_all::<false>();
    }
}

impl<
    R: FactoredUpdate,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const I: usize,
> Apply<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn update_all<const VECTORS: bool>(mut self) {
        let active = const { active_slots_at::<R, I>() };
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
            let mut slots: R::Slots<&mut [S]> = parts_mut(views, at..at + n);
            let slots = slots.as_mut();
            if !are_as_long(slots, active, n) {
                return;
            }
            let (row, mean) = (C::round_from(row), C::round_from(mean));
            for i in 0..n {
                if !VECTORS {
                    simd::prevent_vectorization();
                }
                let state: R::Slots<C> = load_slots_at(slots, active, i);
                let scale = R::element_scale::<C>(&coefs, row, C::round_from(cols[i]), mean);
                let (p, g) = (C::load(param[i]), C::load(grad[i]));
                let (p, state) = R::factored_update::<C>(&coefs, p, g, scale, state);
                param[i] = p.store();
                for (k, x) in state.as_ref().iter().enumerate() {
                    if active >> k & 1 == 1 {
                        slots[k][i] = x.store();
                    }
                }
            }
        }
    }
}

impl<R: FactoredUpdate, C: ComputeFloat> KernelSet<R, C> for &Factors<'_, C::Scalar> {
    fn sums<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2] {
        sums::<R, C, P, G, S>(k, active, self, 0, param, grad, slots)
    }

    fn terms(
        self,
        coefs: &R::Coefs<C>,
        active: u32,
        start: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        terms: [&mut [C::Scalar]; 2],
    ) {
        with_active_slots!(R, active, I => Sums::<R, C, C::Stored, C::Stored, C::Stored, I> {
            coefs, factors: self, start, param, grad, slots
        }.terms::<true>(0, terms));
    }

    fn apply<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        start: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    ) {
        apply::<R, C, P, G, S>(k, active, self, start, param, grad, slots);
    }
}

/// The active slots that a factored tensor keeps for each element.
fn full_slots<R: FactoredUpdate>(rule: &R, compute: Dtype) -> u32 {
    rule.active_slots(compute) & !R::FACTORED_SLOTS
}

/// A factored rule for tensors of any shape: row and column state from two dimensions on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FactoredRule<R>(pub R);

impl<R: FactoredUpdate> DynRule for FactoredRule<R> {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part(R::ID);
    }
    fn check(&self) -> Result<(), Error> {
        Rule::check(&self.0)
    }
    fn info(&self) -> RuleInfo {
        RuleInfo { slots: R::SLOT_NAMES, is_elementwise: false, ..self.0.info() }
    }
    fn hyper_params(&mut self) -> &mut dyn HyperParams {
        &mut self.0
    }
    fn lr(&self) -> f64 {
        Rule::lr(&self.0)
    }
    fn resolve_defaults(&mut self) {
        Rule::resolve_defaults(&mut self.0);
    }
    fn grad_norm_divisor(&self, extra: &[(&str, f64)]) -> Option<f64> {
        Rule::grad_norm_divisor(&self.0, extra)
    }
    fn grad_norm(&self, grads: &[Data<'_>], divisor: f64) -> f64 {
        Rule::grad_norm(&self.0, grads, divisor)
    }
    fn initial_scalars(&self, index: usize) -> ScalarState {
        self.0.initial_scalars(index)
    }
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        Rule::advance_scalars(&self.0, step, scalars);
    }
    fn slot_len(&self, slot: usize, shape: &[usize], compute: Dtype) -> usize {
        let full = R::SLOTS.len();
        match MatrixLayout::of(shape) {
            None if slot < full => self.0.slot_len(slot, shape, compute),
            None => 0,
            Some(l) if slot == full => numel(&[l.batches, l.rows]),
            Some(l) if slot == full + 1 => numel(&[l.batches, l.cols]),
            Some(_) if full_slots(&self.0, compute) >> slot & 1 == 1 => numel(shape),
            Some(_) => 0,
        }
    }
    fn slot_shape(&self, slot: usize, shape: &[usize], dims: &mut dyn FnMut(usize)) {
        // Row state is reduced along the last dimension, column state along the one before.
        let summed = (shape.len() + R::SLOTS.len()).checked_sub(slot + 1);
        let partial = slot >= R::SLOTS.len() && shape.len() > 1;
        for (axis, &d) in shape.iter().enumerate() {
            match partial && Some(axis) == summed {
                false => dims(d),
                true if R::KEEPDIM => dims(1),
                true => {}
            }
        }
    }
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        Rule::slot_dtype(&self.0, slot, param)
    }
    fn slot_init(&self, slot: usize) -> SlotInit {
        if slot < R::SLOTS.len() { self.0.slot_init(slot) } else { SlotInit::Constant(0.0) }
    }
    fn scratch_len(&self, shape: &[usize]) -> usize {
        MatrixLayout::of(shape).map_or(0, MatrixLayout::scratch_len)
    }
    fn update(
        &self,
        policy: ComputePolicy,
        step: &StepContext,
        scalars: &mut ScalarState,
        mut tensor: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        allow_negative_decay(Rule::check(&self.0))?;
        rule::check_tensor(self, policy, step, &tensor)?;
        let Some(layout) = MatrixLayout::of(tensor.shape) else {
            tensor.slots = tensor.slots.get_mut(..R::SLOTS.len()).unwrap_or_default();
            return self.0.update(policy, step, scalars, tensor);
        };
        match policy.compute(tensor.param.dtype()) {
            Dtype::F64 => update::<R, f64>(&self.0, step, scalars, layout, tensor, None).map(drop),
            Dtype::F32 => update::<R, f32>(&self.0, step, scalars, layout, tensor, None).map(drop),
            _ if const { !R::EAGER } => Err(rule::NOT_EAGER),
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
        policy: ComputePolicy,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        let full = slots.get_mut(..R::SLOTS.len()).unwrap_or_default();
        DynRule::convert(&self.0, policy, to, param, full)
    }
    #[cfg(feature = "alloc")]
    fn clone_box(&self) -> alloc::boxed::Box<dyn DynRule> {
        alloc::boxed::Box::new(*self)
    }
}

/// A step of a matrix. For a projection, a tensor of zeros that stands for the parameter `full`, the
/// [`Rule::PARAM_ONLY_SUMS`] are those of `full`.
pub(crate) fn update<R: FactoredUpdate, C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
    rule: &R,
    step: &StepContext,
    scalars: &mut ScalarState,
    layout: MatrixLayout,
    mut t: UpdateBuffers<'_, '_>,
    full: Option<&DataMut<'_>>,
) -> Result<R::Coefs<C>, Error> {
    let mut scratch = core::mem::replace(&mut t.scratch, DataMut::F32(&mut []));
    let (Some(scratch), Some((slots, [row, col]))) =
        (<C::Scalar as Plain>::of_mut(&mut scratch), t.slots.split_last_chunk_mut::<2>())
    else {
        return Err(Error::InvalidArgument {
            argument: "scratch",
            expected: "f64 numbers if computed in f64, else f32",
        });
    };
    let mut k = rule.coefs::<C>(&step.with_default_shape(t.shape), scalars);
    squares::<R, C>(&k, layout, t.grad, scratch);
    if let Some(factors) = Factors::track::<R, C>(&k, layout, scratch, row, col) {
        t.slots = slots;
        let active =
            ActiveParts { slots: full_slots(rule, C::DTYPE), ..ActiveParts::of(rule, C::DTYPE) };
        if let Some(full) = full {
            let sums = param_sums::<R, C>(&k, full, t.param.len());
            run::<R, C, _>(WithParamSums(&factors, sums), &mut k, active, scalars, &mut t);
        } else {
            run::<R, C, _>(&factors, &mut k, active, scalars, &mut t);
        }
    }
    Ok(k)
}
