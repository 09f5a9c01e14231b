//! The loops over the elements of a tensor: every step's.

use half::bf16;

use super::context::UpdateBuffers;
use super::contract::{Rule, ScalarState};
use crate::arch::simd::{self, Kernel};
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::math::reduce::{self, TermSource};
use crate::rule::Array;
use crate::storage::{DataMut, MAX_BLOCK, Plain, chunk_len};

/// Runs `$body` with `I` bound to the index of `$mask` among the rule's masks, as a constant.
macro_rules! with_mask {
    ($rule:ty, $mask:expr, $I:ident => $body:expr) => {{
        const {
            assert!(<$rule>::SLOT_MASKS.len() <= 4 && <$rule>::NUM_SUMS <= 2);
        }
        let mask = $mask;
        // The constant guards keep combinations that do not occur from being compiled.
        if const { <$rule>::SLOT_MASKS.len() > 1 }
            && mask == const { $crate::rule::mask_at::<$rule, 1>() }
        {
            const $I: usize = 1;
            $body
        } else if const { <$rule>::SLOT_MASKS.len() > 2 }
            && mask == const { $crate::rule::mask_at::<$rule, 2>() }
        {
            const $I: usize = 2;
            $body
        } else if const { <$rule>::SLOT_MASKS.len() > 3 }
            && mask == const { $crate::rule::mask_at::<$rule, 3>() }
        {
            const $I: usize = 3;
            $body
        } else {
            const $I: usize = 0;
            $body
        }
    }};
}

pub(crate) use with_mask;

/// The mask at index I, or none at all.
#[inline(always)]
pub(crate) const fn mask_at<R: Rule, const I: usize>() -> u32 {
    let masks = R::SLOT_MASKS;
    if I < masks.len() { masks[I] } else { 0 }
}

/// The sums of [`Rule::sum_terms`] over a tensor, or over a part of one cut at a
/// multiple of [`reduce::PARTIAL_LEN`]; the sums of the parts are added by
/// [`reduce::sum`]. Slices shorter than `param` count as absent.
pub fn sums<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    mask: u32,
    param: &[P],
    grad: &[G],
    slots: &R::Slots<&[S]>,
) -> [C::Scalar; 2] {
    with_mask!(R, mask, I => simd::dispatch_in::<C, P, _>(Sums::<R, C, P, G, S, I> { coefs, param, grad, slots }))
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
    /// The terms from element `start` on; the second buffer is as long as the first, or empty.
    #[inline(always)]
    fn terms(&self, start: usize, [a, b]: [&mut [C::Scalar]; 2]) {
        let mask = const { mask_at::<R, I>() };
        let n = a.len();
        let part = start..start + n;
        let (Some(param), Some(grad)) = (self.param.get(part.clone()), self.grad.get(part.clone()))
        else {
            return;
        };
        let views = self.slots.as_ref();
        let slots = R::Slots::<&[S]>::from_fn(|k| {
            views.get(k).and_then(|s| s.get(part.clone())).unwrap_or_default()
        });
        let slots = slots.as_ref();
        if slots.iter().enumerate().any(|(k, s)| mask >> k & 1 == 1 && s.len() != n) {
            return;
        }
        let two = R::NUM_SUMS > 1 && b.len() == n;
        let coefs = *self.coefs;
        for i in 0..n {
            let state = R::Slots::<C>::from_fn(|k| {
                if mask >> k & 1 == 1 { load_at(slots[k], i) } else { C::ZERO }
            });
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
        let n = self.param.len();
        if const { R::NUM_SUMS == 1 } {
            let [a] = reduce::sums_by_chunk::<_, 1>(n, self);
            [a, C::Scalar::ZERO]
        } else {
            reduce::sums_by_chunk::<_, 2>(n, self)
        }
    }
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    TermSource<C::Scalar, 1> for Sums<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn fill(&mut self, start: usize, [a]: [&mut [C::Scalar]; 1]) {
        self.terms(start, [a, &mut []]);
    }
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    TermSource<C::Scalar, 2> for Sums<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn fill(&mut self, start: usize, terms: [&mut [C::Scalar]; 2]) {
        self.terms(start, terms);
    }
}

/// Updates a tensor, or any part of one, with finished coefficients. Does
/// nothing if `grad` or a slot in use is shorter than `param`: [`step`](super::step) checks.
// Handed on in registers, but where code has to be small.
#[cfg_attr(not(target_os = "none"), inline(always))]
pub fn apply<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    mask: u32,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    with_mask!(R, mask, I => simd::dispatch_in::<C, P, _>(Apply::<R, C, P, G, S, I> { coefs, param, grad, slots }))
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
        self.each::<true>();
    }

    #[inline(always)]
    fn run_scalar(self) {
        self.each::<false>();
    }
}

impl<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat, const I: usize>
    Apply<'_, '_, R, C, P, G, S, I>
{
    #[inline(always)]
    fn each<const VECTORS: bool>(mut self) {
        let mask = const { mask_at::<R, I>() };
        let n = self.param.len();
        let param = self.param;
        let Some(grad) = self.grad.get(..n) else { return };
        let mut views = self.slots.as_mut().iter_mut();
        let mut slots = R::Slots::<&mut [S]>::from_fn(|_| {
            views.next().and_then(|s| s.get_mut(..n)).unwrap_or_default()
        });
        let slots = slots.as_mut();
        if slots.iter().enumerate().any(|(k, s)| mask >> k & 1 == 1 && s.len() != n) {
            return;
        }
        let coefs = *self.coefs;
        if const {
            VECTORS
                && HAS_SHORT
                && is_single::<C, P>()
                && is_single::<P, G>()
                && is_single::<G, S>()
        } && n < 2 * SHORT
        {
            return apply_short::<R, C, P, G, S>(&coefs, mask, param, grad, slots);
        }
        for i in 0..n {
            if !VECTORS {
                simd::one_by_one();
            }
            let state = R::Slots::<C>::from_fn(|k| {
                if mask >> k & 1 == 1 { load_at(slots[k], i) } else { C::ZERO }
            });
            let (p, state) = R::update::<C>(&coefs, C::load(param[i]), C::load(grad[i]), state);
            param[i] = p.store();
            for (k, &x) in state.as_ref().iter().enumerate() {
                if mask >> k & 1 == 1 {
                    store_at(slots[k], i, x);
                }
            }
        }
    }
}

/// Numbers in a vector of the widest unit.
const SHORT: usize = 16;
/// Whether it may be there.
const HAS_SHORT: bool = cfg!(all(feature = "std", target_arch = "x86_64"));

const fn is_single<A: StoredFloat, B: StoredFloat>() -> bool {
    matches!(A::DTYPE, Dtype::F32) && matches!(B::DTYPE, Dtype::F32)
}

/// [`apply`] to less than a loop of vectors pays for: by way of arrays, which a compiler need not
/// ask whether they overlap.
#[inline(always)]
fn apply_short<R: Rule, C: ComputeFloat, P: StoredFloat, G: StoredFloat, S: StoredFloat>(
    coefs: &R::Coefs<C>,
    mask: u32,
    param: &mut [P],
    grad: &[G],
    slots: &mut [&mut [S]],
) {
    #[inline(always)]
    fn load<C: ComputeFloat, T: StoredFloat>(from: &[T], start: usize) -> [C; SHORT] {
        let from = from.get(start..).unwrap_or_default();
        if let Some(from) = from.first_chunk::<SHORT>() {
            return from.map(C::load); // no call to copy a few bytes
        }
        let mut all = [C::ZERO; SHORT];
        for (x, &from) in all.iter_mut().zip(from) {
            *x = C::load(from);
        }
        all
    }
    #[inline(always)]
    fn store<C: ComputeFloat, T: StoredFloat>(to: &mut [T], start: usize, all: &[C; SHORT]) {
        let to = to.get_mut(start..).unwrap_or_default();
        if let Some(to) = to.first_chunk_mut::<SHORT>() {
            *to = all.map(C::store);
            return;
        }
        for (to, x) in to.iter_mut().zip(all) {
            *to = x.store();
        }
    }
    for start in (0..param.len()).step_by(SHORT) {
        let (mut p, g) = (load::<C, P>(param, start), load::<C, G>(grad, start));
        let mut state = R::Slots::<[C; SHORT]>::from_fn(|k| match slots.get(k) {
            Some(slot) if mask >> k & 1 == 1 => load(slot, start),
            _ => [C::ZERO; SHORT],
        });
        let each = state.as_mut();
        for i in 0..SHORT {
            let (to, next) = R::update::<C>(coefs, p[i], g[i], R::Slots::from_fn(|k| each[k][i]));
            p[i] = to;
            for (each, &x) in each.iter_mut().zip(next.as_ref()) {
                each[i] = x;
            }
        }
        store(param, start, &p);
        for (k, (slot, each)) in slots.iter_mut().zip(&*each).enumerate() {
            if mask >> k & 1 == 1 {
                store(slot, start, each);
            }
        }
    }
}

/// Element i of a slice. It is there: the lengths have been checked. A compiler for small
/// processors does not always see that, and a panic is not to be linked there; one for vector
/// units vectorises the loop only if it is told that nothing else can happen.
#[inline(always)]
fn load_at<C: ComputeFloat, T: StoredFloat>(from: &[T], i: usize) -> C {
    if cfg!(target_os = "none") {
        from.get(i).map_or(C::ZERO, |&x| C::load(x))
    } else {
        C::load(from[i])
    }
}

/// The same, to write.
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

/// What of a rule its configuration uses.
#[derive(Clone, Copy)]
pub(crate) struct ActiveParts {
    pub(crate) mask: u32,
    pub(crate) sums: bool,
}

impl ActiveParts {
    pub(crate) fn of<R: Rule>(rule: &R, compute: Dtype) -> Self {
        ActiveParts { mask: rule.active_slots(compute), sums: R::NUM_SUMS > 0 && rule.needs_sums() }
    }
}

/// The loops over the elements of a tensor: what the shapes of rules differ in.
pub(crate) trait KernelSet<R: Rule, C: ComputeFloat>: Copy {
    /// The sums of the terms over the whole tensor.
    fn sums<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2];
    /// The terms of the elements from `start` on, which the slices hold.
    #[expect(clippy::too_many_arguments, reason = "a stretch of a tensor has that many parts")]
    fn terms(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        start: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        terms: [&mut [C::Scalar]; 2],
    );
    /// Updates the elements from `start` on, which the slices hold.
    fn apply<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        start: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    );
}

/// Elementwise and tensorwise rules.
#[derive(Clone, Copy)]
pub(crate) struct Elementwise;

impl<R: Rule, C: ComputeFloat> KernelSet<R, C> for Elementwise {
    fn sums<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2] {
        sums::<R, C, P, G, S>(k, mask, param, grad, slots)
    }

    fn terms(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        _: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        terms: [&mut [C::Scalar]; 2],
    ) {
        with_mask!(R, mask, I => Sums::<R, C, C::Stored, C::Stored, C::Stored, I> { coefs: k, param, grad, slots }.terms(0, terms));
    }

    #[cfg_attr(not(target_os = "none"), inline(always))]
    fn apply<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        _: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    ) {
        apply::<R, C, P, G, S>(k, mask, param, grad, slots);
    }
}

/// Passes over a tensor of zeros that stands for a parameter elsewhere: [`Rule::PARAM_ONLY_SUMS`]
/// are those of that parameter.
#[derive(Clone, Copy)]
pub(crate) struct WithParamSums<X, S>(pub(crate) X, pub(crate) [S; 2]);

impl<R: Rule, C: ComputeFloat, X: KernelSet<R, C>> KernelSet<R, C> for WithParamSums<X, C::Scalar> {
    fn sums<P: StoredFloat, G: StoredFloat, S: StoredFloat>(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        param: &[P],
        grad: &[G],
        slots: &R::Slots<&[S]>,
    ) -> [C::Scalar; 2] {
        replace_param_sums::<R, C>(self.0.sums(k, mask, param, grad, slots), self.1)
    }

    fn terms(
        self,
        k: &R::Coefs<C>,
        mask: u32,
        start: usize,
        param: &[C::Stored],
        grad: &[C::Stored],
        slots: &R::Slots<&[C::Stored]>,
        [a, b]: [&mut [C::Scalar]; 2],
    ) {
        self.0.terms(k, mask, start, param, grad, slots, [&mut *a, &mut *b]);
        for (bit, (terms, sum)) in [a, b].into_iter().zip(self.1).enumerate() {
            // All terms of the zeros are zeros: one of them stands for the sum.
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
        mask: u32,
        start: usize,
        param: &mut [P],
        grad: &[G],
        slots: R::Slots<&mut [S]>,
    ) {
        self.0.apply(k, mask, start, param, grad, slots);
    }
}

/// The sums over the parameter alone, as if it had only n elements: their means are what counts.
pub(crate) fn param_sums<R: Rule, C: ComputeFloat<Stored: Plain>>(
    k: &R::Coefs<C>,
    whole: &DataMut<'_>,
    n: usize,
) -> [C::Scalar; 2] {
    if R::PARAM_ONLY_SUMS == 0 {
        return [C::Scalar::ZERO; 2];
    }
    let zeros = <R::Slots<C> as Array<C>>::from_fn;
    let len = whole.len();
    let mut values = [C::Stored::default(); reduce::CHUNK];
    reduce::sums_by_chunk::<_, 2>(len, |start, [a, b]: [&mut [C::Scalar]; 2]| {
        let values = values.get_mut(..a.len()).unwrap_or_default();
        whole.load(start, values);
        for ((a, b), p) in a.iter_mut().zip(b).zip(values) {
            [*a, *b] = R::sum_terms::<C>(k, C::load(*p), C::ZERO, zeros(|_| C::ZERO));
        }
    })
    .map(|sum| scaled_sum::<C>(sum, n, len))
}

/// A sum over `len` elements, as if there were only n.
#[inline(always)]
pub fn scaled_sum<C: ComputeFloat>(sum: C::Scalar, n: usize, len: usize) -> C::Scalar {
    C::scalar(sum.to_f64() * n as f64 / if len > 0 { len as f64 } else { 1.0 })
}

/// The sums over zeros, and those over the parameter that they stand for.
#[inline(always)]
pub fn replace_param_sums<R: Rule, C: ComputeFloat>(
    [a, b]: [C::Scalar; 2],
    [x, y]: [C::Scalar; 2],
) -> [C::Scalar; 2] {
    let own = |bit: u32| R::PARAM_ONLY_SUMS >> bit & 1 == 1;
    [if own(0) { x } else { a }, if own(1) { y } else { b }]
}

/// All passes over a tensor whose constants are known but for the sums.
#[expect(
    clippy::collapsible_if,
    reason = "a constant guard keeps what can not run from being compiled"
)]
pub(crate) fn run<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>>(
    passes: X,
    k: &mut R::Coefs<C>,
    uses: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
) {
    let s = scalars;
    // The combinations that are used in earnest have loops of their own.
    if direct::<R, C, X, C::Stored, C::Stored, C::Stored>(passes, k, uses, s, t) {
        return;
    }
    if const { matches!(C::DTYPE, Dtype::F32) } {
        if direct::<R, C, X, bf16, bf16, bf16>(passes, k, uses, s, t)
            || direct::<R, C, X, bf16, bf16, f32>(passes, k, uses, s, t)
        {
            return;
        }
    }
    buffered::<R, C, X>(passes, k, uses, s, t);
}

/// Runs the typed loops if the buffers are of these types.
fn direct<R: Rule, C: ComputeFloat, X: KernelSet<R, C>, P: Plain, G: Plain, S: Plain>(
    passes: X,
    k: &mut R::Coefs<C>,
    uses: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
) -> bool {
    if !are_all_of(S::DTYPE, t.slots) {
        return false;
    }
    let (Some(param), Some(grad)) = (P::of_mut(&mut t.param), G::of(&t.grad)) else { return false };
    let mut slots = t.slots.iter_mut();
    let slots = R::Slots::<&mut [S]>::from_fn(|_| {
        slots.next().and_then(|s| S::of_mut(s)).unwrap_or_default()
    });
    self::passes::<R, C, X, P, G, S>(passes, k, uses, scalars, param, grad, slots);
    true
}

/// All passes over plain numbers.
#[inline(always)]
#[expect(
    clippy::collapsible_if,
    reason = "a constant guard keeps what can not run from being compiled"
)]
pub(crate) fn passes<
    R: Rule,
    C: ComputeFloat,
    X: KernelSet<R, C>,
    P: StoredFloat,
    G: StoredFloat,
    S: StoredFloat,
>(
    passes: X,
    k: &mut R::Coefs<C>,
    ActiveParts { mask, sums }: ActiveParts,
    scalars: &mut ScalarState,
    param: &mut [P],
    grad: &[G],
    slots: R::Slots<&mut [S]>,
) {
    if const { R::NUM_SUMS > 0 } {
        if sums {
            let views = slots.as_ref();
            let views = R::Slots::<&[S]>::from_fn(|i| views.get(i).map_or(&[][..], |s| s));
            let sums = passes.sums::<P, G, S>(k, mask, param, grad, &views);
            R::apply_sums::<C>(k, sums, param.len());
        }
    }
    R::export_scalars::<C>(k, scalars);
    passes.apply::<P, G, S>(k, mask, 0, param, grad, slots);
}

/// Whether the slots that are used are plain numbers of this type.
fn are_all_of(dtype: Dtype, slots: &[DataMut<'_>]) -> bool {
    slots.iter().all(|s| s.is_empty() || s.dtype() == Some(dtype))
}

/// Any types and storages, by way of buffers in the compute type's own numbers in memory. On its own, because a tensor that
/// needs none of them is not to wait until the stack has grown.
#[inline(never)]
fn buffered<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>>(
    passes: X,
    k: &mut R::Coefs<C>,
    uses: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
) {
    match chunk_len_for(t) {
        Some(STAGING_LEN) => {
            run_buffered::<R, C, X, STAGING_LEN>(passes, k, uses, scalars, t, STAGING_LEN)
        }
        Some(stretch) => run_buffered::<R, C, X, MAX_BLOCK>(passes, k, uses, scalars, t, stretch),
        None => {}
    }
}

/// How many elements at a time hold whole blocks; a small stage, which stays in the nearest cache, if it can be.
fn chunk_len_for(t: &UpdateBuffers<'_, '_>) -> Option<usize> {
    let blocks = t.slots.iter().map(DataMut::block).chain([t.param.block()]);
    if blocks.clone().all(|b| STAGING_LEN.is_multiple_of(b)) {
        Some(STAGING_LEN)
    } else {
        chunk_len(blocks)
    }
}

/// Elements in a small stage.
const STAGING_LEN: usize = if cfg!(target_os = "none") { 256 } else { 1024 };

/// Buffers for a stretch of a tensor.
struct StagingBuffers<'s, R: Rule, C: ComputeFloat + 's> {
    param: &'s mut [C::Stored],
    grad: &'s mut [C::Stored],
    slots: R::Slots<&'s mut [C::Stored]>,
}

impl<R: Rule, C: ComputeFloat<Stored: Plain>> StagingBuffers<'_, R, C> {
    fn load(&mut self, mask: u32, t: &UpdateBuffers<'_, '_>, start: usize, len: usize) {
        t.param.load(start, self.param.get_mut(..len).unwrap_or_default());
        t.grad.load(start, self.grad.get_mut(..len).unwrap_or_default());
        self.load_slots(mask, t, start, len);
    }

    fn load_slots(&mut self, mask: u32, t: &UpdateBuffers<'_, '_>, start: usize, len: usize) {
        for (k, (to, from)) in self.slots.as_mut().iter_mut().zip(t.slots.iter()).enumerate() {
            if mask >> k & 1 == 1 {
                from.load(start, to.get_mut(..len).unwrap_or_default());
            }
        }
    }
}

/// Buffers in memory of the caller's, each `chunk_len` long.
pub(crate) fn run_in_scratch<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>>(
    passes: X,
    k: &mut R::Coefs<C>,
    active: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
    chunk_len: usize,
    scratch: &mut [C::Stored],
) {
    let mut chunks = scratch.chunks_mut(chunk_len.max(1));
    let mut next = || chunks.next().unwrap_or_default();
    let (param, grad) = (next(), next());
    let buffers = StagingBuffers::<R, C> { param, grad, slots: R::Slots::from_fn(|_| next()) };
    run_in_buffers(passes, k, active, scalars, t, chunk_len, buffers);
}

/// The stage is on the stack; its size is all that is compiled anew for each B.
pub(crate) fn run_buffered<
    R: Rule,
    C: ComputeFloat<Stored: Plain>,
    X: KernelSet<R, C>,
    const B: usize,
>(
    passes: X,
    k: &mut R::Coefs<C>,
    uses: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
    stretch: usize,
) {
    let zeros = [C::Stored::default(); B];
    let (mut param, mut grad) = (zeros, zeros);
    let mut slots = R::Slots::<[C::Stored; B]>::from_fn(|_| zeros);
    let mut each = slots.as_mut().iter_mut();
    let slots = R::Slots::from_fn(|_| each.next().map_or(&mut [][..], |s| s));
    let stage = StagingBuffers::<R, C> { param: &mut param, grad: &mut grad, slots };
    run_in_buffers(passes, k, uses, scalars, t, stretch, stage);
}

#[expect(
    clippy::collapsible_if,
    reason = "a constant guard keeps what can not run from being compiled"
)]
fn run_in_buffers<R: Rule, C: ComputeFloat<Stored: Plain>, X: KernelSet<R, C>>(
    passes: X,
    k: &mut R::Coefs<C>,
    ActiveParts { mask, sums }: ActiveParts,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
    stretch: usize,
    mut stage: StagingBuffers<'_, R, C>,
) {
    let n = t.param.len();
    let stretch = stretch.max(1); // it is, and now the compiler knows too: no panic is linked
    if const { R::NUM_SUMS > 0 } {
        if sums {
            // A stage is loaded once and handed out chunk by chunk.
            let mut loaded = usize::MAX;
            let sums = reduce::sums_by_chunk::<_, 2>(n, |start, [a, b]: [&mut [C::Scalar]; 2]| {
                let mut at = 0;
                while at < a.len() {
                    let base = (start + at) / stretch * stretch;
                    if base != loaded {
                        stage.load(mask, t, base, (n - base).min(stretch));
                        loaded = base;
                    }
                    let first = start + at - base;
                    let len = (a.len() - at).min(stretch - first);
                    let from = first..first + len;
                    let slots = stage.slots.as_ref();
                    let slots = R::Slots::<&[C::Stored]>::from_fn(|j| {
                        slots.get(j).and_then(|s| s.get(from.clone())).unwrap_or_default()
                    });
                    let param = stage.param.get(from.clone()).unwrap_or_default();
                    let grad = stage.grad.get(from).unwrap_or_default();
                    let terms =
                        [&mut *a, &mut *b].map(|t| t.get_mut(at..at + len).unwrap_or_default());
                    passes.terms(k, mask, start + at, param, grad, &slots, terms);
                    at += len;
                }
            });
            R::apply_sums::<C>(k, sums, n);
        }
    }
    R::export_scalars::<C>(k, scalars);
    // Numbers that are of the compute type already stay where they are.
    let plain_param = C::Stored::of_mut(&mut t.param).is_some();
    let plain_grad = C::Stored::of(&t.grad).is_some();
    for start in (0..n).step_by(stretch) {
        let len = (n - start).min(stretch);
        let all = start..start + len;
        stage.load_slots(mask, t, start, len);
        let mut views = stage.slots.as_mut().iter_mut().enumerate();
        let slots = R::Slots::<&mut [C::Stored]>::from_fn(|_| match views.next() {
            Some((j, s)) if mask >> j & 1 == 1 => s.get_mut(..len).unwrap_or_default(),
            _ => &mut [],
        });
        let own = stage.param.get_mut(..len).unwrap_or_default();
        let param = if plain_param {
            C::Stored::of_mut(&mut t.param).and_then(|x| x.get_mut(all.clone())).unwrap_or_default()
        } else {
            t.param.load(start, own);
            &mut *own
        };
        let grad = if plain_grad {
            C::Stored::of(&t.grad).and_then(|x| x.get(all)).unwrap_or_default()
        } else {
            let own = stage.grad.get_mut(..len).unwrap_or_default();
            t.grad.load(start, own);
            &*own
        };
        passes.apply::<C::Stored, C::Stored, C::Stored>(k, mask, start, param, grad, slots);
        if !plain_param {
            t.param.store(start, own);
        }
        for (j, (from, to)) in stage.slots.as_ref().iter().zip(t.slots.iter_mut()).enumerate() {
            if mask >> j & 1 == 1 {
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

    /// Three steps as compiled for vectors and without, in memory of type S.
    fn same_bits<R: Rule + Default, C: ComputeFloat<Stored = S>, S: StoredFloat>() {
        const N: usize = 77;
        let rule = R::default();
        let number = |i: usize| S::from_f64(((i * 37 % 101) as f64 - 50.0) / 16.0);
        let numbers: [S; N] = core::array::from_fn(number);
        let grad: [S; N] = core::array::from_fn(|i| number(i + 5));
        let [vectors, scalar] = [true, false].map(|vectors| {
            let mut param = numbers;
            let mut state = R::Slots::<[S; N]>::from_fn(|_| [S::default(); N]);
            let mut scalars = rule.scalars();
            for t in 1..=3 {
                let step = StepContext::new(t, 0.01);
                rule.advance_scalars(&step, &mut scalars);
                let coefs = &rule.coefs::<C>(&step, &scalars);
                let mut each = state.as_mut().iter_mut();
                let slots = R::Slots::from_fn(|_| each.next().map_or(&mut [][..], |s| s));
                let (param, grad) = (&mut param[..], &grad[..]);
                with_mask!(R, rule.active_slots(C::DTYPE), I => {
                    let apply = Apply::<R, C, S, S, S, I> { coefs, param, grad, slots };
                    if vectors { apply.run() } else { apply.run_scalar() }
                });
            }
            param.map(|x| x.to_f64().to_bits())
        });
        assert_eq!(vectors, scalar, "{}", R::ID);
        assert_ne!(vectors, numbers.map(|x| x.to_f64().to_bits()), "{}", R::ID);
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
