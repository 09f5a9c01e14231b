//! Arithmetic of PyTorch's eager kernels on 16-bit numbers.

use core::cmp::Ordering;
use core::marker::PhantomData;
use core::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};
use num_traits::{One, Zero};

use crate::float::bytes::Constants;
use crate::float::{ComputeFloat, Dtype, StoredFloat};

/// A number in memory, and what to compute in so that every operation rounds to its type.
pub trait EagerFloat: StoredFloat {
    /// The same numbers in the registers.
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

/// A 16-bit type.
pub trait RoundNarrow: StoredFloat {
    /// The nearest number of this type, to even if two are as near. It stays an `f32`.
    fn round(x: f32) -> f32;
}

impl RoundNarrow for bf16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let nan = if x.is_nan() { u32::MAX } else { 0 };
        f32::from_bits((rounded | nan) & 0xffff_0000)
    }
}

impl RoundNarrow for f16 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        let bits = x.to_bits();
        // Added to 1.5 times a power of two that has the last bit where a 16-bit number of this size has it, x is
        // rounded there. Subnormals have their last bit where the smallest normal number has it.
        let exponent = (bits & 0x7f80_0000).clamp(113 << 23, 143 << 23);
        let large = f32::from_bits(exponent + (13 << 23) + (1 << 22));
        let rounded = (x + large) - large;
        // From 2^16 on, this overflows.
        let limited = rounded * f32::from_bits(239 << 23) * f32::from_bits(15 << 23);
        f32::from_bits(limited.to_bits() | (bits & 0x8000_0000))
    }
}

/// A number to compute in that is rounded to `T` after every operation, each of which is one tensor operation of PyTorch.
///
/// It rests as a `T`, but between operations it stays an `f32`, which spares the conversions.
///
/// ```
/// use bitstep::{float::Eager, optim::Sgd, rule::{Rule, StepContext, step}};
/// use half::bf16;
/// let (rule, at) = (Sgd { weight_decay: 0.5, ..Sgd::default() }, StepContext::new(1, 1.0));
/// let after = |eager| {
///     let (mut p, g) = ([bf16::from_f32(1.0)], [bf16::from_f32(129.0)]);
///     let scalars = &mut rule.scalars();
///     if eager {
///         step::<_, Eager<bf16>, _, _, bf16>(&rule, &at, scalars, &mut p, &g, [&mut []])?;
///     } else {
///         step::<_, f32, _, _, bf16>(&rule, &at, scalars, &mut p, &g, [&mut []])?;
///     }
///     Ok::<_, bitstep::Error>(p[0].to_f32())
/// };
/// // From 128 on, bf16 has whole numbers only: 129 + 0.5 · 1 becomes 130, and then 1 - 130 -129. Rounded but once, -128.5.
/// assert_eq!((after(true)?, after(false)?), (-129.0, -128.0));
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Eager<T>(f32, PhantomData<T>);

impl<T: RoundNarrow> Eager<T> {
    /// The nearest number.
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
    // Written out, as the ways over an `Ordering` are branches.
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

impl<T: RoundNarrow> Zero for Eager<T> {
    fn zero() -> Self {
        Self::ZERO
    }
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

impl<T: RoundNarrow> One for Eager<T> {
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

/// As it is between operations.
impl<T: RoundNarrow> Constants for Eager<T> {
    fn write(&self, to: &mut [u8]) {
        self.0.write(to);
    }
    fn read(from: &[u8]) -> Option<Self> {
        f32::read(from).map(Self::new)
    }
}

/// Whether the numbers of one type are those of the other.
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
        // A prime step visits every exponent; every border between two numbers of 16 bits comes up as well.
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
