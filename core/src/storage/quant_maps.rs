//! Dynamic quantization maps: the values in [−1, 1] that codes stand for.
//!
//! Decade d of D covers [10^(d−D), 10^(d−D+1)] with the midpoints of 2ᵈ (signed) or 2ᵈ⁺¹ (unsigned) equal parts, so that
//! each decade has twice as many values as the one below it. With 0 and 1, and in a signed map the negatives, that makes
//! 2^bits values in ascending order. Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022;
//! `bitsandbytes.functional.create_dynamic_map` and torchao's copy of it.
//!
//! Encoding is defined by [`nearest`], a binary search. [`NearestCode`] computes the same codes without a search.

use crate::arch::gather::Table;

/// `torch.linspace(0.1, 1, n)[k]`: computed from the nearer end with a fused multiply-add, rounded once.
const fn linspace(n: usize, k: usize) -> f32 {
    let (start, end) = (0.1f32, 1.0f32);
    let step = (end - start) / (n - 1) as f32;
    // The product is exact in f64.
    if k < n / 2 {
        (start as f64 + step as f64 * k as f64) as f32
    } else {
        (end as f64 - step as f64 * (n - 1 - k) as f64) as f32
    }
}

/// The map of N codes with this number of decades.
const fn dynamic<const N: usize>(signed: bool, decades: usize) -> [f32; N] {
    const TENS: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut map = [0.0f32; N];
    let mut at = if signed { N / 2 - 1 } else { 0 }; // the index of 0
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
/// Not a dynamic map: the sixteenths from 1/16 to 1.
pub(crate) const UNSIGNED_4: [f32; 16] = {
    let mut map = [0.0; 16];
    let mut k = 0;
    while k < 16 {
        map[k] = (k + 1) as f32 / 16.0;
        k += 1;
    }
    map
};

/// Which of two equally near codes a value gets.
#[derive(Clone, Copy)]
pub(crate) enum Tie {
    /// The lower, as in bitsandbytes: up if `high − x < x − low`.
    Lower,
    /// The upper, as in torchao: up if `x − low ≥ (high − low) / 2`.
    Upper,
}

/// Whether x, between two neighbours of a map, gets the code of the upper one. Monotone in x, because rounded
/// differences are: [`thresholds`] relies on it.
#[inline(always)]
const fn is_up(tie: Tie, low: f32, high: f32, x: f32) -> bool {
    match tie {
        Tie::Lower => high - x < x - low,
        Tie::Upper => x - low >= (high - low) * 0.5,
    }
}

/// The code of the value nearest to x; 0 for NaN. N is a power of two. The definition of the encoding: a binary search
/// with a fixed number of branchless steps.
#[cfg_attr(target_arch = "nvptx64", allow(dead_code, reason = "the fast encoding is used"))]
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

/// Maps the bits of a float to an integer so that integers are ordered as floats are, −0 below +0.
const fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

const fn from_ordered(o: u32) -> f32 {
    f32::from_bits(if o >> 31 == 1 { o & !(1 << 31) } else { !o })
}

/// The smallest floats that get code 1, 2, … of a map, found by bisection over the bits: N − 1 of them.
const fn thresholds<const N: usize>(map: &[f32; N], tie: Tie) -> [f32; N] {
    let mut thresholds = [f32::NAN; N]; // the last one stays NaN: no x is ≥ it
    let mut code = 0;
    while code + 1 < N {
        let (mut below, mut at_or_above) = (ordered(map[code]), ordered(map[code + 1]));
        while at_or_above - below > 1 {
            let middle = below + (at_or_above - below) / 2;
            if is_up(tie, map[code], map[code + 1], from_ordered(middle)) {
                at_or_above = middle;
            } else {
                below = middle;
            }
        }
        thresholds[code] = from_ordered(at_or_above);
        code += 1;
    }
    thresholds
}

/// The number of values that go through each of several loops at a time.
pub(crate) const BATCH: usize = 256;

/// Finds the codes of a 256-entry map without a search: a guess from the magnitude, and one table look-up to correct it.
///
/// In a decade that starts at s and has n parts, parts are 9s/n wide and their midpoints get consecutive codes. So the
/// code of x, counted from that of 0, is ⌊L(x)⌋ with the line L(x) = `first` + (x − s) · n / 9s, where `first` is the
/// decade's first code. From one decade to the next the slope n / 9s falls to a fifth, so that at every x the minimum of
/// all lines is that of x's own decade.
///
/// Between two decades the last and the first midpoint are half a lower and half an upper part from the border; the
/// middle between them, where the code changes, is therefore one lower part, a fifth of an upper one, above the border.
/// There L is 0.2 too high. So ⌊L(x) − δ⌋, with 0.2 ≤ δ < 1, is the code or the one before it, at the borders too; the
/// table of [`thresholds`] tells which.
pub(crate) struct NearestCode<const SIGNED: bool> {
    #[cfg(not(target_arch = "nvptx64"))]
    map: &'static [f32; 256],
    #[cfg(not(target_arch = "nvptx64"))]
    tie: Tie,
    /// For each code, the smallest float with the next code.
    thresholds: Table,
}

/// In [2²², 2²³) neighbouring floats are ½ apart: a sum in that range is rounded to halves, and its bits count them.
const HALVES: f32 = 6_291_456.0;

/// The line L of a decade, less δ and plus [`HALVES`]: codes, counted from that of 0, over magnitudes.
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
        start /= 10.0;
        let parts = if signed { 1 << decade } else { 2 << decade };
        let first = if signed { parts } else { parts - 1 } as f64;
        let slope = parts as f64 / (9.0 * start);
        // The sum L - δ is rounded to halves, by up to 0.25. With δ ≥ 0.22 + 0.25, L < code + 1.2 gives at most
        // code + ½; `at_zero` is rounded down to halves, so δ < 0.97, and L ≥ code gives at least code - 1.
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
        NearestCode {
            #[cfg(not(target_arch = "nvptx64"))]
            map,
            #[cfg(not(target_arch = "nvptx64"))]
            tie,
            thresholds: Table::new(thresholds(map, tie)),
        }
    }

    /// The code of x or the one before it; any code for NaN.
    #[inline(always)]
    fn guess(x: f32) -> u8 {
        let negative = x.to_bits() as i32 >> 31; // all ones, or none
        let magnitude = f32::from_bits((x.to_bits() & 0x7fff_ffff).min(1f32.to_bits()));
        // As integers, whose minimum is cheaper: all lines are positive. An array's `map` would be a call for each line
        // where the compiler does not inline it, as in WebAssembly.
        let height =
            |k: usize| (magnitude * Self::LINES[k].slope + Self::LINES[k].at_zero).to_bits();
        let lowest = height(0)
            .min(height(1))
            .min(height(2).min(height(3)))
            .min(height(4).min(height(5)).min(height(6)));
        let place = (lowest - HALVES.to_bits()) as i32 >> 1;
        let code = if SIGNED { 127 + (place ^ negative) } else { place & !negative };
        code.max(0) as u8
    }

    /// The code nearest to x; 0 for NaN.
    #[inline(always)]
    pub(crate) fn code(&self, x: f32) -> u8 {
        let guess = Self::guess(x);
        let nearest = guess + u8::from(x >= self.thresholds.values[usize::from(guess)]);
        if x.is_nan() { 0 } else { nearest }
    }

    /// Writes the codes nearest to `f` of each value; 0 for NaN.
    #[inline(always)]
    pub(crate) fn encode(&self, values: &[f32], codes: &mut [u8], f: impl Fn(f32) -> f32) {
        // Without vector units batches gain nothing.
        if cfg!(target_arch = "nvptx64") {
            for (code, &x) in codes.iter_mut().zip(values) {
                *code = self.code(f(x));
            }
            return;
        }
        #[cfg(not(target_arch = "nvptx64"))]
        if cfg!(target_os = "none") {
            for (code, &x) in codes.iter_mut().zip(values) {
                *code = nearest(self.map, self.tie, f(x));
            }
            return;
        }
        let (mut xs, mut guesses, mut thresholds) = ([0.0; BATCH], [0; BATCH], [0.0; BATCH]);
        for (values, codes) in values.chunks(BATCH).zip(codes.chunks_mut(BATCH)) {
            // Separate loops, each of which is vectorised.
            for (x, &value) in xs.iter_mut().zip(values) {
                *x = f(value);
            }
            for (guess, &x) in guesses.iter_mut().zip(&xs) {
                *guess = Self::guess(x);
            }
            self.thresholds.gather_scaled(&guesses, 1.0, &mut thresholds);
            for (((code, x), guess), threshold) in
                codes.iter_mut().zip(&xs).zip(&guesses).zip(&thresholds)
            {
                let nearest = guess + u8::from(x >= threshold);
                *code = if x.is_nan() { 0 } else { nearest };
            }
        }
    }
}

/// Tables as statics, which exist once in memory; on a GPU as constants, because its kernels can't refer to them.
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
    /// Values of signed 8-bit codes.
    EIGHT_SIGNED: Table = Table::new(SIGNED_8);
    /// Values of unsigned 8-bit codes.
    EIGHT_UNSIGNED: Table = Table::new(UNSIGNED_8);
    /// Values of signed 4-bit codes, repeated.
    FOUR_SIGNED: Table = Table::new(repeated(&SIGNED_4));
    /// Values of unsigned 4-bit codes, repeated.
    FOUR_UNSIGNED: Table = Table::new(repeated(&UNSIGNED_4));

    /// bitsandbytes' codes, signed.
    BNB_SIGNED: NearestCode<true> = NearestCode::new(&SIGNED_8, Tie::Lower);
    /// bitsandbytes' codes, unsigned.
    BNB_UNSIGNED: NearestCode<false> = NearestCode::new(&UNSIGNED_8, Tie::Lower);
    /// torchao's codes, signed.
    TORCHAO_SIGNED: NearestCode<true> = NearestCode::new(&SIGNED_8, Tie::Upper);
    /// torchao's codes, unsigned.
    TORCHAO_UNSIGNED: NearestCode<false> = NearestCode::new(&UNSIGNED_8, Tie::Upper);

    /// torchao's signed 4-bit codes: the smallest floats that get code 1, 2, …
    TORCHAO_SIGNED_4: [f32; 16] = thresholds(&SIGNED_4, Tie::Upper);
    /// torchao's unsigned 4-bit codes: the smallest floats that get code 1, 2, …
    TORCHAO_UNSIGNED_4: [f32; 16] = thresholds(&UNSIGNED_4, Tie::Upper);
}

/// Writes the values of codes, times a scale.
#[inline(always)]
pub(crate) fn decode(table: &Table, codes: &[u8], scale: f32, values: &mut [f32]) {
    if cfg!(any(target_os = "none", target_arch = "nvptx64")) {
        for (x, &code) in values.iter_mut().zip(codes) {
            *x = table.values[usize::from(code)] * scale;
        }
        return;
    }
    table.gather_scaled(codes, scale, values);
}

/// The code of x: the number of thresholds that are ≤ x. 0 for NaN.
#[inline(always)]
pub(crate) fn code_by_thresholds(thresholds: &[f32; 16], x: f32) -> u8 {
    let mut code = 0;
    for threshold in thresholds {
        code += u32::from(x >= *threshold);
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
        // One value in the lowest decade: the mean of 0.1 and 1, times 1e-6.
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

    /// Compares a [`NearestCode`] with the definition.
    fn check<const SIGNED: bool>(table: &NearestCode<SIGNED>, x: f32) {
        let mut code = [0];
        table.encode(&[x], &mut code, |x| x);
        assert_eq!(code[0], nearest(table.map, table.tie, x), "{x:e}, {SIGNED}");
    }

    /// Compares all fast encodings with the definition, at the float of these bits.
    fn compare(bits: u32) {
        let x = f32::from_bits(bits);
        check(&BNB_SIGNED, x);
        check(&BNB_UNSIGNED, x);
        check(&TORCHAO_SIGNED, x);
        check(&TORCHAO_UNSIGNED, x);
        for (thresholds, map) in
            [(&TORCHAO_SIGNED_4, &SIGNED_4), (&TORCHAO_UNSIGNED_4, &UNSIGNED_4)]
        {
            assert_eq!(code_by_thresholds(thresholds, x), nearest(map, Tie::Upper, x), "{x:e}");
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
        // Around the thresholds, the map's values, and the borders of cells of 2¹⁶ floats.
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
