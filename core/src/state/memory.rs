//! [`Memory`]: the memory that a state may use.

use crate::float::EagerFloat;
use crate::storage::Plain;

/// Memory for the slots of a [`State`](super::State): an array, a borrowed slice or array, or a `Vec`.
pub trait Memory {
    /// The type of the values: `f64`, `f32`, `bf16` or `f16`.
    type Value: EagerFloat + Plain;
    /// All values.
    fn values(&self) -> &[Self::Value];
    /// All values, to write.
    fn values_mut(&mut self) -> &mut [Self::Value];
}

impl<S: EagerFloat + Plain, const N: usize> Memory for [S; N] {
    type Value = S;
    fn values(&self) -> &[S] {
        self
    }
    fn values_mut(&mut self) -> &mut [S] {
        self
    }
}

impl<S: EagerFloat + Plain> Memory for [S] {
    type Value = S;
    fn values(&self) -> &[S] {
        self
    }
    fn values_mut(&mut self) -> &mut [S] {
        self
    }
}

#[cfg(feature = "alloc")]
impl<S: EagerFloat + Plain> Memory for alloc::vec::Vec<S> {
    type Value = S;
    fn values(&self) -> &[S] {
        self
    }
    fn values_mut(&mut self) -> &mut [S] {
        self
    }
}

impl<M: Memory + ?Sized> Memory for &mut M {
    type Value = M::Value;
    fn values(&self) -> &[M::Value] {
        (**self).values()
    }
    fn values_mut(&mut self) -> &mut [M::Value] {
        (**self).values_mut()
    }
}
