//! Newton-Schulz rules: the passes between the matrix products.

use bitstep::float::ComputeFloat;
use bitstep::float::Eager;
use bitstep::math::reduce;
use bitstep::optim::*;
use bitstep::rule::newton_schulz::{NewtonSchulz, WideIndex};
use half::{bf16, f16};

use crate::grid::{
    Partial, for_each_chunk_per_block, for_each_chunk_per_warp, lane, part, warp_reduce,
};
use crate::product::product_then;
use crate::rules::{entries, load, store};
use crate::table::{CHUNK, ProductDesc, TensorDesc};

/// Runs `f` on every element of a table.
///
/// # Safety
/// The table has `count` valid descriptors.
#[inline(always)]
pub(crate) unsafe fn each(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
    f: impl Fn(&TensorDesc, usize),
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |line: &TensorDesc, chunk, at, step| {
            let (start, end) = part(line.len, chunk);
            let mut i = start + at;
            while i < end {
                f(line, i as usize);
                i += step;
            }
        });
    }
}

// `factors[0]` is X, the wide form of a matrix of `height` by `width` elements.

#[inline(always)]
unsafe fn begin<R: NewtonSchulz, C: ComputeFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid; each element belongs to one thread.
    unsafe {
        each(table, count, chunks, |t, i| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let (moved, x) = R::momentum::<C>(&k, load(t.slots[0], i), load(t.grad, i));
            store(t.slots[0], i, moved);
            let place = WideIndex::new([t.height, t.width].map(|d| d as usize)).of(i);
            *(t.factors[0] as *mut C::Scalar).add(place) = x;
        });
    }
}

#[inline(always)]
unsafe fn divide<R: NewtonSchulz, C: ComputeFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: as above.
    unsafe {
        each(table, count, chunks, |t, i| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let norm = R::norm::<C>(&k, *(t.totals as *const C::Scalar));
            let x = &mut *(t.factors[0] as *mut C::Scalar).add(i);
            *x = R::normalize::<C>(*x, norm);
        });
    }
}

// Products, each with what the rule makes of it; C::Scalar is what both are computed in.

/// X by its transpose.
#[inline(always)]
unsafe fn gram<R: NewtonSchulz, C: ComputeFloat<Scalar: ComputeFloat<Scalar = C::Scalar>>>(
    table: *const ProductDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: as above.
    unsafe { product_then::<C::Scalar>(table, count, chunks, |_, _, x| R::gram::<C>(x)) }
}

/// The square of the gram matrix, which is beside it: the polynomial of it.
#[inline(always)]
unsafe fn mix<R: NewtonSchulz, C: ComputeFloat<Scalar: ComputeFloat<Scalar = C::Scalar>>>(
    table: *const ProductDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: as above.
    unsafe {
        product_then::<C::Scalar>(table, count, chunks, |p, i, square| {
            let k = *(p.coefs as *const R::Coefs<C>);
            R::polynomial::<C>(&k, *(p.beside as *const C::Scalar).add(i), square)
        });
    }
}

/// The polynomial by X, which is beside it: the next X.
#[inline(always)]
unsafe fn next<R: NewtonSchulz, C: ComputeFloat<Scalar: ComputeFloat<Scalar = C::Scalar>>>(
    table: *const ProductDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: as above.
    unsafe {
        product_then::<C::Scalar>(table, count, chunks, |p, i, product| {
            let k = *(p.coefs as *const R::Coefs<C>);
            R::next::<C>(&k, *(p.beside as *const C::Scalar).add(i), product)
        });
    }
}

#[inline(always)]
unsafe fn apply<R: NewtonSchulz, C: ComputeFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: as above.
    unsafe {
        each(table, count, chunks, |t, i| {
            let k = *(t.coefs as *const R::Coefs<C>);
            let place = WideIndex::new([t.height, t.width].map(|d| d as usize)).of(i);
            let x = *(t.factors[0] as *const C::Scalar).add(place);
            store(t.param, i, <R as NewtonSchulz>::update::<C>(&k, load(t.param, i), x));
        });
    }
}

/// The sum of the squares of X, at `totals`.
#[inline(always)]
unsafe fn squares<A: ComputeFloat>(table: *const TensorDesc, count: u64, chunks: u64) {
    // SAFETY: as above.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |t: &TensorDesc, chunk| {
            let x = t.factors[0] as *const A;
            let square = |i| reduce::square(*x.add(i), t.len == 1);
            let sum = warp_reduce(part(t.len, chunk), A::ZERO, square, |x, y| x + y);
            let (values, counters, count) = (t.sums, t.counters, t.len.div_ceil(CHUNK));
            let all = Partial { values, counters, count, at: chunk }.add([sum]);
            if let Some([sum]) = all.filter(|_| lane() == 0) {
                *(t.totals as *mut A) = sum;
            }
        });
    }
}

entries! {
    "squares_f64" => squares::<f64>;
    "squares_f32" => squares::<f32>;
}

macro_rules! rules {
    (
        elementwise $e:tt tensorwise $t:tt factored $f:tt
        orthogonal { $($o:ident: $or:ty,)* }
        $($rest:tt)*
    ) => {
        $(
            types!($o, $or, "f64", f64);
            types!($o, $or, "f32", f32);
            types!($o, $or, "bf16", Eager<bf16>);
            types!($o, $or, "f16", Eager<f16>);
        )*
    };
}

macro_rules! types {
    ($stem:ident, $rule:ty, $suffix:literal, $type:ty) => {
        entries! {
            concat!(stringify!($stem), "_begin_", $suffix) => begin::<$rule, $type>;
            concat!(stringify!($stem), "_divide_", $suffix) => divide::<$rule, $type>;
            concat!(stringify!($stem), "_orthogonal_apply_", $suffix) => apply::<$rule, $type>;
        }
        entries! {
            in ProductDesc;
            concat!(stringify!($stem), "_gram_", $suffix) => gram::<$rule, $type>;
            concat!(stringify!($stem), "_mix_", $suffix) => mix::<$rule, $type>;
            concat!(stringify!($stem), "_next_", $suffix) => next::<$rule, $type>;
        }
    };
}

bitstep::each_rule!(rules);
