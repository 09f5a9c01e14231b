//! Matrix products, in the core's order.

use bitstep::float::ComputeFloat;
use bitstep::float::Eager;
use bitstep::math::matmul::dot_in_order;
use half::{bf16, f16};

use crate::grid::for_each_chunk_per_block;
use crate::rules::{entries, load, store};
use crate::sums::split;
use crate::table::{ProductDesc, TILE, TILES};

const _: () = assert!(TILE == 4, "tiles are written out: a loop would keep its arrays in memory");

/// Adds the outer product of four elements of a column and four of a row to a tile.
#[inline(always)]
fn add<A: ComputeFloat>(tile: [[A; 4]; 4], x: [A; 4], y: [A; 4]) -> [[A; 4]; 4] {
    let row = |sums: [A; 4], x: A| {
        [sums[0] + x * y[0], sums[1] + x * y[1], sums[2] + x * y[2], sums[3] + x * y[3]]
    };
    [row(tile[0], x[0]), row(tile[1], x[1]), row(tile[2], x[2]), row(tile[3], x[3])]
}

/// The sum of two tiles.
#[inline(always)]
fn join<A: ComputeFloat>(a: [[A; 4]; 4], b: [[A; 4]; 4]) -> [[A; 4]; 4] {
    let row = |a: [A; 4], b: [A; 4]| [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
    [row(a[0], b[0]), row(a[1], b[1]), row(a[2], b[2]), row(a[3], b[3])]
}

/// Rounded to the type of the factors.
#[inline(always)]
unsafe fn product<C: ComputeFloat>(table: *const ProductDesc, count: u64, chunks: u64) {
    // SAFETY: the host's descriptors are valid.
    unsafe { product_then::<C>(table, count, chunks, |_, _, x| C::round_from(x)) }
}

/// One tile per thread. The rows and columns of a tile are spread over the product, so that adjacent
/// threads read adjacent elements. `then` makes of an element, with its index, what is stored.
///
/// # Safety
/// The table has `count` valid descriptors.
#[inline(always)]
pub(crate) unsafe fn product_then<C: ComputeFloat>(
    table: *const ProductDesc,
    count: u64,
    chunks: u64,
    then: impl Fn(&ProductDesc, usize, C::Scalar) -> C,
) {
    // SAFETY: the host's descriptors are valid; each element belongs to one thread.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |p: &ProductDesc, chunk, at, step| {
            let (down, across) = (p.rows.div_ceil(TILE), p.cols.div_ceil(TILE));
            let [a, b] = p.factors;
            let [[a_row, a_col], [b_row, b_col]] = p.strides;
            let last = chunk * TILES + TILES;
            let end = if down * across < last { down * across } else { last };
            let mut tile = chunk * TILES + at;
            while tile < end {
                let (i, j) = split(tile, across);
                // Beyond the edge, the last row or column is computed again and not stored.
                let row = |n: u64| within(i + n * down, p.rows);
                let col = |n: u64| within(j + n * across, p.cols);
                let x = |n, k| load::<C>(a, (row(n) * a_row + k * a_col) as usize).widen();
                let y = |n, k| load::<C>(b, (k * b_row + col(n) * b_col) as usize).widen();
                let add = |tile, k| {
                    let k = k as u64;
                    let x = [x(0, k), x(1, k), x(2, k), x(3, k)];
                    add(tile, x, [y(0, k), y(1, k), y(2, k), y(3, k)])
                };
                let zero = [[C::Scalar::ZERO; 4]; 4];
                let sums = dot_in_order(p.depth as usize, zero, add, join);
                let put = |m: u64, n: u64, x: C::Scalar| {
                    let (i, j) = (i + m * down, j + n * across);
                    if i < p.rows && j < p.cols {
                        let at = (i * p.cols + j) as usize;
                        store(p.to, at, then(p, at, x));
                    }
                };
                let put = |m, x: [C::Scalar; 4]| {
                    put(m, 0, x[0]);
                    put(m, 1, x[1]);
                    put(m, 2, x[2]);
                    put(m, 3, x[3]);
                };
                put(0, sums[0]);
                put(1, sums[1]);
                put(2, sums[2]);
                put(3, sums[3]);
                tile += step;
            }
        });
    }
}

/// The index, or the last one if it is too large.
#[inline(always)]
fn within(i: u64, len: u64) -> u64 {
    if i < len { i } else { len - 1 }
}

entries! {
    in ProductDesc;
    "product_f64" => product::<f64>;
    "product_f32" => product::<f32>;
    "product_bf16" => product::<Eager<bf16>>;
    "product_f16" => product::<Eager<f16>>;
}
