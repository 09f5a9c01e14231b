//! Reduction of sums, level by level in the core's order.

use bitstep::float::ComputeFloat;

use crate::grid::{WARP, for_each_chunk_per_warp, lane, part, warp_sum};
use crate::table::{CHUNK, FoldDesc};

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

/// Quotient and remainder; 0 for a divisor of 0, where the operators would panic.
#[inline(always)]
pub(crate) fn split(x: u64, by: u64) -> (u64, u64) {
    (x.checked_div(by).unwrap_or(0), x.checked_rem(by).unwrap_or(0))
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
}
