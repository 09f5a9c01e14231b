//! Where the numbers of a state may be.

use crate::float::EagerFloat;
use crate::storage::Plain;

/// Memory for the numbers of a [`State`](super::State): an array, a slice or array that is borrowed, a vector.
pub trait Memory {
    /// The type of the numbers: `f64`, `f32`, `bf16` or `f16`.
    type Number: EagerFloat + Plain;
    /// All of it.
    fn numbers(&self) -> &[Self::Number];
    /// All of it, to be written.
    fn numbers_mut(&mut self) -> &mut [Self::Number];
}

impl<S: EagerFloat + Plain, const N: usize> Memory for [S; N] {
    type Number = S;
    fn numbers(&self) -> &[S] {
        self
    }
    fn numbers_mut(&mut self) -> &mut [S] {
        self
    }
}

impl<S: EagerFloat + Plain> Memory for [S] {
    type Number = S;
    fn numbers(&self) -> &[S] {
        self
    }
    fn numbers_mut(&mut self) -> &mut [S] {
        self
    }
}

#[cfg(feature = "alloc")]
impl<S: EagerFloat + Plain> Memory for alloc::vec::Vec<S> {
    type Number = S;
    fn numbers(&self) -> &[S] {
        self
    }
    fn numbers_mut(&mut self) -> &mut [S] {
        self
    }
}

impl<M: Memory + ?Sized> Memory for &mut M {
    type Number = M::Number;
    fn numbers(&self) -> &[M::Number] {
        (**self).numbers()
    }
    fn numbers_mut(&mut self) -> &mut [M::Number] {
        (**self).numbers_mut()
    }
}
