//! Elementwise and tensorwise rules.

use bitstep::float::{ComputeFloat, StoredFloat};
use bitstep::float::{Eager, EagerFloat};
use bitstep::gradient::kernel::scaled;
use bitstep::optim::*;
use bitstep::rule::Array;
use bitstep::rule::Rule;
use half::{bf16, f16};

use crate::grid::{WARP, for_each_chunk_per_block, for_each_chunk_per_warp, lane, warp_sum};
use crate::table::{CHUNK, TensorDesc};

/// A tensor's memory.
pub(crate) struct ElementPtrs<R: Rule, P, G: EagerFloat, S> {
    param: *mut P,
    grad: *const G,
    slots: R::Slots<*mut S>,
    by: Option<Scalar<G>>,
}

/// What gradients are multiplied by on their way, if `at` says where that is.
///
/// # Safety
/// It is there.
#[inline(always)]
pub(crate) unsafe fn factor<G: EagerFloat>(at: u64) -> Option<Scalar<G>> {
    // SAFETY: as the caller promises.
    if at == 0 { None } else { Some(G::Compute::scalar(unsafe { *(at as *const f64) })) }
}

#[inline(always)]
pub(crate) fn scaled_grad<G: EagerFloat>(g: G, by: Option<Scalar<G>>) -> G::Compute {
    let g = G::Compute::load(g);
    match by {
        None => g,
        Some(by) => scaled(g, by),
    }
}

/// What multiplies numbers of this type.
pub(crate) type Scalar<G> = <<G as EagerFloat>::Compute as ComputeFloat>::Scalar;

/// Number i of those at an address, to compute in C.
///
/// # Safety
/// It is there, and of C's type in memory.
#[inline(always)]
pub(crate) unsafe fn load<C: ComputeFloat>(at: u64, i: usize) -> C {
    // SAFETY: as the caller promises.
    C::load(unsafe { *(at as *const C::Stored).add(i) })
}

/// Writes it.
///
/// # Safety
/// As [`load`]; no other thread has it.
#[inline(always)]
pub(crate) unsafe fn store<C: ComputeFloat>(at: u64, i: usize, x: C) {
    // SAFETY: as the caller promises.
    unsafe { *(at as *mut C::Stored).add(i) = x.store() }
}

impl<R: Rule, P: StoredFloat, G: EagerFloat, S: StoredFloat> ElementPtrs<R, P, G, S> {
    /// # Safety
    /// The row says what is where.
    #[inline(always)]
    pub(crate) unsafe fn new(row: &TensorDesc) -> Self {
        ElementPtrs {
            param: row.param as *mut P,
            grad: row.grad as *const G,
            slots: R::Slots::from_fn(|k| row.slots.get(k).map_or(0, |&s| s) as *mut S),
            // SAFETY: as the caller promises.
            by: unsafe { factor::<G>(row.by) },
        }
    }

    /// # Safety
    /// The tensor has more than i elements.
    #[inline(always)]
    pub(crate) unsafe fn load<C: ComputeFloat>(&self, i: usize) -> (C, C, R::Slots<C>) {
        let slots = self.slots.as_ref();
        // SAFETY: as the caller promises.
        unsafe {
            let state = R::Slots::<C>::from_fn(|k| match slots.get(k) {
                Some(slot) if !slot.is_null() => C::load(*slot.add(i)),
                _ => C::ZERO,
            });
            (C::load(*self.param.add(i)), C::load(scaled_grad(*self.grad.add(i), self.by)), state)
        }
    }

    /// # Safety
    /// As [`At::load`]; no other thread has this element.
    #[inline(always)]
    pub(crate) unsafe fn store<C: ComputeFloat>(&self, i: usize, p: C, state: &R::Slots<C>) {
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

/// Neighbours that are loaded and stored at once: 128 bits of `f32`.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(crate) struct Wide<T>([T; 4]);
/// The same of 16-bit numbers.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Narrow<T>([T; 4]);

/// Four neighbours of a type.
pub(crate) trait Four: StoredFloat {
    type Pack: Copy;
    fn pack(x: [Self; 4]) -> Self::Pack;
    fn unpack(pack: Self::Pack) -> [Self; 4];
}

macro_rules! four {
    ($($type:ident in $pack:ident;)*) => {$(
        impl Four for $type {
            type Pack = $pack<$type>;
            #[inline(always)]
            fn pack(x: [Self; 4]) -> $pack<$type> {
                $pack(x)
            }
            #[inline(always)]
            fn unpack(pack: $pack<$type>) -> [Self; 4] {
                pack.0
            }
        }
    )*};
}
four! { f32 in Wide; bf16 in Narrow; f16 in Narrow; }

impl<R: Rule, P: Four, G: Four + EagerFloat, S: Four> ElementPtrs<R, P, G, S> {
    /// Whether four neighbours may be loaded and stored at once.
    #[inline(always)]
    fn fits(&self) -> bool {
        let slots = self.slots.as_ref().iter().fold(0, |bits, &slot| bits | slot as usize);
        // Neighbours of all types begin at multiples of what the widest wants.
        (self.param as usize | self.grad as usize | slots).is_multiple_of(16)
    }

    /// Steps elements i to i + 3.
    ///
    /// # Safety
    /// They exist, no other thread has them, and [`At::fits`].
    #[inline(always)]
    unsafe fn step_x4<C: ComputeFloat>(&self, k: &R::Coefs<C>, i: usize) {
        let slots = self.slots.as_ref();
        // SAFETY: as the caller promises.
        unsafe {
            let mut param = P::unpack(*(self.param.add(i) as *const P::Pack));
            let grad = G::unpack(*(self.grad.add(i) as *const G::Pack));
            let mut state = R::Slots::<[S; 4]>::from_fn(|j| match slots.get(j) {
                Some(slot) if !slot.is_null() => S::unpack(*(slot.add(i) as *const S::Pack)),
                _ => [S::default(); 4],
            });
            // Written out: a loop that is not unrolled keeps its arrays in memory.
            lane_of_four::<R, C, P, G, S, 0>(k, &mut param, &grad, self.by, &mut state);
            lane_of_four::<R, C, P, G, S, 1>(k, &mut param, &grad, self.by, &mut state);
            lane_of_four::<R, C, P, G, S, 2>(k, &mut param, &grad, self.by, &mut state);
            lane_of_four::<R, C, P, G, S, 3>(k, &mut param, &grad, self.by, &mut state);
            *(self.param.add(i) as *mut P::Pack) = P::pack(param);
            for (slot, x) in slots.iter().zip(state.as_ref()) {
                if !slot.is_null() {
                    *(slot.add(i) as *mut S::Pack) = S::pack(*x);
                }
            }
        }
    }
}

/// Steps element V of four.
#[inline(always)]
fn lane_of_four<
    R: Rule,
    C: ComputeFloat,
    P: StoredFloat,
    G: EagerFloat,
    S: StoredFloat,
    const V: usize,
>(
    k: &R::Coefs<C>,
    param: &mut [P; 4],
    grad: &[G; 4],
    by: Option<Scalar<G>>,
    state: &mut R::Slots<[S; 4]>,
) {
    let before = state.as_ref();
    let before = R::Slots::<C>::from_fn(|j| before.get(j).map_or(C::ZERO, |s| C::load(s[V])));
    let (p, after) =
        R::update::<C>(k, C::load(param[V]), C::load(scaled_grad(grad[V], by)), before);
    param[V] = p.store();
    for (to, x) in state.as_mut().iter_mut().zip(after.as_ref()) {
        to[V] = x.store();
    }
}

/// Steps one element after the other.
#[inline(always)]
unsafe fn one_by_one<R: Rule, C: ComputeFloat, P: StoredFloat, G: EagerFloat, S: StoredFloat>(
    tensor: &ElementPtrs<R, P, G, S>,
    k: &R::Coefs<C>,
    mut i: u64,
    end: u64,
    step: u64,
) {
    while i < end {
        // SAFETY: a chunk's elements are this block's alone, and each of them one thread's.
        unsafe {
            let (p, g, state) = tensor.load::<C>(i as usize);
            let (p, state) = R::update::<C>(k, p, g, state);
            tensor.store(i as usize, p, &state);
        }
        i += step;
    }
}

#[inline(always)]
unsafe fn apply<R: Rule, C: ComputeFloat, P: StoredFloat, G: EagerFloat, S: StoredFloat>(
    rows: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's table says what is where.
    unsafe {
        for_each_chunk_per_block(rows, count, chunks, |row: &TensorDesc, chunk, at, step| {
            let (start, end) = part(row.len, chunk);
            let k = *(row.coefs as *const R::Coefs<C>);
            one_by_one::<R, C, P, G, S>(&ElementPtrs::new(row), &k, start + at, end, step);
        });
    }
}

/// The same, by fours where addresses and lengths allow it.
#[inline(always)]
unsafe fn apply_by_four<R: Rule, C: ComputeFloat, P: Four, G: Four + EagerFloat, S: Four>(
    rows: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's table says what is where.
    unsafe {
        for_each_chunk_per_block(rows, count, chunks, |row: &TensorDesc, chunk, at, step| {
            let (start, end) = part(row.len, chunk);
            let k = *(row.coefs as *const R::Coefs<C>);
            let tensor = ElementPtrs::<R, P, G, S>::new(row);
            let fours = if tensor.fits() { (end - start) / 4 } else { 0 };
            let mut four = at;
            while four < fours {
                tensor.step_x4::<C>(&k, (start + four * 4) as usize);
                four += step;
            }
            one_by_one::<R, C, P, G, S>(&tensor, &k, start + fours * 4 + at, end, step);
        });
    }
}

#[inline(always)]
unsafe fn sums<R: Rule, C: ComputeFloat, P: StoredFloat, G: EagerFloat, S: StoredFloat>(
    rows: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's table says what is where.
    unsafe {
        for_each_chunk_per_warp(rows, count, chunks, |row: &TensorDesc, chunk| {
            let (start, end) = part(row.len, chunk);
            let k = *(row.coefs as *const R::Coefs<C>);
            let tensor = ElementPtrs::<R, P, G, S>::new(row);
            write_sums::<C::Scalar>(row, chunk, start, end, |i| {
                let (p, g, state) = tensor.load::<C>(i);
                R::sum_terms::<C>(&k, p, g, state)
            });
        });
    }
}

/// Sums the terms of a chunk, in the core's order, and notes both sums.
///
/// # Safety
/// The table says what is where.
#[inline(always)]
pub(crate) unsafe fn write_sums<A: ComputeFloat>(
    row: &TensorDesc,
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
    let (a, b) = (warp_sum(a), warp_sum(b));
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
unsafe fn finish<R: Rule, C: ComputeFloat>(rows: *const TensorDesc, count: u64, chunks: u64) {
    // SAFETY: the host's table says what is where; one thread a row changes its constants.
    unsafe {
        for_each_chunk_per_block(rows, count, chunks, |row: &TensorDesc, _, at, _| {
            if at == 0 {
                let sums = row.sums as *const C::Scalar;
                let k = &mut *(row.coefs as *mut R::Coefs<C>);
                R::apply_sums::<C>(k, [*sums, *sums.add(1)], row.len as usize);
            }
        });
    }
}

/// Entries by name, over tables of lines of a type.
macro_rules! entries {
    ($($name:expr => $body:path;)*) => {
        entries! { in crate::table::TensorDesc; $($name => $body;)* }
    };
    (in $line:ty; $($name:expr => $body:path;)*) => {$(
        const _: () = {
            #[unsafe(export_name = $name)]
            unsafe extern "ptx-kernel" fn entry(table: *const $line, count: u64, chunks: u64) {
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
        $($rest:tt)*
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
            concat!(stringify!($stem), "_apply_f32") => apply_by_four::<$rule, f32, f32, f32, f32>;
            concat!(stringify!($stem), "_apply_bf16") => apply::<$rule, Eager<bf16>, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_apply_f16") => apply::<$rule, Eager<f16>, f16, f16, f16>;
            concat!(stringify!($stem), "_apply_f32_bf16") => apply_by_four::<$rule, f32, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_apply_f32_bf16_f32") => apply_by_four::<$rule, f32, bf16, bf16, f32>;
            concat!(stringify!($stem), "_apply_f32_f16") => apply_by_four::<$rule, f32, f16, f16, f16>;
        }
    };
}

macro_rules! sums {
    ($stem:ident, $rule:ty) => {
        entries! {
            concat!(stringify!($stem), "_sums_f64") => sums::<$rule, f64, f64, f64, f64>;
            concat!(stringify!($stem), "_sums_f32") => sums::<$rule, f32, f32, f32, f32>;
            concat!(stringify!($stem), "_sums_bf16") => sums::<$rule, Eager<bf16>, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_sums_f16") => sums::<$rule, Eager<f16>, f16, f16, f16>;
            concat!(stringify!($stem), "_sums_f32_bf16") => sums::<$rule, f32, bf16, bf16, bf16>;
            concat!(stringify!($stem), "_sums_f32_bf16_f32") => sums::<$rule, f32, bf16, bf16, f32>;
            concat!(stringify!($stem), "_sums_f32_f16") => sums::<$rule, f32, f16, f16, f16>;
            concat!(stringify!($stem), "_finish_f64") => finish::<$rule, f64>;
            concat!(stringify!($stem), "_finish_f32") => finish::<$rule, f32>;
            concat!(stringify!($stem), "_finish_bf16") => finish::<$rule, Eager<bf16>>;
            concat!(stringify!($stem), "_finish_f16") => finish::<$rule, Eager<f16>>;
        }
    };
}

bitstep::each_rule!(rules);
