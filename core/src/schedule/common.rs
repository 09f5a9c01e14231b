//! Helpers shared by the schedules: warm-up, progress, the cosine, values per group.

use super::ScheduleFloat;
use crate::Error;
use crate::error::ensure_range;

/// The linear warm-up of Transformers' schedules: the factor step / `num_warmup_steps`, or `None` once warm-up is over.
///
/// ```
/// use bitstep::schedule::{max, progress, warmup};
/// /// Linear warm-up, then linear decay, but not below a tenth.
/// fn factor(step: u64) -> f64 {
///     warmup(step, 2).unwrap_or_else(|| max(0.1, 1.0 - progress::<f64>(step, 2, 6)))
/// }
/// assert_eq!([0, 1, 2, 4, 6].map(factor), [0.0, 0.5, 1.0, 0.5, 0.1]);
/// ```
#[must_use]
pub fn warmup<F: ScheduleFloat>(step: u64, num_warmup_steps: u64) -> Option<F> {
    (step < num_warmup_steps).then(|| F::count(step) / F::count(num_warmup_steps))
}

/// (step − warmup) / max(1, training − warmup): 0 at the end of warm-up, 1 at the end of training, above 1 past it.
#[must_use]
pub fn progress<F: ScheduleFloat>(step: u64, num_warmup_steps: u64, num_training_steps: u64) -> F {
    let [step, warmup, training] = [step, num_warmup_steps, num_training_steps].map(F::count);
    (step - warmup) / max(F::ONE, training - warmup)
}

/// ½ (1 + cos(π · num_cycles · 2 · progress)), in the reference's order.
pub(super) fn cosine_wave<F: ScheduleFloat>(num_cycles: f64, progress: F) -> F {
    let [half, two, pi, cycles] = [0.5, 2.0, core::f64::consts::PI, num_cycles].map(F::of);
    half * (F::ONE + (pi * cycles * two * progress).cos())
}

/// Refuses an infinite `num_cycles`: Python's `math.cos` raises an error for infinity.
pub(super) fn check_cycles(num_cycles: f64) -> Result<(), Error> {
    ensure_range(!num_cycles.is_infinite(), "num_cycles", num_cycles, "-inf < num_cycles < inf")
}

/// Python's `max`: the first argument if either is NaN.
#[must_use]
pub fn max<F: ScheduleFloat>(a: F, b: F) -> F {
    if b > a { b } else { a }
}

/// Python's `min`: the first argument if either is NaN.
#[must_use]
pub fn min<F: ScheduleFloat>(a: F, b: F) -> F {
    if b < a { b } else { a }
}

/// One value for all groups, or a list with one for each, as the reference accepts.
pub trait PerGroup {
    /// The value for a group; `None` if the list is too short.
    fn at(&self, group: usize) -> Option<f64>;
    /// The length of the list; `None` for a single value, which fits any number of groups.
    fn count(&self) -> Option<usize>;
}

impl PerGroup for f64 {
    fn at(&self, _: usize) -> Option<f64> {
        Some(*self)
    }
    fn count(&self) -> Option<usize> {
        None
    }
}

impl PerGroup for [f64] {
    fn at(&self, group: usize) -> Option<f64> {
        self.get(group).copied()
    }
    fn count(&self) -> Option<usize> {
        Some(self.len())
    }
}

impl<const N: usize> PerGroup for [f64; N] {
    fn at(&self, group: usize) -> Option<f64> {
        self.get(group).copied()
    }
    fn count(&self) -> Option<usize> {
        Some(N)
    }
}

impl<T: PerGroup + ?Sized> PerGroup for &T {
    fn at(&self, group: usize) -> Option<f64> {
        (**self).at(group)
    }
    fn count(&self) -> Option<usize> {
        (**self).count()
    }
}

#[cfg(feature = "alloc")]
impl PerGroup for alloc::vec::Vec<f64> {
    fn at(&self, group: usize) -> Option<f64> {
        self.get(group).copied()
    }
    fn count(&self) -> Option<usize> {
        Some(self.len())
    }
}

/// Refuses a list whose length is not the number of groups.
pub(super) fn check_groups(
    argument: &'static str,
    values: &impl PerGroup,
    groups: usize,
) -> Result<(), Error> {
    match values.count() {
        Some(got) if got != groups => {
            Err(Error::LengthMismatch { argument, got, expected: groups })
        }
        _ => Ok(()),
    }
}

/// Equality up to the rounding of a few operations: relatively 4 · 2⁻⁵², which is 4 ULP just above a power of two.
#[cfg(test)]
pub(super) fn assert_near(got: f64, want: f64) {
    let bound = 4.0 * f64::EPSILON * want.abs();
    assert!((got - want).abs() <= bound, "{got:e}, wanted {want:e}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_ends_before_its_last_step() {
        assert_eq!([0, 3, 4].map(|t| warmup(t, 4)), [Some(0.0), Some(0.75), None]);
        assert_eq!(warmup::<f64>(0, 0), None);
    }

    #[test]
    fn progress_goes_on_past_the_end() {
        // (t − 2)/(10 − 2); a training shorter than warm-up lasts one step
        assert_eq!([2, 6, 10, 14].map(|t| progress::<f64>(t, 2, 10)), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(progress::<f64>(7, 5, 3), 2.0);
    }

    #[test]
    fn max_and_min_keep_the_first_of_a_nan() {
        assert_eq!([max(1.0, 2.0), min(1.0, 2.0)], [2.0, 1.0]);
        assert_eq!([max(1.0, f64::NAN), min(1.0, f64::NAN)], [1.0, 1.0]);
        assert!(max(f64::NAN, 1.0).is_nan() && min(f64::NAN, 1.0).is_nan());
    }

    #[test]
    fn values_fit_their_groups_or_are_refused() {
        let list = [0.1, 0.2];
        assert_eq!(
            [0.5.at(0), 0.5.at(9), list.at(1), list.at(2)],
            [Some(0.5), Some(0.5), Some(0.2), None]
        );
        assert_eq!(check_groups("min_lr", &0.5, 7), Ok(()));
        assert_eq!(check_groups("min_lr", &list, 2), Ok(()));
        let refused = Error::LengthMismatch { argument: "min_lr", got: 2, expected: 3 };
        assert_eq!(check_groups("min_lr", &&list[..], 3), Err(refused));
    }

    #[test]
    fn first_of_two_equal_numbers_is_the_larger_and_the_smaller() {
        // As in Python; visible where the zeros differ in sign.
        assert!(max(0.0_f64, -0.0).is_sign_positive() && max(-0.0_f64, 0.0).is_sign_negative());
        assert!(min(0.0_f64, -0.0).is_sign_positive() && min(-0.0_f64, 0.0).is_sign_negative());
        assert!(max(f64::NAN, 1.0).is_nan() && min(f64::NAN, 1.0).is_nan());
        assert_eq!((max(1.0, 2.0), min(1.0, 2.0)), (2.0, 1.0));
    }

    #[test]
    fn each_group_has_its_own_number_or_all_have_one() {
        fn at<P: PerGroup + ?Sized>(p: &P) -> ([Option<f64>; 3], Option<usize>) {
            ([0, 1, 2].map(|g| p.at(g)), p.count())
        }
        let own = ([Some(3.0), Some(5.0), None], Some(2));
        assert_eq!(at(&[3.0, 5.0]), own);
        assert_eq!(at(&[3.0, 5.0][..]), own);
        assert_eq!(at(&&[3.0, 5.0][..]), own);
        #[cfg(feature = "alloc")]
        assert_eq!(at(&alloc::vec![3.0, 5.0]), own);
        assert_eq!(at(&2.0), ([Some(2.0); 3], None));
    }
}
