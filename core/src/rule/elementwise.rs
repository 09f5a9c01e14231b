//! The loops over a tensor's elements: sums of a rule's terms, updates, and the staging buffers for encoded storage.

use core::ops::{Deref, Range};

use half::bf16;

use super::context::UpdateBuffers;
use super::contract::{Rule, ScalarState};
use crate::arch::simd::{self, Kernel};
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::math::reduce::{self, TermSource};
use crate::rule::Array;
use crate::storage::{DataMut, MAX_BLOCK, Plain, chunk_len};

/// Runs `$body` with the constant `$I` bound to the index of `$active` in [`Rule::SLOT_MASKS`].
macro_rules! with_active_slots {
    ($rule:ty, $active:expr, $I:ident => $body:expr) => {{
        const {
            assert!(<$rule>::SLOT_MASKS.len() <= 4 && <$rule>::NUM_SUMS <= 2);
        }
        let active = $active;
        // The constant guards keep combinations that do not occur from being compiled.
        if const { <$rule>::SLOT_MASKS.len() > 1 }
            && active == const { $crate::rule::active_slots_at::<$rule, 1>() }
        {
            const $I: usize = 1;
            $body
        } else if const { <$rule>::SLOT_MASKS.len() > 2 }
            && active == const { $crate::rule::active_slots_at::<$rule, 2>() }
        {
            const $I: usize = 2;
            $body
        } else if const { <$rule>::SLOT_MASKS.len() > 3 }
            && active == const { $crate::rule::active_slots_at::<$rule, 3>() }
        {
            const $I: usize = 3;
            $body
        } else {
            const $I: usize = 0;
            $body
        }
    }};
}

pub(crate) use with_active_slots;

/// The active slots at index I of [`Rule::SLOT_MASKS`]; none if there is no such entry.
#[inline(always)]
pub(crate) const fn active_slots_at<R: Rule, const I: usize>() -> u32 {
    let masks = R::SLOT_MASKS;
    if I < masks.len() { masks[I] } else { 0 }
}

/// The sums of [`Rule::sum_terms`] over a tensor, or over a part cut at multiples of
/// [`reduce::PARTIAL_LEN`]; [`reduce::sum`] adds the sums of the parts. `active` is the bit mask of
/// [`Rule::active_slots`]. `grad` and active slots must be as long as `param`: [`step`](super::step) checks.
pub fn sums<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    active: u32,
    param: &[P],
    grad: &[G],
    slots: &R::Slots<&[S]>,
) -> [C::Scalar; 2] {
    with_active_slots!(R, active, I => simd::dispatch_in::<C, P, _>(Sums::<R, C, P, G, S, I> { coefs, param, grad, slots }))
}

struct Sums<'a, 's, R: Rule, C: ComputeFloat, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    param: &'a [P],
    grad: &'a [G],
    slots: &'a R::Slots<&'s [S]>,
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    Sums<'_, '_, R, C, P, G, S, I>
{
    /// Writes the terms of the elements from `start` on; the second buffer is as long as the first if there are two sums.
    #[inline(always)]
    fn terms<const VECTORS: bool>(&self, start: usize, [a, b]: [&mut [C::Scalar]; 2]) {
        let active = const { active_slots_at::<R, I>() };
        let n = a.len();
        let part = start..start + n;
        let (Some(param), Some(grad)) = (self.param.get(part.clone()), self.grad.get(part.clone()))
        else {
            return;
        };
        let slots: R::Slots<&[S]> = parts(self.slots.as_ref(), part);
        let slots = slots.as_ref();
        if !are_as_long(slots, active, n) {
            return;
        }
        let two = const { R::NUM_SUMS > 1 };
        if two && b.len() != n {
            return;
        }
        let coefs = *self.coefs;
        for i in 0..n {
            if !VECTORS {
                simd::prevent_vectorization();
            }
            let state: R::Slots<C> = load_slots_at(slots, active, i);
            let terms = R::sum_terms::<C>(&coefs, load_at(param, i), load_at(grad, i), state);
            a[i] = terms[0];
            if two {
                b[i] = terms[1];
            }
        }
    }
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    Kernel for Sums<'_, '_, R, C, P, G, S, I>
{
    type Output = [C::Scalar; 2];

    #[inline(always)]
    fn run(self) -> [C::Scalar; 2] {
        self.sum_all::<true>()
    }

    #[inline(always)]
    fn run_scalar(self) -> [C::Scalar; 2] {
        self.sum_all::<false>()
    }
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    Sums<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn sum_all<const VECTORS: bool>(self) -> [C::Scalar; 2] {
        let n = self.param.len();
        if const { R::NUM_SUMS == 1 } {
            let [a] = reduce::sums_by_chunk::<_, 1>(n, Terms::<_, VECTORS>(self));
            [a, C::Scalar::ZERO]
        } else {
            reduce::sums_by_chunk::<_, 2>(n, Terms::<_, VECTORS>(self))
        }
    }
}

/// The terms of sums, computed in vectors or not.
pub(super) struct Terms<S, const VECTORS: bool>(pub(super) S);

impl<
    R: Rule,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const I: usize,
    const VECTORS: bool,
> TermSource<C::Scalar, 1> for Terms<Sums<'_, '_, R, C, P, G, S, I>, VECTORS>
{
    #[inline(always)]
    fn fill(&mut self, start: usize, [a]: [&mut [C::Scalar]; 1]) {
        self.0.terms::<VECTORS>(start, [a, &mut []]);
    }
}

impl<
    R: Rule,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const I: usize,
    const VECTORS: bool,
> TermSource<C::Scalar, 2> for Terms<Sums<'_, '_, R, C, P, G, S, I>, VECTORS>
{
    #[inline(always)]
    fn fill(&mut self, start: usize, terms: [&mut [C::Scalar]; 2]) {
        self.0.terms::<VECTORS>(start, terms);
    }
}

/// Updates a tensor, or any part of one, with completed coefficients. `active` is the bit mask of
/// [`Rule::active_slots`]. Does nothing if `grad` or an active slot is shorter than `param`.
// Inlined so that the arguments stay in registers, except where code size matters more.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn apply<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    active: u32,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    with_active_slots!(R, active, I => simd::dispatch_in::<C, P, _>(Apply::<R, C, P, G, S, I> { coefs, param, grad, slots }))
}

struct Apply<'a, 's, R: Rule, C: ComputeFloat, P, G, S: 's, const I: usize> {
    coefs: &'a R::Coefs<C>,
    param: &'a mut [P],
    grad: &'a [G],
    slots: R::Slots<&'s mut [S]>,
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    Kernel for Apply<'_, '_, R, C, P, G, S, I>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.update_all::<true>();
    }

    #[inline(always)]
    fn run_scalar(self) {
        self.update_all::<false>();
    }
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    Apply<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn update_all<const VECTORS: bool>(mut self) {
        let active = const { active_slots_at::<R, I>() };
        let n = self.param.len();
        let param = self.param;
        let Some(grad) = self.grad.get(..n) else { return };
        let mut slots: R::Slots<&mut [S]> = parts_mut(self.slots.as_mut(), 0..n);
        let slots = slots.as_mut();
        if !are_as_long(slots, active, n) {
            return;
        }
        let coefs = *self.coefs;
        if const { VECTORS && MAY_USE_AVX512 && both_f32::<C, P>() && both_f32::<G, S>() }
            && n < 2 * MAX_LANES
        {
            return apply_short::<R, C, P, G, S>(&coefs, active, param, grad, slots);
        }
        if const { R::HAS_USUAL_COEFS }
            && let Some(coefs) = R::usual_coefs::<C>(&coefs, P::DTYPE, active)
        {
            return each_element::<R, C, P, G, S, VECTORS>(&coefs, active, param, grad, slots);
        }
        each_element::<R, C, P, G, S, VECTORS>(&coefs, active, param, grad, slots);
    }
}

/// Updates elements of slices that are as long as each other.
#[inline(always)]
fn each_element<
    R: Rule,
    C: ComputeFloat,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
    const VECTORS: bool,
>(
    coefs: &R::Coefs<C>,
    active: u32,
    param: &mut [P],
    grad: &[G],
    slots: &mut [&mut [S]],
) {
    let n = param.len();
    for i in 0..n {
        if !VECTORS {
            simd::prevent_vectorization();
        }
        let state: R::Slots<C> = load_slots_at(slots, active, i);
        let (p, state) = R::update::<C>(coefs, C::load(param[i]), C::load(grad[i]), state);
        param[i] = p.store();
        for (k, &x) in state.as_ref().iter().enumerate() {
            if active >> k & 1 == 1 {
                store_at(slots[k], i, x);
            }
        }
    }
}

/// `f32` lanes of the widest vector unit.
const MAX_LANES: usize = 16;
/// Whether that unit, AVX-512, may be chosen at run time.
const MAY_USE_AVX512: bool = cfg!(all(feature = "std", target_arch = "x86_64"));

const fn both_f32<A: StoredFloat, B: StoredFloat>() -> bool {
    matches!(A::DTYPE, Dtype::F32) && matches!(B::DTYPE, Dtype::F32)
}

/// [`apply`] for slices too short for a vectorized loop to pay off. It copies to arrays, which need
/// no run-time checks for overlap.
#[inline(always)]
fn apply_short<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    active: u32,
    param: &mut [P],
    grad: &[G],
    slots: &mut [&mut [S]],
) {
    #[inline(always)]
    fn load<C: ComputeFloat, T: StoredFloat>(from: &[T], start: usize) -> [C; MAX_LANES] {
        let from = from.get(start..).unwrap_or_default();
        if let Some(from) = from.first_chunk::<MAX_LANES>() {
            return from.map(C::load); // avoids a call to memcpy
        }
        let mut all = [C::ZERO; MAX_LANES];
        for (x, &from) in all.iter_mut().zip(from) {
            *x = C::load(from);
        }
        all
    }
    #[inline(always)]
    fn store<C: ComputeFloat, T: StoredFloat>(to: &mut [T], start: usize, all: &[C; MAX_LANES]) {
        let to = to.get_mut(start..).unwrap_or_default();
        if let Some(to) = to.first_chunk_mut::<MAX_LANES>() {
            *to = all.map(C::store);
            return;
        }
        for (to, x) in to.iter_mut().zip(all) {
            *to = x.store();
        }
    }
    for start in (0..param.len()).step_by(MAX_LANES) {
        let (mut p, g) = (load::<C, P>(param, start), load::<C, G>(grad, start));
        let mut state = R::Slots::<[C; MAX_LANES]>::from_fn(|k| match slots.get(k) {
            Some(slot) if active >> k & 1 == 1 => load(slot, start),
            _ => [C::ZERO; MAX_LANES],
        });
        let each = state.as_mut();
        for i in 0..MAX_LANES {
            let (to, next) = R::update::<C>(coefs, p[i], g[i], R::Slots::from_fn(|k| each[k][i]));
            p[i] = to;
            for (each, &x) in each.iter_mut().zip(next.as_ref()) {
                each[i] = x;
            }
        }
        store(param, start, &p);
        for (k, (slot, each)) in slots.iter_mut().zip(&*each).enumerate() {
            if active >> k & 1 == 1 {
                store(slot, start, each);
            }
        }
    }
}

// What follows depends on the types of numbers alone, not on the rule. A closure in a rule's loop is compiled for
// every rule, type and vector unit: these were a third of all that is.

/// A part of each slice; empty where it is shorter.
#[inline(always)]
pub(super) fn parts<'a, S, A: Array<&'a [S]>>(slots: &[&'a [S]], part: Range<usize>) -> A {
    A::from_fn(|k| slots.get(k).and_then(|s| s.get(part.clone())).unwrap_or_default())
}

/// [`parts`] of slices that may be written.
#[inline(always)]
fn read_parts<'a, S, A: Array<&'a [S]>>(slots: &'a [&mut [S]], part: Range<usize>) -> A {
    A::from_fn(|k| slots.get(k).and_then(|s| s.get(part.clone())).unwrap_or_default())
}

/// The first n elements of each active slice; empty of the others.
#[inline(always)]
fn active_starts<'a, S, A: Array<&'a mut [S]>>(
    slots: &'a mut [&mut [S]],
    active: u32,
    n: usize,
) -> A {
    let mut slots = slots.iter_mut().enumerate();
    A::from_fn(|_| match slots.next() {
        Some((k, s)) if active >> k & 1 == 1 => s.get_mut(..n).unwrap_or_default(),
        _ => &mut [],
    })
}

/// [`parts`] that may be written.
#[inline(always)]
pub(super) fn parts_mut<'a, S, A: Array<&'a mut [S]>>(
    slots: &'a mut [&mut [S]],
    part: Range<usize>,
) -> A {
    let mut slots = slots.iter_mut();
    A::from_fn(|_| slots.next().and_then(|s| s.get_mut(part.clone())).unwrap_or_default())
}

/// Buffers as slices.
#[inline(always)]
fn slices<'a, S, A: Array<&'a mut [S]>, const B: usize>(buffers: &'a mut [[S; B]]) -> A {
    let mut buffers = buffers.iter_mut();
    A::from_fn(|_| buffers.next().map_or(&mut [][..], |buffer| buffer))
}

/// Whether every active slice has n elements.
#[inline(always)]
pub(super) fn are_as_long<S, X: Deref<Target = [S]>>(slots: &[X], active: u32, n: usize) -> bool {
    for (k, slot) in slots.iter().enumerate() {
        if active >> k & 1 == 1 && slot.len() != n {
            return false;
        }
    }
    true
}

/// Element i of each active slice, as [`load_at`] reads one; zero of the others.
#[inline(always)]
pub(super) fn load_slots_at<
    C: ComputeFloat,
    S: StoredFloat,
    X: Deref<Target = [S]>,
    A: Array<C>,
>(
    slots: &[X],
    active: u32,
    i: usize,
) -> A {
    A::from_fn(|k| if active >> k & 1 == 1 { load_at(&slots[k], i) } else { C::ZERO })
}

/// Element i of a slice; the lengths have been checked. On bare-metal targets the compiler does not
/// always prove that, and `get` keeps panics from being linked; elsewhere the loop vectorizes only
/// with an indexing expression.
#[inline(always)]
fn load_at<C: ComputeFloat, T: StoredFloat>(from: &[T], i: usize) -> C {
    if cfg!(target_os = "none") {
        from.get(i).map_or(C::ZERO, |&x| C::load(x))
    } else {
        C::load(from[i])
    }
}

/// Stores element i of a slice, as [`load_at`] reads one.
#[inline(always)]
fn store_at<C: ComputeFloat, T: StoredFloat>(to: &mut [T], i: usize, x: C) {
    if cfg!(target_os = "none") {
        if let Some(to) = to.get_mut(i) {
            *to = x.store();
        }
    } else {
        to[i] = x.store();
    }
}

/// The slots and sums that a rule's configuration uses.
#[derive(Clone, Copy)]
pub(crate) struct ActiveParts {
    /// The active slots, as a bit mask.
    pub(crate) slots: u32,
    pub(crate) sums: bool,
}

impl ActiveParts {
    pub(crate) fn of<R: Rule>(rule: &R, compute: Dtype) -> Self {
        ActiveParts {
            slots: rule.active_slots(compute),
            sums: R::NUM_SUMS > 0 && rule.needs_sums(),
        }
    }
}

/// The loops over a tensor's elements, which differ between elementwise and factored rules.
pub(crate) trait KernelSet<R: Rule, C: ComputeFloat>: Copy {
    /// The sums of [`Rule::sum_terms`] over the whole tensor.
    fn sums<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2];
    /// Writes the terms of one chunk, which begins at element `start` of the tensor.
    #[expect(clippy::too_many_arguments, reason = "a chunk of a tensor has that many parts")]
    fn terms(
        self,
        k: &R::Coefs<C>,
        active: u32,
        start: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        terms: [&mut [C::Scalar]; 2],
    );
    /// Updates one chunk, which begins at element `start` of the tensor.
    fn apply<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        start: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    );
}

/// The loops of elementwise and tensorwise rules.
#[derive(Clone, Copy)]
pub(crate) struct Elementwise;

impl<R: Rule, C: ComputeFloat> KernelSet<R, C> for Elementwise {
    fn sums<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2] {
        sums::<R, C, P, G, S>(k, active, param, grad, slots)
    }

    fn terms(
        self,
        k: &R::Coefs<C>,
        active: u32,
        _: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        terms: [&mut [C::Scalar]; 2],
    ) {
        with_active_slots!(R, active, I => Sums::<R, C, C::Stored, C::Stored, C::Stored, I> { coefs: k, param, grad, slots }.terms::<true>(0, terms));
    }

    #[cfg_attr(not(target_os = "none"), inline(always))]
    fn apply<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        _: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    ) {
        apply::<R, C, P, G, S>(k, active, param, grad, slots);
    }
}

/// Runs the kernels on a zero-filled projected parameter. The [`Rule::PARAM_ONLY_SUMS`] are replaced by
/// those of the full parameter, the second field.
#[derive(Clone, Copy)]
pub(crate) struct WithParamSums<X, S>(pub(crate) X, pub(crate) [S; 2]);

impl<R: Rule, C: ComputeFloat, X: KernelSet<R, C>> KernelSet<R, C> for WithParamSums<X, C::Scalar> {
    fn sums<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2] {
        replace_param_sums::<R, C>(self.0.sums(k, active, param, grad, slots), self.1)
    }

    fn terms(
        self,
        k: &R::Coefs<C>,
        active: u32,
        start: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        [a, b]: [&mut [C::Scalar]; 2],
    ) {
        self.0.terms(k, active, start, param, grad, slots, [&mut *a, &mut *b]);
        for (bit, (terms, sum)) in [a, b].into_iter().zip(self.1).enumerate() {
            // Every term of a zero parameter is zero, so one of them can hold the whole sum.
            if let Some(first) = terms.first_mut()
                && start == 0
                && R::PARAM_ONLY_SUMS >> bit & 1 == 1
            {
                *first = sum;
            }
        }
    }

    fn apply<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        active: u32,
        start: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    ) {
        self.0.apply(k, active, start, param, grad, slots);
    }
}

/// The [`Rule::PARAM_ONLY_SUMS`] over the full parameter, scaled to n elements: rules use their means.
pub(crate) fn param_sums<R: Rule, C: ComputeFloat<Stored: Plain>>(
    k: &R::Coefs<C>,
    full: &DataMut<'_>,
    n: usize,
) -> [C::Scalar; 2] {
    if R::PARAM_ONLY_SUMS == 0 {
        return [C::Scalar::ZERO; 2];
    }
    let slots = <R::Slots<C> as Array<C>>::from_fn;
    let len = full.len();
    let mut values = [C::Stored::default(); reduce::CHUNK];
    let [a, b] = reduce::sums_by_chunk::<_, 2>(len, |start, [a, b]: [&mut [C::Scalar]; 2]| {
        let values = values.get_mut(..a.len()).unwrap_or_default();
        full.load(start, values);
        for ((a, b), p) in a.iter_mut().zip(b).zip(values) {
            [*a, *b] = R::sum_terms::<C>(k, C::load(*p), C::ZERO, slots(|_| C::ZERO));
        }
    });
    [scaled_sum::<C>(a, n, len), scaled_sum::<C>(b, n, len)]
}

/// A sum over `len` elements, scaled to n elements, but at least to one: `sum · n / len`, in `f64`.
#[inline(always)]
pub fn scaled_sum<C: ComputeFloat>(sum: C::Scalar, n: usize, len: usize) -> C::Scalar {
    C::scalar(sum.to_f64() * n.max(1) as f64 / if len > 0 { len as f64 } else { 1.0 })
}

/// Replaces the [`Rule::PARAM_ONLY_SUMS`] among `projected`, the sums over a projection, by those in `full`, the sums
/// over the full parameter.
#[inline(always)]
pub fn replace_param_sums<R: Rule, C: ComputeFloat>(
    projected: [C::Scalar; 2],
    full: [C::Scalar; 2],
) -> [C::Scalar; 2] {
    let param_only = |bit: u32| R::PARAM_ONLY_SUMS >> bit & 1 == 1;
    let ([a, b], [x, y]) = (projected, full);
    [if param_only(0) { x } else { a }, if param_only(1) { y } else { b }]
}

/// One step of a tensor, with the constants of [`Rule::coefs`]: sums, then updates.
#[expect(
    clippy::collapsible_if,
    reason = "a constant guard keeps unreachable code from being compiled"
)]
pub(crate) fn run<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>>(
    kernels: X,
    k: &mut R::Coefs<C>,
    active: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
) {
    // The common combinations of types are read and written in place.
    if run_in_place::<R, C, X, C::Stored, C::Stored, C::Stored>(kernels, k, active, scalars, t) {
        return;
    }
    if const { matches!(C::DTYPE, Dtype::F32) } {
        if run_in_place::<R, C, X, bf16, bf16, bf16>(kernels, k, active, scalars, t)
            || run_in_place::<R, C, X, bf16, bf16, f32>(kernels, k, active, scalars, t)
        {
            return;
        }
    }
    buffered::<R, C, X>(kernels, k, active, scalars, t);
}

/// Runs the loops on the buffers themselves if they have these types; otherwise returns false.
fn run_in_place<R: Rule, C: ComputeFloat, X: KernelSet<R, C>, P: Plain, G: Plain, S: Plain>(
    kernels: X,
    k: &mut R::Coefs<C>,
    active: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
) -> bool {
    if !are_all_of(S::DTYPE, t.slots) {
        return false;
    }
    let (Some(param), Some(grad)) = (P::of_mut(&mut t.param), G::of(&t.grad)) else { return false };
    let slots: R::Slots<&mut [S]> = plain_slots(t.slots);
    run_plain::<R, C, X, P, G, S>(kernels, k, active, scalars, param, grad, slots);
    true
}

/// The values of slots of this type; empty of others.
#[inline(always)]
fn plain_slots<'a, S: Plain, A: Array<&'a mut [S]>>(slots: &'a mut [DataMut<'_>]) -> A {
    let mut slots = slots.iter_mut();
    A::from_fn(|_| slots.next().and_then(S::of_mut).unwrap_or_default())
}

/// One step on slices of plain values.
#[inline(always)]
#[expect(
    clippy::collapsible_if,
    reason = "a constant guard keeps unreachable code from being compiled"
)]
pub(crate) fn run_plain<
    R: Rule,
    C: ComputeFloat,
    X: KernelSet<R, C>,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
>(
    kernels: X,
    k: &mut R::Coefs<C>,
    ActiveParts { slots: active, sums }: ActiveParts,
    scalars: &mut ScalarState,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    if const { R::NUM_SUMS > 0 } {
        if sums {
            let views = slots.as_ref();
            let views = R::Slots::<&[S]>::from_fn(|i| views.get(i).map_or(&[][..], |s| s));
            let sums = kernels.sums::<P, G, S>(k, active, param, grad, &views);
            R::apply_sums::<C>(k, sums, param.len());
        }
    }
    R::export_scalars::<C>(k, scalars);
    kernels.apply::<P, G, S>(k, active, 0, param, grad, slots);
}

/// Whether all active slots are plain values of this type.
fn are_all_of(dtype: Dtype, slots: &[DataMut<'_>]) -> bool {
    slots.iter().all(|s| s.is_empty() || s.dtype() == Some(dtype))
}

/// One step of buffers of any types and storages, through staging buffers of the compute type. Not inlined, so that only
/// tensors that need them pay for the stack space.
#[inline(never)]
fn buffered<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>>(
    kernels: X,
    k: &mut R::Coefs<C>,
    active: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
) {
    match chunk_len_for(t) {
        Some(STAGING_LEN) => {
            run_buffered::<R, C, X, STAGING_LEN>(kernels, k, active, scalars, t, STAGING_LEN)
        }
        Some(chunk_len) => {
            run_buffered::<R, C, X, MAX_BLOCK>(kernels, k, active, scalars, t, chunk_len)
        }
        None => {}
    }
}

/// The length of a chunk, in whole blocks: [`STAGING_LEN`], whose buffers stay in the nearest cache, if it is a multiple
/// of every block.
fn chunk_len_for(t: &UpdateBuffers<'_, '_>) -> Option<usize> {
    let blocks = t.slots.iter().map(DataMut::block).chain([t.param.block()]);
    if blocks.clone().all(|b| STAGING_LEN.is_multiple_of(b)) {
        Some(STAGING_LEN)
    } else {
        chunk_len(blocks)
    }
}

/// Elements in a small staging buffer.
const STAGING_LEN: usize = if cfg!(target_os = "none") { 256 } else { 1024 };

/// Decoded values of one chunk of a tensor.
struct StagingBuffers<'a, 'b, S> {
    param: &'a mut [S],
    grad: &'a mut [S],
    slots: &'a mut [&'b mut [S]],
}

impl<S: Plain> StagingBuffers<'_, '_, S> {
    fn load(&mut self, active: u32, t: &UpdateBuffers<'_, '_>, start: usize, len: usize) {
        t.param.load(start, self.param.get_mut(..len).unwrap_or_default());
        t.grad.load(start, self.grad.get_mut(..len).unwrap_or_default());
        self.load_slots(active, t, start, len);
    }

    fn load_slots(&mut self, active: u32, t: &UpdateBuffers<'_, '_>, start: usize, len: usize) {
        for (k, (to, from)) in self.slots.iter_mut().zip(t.slots.iter()).enumerate() {
            if active >> k & 1 == 1 {
                from.load(start, to.get_mut(..len).unwrap_or_default());
            }
        }
    }
}

/// [`run`] with the staging buffers of `scratch`.
pub(crate) fn run_in_scratch<
    R: Rule,
    C: ComputeFloat<Stored: Plain>,
    X: KernelSet<R, C>,
    const B: usize,
>(
    kernels: X,
    k: &mut R::Coefs<C>,
    active: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
    chunk_len: usize,
    scratch: &mut [[C::Stored; B]],
) {
    let mut each = scratch.iter_mut();
    let mut next = || each.next().map_or(&mut [][..], |buffer| buffer);
    let (param, grad) = (next(), next());
    let mut slots: R::Slots<&mut [C::Stored]> = Array::from_fn(|_| next());
    let buffers = StagingBuffers { param, grad, slots: slots.as_mut() };
    run_in_buffers::<R, C, X>(kernels, k, active, scalars, t, chunk_len, buffers);
}

/// An array of copies.
#[inline(always)]
pub(super) fn filled<T: Copy, A: Array<T>>(x: T) -> A {
    A::from_fn(|_| x)
}

/// [`run`] with staging buffers of length B on the stack. Only this function is compiled once per B.
pub(crate) fn run_buffered<
    R: Rule,
    C: ComputeFloat<Stored: Plain>,
    X: KernelSet<R, C>,
    const B: usize,
>(
    kernels: X,
    k: &mut R::Coefs<C>,
    active: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
    chunk_len: usize,
) {
    let zeros = [C::Stored::default(); B];
    let (mut param, mut grad) = (zeros, zeros);
    let mut slots: R::Slots<[C::Stored; B]> = filled(zeros);
    let mut slots: R::Slots<&mut [C::Stored]> = slices(slots.as_mut());
    let buffers = StagingBuffers { param: &mut param, grad: &mut grad, slots: slots.as_mut() };
    run_in_buffers::<R, C, X>(kernels, k, active, scalars, t, chunk_len, buffers);
}

fn run_in_buffers<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>>(
    kernels: X,
    k: &mut R::Coefs<C>,
    ActiveParts { slots: active, sums }: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
    chunk_len: usize,
    buffers: StagingBuffers<'_, '_, C::Stored>,
) {
    let rule = &mut RuleChunks::<R, C, X> { kernels, k, active, scalars };
    // One loop for all rules; a board has few, and calls cost it more than another loop.
    #[cfg(not(target_os = "none"))]
    let rule: &mut dyn Chunks<C::Stored, C::Scalar> = rule;
    if const { R::NUM_SUMS > 0 } {
        each_chunk::<_, _, _, true>(rule, active, sums, t, chunk_len, buffers);
    } else {
        each_chunk::<_, _, _, false>(rule, active, false, t, chunk_len, buffers);
    }
}

/// What a rule does with a chunk of values of type S; sums are of type A.
trait Chunks<S, A> {
    /// Writes the terms of elements from `start` of the tensor on, which are this part of the slots' buffers.
    fn terms(
        &mut self,
        start: usize,
        param: &[S],
        grad: &[S],
        slots: (&[&mut [S]], Range<usize>),
        terms: [&mut [A]; 2],
    );
    /// Takes the sums over `n` elements.
    fn take_sums(&mut self, sums: [A; 2], n: usize);
    /// Comes before the first update.
    fn begin(&mut self);
    /// Updates the elements from `start` of the tensor on.
    fn apply(&mut self, start: usize, param: &mut [S], grad: &[S], slots: &mut [&mut [S]]);
}

struct RuleChunks<'a, R: Rule, C: ComputeFloat, X> {
    kernels: X,
    k: &'a mut R::Coefs<C>,
    active: u32,
    scalars: &'a mut ScalarState,
}

impl<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>> Chunks<C::Stored, C::Scalar>
    for RuleChunks<'_, R, C, X>
{
    fn terms(
        &mut self,
        start: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        (slots, part): (&[&mut [C::Stored]], Range<usize>),
        terms: [&mut [C::Scalar]; 2],
    ) {
        let slots: R::Slots<&[C::Stored]> = read_parts(slots, part);
        self.kernels.terms(self.k, self.active, start, param, grad, &slots, terms);
    }

    fn take_sums(&mut self, sums: [C::Scalar; 2], n: usize) {
        R::apply_sums::<C>(self.k, sums, n);
    }

    fn begin(&mut self) {
        R::export_scalars::<C>(self.k, self.scalars);
    }

    fn apply(
        &mut self,
        start: usize,
        param: &mut [C::Stored],
        grad: &[C::Stored],
        slots: &mut [&mut [C::Stored]],
    ) {
        let slots = active_starts(slots, self.active, param.len());
        self.kernels.apply::<C::Stored, C::Stored, C::Stored>(
            self.k,
            self.active,
            start,
            param,
            grad,
            slots,
        );
    }
}

/// A step through staging buffers.
fn each_chunk<S: Plain, A: ComputeFloat, K: Chunks<S, A> + ?Sized, const SUMS: bool>(
    rule: &mut K,
    active: u32,
    sums: bool,
    t: &mut UpdateBuffers<'_, '_>,
    chunk_len: usize,
    mut buffers: StagingBuffers<'_, '_, S>,
) {
    let n = t.param.len();
    let chunk_len = chunk_len.max(1); // never 0; tells the compiler so, which then links no panic
    if SUMS && sums {
        // A chunk may span several of the reduction's blocks; it is loaded once.
        let mut loaded = usize::MAX;
        let sums = reduce::sums_by_chunk::<_, 2>(n, |start, [a, b]: [&mut [A]; 2]| {
            let mut at = 0;
            while at < a.len() {
                let base = (start + at) / chunk_len * chunk_len;
                if base != loaded {
                    buffers.load(active, t, base, (n - base).min(chunk_len));
                    loaded = base;
                }
                let first = start + at - base;
                let len = (a.len() - at).min(chunk_len - first);
                let from = first..first + len;
                let param = buffers.param.get(from.clone()).unwrap_or_default();
                let grad = buffers.grad.get(from.clone()).unwrap_or_default();
                let a = a.get_mut(at..at + len).unwrap_or_default();
                let b = b.get_mut(at..at + len).unwrap_or_default();
                rule.terms(start + at, param, grad, (buffers.slots, from), [a, b]);
                at += len;
            }
        });
        rule.take_sums(sums, n);
    }
    rule.begin();
    // Values that are of the compute type already are used in place.
    let plain_param = S::of_mut(&mut t.param).is_some();
    let plain_grad = S::of(&t.grad).is_some();
    for start in (0..n).step_by(chunk_len) {
        let len = (n - start).min(chunk_len);
        let all = start..start + len;
        buffers.load_slots(active, t, start, len);
        let own = buffers.param.get_mut(..len).unwrap_or_default();
        let param = if plain_param {
            S::of_mut(&mut t.param).and_then(|x| x.get_mut(all.clone())).unwrap_or_default()
        } else {
            t.param.load(start, own);
            &mut *own
        };
        let grad = if plain_grad {
            S::of(&t.grad).and_then(|x| x.get(all)).unwrap_or_default()
        } else {
            let own = buffers.grad.get_mut(..len).unwrap_or_default();
            t.grad.load(start, own);
            &*own
        };
        rule.apply(start, param, grad, buffers.slots);
        if !plain_param {
            t.param.store(start, own);
        }
        for (j, (from, to)) in buffers.slots.iter().zip(t.slots.iter_mut()).enumerate() {
            if active >> j & 1 == 1 {
                to.store(start, from.get(..len).unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::Eager;
    use crate::optim::{AdamW, Lion, OptimiRanger, Sgd};
    use crate::rule::StepContext;

    /// Three steps by the vectorized loop and by the scalar one, stored as S.
    fn same_bits<R: Rule + Default, C: ComputeFloat<Stored = S>, S: StoredFloat>() {
        const N: usize = 77;
        let rule = R::default();
        let value = |i: usize| S::from_f64(((i * 37 % 101) as f64 - 50.0) / 16.0);
        let values: [S; N] = core::array::from_fn(value);
        let grad: [S; N] = core::array::from_fn(|i| value(i + 5));
        let [vectors, scalar] = [true, false].map(|vectors| {
            let mut param = values;
            let mut state = R::Slots::<[S; N]>::from_fn(|_| [S::default(); N]);
            let mut scalars = rule.scalars();
            for t in 1..=3 {
                let step = StepContext::new(t, 0.01);
                rule.advance_scalars(&step, &mut scalars);
                let coefs = &rule.coefs::<C>(&step, &scalars);
                let mut each = state.as_mut().iter_mut();
                let slots = R::Slots::from_fn(|_| each.next().map_or(&mut [][..], |s| s));
                let (param, grad) = (&mut param[..], &grad[..]);
                with_active_slots!(R, rule.active_slots(C::DTYPE), I => {
                    let apply = Apply::<R, C, S, S, S, I> { coefs, param, grad, slots };
                    if vectors { apply.run() } else { apply.run_scalar() }
                });
            }
            param.map(|x| x.to_f64().to_bits())
        });
        assert_eq!(vectors, scalar, "{}", R::ID);
        assert_ne!(vectors, values.map(|x| x.to_f64().to_bits()), "{}", R::ID);
    }

    #[test]
    fn loops_without_vectors_have_the_same_bits() {
        same_bits::<AdamW, f32, f32>();
        same_bits::<AdamW, f64, f64>();
        same_bits::<AdamW, Eager<bf16>, bf16>();
        same_bits::<AdamW, Eager<half::f16>, half::f16>();
        same_bits::<OptimiRanger, f32, f32>();
        same_bits::<Lion, f32, f32>();
        same_bits::<Sgd, f64, f64>();
    }
}
