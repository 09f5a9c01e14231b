//! Values with a bound on their rounding error: running error analysis (Wilkinson; Higham, *Accuracy
//! and Stability of Numerical Algorithms*, section 3.3).
//!
//! A [`Bounded`] computes what its type computes, bit for bit, and carries a bound: another correct implementation has
//! a number that is at most twice the bound away. An operation propagates the bounds of its operands and adds that of
//! its own rounding: half an ULP of its result, one for a square root, which vector libraries round less well. An exact
//! operation adds nothing, as it is exact in every implementation.
//!
//! Where a 16-bit tensor is rounded after each operation, all implementations round at the same place. So the bound
//! is not half of those coarse ULP: unrounded values within the bound round to one or two adjacent 16-bit values,
//! and the new bound is half the distance between these.
//!
//! The larger operations are not inlined: every rule is compiled with them, for four types.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

use bitstep::float::{ComputeFloat, Dtype, StoredFloat};
use half::{bf16, f16};

use super::choice;

/// A value with a bound on its error.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounded<T> {
    pub(crate) value: T,
    pub(crate) error: f64,
}

/// Half an ULP at `x`, or somewhat more.
pub(crate) fn half_ulp(dtype: Dtype, x: f64) -> f64 {
    let (unit, least) = match dtype {
        Dtype::F64 => (f64::EPSILON / 2.0, 5e-324),
        Dtype::F32 => (f64::from(f32::EPSILON) / 2.0, 0.7e-45),
        Dtype::Bf16 => (1.0 / 256.0, 4.6e-41),
        Dtype::F16 => (1.0 / 2048.0, 3e-8),
    };
    (x.abs() * unit).max(least)
}

thread_local! {
    /// The latest value that was stored in a plain type, and its bound: a rule may round a value by storing it and
    /// loading it again.
    static STORED: Cell<Option<(f64, f64)>> = const { Cell::new(None) };
}

/// What adds to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// +, −.
    Addition,
    /// ×.
    Multiplication,
    /// ÷.
    Division,
    /// √.
    Root,
    /// A constant of the step.
    Constant,
    /// A sum over a tensor, a row or a column.
    Sum,
    /// A product of matrices.
    Product,
    /// A power, cosine or logarithm.
    Function,
    /// A part of an operation in 16 bits, which may be rounded or not.
    Part,
}

impl Source {
    pub(crate) const ALL: [(Source, &'static str); 9] = [
        (Source::Addition, "+"),
        (Source::Multiplication, "×"),
        (Source::Division, "÷"),
        (Source::Root, "√"),
        (Source::Constant, "constants"),
        (Source::Sum, "sums"),
        (Source::Product, "products of matrices"),
        (Source::Function, "powers, cosines and logarithms"),
        (Source::Part, "parts of 16-bit operations"),
    ];
}

thread_local! {
    static IGNORED: Cell<Option<Source>> = const { Cell::new(None) };
}

/// Calls `f` with nothing added to bounds by this source.
pub(super) fn without<X>(source: Source, f: impl FnOnce() -> X) -> X {
    IGNORED.set(Some(source));
    let result = f();
    IGNORED.set(None);
    result
}

/// What a source adds: nothing if it is ignored.
#[inline(always)]
pub(super) fn added(source: Source, error: f64) -> f64 {
    if IGNORED.get() == Some(source) { 0.0 } else { error }
}

/// An operation that was made while [`traced`] was on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) source: Source,
    pub(crate) operands: [f64; 2],
    pub(crate) result: f64,
}

thread_local! {
    static IS_TRACED: Cell<bool> = const { Cell::new(false) };
    /// The operations so far.
    static TRACE: RefCell<Vec<Operation>> = const { RefCell::new(Vec::new()) };
    /// The place of an operation that is given another result, and that result.
    static OTHER: Cell<Option<(usize, f64)>> = const { Cell::new(None) };
}

/// Calls `f` and says which operations it makes; one of them, by its place, may be given another result.
pub(super) fn traced<X>(other: Option<(usize, f64)>, f: impl FnOnce() -> X) -> (X, Vec<Operation>) {
    TRACE.take();
    OTHER.set(other);
    IS_TRACED.set(true);
    let result = f();
    IS_TRACED.set(false);
    (result, TRACE.take())
}

/// The result of an operation, or what it is to be instead.
#[inline(always)]
fn made<T: ComputeFloat>(source: Source, operands: [f64; 2], result: T) -> T {
    if IS_TRACED.get() { note(source, operands, result) } else { result }
}

#[cold]
fn note<T: ComputeFloat>(source: Source, operands: [f64; 2], result: T) -> T {
    TRACE.with_borrow_mut(|all| {
        let result = match OTHER.get() {
            Some((at, x)) if at == all.len() => T::from_f64(x),
            _ => result,
        };
        all.push(Operation { source, operands, result: result.to_f64() });
        result
    })
}

thread_local! {
    static CONSTANTS: Cell<Dtype> = const { Cell::new(Dtype::F64) };
}

/// Calls `f` with constants of steps that the reference computes in this type.
pub(super) fn with_constants_in<X>(dtype: Dtype, f: impl FnOnce() -> X) -> X {
    let before = CONSTANTS.replace(dtype);
    let result = f();
    CONSTANTS.set(before);
    result
}

/// The most parts of operations of one element that are decided one by one; all later ones are as the last of these.
const MAX_PARTS: u32 = 8;

/// Which parts of operations in 16 bits are rounded, as bits, and how many there were so far.
#[derive(Clone, Copy)]
struct Parts {
    rounded: u32,
    seen: u32,
}

thread_local! {
    /// Without it an implementation may round each part or not, and the bound covers both.
    static PARTS: Cell<Option<Parts>> = const { Cell::new(None) };
}

/// Calls `compute` once for every combination of parts that are rounded and not, with none first, and `outcome` on
/// each result. PyTorch's vectors round none, and of what fills no vector some, by the operation.
pub(super) fn each_parts<X>(compute: impl Fn() -> X, mut outcome: impl FnMut(X)) {
    let mut run = |rounded: u32| {
        PARTS.set(Some(Parts { rounded, seen: 0 }));
        outcome(compute());
        PARTS.take().map_or(0, |parts| parts.seen.min(MAX_PARTS))
    };
    let seen = run(0);
    for rounded in 1..1u32 << seen {
        run(rounded);
    }
}

/// Turns a NaN bound into an infinite one.
fn or_unbounded(error: f64) -> f64 {
    if error.is_nan() { f64::INFINITY } else { error }
}

impl<T: ComputeFloat> Bounded<T> {
    /// An exact value.
    pub(crate) fn exact(value: T) -> Self {
        Bounded { value, error: 0.0 }
    }

    /// Whether the type is narrower than the one that its operations compute in.
    const NARROW: bool = matches!(T::DTYPE, Dtype::Bf16 | Dtype::F16);

    /// An intermediate result, which an implementation may round to this type or not.
    fn part(x: Bounded<T::Scalar>) -> Bounded<T::Scalar> {
        x.part_of(T::DTYPE)
    }

    /// The result of an operation: `x` before rounding, with the error bound `error`, to which rounding adds `units`
    /// half ULP. `is_exact`: the operation does not round.
    fn result(value: T, x: f64, error: f64, units: f64, is_exact: bool) -> Self {
        let error = or_unbounded(error);
        // What overflows from exact operands does so everywhere.
        if error == 0.0 && (is_exact || Self::NARROW || value.to_f64().is_infinite()) {
            return Bounded { value, error };
        }
        if Self::NARROW {
            let inner = error + units * half_ulp(Dtype::F32, x);
            return Bounded { value, error: on_grid::<T>(value, x, inner) };
        }
        Bounded { value, error: error + units * half_ulp(T::DTYPE, value.to_f64()) }
    }
}

/// The error bound of `value`, which is `x` rounded to its type, where `x` has the bound `error`: two implementations
/// within it round to values between the two ends, and the bound is half of what these may differ by.
#[inline(never)]
pub(crate) fn on_grid<T: StoredFloat>(value: T, x: f64, error: f64) -> f64 {
    let value = value.to_f64();
    if !error.is_finite() || !value.is_finite() {
        return or_unbounded(error);
    }
    let ends = [T::from_f64(x - 2.0 * error).to_f64(), T::from_f64(x + 2.0 * error).to_f64()];
    let [low, high] = ends;
    let width = or_unbounded(high - low);
    (width / 2.0).min(error + half_ulp(T::DTYPE, value))
}

impl<T: ComputeFloat> Bounded<T> {
    /// The one of two that has the value `chosen`. Where it is open which is larger, the two are close: the wider bound
    /// covers both, without a branch.
    fn one_of(self, other: Self, chosen: T) -> Self {
        let error = if is_open(&self, &other) || chosen.is_nan() {
            self.error.max(other.error)
        } else if chosen == self.value {
            self.error
        } else {
            other.error
        };
        Bounded { value: chosen, error }
    }
}

/// Whether the bounds leave a comparison undecided.
fn is_open<T: ComputeFloat>(a: &Bounded<T>, b: &Bounded<T>) -> bool {
    let error = 2.0 * (a.error + b.error);
    error > 0.0 && (a.value.to_f64() - b.value.to_f64()).abs() <= error
}

impl<T: ComputeFloat> PartialEq for Bounded<T> {
    fn eq(&self, other: &Self) -> bool {
        // What has the same value and bound is the same number, such as a constant that was selected before.
        let same = self.value == other.value && self.error == other.error;
        choice::answer(self.value == other.value, || !same && is_open(self, other))
    }
}

impl<T: ComputeFloat> PartialOrd for Bounded<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
    fn lt(&self, other: &Self) -> bool {
        choice::answer(self.value < other.value, || is_open(self, other))
    }
    fn le(&self, other: &Self) -> bool {
        choice::answer(self.value <= other.value, || is_open(self, other))
    }
    fn gt(&self, other: &Self) -> bool {
        choice::answer(self.value > other.value, || is_open(self, other))
    }
    fn ge(&self, other: &Self) -> bool {
        choice::answer(self.value >= other.value, || is_open(self, other))
    }
}

/// Whether a + b was exact: Knuth's TwoSum computes its rounding error exactly.
fn sum_is_exact(a: f64, b: f64, sum: f64) -> bool {
    let part = sum - a;
    (a - (sum - part)) + (b - part) == 0.0
}

/// Whether the rounding error of a product or quotient of this size is a number of `f64`, so that a test for 0 can see it.
fn shows_error(x: f64) -> bool {
    x.abs() > 1e-290
}

impl<T: ComputeFloat> Add for Bounded<T> {
    type Output = Self;
    #[inline(never)]
    fn add(self, other: Self) -> Self {
        let (a, b) = (self.value.to_f64(), other.value.to_f64());
        let value = made(Source::Addition, [a, b], self.value + other.value);
        let is_exact = sum_is_exact(a, b, value.to_f64());
        Self::result(value, a + b, self.error + other.error, added(Source::Addition, 1.0), is_exact)
    }
}

impl<T: ComputeFloat> Sub for Bounded<T> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl<T: ComputeFloat> Mul for Bounded<T> {
    type Output = Self;
    #[inline(never)]
    fn mul(self, other: Self) -> Self {
        let (a, b) = (self.value.to_f64(), other.value.to_f64());
        let value = made(Source::Multiplication, [a, b], self.value * other.value);
        // 0 times what may be anything may be NaN, which makes the bound infinite.
        let product = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a.abs() * b };
        // Half of what a′b′ may be away from ab, where a′ and b′ are two bounds away from a and b.
        let both = 2.0 * product(self.error, other.error);
        let error = product(a, other.error) + product(b, self.error) + both;
        let is_zero = a == 0.0 || b == 0.0;
        let is_exact =
            error == 0.0 && (is_zero || shows_error(a * b) && a.mul_add(b, -value.to_f64()) == 0.0);
        Self::result(value, a * b, error, added(Source::Multiplication, 1.0), is_exact)
    }
}

impl<T: ComputeFloat> Div for Bounded<T> {
    type Output = Self;
    #[inline(never)]
    fn div(self, other: Self) -> Self {
        let (a, b) = (self.value.to_f64(), other.value.to_f64());
        let value = made(Source::Division, [a, b], self.value / other.value);
        let (x, least) = (a / b, b.abs() - 2.0 * other.error);
        let inherited = if other.error == 0.0 { 0.0 } else { x.abs() * other.error };
        let error = match self.error + inherited {
            // The divisor may be 0, and 0 / 0 is NaN.
            _ if other.error > 0.0 && least <= 0.0 => f64::INFINITY,
            0.0 => 0.0,
            error => error / least,
        };
        let is_exact =
            error == 0.0 && (a == 0.0 || shows_error(a) && value.to_f64().mul_add(b, -a) == 0.0);
        Self::result(value, x, error, added(Source::Division, 1.0), is_exact)
    }
}

impl<T: ComputeFloat> Neg for Bounded<T> {
    type Output = Self;
    fn neg(self) -> Self {
        Bounded { value: -self.value, ..self }
    }
}

impl<T: ComputeFloat> StoredFloat for Bounded<T> {
    const DTYPE: Dtype = T::DTYPE;
    fn to_f32(self) -> f32 {
        self.value.to_f32()
    }
    fn to_f64(self) -> f64 {
        self.value.to_f64()
    }
    fn from_f32(x: f32) -> Self {
        Bounded::exact(T::from_f32(x))
    }
    /// A constant of a step, computed in `f64` by math libraries that may differ in the last bits.
    #[inline(never)]
    fn from_f64(x: f64) -> Self {
        let value = made(Source::Constant, [x, x], T::from_f64(x));
        // Two ULP of the type that it is computed in.
        let error = added(Source::Constant, 4.0 * half_ulp(CONSTANTS.get(), x));
        let is_whole = x == x.trunc() && x.abs() < 4_503_599_627_370_496.0;
        let error = match T::DTYPE {
            // What is infinite is so everywhere.
            _ if is_whole || !x.is_finite() => 0.0,
            Dtype::F64 => error,
            _ => on_grid::<T>(value, x, error),
        };
        Bounded { value, error }
    }
}

impl<T: ComputeFloat> ComputeFloat for Bounded<T> {
    type Stored = Self;
    type Scalar = Bounded<T::Scalar>;
    const ZERO: Self = Bounded { value: T::ZERO, error: 0.0 };
    const ONE: Self = Bounded { value: T::ONE, error: 0.0 };

    fn widen(self) -> Self::Scalar {
        Bounded { value: self.value.widen(), error: self.error }
    }
    #[inline(never)]
    fn round_from(x: Self::Scalar) -> Self {
        let value = T::round_from(x.value);
        let error = if Self::NARROW && x.error > 0.0 {
            on_grid::<T>(value, x.value.to_f64(), x.error)
        } else {
            x.error
        };
        Bounded { value, error }
    }
    fn load<N: StoredFloat>(x: N) -> Self {
        let any: &dyn std::any::Any = &x;
        if let Some(bounded) = any.downcast_ref::<Self>() {
            return *bounded;
        }
        let stored = STORED.take().filter(|(value, _)| *value == x.to_f64());
        Bounded { value: T::load(x), error: stored.map_or(0.0, |(_, error)| error) }
    }
    fn store<N: StoredFloat>(self) -> N {
        let any: &dyn std::any::Any = &self;
        if let Some(bounded) = any.downcast_ref::<N>() {
            return *bounded;
        }
        let stored: N = self.value.store();
        let bound = || (stored.to_f64(), on_grid(stored, self.value.to_f64(), self.error));
        STORED.set((self.error > 0.0).then(bound));
        stored
    }
    #[inline(never)]
    fn rounded(self, dtype: Dtype) -> Self {
        let (value, x) = (self.value.rounded(dtype), self.value.to_f64());
        let error = match dtype {
            _ if self.error == 0.0 => 0.0,
            Dtype::F64 => self.error,
            Dtype::F32 => on_grid(value.to_f32(), x, self.error),
            Dtype::Bf16 => on_grid(<bf16 as StoredFloat>::from_f64(value.to_f64()), x, self.error),
            Dtype::F16 => on_grid(<f16 as StoredFloat>::from_f64(value.to_f64()), x, self.error),
        };
        Bounded { value, error }
    }
    /// An implementation that rounds an intermediate result and one that does not differ by half an ULP.
    fn part_of(self, dtype: Dtype) -> Self {
        if let Some(parts) = PARTS.get() {
            PARTS.set(Some(Parts { seen: parts.seen + 1, ..parts }));
            let is_rounded = parts.rounded >> parts.seen.min(MAX_PARTS - 1) & 1 == 1;
            return if is_rounded { self.rounded(dtype) } else { self };
        }
        let x = self.value.to_f64();
        let is_in = |y: f64| self.error == 0.0 && y == x;
        let overflows = match dtype {
            Dtype::Bf16 => bf16::from_f64(x).is_infinite(),
            Dtype::F16 => f16::from_f64(x).is_infinite(),
            _ => false,
        };
        let error = match dtype {
            _ if !x.is_finite() => 0.0,
            _ if overflows => f64::INFINITY,
            Dtype::Bf16 if !is_in(bf16::from_f64(x).to_f64()) => half_ulp(dtype, x) / 2.0,
            Dtype::F16 if !is_in(f16::from_f64(x).to_f64()) => half_ulp(dtype, x) / 2.0,
            _ => 0.0,
        };
        Bounded { error: self.error + added(Source::Part, error), ..self }
    }
    #[inline(never)]
    fn sqrt(self) -> Self {
        let x = self.value.to_f64();
        let value = made(Source::Root, [x, x], self.value.sqrt());
        let s = value.to_f64();
        let error = match self.error {
            0.0 => 0.0,
            error if 2.0 * error <= x => error / (x.sqrt() + (x - 2.0 * error).sqrt()),
            // It may be NaN, by whether parts are rounded: that is decided by `each_parts`.
            _ if Self::NARROW && PARTS.get().is_none() => f64::INFINITY,
            error => ((x + 2.0 * error).sqrt() - x.sqrt()).max(x.sqrt()) / 2.0,
        };
        let is_exact = error == 0.0 && (x == 0.0 || shows_error(x) && s.mul_add(s, -x) == 0.0);
        Self::result(value, x.sqrt(), error, added(Source::Root, 2.0), is_exact)
    }
    fn abs(self) -> Self {
        Bounded { value: self.value.abs(), ..self }
    }
    fn is_nan(self) -> bool {
        self.value.is_nan()
    }
    // PyTorch's vectorized kernels compute a 16-bit operation in `f32` and round once; their scalar tails, and all of
    // a short tensor, round every intermediate result.
    #[inline(never)]
    fn rsqrt(self) -> Self {
        Self::round_from(Self::Scalar::ONE / Self::part(self.widen().sqrt()))
    }
    #[inline(never)]
    fn add_scaled(self, y: Self, alpha: Self::Scalar) -> Self {
        Self::round_from(self.widen() + Self::part(Self::round_from(alpha).widen() * y.widen()))
    }
    #[inline(never)]
    fn lerp(self, end: Self, weight: Self::Scalar) -> Self {
        let (x, y) = (self.widen(), end.widen());
        let near_start = weight.value.abs() < T::Scalar::from_f64(0.5);
        let one = Self::Scalar::ONE;
        let (base, factor) = if near_start { (x, weight) } else { (y, weight - one) };
        Self::round_from(base + Self::part(factor * Self::part(y - x)))
    }
    #[inline(never)]
    fn addcmul(self, a: Self, b: Self, value: Self::Scalar) -> Self {
        Self::round_from(self.widen() + Self::part(Self::part(value * a.widen()) * b.widen()))
    }
    #[inline(never)]
    fn addcdiv(self, a: Self, b: Self, value: Self::Scalar) -> Self {
        Self::round_from(self.widen() + Self::part(Self::part(value * a.widen()) / b.widen()))
    }
    fn maximum(self, other: Self) -> Self {
        self.one_of(other, self.value.maximum(other.value))
    }
    fn minimum(self, other: Self) -> Self {
        self.one_of(other, self.value.minimum(other.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitstep::float::Eager;

    fn bounded(value: f32, error: f64) -> Bounded<f32> {
        Bounded { value, error }
    }

    #[test]
    fn what_is_exact_adds_nothing() {
        let [half, three] = [0.5, 3.0].map(|x| Bounded::exact(x as f32));
        for exact in [half + three, half - three, half * three, three / half, (half * half).sqrt()]
        {
            assert_eq!(exact.error, 0.0, "{exact:?}");
        }
        let third = Bounded::exact(1.0f32) / three;
        assert_eq!(third.error, f64::from(third.value) * f64::from(f32::EPSILON) / 2.0);
    }

    #[test]
    fn an_error_too_small_for_a_number_is_one() {
        let [tenth, tiny] = [0.1, 2e-315].map(Bounded::<f64>::exact);
        for inexact in [tenth * tiny, tiny / Bounded::exact(3.0), tiny.sqrt()] {
            assert!(inexact.error >= 5e-324, "{inexact:?}");
        }
        let zero = Bounded::exact(0.0);
        for exact in [zero * tiny, zero / tiny, zero.sqrt(), tiny + tiny] {
            assert_eq!(exact.error, 0.0, "{exact:?}");
        }
    }

    #[test]
    fn errors_are_handed_on() {
        let (a, b) = (bounded(2.0, 0.1), bounded(8.0, 0.2));
        let near = |x: Bounded<f32>, error: f64| (x.error - error).abs() < 1e-5;
        assert!(near(a + b, 0.3) && near(a - b, 0.3));
        assert!(near(a * b, 2.0 * 0.2 + 8.0 * 0.1 + 0.04));
        assert!(near(a / b, (0.1 + 0.25 * 0.2) / 7.6));
        assert!(near(b.sqrt(), (8f64.sqrt() - 7.6f64.sqrt()) / 2.0));
        assert_eq!((a / bounded(0.1, 0.06)).error, f64::INFINITY);
        assert!((bounded(0.0, 0.08).sqrt().error - 0.2).abs() < 1e-6, "near zero");
    }

    #[test]
    fn another_implementation_is_within_two_bounds() {
        let (a, b) = (bounded(1.0, 0.3), bounded(1.0, 0.2));
        let ends = |x: Bounded<f32>| [-2.0, 2.0].map(|sign| f64::from(x.value) + sign * x.error);
        let covers = |x: Bounded<f32>, other: f64| {
            (other - f64::from(x.value)).abs() <= 2.0 * x.error * (1.0 + 1e-6)
        };
        for (x, y) in ends(a).into_iter().flat_map(|x| ends(b).map(|y| (x, y))) {
            assert!(covers(a * b, x * y) && covers(a * a, x * x) && covers(a / b, x / y));
            assert!(
                covers(a + b, x + y) && covers(a - b, x - y) && covers(a.sqrt(), x.max(0.0).sqrt())
            );
        }
    }

    #[test]
    fn value_that_is_rounded_by_storing_keeps_its_bound() {
        let rounded = |x: Bounded<f32>| Bounded::<f32>::load(x.store::<Eager<bf16>>());
        for (value, error) in [(1.0f32 + 1.0 / 256.0, 1e-6), (1.001, 1e-6), (1.001, 0.0)] {
            let x = bounded(value, error);
            assert_eq!(rounded(x).error, x.rounded(Dtype::Bf16).error, "{x:?}");
        }
        assert_eq!(rounded(bounded(1.0 + 1.0 / 256.0, 1e-6)).error, 1.0 / 256.0);
        assert_eq!(Bounded::<f32>::load(bf16::ONE).error, 0.0);
    }

    #[test]
    fn larger_of_two_has_its_own_bound_unless_it_is_open_which_that_is() {
        let (a, b, near) = (bounded(1.0, 0.1), bounded(3.0, 0.2), bounded(1.3, 0.3));
        assert_eq!([a.maximum(b).error, a.minimum(b).error, b.minimum(a).error], [0.2, 0.1, 0.1]);
        assert_eq!([a.maximum(near).error, a.minimum(near).error], [0.3; 2]);
    }

    #[test]
    fn constant_is_equal_to_itself_however_it_was_rounded() {
        let (third, other) = (Bounded::<f64>::scalar(1.0 / 3.0), Bounded::<f64>::scalar(0.3));
        let mut answers = Vec::new();
        choice::each(|| (third == third, third == other), |x| answers.push(x));
        assert_eq!(answers, [(true, false)]);
    }

    #[test]
    fn parts_are_rounded_or_not_or_either() {
        // (1 + 2⁻⁷)² is 1 + 2⁻⁶ + 2⁻¹⁴, and without the last in bf16.
        let [x, y] = [-1.015625f32, 1.0078125].map(|x| Bounded::exact(Eager::<bf16>::new(x)));
        let sum = || x.add_scaled(y, bounded(1.0078125, 0.0));
        let mut outcomes = Vec::new();
        each_parts(sum, |x| outcomes.push((StoredFloat::to_f64(x.value), x.error)));
        assert_eq!(outcomes, [(2f64.powi(-14), 0.0), (0.0, 0.0)]);
        assert!(sum().error > 2f64.powi(-15));
    }

    #[test]
    fn a_narrow_type_rounds_to_one_or_two() {
        let wide = |value: f32, error: f64| bounded(value, error);
        // Far from a tie: one value.
        assert_eq!(Bounded::<Eager<bf16>>::round_from(wide(1.001, 1e-6)).error, 0.0);
        // Near a tie, 1 + 1/256: two, one ULP apart.
        assert_eq!(
            Bounded::<Eager<bf16>>::round_from(wide(1.0 + 1.0 / 256.0, 1e-6)).error,
            1.0 / 256.0
        );
        let sum = Bounded::exact(Eager::<bf16>::ONE) + Bounded::exact(Eager::new(0.00390625));
        assert_eq!(sum.error, 0.0, "a tie that everybody breaks alike");
    }
}
