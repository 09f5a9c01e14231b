use super::Decay;
#[cfg(feature = "alloc")]
use crate::hyper::Value;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::schedule::ScheduleFloat;
#[cfg(feature = "alloc")]
use crate::schedule::arguments;

/// Constant between boundaries.
///
/// # Formula
/// The value that belongs to the first boundary b with t ≤ b; the last value if t is beyond the last boundary.
/// Boundaries are truncated to whole steps, as in the reference.
///
/// # Source
/// `tf.keras.optimizers.schedules.PiecewiseConstantDecay`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PiecewiseConstantDecay<B, V> {
    /// The last step of each value but the last one.
    pub boundaries: B,
    /// The rates: one more than boundaries.
    pub values: V,
}

#[cfg(feature = "alloc")]
pub(super) const MAKE: super::Make = |entry, mut args, _| {
    let mut numbers = |argument| {
        let (of, expected) = (entry.class, "a list of numbers");
        arguments::take_list(of, argument, &mut args, expected, Value::as_f64)
    };
    let (boundaries, values) = (numbers("boundaries")?, numbers("values")?);
    let (got, expected) = (values.len(), boundaries.len().saturating_add(1));
    if got != expected {
        return Err(crate::Error::LengthMismatch { argument: "values", got, expected }.into());
    }
    entry.parse(PiecewiseConstantDecay { boundaries, values }, &args)
};

impl<B, V> HyperParams for PiecewiseConstantDecay<B, V> {
    /// All arguments but `boundaries` and `values`, which are set before.
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.ignored("name");
    }
}

impl<F: ScheduleFloat, B: AsRef<[f64]>, V: AsRef<[f64]>> Decay<F> for PiecewiseConstantDecay<B, V> {
    /// NaN if there are too few values.
    fn rate(&self, step: u64) -> F {
        let (boundaries, values) = (self.boundaries.as_ref(), self.values.as_ref());
        let value = |i: usize| F::of(values.get(i).copied().unwrap_or(f64::NAN));
        let within = |&b: &f64| step as f64 <= libm::trunc(b);
        match (boundaries.first(), boundaries.last()) {
            (Some(first), _) if within(first) => value(0),
            (_, Some(last)) if within(last) => {
                let next = boundaries.iter().position(within);
                value(next.unwrap_or(0))
            }
            _ => value(values.len().saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decay::rate;
    use super::*;

    #[test]
    fn rate_changes_after_each_boundary() {
        let s = PiecewiseConstantDecay { boundaries: [2.0, 4.0], values: [1.0, 0.5, 0.25] };
        // up to and with 2, up to and with 4, and after
        let want = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25];
        assert_eq!([0, 2, 3, 4, 5, 100].map(|t| rate(&s, t)), want);
    }

    #[test]
    fn boundary_is_cut_to_a_whole_step() {
        let s = PiecewiseConstantDecay { boundaries: [2.7], values: [1.0, 0.5] };
        assert_eq!([2, 3].map(|t| rate(&s, t)), [1.0, 0.5]);
    }

    #[test]
    fn rate_without_boundaries_is_the_only_value() {
        let s = PiecewiseConstantDecay { boundaries: [0.0; 0], values: [0.5] };
        assert_eq!(rate(&s, 7), 0.5);
    }

    #[test]
    fn rate_without_its_value_is_nan() {
        let s = PiecewiseConstantDecay { boundaries: [2.0], values: [0.0; 0] };
        assert!(rate(&s, 0).is_nan() && rate(&s, 3).is_nan());
    }
}
