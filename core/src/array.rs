//! Arrays whose length is a rule's own.

/// `[T; N]` for some N.
pub trait Array<T>: AsRef<[T]> + AsMut<[T]> {
    /// Its length.
    const LEN: usize;
    /// The array of `f(0)`, `f(1)`, ….
    fn from_fn(f: impl FnMut(usize) -> T) -> Self;
}

impl<T, const N: usize> Array<T> for [T; N] {
    const LEN: usize = N;
    #[inline(always)]
    fn from_fn(f: impl FnMut(usize) -> T) -> Self {
        core::array::from_fn(f)
    }
}
