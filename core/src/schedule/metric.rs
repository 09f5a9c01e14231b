//! When a metric counts as better.

/// Which direction of a metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Down, as a loss.
    Min,
    /// Up, as an accuracy.
    Max,
}

/// How a [`threshold`](super::ReduceLrOnPlateau::threshold) is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdMode {
    /// As a share of the best value.
    Rel,
    /// As a difference.
    Abs,
}

pub(super) const MODES: &[(&str, Mode)] = &[("min", Mode::Min), ("max", Mode::Max)];
pub(super) const THRESHOLD_MODES: &[(&str, ThresholdMode)] =
    &[("rel", ThresholdMode::Rel), ("abs", ThresholdMode::Abs)];

impl Mode {
    /// What every number is better than.
    pub(super) fn worst(self) -> f64 {
        match self {
            Mode::Min => f64::INFINITY,
            Mode::Max => f64::NEG_INFINITY,
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
            (Mode::Min, ThresholdMode::Rel) => metric < best * (1.0 - threshold),
            (Mode::Min, ThresholdMode::Abs) => metric < best - threshold,
            (Mode::Max, ThresholdMode::Rel) => metric > best * (1.0 + threshold),
            (Mode::Max, ThresholdMode::Abs) => metric > best + threshold,
        }
    }
}
