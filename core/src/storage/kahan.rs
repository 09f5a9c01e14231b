//! 16-bit values with a compensation: a second 16-bit value that holds the rounding error of the first.

use crate::arch::simd::{self, Kernel};
use crate::error::{Error, ensure_len};
use crate::float::{ComputeFloat, StoredFloat};
use crate::storage::Storage;

/// An unevaluated sum of two 16-bit floats, the second at most half an ulp of the first: Kahan's compensation as a
/// storage format.
///
/// Storing x keeps `value` = x rounded to nearest, and `compensation` = x − `value`, rounded; loading adds the two. In
/// `bf16` the pair holds 16 or more bits of mantissa. A compensation that is not finite is stored as 0.
pub struct KahanPair<'a, N: StoredFloat> {
    value: &'a mut [N],
    compensation: &'a mut [N],
}

impl<'a, N: StoredFloat> KahanPair<'a, N> {
    /// Values with their compensations, which start as 0 for values that are exact.
    ///
    /// # Errors
    /// Slices of different lengths.
    ///
    /// ```
    /// use bitstep::storage::{KahanPair, Storage};
    /// use half::bf16;
    /// let (mut weights, mut lost) = ([bf16::ONE], [bf16::ZERO]);
    /// let mut master = KahanPair::new(&mut weights, &mut lost)?;
    /// master.store(0, &[1.001953125]);
    /// let mut back = [0.0];
    /// master.load(0, &mut back);
    /// assert_eq!(back[0], 1.001953125);
    /// assert_eq!(weights[0], bf16::ONE);
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    pub fn new(value: &'a mut [N], compensation: &'a mut [N]) -> Result<Self, Error> {
        ensure_len("compensation", compensation.len(), value.len())?;
        Ok(KahanPair { value, compensation })
    }
}

impl<N: StoredFloat> Storage for KahanPair<'_, N> {
    fn len(&self) -> usize {
        self.value.len()
    }
    fn block(&self) -> usize {
        1
    }
    fn load(&self, start: usize, values: &mut [f32]) {
        load(self.value, self.compensation, start, values);
    }
    fn store(&mut self, start: usize, values: &[f32]) {
        store(self.value, self.compensation, start, values);
    }
    fn zero(&mut self) {
        self.value.fill(N::default());
        self.compensation.fill(N::default());
    }
}

pub(crate) fn load<N: StoredFloat>(
    value: &[N],
    compensation: &[N],
    start: usize,
    values: &mut [f32],
) {
    let value = value.get(start..).unwrap_or_default();
    let compensation = compensation.get(start..).unwrap_or_default();
    simd::dispatch(Load { value, compensation, values });
}

pub(crate) fn store<N: StoredFloat>(
    value: &mut [N],
    compensation: &mut [N],
    start: usize,
    values: &[f32],
) {
    let value = value.get_mut(start..).unwrap_or_default();
    let compensation = compensation.get_mut(start..).unwrap_or_default();
    simd::dispatch(Store { value, compensation, values });
}

struct Load<'a, N> {
    value: &'a [N],
    compensation: &'a [N],
    values: &'a mut [f32],
}

impl<N: StoredFloat> Kernel for Load<'_, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((x, v), c) in self.values.iter_mut().zip(self.value).zip(self.compensation) {
            *x = v.to_f32() + c.to_f32();
        }
    }
}

struct Store<'a, N> {
    value: &'a mut [N],
    compensation: &'a mut [N],
    values: &'a [f32],
}

impl<N: StoredFloat> Kernel for Store<'_, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for ((&x, v), c) in self.values.iter().zip(self.value).zip(self.compensation) {
            *v = N::from_f32(x);
            let lost = x - v.to_f32();
            *c = N::from_f32(if ComputeFloat::abs(lost) < f32::INFINITY { lost } else { 0.0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn round_trip<N: StoredFloat>(x: f32) -> f32 {
        let (mut v, mut c, mut back) = ([N::default()], [N::default()], [0.0]);
        store(&mut v, &mut c, 0, &[x]);
        load(&v, &c, 0, &mut back);
        back[0]
    }

    #[test]
    fn round_trip_of_a_sum_of_two_parts_is_exact() {
        let x = 1.0 + 1.0 / 512.0 + 1.0 / 65536.0;
        assert_eq!(round_trip::<bf16>(x), x);
        assert_eq!(round_trip::<f16>(x), x);
    }

    #[test]
    fn storage_has_as_many_numbers_as_its_slices_and_clears_both() {
        let (mut v, mut c) = ([bf16::ONE; 3], [bf16::ONE; 3]);
        assert!(KahanPair::new(&mut v, &mut c[..2]).is_err());
        let mut storage = KahanPair::new(&mut v, &mut c).unwrap();
        assert_eq!((storage.len(), storage.is_empty(), storage.block()), (3, false, 1));
        storage.zero();
        assert_eq!((v, c), ([bf16::ZERO; 3], [bf16::ZERO; 3]));
    }

    #[test]
    fn round_trip_of_the_non_finite_keeps_it() {
        assert_eq!(round_trip::<bf16>(f32::INFINITY), f32::INFINITY);
        assert!(round_trip::<f16>(f32::NAN).is_nan());
        assert_eq!(round_trip::<f16>(1e6), f32::INFINITY);
    }
}
