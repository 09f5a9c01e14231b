//! Stochastic rounding: 16-bit floats rounded up or down at random, unbiased.

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::float::{ComputeFloat, StoredFloat};
use crate::math::random::counter_u64;
use crate::storage::{HalfPrecision, Storage};

/// The source of the rounding bits.
#[derive(Clone, Copy, Debug)]
pub enum RoundingBits<'a> {
    /// A counter-based generator: its bits depend on seed, step and element only, not on the backend nor on how the
    /// tensor is split.
    Counter {
        /// The seed; every tensor should have its own.
        seed: u64,
        /// The number of the step.
        step: u64,
        /// The index in the tensor of the first element: not 0 for a part of a tensor.
        first: u64,
    },
    /// 16 bits per element, drawn by the caller.
    Provided(&'a [u16]),
}

impl RoundingBits<'_> {
    /// The rounding bits without those of the first `count` elements.
    #[cfg(feature = "alloc")]
    pub(crate) fn skip(self, count: usize) -> Self {
        match self {
            RoundingBits::Counter { seed, step, first } => {
                RoundingBits::Counter { seed, step, first: first.wrapping_add(count as u64) }
            }
            RoundingBits::Provided(bits) => {
                RoundingBits::Provided(bits.get(count..).unwrap_or_default())
            }
        }
    }

    #[inline(always)]
    fn bits(&self, element: usize) -> u16 {
        match self {
            RoundingBits::Counter { seed, step, first } => {
                (counter_u64(*seed, *step, first.wrapping_add(element as u64)) >> 48) as u16
            }
            RoundingBits::Provided(bits) => bits.get(element).copied().unwrap_or(0),
        }
    }
}

/// A 16-bit type with stochastic rounding.
pub trait StochasticRound: HalfPrecision {
    /// Rounds away from zero if `rounding_bits` / 2¹⁶ is less than the fraction of an ulp that rounding towards zero
    /// would lose, else towards zero.
    fn round(x: f32, rounding_bits: u16) -> Self;
}

impl StochasticRound for bf16 {
    #[inline(always)]
    fn round(x: f32, rounding_bits: u16) -> bf16 {
        let bits = x.to_bits();
        let up = u32::from(u32::from(rounding_bits) < bits & 0xffff);
        let rounded = bf16::from_bits(((bits >> 16) + up) as u16);
        if x.is_nan() { bf16::NAN } else { rounded }
    }
}

impl StochasticRound for f16 {
    #[inline(always)]
    fn round(x: f32, rounding_bits: u16) -> f16 {
        // Towards zero: the nearest, or its lower neighbour if that is too large.
        let magnitude = ComputeFloat::abs(x);
        let nearest = <f16 as StoredFloat>::from_f32(magnitude).to_bits();
        let over = StoredFloat::to_f32(f16::from_bits(nearest)) > magnitude;
        let low = if over { nearest - 1 } else { nearest };
        let (a, b) = (
            StoredFloat::to_f32(f16::from_bits(low)),
            StoredFloat::to_f32(f16::from_bits(low + 1)),
        );
        let lost = (magnitude - a) / (b - a) * 65536.0;
        let up = u16::from(f32::from(rounding_bits) < lost);
        let rounded = if x.is_nan() || magnitude > 65504.0 { nearest } else { low + up };
        f16::from_bits(rounded | (x.to_bits() >> 16) as u16 & 0x8000)
    }
}

/// Plain 16-bit floats that are stored with stochastic rounding: an update of less than half an ulp is not always lost,
/// but made with a probability that is correct on average.
pub struct StochasticRounded<'a, N: StochasticRound> {
    values: &'a mut [N],
    rounding_bits: RoundingBits<'a>,
}

impl<'a, N: StochasticRound> StochasticRounded<'a, N> {
    /// 16-bit floats with the rounding bits of one step.
    ///
    /// ```
    /// use bitstep::storage::{StochasticRounded, RoundingBits, Storage};
    /// use half::bf16;
    /// let mut weights = [bf16::ONE; 1000];
    /// let rounding_bits = RoundingBits::Counter { seed: 1, step: 1, first: 0 };
    /// StochasticRounded::new(&mut weights, rounding_bits).store(0, &[1.001953125; 1000]); // 1 and a quarter of an ulp
    /// let up = weights.iter().filter(|w| **w > bf16::ONE).count();
    /// assert!((200..300).contains(&up));
    /// ```
    pub fn new(values: &'a mut [N], rounding_bits: RoundingBits<'a>) -> Self {
        StochasticRounded { values, rounding_bits }
    }
}

impl<N: StochasticRound> Storage for StochasticRounded<'_, N> {
    fn len(&self) -> usize {
        self.values.len()
    }
    fn block(&self) -> usize {
        1
    }
    fn load(&self, start: usize, values: &mut [f32]) {
        for (to, x) in values.iter_mut().zip(self.values.get(start..).unwrap_or_default()) {
            *to = x.to_f32();
        }
    }
    fn store(&mut self, start: usize, values: &[f32]) {
        let to = self.values.get_mut(start..).unwrap_or_default();
        simd::dispatch(Store { to, rounding_bits: self.rounding_bits, start, values });
    }
    fn zero(&mut self) {
        self.values.fill(N::default());
    }
}

struct Store<'a, N> {
    to: &'a mut [N],
    rounding_bits: RoundingBits<'a>,
    start: usize,
    values: &'a [f32],
}

impl<N: StochasticRound> Kernel for Store<'_, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (i, (to, &x)) in self.to.iter_mut().zip(self.values).enumerate() {
            *to = N::round(x, self.rounding_bits.bits(self.start + i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_goes_away_from_zero_below_the_lost_part() {
        // bf16: 1 + 2⁻⁹ lies a quarter of the way to the next: 0x4000 of 0x10000.
        let x = 1.0 + 1.0 / 512.0;
        for (rounding_bits, up) in [(0, true), (0x3fff, true), (0x4000, false), (0xffff, false)] {
            let want = if up { 1.0 + 1.0 / 128.0 } else { 1.0 };
            assert_eq!(<bf16 as StochasticRound>::round(x, rounding_bits).to_f32(), want);
            assert_eq!(<bf16 as StochasticRound>::round(-x, rounding_bits).to_f32(), -want);
            let want = if up { 1.0 + 1.0 / 1024.0 } else { 1.0 };
            assert_eq!(
                <f16 as StochasticRound>::round(1.0 + 1.0 / 4096.0, rounding_bits).to_f32(),
                want
            );
        }
    }

    #[test]
    fn round_of_what_is_representable_never_moves() {
        for bits in 0..=u16::MAX {
            for rounding_bits in [0, 0x8000, 0xffff] {
                let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
                let round = <bf16 as StochasticRound>::round(StoredFloat::to_f32(b), rounding_bits);
                assert!(round == b || round.is_nan() && b.is_nan());
                let round = <f16 as StochasticRound>::round(StoredFloat::to_f32(h), rounding_bits);
                assert!(round == h || round.is_nan() && h.is_nan(), "{bits:#x} {round}");
            }
        }
    }

    #[test]
    fn noise_is_each_elements_own() {
        let given = RoundingBits::Provided(&[5, 6]);
        assert_eq!([0, 1, 2].map(|i| given.bits(i)), [5, 6, 0]);
        let counter = |first| RoundingBits::Counter { seed: 1, step: 2, first };
        let bits = [0, 1, 2, 3].map(|i| counter(0).bits(i));
        assert_eq!(
            bits,
            [
                counter_u64(1, 2, 0),
                counter_u64(1, 2, 1),
                counter_u64(1, 2, 2),
                counter_u64(1, 2, 3)
            ]
            .map(|r| (r >> 48) as u16)
        );
        assert_eq!(counter(2).bits(1), bits[3]);
    }

    #[test]
    fn round_of_f16_is_below_the_lost_part_on_both_sides_of_the_middle() {
        let gap = 1.0 / 1024.0;
        let (one, above) = (f16::ONE, f16::from_f32(1.0 + gap));
        for (part, first_down) in [(0.25, 0x4000u16), (0.75, 0xc000)] {
            for sign in [1.0, -1.0] {
                let signed = |x: f16| if sign < 0.0 { -x } else { x };
                let round = |rounding_bits| {
                    <f16 as StochasticRound>::round(sign * (1.0 + part * gap), rounding_bits)
                };
                assert_eq!(
                    (round(first_down - 1), round(first_down)),
                    (signed(above), signed(one))
                );
            }
        }
        // Beyond the largest finite value the result is the nearest.
        for rounding_bits in [0, 0xffff] {
            let round = |x| <f16 as StochasticRound>::round(x, rounding_bits);
            assert_eq!(
                (round(65504.0), round(65520.0), round(-1e9)),
                (f16::MAX, f16::INFINITY, f16::NEG_INFINITY)
            );
            assert!(round(f32::NAN).is_nan());
        }
    }
}
