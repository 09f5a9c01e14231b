//! Elementwise and tensorwise rules.

use bitstep::Array;
use bitstep::optim::*;
use bitstep::real::{Number, Real};
use bitstep::rule::Rule;
use half::{bf16, f16};

use crate::grid::{WARP, by_block, by_warp, fold, lane};
use crate::table::{CHUNK, Row};

/// A tensor's memory.
pub(crate) struct At<R: Rule, P, G, S> {
    param: *mut P,
    grad: *const G,
    slots: R::Slots<*mut S>,
}

impl<R: Rule, P: Number, G: Number, S: Number> At<R, P, G, S> {
    #[inline(always)]
    pub(crate) fn new(row: &Row) -> Self {
        At {
            param: row.param as *mut P,
            grad: row.grad as *const G,
            slots: R::Slots::from_fn(|k| row.slots.get(k).map_or(0, |&s| s) as *mut S),
        }
    }

    /// # Safety
    /// The tensor has more than i elements.
    #[inline(always)]
    pub(crate) unsafe fn load<C: Real>(&self, i: usize) -> (C, C, R::Slots<C>) {
        let slots = self.slots.as_ref();
        // SAFETY: as the caller promises.
        unsafe {
            let state = R::Slots::<C>::from_fn(|k| match slots.get(k) {
                Some(slot) if !slot.is_null() => C::load(*slot.add(i)),
                _ => C::ZERO,
            });
            (C::load(*self.param.add(i)), C::load(*self.grad.add(i)), state)
        }
    }

    /// # Safety
    /// As [`At::load`]; no other thread has this element.
    #[inline(always)]
    pub(crate) unsafe fn store<C: Real>(&self, i: usize, p: C, state: &R::Slots<C>) {
        // SAFETY: as the caller promises.
        unsafe {
            *self.param.add(i) = p.store();
            for (slot, x) in self.slots.as_ref().iter().zip(state.as_ref()) {
                if !slot.is_null() {
                    *slot.add(i) = x.store();
                }
            }
        }
    }
}

/// The part of a tensor that is a chunk of it.
#[inline(always)]
pub(crate) fn part(len: u64, chunk: u64) -> (u64, u64) {
    let start = chunk * CHUNK;
    (start, if len - start < CHUNK { len } else { start + CHUNK })
}

#[inline(always)]
unsafe fn apply<R: Rule, C: Real, P: Number, G: Number, S: Number>(
    rows: *const Row,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's table says what is where; a chunk's elements are this block's alone.
    unsafe {
        by_block(rows, count, chunks, |row: &Row, chunk, at, step| {
            let (start, end) = part(row.len, chunk);
            let k = *(row.coefs as *const R::Coefs<C>);
            let tensor = At::<R, P, G, S>::new(row);
            let mut i = start + at;
            while i < end {
                let (p, g, state) = tensor.load::<C>(i as usize);
                let (p, state) = R::element::<C>(&k, p, g, state);
                tensor.store(i as usize, p, &state);
                i += step;
            }
        });
    }
}

#[inline(always)]
unsafe fn sums<R: Rule, C: Real, P: Number, G: Number, S: Number>(
    rows: *const Row,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's table says what is where.
    unsafe {
        by_warp(rows, count, chunks, |row: &Row, chunk| {
            let (start, end) = part(row.len, chunk);
            let k = *(row.coefs as *const R::Coefs<C>);
            let tensor = At::<R, P, G, S>::new(row);
            write_sums::<C::Scalar>(row, chunk, start, end, |i| {
                let (p, g, state) = tensor.load::<C>(i);
                R::terms::<C>(&k, p, g, state)
            });
        });
    }
}

/// Sums the terms of a chunk, in the core's order, and notes both sums.
///
/// # Safety
/// The table says what is where.
#[inline(always)]
pub(crate) unsafe fn write_sums<A: Real>(
    row: &Row,
    chunk: u64,
    start: u64,
    end: u64,
    term: impl Fn(usize) -> [A; 2],
) {
    let (mut a, mut b) = (A::ZERO, A::ZERO);
    let mut i = start + lane();
    while i < end {
        let [x, y] = term(i as usize);
        (a, b) = (a + x, b + y);
        i += WARP;
    }
    let (a, b) = (fold(a), fold(b));
    if lane() == 0 {
        let to = row.sums as *mut A;
        // SAFETY: there is room for two sums a chunk.
        unsafe {
            *to.add(chunk as usize) = a;
            *to.add((row.len.div_ceil(CHUNK) + chunk) as usize) = b;
        }
    }
}

#[inline(always)]
unsafe fn finish<R: Rule, C: Real>(rows: *const Row, count: u64, chunks: u64) {
    // SAFETY: the host's table says what is where; one thread a row changes its constants.
    unsafe {
        by_block(rows, count, chunks, |row: &Row, _, at, _| {
            if at == 0 {
                let sums = row.sums as *const C::Scalar;
                let k = &mut *(row.coefs as *mut R::Coefs<C>);
                R::finish::<C>(k, [*sums, *sums.add(1)], row.len as usize);
            }
        });
    }
}

/// Entries by name.
macro_rules! entries {
    ($($name:expr => $body:path;)*) => {$(
        const _: () = {
            #[unsafe(export_name = $name)]
            unsafe extern "ptx-kernel" fn entry(table: *const crate::table::Row, count: u64, chunks: u64) {
                // SAFETY: the host's tables are what the kernel expects.
                unsafe { $body(table, count, chunks) }
            }
        };
    )*};
}

pub(crate) use entries;

macro_rules! rules {
    (
        elementwise { $($e:ident: $er:ty,)* }
        tensorwise { $($t:ident: $tr:ty,)* }
        factored { $($f:ident: $fr:ty,)* }
    ) => {
        $(applies!($e, $er);)*
        $(applies!($t, $tr); sums!($t, $tr);)*
        $(applies!($f, $fr); sums!($f, $fr);)*
    };
}

macro_rules! applies {
    ($stem:ident, $rule:ty) => {
        entries! {
            concat!(stringify!($stem), "_apply_f64") => apply::<$rule, f64, f64, f64, f64>;
            concat!(stringify!($stem), "_apply_f32") => apply::<$rule, f32, f32, f32, f32>;
            concat!(stringify!($stem), "_apply_bf16") => apply::<$rule, bf16, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_apply_f16") => apply::<$rule, f16, f16, f16, f16>;
            concat!(stringify!($stem), "_apply_f32_bf16") => apply::<$rule, f32, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_apply_f32_bf16_f32") => apply::<$rule, f32, bf16, bf16, f32>;
            concat!(stringify!($stem), "_apply_f32_f16") => apply::<$rule, f32, f16, f16, f16>;
        }
    };
}

macro_rules! sums {
    ($stem:ident, $rule:ty) => {
        entries! {
            concat!(stringify!($stem), "_sums_f64") => sums::<$rule, f64, f64, f64, f64>;
            concat!(stringify!($stem), "_sums_f32") => sums::<$rule, f32, f32, f32, f32>;
            concat!(stringify!($stem), "_sums_bf16") => sums::<$rule, bf16, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_sums_f16") => sums::<$rule, f16, f16, f16, f16>;
            concat!(stringify!($stem), "_sums_f32_bf16") => sums::<$rule, f32, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_sums_f32_bf16_f32") => sums::<$rule, f32, bf16, bf16, f32>;
            concat!(stringify!($stem), "_sums_f32_f16") => sums::<$rule, f32, f16, f16, f16>;
            concat!(stringify!($stem), "_finish_f64") => finish::<$rule, f64>;
            concat!(stringify!($stem), "_finish_f32") => finish::<$rule, f32>;
            concat!(stringify!($stem), "_finish_bf16") => finish::<$rule, bf16>;
            concat!(stringify!($stem), "_finish_f16") => finish::<$rule, f16>;
        }
    };
}

bitstep::each_rule!(rules);
