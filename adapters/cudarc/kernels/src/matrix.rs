//! Factored rules, with row and column state.

use bitstep::float::ComputeFloat;
use bitstep::float::{Eager, EagerFloat};
use bitstep::optim::*;
use bitstep::rule::factored::FactoredUpdate;
use half::{bf16, f16};

use crate::grid::{WARP, for_each_chunk_per_block, for_each_chunk_per_warp, lane, warp_sum};
use crate::rules::{ElementPtrs, entries, load, part, store, write_sums};
use crate::sums::{column, items, split};
use crate::table::{CHUNK, ROWS, TensorDesc};

/// Sums of squares along the rows, by block.
#[inline(always)]
unsafe fn rows<R: FactoredUpdate, C: ComputeFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &TensorDesc, chunk| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let a_row = t.width.div_ceil(CHUNK);
            let (row, block) = split(chunk, a_row);
            let (start, end) = part(t.width, block);
            let mut sum = C::Scalar::ZERO;
            let mut i = start + lane();
            while i < end {
                let g = load::<C>(t.grad, (row * t.width + i) as usize);
                sum = sum + R::accumulate_term::<C>(&k, g);
                i += WARP;
            }
            let sum = warp_sum(sum);
            if lane() == 0 {
                *(t.sums as *mut C::Scalar).add(chunk as usize) = sum;
            }
        });
    }
}

/// Sums of squares down the columns, by block of rows.
#[inline(always)]
unsafe fn cols<R: FactoredUpdate, C: ComputeFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |t: &TensorDesc, chunk, at, step| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let (batches, _) = split(t.len, t.height * t.width);
            let (mut i, end) = items(batches, t.height, t.width, chunk, at);
            while i < end {
                let sum =
                    column(t.height, t.width, i, |j| R::accumulate_term::<C>(&k, load(t.grad, j)));
                *(t.sums as *mut C::Scalar).add(i as usize) = sum;
                i += step;
            }
        });
    }
}

/// Updates row or column state, `len` values at `param`, from the sums over `width` squares. The sums are
/// overwritten with the state of rows, or with the factors of columns.
#[inline(always)]
unsafe fn track<R: FactoredUpdate, C: ComputeFloat, const COLS: bool>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |t: &TensorDesc, chunk, at, step| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let n = C::scalar(t.width as f64);
            let (start, end) = part(t.len, chunk);
            let mut i = start + at;
            while i < end {
                let sum = &mut *(t.sums as *mut C::Scalar).add(i as usize);
                let state = load::<C>(t.param, i as usize);
                let state = R::update_moment::<C>(&k, state, R::mean::<C>(&k, *sum, n));
                store(t.param, i as usize, state);
                *sum = if COLS { R::col_factor::<C>(&k, state).widen() } else { state.widen() };
                i += step;
            }
        });
    }
}

/// Turns row state (`len` values) into factors, and writes its mean over each batch.
#[inline(always)]
unsafe fn factors<R: FactoredUpdate, C: ComputeFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |t: &TensorDesc, chunk, at, step| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let height = C::scalar(t.height as f64);
            let (start, end) = part(t.len, chunk);
            let mut i = start + at;
            while i < end {
                let (batch, within) = split(i, t.height);
                let batch = batch as usize;
                let sum = *(t.sums as *const C::Scalar).add(batch);
                let mean = R::mean_of_rows::<C>(&k, sum, height);
                let row = &mut *(t.factors[0] as *mut C::Scalar).add(i as usize);
                *row = R::row_factor::<C>(&k, C::round_from(*row), mean).widen();
                if within == 0 {
                    *(t.factors[2] as *mut C::Scalar).add(batch) = mean.widen();
                }
                i += step;
            }
        });
    }
}

/// The factor of an element's gradient.
///
/// # Safety
/// The descriptor is valid.
#[inline(always)]
unsafe fn scale<R: FactoredUpdate, C: ComputeFloat>(
    t: &TensorDesc,
    k: &R::Coefs<C>,
    i: usize,
) -> C {
    let (row, col) = split(i as u64, t.width);
    let (batch, _) = split(row, t.height);
    let col = (batch * t.width + col) as usize;
    let [rows, cols, means] = t.factors.map(|f| f as *const C::Scalar);
    // SAFETY: the element exists, so its row, column and batch do.
    unsafe {
        let [row, col, mean] = [rows.add(row as usize), cols.add(col), means.add(batch as usize)]
            .map(|x| C::round_from(*x));
        R::element_scale::<C>(k, row, col, mean)
    }
}

#[inline(always)]
unsafe fn apply<R: FactoredUpdate, C: ComputeFloat<Stored: EagerFloat>>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid; a chunk's elements belong to this block only.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |t: &TensorDesc, chunk, at, step| {
            let (start, end) = part(t.len, chunk);
            let k = *(t.coefs as *const R::Coefs<C>);
            let tensor = ElementPtrs::<R, C::Stored, C::Stored, C::Stored>::new(t);
            let mut i = start + at;
            while i < end {
                let (p, g, state) = tensor.load::<C>(i as usize);
                let scale = scale::<R, C>(t, &k, i as usize);
                let (p, state) = R::factored_update::<C>(&k, p, g, scale, state);
                tensor.store(i as usize, p, &state);
                i += step;
            }
        });
    }
}

#[inline(always)]
unsafe fn sums<R: FactoredUpdate, C: ComputeFloat<Stored: EagerFloat>>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &TensorDesc, chunk| {
            let (start, end) = part(t.len, chunk);
            let k = *(t.coefs as *const R::Coefs<C>);
            let tensor = ElementPtrs::<R, C::Stored, C::Stored, C::Stored>::new(t);
            write_sums::<C::Scalar>(t, chunk, start, end, |i| {
                let (p, g, state) = tensor.load::<C>(i);
                let scale = scale::<R, C>(t, &k, i);
                R::factored_terms::<C>(&k, p, g, scale, state)
            });
        });
    }
}

macro_rules! rules {
    (
        elementwise { $($e:ident: $er:ty,)* }
        tensorwise { $($t:ident: $tr:ty,)* }
        factored { $($f:ident: $fr:ty,)* }
        $($rest:tt)*
    ) => {
        $(
            types!($f, $fr, "f64", f64);
            types!($f, $fr, "f32", f32);
            types!($f, $fr, "bf16", Eager<bf16>);
            types!($f, $fr, "f16", Eager<f16>);
        )*
    };
}

macro_rules! types {
    ($stem:ident, $rule:ty, $suffix:literal, $type:ty) => {
        entries! {
            concat!(stringify!($stem), "_rows_", $suffix) => rows::<$rule, $type>;
            concat!(stringify!($stem), "_cols_", $suffix) => cols::<$rule, $type>;
            concat!(stringify!($stem), "_track_rows_", $suffix) => track::<$rule, $type, false>;
            concat!(stringify!($stem), "_track_cols_", $suffix) => track::<$rule, $type, true>;
            concat!(stringify!($stem), "_factors_", $suffix) => factors::<$rule, $type>;
            concat!(stringify!($stem), "_scaled_sums_", $suffix) => sums::<$rule, $type>;
            concat!(stringify!($stem), "_scaled_apply_", $suffix) => apply::<$rule, $type>;
        }
    };
}

bitstep::each_rule!(rules);

const _: () = assert!(
    ROWS == bitstep::math::reduce::ROWS as u64 && CHUNK == bitstep::math::reduce::BLOCK as u64
);
