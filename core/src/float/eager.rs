//! Arithmetic on 16-bit floats as in PyTorch's eager kernels: rounded after every operation.

use core::cmp::Ordering;
use core::marker::PhantomData;
use core::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use crate::float::bytes::Constants;
use crate::float::{ComputeFloat, Dtype, RoundNarrow, StoredFloat};

/// A storage type with a compute type whose operations round to it.
pub trait EagerFloat: StoredFloat {
    /// The compute type: `Self` for `f64` and `f32`, [`Eager`] for 16-bit types.
    type Compute: ComputeFloat<Stored = Self>;
}

impl EagerFloat for f64 {
    type Compute = f64;
}

impl EagerFloat for f32 {
    type Compute = f32;
}

impl EagerFloat for bf16 {
    type Compute = Eager<bf16>;
}

impl EagerFloat for f16 {
    type Compute = Eager<f16>;
}

/// A compute type whose every operation, each one tensor operation of PyTorch, is rounded to the 16-bit type `T`.
///
/// It is stored as a `T`; between operations it is kept in an `f32` that holds a value of `T`, which saves conversions.
/// [`ComputePolicy::Eager`](crate::rule::ComputePolicy::Eager) selects it:
///
/// ```
/// use bitstep::prelude::*;
/// use half::bf16;
///
/// const OPT: Sgd = Sgd { lr: 1.0, weight_decay: 0.5, ..Sgd::DEFAULT };
/// let after = |policy| {
///     let (mut p, g) = ([bf16::from_f32(1.0)], [bf16::from_f32(129.0)]);
///     let mut state = State::new(&OPT, 1, [bf16::ZERO; 0])?; // without momentum there is no state
///     OPT.step_in(policy, &mut state, &StepContext::new(1, OPT.lr), &mut p, &g)?;
///     Ok::<_, Error>(p[0].to_f32())
/// };
/// // From 128 on, bf16 has integers only: 129 + 0.5 · 1 rounds to 130 (even), and 1 - 130 is -129.
/// assert_eq!(after(ComputePolicy::Eager)?, -129.0);
/// // Rounded only once, -128.5 becomes -128.
/// assert_eq!(after(ComputePolicy::Fused)?, -128.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Eager<T>(f32, PhantomData<T>);

impl<T: RoundNarrow> Eager<T> {
    /// The nearest value of `T`.
    #[inline(always)]
    pub fn new(x: f32) -> Self {
        Eager(T::round(x), PhantomData)
    }
}

impl<T> PartialEq for Eager<T> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> PartialOrd for Eager<T> {
    #[inline(always)]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.0.partial_cmp(&other.0)
    }
    // The provided methods go through an `Ordering`, which compiles to branches.
    #[inline(always)]
    fn lt(&self, other: &Self) -> bool {
        self.0 < other.0
    }
    #[inline(always)]
    fn le(&self, other: &Self) -> bool {
        self.0 <= other.0
    }
    #[inline(always)]
    fn gt(&self, other: &Self) -> bool {
        self.0 > other.0
    }
    #[inline(always)]
    fn ge(&self, other: &Self) -> bool {
        self.0 >= other.0
    }
}

impl<T: RoundNarrow> Add for Eager<T> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self::new(self.0 + other.0)
    }
}

impl<T: RoundNarrow> Sub for Eager<T> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self::new(self.0 - other.0)
    }
}

impl<T: RoundNarrow> Mul for Eager<T> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self::new(self.0 * other.0)
    }
}

impl<T: RoundNarrow> Div for Eager<T> {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self::new(self.0 / other.0)
    }
}

impl<T> Neg for Eager<T> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Eager(-self.0, PhantomData)
    }
}

impl<T: RoundNarrow> StoredFloat for Eager<T> {
    const DTYPE: Dtype = T::DTYPE;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.0
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.0.into()
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self::new(x)
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        Self::new(x as f32)
    }
    #[inline(always)]
    fn from_exact(x: f32) -> Self {
        Eager(x, PhantomData)
    }
}

#[cfg(feature = "num-traits")]
impl<T: RoundNarrow> num_traits::Zero for Eager<T> {
    fn zero() -> Self {
        Self::ZERO
    }
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

#[cfg(feature = "num-traits")]
impl<T: RoundNarrow> num_traits::One for Eager<T> {
    fn one() -> Self {
        Self::ONE
    }
}

impl<T: RoundNarrow> ComputeFloat for Eager<T> {
    type Stored = T;
    type Scalar = f32;
    const ZERO: Self = Eager(0.0, PhantomData);
    const ONE: Self = Eager(1.0, PhantomData);
    #[inline(always)]
    fn widen(self) -> f32 {
        self.0
    }
    #[inline(always)]
    fn round_from(x: f32) -> Self {
        Self::new(x)
    }
    #[inline(always)]
    fn load<N: StoredFloat>(x: N) -> Self {
        let x = x.to_f32();
        if const { is_same::<T, N>() } { Self::from_exact(x) } else { Self::new(x) }
    }
    #[inline(always)]
    fn store<N: StoredFloat>(self) -> N {
        if const { is_same::<T, N>() } { N::from_exact(self.0) } else { N::from_f32(self.0) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::new(self.0.sqrt())
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Eager(ComputeFloat::abs(self.0), PhantomData)
    }
}

/// In the representation between operations, an `f32`.
impl<T: RoundNarrow> Constants for Eager<T> {
    fn write(&self, to: &mut [u8]) {
        self.0.write(to);
    }
    fn read(from: &[u8]) -> Option<Self> {
        f32::read(from).map(Self::new)
    }
}

/// Whether both types have the same values.
const fn is_same<A: StoredFloat, B: StoredFloat>() -> bool {
    A::DTYPE as u8 == B::DTYPE as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eager_rounding_is_that_of_the_type() {
        fn agrees<T: RoundNarrow>(bits: u32) {
            let x = f32::from_bits(bits);
            let (rounded, way_round) = (T::round(x), T::from_f32(x).to_f32());
            let alike = rounded.to_bits() == way_round.to_bits();
            assert!(alike || rounded.is_nan() && way_round.is_nan(), "{bits:#x} in {:?}", T::DTYPE);
        }
        // A prime step visits every exponent; every midpoint of two 16-bit floats is tried as well.
        for bits in (0..=u32::MAX).step_by(8_191) {
            agrees::<bf16>(bits);
            agrees::<f16>(bits);
        }
        for upper in (0..=u32::MAX).step_by(1 << 12) {
            for bits in [upper.wrapping_sub(1), upper, upper + 1] {
                agrees::<bf16>(bits);
                agrees::<f16>(bits);
            }
        }
    }

    #[test]
    fn eager_alpha_is_rounded_first_and_a_factor_is_not() {
        // 0.001 is not a bf16; 1000 · bf16(0.001) = 1.00000xx rounds differently from 1000 · 0.001.
        let (x, y) = (Eager::<bf16>::ZERO, Eager::new(1000.0));
        let alpha = bf16::from_f32_const(0.001).to_f32();
        assert_eq!(x.add_scaled(y, 0.001).to_f32(), bf16::from_f32_const(alpha * 1000.0).to_f32());
        // ε = 1e-8 vanishes in f16.
        assert_eq!(Eager::<f16>::ZERO.add_scalar(1e-8), Eager::<f16>::ZERO);
    }

    #[test]
    fn factor_of_multi_tensor_kernels_is_rounded() {
        assert_eq!(Eager::<bf16>::foreach_scalar(0.999, true), 1.0);
        assert_eq!(Eager::<bf16>::foreach_scalar(0.999, false), 0.999);
        assert_eq!(f64::foreach_scalar(0.999, true), 0.999);
    }
}
