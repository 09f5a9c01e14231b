//! Arrays with one entry per state slot.

/// `[T; N]` for N up to 8.
pub trait Array<T>: AsRef<[T]> + AsMut<[T]> {
    /// N.
    const LEN: usize;
    /// The array `[f(0), f(1), …]`.
    fn from_fn(f: impl FnMut(usize) -> T) -> Self;
}

/// Spelled out, because `core::array::from_fn` accounted for a quarter of the generated code of all rules' loops.
macro_rules! arrays {
    ($($len:literal: $($i:literal)*;)*) => {
        $(impl<T> Array<T> for [T; $len] {
            const LEN: usize = $len;
            #[inline(always)]
            fn from_fn(#[allow(unused_mut, unused_variables)] mut f: impl FnMut(usize) -> T) -> Self {
                [$(f($i)),*]
            }
        })*
    };
}

arrays! {
    0: ;
    1: 0;
    2: 0 1;
    3: 0 1 2;
    4: 0 1 2 3;
    5: 0 1 2 3 4;
    6: 0 1 2 3 4 5;
    7: 0 1 2 3 4 5 6;
    8: 0 1 2 3 4 5 6 7;
}
