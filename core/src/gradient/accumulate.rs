//! Accumulation of micro-batch gradients.

use half::{bf16, f16};

use crate::error::{Error, ensure_len, ensure_range};
use crate::float::ComputeFloat;
use crate::float::EagerFloat;
use crate::storage::{Data, DataMut};

/// Accumulates the gradients of M micro-batches, a window, as their sum or mean.
///
/// ```text
/// sum:   a ← g₁,        a ← a + gₖ
/// mean:  a ← g₁ · (1/M), a ← a + gₖ · (1/M)
/// ```
/// Each operation rounds to the gradient's type. The mean multiplies by the
/// rounded 1/M instead of dividing, as the backward pass of a loss divided by M does.
/// In a shorter last window M stays the same, unless [`window`](Self::window) is called
/// with the actual number of micro-batches, as Trainer does.
///
/// ```
/// use bitstep::gradient::GradientAccumulator;
/// let mut mean = GradientAccumulator::mean(2)?;
/// let mut total = [0.0f32; 1];
/// for g in [[1.0f32], [4.0]] {
///     mean.add((&mut total).into(), (&g).into())?;
///     mean.advance();
/// }
/// assert!(mean.is_complete() && total == [2.5]);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientAccumulator {
    /// Micro-batches in a regular window.
    every: u64,
    /// Micro-batches in the current window.
    window: u64,
    seen: u64,
    mean: bool,
}

impl GradientAccumulator {
    /// The mean over windows of M micro-batches.
    ///
    /// # Errors
    /// M = 0.
    #[inline]
    pub fn mean(window: u64) -> Result<Self, Error> {
        Self::new(window, true)
    }

    /// The sum over windows of M micro-batches.
    ///
    /// # Errors
    /// M = 0.
    #[inline]
    pub fn sum(window: u64) -> Result<Self, Error> {
        Self::new(window, false)
    }

    #[inline]
    fn new(window: u64, mean: bool) -> Result<Self, Error> {
        let argument = "gradient_accumulation_steps";
        ensure_range(window > 0, argument, window as f64, ">= 1")?;
        Ok(GradientAccumulator { every: window, window, seen: 0, mean })
    }

    /// Sets the number of micro-batches of the window about to begin; the next one has the regular
    /// length again.
    ///
    /// # Errors
    /// 0, or a micro-batch of the window has been added already.
    #[inline]
    pub fn window(&mut self, window: u64) -> Result<(), Error> {
        let argument = "window";
        ensure_range(window > 0, argument, window as f64, ">= 1")?;
        if self.position() > 0 {
            return Err(Error::InvalidArgument { argument, expected: "no micro-batch added yet" });
        }
        self.window = window;
        self.seen = 0;
        Ok(())
    }

    /// Drops the micro-batches of an incomplete window: the next one begins a new window.
    #[inline]
    pub const fn restart(&mut self) {
        self.window = self.every;
        self.seen = 0;
    }

    /// The number of micro-batches in the current window; 0 if the next one begins a new window.
    #[inline]
    #[must_use]
    pub const fn position(&self) -> u64 {
        if self.is_complete() { 0 } else { self.seen }
    }

    /// The length of the window that the next micro-batch belongs to.
    #[inline]
    const fn length(&self) -> u64 {
        if self.is_complete() { self.every } else { self.window }
    }

    /// Whether the next micro-batch is a window by itself, so that no accumulation is needed.
    #[inline]
    #[must_use]
    pub const fn is_single(&self) -> bool {
        self.length() == 1
    }

    /// The factor of the next micro-batch's gradients: 1/M for the mean, 1 for the sum.
    #[inline]
    #[must_use]
    pub fn weight(&self) -> f64 {
        if self.mean { 1.0 / self.length() as f64 } else { 1.0 }
    }

    /// Adds one tensor's gradient of the current micro-batch; the first of a window replaces `total`.
    ///
    /// # Errors
    /// Different lengths or types. Nothing is written then.
    #[inline]
    pub fn add(&self, total: DataMut<'_>, grad: Data<'_>) -> Result<(), Error> {
        self.add_weighted(total, grad, self.weight())
    }

    /// [`add`](Self::add) with the caller's weight `factor`, such as the micro-batch's share of all labels.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    #[inline]
    pub fn add_weighted(
        &self,
        total: DataMut<'_>,
        grad: Data<'_>,
        factor: f64,
    ) -> Result<(), Error> {
        ensure_len("grad", grad.len(), total.len())?;
        let first = self.position() == 0;
        fn go<T: EagerFloat>(total: &mut [T], grad: &[T], first: bool, factor: f64) {
            let factor = T::Compute::scalar(factor);
            for (a, &g) in total.iter_mut().zip(grad) {
                let before = (!first).then(|| T::Compute::load(*a));
                *a = accumulated(before, T::Compute::load(g), factor).store();
            }
        }
        match (total, grad) {
            (DataMut::F64(a), Data::F64(g)) => go::<f64>(a, g, first, factor),
            (DataMut::F32(a), Data::F32(g)) => go::<f32>(a, g, first, factor),
            (DataMut::Bf16(a), Data::Bf16(g)) => go::<bf16>(a, g, first, factor),
            (DataMut::F16(a), Data::F16(g)) => go::<f16>(a, g, first, factor),
            _ => {
                return Err(Error::InvalidArgument {
                    argument: "grad",
                    expected: "the total's number type",
                });
            }
        }
        Ok(())
    }

    /// Ends a micro-batch, after [`add`](Self::add) of all its tensors.
    #[inline]
    pub const fn advance(&mut self) {
        if self.is_complete() {
            self.restart();
        }
        self.seen += 1;
    }

    /// Whether the window is complete: time for an optimizer step.
    #[inline]
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.seen >= self.window
    }
}

/// One element of a total: the sum so far, if there is one, and a gradient times its weight.
#[inline(always)]
pub fn accumulated<C: ComputeFloat>(total: Option<C>, g: C, weight: C::Scalar) -> C {
    let g = g.mul_scalar(weight);
    total.map_or(g, |total| total + g)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accumulation_second_window_starts_afresh() {
        let mut sum = GradientAccumulator::sum(2).unwrap();
        let mut total = [0.0f32];
        for g in [1.0f32, 2.0, 10.0] {
            sum.add(DataMut::F32(&mut total), Data::F32(&[g])).unwrap();
            sum.advance();
        }
        assert_eq!(total, [10.0]);
        assert!(!sum.is_complete());
    }

    #[test]
    fn accumulation_shorter_window_after_a_full_one_begins_anew() {
        let mut sum = GradientAccumulator::sum(4).unwrap();
        (0..4).for_each(|_| sum.advance());
        sum.window(3).unwrap();
        let mut total = [7.0f32];
        sum.add(DataMut::F32(&mut total), Data::F32(&[1.0])).unwrap();
        assert_eq!(total, [1.0]);
    }

    #[test]
    fn accumulation_window_after_a_shorter_one_is_as_long_as_ever() {
        let mut mean = GradientAccumulator::mean(4).unwrap();
        let mut seen = [b'.'; 14];
        for (micro_batch, seen) in seen.iter_mut().enumerate() {
            if micro_batch == 4 {
                mean.window(2).unwrap();
            }
            let weight = if (4..6).contains(&micro_batch) { 0.5 } else { 0.25 };
            assert_eq!(mean.weight(), weight, "{micro_batch}");
            let mut total = [0.0f64];
            mean.add(DataMut::F64(&mut total), Data::F64(&[1.0])).unwrap();
            assert_eq!(total, [weight]);
            mean.advance();
            if mean.is_complete() {
                *seen = b'S';
            }
        }
        assert_eq!(&seen, b"...S.S...S...S");
        mean.advance();
        assert_eq!(mean.position(), 1);
        mean.restart();
        assert_eq!((mean.position(), mean.is_complete()), (0, false));
    }

    #[test]
    fn accumulation_weights_of_the_caller_are_used_as_they_are() {
        let mut mean = GradientAccumulator::mean(2).unwrap();
        let mut total = [9.0f32];
        for (grad, weight) in [(3.0f32, 0.75), (5.0, 0.25)] {
            mean.add_weighted(DataMut::F32(&mut total), Data::F32(&[grad]), weight).unwrap();
            mean.advance();
        }
        assert_eq!(total, [3.5]);
    }

    #[test]
    fn accumulation_partial_window_uses_the_announced_number() {
        let mut mean = GradientAccumulator::mean(4).unwrap();
        mean.window(1).unwrap();
        assert!(mean.is_single());
        let mut total = [0.0f64];
        mean.add(DataMut::F64(&mut total), Data::F64(&[3.0])).unwrap();
        mean.advance();
        assert!(mean.is_complete() && total == [3.0]);
        assert!(GradientAccumulator::mean(0).is_err());
    }

    #[test]
    fn accumulation_mean_multiplies_by_the_rounded_reciprocal() {
        let mean = GradientAccumulator::mean(3).unwrap();
        let mut total = [0.0f32];
        mean.add(DataMut::F32(&mut total), Data::F32(&[5.0])).unwrap();
        assert_eq!(total[0], 5.0 * (1.0f32 / 3.0));
    }

    #[test]
    fn window_is_changed_between_windows_only() {
        let mut sum = GradientAccumulator::sum(2).unwrap();
        assert!(!sum.is_single());
        assert!(matches!(sum.window(0), Err(Error::OutOfRange { argument: "window", .. })));
        sum.advance();
        assert!(matches!(sum.window(3), Err(Error::InvalidArgument { argument: "window", .. })));
        sum.advance();
        assert_eq!(sum.window(3), Ok(()));
    }
}
