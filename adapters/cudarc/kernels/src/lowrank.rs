//! Rules on projected gradients: the passes between the matrix products.

use bitstep::float::ComputeFloat;
use bitstep::float::{Eager, EagerFloat};
use bitstep::lowrank::{Apollo, GaLore};
use bitstep::math::reduce;
use bitstep::optim::*;
use bitstep::rule::Rule;
use bitstep::rule::{replace_param_sums, scaled_sum};
use half::{bf16, f16};

use crate::grid::{
    Partial, for_each_chunk_per_block, for_each_chunk_per_warp, lane, part, warp_reduce,
};
use crate::newton_schulz::each;
use crate::rules::{ElementPtrs, complete, entries, load, store, sum};
use crate::sums::split;
use crate::table::{ApolloDesc, CHUNK, ChannelDesc, TensorDesc};

/// Sets 8-byte words at `param` to zero.
#[inline(always)]
unsafe fn clear(table: *const TensorDesc, count: u64, chunks: u64) {
    // SAFETY: the host's descriptors are valid; each element belongs to one thread.
    unsafe { each(table, count, chunks, |t, i| *(t.param as *mut u64).add(i) = 0) }
}

/// Computes the direction of a projected gradient, at `param`.
#[inline(always)]
unsafe fn direct<R: Rule, C: ComputeFloat<Stored: EagerFloat>>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: as above.
    unsafe {
        each(table, count, chunks, |t, i| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let tensor = ElementPtrs::<R, C::Stored, C::Stored, C::Stored>::new(t);
            let (_, g, state) = tensor.load::<C>(i);
            let (direction, state) = R::update_direction::<C>(&k, g, state);
            tensor.store(i, direction, &state);
        });
    }
}

/// Sums over a parameter alone.
#[inline(always)]
unsafe fn param_sums<R: Rule, C: ComputeFloat>(table: *const TensorDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &TensorDesc, chunk| {
            let (start, end) = part(t.len, chunk);
            let k = *(t.coefs as *const R::Coefs<C>);
            let term = |i| {
                let zeros = <R::Slots<C> as bitstep::rule::Array<C>>::from_fn(|_| C::ZERO);
                R::sum_terms::<C>(&k, load(t.param, i), C::ZERO, zeros)
            };
            let sums = sum::<C::Scalar>(t, chunk, (start, end), term);
            crate::rules::finish::<R, C>(t, sums);
        });
    }
}

/// Completes the constants with the sums over the `len` elements of a projection (`sums`) and over the
/// `width` elements of the parameter (`factors[0]`).
#[inline(always)]
unsafe fn finish<R: Rule, C: ComputeFloat>(table: *const TensorDesc, count: u64, chunks: u64) {
    // SAFETY: as above; one thread per descriptor writes its constants.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |t: &TensorDesc, _, at, _| {
            if at == 0 {
                let [low, whole] = [t.sums, t.factors[0]].map(|s| match s {
                    0 => [C::Scalar::ZERO; 2],
                    s => [*(s as *const C::Scalar), *(s as *const C::Scalar).add(1)],
                });
                let whole = whole.map(|sum| scaled_sum::<C>(sum, t.len as usize, t.width as usize));
                let sums = replace_param_sums::<R, C>(low, whole);
                complete::<R, C>([t.coefs, t.persist], sums, t.len);
            }
        });
    }
}

/// Updates a parameter along the directions at `grad`.
#[inline(always)]
unsafe fn follow<R: Rule, C: ComputeFloat>(table: *const TensorDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        each(table, count, chunks, |t, i| {
            let k = *(t.coefs as *const R::Coefs<C>);
            store(t.param, i, R::apply_direction::<C>(&k, load(t.param, i), load(t.grad, i)));
        });
    }
}

/// Multiplies a product by the `f64` whose bits are in `width`.
#[inline(always)]
unsafe fn galore<C: ComputeFloat>(table: *const TensorDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        each(table, count, chunks, |t, i| {
            let by = C::scalar(f64::from_bits(t.width));
            store(t.param, i, GaLore::scaled::<C>(load(t.param, i), by));
        });
    }
}

/// Sums of the squares of channels, and the factors made of them.
#[inline(always)]
unsafe fn channels<C: ComputeFloat>(table: *const ChannelDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &ChannelDesc, chunk| {
            let blocks = if t.len == 0 { 1 } else { t.len.div_ceil(CHUNK) };
            let (channel, block) = split(chunk, blocks);
            let first = (channel * t.start) as usize;
            let sums = t.from.map(|from| {
                let number = |i: usize| load::<C>(from, first + i * t.stride as usize);
                let square = |i: usize| reduce::square(number(i).widen(), t.len == 1);
                warp_reduce(part(t.len, block), C::Scalar::ZERO, square, |x, y| x + y)
            });
            let [values, counters] = t.strides.map(|stride| channel * stride);
            let values = t.sums + values * size_of::<C::Scalar>() as u64;
            let counters = t.counters + counters * 4;
            let all = Partial { values, counters, count: blocks, at: block }.add(sums);
            if let Some([direction, projected]) = all.filter(|_| lane() == 0) {
                let factor = Apollo::factor::<C>(direction, projected, t.len == 1);
                store(t.to, channel as usize, factor);
            }
        });
    }
}

/// An element of a scaled gradient.
///
/// # Safety
/// The descriptor is valid, and the element exists.
#[inline(always)]
unsafe fn scaled<C: ComputeFloat>(t: &ApolloDesc, i: usize, limiter: Option<C>) -> C {
    let (row, col) = split(i as u64, t.cols);
    let channel = match (t.by_column == 1 && t.count > 1, row < t.count) {
        (true, _) => col,
        (false, true) => row,
        (false, false) => 0,
    };
    // SAFETY: guaranteed by the caller.
    let (g, factor) = unsafe { (load(t.grad, i), load(t.factors, channel as usize)) };
    Apollo::scaled(g, factor, C::scalar(f64::from_bits(t.root)), t.front == 1, limiter)
}

/// The sum of all squares, and the limiter made of it.
#[inline(always)]
unsafe fn scaled_squares<C: ComputeFloat>(table: *const ApolloDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &ApolloDesc, chunk| {
            let square = |i: usize| reduce::square(scaled::<C>(t, i, None).widen(), t.len == 1);
            let sum = warp_reduce(part(t.len, chunk), C::Scalar::ZERO, square, |x, y| x + y);
            let count = if t.len == 0 { 1 } else { t.len.div_ceil(CHUNK) };
            let all = Partial { values: t.to, counters: t.counters, count, at: chunk }.add([sum]);
            if let Some([squares]) = all.filter(|_| lane() == 0) {
                let cell = t.cell as *mut f64;
                let before = if t.seen == 1 { Some(*cell) } else { None };
                let (limiter, last) = Apollo::limiter::<C>(squares, t.len == 1, before);
                *cell = last.to_f64();
                *cell.add(1) = limiter.to_f64();
            }
        });
    }
}

#[inline(always)]
unsafe fn directions<C: ComputeFloat>(table: *const ApolloDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |t: &ApolloDesc, chunk, at, step| {
            let limiter = match t.cell {
                0 => C::ONE,
                cell => C::from_f64(*(cell as *const f64).add(1)),
            };
            let (start, end) = part(t.len, chunk);
            let mut i = start + at;
            while i < end {
                store(t.to, i as usize, scaled::<C>(t, i as usize, Some(limiter)));
                i += step;
            }
        });
    }
}

entries! { "clear" => clear; }

macro_rules! ways {
    ($($suffix:literal: $type:ty,)*) => {$(
        entries! {
            concat!("galore_", $suffix) => galore::<$type>;
        }
        entries! { in ChannelDesc; concat!("channels_", $suffix) => channels::<$type>; }
        entries! {
            in ApolloDesc;
            concat!("apollo_squares_", $suffix) => scaled_squares::<$type>;
            concat!("apollo_directions_", $suffix) => directions::<$type>;
        }
    )*};
}
ways! { "f64": f64, "f32": f32, "bf16": Eager<bf16>, "f16": Eager<f16>, }

macro_rules! rules {
    (
        elementwise $e:tt tensorwise $t:tt factored $f:tt orthogonal $o:tt projected $p:tt
        directed { $($d:ident: $dr:ty,)* }
        directed_factored { $($m:ident: $mr:ty,)* }
    ) => {
        $(types! { $d, $dr; "f64": f64, "f32": f32, "bf16": Eager<bf16>, "f16": Eager<f16>, })*
        $(second! { $m, $mr; "f64": f64, "f32": f32, "bf16": Eager<bf16>, "f16": Eager<f16>, })*
    };
}

macro_rules! types {
    ($stem:ident, $rule:ty; $($suffix:literal: $type:ty,)*) => {
        $(entries! { concat!(stringify!($stem), "_direct_", $suffix) => direct::<$rule, $type>; })*
        second! { $stem, $rule; $($suffix: $type,)* }
    };
}

macro_rules! second {
    ($stem:ident, $rule:ty; $($suffix:literal: $type:ty,)*) => {$(
        entries! {
            concat!(stringify!($stem), "_param_sums_", $suffix) => param_sums::<$rule, $type>;
            concat!(stringify!($stem), "_finish_low_", $suffix) => finish::<$rule, $type>;
            concat!(stringify!($stem), "_follow_", $suffix) => follow::<$rule, $type>;
        }
    )*};
}

bitstep::each_rule!(rules);
