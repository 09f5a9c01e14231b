//! Loss scaling for 16-bit training.

use crate::error::{Error, ensure_range};
use crate::float::EagerFloat;
use crate::float::{ComputeFloat, StoredFloat};
use crate::storage::{Data, DataMut};

/// One element of [`scale_in_place`]: g · c, rounded to `C`.
#[inline(always)]
pub fn scaled<C: ComputeFloat>(g: C, c: C::Scalar) -> C {
    g.mul_scalar(c)
}

/// g ← g · c, rounded once; c is rounded to `f32` first (not for `f64` gradients). An encoded
/// storage stays as it is.
#[inline]
pub fn scale_in_place(grad: &mut DataMut<'_>, c: f64) {
    fn go<T: EagerFloat>(x: &mut [T], c: f64) {
        let c = T::Compute::scalar(c);
        for g in x {
            *g = scaled(T::Compute::load(*g), c).store();
        }
    }
    match grad {
        DataMut::F64(x) => go(x, c),
        DataMut::F32(x) => go(x, c),
        DataMut::Bf16(x) => go(x, c),
        DataMut::F16(x) => go(x, c),
        DataMut::Encoded(_) => {}
    }
}

/// Whether all elements are finite.
#[inline]
#[must_use]
pub fn is_finite(grad: Data<'_>) -> bool {
    fn all<T: StoredFloat>(x: &[T]) -> bool {
        // 0 · x is zero for finite x, else NaN; without branches, so that the loop can vectorize.
        x.iter().fold(0.0f64, |sum, g| sum + g.to_f64() * 0.0) == 0.0
    }
    match grad {
        Data::F64(x) => all(x),
        Data::F32(x) => all(x),
        Data::Bf16(x) => all(x),
        Data::F16(x) => all(x),
    }
}

/// Dynamic loss scaling (`torch.amp.GradScaler`): the factor of the loss is halved
/// when a gradient is not finite, and that step is skipped; it is doubled after
/// `growth_interval` consecutive good steps.
///
/// ```
/// use bitstep::gradient::LossScale;
/// let mut scale = LossScale::DEFAULT;
/// let mut g = [f32::INFINITY];
/// let finite = scale.unscale(&mut [(&mut g).into()])?;
/// assert!(!finite); // skip the step
/// scale.update(finite);
/// assert_eq!(scale.scale, 32768.0);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// The current factor of the loss.
    pub scale: f64,
    /// The factor by which `scale` grows, > 1.
    pub growth_factor: f64,
    /// The factor by which `scale` shrinks, < 1.
    pub backoff_factor: f64,
    /// Consecutive good steps after which `scale` grows.
    pub growth_interval: u64,
    /// Good steps since `scale` last changed.
    pub good_steps: u64,
}

impl LossScale {
    /// The reference's defaults.
    pub const DEFAULT: Self = LossScale {
        scale: 65536.0,
        growth_factor: 2.0,
        backoff_factor: 0.5,
        growth_interval: 2000,
        good_steps: 0,
    };
}

impl Default for LossScale {
    #[inline]
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl LossScale {
    /// Checks the configuration against the reference's ranges.
    ///
    /// # Errors
    /// A growth factor of at most 1, a backoff factor of at least 1.
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        ensure_range(self.growth_factor > 1.0, "growth_factor", self.growth_factor, "> 1")?;
        ensure_range(self.backoff_factor < 1.0, "backoff_factor", self.backoff_factor, "< 1")
    }

    /// Divides all gradients by the scale (multiplies by its reciprocal, rounded
    /// to `f32`, as the reference does) and returns whether all were finite.
    ///
    /// # Errors
    /// An invalid configuration. Nothing is written then.
    #[inline]
    pub fn unscale(&self, grads: &mut [DataMut<'_>]) -> Result<bool, Error> {
        self.check()?;
        let reciprocal = (1.0 / self.scale) as f32;
        let mut finite = true;
        for g in grads {
            finite &= g.as_data().is_none_or(is_finite);
            scale_in_place(g, reciprocal.into());
        }
        Ok(finite)
    }

    /// Updates the scale after a good step (`finite`) or a skipped one.
    #[inline]
    pub const fn update(&mut self, finite: bool) {
        if !finite {
            self.scale *= self.backoff_factor;
            self.good_steps = 0;
            return;
        }
        self.good_steps += 1;
        if self.good_steps >= self.growth_interval {
            // The reference's scale is an f32 and does not grow if it would overflow.
            let grown = self.scale * self.growth_factor;
            if grown <= f32::MAX as f64 {
                self.scale = grown;
            }
            self.good_steps = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_grows_after_the_interval_and_not_before() {
        let mut s = LossScale { growth_interval: 2, ..LossScale::default() };
        s.update(true);
        assert_eq!(s.scale, 65536.0);
        s.update(true);
        assert_eq!((s.scale, s.good_steps), (131_072.0, 0));
        s.update(false);
        assert_eq!(s.scale, 65536.0);
    }

    #[test]
    fn finite_sees_every_kind_of_non_finite() {
        assert!(is_finite(Data::F32(&[0.0, -f32::MAX, 1e-45])));
        assert!(!is_finite(Data::F32(&[0.0, f32::NAN])));
        assert!(!is_finite(Data::F64(&[f64::NEG_INFINITY])));
        assert!(is_finite(Data::F64(&[])));
    }

    #[test]
    fn gradients_are_divided_by_the_scale_and_what_is_not_finite_is_told() {
        let s = LossScale { scale: 4.0, ..LossScale::default() };
        let (mut a, mut b) = ([2.0f32, -8.0], [12.0f64]);
        assert_eq!(s.unscale(&mut [DataMut::F32(&mut a), DataMut::F64(&mut b)]), Ok(true));
        assert_eq!((a, b), ([0.5, -2.0], [3.0]));
        let (mut a, mut b) = ([f32::INFINITY], [12.0f64]);
        assert_eq!(s.unscale(&mut [DataMut::F32(&mut a), DataMut::F64(&mut b)]), Ok(false));
        assert_eq!(b, [3.0]);
    }

    #[test]
    fn factors_that_do_not_move_the_scale_are_refused_and_nothing_is_written() {
        let fine = LossScale::default();
        assert_eq!(fine.check(), Ok(()));
        for (growth_factor, backoff_factor, argument) in
            [(1.0, 0.5, "growth_factor"), (0.5, 0.5, "growth_factor"), (2.0, 1.0, "backoff_factor")]
        {
            let s = LossScale { growth_factor, backoff_factor, ..fine };
            let got = s.check();
            assert!(
                matches!(got, Err(Error::OutOfRange { argument: a, .. }) if a == argument),
                "{got:?}"
            );
            let mut g = [3.0f32];
            assert!(s.unscale(&mut [DataMut::F32(&mut g)]).is_err() && g == [3.0]);
        }
    }

    #[test]
    fn scale_stays_where_it_is_rather_than_overflow_f32() {
        let mut s = LossScale { scale: 2f64.powi(127), growth_interval: 1, ..LossScale::default() };
        s.update(true);
        assert_eq!((s.scale, s.good_steps), (2f64.powi(127), 0));
        s.scale /= 2.0;
        s.update(true);
        assert_eq!(s.scale, 2f64.powi(127));
    }
}
