//! Elementwise and tensorwise rules over tensors that are encoded, each in a storage of its own: one launch
//! decodes, steps and encodes them; for sums over a tensor, one before it decodes them too.
//!
//! A warp has [`UNIT`] elements at a time, in rounds of four adjacent ones for each thread. What they decode
//! to, and what the rule makes of it, is in shared memory, in places that no other thread accesses: loops
//! over tensors and elements then stay loops. Only the largest magnitude of a block goes from thread to
//! thread; the order of a maximum does not matter.

use bitstep::float::{ComputeFloat, EagerFloat, StoredFloat};
use bitstep::optim::*;
use bitstep::rule::{Array, Rule};
use bitstep::storage::{
    BlockFp8, BlockQuant4, BlockQuant8, Codec, Companded, CorrectionInt, DynamicQuant8,
    HalfPrecision, KahanPair, RoundingBits, SplitFloat, StochasticRound, StochasticRounded,
    Storage, code_shift,
};
use half::{bf16, f16};

use crate::codecs::CodecSource;
use crate::grid::{
    Partial, WARP, chunks_of_warp, find_desc, lane, part, shared, shfl_xor, sync_warp, warp_sum,
};
use crate::rules::{complete, entries, factor, scaled_grad};
use crate::table::{CHUNK, ENCODED_THREADS, EncodedDesc, Place, UNIT, kind};

/// Adjacent elements of a thread.
const FOUR: u64 = 4;
const ALL: u32 = FOUR as u32;
/// Elements of a warp before each thread goes on to its next four.
const ROUND: u64 = WARP * FOUR;
/// The elements of a unit that a thread has.
const OWN: usize = (UNIT / WARP) as usize;

/// The elements of a tensor that a thread decodes or encodes together: `count` of up to four from index
/// `at`, and the place of the first in shared memory.
#[derive(Clone, Copy)]
struct Four {
    at: u64,
    count: u32,
    values: *mut f32,
}

impl Four {
    /// The four of a round of a unit that starts at `start`, in a tensor that ends at `end`.
    #[inline(always)]
    unsafe fn of(start: u64, end: u64, round: u32, values: *mut f32) -> Four {
        let at = start + u64::from(round) * ROUND + lane() * FOUR;
        let left = end.saturating_sub(at);
        let count = if left < FOUR { left } else { FOUR } as u32;
        // SAFETY: a thread has two rounds.
        Four { at, count, values: unsafe { values.add(round as usize * ROUND as usize) } }
    }

    /// # Safety
    /// `k` is less than four.
    #[inline(always)]
    unsafe fn get(self, k: u32) -> f32 {
        // SAFETY: guaranteed by the caller.
        unsafe { *self.values.add(k as usize * WARP as usize) }
    }

    /// # Safety
    /// As [`Four::get`].
    #[inline(always)]
    unsafe fn set(self, k: u32, x: f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { *self.values.add(k as usize * WARP as usize) = x }
    }

    /// Sets each to a function of its index.
    #[inline(always)]
    unsafe fn set_all(self, f: impl Fn(u32) -> f32) {
        let mut k = 0;
        while k < self.count {
            // SAFETY: there are at most four.
            unsafe { self.set(k, f(k)) };
            k += 1;
        }
    }
}

/// Loads `count` of up to four adjacent numbers, as a word with the first one lowest.
///
/// # Safety
/// They exist.
#[inline(always)]
unsafe fn fetch<T: Copy + Into<u64>, W: Copy + Into<u64>>(array: u64, at: u64, count: u32) -> u64 {
    // SAFETY: guaranteed by the caller; a word is read only where it is aligned.
    unsafe {
        let from = (array as *const T).add(at as usize);
        if count == ALL && (from as u64).is_multiple_of(size_of::<W>() as u64) {
            return (*(from as *const W)).into();
        }
        let (mut word, mut k) = (0, 0);
        while k < count {
            let one: u64 = (*from.add(k as usize)).into();
            word |= one << (k * 8 * size_of::<T>() as u32);
            k += 1;
        }
        word
    }
}

/// Stores the first `count` numbers of a word.
///
/// # Safety
/// They exist, and no other thread accesses them.
#[inline(always)]
unsafe fn put<T: Truncated, W: Truncated>(array: u64, at: u64, count: u32, word: u64) {
    // SAFETY: guaranteed by the caller; a word is written only where it is aligned.
    unsafe {
        let to = (array as *mut T).add(at as usize);
        if count == ALL && (to as u64).is_multiple_of(size_of::<W>() as u64) {
            *(to as *mut W) = W::of(word);
            return;
        }
        let mut k = 0;
        while k < count {
            *to.add(k as usize) = T::of(word >> (k * 8 * size_of::<T>() as u32));
            k += 1;
        }
    }
}

/// The lowest bits of a word.
trait Truncated: Copy {
    fn of(word: u64) -> Self;
}
macro_rules! truncated {
    ($($t:ty)*) => {$(
        impl Truncated for $t {
            #[inline(always)]
            fn of(word: u64) -> Self {
                word as $t
            }
        }
    )*};
}
truncated! { u8 u16 u32 u64 }

/// The word of four elements of an array of 4, 8 or 16 bits each; 0 for other sizes.
///
/// # Safety
/// They exist.
#[inline(always)]
unsafe fn fetch_four(array: u64, bits: u64, four: Four) -> u64 {
    let Four { at, count, .. } = four;
    // SAFETY: guaranteed by the caller.
    unsafe {
        match bits {
            4 if count == ALL && array.is_multiple_of(2) => {
                u64::from(*((array + at / 2) as *const u16))
            }
            4 => fetch::<u8, u32>(array, at / 2, count.div_ceil(2)),
            8 => fetch::<u8, u32>(array, at, count),
            16 => fetch::<u16, u64>(array, at, count),
            _ => 0,
        }
    }
}

/// Stores a word as [`fetch_four`] loads it.
///
/// # Safety
/// As [`fetch_four`]; no other thread accesses them.
#[inline(always)]
unsafe fn put_four(array: u64, bits: u64, four: Four, word: u64) {
    let Four { at, count, .. } = four;
    // SAFETY: guaranteed by the caller.
    unsafe {
        match bits {
            4 if count == ALL && array.is_multiple_of(2) => {
                *((array + at / 2) as *mut u16) = word as u16;
            }
            4 => put::<u8, u32>(array, at / 2, count.div_ceil(2), word),
            8 => put::<u8, u32>(array, at, count, word),
            16 => put::<u16, u64>(array, at, count, word),
            _ => {}
        }
    }
}

/// Element k of a word of 8 or of 16 bits each.
#[inline(always)]
fn byte(word: u64, k: u32) -> u8 {
    (word >> (8 * k)) as u8
}
#[inline(always)]
fn half(word: u64, k: u32) -> u16 {
    (word >> (16 * k)) as u16
}

/// A float of 16 bits.
trait Half: StoredFloat {
    fn of(bits: u16) -> Self;
    fn bits(self) -> u64;
}
macro_rules! halves {
    ($($t:ty)*) => {$(
        impl Half for $t {
            #[inline(always)]
            fn of(bits: u16) -> Self {
                <$t>::from_bits(bits)
            }
            #[inline(always)]
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
        }
    )*};
}
halves! { bf16 f16 }

/// Correction bits as they lie in a word.
trait Correction: CorrectionInt {
    fn of(word: u64, k: u32) -> Self;
    fn word(self, k: u32) -> u64;
}
impl Correction for i8 {
    #[inline(always)]
    fn of(word: u64, k: u32) -> Self {
        byte(word, k) as i8
    }
    #[inline(always)]
    fn word(self, k: u32) -> u64 {
        u64::from(self as u8) << (8 * k)
    }
}
impl Correction for i16 {
    #[inline(always)]
    fn of(word: u64, k: u32) -> Self {
        half(word, k) as i16
    }
    #[inline(always)]
    fn word(self, k: u32) -> u64 {
        u64::from(self as u16) << (16 * k)
    }
}

/// A storage of single elements in one or two arrays, of which `main` and `side` are words of four.
trait Single {
    fn decode(main: u64, side: u64, k: u32) -> f32;
    /// The bits of element k in both words; `noise` is of [`Dithered`].
    fn encode(x: f32, k: u32, noise: RoundingBits<'_>) -> [u64; 2];
}

struct Rounded<N>(N);
impl<N: Half> Single for Rounded<N> {
    #[inline(always)]
    fn decode(main: u64, _: u64, k: u32) -> f32 {
        N::of(half(main, k)).to_f32()
    }
    #[inline(always)]
    fn encode(x: f32, k: u32, _: RoundingBits<'_>) -> [u64; 2] {
        [<N as StoredFloat>::from_f32(x).bits() << (16 * k), 0]
    }
}

struct Dithered<N>(N);
impl<N: Half + StochasticRound> Single for Dithered<N> {
    #[inline(always)]
    fn decode(main: u64, side: u64, k: u32) -> f32 {
        Rounded::<N>::decode(main, side, k)
    }
    #[inline(always)]
    fn encode(x: f32, k: u32, noise: RoundingBits<'_>) -> [u64; 2] {
        let mut to = [N::default()];
        StochasticRounded::new(&mut to, noise).store(0, &[x]);
        [Half::bits(to[0]) << (16 * k), 0]
    }
}

struct Split<N, E>(N, E);
impl<N: Half + HalfPrecision, E: Correction> Single for Split<N, E> {
    #[inline(always)]
    fn decode(main: u64, side: u64, k: u32) -> f32 {
        let (mut narrow, mut error) = ([N::of(half(main, k))], [E::of(side, k)]);
        let mut x = [0.0];
        if let Ok(split) = SplitFloat::new(&mut narrow, &mut error) {
            split.load(0, &mut x);
        }
        x[0]
    }
    #[inline(always)]
    fn encode(x: f32, k: u32, _: RoundingBits<'_>) -> [u64; 2] {
        let (mut narrow, mut error) = ([N::default()], [E::default()]);
        if let Ok(mut split) = SplitFloat::new(&mut narrow, &mut error) {
            split.store(0, &[x]);
        }
        [Half::bits(narrow[0]) << (16 * k), error[0].word(k)]
    }
}

struct Kahan<N>(N);
impl<N: Half> Single for Kahan<N> {
    #[inline(always)]
    fn decode(main: u64, side: u64, k: u32) -> f32 {
        let (mut value, mut lost) = ([N::of(half(main, k))], [N::of(half(side, k))]);
        let mut x = [0.0];
        if let Ok(kahan) = KahanPair::new(&mut value, &mut lost) {
            kahan.load(0, &mut x);
        }
        x[0]
    }
    #[inline(always)]
    fn encode(x: f32, k: u32, _: RoundingBits<'_>) -> [u64; 2] {
        let (mut value, mut lost) = ([N::default()], [N::default()]);
        if let Ok(mut kahan) = KahanPair::new(&mut value, &mut lost) {
            kahan.store(0, &[x]);
        }
        [value[0].bits() << (16 * k), lost[0].bits() << (16 * k)]
    }
}

/// Evaluates `$single` with `$S` as the storage of a kind of single elements, or `$coded` with `$D` as the
/// codec of a kind of blocks.
macro_rules! by_kind {
    ($kind:expr, $S:ident => $single:expr, $D:ident => $coded:expr, $other:expr) => {{
        macro_rules! single {
            ($of:ty) => {{
                type $S = $of;
                $single
            }};
        }
        macro_rules! coded {
            ($of:ty) => {{
                type $D = $of;
                $coded
            }};
        }
        match $kind {
            kind::BF16 => single!(Rounded<bf16>),
            kind::F16 => single!(Rounded<f16>),
            kind::DITHERED_BF16 => single!(Dithered<bf16>),
            kind::DITHERED_F16 => single!(Dithered<f16>),
            kind::SPLIT_BF16_8 => single!(Split<bf16, i8>),
            kind::SPLIT_BF16_16 => single!(Split<bf16, i16>),
            kind::SPLIT_F16_8 => single!(Split<f16, i8>),
            kind::SPLIT_F16_16 => single!(Split<f16, i16>),
            kind::KAHAN_BF16 => single!(Kahan<bf16>),
            kind::KAHAN_F16 => single!(Kahan<f16>),
            kind::COMPANDED => coded!(Companded),
            kind::DYNAMIC => coded!(DynamicQuant8),
            kind::SCALED8 => coded!(BlockQuant8),
            kind::SCALED4 => coded!(BlockQuant4),
            kind::FP8 => coded!(BlockFp8),
            _ => $other,
        }
    }};
}

/// Four floats that are aligned to be loaded and stored at once.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Wide([f32; 4]);

/// # Safety
/// The array has the four.
#[inline(always)]
unsafe fn load_floats(array: u64, four: Four) {
    // SAFETY: guaranteed by the caller; all four are read at once only where they are aligned.
    unsafe {
        let from = (array as *const f32).add(four.at as usize);
        if four.count == ALL && (from as u64).is_multiple_of(16) {
            let [a, b, c, d] = (*(from as *const Wide)).0;
            four.set(0, a);
            four.set(1, b);
            four.set(2, c);
            four.set(3, d);
        } else {
            four.set_all(|k| *from.add(k as usize));
        }
    }
}

/// # Safety
/// As [`load_floats`]; no other thread accesses them.
#[inline(always)]
unsafe fn store_floats(array: u64, four: Four) {
    // SAFETY: guaranteed by the caller; all four are written at once only where they are aligned.
    unsafe {
        let to = (array as *mut f32).add(four.at as usize);
        if four.count == ALL && (to as u64).is_multiple_of(16) {
            *(to as *mut Wide) = Wide([four.get(0), four.get(1), four.get(2), four.get(3)]);
            return;
        }
        let mut k = 0;
        while k < four.count {
            *to.add(k as usize) = four.get(k);
            k += 1;
        }
    }
}

/// The byte in a word of a code, and its shift in that byte.
#[inline(always)]
fn place_of_code<D: Codec>(k: u32) -> (u32, u32) {
    (if D::BITS == 4 { k / 2 } else { k }, code_shift::<D>(k))
}

/// The block of an element, of a power of two each: without a division.
#[inline(always)]
fn index_of_block(at: u64, block: u64) -> usize {
    (at >> (63 - block.leading_zeros())) as usize
}

/// # Safety
/// The place has the four.
#[inline(always)]
unsafe fn decode(place: &Place, four: Four) {
    if four.count == 0 {
        return;
    }
    // SAFETY: guaranteed by the caller.
    unsafe {
        if place.kind == kind::F32 {
            return load_floats(place.main, four);
        }
        let main = fetch_four(place.main, place.main_bits, four);
        let side = fetch_four(place.side, place.side_bits, four);
        by_kind!(
            place.kind,
            S => four.set_all(|k| S::decode(main, side, k)),
            D => {
                let codec = D::new(place.with);
                let scales = place.side as *const <D as Codec>::Scale;
                let scale = StoredFloat::to_f32(*scales.add(index_of_block(four.at, place.block)));
                let mask = (255 >> (8 - D::BITS)) as u8;
                four.set_all(|k| {
                    let (at, shift) = place_of_code::<D>(k);
                    codec.value((byte(main, at) >> shift) & mask, scale)
                });
            },
            four.set_all(|_| 0.0)
        );
    }
}

/// The largest magnitude of four elements, which are replaced by what they are encoded by.
///
/// # Safety
/// The place is of blocks.
#[inline(always)]
unsafe fn shape(place: &Place, four: Four) -> u32 {
    let mut most = 0;
    by_kind!(
        place.kind,
        _S => {},
        D => {
            let codec = D::new(place.with);
            let mut k = 0;
            while k < four.count {
                // SAFETY: there are at most four.
                let shaped = codec.shape(unsafe { four.get(k) });
                // SAFETY: as above.
                unsafe { four.set(k, shaped) };
                let magnitude = codec.magnitude(shaped);
                most = if magnitude > most { magnitude } else { most };
                k += 1;
            }
        },
        {}
    );
    most
}

/// Encodes the four, in a block with this largest magnitude.
///
/// # Safety
/// As [`decode`]; no other thread accesses them.
#[inline(always)]
unsafe fn encode(place: &Place, four: Four, largest: u32) {
    if four.count == 0 {
        return;
    }
    // SAFETY: guaranteed by the caller.
    unsafe {
        if place.kind == kind::F32 {
            return store_floats(place.main, four);
        }
        let is_dithered = matches!(place.kind, kind::DITHERED_BF16 | kind::DITHERED_F16);
        let given =
            if is_dithered && place.side != 0 { fetch_four(place.side, 16, four) } else { 0 };
        let (mut main, mut side) = (0, 0);
        by_kind!(
            place.kind,
            S => {
                let mut k = 0;
                while k < four.count {
                    let [seed, step] = place.with;
                    let bits = [half(given, k)];
                    let noise = if place.side == 0 {
                        RoundingBits::Counter { seed, step, first: four.at + u64::from(k) }
                    } else {
                        RoundingBits::Provided(&bits)
                    };
                    let [a, b] = S::encode(four.get(k), k, noise);
                    (main, side, k) = (main | a, side | b, k + 1);
                }
            },
            D => {
                let codec = D::new(place.with);
                let scale = codec.scale(largest);
                let mut k = 0;
                while k < four.count {
                    let (at, shift) = place_of_code::<D>(k);
                    let code = codec.code(four.get(k), scale) << shift;
                    main |= u64::from(code) << (8 * at);
                    k += 1;
                }
                if four.at & (place.block - 1) == 0 {
                    let scales = place.side as *mut <D as Codec>::Scale;
                    *scales.add(index_of_block(four.at, place.block)) = StoredFloat::from_f32(scale);
                }
            },
            return
        );
        put_four(place.main, place.main_bits, four, main);
        if !is_dithered {
            put_four(place.side, place.side_bits, four, side);
        }
    }
}

/// Encodes a unit, by the whole warp; `four` has the fours of a round.
///
/// # Safety
/// The place has them, and no other thread accesses them.
#[inline(always)]
unsafe fn encode_unit(place: &Place, four: impl Fn(u32) -> Four) {
    let mut most = [0; 2];
    if place.block > 0 {
        let mut round = 0;
        while round < 2 {
            // SAFETY: it is of blocks.
            let largest = unsafe { shape(place, four(round)) };
            most = if round == 0 { [largest, 0] } else { [most[0], largest] };
            round += 1;
        }
        if place.block > ROUND {
            most = [most[0].max(most[1]); 2];
        }
        let threads = if place.block > ROUND { WARP } else { place.block / FOUR };
        let mut width = threads as u32 / 2;
        while width > 0 {
            most = [most[0].max(shfl_xor(most[0], width)), most[1].max(shfl_xor(most[1], width))];
            width /= 2;
        }
    }
    let mut round = 0;
    while round < 2 {
        // SAFETY: guaranteed by the caller.
        unsafe { encode(place, four(round), if round == 0 { most[0] } else { most[1] }) };
        round += 1;
    }
}

/// Multiplies four loaded gradients of type G.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn scale_grads<G: EagerFloat>(four: Four, at: u64) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let scale = factor::<G>(at);
        let mut k = 0;
        while k < four.count {
            // Exact: it was of type G before it was widened.
            let grad = <G as StoredFloat>::from_f32(four.get(k));
            four.set(k, f32::load(scaled_grad(grad, scale)));
            k += 1;
        }
    }
}

/// The numbers of a tensor, of those that a thread has of each.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn of_tensor(values: *mut f32, tensor: u64) -> *mut f32 {
    // SAFETY: guaranteed by the caller.
    unsafe { values.add((tensor * OWN as u64 * WARP) as usize) }
}

/// Decodes a unit of a tensor, whose elements start at `start` and end at `end`, and multiplies its gradient.
///
/// # Safety
/// The descriptor is valid, and no other warp accesses the unit; `values` are this thread's, of each tensor.
#[inline(always)]
unsafe fn decode_unit<R: Rule>(desc: &EncodedDesc, values: *mut f32, [start, end]: [u64; 2]) {
    let places = R::SLOTS.len() as u64 + 2;
    // SAFETY: guaranteed by the caller; the table of places is longer than a rule's.
    unsafe {
        let four = |tensor: u64, round: u32| Four::of(start, end, round, of_tensor(values, tensor));
        let mut tensor = 0;
        while tensor < places {
            let place = &*desc.places.as_ptr().add(tensor as usize);
            let mut round = 0;
            while round < 2 {
                decode(place, four(tensor, round));
                round += 1;
            }
            tensor += 1;
        }
        let mut round = 0;
        while round < 2 && desc.grad_scale != 0 {
            match desc.places[0].kind {
                kind::F32 => scale_grads::<f32>(four(0, round), desc.grad_scale),
                kind::BF16 => scale_grads::<bf16>(four(0, round), desc.grad_scale),
                _ => scale_grads::<f16>(four(0, round), desc.grad_scale),
            }
            round += 1;
        }
    }
}

/// Decodes, steps and encodes a unit of a tensor.
///
/// # Safety
/// As [`decode_unit`].
#[inline(always)]
unsafe fn step_unit<R: Rule>(desc: &EncodedDesc, values: *mut f32, [start, end]: [u64; 2]) {
    let places = R::SLOTS.len() as u64 + 2;
    // SAFETY: guaranteed by the caller.
    unsafe {
        decode_unit::<R>(desc, values, [start, end]);
        let four = |tensor: u64, round: u32| Four::of(start, end, round, of_tensor(values, tensor));
        let mut round = 0;
        while round < 2 {
            // Loaded where they are used: they would take up registers elsewhere.
            let coefs = *(desc.coefs as *const R::Coefs<f32>);
            let (grads, params) = (four(0, round), four(1, round));
            let mut k = 0;
            while k < grads.count {
                let state = R::Slots::<f32>::from_fn(|slot| four(2 + slot as u64, round).get(k));
                let (p, state) = R::update::<f32>(&coefs, params.get(k), grads.get(k), state);
                params.set(k, p);
                for (slot, &x) in state.as_ref().iter().enumerate() {
                    four(2 + slot as u64, round).set(k, x);
                }
                k += 1;
            }
            round += 1;
        }
        let mut tensor = 1;
        while tensor < places {
            let place = &*desc.places.as_ptr().add(tensor as usize);
            encode_unit(place, |round| four(tensor, round));
            tensor += 1;
        }
    }
}

/// The index of an element of a unit among the numbers of a warp: those of a thread are four adjacent ones.
#[inline(always)]
fn index_in_warp(element: u64) -> usize {
    let (round, within) = (element / ROUND, element % ROUND);
    (round * ROUND + within % FOUR * WARP + within / FOUR) as usize
}

/// Decodes a unit of a tensor, and adds its terms to this lane's sums, in the core's order.
///
/// # Safety
/// As [`decode_unit`].
#[inline(always)]
unsafe fn sum_unit<R: Rule>(
    desc: &EncodedDesc,
    values: *mut f32,
    [start, end]: [u64; 2],
    [mut a, mut b]: [f32; 2],
) -> [f32; 2] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        decode_unit::<R>(desc, values, [start, end]);
        let four = |tensor: u64, round: u32| Four::of(start, end, round, of_tensor(values, tensor));
        let mut round = 0;
        while round < 2 {
            let coefs = *(desc.coefs as *const R::Coefs<f32>);
            // The terms take the places of gradient and parameter.
            let (grads, params) = (four(0, round), four(1, round));
            let mut k = 0;
            while k < grads.count {
                let state = R::Slots::<f32>::from_fn(|slot| four(2 + slot as u64, round).get(k));
                let [x, y] = R::sum_terms::<f32>(&coefs, params.get(k), grads.get(k), state);
                grads.set(k, x);
                params.set(k, y);
                k += 1;
            }
            round += 1;
        }
        sync_warp();
        let terms = values.sub(lane() as usize);
        let (mut element, left) = (lane(), end - start);
        while element < UNIT && element < left {
            let at = index_in_warp(element);
            a += *of_tensor(terms, 0).add(at);
            b += *of_tensor(terms, 1).add(at);
            element += WARP;
        }
        // Before others overwrite them.
        sync_warp();
    }
    [a, b]
}

/// Sums over the tensors of a table, which complete their constants.
///
/// # Safety
/// As [`step`].
#[inline(always)]
unsafe fn sums<R: Rule, const FLOATS: usize>(table: *const EncodedDesc, count: u64, chunks: u64) {
    let values = shared::<f32, FLOATS, { ENCODED_THREADS as usize }>();
    let (mut chunk, stride) = chunks_of_warp();
    while chunk < chunks {
        // SAFETY: guaranteed by the caller; one thread of a tensor's completes its constants.
        unsafe {
            let desc = find_desc(table, count, chunk);
            let at = chunk - desc.first;
            let (mut start, end) = part(desc.len, at);
            let mut sums = [0.0; 2];
            while start < end {
                sums = sum_unit::<R>(desc, values, [start, end], sums);
                start += UNIT;
            }
            let all = desc.len.div_ceil(CHUNK);
            let partial = Partial { values: desc.sums, counters: desc.counters, count: all, at };
            let sums = partial.add([warp_sum(sums[0]), warp_sum(sums[1])]);
            if let Some(sums) = sums.filter(|_| lane() == 0) {
                complete::<R, f32>([desc.coefs, desc.persist], sums, desc.len);
            }
        }
        chunk += stride;
    }
}

/// Steps the tensors of a table. FLOATS are those of one thread.
///
/// # Safety
/// The host's descriptors are valid.
#[inline(always)]
unsafe fn step<R: Rule, const FLOATS: usize>(table: *const EncodedDesc, count: u64, chunks: u64) {
    let values = shared::<f32, FLOATS, { ENCODED_THREADS as usize }>();
    let (mut chunk, stride) = chunks_of_warp();
    while chunk < chunks {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let desc = find_desc(table, count, chunk);
            let (mut start, end) = part(desc.len, chunk - desc.first);
            while start < end {
                step_unit::<R>(desc, values, [start, end]);
                start += UNIT;
            }
        }
        chunk += stride;
    }
}

macro_rules! encoded {
    (
        elementwise { $($stem:ident: $rule:ty,)* }
        tensorwise { $($t:ident: $tr:ty,)* }
        $($rest:tt)*
    ) => {
        entries! { in EncodedDesc;
            $(concat!(stringify!($stem), "_encoded_f32") =>
                step::<$rule, { (<$rule as Rule>::SLOTS.len() + 2) * OWN }>;)*
            $(concat!(stringify!($t), "_encoded_f32") =>
                step::<$tr, { (<$tr as Rule>::SLOTS.len() + 2) * OWN }>;)*
            $(concat!(stringify!($t), "_sums_encoded_f32") =>
                sums::<$tr, { (<$tr as Rule>::SLOTS.len() + 2) * OWN }>;)*
        }
    };
}

bitstep::each_rule!(encoded);
