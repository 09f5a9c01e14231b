//! 16-bit numbers rounded up or down at random, without bias.

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::float::{ComputeFloat, StoredFloat};
use crate::math::random::counter_u64;
use crate::storage::{HalfPrecision, Storage};

/// Where the random bits come from.
#[derive(Clone, Copy, Debug)]
pub enum RoundingBits<'a> {
    /// A counter-based generator: the same bits for the same seed, step and
    /// element, on every backend and however the tensor is cut.
    Counter {
        /// One for each tensor.
        seed: u64,
        /// The number of the step.
        step: u64,
        /// The index of the first element, for a part of a tensor.
        first: u64,
    },
    /// 16 bits an element, drawn elsewhere.
    Provided(&'a [u16]),
}

impl RoundingBits<'_> {
    /// That of the elements from this one on.
    #[cfg(feature = "alloc")]
    pub(crate) fn from(self, element: usize) -> Self {
        match self {
            RoundingBits::Counter { seed, step, first } => {
                RoundingBits::Counter { seed, step, first: first.wrapping_add(element as u64) }
            }
            RoundingBits::Provided(bits) => {
                RoundingBits::Provided(bits.get(element..).unwrap_or_default())
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

/// A narrow type between whose neighbours a number can be rounded at random.
pub trait StochasticRound: HalfPrecision {
    /// Rounds away from zero if `noise` / 2¹⁶ is below the part that rounding
    /// towards zero would lose.
    fn round(x: f32, noise: u16) -> Self;
}

impl StochasticRound for bf16 {
    #[inline(always)]
    fn round(x: f32, noise: u16) -> bf16 {
        let bits = x.to_bits();
        let up = u32::from(u32::from(noise) < bits & 0xffff);
        let rounded = bf16::from_bits(((bits >> 16) + up) as u16);
        if x.is_nan() { bf16::NAN } else { rounded }
    }
}

impl StochasticRound for f16 {
    #[inline(always)]
    fn round(x: f32, noise: u16) -> f16 {
        // Nearest, then back towards zero if that went away from it.
        let magnitude = ComputeFloat::abs(x);
        let nearest = <f16 as StoredFloat>::from_f32(magnitude).to_bits();
        let over = StoredFloat::to_f32(f16::from_bits(nearest)) > magnitude;
        let low = if over { nearest - 1 } else { nearest };
        let (a, b) = (
            StoredFloat::to_f32(f16::from_bits(low)),
            StoredFloat::to_f32(f16::from_bits(low + 1)),
        );
        let lost = (magnitude - a) / (b - a) * 65536.0;
        let up = u16::from(f32::from(noise) < lost);
        let rounded = if x.is_nan() || magnitude > 65504.0 { nearest } else { low + up };
        f16::from_bits(rounded | (x.to_bits() >> 16) as u16 & 0x8000)
    }
}

/// Plain 16-bit numbers that are stored with stochastic rounding: an update
/// below half a gap is then not lost but made sometimes, as often as it should.
pub struct StochasticRounded<'a, N: StochasticRound> {
    values: &'a mut [N],
    noise: RoundingBits<'a>,
}

impl<'a, N: StochasticRound> StochasticRounded<'a, N> {
    /// Numbers with the noise of one step.
    ///
    /// ```
    /// use bitstep::storage::{StochasticRounded, RoundingBits, Storage};
    /// use half::bf16;
    /// let mut weights = [bf16::ONE; 1000];
    /// let noise = RoundingBits::Counter { seed: 1, step: 1, first: 0 };
    /// StochasticRounded::new(&mut weights, noise).store(0, &[1.001953125; 1000]); // a quarter of the gap
    /// let up = weights.iter().filter(|w| **w > bf16::ONE).count();
    /// assert!((200..300).contains(&up));
    /// ```
    pub fn new(values: &'a mut [N], noise: RoundingBits<'a>) -> Self {
        StochasticRounded { values, noise }
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
        simd::dispatch(Store { to, noise: self.noise, start, values });
    }
    fn zero(&mut self) {
        self.values.fill(N::default());
    }
}

struct Store<'a, N> {
    to: &'a mut [N],
    noise: RoundingBits<'a>,
    start: usize,
    values: &'a [f32],
}

impl<N: StochasticRound> Kernel for Store<'_, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for (i, (to, &x)) in self.to.iter_mut().zip(self.values).enumerate() {
            *to = N::round(x, self.noise.bits(self.start + i));
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
        for (noise, up) in [(0, true), (0x3fff, true), (0x4000, false), (0xffff, false)] {
            let want = if up { 1.0 + 1.0 / 128.0 } else { 1.0 };
            assert_eq!(<bf16 as StochasticRound>::round(x, noise).to_f32(), want);
            assert_eq!(<bf16 as StochasticRound>::round(-x, noise).to_f32(), -want);
            let want = if up { 1.0 + 1.0 / 1024.0 } else { 1.0 };
            assert_eq!(<f16 as StochasticRound>::round(1.0 + 1.0 / 4096.0, noise).to_f32(), want);
        }
    }

    #[test]
    fn round_of_what_is_representable_never_moves() {
        for bits in 0..=u16::MAX {
            for noise in [0, 0x8000, 0xffff] {
                let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
                let round = <bf16 as StochasticRound>::round(StoredFloat::to_f32(b), noise);
                assert!(round == b || round.is_nan() && b.is_nan());
                let round = <f16 as StochasticRound>::round(StoredFloat::to_f32(h), noise);
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
                let round =
                    |noise| <f16 as StochasticRound>::round(sign * (1.0 + part * gap), noise);
                assert_eq!(
                    (round(first_down - 1), round(first_down)),
                    (signed(above), signed(one))
                );
            }
        }
        // Where the nearest is infinite there is no choice.
        for noise in [0, 0xffff] {
            let round = |x| <f16 as StochasticRound>::round(x, noise);
            assert_eq!(
                (round(65504.0), round(65520.0), round(-1e9)),
                (f16::MAX, f16::INFINITY, f16::NEG_INFINITY)
            );
            assert!(round(f32::NAN).is_nan());
        }
    }
}
