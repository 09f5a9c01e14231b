//! Factored rules, with row and column state.

use core::array::from_fn;

use bitstep::float::ComputeFloat;
use bitstep::float::{Eager, EagerFloat};
use bitstep::optim::*;
use bitstep::rule::factored::FactoredUpdate;
use half::{bf16, f16};

use crate::grid::{
    Partial, WARP, first_lane, for_each_chunk_per_block, for_each_chunk_per_warp, is_last, lane,
    part, shared, sync_warp, warp_reduce, warp_sum,
};
use crate::newton_schulz::each;
use crate::rules::{ElementPtrs, entries, finish, load, store, sum};
use crate::sums::split;
use crate::table::{CHUNK, ENCODED_THREADS, ROWS, SquaresDesc, TensorDesc};

/// The columns of a tile that a lane has.
const OWN: usize = (CHUNK / WARP) as usize;
const _: () =
    assert!(WARP == ROWS && WARP * ROWS == CHUNK, "lanes have rows, and a block has tiles");

/// Where a warp is: a tile of [`ROWS`] rows and [`CHUNK`] columns.
struct Tile {
    /// Tiles down and across a matrix; at least one.
    down: u64,
    across: u64,
    /// The matrix, and this tile's place in it.
    batch: u64,
    row: u64,
    col: u64,
    /// Its rows and columns.
    rows: u64,
    cols: u64,
}

impl Tile {
    #[inline(always)]
    fn new(t: &SquaresDesc, index: u64) -> Tile {
        let tiles = |len: u64, size: u64| if len == 0 { 1 } else { len.div_ceil(size) };
        let (down, across) = (tiles(t.height, ROWS), tiles(t.width, CHUNK));
        let (row, col) = split(index, across);
        let (batch, row) = split(row, down);
        let end = |at: u64, size: u64, len: u64| {
            if len - at * size < size { len - at * size } else { size }
        };
        let (rows, cols) = (end(row, ROWS, t.height), end(col, CHUNK, t.width));
        Tile { down, across, batch, row, col, rows, cols }
    }

    /// The index of a row of it among those of all matrices.
    #[inline(always)]
    fn row(&self, t: &SquaresDesc, row: u64) -> u64 {
        self.batch * t.height + self.row * ROWS + row
    }

    /// Runs `f` on this lane's columns: their number among this lane's, and their index in the matrix.
    #[inline(always)]
    fn each_col(&self, f: impl Fn(usize, u64)) {
        let (mut k, mut col) = (0, lane());
        while col < self.cols {
            f(k, self.col * CHUNK + col);
            (k, col) = (k + 1, col + WARP);
        }
    }
}

/// Sums of squares along the rows and down the columns, with the state of both made of them. A warp adds those
/// of a tile, each element read once: a row's in the order of the lanes, a column's in that of the rows. The
/// last of a row's tiles, and of a column's, goes on; the last of a matrix's has the mean of its rows.
#[inline(always)]
unsafe fn squares<R: FactoredUpdate, C: ComputeFloat>(
    table: *const SquaresDesc,
    count: u64,
    chunks: u64,
) {
    let columns = shared::<C::Scalar, OWN, { ENCODED_THREADS as usize }>();
    // SAFETY: the host's descriptors are valid; tiles of a matrix have their own sums, which only the last that
    // has added to a counter reads.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &SquaresDesc, index| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let tile = Tile::new(t, index);
            let mut own = 0;
            while own < OWN {
                *columns.add(own * WARP as usize) = C::Scalar::ZERO;
                own += 1;
            }
            // The sum of the row of this lane's index.
            let mut sum = C::Scalar::ZERO;
            let mut row = 0;
            while row < tile.rows {
                // Written out: a loop that is not unrolled keeps its arrays in local memory.
                if row + 4 <= tile.rows {
                    let [a, b, c, d] = rows::<R, C, 4>(t, &k, &tile, row, columns);
                    sum = pick(row, a, sum);
                    sum = pick(row + 1, b, sum);
                    sum = pick(row + 2, c, sum);
                    sum = pick(row + 3, d, sum);
                    row += 4;
                } else {
                    let [a] = rows::<R, C, 1>(t, &k, &tile, row, columns);
                    sum = pick(row, a, sum);
                    row += 1;
                }
            }
            track_rows::<R, C>(t, &k, &tile, sum);
            track_cols::<R, C>(t, &k, &tile, columns);
        });
    }
}

/// The number of lane 0 in the lane of this index, in others what they have.
#[inline(always)]
fn pick<A: ComputeFloat>(index: u64, x: A, own: A) -> A {
    let x = first_lane(x);
    if lane() == index { x } else { own }
}

/// Adds N rows of a tile to the columns; returns the sum of each, in lane 0.
///
/// # Safety
/// The descriptor is valid, and the tile has them.
#[inline(always)]
unsafe fn rows<R: FactoredUpdate, C: ComputeFloat, const N: usize>(
    t: &SquaresDesc,
    k: &R::Coefs<C>,
    tile: &Tile,
    row: u64,
    columns: *mut C::Scalar,
) -> [C::Scalar; N] {
    let first = tile.row(t, row) * t.width + tile.col * CHUNK;
    let mut sums = [C::Scalar::ZERO; N];
    let (mut to, mut col) = (columns, lane());
    while col < tile.cols {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let terms: [C::Scalar; N] = from_fn(|n| {
                let g = load::<C>(t.grad, (first + n as u64 * t.width + col) as usize);
                R::accumulate_term::<C>(k, g)
            });
            let mut column = *to;
            for (sum, term) in sums.iter_mut().zip(terms) {
                (*sum, column) = (*sum + term, column + term);
            }
            *to = column;
            to = to.add(WARP as usize);
        }
        col += WARP;
    }
    sums.map(warp_sum)
}

/// Updates the state of a tile's rows, if it is the last of theirs, from the sum of the row of this lane's index.
///
/// # Safety
/// The descriptor is valid.
#[inline(always)]
unsafe fn track_rows<R: FactoredUpdate, C: ComputeFloat>(
    t: &SquaresDesc,
    k: &R::Coefs<C>,
    tile: &Tile,
    mut sum: C::Scalar,
) {
    let row = tile.row(t, lane()) as usize;
    let exists = lane() < tile.rows;
    // SAFETY: guaranteed by the caller.
    unsafe {
        if tile.across > 1 {
            let parts = t.parts[0] as *mut C::Scalar;
            if exists {
                *parts.add(row * tile.across as usize + tile.col as usize) = sum;
            }
            let counter = t.counters[0] + (tile.batch * tile.down + tile.row) * 4;
            if !is_last(counter, tile.across) {
                return;
            }
            let mut n = 0;
            while n < tile.rows {
                let parts = parts.add((tile.row(t, n) * tile.across) as usize);
                sum = pick(n, fold(parts, tile.across), sum);
                n += 1;
            }
        }
        let states = t.factors[0] as *mut C::Scalar;
        if exists && t.states[0] != 0 {
            let state = load::<C>(t.states[0], row);
            let mean = R::mean::<C>(k, sum, C::scalar(t.width as f64));
            let state = R::update_moment::<C>(k, state, mean);
            store(t.states[0], row, state);
            *states.add(row) = state.widen();
        }
        // A block of rows is that many tiles.
        let (block, blocks) = (tile.row / WARP, tile.down.div_ceil(WARP));
        let left = tile.down - block * WARP;
        let counter = t.counters[3] + (tile.batch * blocks + block) * 4;
        if !is_last(counter, if left < WARP { left } else { WARP }) {
            return;
        }
        let states = states.add((tile.batch * t.height) as usize);
        let range = part(t.height, block);
        let sum = warp_reduce(range, C::Scalar::ZERO, |i| *states.add(i), |x, y| x + y);
        let [values, counters] = t.strides.map(|stride| tile.batch * stride);
        let values = t.parts[2] + values * size_of::<C::Scalar>() as u64;
        let counters = t.counters[2] + counters * 4;
        let all = Partial { values, counters, count: blocks, at: block }.add([sum]);
        if let Some([sum]) = all.filter(|_| lane() == 0) {
            let mean = R::mean_of_rows::<C>(k, sum, C::scalar(t.height as f64));
            *(t.factors[2] as *mut C::Scalar).add(tile.batch as usize) = mean.widen();
        }
    }
}

/// The sum of `count` values, level by level in their place; in lane 0.
///
/// # Safety
/// They are there, and no other warp accesses them.
#[inline(always)]
unsafe fn fold<A: ComputeFloat>(values: *mut A, mut count: u64) -> A {
    // SAFETY: guaranteed by the caller; a block's sum goes where only earlier blocks have been.
    unsafe {
        while count > 1 {
            let mut block = 0;
            while block < count.div_ceil(CHUNK) {
                let sum =
                    warp_reduce(part(count, block), A::ZERO, |i| *values.add(i), |x, y| x + y);
                sync_warp();
                if lane() == 0 {
                    *values.add(block as usize) = sum;
                }
                sync_warp();
                block += 1;
            }
            count = count.div_ceil(CHUNK);
        }
        *values
    }
}

/// Updates the state of a tile's columns, if it is the last of theirs, from the sums of this lane's.
///
/// # Safety
/// The descriptor is valid.
#[inline(always)]
unsafe fn track_cols<R: FactoredUpdate, C: ComputeFloat>(
    t: &SquaresDesc,
    k: &R::Coefs<C>,
    tile: &Tile,
    columns: *mut C::Scalar,
) {
    let (mut parts, mut counters) = (t.parts[1] as *mut C::Scalar, t.counters[1]);
    let (mut count, mut at) = (tile.down, tile.row);
    // SAFETY: guaranteed by the caller.
    unsafe {
        while count > 1 {
            let first = (tile.batch * count + at) * t.width;
            tile.each_col(|own, col| {
                *parts.add((first + col) as usize) = *columns.add(own * WARP as usize);
            });
            let (block, blocks) = (at / ROWS, count.div_ceil(ROWS));
            let left = count - block * ROWS;
            let rows = if left < ROWS { left } else { ROWS };
            let index = (tile.batch * blocks + block) * tile.across + tile.col;
            if !is_last(counters + index * 4, rows) {
                return;
            }
            tile.each_col(|own, col| {
                let mut from = (tile.batch * count + block * ROWS) * t.width + col;
                let (mut sum, mut row) = (C::Scalar::ZERO, 0);
                while row < rows {
                    sum = sum + *parts.add(from as usize);
                    (from, row) = (from + t.width, row + 1);
                }
                *columns.add(own * WARP as usize) = sum;
            });
            parts = parts.add((t.batches * count * t.width) as usize);
            counters += t.batches * blocks * tile.across * 4;
            (count, at) = (blocks, block);
        }
        if t.states[1] == 0 {
            return;
        }
        tile.each_col(|own, col| {
            let col = (tile.batch * t.width + col) as usize;
            let state = load::<C>(t.states[1], col);
            let sum = *columns.add(own * WARP as usize);
            let mean = R::mean::<C>(k, sum, C::scalar(t.height as f64));
            let state = R::update_moment::<C>(k, state, mean);
            store(t.states[1], col, state);
            *(t.factors[1] as *mut C::Scalar).add(col) = R::col_factor::<C>(k, state).widen();
        });
    }
}

/// Turns row state (`len` values) into factors.
#[inline(always)]
unsafe fn factors<R: FactoredUpdate, C: ComputeFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        each(table, count, chunks, |t, i| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let (batch, _) = split(i as u64, t.height);
            let mean = *(t.factors[2] as *const C::Scalar).add(batch as usize);
            let row = &mut *(t.factors[0] as *mut C::Scalar).add(i);
            *row = R::row_factor::<C>(&k, C::round_from(*row), C::round_from(mean)).widen();
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
            let term = |i| {
                let (p, g, state) = tensor.load::<C>(i);
                let scale = scale::<R, C>(t, &k, i);
                R::factored_terms::<C>(&k, p, g, scale, state)
            };
            let sums = sum::<C::Scalar>(t, chunk, (start, end), term);
            finish::<R, C>(t, sums);
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
            in SquaresDesc;
            concat!(stringify!($stem), "_squares_", $suffix) => squares::<$rule, $type>;
        }
        entries! {
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
