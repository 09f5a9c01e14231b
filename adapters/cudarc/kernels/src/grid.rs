//! Distribution of chunks of work over blocks or warps, and operations across a warp.

use core::arch::asm;
use core::arch::nvptx::{_block_dim_x, _block_idx_x, _grid_dim_x, _thread_idx_x};

use bitstep::float::{ComputeFloat, Dtype};

use crate::table::{CHUNK, TableRow};

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

/// The range of elements of a chunk.
#[inline(always)]
pub(crate) fn part(len: u64, chunk: u64) -> (u64, u64) {
    let start = chunk * CHUNK;
    (start, if len - start < CHUNK { len } else { start + CHUNK })
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

/// Shared memory of a block, of this many numbers for each of up to N threads; returns the first of this
/// thread, whose other ones follow at a distance of [`WARP`]. Those of the warp's other threads are only to be
/// accessed across [`sync_warp`], those of other warps never. To be called once in a kernel.
#[inline(always)]
pub(crate) fn shared<T, const COUNT: usize, const N: usize>() -> *mut T {
    let at: u64;
    // SAFETY: declares memory, and takes its address.
    unsafe {
        asm!(".shared .align 16 .b8 shared_numbers[{bytes}];", "cvta.shared.u64 {at}, shared_numbers;",
            at = out(reg64) at, bytes = const COUNT * N * size_of::<T>(), options(nostack));
    }
    let (thread, warp) = (thread().0, thread().0 / WARP);
    let index = warp * COUNT as u64 * WARP + thread % WARP;
    (at + index * size_of::<T>() as u64) as *mut T
}

/// Waits for all threads of the warp, which see then what each of them has written.
#[inline(always)]
pub(crate) fn sync_warp() {
    // SAFETY: all lanes of the warp execute this.
    unsafe { asm!("bar.warp.sync 0xffffffff;", options(nostack)) }
}

/// Whether this warp is the last of `parts` warps, by a counter that is 0 before and afterwards. It sees then
/// what all of them have written.
///
/// # Safety
/// The counter is a `u32`; every lane of the warp calls this, in each of the warps once.
#[inline(always)]
pub(crate) unsafe fn is_last(counter: u64, parts: u64) -> bool {
    sync_warp();
    if parts <= 1 {
        return true;
    }
    let (mut before, last) = (0u32, parts as u32 - 1);
    if lane() == 0 {
        // SAFETY: guaranteed by the caller.
        unsafe {
            asm!("atom.acq_rel.gpu.inc.u32 {before}, [{at}], {last};",
                before = out(reg32) before, at = in(reg64) counter, last = in(reg32) last,
                options(nostack));
        }
    }
    sync_warp();
    shfl_idx(before, 0) == last
}

/// What a warp knows of the results of one chunk of several, which are reduced in the core's order: by blocks
/// of [`CHUNK`], those of that many blocks again, until one is left. The last warp of each block reduces it.
pub(crate) struct Partial {
    /// The results of each level, and the counters of each block, one level after the other.
    pub(crate) values: u64,
    pub(crate) counters: u64,
    /// The number of chunks, and this one's index.
    pub(crate) count: u64,
    pub(crate) at: u64,
}

impl Partial {
    /// Adds N sums of this chunk, of lane 0. In the last warp of all it returns those of all chunks, in lane 0.
    ///
    /// # Safety
    /// There is room for N values of each block of each level, and a counter.
    #[inline(always)]
    pub(crate) unsafe fn add<A: ComputeFloat, const N: usize>(
        self,
        mut sums: [A; N],
    ) -> Option<[A; N]> {
        let Partial { values, mut counters, mut count, mut at } = self;
        let mut values = values as *mut A;
        while count > 1 {
            let block = at / CHUNK;
            let (start, end) = part(count, block);
            // SAFETY: guaranteed by the caller.
            unsafe {
                if lane() == 0 {
                    for (n, sum) in sums.iter().enumerate() {
                        *values.add(n * count as usize + at as usize) = *sum;
                    }
                }
                if !is_last(counters + block * 4, end - start) {
                    return None;
                }
                for (n, sum) in sums.iter_mut().enumerate() {
                    let from = values.add(n * count as usize);
                    *sum = warp_reduce((start, end), A::ZERO, |i| *from.add(i), |x, y| x + y);
                }
                values = values.add(N * count as usize);
            }
            (at, count) = (block, count.div_ceil(CHUNK));
            counters += count * 4;
        }
        Some(sums)
    }
}

/// The value of a lane.
#[inline(always)]
pub(crate) fn shfl_idx(x: u32, lane: u32) -> u32 {
    let y: u32;
    // SAFETY: all lanes of the warp execute this; no memory is accessed.
    unsafe {
        asm!("shfl.sync.idx.b32 {y}, {x}, {n}, 0x1f, 0xffffffff;",
            y = out(reg32) y, x = in(reg32) x, n = in(reg32) lane, options(nomem, nostack));
    }
    y
}

/// The number of lane 0.
#[inline(always)]
pub(crate) fn first_lane<A: ComputeFloat>(x: A) -> A {
    by_words(x, |x| shfl_idx(x, 0))
}

/// The value of the lane `lanes` above.
#[inline(always)]
fn shfl_down<A: ComputeFloat>(x: A, lanes: u32) -> A {
    by_words(x, |x| {
        let y: u32;
        // SAFETY: all lanes of the warp execute this; no memory is accessed.
        unsafe {
            asm!("shfl.sync.down.b32 {y}, {x}, {n}, 0x1f, 0xffffffff;",
                y = out(reg32) y, x = in(reg32) x, n = in(reg32) lanes, options(nomem, nostack));
        }
        y
    })
}

/// A shuffle of one or two words.
#[inline(always)]
fn by_words<A: ComputeFloat>(x: A, shuffle: impl Fn(u32) -> u32) -> A {
    if const { matches!(A::DTYPE, Dtype::F64) } {
        let bits = x.to_f64().to_bits();
        let (low, high) = (shuffle(bits as u32), shuffle((bits >> 32) as u32));
        A::from_f64(f64::from_bits(u64::from(high) << 32 | u64::from(low)))
    } else {
        A::from_f32(f32::from_bits(shuffle(x.to_f32().to_bits())))
    }
}
