//! Distribution of chunks of work over blocks or warps, and operations across a warp.

use core::arch::asm;
use core::arch::nvptx::{_block_dim_x, _block_idx_x, _grid_dim_x, _thread_idx_x};

use bitstep::float::{ComputeFloat, Dtype};

use crate::table::TableRow;

/// Threads in a warp, and lanes of a sum.
pub(crate) const WARP: u64 = 32;

/// This thread's index in its block, and the number of threads of the block.
fn thread() -> (u64, u64) {
    // SAFETY: reads two registers.
    unsafe { (u64::from(_thread_idx_x() as u32), u64::from(_block_dim_x() as u32)) }
}

/// The index of this block, and the number of blocks.
fn block() -> (u64, u64) {
    // SAFETY: reads two registers.
    unsafe { (u64::from(_block_idx_x() as u32), u64::from(_grid_dim_x() as u32)) }
}

/// This thread's index in its warp.
pub(crate) fn lane() -> u64 {
    thread().0 % WARP
}

/// The descriptor that a chunk belongs to, by binary search.
///
/// # Safety
/// The table has `count` descriptors, at least one.
#[inline(always)]
pub(crate) unsafe fn find_desc<'a, L: TableRow>(table: *const L, count: u64, chunk: u64) -> &'a L {
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

/// Runs `f` on the chunks of this block, with the descriptor, the index of the chunk in it, and the
/// start and stride of this thread in the chunk.
///
/// # Safety
/// The table has `count` descriptors, at least one.
#[inline(always)]
pub(crate) unsafe fn for_each_chunk_per_block<'a, L: TableRow + 'a>(
    table: *const L,
    count: u64,
    chunks: u64,
    f: impl Fn(&'a L, u64, u64, u64),
) {
    let ((mut chunk, stride), (at, step)) = (block(), thread());
    while chunk < chunks {
        // SAFETY: guaranteed by the caller.
        let desc = unsafe { find_desc(table, count, chunk) };
        f(desc, chunk - desc.first_block(), at, step);
        chunk += stride;
    }
}

/// Runs `f` on the chunks of this warp, with the descriptor and the index of the chunk in it.
///
/// # Safety
/// The table has `count` descriptors, at least one.
#[inline(always)]
pub(crate) unsafe fn for_each_chunk_per_warp<'a, L: TableRow + 'a>(
    table: *const L,
    count: u64,
    chunks: u64,
    f: impl Fn(&'a L, u64),
) {
    let (mut chunk, stride) = chunks_of_warp();
    while chunk < chunks {
        // SAFETY: guaranteed by the caller.
        let desc = unsafe { find_desc(table, count, chunk) };
        f(desc, chunk - desc.first_block());
        chunk += stride;
    }
}

/// The first chunk of this warp, and the distance from one to the next.
#[inline(always)]
pub(crate) fn chunks_of_warp() -> (u64, u64) {
    let ((block, blocks), (at, threads)) = (block(), thread());
    let warps = threads / WARP;
    (block * warps + at / WARP, blocks * warps)
}

/// The sum over the lanes, folded 16, 8, 4, 2, 1. The result is in lane 0.
#[inline(always)]
pub(crate) fn warp_sum<A: ComputeFloat>(x: A) -> A {
    warp_fold(x, |x, y| x + y)
}

/// Reduces the lanes by `join`, folded 16, 8, 4, 2, 1. The result is in lane 0.
#[inline(always)]
pub(crate) fn warp_fold<A: ComputeFloat>(mut x: A, join: impl Fn(A, A) -> A) -> A {
    let mut width = 16;
    while width > 0 {
        x = join(x, shfl_down(x, width));
        width /= 2;
    }
    x
}

/// Reduces the terms of a range, first in each lane, then over the lanes. The result is in lane 0.
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

/// The value of the lane whose index differs from this one's in the bits of `lanes`.
#[inline(always)]
pub(crate) fn shfl_xor(x: u32, lanes: u32) -> u32 {
    let y: u32;
    // SAFETY: all lanes of the warp execute this; no memory is accessed.
    unsafe {
        asm!("shfl.sync.bfly.b32 {y}, {x}, {n}, 0x1f, 0xffffffff;",
            y = out(reg32) y, x = in(reg32) x, n = in(reg32) lanes, options(nomem, nostack));
    }
    y
}

/// Shared memory of a block, of this many floats for each of up to N threads; returns the first of this
/// thread, whose other ones follow at a distance of [`WARP`]. Other threads' are not to be accessed. To be
/// called once in a kernel.
#[inline(always)]
pub(crate) fn shared<const FLOATS: usize, const N: usize>() -> *mut f32 {
    let at: u64;
    // SAFETY: declares memory, and takes its address.
    unsafe {
        asm!(".shared .align 16 .b8 shared_floats[{bytes}];", "cvta.shared.u64 {at}, shared_floats;",
            at = out(reg64) at, bytes = const FLOATS * N * 4, options(nostack));
    }
    let (thread, warp) = (thread().0, thread().0 / WARP);
    (at + (warp * FLOATS as u64 * WARP + thread % WARP) * 4) as *mut f32
}

/// The value of the lane `lanes` above.
#[inline(always)]
fn shfl_down<A: ComputeFloat>(x: A, lanes: u32) -> A {
    fn shuffle(x: u32, lanes: u32) -> u32 {
        let y: u32;
        // SAFETY: all lanes of the warp execute this; no memory is accessed.
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
