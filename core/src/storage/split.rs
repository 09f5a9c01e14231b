//! 16-bit floats with 8 or 16 correction bits, which hold the rounding error.

use half::{bf16, f16};

use crate::arch::simd::{self, Kernel};
use crate::error::{Error, ensure_len};
use crate::float::{ComputeFloat, StoredFloat};
use crate::storage::{Storage, floor};

/// A 16-bit float that can carry correction bits.
pub trait HalfPrecision: StoredFloat {
    /// Bits of the mantissa, without the implicit one.
    const MANTISSA: i32;
    /// The bias of the exponent.
    const BIAS: i32;
    /// The bits of the float.
    fn bits(self) -> u16;
}

impl HalfPrecision for bf16 {
    const MANTISSA: i32 = 7;
    const BIAS: i32 = 127;
    #[inline(always)]
    fn bits(self) -> u16 {
        self.to_bits()
    }
}

impl HalfPrecision for f16 {
    const MANTISSA: i32 = 10;
    const BIAS: i32 = 15;
    #[inline(always)]
    fn bits(self) -> u16 {
        self.to_bits()
    }
}

/// A signed integer of correction bits.
pub trait CorrectionInt: Copy + Default + Send + Sync {
    /// The largest value; its negative is the smallest in use.
    const MAX: f32;
    /// Converts exactly.
    fn to_f32(self) -> f32;
    /// Converts a value from −MAX to MAX.
    fn from_i32(x: i32) -> Self;
}

impl CorrectionInt for i8 {
    const MAX: f32 = 127.0;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn from_i32(x: i32) -> Self {
        x as i8
    }
}

impl CorrectionInt for i16 {
    const MAX: f32 = 32767.0;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn from_i32(x: i32) -> Self {
        x as i16
    }
}

/// FlashOptim's master weights: 16-bit floats with a correction.
///
/// A weight is `narrow + correction / MAX · s`, where s is half an ulp of `narrow`, the largest rounding error. Storing
/// rounds to the 16-bit type, and the rounding error to a multiple of s / MAX, halves away from zero. A NaN or infinity
/// gets the correction −MAX, which does not change it.
pub struct SplitFloat<'a, N: HalfPrecision, E: CorrectionInt> {
    narrow: &'a mut [N],
    error: &'a mut [E],
}

impl<'a, N: HalfPrecision, E: CorrectionInt> SplitFloat<'a, N, E> {
    /// 16-bit floats with their corrections, which start as 0 for values that are exact.
    ///
    /// # Errors
    /// Slices of different lengths.
    ///
    /// ```
    /// use bitstep::storage::{SplitFloat, Storage};
    /// let (mut weights, mut bits) = ([half::bf16::ONE], [0i8]);
    /// let mut master = SplitFloat::new(&mut weights, &mut bits)?;
    /// master.store(0, &[1.003]); // bf16 has nothing between 1 and 1.0078125
    /// let mut back = [0.0];
    /// master.load(0, &mut back);
    /// assert!((back[0] - 1.003).abs() < 0.0000155);
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    pub fn new(narrow: &'a mut [N], error: &'a mut [E]) -> Result<Self, Error> {
        ensure_len("error_bits", error.len(), narrow.len())?;
        Ok(SplitFloat { narrow, error })
    }
}

impl<N: HalfPrecision, E: CorrectionInt> Storage for SplitFloat<'_, N, E> {
    fn len(&self) -> usize {
        self.narrow.len()
    }
    fn block(&self) -> usize {
        1
    }
    fn load(&self, start: usize, values: &mut [f32]) {
        load(self.narrow, self.error, start, values);
    }
    fn store(&mut self, start: usize, values: &[f32]) {
        store(self.narrow, self.error, start, values);
    }
    fn zero(&mut self) {
        self.narrow.fill(N::default());
        self.error.fill(E::default());
    }
}

pub(crate) fn load<N: HalfPrecision, E: CorrectionInt>(
    narrow: &[N],
    error: &[E],
    start: usize,
    values: &mut [f32],
) {
    let narrow = narrow.get(start..).unwrap_or_default();
    let error = error.get(start..).unwrap_or_default();
    simd::dispatch(Load { narrow, error, values });
}

pub(crate) fn store<N: HalfPrecision, E: CorrectionInt>(
    narrow: &mut [N],
    error: &mut [E],
    start: usize,
    values: &[f32],
) {
    let narrow = narrow.get_mut(start..).unwrap_or_default();
    let error = error.get_mut(start..).unwrap_or_default();
    simd::dispatch(Store { narrow, error, values });
}

/// log₂ of half an ulp of `x`; subnormals have that of the smallest normal number.
#[inline(always)]
fn log_scale<N: HalfPrecision>(x: N) -> i32 {
    let exponent = i32::from((x.bits() & 0x7fff) >> N::MANTISSA);
    (if exponent == 0 { 1 } else { exponent }) - N::BIAS - N::MANTISSA - 1
}

/// 2^e for a normal exponent.
#[inline(always)]
const fn exp2(e: i32) -> f32 {
    f32::from_bits(((e + 127) as u32) << 23)
}

/// x · 2^e, as a product with two powers of two, both of which are normal numbers.
#[inline(always)]
fn scale(x: f32, e: i32) -> f32 {
    let half = e >> 1;
    x * exp2(half) * exp2(e - half)
}

#[inline(always)]
fn join<N: HalfPrecision, E: CorrectionInt>(narrow: N, error: E) -> f32 {
    narrow.to_f32() + scale(error.to_f32() / E::MAX, log_scale(narrow))
}

#[inline(always)]
fn correction<N: HalfPrecision, E: CorrectionInt>(x: f32, narrow: N) -> E {
    let e = scale(x - narrow.to_f32(), -log_scale(narrow));
    let e = if e > -1.0 { e } else { -1.0 }; // NaN too
    let e = if e < 1.0 { e } else { 1.0 } * E::MAX;
    let rounded = floor(ComputeFloat::abs(e) + 0.5);
    E::from_i32(if e < 0.0 { -rounded } else { rounded })
}

struct Load<'a, N, E> {
    narrow: &'a [N],
    error: &'a [E],
    values: &'a mut [f32],
}

impl<N: HalfPrecision, E: CorrectionInt> Kernel for Load<'_, N, E> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((x, &narrow), &error) in self.values.iter_mut().zip(self.narrow).zip(self.error) {
            *x = join(narrow, error);
        }
    }
}

struct Store<'a, N, E> {
    narrow: &'a mut [N],
    error: &'a mut [E],
    values: &'a [f32],
}

impl<N: HalfPrecision, E: CorrectionInt> Kernel for Store<'_, N, E> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((&x, narrow), error) in self.values.iter().zip(self.narrow).zip(self.error) {
            *narrow = N::from_f32(x);
            *error = correction(x, *narrow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correction_hand_worked_is_in_half_gaps() {
        // At 1 bf16 has gaps of 2⁻⁷, so s = 2⁻⁸; 2⁻⁹ above 1 is half of it: 63.5 goes away from zero.
        let x = 1.0 + 1.0 / 512.0;
        assert_eq!(correction::<bf16, i8>(x, bf16::ONE), 64);
        assert_eq!(correction::<bf16, i8>(1.0 - 1.0 / 1024.0, bf16::ONE), -32); // 31.75
        assert_eq!(correction::<bf16, i16>(x, bf16::ONE), 16384);
        assert_eq!(join(bf16::ONE, 127i8), 1.0 + 1.0 / 256.0);
    }

    #[test]
    fn correction_of_the_unrepresentable_is_the_smallest() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(correction::<bf16, i8>(x, <bf16 as StoredFloat>::from_f32(x)), -127);
        }
        assert_eq!(join(bf16::INFINITY, -127i8), f32::INFINITY);
        assert!(join(bf16::NAN, -127i8).is_nan());
    }

    #[test]
    fn round_trip_of_any_number_errs_by_the_stated_bound() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            let n = <bf16 as StoredFloat>::from_f32(x);
            if !x.is_finite() || !StoredFloat::to_f32(n).is_finite() {
                continue;
            }
            let gap = scale(2.0, log_scale(n));
            let error = |y: f32| (f64::from(y) - f64::from(x)).abs() / f64::from(gap);
            let tiny = f64::from(f32::from_bits(1)) / f64::from(gap);
            let last = f64::from(ComputeFloat::abs(x)) * 1.2e-7 / f64::from(gap);
            assert!(
                error(join(n, correction::<bf16, i8>(x, n))) <= 1.0 / 508.0 + tiny + last,
                "{x:e}"
            );
            assert!(
                error(join(n, correction::<bf16, i16>(x, n))) <= 1.0 / 131_068.0 + tiny + last,
                "{x:e}"
            );
        }
    }
}
