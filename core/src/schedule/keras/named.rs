//! The table of decays that are known by their Keras class.

use super::*;
use crate::schedule::warm_up;

/// Every known class, in alphabetical order.
pub(in crate::schedule) const DECAYS: &[Entry] = &[
    Entry::of::<CosineDecay>("CosineDecay"),
    Entry::of::<CosineDecayRestarts>("CosineDecayRestarts"),
    Entry::of::<ExponentialDecay>("ExponentialDecay"),
    Entry::of::<InverseTimeDecay>("InverseTimeDecay"),
    Entry {
        class: "PiecewiseConstantDecay",
        non_fields: &["boundaries", "values"],
        make: piecewise_constant_decay::MAKE,
    },
    Entry::of::<PolynomialDecay>("PolynomialDecay"),
    Entry { class: "WarmUp", non_fields: &["decay_schedule_fn"], make: warm_up::MAKE_DECAY },
];
