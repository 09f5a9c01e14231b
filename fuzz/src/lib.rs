//! Properties of every rule.
