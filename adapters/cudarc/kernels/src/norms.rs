//! Norms over gradients.

use bitstep::float::Eager;
use bitstep::float::{ComputeFloat, StoredFloat};
use bitstep::gradient::kernel::{NormKind, clamped_square, round, tf_half_square, tf_norm};
use bitstep::gradient::{ClipByGlobalNorm, ClipGradNorm};
use half::{bf16, f16};

use crate::grid::{for_each_chunk_per_block, for_each_chunk_per_warp, lane, part, warp_reduce};
use crate::rules::{entries, load};
use crate::sums::split;
use crate::table::{CHUNK, FoldDesc, NormDesc};

const TWO: u32 = 0;
const ONE: u32 = 1;
const LARGEST: u32 = 2;
const SMALLEST: u32 = 3;
const COUNT: u32 = 4;
const POWER: u32 = 5;

const fn order(kind: u32) -> NormKind {
    match kind {
        TWO => NormKind::Two,
        ONE => NormKind::One,
        LARGEST => NormKind::Largest,
        SMALLEST => NormKind::Smallest,
        COUNT => NormKind::Count,
        _ => NormKind::Power,
    }
}

/// Reduces each block to one value.
#[inline(always)]
unsafe fn blocks<A: ComputeFloat>(
    table: *const NormDesc,
    count: u64,
    chunks: u64,
    kind: NormKind,
    term: impl Fn(&NormDesc, usize) -> A,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &NormDesc, chunk| {
            let join = |x, y| kind.join(x, y);
            let all = warp_reduce(part(t.len, chunk), kind.start(), |i| term(t, i), join);
            if lane() == 0 {
                *(t.to as *mut A).add(chunk as usize) = all;
            }
        });
    }
}

#[inline(always)]
unsafe fn norm<T: ComputeFloat, const KIND: u32>(table: *const NormDesc, count: u64, chunks: u64) {
    let kind = const { order(KIND) };
    // SAFETY: as above.
    unsafe {
        blocks::<T::Scalar>(table, count, chunks, kind, |t, i| {
            kind.term(f64::from_bits(t.number), load::<T>(t.from, i).widen())
        });
    }
}

/// Sums of TensorFlow's clamped squares, in the sum type of the norm.
#[inline(always)]
unsafe fn squares<T: StoredFloat, A: ComputeFloat>(
    table: *const NormDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: as above.
    unsafe {
        blocks::<A>(table, count, chunks, NormKind::Two, |t, i| {
            clamped_square(*(t.from as *const T).add(i), A::from_f64(f64::from_bits(t.number)))
        });
    }
}

/// Reduces each block of a segment to its largest or smallest value.
#[inline(always)]
unsafe fn extreme<A: ComputeFloat, const KIND: u32>(
    table: *const FoldDesc,
    count: u64,
    chunks: u64,
) {
    let kind = const { order(KIND) };
    // SAFETY: as above.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &FoldDesc, chunk| {
            let (segment, block) = split(chunk, t.len.div_ceil(CHUNK));
            let from = (t.from as *const A).add((segment * t.len) as usize);
            let join = |x, y| kind.join(x, y);
            let all = warp_reduce(part(t.len, block), kind.start(), |i| *from.add(i), join);
            if lane() == 0 {
                *(t.to as *mut A).add(chunk as usize) = all;
            }
        });
    }
}

/// Runs `f` once per descriptor.
#[inline(always)]
unsafe fn once(table: *const NormDesc, count: u64, chunks: u64, f: impl Fn(&NormDesc)) {
    // SAFETY: as above.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |t: &NormDesc, _, at, _| {
            if at == 0 {
                f(t);
            }
        });
    }
}

/// The norm of one tensor, an element of the list of all norms.
#[inline(always)]
unsafe fn root<T: ComputeFloat>(table: *const NormDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        once(table, count, chunks, |t| {
            let order = f64::from_bits(t.number);
            let kind = NormKind::of(order, t.len as usize);
            let norm = kind.root(order, *(t.from as *const T::Scalar));
            let norm = T::round_from(norm).to_f64();
            match t.wide {
                1 => *(t.to as *mut f64) = norm,
                _ => *(t.to as *mut f32) = norm as f32,
            }
        });
    }
}

/// The norm over all tensors, and the factor of the gradients.
#[inline(always)]
unsafe fn total<C: ComputeFloat>(table: *const NormDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        once(table, count, chunks, |t| {
            let [norm_type, max_norm] = [t.number, t.most].map(f64::from_bits);
            let all = *(t.from as *const C::Scalar);
            let norm = NormKind::of(norm_type, t.len as usize).root(norm_type, all).to_f64();
            let norm = round(norm, C::DTYPE);
            let clip = ClipGradNorm { max_norm, norm_type, error_if_nonfinite: false };
            let to = t.to as *mut f64;
            *to = norm;
            *to.add(1) = clip.coefficient(norm, C::DTYPE);
        });
    }
}

/// TensorFlow's half squares of one tensor.
#[inline(always)]
unsafe fn halves<C: ComputeFloat>(table: *const NormDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        once(table, count, chunks, |t| {
            let squares = (*(t.from as *const C::Scalar)).to_f64();
            *(t.to as *mut C::Scalar) = tf_half_square::<C>(squares);
        });
    }
}

/// TensorFlow's norm over all tensors, and the factor of the gradients.
#[inline(always)]
unsafe fn global<C: ComputeFloat>(table: *const NormDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        once(table, count, chunks, |t| {
            let norm = tf_norm::<C>(*(t.from as *const C::Scalar));
            let clip = ClipByGlobalNorm { clip_norm: f64::from_bits(t.most) };
            let to = t.to as *mut f64;
            *to = norm.to_f64();
            *to.add(1) = clip.coefficient::<C>(norm).to_f64();
        });
    }
}

macro_rules! types {
    ($($suffix:literal: $type:ty,)*) => {$(
        entries! {
            in NormDesc;
            concat!("norm_two_", $suffix) => norm::<$type, TWO>;
            concat!("norm_one_", $suffix) => norm::<$type, ONE>;
            concat!("norm_largest_", $suffix) => norm::<$type, LARGEST>;
            concat!("norm_smallest_", $suffix) => norm::<$type, SMALLEST>;
            concat!("norm_count_", $suffix) => norm::<$type, COUNT>;
            concat!("norm_power_", $suffix) => norm::<$type, POWER>;
            concat!("norm_root_", $suffix) => root::<$type>;
            concat!("norm_total_", $suffix) => total::<$type>;
            concat!("norm_halves_", $suffix) => halves::<$type>;
            concat!("norm_global_", $suffix) => global::<$type>;
        }
    )*};
}
types! { "f64": f64, "f32": f32, "bf16": Eager<bf16>, "f16": Eager<f16>, }

entries! {
    in NormDesc;
    "norm_squares_f64_f64" => squares::<f64, f64>;
    "norm_squares_f32_f64" => squares::<f32, f64>;
    "norm_squares_bf16_f64" => squares::<bf16, f64>;
    "norm_squares_f16_f64" => squares::<f16, f64>;
    "norm_squares_f32_f32" => squares::<f32, f32>;
    "norm_squares_bf16_f32" => squares::<bf16, f32>;
    "norm_squares_f16_f32" => squares::<f16, f32>;
}
entries! {
    in FoldDesc;
    "largest_f64" => extreme::<f64, LARGEST>;
    "largest_f32" => extreme::<f32, LARGEST>;
    "smallest_f64" => extreme::<f64, SMALLEST>;
    "smallest_f32" => extreme::<f32, SMALLEST>;
}
