//! Sums of sums: the core's order, level by level.

use bitstep::float::ComputeFloat;

use crate::grid::{WARP, for_each_chunk_per_block, for_each_chunk_per_warp, lane, warp_sum};
use crate::rules::part;
use crate::table::{CHUNK, FoldDesc, ROWS};

/// Each block of numbers of a segment becomes one.
#[inline(always)]
unsafe fn blocks<A: ComputeFloat>(table: *const FoldDesc, count: u64, chunks: u64) {
    // SAFETY: the host's table says what is where.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |line: &FoldDesc, chunk| {
            let a_segment = line.len.div_ceil(CHUNK);
            let (segment, block) = split(chunk, a_segment);
            let (start, end) = part(line.len, block);
            let from = (line.from as *const A).add((segment * line.len) as usize);
            let mut sum = A::ZERO;
            let mut i = start + lane();
            while i < end {
                sum = sum + *from.add(i as usize);
                i += WARP;
            }
            let sum = warp_sum(sum);
            if lane() == 0 {
                *(line.to as *mut A).add(chunk as usize) = sum;
            }
        });
    }
}

/// Each block of rows of a segment becomes one row.
#[inline(always)]
unsafe fn columns<A: ComputeFloat>(table: *const FoldDesc, count: u64, chunks: u64) {
    // SAFETY: the host's table says what is where.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |line: &FoldDesc, chunk, at, step| {
            let from = line.from as *const A;
            let (mut i, end) = items(line.segments, line.len, line.width, chunk, at);
            while i < end {
                let sum = column(line.len, line.width, i, |j| *from.add(j));
                *(line.to as *mut A).add(i as usize) = sum;
                i += step;
            }
        });
    }
}

/// Quotient and remainder; nothing of nothing, where Rust would panic.
#[inline(always)]
pub(crate) fn split(x: u64, by: u64) -> (u64, u64) {
    (x.checked_div(by).unwrap_or(0), x.checked_rem(by).unwrap_or(0))
}

/// The part of a chunk's sums down columns that begins with this thread's.
#[inline(always)]
pub(crate) fn items(segments: u64, len: u64, width: u64, chunk: u64, at: u64) -> (u64, u64) {
    let (start, end) = part(segments * len.div_ceil(ROWS) * width, chunk);
    (start + at, end)
}

/// The sum of one column of one block of rows; numbers through blocks, then columns.
#[inline(always)]
pub(crate) fn column<A: ComputeFloat>(
    len: u64,
    width: u64,
    item: u64,
    number: impl Fn(usize) -> A,
) -> A {
    let (block, col) = split(item, width);
    let blocks = len.div_ceil(ROWS);
    let (segment, block) = split(block, blocks);
    let start = block * ROWS;
    let end = if len - start < ROWS { len } else { start + ROWS };
    let mut sum = A::ZERO;
    let mut row = start;
    while row < end {
        sum = sum + number(((segment * len + row) * width + col) as usize);
        row += 1;
    }
    sum
}

macro_rules! entries {
    ($($name:literal => $body:path;)*) => {$(
        const _: () = {
            #[unsafe(export_name = $name)]
            unsafe extern "ptx-kernel" fn entry(table: *const FoldDesc, count: u64, chunks: u64) {
                // SAFETY: the host's tables are what the kernel expects.
                unsafe { $body(table, count, chunks) }
            }
        };
    )*};
}

entries! {
    "fold_f32" => blocks::<f32>;
    "fold_f64" => blocks::<f64>;
    "columns_f32" => columns::<f32>;
    "columns_f64" => columns::<f64>;
}
