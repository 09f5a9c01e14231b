//! Reduction of sums, level by level in the core's order.

use bitstep::float::ComputeFloat;

use crate::grid::{WARP, for_each_chunk_per_block, for_each_chunk_per_warp, lane, warp_sum};
use crate::rules::part;
use crate::table::{CHUNK, FoldDesc, ROWS};

/// Sums each block of values of a segment.
#[inline(always)]
unsafe fn blocks<A: ComputeFloat>(table: *const FoldDesc, count: u64, chunks: u64) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |desc: &FoldDesc, chunk| {
            let a_segment = desc.len.div_ceil(CHUNK);
            let (segment, block) = split(chunk, a_segment);
            let (start, end) = part(desc.len, block);
            let from = (desc.from as *const A).add((segment * desc.len) as usize);
            let mut sum = A::ZERO;
            let mut i = start + lane();
            while i < end {
                sum = sum + *from.add(i as usize);
                i += WARP;
            }
            let sum = warp_sum(sum);
            if lane() == 0 {
                *(desc.to as *mut A).add(chunk as usize) = sum;
            }
        });
    }
}

/// Sums each block of rows of a segment to one row.
#[inline(always)]
unsafe fn columns<A: ComputeFloat>(table: *const FoldDesc, count: u64, chunks: u64) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |desc: &FoldDesc, chunk, at, step| {
            let from = desc.from as *const A;
            let (mut i, end) = items(desc.segments, desc.len, desc.width, chunk, at);
            while i < end {
                let sum = column(desc.len, desc.width, i, |j| *from.add(j));
                *(desc.to as *mut A).add(i as usize) = sum;
                i += step;
            }
        });
    }
}

/// Quotient and remainder; 0 for a divisor of 0, where the operators would panic.
#[inline(always)]
pub(crate) fn split(x: u64, by: u64) -> (u64, u64) {
    (x.checked_div(by).unwrap_or(0), x.checked_rem(by).unwrap_or(0))
}

/// This thread's first item of a chunk, and the chunk's end, for sums over columns.
#[inline(always)]
pub(crate) fn items(segments: u64, len: u64, width: u64, chunk: u64, at: u64) -> (u64, u64) {
    let (start, end) = part(segments * len.div_ceil(ROWS) * width, chunk);
    (start + at, end)
}

/// The sum of one column in one block of rows. Items are numbered by block, then by column.
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
                // SAFETY: the host's tables have this kernel's descriptors.
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
