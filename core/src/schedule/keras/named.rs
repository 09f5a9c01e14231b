//! Every decay of Keras that is known by its class.

use super::*;
use crate::schedule::warm_up;

/// Every class.
pub(in crate::schedule) const DECAYS: &[Entry] = &[
    Entry::of::<CosineDecay>("CosineDecay"),
    Entry::of::<CosineDecayRestarts>("CosineDecayRestarts"),
    Entry::of::<ExponentialDecay>("ExponentialDecay"),
    Entry::of::<InverseTimeDecay>("InverseTimeDecay"),
    Entry {
        class: "PiecewiseConstantDecay",
        apart: &["boundaries", "values"],
        make: piecewise_constant_decay::MAKE,
    },
    Entry::of::<PolynomialDecay>("PolynomialDecay"),
    Entry { class: "WarmUp", apart: &["decay_schedule_fn"], make: warm_up::MAKE_DECAY },
];
