//! Who does what: work is dealt out to blocks of threads, or to warps, chunk by chunk.

use core::arch::asm;
use core::arch::nvptx::{_block_dim_x, _block_idx_x, _grid_dim_x, _thread_idx_x};

use bitstep::float::{ComputeFloat, Dtype};

use crate::table::TableRow;

/// Threads in a warp, and lanes of a sum.
pub(crate) const WARP: u64 = 32;

/// This thread's number and the number of threads, both within the block.
fn thread() -> (u64, u64) {
    // SAFETY: reads two registers.
    unsafe { (u64::from(_thread_idx_x() as u32), u64::from(_block_dim_x() as u32)) }
}

/// The number of this block, and of blocks.
fn block() -> (u64, u64) {
    // SAFETY: reads two registers.
    unsafe { (u64::from(_block_idx_x() as u32), u64::from(_grid_dim_x() as u32)) }
}

/// This thread's number within its warp.
pub(crate) fn lane() -> u64 {
    thread().0 % WARP
}

/// The line of a table that a chunk belongs to.
///
/// # Safety
/// There are `count` lines, at least one.
#[inline(always)]
unsafe fn line<'a, L: TableRow>(table: *const L, count: u64, chunk: u64) -> &'a L {
    let (mut low, mut high) = (0, count);
    while high - low > 1 {
        let middle = (low + high) / 2;
        // SAFETY: `middle` < `count`.
        if unsafe { &*table.add(middle as usize) }.first_block() <= chunk {
            low = middle;
        } else {
            high = middle;
        }
    }
    // SAFETY: `low` < `count`.
    unsafe { &*table.add(low as usize) }
}

/// Runs `f` on every chunk: with the line, the number of the chunk within it, and where this
/// thread begins and how far it steps in a chunk.
///
/// # Safety
/// There are `count` lines, at least one.
#[inline(always)]
pub(crate) unsafe fn for_each_chunk_per_block<'a, L: TableRow + 'a>(
    table: *const L,
    count: u64,
    chunks: u64,
    f: impl Fn(&'a L, u64, u64, u64),
) {
    let ((mut chunk, stride), (at, step)) = (block(), thread());
    while chunk < chunks {
        // SAFETY: as the caller promises.
        let line = unsafe { line(table, count, chunk) };
        f(line, chunk - line.first_block(), at, step);
        chunk += stride;
    }
}

/// The same, one chunk a warp.
///
/// # Safety
/// There are `count` lines, at least one.
#[inline(always)]
pub(crate) unsafe fn for_each_chunk_per_warp<'a, L: TableRow + 'a>(
    table: *const L,
    count: u64,
    chunks: u64,
    f: impl Fn(&'a L, u64),
) {
    let ((block, blocks), (at, threads)) = (block(), thread());
    let warps = threads / WARP;
    let mut chunk = block * warps + at / WARP;
    while chunk < chunks {
        // SAFETY: as the caller promises.
        let line = unsafe { line(table, count, chunk) };
        f(line, chunk - line.first_block());
        chunk += blocks * warps;
    }
}

/// The lanes' numbers folded 16, 8, 4, 2, 1: the sum, in lane 0.
#[inline(always)]
pub(crate) fn warp_sum<A: ComputeFloat>(x: A) -> A {
    warp_fold(x, |x, y| x + y)
}

/// The same of whatever makes one number of two.
#[inline(always)]
pub(crate) fn warp_fold<A: ComputeFloat>(mut x: A, join: impl Fn(A, A) -> A) -> A {
    let mut width = 16;
    while width > 0 {
        x = join(x, shfl_down(x, width));
        width /= 2;
    }
    x
}

/// Joins what the items of a part contribute, lane by lane and then all lanes: in lane 0.
#[inline(always)]
pub(crate) fn warp_reduce<A: ComputeFloat>(
    (start, end): (u64, u64),
    first: A,
    term: impl Fn(usize) -> A,
    join: impl Fn(A, A) -> A + Copy,
) -> A {
    let mut all = first;
    let mut i = start + lane();
    while i < end {
        all = join(all, term(i as usize));
        i += WARP;
    }
    warp_fold(all, join)
}

/// The number of the lane so many above.
#[inline(always)]
fn shfl_down<A: ComputeFloat>(x: A, lanes: u32) -> A {
    fn shuffle(x: u32, lanes: u32) -> u32 {
        let y: u32;
        // SAFETY: all lanes of the warp are here; no memory is touched.
        unsafe {
            asm!("shfl.sync.down.b32 {y}, {x}, {n}, 0x1f, 0xffffffff;",
                y = out(reg32) y, x = in(reg32) x, n = in(reg32) lanes, options(nomem, nostack));
        }
        y
    }
    if const { matches!(A::DTYPE, Dtype::F64) } {
        let bits = x.to_f64().to_bits();
        let (low, high) = (shuffle(bits as u32, lanes), shuffle((bits >> 32) as u32, lanes));
        A::from_f64(f64::from_bits(u64::from(high) << 32 | u64::from(low)))
    } else {
        A::from_f32(f32::from_bits(shuffle(x.to_f32().to_bits(), lanes)))
    }
}
