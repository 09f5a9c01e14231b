//! Sums with a fixed order of summation.
//!
//! n values are summed in blocks of [`BLOCK`]. In a block, each of [`LANES`] lanes adds its elements in order, from +0:
//! lane l the elements l, l + 32, l + 64, …; then the lanes are folded to 16, 8, 4, 2 and 1. The block sums, in order,
//! are reduced by the same procedure until one value is left.
//!
//! The order is chosen so that it vectorises on every CPU, is one warp per block on a GPU, and has an error bound like
//! pairwise summation: an element takes part in at most 32 + 5 additions per level, and there are log₁₀₂₄ n levels. It
//! also splits: parts that start at multiples of [`PARTIAL_LEN`] elements reduce to one value each ([`sum`] of a part),
//! and the sum of these values is the sum of the whole, bit for bit, so threads and shards can't change a result.
//! Streaming needs one buffer of lanes per level, and no allocation.
//!
//! Sums down the columns of a matrix have another order, in which rows are read as they are in memory: blocks of
//! [`ROWS`] rows are added in order, from +0; the block sums, in order, are reduced by the same procedure until one row
//! is left. Bands that start at multiples of 32ᵏ rows reduce to one value per column.

use crate::arch::simd::{self, Kernel};
use crate::float::ComputeFloat;

/// Elements in a block.
pub const BLOCK: usize = 1024;
/// Lanes in a block.
pub const LANES: usize = 32;
/// Sums of parts of this many elements sum to the sum of the whole.
pub const PARTIAL_LEN: usize = BLOCK * BLOCK;

/// Levels above the first: enough for `usize::MAX` elements.
const LEVELS: usize = (usize::BITS as usize).div_ceil(10);

type Lanes<A, const K: usize> = [[A; LANES]; K];

#[inline(always)]
fn fold<A: ComputeFloat, const K: usize>(lanes: &mut Lanes<A, K>) -> [A; K] {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in lanes.iter_mut() {
            let (low, high) = lane.split_at_mut(width);
            for (a, b) in low.iter_mut().zip(high) {
                *a = *a + *b;
            }
        }
        width /= 2;
    }
    let mut out = [A::ZERO; K];
    for (o, lane) in out.iter_mut().zip(lanes) {
        *o = lane[0];
    }
    out
}

/// The levels above the first: block sums come in, one sum goes out.
struct Levels<A, const K: usize> {
    lanes: [Lanes<A, K>; LEVELS],
    counts: [usize; LEVELS],
}

impl<A: ComputeFloat, const K: usize> Levels<A, K> {
    fn new() -> Self {
        Levels { lanes: [[[A::ZERO; LANES]; K]; LEVELS], counts: [0; LEVELS] }
    }

    fn push(&mut self, mut sums: [A; K]) {
        for (lanes, count) in self.lanes.iter_mut().zip(&mut self.counts) {
            for (lane, sum) in lanes.iter_mut().zip(sums) {
                if let Some(slot) = lane.get_mut(*count % LANES) {
                    *slot = *slot + sum;
                }
            }
            *count += 1;
            if *count < BLOCK {
                return;
            }
            sums = fold(lanes);
            (*lanes, *count) = ([[A::ZERO; LANES]; K], 0);
        }
    }

    /// Folding a single value gives that value, so the levels above the last one in use change nothing.
    fn finish(mut self) -> [A; K] {
        let mut carry = [A::ZERO; K];
        for level in 0..LEVELS {
            let (Some(lanes), Some(&count)) = (self.lanes.get_mut(level), self.counts.get(level))
            else {
                break;
            };
            if level > 0 {
                for (lane, sum) in lanes.iter_mut().zip(carry) {
                    if let Some(slot) = lane.get_mut(count % LANES) {
                        *slot = *slot + sum;
                    }
                }
            }
            carry = fold(lanes);
        }
        carry
    }
}

/// Elements in a chunk of [`sums_by_chunk`]: divides [`BLOCK`], is divided by [`LANES`].
pub(crate) const CHUNK: usize = 256;

/// Writes the terms of a sum, a chunk at a time. A trait, because a closure can't be marked `#[inline(always)]`, which
/// the vector kernel that calls it needs.
pub(crate) trait TermSource<A, const K: usize> {
    /// Writes the terms from index `start` on, as many as the buffers hold.
    fn fill(&mut self, start: usize, terms: [&mut [A]; K]);
}

/// A closure as a source of terms, where inlining does not matter.
impl<A, const K: usize, F: FnMut(usize, [&mut [A]; K])> TermSource<A, K> for F {
    #[inline(always)]
    fn fill(&mut self, start: usize, terms: [&mut [A]; K]) {
        self(start, terms);
    }
}

/// The sums of K terms over n indices, in the order of this file.
#[inline(always)]
pub(crate) fn sums_by_chunk<A: ComputeFloat, const K: usize>(
    n: usize,
    terms: impl TermSource<A, K>,
) -> [A; K] {
    sums_within(&mut [[A::ZERO; CHUNK]; K], n, terms)
}

/// [`sums_by_chunk`] with the caller's buffers, for many short sums.
#[inline(always)]
pub(crate) fn sums_within<A: ComputeFloat, const K: usize>(
    buffers: &mut [[A; CHUNK]; K],
    n: usize,
    mut terms: impl TermSource<A, K>,
) -> [A; K] {
    let mut levels = None;
    let mut at = 0;
    loop {
        let end = if n - at < BLOCK { n } else { at + BLOCK };
        let mut lanes = [[A::ZERO; LANES]; K];
        while at < end {
            let len = if end - at < CHUNK { end - at } else { CHUNK };
            terms.fill(at, starts(buffers, len));
            for (lane, buffer) in lanes.iter_mut().zip(&*buffers) {
                let (rows, rest) = buffer.get(..len).unwrap_or_default().as_chunks::<LANES>();
                for row in rows {
                    for (sum, x) in lane.iter_mut().zip(row) {
                        *sum = *sum + *x;
                    }
                }
                for (sum, x) in lane.iter_mut().zip(rest) {
                    *sum = *sum + *x;
                }
            }
            at += len;
        }
        let sums = fold(&mut lanes);
        if n <= BLOCK {
            return sums;
        }
        levels.get_or_insert_with(Levels::new).push(sums);
        if at == n {
            return levels.map_or(sums, Levels::finish);
        }
    }
}

/// The first elements of each buffer. It knows nothing of the terms, and so is compiled once for all of them.
#[inline(always)]
fn starts<A, const K: usize>(buffers: &mut [[A; CHUNK]; K], len: usize) -> [&mut [A]; K] {
    buffers.each_mut().map(|b| b.get_mut(..len).unwrap_or_default())
}

/// The sums of K terms over n indices, computed index by index.
#[inline(always)]
pub(crate) fn sums<A: ComputeFloat, const K: usize>(
    n: usize,
    term: impl Fn(usize) -> [A; K],
) -> [A; K] {
    struct Each<F>(F);
    impl<A: ComputeFloat, const K: usize, F: Fn(usize) -> [A; K]> TermSource<A, K> for Each<F> {
        #[inline(always)]
        fn fill(&mut self, start: usize, mut terms: [&mut [A]; K]) {
            for i in 0..terms.first().map_or(0, |t| t.len()) {
                for (terms, x) in terms.iter_mut().zip((self.0)(start + i)) {
                    if let Some(to) = terms.get_mut(i) {
                        *to = x;
                    }
                }
            }
        }
    }
    sums_by_chunk(n, Each(term))
}

/// Rows in a block of a sum down the columns.
pub const ROWS: usize = 32;

/// The rows of memory that a sum down the columns of a matrix with `rows` rows needs: the smallest k ≥ 1 with
/// 32ᵏ ≥ `rows`.
pub const fn column_levels(rows: usize) -> usize {
    let (mut levels, mut capacity) = (1, ROWS);
    while capacity < rows {
        levels += 1;
        capacity = capacity.saturating_mul(ROWS);
    }
    levels
}

/// Sums down columns: rows come in one after the other, one row goes out.
pub(crate) struct Columns<'a, A> {
    /// One row of partial sums per level.
    levels: &'a mut [A],
    width: usize,
    count: usize,
}

impl<'a, A: ComputeFloat> Columns<'a, A> {
    /// `memory` is [`column_levels`] rows of `width` values, and is overwritten.
    pub(crate) fn new(memory: &'a mut [A], width: usize) -> Self {
        memory.fill(A::ZERO);
        Columns { levels: memory, width, count: 0 }
    }

    /// The partial sums to which the caller adds the next row.
    #[inline(always)]
    pub(crate) fn row(&mut self) -> &mut [A] {
        self.levels.get_mut(..self.width).unwrap_or_default()
    }

    /// Counts the row that was added, and adds full blocks to the next level.
    #[inline(always)]
    pub(crate) fn commit_row(&mut self) {
        self.count += 1;
        let (mut count, mut at) = (self.count, 0);
        while count.is_multiple_of(ROWS) && at + 2 * self.width <= self.levels.len() {
            self.carry_up(at);
            at += self.width;
            count /= ROWS;
        }
    }

    fn carry_up(&mut self, at: usize) {
        let (low, high) = self.levels.split_at_mut(at + self.width);
        for (sum, part) in high.iter_mut().zip(low.get_mut(at..).unwrap_or_default()) {
            (*sum, *part) = (*sum + *part, A::ZERO);
        }
    }

    /// The sums of all rows. A level without an unfinished block adds +0, which changes nothing.
    pub(crate) fn finish(mut self) -> &'a [A] {
        let mut at = 0;
        while at + 2 * self.width <= self.levels.len() && self.width > 0 {
            self.carry_up(at);
            at += self.width;
        }
        let levels: &'a [A] = self.levels;
        levels.get(at..).unwrap_or_default()
    }
}

/// The sum of `term(i)` for i in 0..n, in the order of this file.
///
/// ```
/// assert_eq!(bitstep::math::reduce::sum(5, |i| i as f64), 10.0);
/// assert_eq!(bitstep::math::reduce::sum(0, |_| 1.0f32), 0.0);
/// ```
pub fn sum<A: ComputeFloat>(n: usize, term: impl Fn(usize) -> A) -> A {
    struct Sum<F>(usize, F);
    impl<A: ComputeFloat, F: Fn(usize) -> A> Kernel for Sum<F> {
        type Output = A;
        #[inline(always)]
        fn run(self) -> A {
            sums::<A, 1>(self.0, |i| [(self.1)(i)])[0]
        }
    }
    simd::dispatch(Sum(n, term))
}

/// [`sum`], one term after the other: little code and little stack, for few terms and for firmware.
pub(crate) fn sum_scalar<A: ComputeFloat>(n: usize, term: &dyn Fn(usize) -> A) -> A {
    let of_block = |block: usize| {
        let start = block * BLOCK;
        let mut lanes = [[A::ZERO; LANES]; 1];
        for i in 0..(n - start).min(BLOCK) {
            if let Some(lane) = lanes[0].get_mut(i % LANES) {
                *lane = *lane + term(start + i);
            }
        }
        let [sum] = fold(&mut lanes);
        sum
    };
    if n <= BLOCK { of_block(0) } else { sum_scalar(n.div_ceil(BLOCK), &of_block) }
}

/// The term of an element in a 2-norm, before the [root]: x². For a tensor of a single element |x|, as in
/// `torch.linalg.vector_norm`, so that nothing overflows or underflows.
#[must_use]
#[inline(always)]
pub fn square<A: ComputeFloat>(x: A, single: bool) -> A {
    if single { x.abs() } else { x * x }
}

/// The 2-norm from the sum of the [terms](square).
#[must_use]
#[inline(always)]
pub fn root<A: ComputeFloat>(sum: A, single: bool) -> A {
    if single { sum } else { sum.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_sum_has_the_bits_of_the_sum() {
        let term = |i: usize| ((i * 7919 % 10_007) as f32 - 5000.0) / 333.0;
        for n in [0, 1, 31, 32, 33, 1023, 1024, 1025, 2048, 40_000, BLOCK * BLOCK + 1] {
            assert_eq!(sum_scalar(n, &term).to_bits(), sum(n, term).to_bits(), "{n}");
        }
    }
    extern crate std;
    use std::vec::Vec;

    /// The definition, literally, without regard to memory.
    fn naive(x: &[f32]) -> f32 {
        let blocks: Vec<f32> = x
            .chunks(BLOCK)
            .map(|block| {
                let mut lanes = [0.0f32; LANES];
                for (i, v) in block.iter().enumerate() {
                    lanes[i % LANES] += v;
                }
                for width in [16, 8, 4, 2, 1] {
                    for l in 0..width {
                        lanes[l] += lanes[l + width];
                    }
                }
                lanes[0]
            })
            .collect();
        match blocks.len() {
            0 => 0.0,
            1 => blocks[0],
            _ => naive(&blocks),
        }
    }

    fn numbers(n: usize) -> Vec<f32> {
        (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-7 - 0.8).collect()
    }

    #[test]
    fn sum_of_any_length_follows_the_definition() {
        for n in [
            0,
            1,
            2,
            31,
            32,
            33,
            1000,
            1023,
            1024,
            1025,
            2048,
            5000,
            70_001,
            PARTIAL_LEN,
            PARTIAL_LEN + 1,
            2 * PARTIAL_LEN + 77,
        ] {
            let x = numbers(n);
            assert_eq!(sum(n, |i| x[i]).to_bits(), naive(&x).to_bits(), "n = {n}");
        }
    }

    /// The definition of sums down the columns, for one column.
    fn naive_column(x: &[f32]) -> f32 {
        let blocks: Vec<f32> =
            x.chunks(ROWS).map(|b| b.iter().fold(0.0, |sum, v| sum + v)).collect();
        match blocks.len() {
            0 => 0.0,
            1 => blocks[0],
            _ => naive_column(&blocks),
        }
    }

    fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
        let rows = x.len().checked_div(width).unwrap_or(0);
        let mut memory = std::vec![f32::NAN; column_levels(rows) * width];
        let mut columns = Columns::new(&mut memory, width);
        for row in x.chunks(width.max(1)) {
            for (sum, v) in columns.row().iter_mut().zip(row) {
                *sum += v;
            }
            columns.commit_row();
        }
        columns.finish().to_vec()
    }

    #[test]
    fn column_sums_of_any_height_follow_the_definition() {
        for rows in [0, 1, 2, 31, 32, 33, 64, 65, 1023, 1024, 1025, 2048, 32_768, 32_769, 70_001] {
            let x = numbers(rows * 3);
            let sums = column_sums(&x, 3);
            assert_eq!(sums.len(), 3);
            for (j, sum) in sums.iter().enumerate() {
                let column: Vec<f32> = x.iter().skip(j).step_by(3).copied().collect();
                assert_eq!(sum.to_bits(), naive_column(&column).to_bits(), "{rows} rows");
            }
        }
        assert!(column_sums(&[], 0).is_empty());
    }

    #[test]
    fn column_sums_of_bands_sum_to_those_of_the_whole() {
        let x = numbers(2500 * 2);
        let bands: Vec<f32> = x.chunks(1024 * 2).flat_map(|band| column_sums(band, 2)).collect();
        assert_eq!(column_sums(&bands, 2), column_sums(&x, 2));
    }

    #[test]
    fn sum_of_parts_equals_the_sum_of_the_whole() {
        let x = numbers(3 * PARTIAL_LEN + 5);
        let parts: Vec<f32> =
            x.chunks(PARTIAL_LEN).map(|part| sum(part.len(), |i| part[i])).collect();
        assert_eq!(sum(parts.len(), |i| parts[i]).to_bits(), sum(x.len(), |i| x[i]).to_bits());
    }

    #[test]
    fn column_sums_of_any_width_follow_the_definition() {
        for (width, rows) in [(1, 33), (1, 1025), (2, 1025), (4, 33), (5, 1025), (7, 2048)] {
            let x = numbers(rows * width);
            for (j, sum) in column_sums(&x, width).iter().enumerate() {
                let column: Vec<f32> = x.iter().skip(j).step_by(width).copied().collect();
                assert_eq!(sum.to_bits(), naive_column(&column).to_bits(), "{width} × {rows}");
            }
        }
    }

    #[test]
    fn levels_are_as_many_as_the_rows_need() {
        let rows = [0, 1, 32, 33, 1024, 1025, 32_768, 32_769];
        assert_eq!(rows.map(column_levels), [1, 1, 1, 2, 2, 3, 3, 4]);
    }
}
