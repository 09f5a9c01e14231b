//! The dynamic maps: numbers in [−1, 1] that codes stand for.
//!
//! Each decade below 1 has twice as many numbers as the one beneath it, evenly
//! spread: the midpoints of equal parts of [0.1, 1], times a power of ten. With 0
//! and 1, and with the negatives in a signed map, that makes 2^bits numbers, in order.

use crate::arch::gather::Table;

/// `torch.linspace(0.1, 1, n)[k]`: from the nearer end, rounded once.
const fn linspace(n: usize, k: usize) -> f32 {
    let (start, end) = (0.1f32, 1.0f32);
    let step = (end - start) / (n - 1) as f32;
    // The product is exact in f64, as it is inside of a fused multiply-add.
    if k < n / 2 {
        (start as f64 + step as f64 * k as f64) as f32
    } else {
        (end as f64 - step as f64 * (n - 1 - k) as f64) as f32
    }
}

/// The map of N codes with this many decades.
const fn dynamic<const N: usize>(signed: bool, decades: usize) -> [f32; N] {
    const TENS: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut map = [0.0f32; N];
    let mut at = if signed { N / 2 - 1 } else { 0 }; // where 0 stands
    let zero = at;
    let mut decade = 0;
    while decade < decades {
        let parts = if signed { 1 << decade } else { 2 << decade };
        let mut k = 0;
        while k < parts {
            let mean = (linspace(parts + 1, k) + linspace(parts + 1, k + 1)) / 2.0;
            at += 1;
            map[at] = TENS[7 - decades + decade] * mean;
            if signed {
                map[2 * zero - at] = -map[at];
            }
            k += 1;
        }
        decade += 1;
    }
    map[N - 1] = 1.0;
    map
}

pub(crate) const SIGNED_8: [f32; 256] = dynamic(true, 7);
pub(crate) const UNSIGNED_8: [f32; 256] = dynamic(false, 7);
pub(crate) const SIGNED_4: [f32; 16] = dynamic(true, 3);
/// Not dynamic: sixteenths, without 0.
pub(crate) const UNSIGNED_4: [f32; 16] = {
    let mut map = [0.0; 16];
    let mut k = 0;
    while k < 16 {
        map[k] = (k + 1) as f32 / 16.0;
        k += 1;
    }
    map
};

/// Which of two equally near codes a number gets.
#[derive(Clone, Copy)]
pub(crate) enum Tie {
    /// The lower, as in bitsandbytes: up if `high − x < x − low`.
    Lower,
    /// The upper, as in torchao: up if `x − low ≥ (high − low) / 2`.
    Upper,
}

/// Whether x, between two neighbours of a map, gets the code of the upper one. Once true, it
/// stays so as x grows: rounded differences are monotone.
#[inline(always)]
const fn is_up(tie: Tie, low: f32, high: f32, x: f32) -> bool {
    match tie {
        Tie::Lower => high - x < x - low,
        Tie::Upper => x - low >= (high - low) * 0.5,
    }
}

/// The code of the number nearest to x; 0 for NaN. N is a power of two. As many steps for every
/// x, none of them a branch. This is the definition; [`NearestCode`] is how to be quick about it.
#[inline(always)]
pub(crate) fn nearest<const N: usize>(map: &[f32; N], tie: Tie, x: f32) -> u8 {
    let (mut low, mut half) = (0, N / 2);
    while half > 0 {
        low += if x >= map[(low + half) % N] { half } else { 0 };
        half /= 2;
    }
    let high = if low + 1 < N { low + 1 } else { low };
    (if is_up(tie, map[low % N], map[high % N], x) { high } else { low }) as u8
}

const fn repeated(map: &[f32; 16]) -> [f32; 256] {
    let mut all = [0.0; 256];
    let mut at = 0;
    while at < 256 {
        all[at] = map[at % 16];
        at += 1;
    }
    all
}

/// Bits of a float, in an order of integers that is the numbers' order.
const fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

const fn from_ordered(o: u32) -> f32 {
    f32::from_bits(if o >> 31 == 1 { o & !(1 << 31) } else { !o })
}

/// The least numbers that get code 1, 2, … of a map: N − 1 of them.
const fn thresholds<const N: usize>(map: &[f32; N], tie: Tie) -> [f32; N] {
    let mut least = [f32::NAN; N]; // the last one stays: nothing reaches it
    let mut code = 0;
    while code + 1 < N {
        let (mut not_yet, mut from) = (ordered(map[code]), ordered(map[code + 1]));
        while from - not_yet > 1 {
            let middle = not_yet + (from - not_yet) / 2;
            if is_up(tie, map[code], map[code + 1], from_ordered(middle)) {
                from = middle;
            } else {
                not_yet = middle;
            }
        }
        least[code] = from_ordered(from);
        code += 1;
    }
    least
}

/// How many numbers go through each of several loops before the next do.
pub(crate) const BATCH: usize = 256;

/// Finds codes of a map of 256 without a search: a guess, and one look into a table to correct it.
///
/// Within a decade codes go up evenly, and each decade's line is less steep than the one below:
/// the lowest of the lines at a magnitude, less something between 0.2 and 1, is by less than one
/// code too low, also where two of them meet. So the code is the guess or the next one.
pub(crate) struct NearestCode<const SIGNED: bool> {
    map: &'static [f32; 256],
    tie: Tie,
    /// The least number with the code that follows.
    least: Table,
}

/// In [2²², 2²³) neighbours are half of 1 apart: a sum there is rounded to halves by the adder, and
/// its bits count them.
const HALVES: f32 = 6_291_456.0;

/// A decade's line: codes, counted from 0's and from [`HALVES`], over magnitudes.
#[derive(Clone, Copy)]
struct GuessLine {
    slope: f32,
    at_zero: f32,
}

const fn lines(signed: bool) -> [GuessLine; 7] {
    let mut lines = [GuessLine { slope: 0.0, at_zero: 0.0 }; 7];
    let (mut decade, mut start) = (7, 1.0);
    while decade > 0 {
        decade -= 1;
        start /= 10.0; // of the decade
        let parts = if signed { 1 << decade } else { 2 << decade };
        let first = if signed { parts } else { parts - 1 } as f64;
        let slope = parts as f64 / (9.0 * start);
        // Less 0.25, as it is rounded, and less at least 0.22.
        let halves = (first - start * slope - 0.25 - 0.22) * 2.0;
        let floor = halves as i32 - if halves < 0.0 { 1 } else { 0 };
        lines[decade as usize] =
            GuessLine { slope: slope as f32, at_zero: HALVES + floor as f32 * 0.5 };
    }
    lines
}

impl<const SIGNED: bool> NearestCode<SIGNED> {
    const LINES: [GuessLine; 7] = lines(SIGNED);

    const fn new(map: &'static [f32; 256], tie: Tie) -> Self {
        NearestCode { map, tie, least: Table::new(thresholds(map, tie)) }
    }

    /// The code of x or the one before; of NaN any.
    #[inline(always)]
    fn guess(x: f32) -> u8 {
        let negative = x.to_bits() as i32 >> 31; // all ones, or none
        let magnitude = f32::from_bits((x.to_bits() & 0x7fff_ffff).min(1f32.to_bits()));
        // Integers, because their minimum is the quicker one.
        let [a, b, c, d, e, f, g] =
            Self::LINES.map(|line| (magnitude * line.slope + line.at_zero).to_bits());
        let least = a.min(b).min(c.min(d)).min(e.min(f).min(g));
        let place = (least - HALVES.to_bits()) as i32 >> 1;
        let code = if SIGNED { 127 + (place ^ negative) } else { place & !negative };
        code.max(0) as u8
    }

    /// Writes the codes of what `f` makes of the values: of the nearest numbers, 0 for NaN.
    #[inline(always)]
    pub(crate) fn encode(&self, values: &[f32], codes: &mut [u8], f: impl Fn(f32) -> f32) {
        if cfg!(any(target_os = "none", target_arch = "nvptx64")) {
            // Nothing is gained there by doing several numbers at a time.
            for (code, &x) in codes.iter_mut().zip(values) {
                *code = nearest(self.map, self.tie, f(x));
            }
            return;
        }
        let (mut xs, mut guesses, mut least) = ([0.0; BATCH], [0; BATCH], [0.0; BATCH]);
        for (values, codes) in values.chunks(BATCH).zip(codes.chunks_mut(BATCH)) {
            // Apart, so that more elements are under way at a time.
            for (x, &value) in xs.iter_mut().zip(values) {
                *x = f(value);
            }
            for (guess, &x) in guesses.iter_mut().zip(&xs) {
                *guess = Self::guess(x);
            }
            self.least.gather_scaled(&guesses, 1.0, &mut least);
            for (((code, x), guess), least) in codes.iter_mut().zip(&xs).zip(&guesses).zip(&least) {
                let nearest = guess + u8::from(x >= least);
                *code = if x.is_nan() { 0 } else { nearest };
            }
        }
    }
}

/// Tables that are in memory once. A GPU's kernels have to bring their own: there they are constants.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {$(
        $(#[$doc])*
        #[cfg(not(target_arch = "nvptx64"))]
        pub(crate) static $name: $type = $value;
        $(#[$doc])*
        #[cfg(target_arch = "nvptx64")]
        pub(crate) const $name: $type = $value;
    )*};
}

tables! {
    /// What signed codes stand for.
    EIGHT_SIGNED: Table = Table::new(SIGNED_8);
    /// What unsigned codes stand for.
    EIGHT_UNSIGNED: Table = Table::new(UNSIGNED_8);
    /// What signed codes of 4 bits stand for, over and over.
    FOUR_SIGNED: Table = Table::new(repeated(&SIGNED_4));
    /// The same, unsigned.
    FOUR_UNSIGNED: Table = Table::new(repeated(&UNSIGNED_4));

    /// bitsandbytes' codes, signed.
    LOWER_SIGNED: NearestCode<true> = NearestCode::new(&SIGNED_8, Tie::Lower);
    /// bitsandbytes' codes, unsigned.
    LOWER_UNSIGNED: NearestCode<false> = NearestCode::new(&UNSIGNED_8, Tie::Lower);
    /// torchao's codes, signed.
    UPPER_SIGNED: NearestCode<true> = NearestCode::new(&SIGNED_8, Tie::Upper);
    /// torchao's codes, unsigned.
    UPPER_UNSIGNED: NearestCode<false> = NearestCode::new(&UNSIGNED_8, Tie::Upper);

    /// torchao's 4-bit codes: the least numbers that get code 1, 2, …
    UPPER_SIGNED_4: [f32; 16] = thresholds(&SIGNED_4, Tie::Upper);
    /// The same, unsigned.
    UPPER_UNSIGNED_4: [f32; 16] = thresholds(&UNSIGNED_4, Tie::Upper);
}

/// Writes the numbers that codes stand for, times a scale.
#[inline(always)]
pub(crate) fn decode(table: &Table, codes: &[u8], scale: f32, values: &mut [f32]) {
    if cfg!(any(target_os = "none", target_arch = "nvptx64")) {
        for (x, &code) in values.iter_mut().zip(codes) {
            *x = table.numbers[usize::from(code)] * scale;
        }
        return;
    }
    table.gather_scaled(codes, scale, values);
}

/// How many of these numbers x has reached: its code. 0 for NaN.
#[inline(always)]
pub(crate) fn code_by_thresholds(least: &[f32; 16], x: f32) -> u8 {
    let mut code = 0;
    for &least in least {
        code += u32::from(x >= least);
    }
    code as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_is_in_order_and_holds_zero_and_one() {
        for map in [&SIGNED_8, &UNSIGNED_8] {
            assert!(map.is_sorted() && map.windows(2).all(|w| w[0] < w[1]));
            assert!(map.contains(&0.0) && map[255] == 1.0);
        }
        assert!(SIGNED_4.is_sorted() && SIGNED_4[15] == 1.0 && SIGNED_4[7] == 0.0);
        // One number in the lowest decade, the mean of 0.1 and 1, times 1e-6.
        assert_eq!(SIGNED_8[128], 0.55 * 1e-6);
        assert_eq!(SIGNED_8[126], -SIGNED_8[128]);
    }

    #[test]
    fn nearest_finds_every_number_itself_and_breaks_ties_as_told() {
        for (k, &x) in SIGNED_8.iter().enumerate() {
            assert_eq!(usize::from(nearest(&SIGNED_8, Tie::Lower, x)), k);
        }
        assert_eq!(nearest(&UNSIGNED_4, Tie::Upper, 1.5 / 16.0), 1);
        assert_eq!(nearest(&UNSIGNED_4, Tie::Lower, 1.5 / 16.0), 0);
        assert_eq!(nearest(&UNSIGNED_4, Tie::Upper, 0.0), 0);
        assert_eq!(nearest(&UNSIGNED_4, Tie::Upper, 2.0), 15);
        assert_eq!(nearest(&SIGNED_8, Tie::Upper, f32::NAN), 0);
    }

    /// Compares a table with the definition.
    fn check<const SIGNED: bool>(table: &NearestCode<SIGNED>, x: f32) {
        let mut code = [0];
        table.encode(&[x], &mut code, |x| x);
        assert_eq!(code[0], nearest(table.map, table.tie, x), "{x:e}, {SIGNED}");
    }

    /// Compares the quick ways with the definition at these bits.
    fn compare(bits: u32) {
        let x = f32::from_bits(bits);
        check(&LOWER_SIGNED, x);
        check(&LOWER_UNSIGNED, x);
        check(&UPPER_SIGNED, x);
        check(&UPPER_UNSIGNED, x);
        for (least, map) in [(&UPPER_SIGNED_4, &SIGNED_4), (&UPPER_UNSIGNED_4, &UNSIGNED_4)] {
            assert_eq!(code_by_thresholds(least, x), nearest(map, Tie::Upper, x), "{x:e}");
        }
    }

    #[test]
    fn tables_give_the_nearest_code() {
        // The sample in parts, each on its thread.
        std::thread::scope(|scope| {
            for part in 0..8 {
                scope.spawn(move || {
                    (part * 4001..=u32::MAX).step_by(8 * 4001).for_each(compare);
                });
            }
        });
        // Where codes and cells begin.
        for (map, tie) in
            [&SIGNED_8, &UNSIGNED_8].into_iter().flat_map(|m| [(m, Tie::Lower), (m, Tie::Upper)])
        {
            for x in thresholds(map, tie).into_iter().chain(*map) {
                for bits in x.to_bits().saturating_sub(3)..=x.to_bits().saturating_add(3) {
                    compare(bits);
                }
            }
        }
        std::thread::scope(|scope| {
            for rest in [0, 1, 0xfffe, 0xffff] {
                scope.spawn(move || {
                    (0..=u16::MAX).for_each(|cell| compare(u32::from(cell) << 16 | rest));
                });
            }
        });
    }

    /// FNV-1a of the maps that bitsandbytes 0.50.2 and torchao 0.18.0 make: `create_dynamic_map(signed)`, and
    /// torchao's `create_dynamic_map(True, 3, 4)`.
    #[test]
    fn maps_are_the_references_to_the_last_bit() {
        let hash = |map: &[f32]| {
            let bytes = map.iter().flat_map(|x| x.to_le_bytes());
            bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        assert_eq!(hash(&SIGNED_8), 0xd677_f22a_9666_5bc4);
        assert_eq!(hash(&UNSIGNED_8), 0x4381_1b16_730a_873e);
        assert_eq!(hash(&SIGNED_4), 0x7a27_e9a5_b127_a494);
        let sixteenths: [f32; 16] = core::array::from_fn(|k| (k + 1) as f32 / 16.0);
        assert_eq!(UNSIGNED_4, sixteenths);
    }

    #[test]
    fn order_of_the_bits_is_the_order_of_the_numbers() {
        let numbers = [f32::NEG_INFINITY, -2.0, -1e-45, -0.0, 0.0, 1e-45, 2.0, f32::INFINITY];
        assert!(numbers.map(ordered).is_sorted_by(|a, b| a < b));
        assert!(numbers.iter().all(|&x| from_ordered(ordered(x)).to_bits() == x.to_bits()));
        assert_eq!((ordered(-0.0), ordered(0.0)), (0x7fff_ffff, 0x8000_0000));
    }
}
