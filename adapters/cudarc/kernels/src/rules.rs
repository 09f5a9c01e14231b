//! Elementwise and tensorwise rules.

use bitstep::float::{ComputeFloat, StoredFloat};
use bitstep::float::{Eager, EagerFloat};
use bitstep::gradient::kernel::scaled;
use bitstep::optim::*;
use bitstep::rule::Array;
use bitstep::rule::Rule;
use half::{bf16, f16};

use crate::grid::{
    Partial, WARP, for_each_chunk_per_block, for_each_chunk_per_warp, lane, part, warp_sum,
};
use crate::table::{CHUNK, TensorDesc};

/// The addresses of a tensor, its gradient and its state.
pub(crate) struct ElementPtrs<R: Rule, P, G: EagerFloat, S> {
    param: *mut P,
    grad: *const G,
    slots: R::Slots<*mut S>,
    grad_scale: Option<Scalar<G>>,
}

/// The scale of gradients at address `at`; `None` if that is 0.
///
/// # Safety
/// The address is 0 or valid.
#[inline(always)]
pub(crate) unsafe fn factor<G: EagerFloat>(at: u64) -> Option<Scalar<G>> {
    // SAFETY: guaranteed by the caller.
    if at == 0 { None } else { Some(G::Compute::scalar(unsafe { *(at as *const f64) })) }
}

#[inline(always)]
pub(crate) fn scaled_grad<G: EagerFloat>(g: G, grad_scale: Option<Scalar<G>>) -> G::Compute {
    let g = G::Compute::load(g);
    match grad_scale {
        None => g,
        Some(scale) => scaled(g, scale),
    }
}

/// The scalar type that a gradient of this type is multiplied by.
pub(crate) type Scalar<G> = <<G as EagerFloat>::Compute as ComputeFloat>::Scalar;

/// Loads element i of an array, to compute in C.
///
/// # Safety
/// It exists, and has C's stored type.
#[inline(always)]
pub(crate) unsafe fn load<C: ComputeFloat>(at: u64, i: usize) -> C {
    // SAFETY: guaranteed by the caller.
    C::load(unsafe { *(at as *const C::Stored).add(i) })
}

/// Stores element i of an array.
///
/// # Safety
/// As [`load`]; no other thread accesses it.
#[inline(always)]
pub(crate) unsafe fn store<C: ComputeFloat>(at: u64, i: usize, x: C) {
    // SAFETY: guaranteed by the caller.
    unsafe { *(at as *mut C::Stored).add(i) = x.store() }
}

impl<R: Rule, P: StoredFloat, G: EagerFloat, S: StoredFloat> ElementPtrs<R, P, G, S> {
    /// # Safety
    /// The descriptor is valid.
    #[inline(always)]
    pub(crate) unsafe fn new(desc: &TensorDesc) -> Self {
        ElementPtrs {
            param: desc.param as *mut P,
            grad: desc.grad as *const G,
            slots: R::Slots::from_fn(|k| desc.slots.get(k).map_or(0, |&s| s) as *mut S),
            // SAFETY: guaranteed by the caller.
            grad_scale: unsafe { factor::<G>(desc.grad_scale) },
        }
    }

    /// # Safety
    /// The tensor has more than i elements.
    #[inline(always)]
    pub(crate) unsafe fn load<C: ComputeFloat>(&self, i: usize) -> (C, C, R::Slots<C>) {
        let slots = self.slots.as_ref();
        // SAFETY: guaranteed by the caller.
        unsafe {
            let state = R::Slots::<C>::from_fn(|k| match slots.get(k) {
                Some(slot) if !slot.is_null() => C::load(*slot.add(i)),
                _ => C::ZERO,
            });
            (
                C::load(*self.param.add(i)),
                C::load(scaled_grad(*self.grad.add(i), self.grad_scale)),
                state,
            )
        }
    }

    /// # Safety
    /// As [`ElementPtrs::load`]; no other thread accesses this element.
    #[inline(always)]
    pub(crate) unsafe fn store<C: ComputeFloat>(&self, i: usize, p: C, state: &R::Slots<C>) {
        // SAFETY: guaranteed by the caller.
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

/// Four adjacent elements that are loaded and stored at once: 128 bits of `f32`.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(crate) struct Wide<T>([T; 4]);
/// Four adjacent 16-bit elements.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Narrow<T>([T; 4]);

/// A type of which four adjacent elements can be loaded and stored at once.
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
    /// Whether all addresses are aligned for that.
    #[inline(always)]
    fn fits(&self) -> bool {
        let slots = self.slots.as_ref().iter().fold(0, |bits, &slot| bits | slot as usize);
        // The alignment of the widest type is required of all.
        (self.param as usize | self.grad as usize | slots).is_multiple_of(16)
    }

    /// Steps elements i to i + 3.
    ///
    /// # Safety
    /// They exist, no other thread accesses them, and [`ElementPtrs::fits`] is true.
    #[inline(always)]
    unsafe fn step_x4<C: ComputeFloat>(&self, k: &R::Coefs<C>, i: usize) {
        let slots = self.slots.as_ref();
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut param = P::unpack(*(self.param.add(i) as *const P::Pack));
            let grad = G::unpack(*(self.grad.add(i) as *const G::Pack));
            let mut state = R::Slots::<[S; 4]>::from_fn(|j| match slots.get(j) {
                Some(slot) if !slot.is_null() => S::unpack(*(slot.add(i) as *const S::Pack)),
                _ => [S::default(); 4],
            });
            // Written out: a loop that is not unrolled keeps its arrays in local memory.
            lane_of_four::<R, C, P, G, S, 0>(k, &mut param, &grad, self.grad_scale, &mut state);
            lane_of_four::<R, C, P, G, S, 1>(k, &mut param, &grad, self.grad_scale, &mut state);
            lane_of_four::<R, C, P, G, S, 2>(k, &mut param, &grad, self.grad_scale, &mut state);
            lane_of_four::<R, C, P, G, S, 3>(k, &mut param, &grad, self.grad_scale, &mut state);
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
    grad_scale: Option<Scalar<G>>,
    state: &mut R::Slots<[S; 4]>,
) {
    let before = state.as_ref();
    let before = R::Slots::<C>::from_fn(|j| before.get(j).map_or(C::ZERO, |s| C::load(s[V])));
    let (p, after) =
        R::update::<C>(k, C::load(param[V]), C::load(scaled_grad(grad[V], grad_scale)), before);
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
        // SAFETY: a chunk's elements belong to this block, and each of them to one thread.
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
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |desc: &TensorDesc, chunk, at, step| {
            let (start, end) = part(desc.len, chunk);
            let k = *(desc.coefs as *const R::Coefs<C>);
            one_by_one::<R, C, P, G, S>(&ElementPtrs::new(desc), &k, start + at, end, step);
        });
    }
}

/// [`apply`], four elements at a time where alignment and length allow it.
#[inline(always)]
unsafe fn apply_by_four<R: Rule, C: ComputeFloat, P: Four, G: Four + EagerFloat, S: Four>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_block(table, count, chunks, |desc: &TensorDesc, chunk, at, step| {
            let (start, end) = part(desc.len, chunk);
            let k = *(desc.coefs as *const R::Coefs<C>);
            let tensor = ElementPtrs::<R, P, G, S>::new(desc);
            // In 32 bits, of which the loop keeps fewer registers.
            let fours = if tensor.fits() { (end - start) as u32 / 4 } else { 0 };
            let (mut four, next) = (at as u32, step as u32);
            while four < fours {
                tensor.step_x4::<C>(&k, start as usize + four as usize * 4);
                four += next;
            }
            one_by_one::<R, C, P, G, S>(&tensor, &k, start + u64::from(fours) * 4 + at, end, step);
        });
    }
}

#[inline(always)]
unsafe fn sums<R: Rule, C: ComputeFloat, P: StoredFloat, G: EagerFloat, S: StoredFloat>(
    table: *const TensorDesc,
    count: u64,
    chunks: u64,
) {
    // SAFETY: the host's descriptors are valid.
    unsafe {
        for_each_chunk_per_warp(table, count, chunks, |desc: &TensorDesc, chunk| {
            let (start, end) = part(desc.len, chunk);
            let k = *(desc.coefs as *const R::Coefs<C>);
            let tensor = ElementPtrs::<R, P, G, S>::new(desc);
            let term = |i| {
                let (p, g, state) = tensor.load::<C>(i);
                R::sum_terms::<C>(&k, p, g, state)
            };
            let sums = sum::<C::Scalar>(desc, chunk, (start, end), term);
            finish::<R, C>(desc, sums);
        });
    }
}

/// Sums the terms of a chunk in the core's order. In the last warp of the tensor it returns both sums over all
/// chunks, in lane 0.
///
/// # Safety
/// The descriptor is valid.
#[inline(always)]
pub(crate) unsafe fn sum<A: ComputeFloat>(
    desc: &TensorDesc,
    chunk: u64,
    (start, end): (u64, u64),
    term: impl Fn(usize) -> [A; 2],
) -> Option<[A; 2]> {
    let (mut a, mut b) = (A::ZERO, A::ZERO);
    let mut i = start + lane();
    while i < end {
        let [x, y] = term(i as usize);
        (a, b) = (a + x, b + y);
        i += WARP;
    }
    let (values, counters, count) = (desc.sums, desc.counters, desc.len.div_ceil(CHUNK));
    // SAFETY: there is room for two sums per chunk and block.
    unsafe { Partial { values, counters, count, at: chunk }.add([warp_sum(a), warp_sum(b)]) }
}

/// Completes the constants by the sums over a tensor, or keeps those, once they are there.
///
/// # Safety
/// The descriptor is valid, and [`sum`] has returned the sums.
#[inline(always)]
pub(crate) unsafe fn finish<R: Rule, C: ComputeFloat>(
    desc: &TensorDesc,
    sums: Option<[C::Scalar; 2]>,
) {
    let Some(sums) = sums.filter(|_| lane() == 0) else { return };
    // SAFETY: guaranteed by the caller; one thread of all writes them.
    unsafe {
        if desc.totals == 0 {
            complete::<R, C>([desc.coefs, desc.persist], sums, desc.len);
        } else {
            *(desc.totals as *mut [C::Scalar; 2]) = sums;
        }
    }
}

/// Completes constants by the sums over `len` elements, and copies them if there is a second address.
///
/// # Safety
/// They are there, and no other thread accesses them.
#[inline(always)]
pub(crate) unsafe fn complete<R: Rule, C: ComputeFloat>(
    [coefs, copy]: [u64; 2],
    sums: [C::Scalar; 2],
    len: u64,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let k = &mut *(coefs as *mut R::Coefs<C>);
        R::apply_sums::<C>(k, sums, len as usize);
        if copy != 0 {
            *(copy as *mut R::Coefs<C>) = *k;
        }
    }
}

/// Defines kernel entries by name, over tables of a descriptor type.
macro_rules! entries {
    ($($name:expr => $body:path;)*) => {
        entries! { in crate::table::TensorDesc; $($name => $body;)* }
    };
    (in $desc:ty; $($name:expr => $body:path;)*) => {$(
        const _: () = {
            #[unsafe(export_name = $name)]
            unsafe extern "ptx-kernel" fn entry(table: *const $desc, count: u64, chunks: u64) {
                // SAFETY: the host's tables have this kernel's descriptors.
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
        }
    };
}

bitstep::each_rule!(rules);
