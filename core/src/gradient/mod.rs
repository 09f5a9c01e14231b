//! Gradient strategies.
