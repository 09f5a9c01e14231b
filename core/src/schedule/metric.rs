//! The comparison of metrics in [`ReduceLrOnPlateau`](super::ReduceLrOnPlateau) and [`GreedyLr`](super::GreedyLr).

/// Whether a low or a high metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricMode {
    /// Low is good: a loss.
    Min,
    /// High is good: an accuracy.
    Max,
}

/// The meaning of a [`threshold`](super::ReduceLrOnPlateau::threshold).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdMode {
    /// A fraction of the best value.
    Rel,
    /// A difference from the best value.
    Abs,
}

pub(super) const MODES: &[(&str, MetricMode)] =
    &[("min", MetricMode::Min), ("max", MetricMode::Max)];
pub(super) const THRESHOLD_MODES: &[(&str, ThresholdMode)] =
    &[("rel", ThresholdMode::Rel), ("abs", ThresholdMode::Abs)];

impl MetricMode {
    /// The initial best value, worse than any finite metric.
    pub(super) fn worst(self) -> f64 {
        match self {
            MetricMode::Min => f64::INFINITY,
            MetricMode::Max => f64::NEG_INFINITY,
        }
    }

    /// Whether `metric` is better than `best` by more than the threshold; NaN never is.
    pub(super) fn better(
        self,
        metric: f64,
        best: f64,
        threshold: f64,
        mode: ThresholdMode,
    ) -> bool {
        match (self, mode) {
            (MetricMode::Min, ThresholdMode::Rel) => metric < best * (1.0 - threshold),
            (MetricMode::Min, ThresholdMode::Abs) => metric < best - threshold,
            (MetricMode::Max, ThresholdMode::Rel) => metric > best * (1.0 + threshold),
            (MetricMode::Max, ThresholdMode::Abs) => metric > best + threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_by_more_than_the_threshold() {
        use MetricMode::{Max, Min};
        use ThresholdMode::{Abs, Rel};
        // The limits for best = 4 and the threshold ¼: 4 · (1 − ¼), 4 − ¼, 4 · (1 + ¼), 4 + ¼
        for (mode, of, limit) in
            [(Min, Rel, 3.0), (Min, Abs, 3.75), (Max, Rel, 5.0), (Max, Abs, 4.25)]
        {
            let beyond = if mode == Min { limit - 0.125 } else { limit + 0.125 };
            assert!(!mode.better(limit, 4.0, 0.25, of), "{mode:?} {of:?}");
            assert!(mode.better(beyond, 4.0, 0.25, of), "{mode:?} {of:?}");
            assert!(!mode.better(f64::NAN, 4.0, 0.25, of), "{mode:?} {of:?}");
            assert!(mode.better(1e300, mode.worst(), 0.25, of), "{mode:?} {of:?}");
        }
    }

    #[test]
    fn relative_threshold_of_a_negative_best_lies_on_the_other_side() {
        // −4 · (1 − ¼) = −3: −3.5 is better than −4 by this rule, as in the reference
        assert!(MetricMode::Min.better(-3.5, -4.0, 0.25, ThresholdMode::Rel));
    }
}
