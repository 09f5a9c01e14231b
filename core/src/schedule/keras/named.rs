//! Every decay of Keras that is known by its class.

use super::*;
use crate::schedule::warm_up;

/// Every class.
pub(in crate::schedule) const LIST: &[Entry] = &[
    cosine_decay::ENTRY,
    cosine_decay_restarts::ENTRY,
    exponential_decay::ENTRY,
    inverse_time_decay::ENTRY,
    piecewise_constant_decay::ENTRY,
    polynomial_decay::ENTRY,
    warm_up::DECAY,
];
