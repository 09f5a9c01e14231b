//! Clipping by value and by global norm.

use half::{bf16, f16};

use super::scale::{scale_in_place, scaled};
use crate::error::{Error, ensure_range};
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::float::{Eager, EagerFloat};
use crate::math::reduce;
use crate::storage::{Data, DataMut};

/// Clamps every element to [−clip_value, clip_value]; NaN stays NaN
/// (`torch.nn.utils.clip_grad_value_`, `tensorflow.clip_by_value`).
///
/// # Errors
/// Gradients in an encoded storage. Nothing is written then.
///
/// ```
/// use bitstep::gradient::clip_grad_value;
/// let mut g = [0.5f32, -3.0, f32::INFINITY];
/// clip_grad_value(&mut [(&mut g).into()], 1.0)?;
/// assert_eq!(g, [0.5, -1.0, 1.0]);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[inline]
pub fn clip_grad_value(grads: &mut [DataMut<'_>], clip_value: f64) -> Result<(), Error> {
    fn clip<T: EagerFloat>(x: &mut [T], limit: f64) {
        for g in x {
            *g = clamped(T::Compute::load(*g), limit).store();
        }
    }
    check_plain(grads)?;
    for g in grads {
        match g {
            DataMut::F64(x) => clip(x, clip_value),
            DataMut::F32(x) => clip(x, clip_value),
            DataMut::Bf16(x) => clip(x, clip_value),
            DataMut::F16(x) => clip(x, clip_value),
            DataMut::Encoded(_) => {}
        }
    }
    Ok(())
}

/// One element of [`clip_grad_value`].
#[inline(always)]
pub fn clamped<C: ComputeFloat>(g: C, limit: f64) -> C {
    let [low, high] = [-limit, limit].map(|x| C::round_from(C::scalar(x)));
    g.maximum(low).minimum(high)
}

#[inline]
fn check_plain(grads: &[DataMut<'_>]) -> Result<(), Error> {
    if grads.iter().any(|g| g.dtype().is_none()) {
        return Err(Error::InvalidArgument { argument: "grads", expected: "plain numbers" });
    }
    Ok(())
}

/// The kind of a vector norm, with its elementwise functions for backends with their own loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Order 2.
    Two,
    /// Order 1.
    One,
    /// Order ∞: the largest magnitude.
    Largest,
    /// Order −∞: the smallest magnitude.
    Smallest,
    /// Order 0: the number of nonzero elements.
    Count,
    /// Any other order.
    Power,
}
impl NormKind {
    /// The kind of a norm over n elements. For n = 1 it is |x| whatever the order, except 0, so that
    /// no square overflows or underflows.
    #[inline]
    #[must_use]
    pub fn of(order: f64, n: usize) -> NormKind {
        match order {
            0.0 => NormKind::Count,
            _ if n == 1 => NormKind::One,
            2.0 => NormKind::Two,
            1.0 => NormKind::One,
            f64::INFINITY => NormKind::Largest,
            f64::NEG_INFINITY => NormKind::Smallest,
            _ => NormKind::Power,
        }
    }

    /// The term of one element, such as x² for order 2.
    #[inline(always)]
    pub fn term<A: ComputeFloat>(self, order: f64, x: A) -> A {
        let x = x.abs();
        match self {
            NormKind::Two => x * x,
            NormKind::One | NormKind::Largest | NormKind::Smallest => x,
            NormKind::Count if x == A::ZERO => A::ZERO,
            NormKind::Count => A::ONE,
            NormKind::Power => power(x, A::from_f64(order)),
        }
    }

    /// The neutral element of [`join`](Self::join): ∞ for the smallest magnitude, else 0.
    #[inline(always)]
    pub fn start<A: ComputeFloat>(self) -> A {
        if self == NormKind::Smallest { A::from_f64(f64::INFINITY) } else { A::ZERO }
    }

    /// Combines two terms: their maximum, minimum or sum. Sums must follow the order of [`reduce`].
    #[inline(always)]
    pub fn join<A: ComputeFloat>(self, x: A, y: A) -> A {
        match self {
            NormKind::Largest => x.maximum(y),
            NormKind::Smallest => x.minimum(y),
            _ => x + y,
        }
    }

    /// The norm, from the combined terms.
    #[inline(always)]
    pub fn root<A: ComputeFloat>(self, order: f64, all: A) -> A {
        match self {
            NormKind::Two => all.sqrt(),
            NormKind::Power => power(all, A::ONE / A::from_f64(order)),
            _ => all,
        }
    }
}

#[inline(always)]
fn power<A: ComputeFloat>(x: A, exponent: A) -> A {
    A::from_f64(libm::pow(x.to_f64(), exponent.to_f64()))
}

/// A norm of few elements, or of ones that are slow to compute: not vectorized. Sums are in `C::Scalar`.
fn norm_of_few<C: ComputeFloat>(n: usize, order: f64, x: &dyn Fn(usize) -> C) -> C::Scalar {
    let kind = NormKind::of(order, n);
    let term = |i: usize| kind.term(order, x(i).widen());
    let all = match kind {
        NormKind::Largest | NormKind::Smallest => {
            (0..n).map(term).fold(kind.start(), |all, x| kind.join(all, x))
        }
        _ => reduce::sum_scalar(n, &term),
    };
    kind.root(order, all)
}

/// The norm of one tensor, rounded to its type: (Σ|x|^order)^(1/order); the largest
/// |x| for order ∞, the smallest for −∞, the number of nonzero elements for 0
/// (`torch.linalg.vector_norm`). Sums are in `f32` (`f64` for `f64`), in the order of
/// [`reduce`], so in `f32` squares overflow above 1e19 and underflow below 1e-23. The norm of a
/// single element is |x|, without squaring.
#[inline]
#[must_use]
pub fn norm(grad: Data<'_>, order: f64) -> f64 {
    fn norm_of<T: EagerFloat>(x: &[T], order: f64) -> f64 {
        let at = |i: usize| x.get(i).map_or(T::Compute::ZERO, |&x| T::Compute::load(x));
        // The common kinds are vectorized.
        macro_rules! sum {
            ($kind:expr) => {
                $kind.root(order, reduce::sum(x.len(), |i| $kind.term(order, at(i).widen())))
            };
        }
        T::Compute::round_from(match NormKind::of(order, x.len()) {
            NormKind::Two => sum!(NormKind::Two),
            NormKind::One => sum!(NormKind::One),
            _ => norm_of_few(x.len(), order, &at),
        })
        .to_f64()
    }
    match grad {
        Data::F64(x) => norm_of(x, order),
        Data::F32(x) => norm_of(x, order),
        Data::Bf16(x) => norm_of(x, order),
        Data::F16(x) => norm_of(x, order),
    }
}

/// The narrowest type that represents all values of both types.
#[inline]
#[must_use]
pub fn promote(a: Dtype, b: Dtype) -> Dtype {
    match (a, b) {
        (a, b) if a == b => a,
        (Dtype::F64, _) | (_, Dtype::F64) => Dtype::F64,
        _ => Dtype::F32,
    }
}

/// Rounds to the nearest value of a type.
#[must_use]
#[inline(always)]
pub fn round(x: f64, dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F64 => x,
        Dtype::F32 => f32::from_f64(x).to_f64(),
        Dtype::Bf16 => StoredFloat::to_f64(<bf16 as StoredFloat>::from_f64(x)),
        Dtype::F16 => StoredFloat::to_f64(<f16 as StoredFloat>::from_f64(x)),
    }
}

/// The norm over all tensors (the norm of their norms), and the type it is rounded to: the
/// [promoted](promote) type of all of them, `f32` if there are none.
#[inline]
#[must_use]
pub fn total_norm(grads: &[Data<'_>], order: f64) -> (f64, Dtype) {
    total(grads.len(), &|i| grads.get(i).copied(), order)
}

#[inline]
fn total<'a>(n: usize, grad: &dyn Fn(usize) -> Option<Data<'a>>, order: f64) -> (f64, Dtype) {
    let dtype = (0..n).filter_map(grad).map(|g| g.dtype()).reduce(promote).unwrap_or(Dtype::F32);
    let of = |i: usize| grad(i).map_or(0.0, |g| norm(g, order));
    let norm = match dtype {
        Dtype::F64 => norm_of_few::<f64>(n, order, &of),
        _ => norm_of_few::<f32>(n, order, &|i| of(i) as f32).to_f64(),
    };
    (round(norm, dtype), dtype)
}

/// The norm of order 2 over all tensors, each element divided by `divisor`; in `f32`
/// whatever their types. LOMO computes it in a first backward pass.
#[inline]
#[must_use]
pub fn unscaled_norm<'a>(grads: impl Iterator<Item = Data<'a>> + Clone, divisor: f64) -> f64 {
    fn norm_of<T: StoredFloat>(x: &[T], divisor: f32) -> f32 {
        let single = x.len() == 1;
        let at = |i: usize| x.get(i).map_or(0.0, |g| g.to_f32() / divisor);
        reduce::root(reduce::sum(x.len(), |i| reduce::square(at(i), single)), single)
    }
    let divisor = divisor as f32;
    let mut norms = grads.clone().map(|grad| match grad {
        Data::F64(x) => norm_of(x, divisor),
        Data::F32(x) => norm_of(x, divisor),
        Data::Bf16(x) => norm_of(x, divisor),
        Data::F16(x) => norm_of(x, divisor),
    });
    let n = grads.count();
    let [sum] = reduce::sums_by_chunk::<_, 1>(n, |_, [squares]: [&mut [f32]; 1]| {
        for (x, norm) in squares.iter_mut().zip(&mut norms) {
            *x = reduce::square(norm, n == 1);
        }
    });
    reduce::root(sum, n == 1).into()
}

#[inline]
fn grad_at<'a>(grads: &'a [DataMut<'_>], i: usize) -> Option<Data<'a>> {
    grads.get(i).and_then(|g| g.as_data())
}

/// Scales all gradients down to a total norm of at most `max_norm`
/// (`torch.nn.utils.clip_grad_norm_`, Trainer's `max_grad_norm`).
///
/// ```text
/// n = norm of the tensors' norms, in their own types
/// c = min(1 / (n + 1e-6) · max_norm, 1)
/// g ← g · c
/// ```
/// An infinite norm gives c = 0: finite elements become 0, infinite ones NaN. A
/// NaN norm makes all elements NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipGradNorm {
    /// The largest norm that is not clipped.
    pub max_norm: f64,
    /// The order of the norm: 2, 1, ∞, or any other.
    pub norm_type: f64,
    /// Whether to refuse a norm that is NaN or infinite.
    pub error_if_nonfinite: bool,
}

impl ClipGradNorm {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        ClipGradNorm { max_norm: 1.0, norm_type: 2.0, error_if_nonfinite: false };
}

impl Default for ClipGradNorm {
    #[inline]
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl ClipGradNorm {
    /// The factor c for a total norm of this type, in which it is computed.
    #[inline]
    #[must_use]
    pub fn coefficient(&self, norm: f64, dtype: Dtype) -> f64 {
        fn in_type<C: ComputeFloat>(norm: f64, max_norm: f64) -> f64 {
            self::coefficient(C::round_from(C::scalar(norm)), max_norm).to_f64()
        }
        match dtype {
            Dtype::F64 => in_type::<f64>(norm, self.max_norm),
            Dtype::F32 => in_type::<f32>(norm, self.max_norm),
            Dtype::Bf16 => in_type::<Eager<bf16>>(norm, self.max_norm),
            Dtype::F16 => in_type::<Eager<f16>>(norm, self.max_norm),
        }
    }

    /// [`coefficient`](Self::coefficient) that obeys `error_if_nonfinite`.
    ///
    /// # Errors
    /// A norm that is NaN or infinite, with `error_if_nonfinite`.
    #[inline]
    pub fn checked_coefficient(&self, norm: f64, dtype: Dtype) -> Result<f64, Error> {
        if self.error_if_nonfinite {
            ensure_range(norm.is_finite(), "total_norm", norm, "finite")?;
        }
        Ok(self.coefficient(norm, dtype))
    }

    /// Clips in place and returns the norm before clipping.
    ///
    /// # Errors
    /// Gradients in an encoded storage; a non-finite norm, with `error_if_nonfinite`.
    /// Nothing is written then.
    ///
    /// ```
    /// use bitstep::gradient::ClipGradNorm;
    /// let mut g = [3.0f64, -4.0];
    /// let norm = ClipGradNorm::DEFAULT.clip(&mut [(&mut g).into()])?;
    /// assert_eq!(norm, 5.0);
    /// assert!((g[0] - 0.6).abs() < 1e-6 && (g[1] + 0.8).abs() < 1e-6);
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    #[inline]
    pub fn clip(&self, grads: &mut [DataMut<'_>]) -> Result<f64, Error> {
        check_plain(grads)?;
        let (norm, dtype) = total(grads.len(), &|i| grad_at(grads, i), self.norm_type);
        let c = self.checked_coefficient(norm, dtype)?;
        grads.iter_mut().for_each(|g| scale_in_place(g, c));
        Ok(norm)
    }
}

/// Scales all gradients down to a total norm (of order 2) of at most `max_norm`, in place, and returns the norm before.
///
/// For gradients of one type that is known at compile time: a fraction of the code of [`ClipGradNorm::clip`], for
/// firmware, with the same bits as its defaults.
///
/// ```
/// use bitstep::gradient::clip_grad_norm;
/// let (mut a, mut b) = ([3.0f32, 0.0], [-4.0f32]);
/// assert_eq!(clip_grad_norm(&mut [&mut a, &mut b], 1.0), 5.0);
/// assert!((a[0] - 0.6).abs() < 1e-6 && (b[0] + 0.8).abs() < 1e-6);
/// ```
pub fn clip_grad_norm<S: EagerFloat>(grads: &mut [&mut [S]], max_norm: f64) -> f64 {
    /// The norm of n values; the magnitude of a single one, so that no square overflows or underflows.
    fn norm<A: ComputeFloat>(n: usize, x: &dyn Fn(usize) -> A) -> A {
        let sum = reduce::sum_scalar(n, &|i| {
            let x = x(i).abs();
            if n == 1 { x } else { x * x }
        });
        if n == 1 { sum } else { sum.sqrt() }
    }
    let of_tensor = |grad: &[S]| {
        let at = |i: usize| grad.get(i).map_or(S::Compute::ZERO, |&x| S::Compute::load(x)).widen();
        S::Compute::round_from(norm(grad.len(), &at))
    };
    let of_norms = |i: usize| grads.get(i).map_or(S::Compute::ZERO, |g| of_tensor(g)).widen();
    let total = S::Compute::round_from(norm(grads.len(), &of_norms));
    let c = coefficient(total, max_norm).widen();
    for g in grads.iter_mut().flat_map(|grad| grad.iter_mut()) {
        *g = scaled(S::Compute::load(*g), c).store();
    }
    total.to_f64()
}

/// The factor of [`ClipGradNorm`]: min(1 / (n + 1e-6) · max_norm, 1), computed in the norm's type as torch does.
pub fn coefficient<C: ComputeFloat>(norm: C, max_norm: f64) -> C {
    let c = (C::ONE / norm.add_scalar(C::scalar(1e-6))).mul_scalar(C::scalar(max_norm));
    c.minimum(C::ONE)
}

/// TensorFlow's `clip_by_global_norm`: without ε, with sums of squares that are halved
/// and doubled again; a non-finite norm makes all elements NaN.
///
/// ```text
/// n = √(2 Σ ½ Σ g²)
/// g ← g · (clip_norm · min(1 / n, 1 / clip_norm))
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipByGlobalNorm {
    /// The largest norm that is not clipped.
    pub clip_norm: f64,
}

impl ClipByGlobalNorm {
    /// Clips in place and returns the norm before clipping.
    ///
    /// # Errors
    /// Gradients in an encoded storage. Nothing is written then.
    ///
    /// ```
    /// use bitstep::gradient::ClipByGlobalNorm;
    /// let mut g = [3.0f32, -4.0];
    /// let norm = ClipByGlobalNorm { clip_norm: 1.0 }.clip(&mut [(&mut g).into()])?;
    /// assert_eq!((norm, g), (5.0, [0.6, -0.8]));
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    #[inline]
    pub fn clip(&self, grads: &mut [DataMut<'_>]) -> Result<f64, Error> {
        check_plain(grads)?;
        let (norm, dtype) = global_norm(grads.len(), |i| grad_at(grads, i), f64::INFINITY);
        let c = match dtype {
            Dtype::F64 => self.coefficient(norm),
            Dtype::F32 => self.coefficient(norm as f32).to_f64(),
            Dtype::Bf16 => self.coefficient(Eager::<bf16>::from_f64(norm)).to_f64(),
            Dtype::F16 => self.coefficient(Eager::<f16>::from_f64(norm)).to_f64(),
        };
        grads.iter_mut().for_each(|g| scale_in_place(g, c));
        Ok(norm)
    }

    /// The factor of all gradients for a norm; NaN if that is not finite.
    #[inline(always)]
    pub fn coefficient<C: ComputeFloat>(&self, norm: C) -> C {
        let clip = C::round_from(C::scalar(self.clip_norm));
        let c = clip * (C::ONE / norm).minimum(C::ONE / clip);
        if norm.to_f64().is_finite() { c } else { C::round_from(C::scalar(f64::NAN)) }
    }
}

/// TensorFlow's norm over all tensors, after clamping their elements to ±`limit`, and its type.
#[inline]
pub(crate) fn global_norm<'a>(
    n: usize,
    grad: impl Fn(usize) -> Option<Data<'a>>,
    limit: f64,
) -> (f64, Dtype) {
    fn norm<'a, C: ComputeFloat>(
        n: usize,
        grad: &dyn Fn(usize) -> Option<Data<'a>>,
        limit: f64,
    ) -> f64 {
        let half_square =
            |i: usize| tf_half_square::<C>(grad(i).map_or(0.0, |g| norm_squared::<C>(g, limit)));
        tf_norm::<C>(reduce::sum_scalar(n, &half_square)).to_f64()
    }
    let dtype = (0..n).filter_map(&grad).map(|g| g.dtype()).reduce(promote).unwrap_or(Dtype::F32);
    let norm = match dtype {
        Dtype::F64 => norm::<f64>(n, &grad, limit),
        Dtype::F32 => norm::<f32>(n, &grad, limit),
        Dtype::Bf16 => norm::<Eager<bf16>>(n, &grad, limit),
        Dtype::F16 => norm::<Eager<f16>>(n, &grad, limit),
    };
    (norm, dtype)
}

// The parts of this norm, for backends with their own loops.

/// An element's term of its tensor's sum of squares: the square of x clamped to ±`limit`.
#[inline(always)]
pub fn clamped_square<A: ComputeFloat, T: StoredFloat>(x: T, limit: A) -> A {
    let x = A::load(x).maximum(-limit).minimum(limit);
    x * x
}

/// A tensor's term of the sum over all tensors: half its sum of squares, rounded to `C`.
#[inline(always)]
pub fn tf_half_square<C: ComputeFloat>(squares: f64) -> C::Scalar {
    C::round_from(C::scalar(squares * 0.5)).widen()
}

/// The norm, from the sum of [`tf_half_square`]s over all tensors: √(2 Σ).
#[inline(always)]
pub fn tf_norm<C: ComputeFloat>(sum: C::Scalar) -> C {
    C::round_from(sum).mul_scalar(C::scalar(2.0)).sqrt()
}

fn norm_squared<C: ComputeFloat>(grad: Data<'_>, limit: f64) -> f64 {
    fn of<A: ComputeFloat, T: StoredFloat>(x: &[T], limit: A) -> f64 {
        let at = |i: usize| x.get(i).map_or(A::ZERO, |&g| clamped_square(g, limit));
        reduce::sum(x.len(), at).to_f64()
    }
    let limit = C::round_from(C::scalar(limit)).widen();
    match grad {
        Data::F64(x) => of(x, limit),
        Data::F32(x) => of(x, limit),
        Data::Bf16(x) => of(x, limit),
        Data::F16(x) => of(x, limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Plain;

    fn small_clip_has_the_bits_of_the_general<S: EagerFloat + Plain>() {
        let values = |seed: u32, n: usize| -> [S; 1100] {
            core::array::from_fn(|i| {
                let x = (i as u32 + 1).wrapping_mul(seed).wrapping_mul(0x9e37_79b9) >> 8;
                S::from_f64(if i < n { f64::from(x) / 2e6 - 4.0 } else { 0.0 })
            })
        };
        for max_norm in [1.0, 1e3, 0.0, f64::INFINITY, f64::NAN] {
            for (n, odd) in [(1100, 0.5), (7, f64::INFINITY), (1, 3.0), (0, 1.0), (40, f64::NAN)] {
                let (mut a, mut b) = (values(3, n), [S::from_f64(odd)]);
                let (mut c, mut d) = (a, b);
                for tensors in 0..=2 {
                    let mut small = [&mut a[..n], &mut b[..]];
                    let ours = clip_grad_norm(&mut small[..tensors], max_norm);
                    let mut general = [S::data_mut(&mut c[..n]), S::data_mut(&mut d)];
                    let clip = ClipGradNorm { max_norm, ..ClipGradNorm::DEFAULT };
                    let theirs = clip.clip(&mut general[..tensors]).unwrap();
                    assert_eq!(
                        ours.to_bits() << 1,
                        theirs.to_bits() << 1,
                        "{n}, {odd}, {max_norm}"
                    );
                    for (x, y) in a.iter().chain(&b).zip(c.iter().chain(&d)) {
                        let (x, y) = (x.to_f64(), y.to_f64());
                        assert!(x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan());
                    }
                }
            }
        }
    }

    #[test]
    fn clip_of_one_type_has_the_bits_of_the_general() {
        small_clip_has_the_bits_of_the_general::<f64>();
        small_clip_has_the_bits_of_the_general::<f32>();
        small_clip_has_the_bits_of_the_general::<bf16>();
        small_clip_has_the_bits_of_the_general::<f16>();
    }

    #[test]
    fn norm_of_each_order_matches_hand_computation() {
        let g = [3.0f64, 0.0, -4.0];
        for (order, want) in [
            (2.0, 5.0),
            (1.0, 7.0),
            (f64::INFINITY, 4.0),
            (f64::NEG_INFINITY, 0.0),
            (0.0, 2.0),
            (3.0, libm::cbrt(91.0)),
        ] {
            assert!((norm(Data::F64(&g), order) - want).abs() < 1e-12, "{order}");
        }
    }

    #[test]
    fn norm_of_one_number_is_its_size_unsquared() {
        let orders = [2.0, 1.0, 3.0, 0.5, f64::INFINITY, f64::NEG_INFINITY];
        for x in [-2.29e30f32, 1e-30] {
            for order in orders {
                let (size, all) = (f64::from(x.abs()), [Data::F32(&[x])]);
                assert_eq!(norm(all[0], order), size, "{order}");
                assert_eq!(total_norm(&all, order), (size, Dtype::F32), "{order}");
                let narrow = [bf16::from_f32(x)];
                assert_eq!(norm(Data::Bf16(&narrow), order), narrow[0].to_f64().abs(), "{order}");
            }
            assert_eq!(norm(Data::F32(&[x]), 0.0), 1.0);
            assert_eq!(unscaled_norm([Data::F32(&[x])].into_iter(), 1.0), f64::from(x.abs()));
            // The norms of several tensors of one element each are squared and summed.
            let two = total_norm(&[Data::F32(&[x]), Data::F32(&[x])], 2.0).0;
            assert_eq!(two, if x < 0.0 { f64::INFINITY } else { 0.0 });
        }
        assert_eq!(norm(Data::F64(&[-1e200]), 2.0), 1e200);
    }

    #[test]
    fn root_of_an_order_is_taken_in_the_type_of_sums() {
        // As in torch: f32(1/3) is off by 3e-8 relative, which is 8 ULP of the root of 2.7e37.
        let x = [3e12f32, 0.0];
        assert_eq!(norm(Data::F32(&x), 3.0), 3_000_002_674_688.0);
    }

    #[test]
    fn clip_infinite_norm_zeroes_finite_gradients() {
        let mut g = [1.0f32, f32::INFINITY];
        let n = ClipGradNorm::default().clip(&mut [DataMut::F32(&mut g)]).unwrap();
        assert!(n.is_infinite() && g[0] == 0.0 && g[1].is_nan());
    }

    #[test]
    fn clip_nonfinite_norm_refused_leaves_gradients_alone() {
        let mut g = [1.0f32, f32::NAN];
        let clip = ClipGradNorm { error_if_nonfinite: true, ..ClipGradNorm::default() };
        assert!(clip.clip(&mut [DataMut::F32(&mut g)]).is_err());
        assert_eq!(g[0], 1.0);
    }

    #[test]
    fn clip_by_global_norm_nonfinite_makes_everything_nan() {
        let mut g = [1.0f32, f32::INFINITY];
        ClipByGlobalNorm { clip_norm: 1.0 }.clip(&mut [DataMut::F32(&mut g)]).unwrap();
        assert!(g[0].is_nan() && g[1].is_nan());
    }

    #[test]
    fn total_norm_of_mixed_types_is_in_the_wider_type() {
        let (a, b) = ([half::bf16::ONE; 4], [2.0f32; 3]);
        let (norm, dtype) = total_norm(&[Data::Bf16(&a), Data::F32(&b)], 2.0);
        assert_eq!((norm, dtype), (4.0, Dtype::F32));
    }

    #[test]
    fn order_is_its_own_kind_and_sums_are_sums() {
        let kinds = [1.0, 2.0, 0.0, 3.0].map(|order| NormKind::of(order, 2));
        assert_eq!(kinds, [NormKind::One, NormKind::Two, NormKind::Count, NormKind::Power]);
        for order in [NormKind::One, NormKind::Two, NormKind::Count, NormKind::Power] {
            assert_eq!(order.join(2.0, 3.0), 5.0);
        }
        assert_eq!(
            (NormKind::Largest.join(2.0, 3.0), NormKind::Smallest.join(2.0, 3.0)),
            (3.0, 2.0)
        );
    }

    #[test]
    fn wider_type_holds_both() {
        let same = [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16];
        assert!(same.into_iter().all(|d| promote(d, d) == d));
        assert_eq!(promote(Dtype::Bf16, Dtype::F16), Dtype::F32);
        assert_eq!(
            (promote(Dtype::F16, Dtype::F64), promote(Dtype::F64, Dtype::F16)),
            (Dtype::F64, Dtype::F64)
        );
    }

    #[test]
    #[cfg(feature = "alloc")]
    fn storages_are_refused_before_anything_is_written() {
        use crate::storage::{Companded, EncodedBuffer, StorageFormat};
        let mut coded =
            EncodedBuffer::zeros(StorageFormat::Companded(Companded::Momentum), 32).unwrap();
        let mut plain = [3.0f32];
        let got =
            clip_grad_value(&mut [DataMut::F32(&mut plain), DataMut::Encoded(&mut coded)], 1.0);
        assert!(matches!(got, Err(Error::InvalidArgument { argument: "grads", .. })), "{got:?}");
        assert_eq!(plain, [3.0]);
    }
}
