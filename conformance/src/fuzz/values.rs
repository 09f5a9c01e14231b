//! Patterns of numbers: ordinary ones, and those at which arithmetic changes.

use fastrand::Rng;

use crate::tensor::{Dtype, Tensor};

/// A pattern of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Pattern {
    /// Of either sign, most of them between ¹⁄₁₆ and 4.
    Ordinary,
    /// Of the sizes that gradients have: 1e-6 to 1e-1.
    Small,
    /// The same numbers at every step.
    Constant,
    /// Many magnitudes in one tensor: 2⁻²⁰ to 2²⁰.
    Magnitudes,
    /// Exact zeros of both signs among ordinary numbers.
    Zeros,
    /// Below the smallest normal number.
    Denormals,
    /// Squares that underflow to 0.
    Underflow,
    /// Squares that overflow.
    Overflow,
    /// Against the step before, so that a momentum nearly cancels.
    AgainstMomentum,
    /// Against the decay of the parameter: g = −weight_decay · p, nearly.
    AgainstDecay,
    /// Few bits, so that roundings to narrow types are ties.
    Ties,
    /// NaN or an infinity in one element at one step.
    NonFinite,
}

impl Pattern {
    /// Those of the profile `ordinary`.
    pub(crate) const ORDINARY: &'static [Pattern] =
        &[Pattern::Ordinary, Pattern::Small, Pattern::Constant, Pattern::Zeros];
    /// Those of the profile `edges`.
    pub(crate) const EDGES: &'static [Pattern] = &[
        Pattern::Magnitudes,
        Pattern::Zeros,
        Pattern::Denormals,
        Pattern::Underflow,
        Pattern::Overflow,
        Pattern::AgainstMomentum,
        Pattern::AgainstDecay,
        Pattern::Ties,
        Pattern::NonFinite,
    ];
    /// All of them.
    pub const ALL: &'static [Pattern] = &[
        Pattern::Ordinary,
        Pattern::Small,
        Pattern::Constant,
        Pattern::Magnitudes,
        Pattern::Zeros,
        Pattern::Denormals,
        Pattern::Underflow,
        Pattern::Overflow,
        Pattern::AgainstMomentum,
        Pattern::AgainstDecay,
        Pattern::Ties,
        Pattern::NonFinite,
    ];
}

/// The largest number of a type, and the smallest normal one.
pub(crate) fn limits(dtype: Dtype) -> (f64, f64) {
    match dtype {
        Dtype::F64 => (f64::MAX, f64::MIN_POSITIVE),
        Dtype::F16 => (65504.0, 2f64.powi(-14)),
        Dtype::Bf16 => (3.3895313892515355e38, f64::from(f32::MIN_POSITIVE)),
        _ => (f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE)),
    }
}

fn sign(rng: &mut Rng) -> f64 {
    if rng.bool() { 1.0 } else { -1.0 }
}

fn size(rng: &mut Rng, low: f64, high: f64) -> f64 {
    (low + (high - low) * rng.f64()).exp2()
}

fn ordinary(rng: &mut Rng) -> f64 {
    sign(rng) * size(rng, -4.0, 2.0)
}

/// What the numbers of one step may be drawn against.
pub(crate) struct Before<'a> {
    /// The step, from 0.
    pub(crate) t: usize,
    /// The numbers of the step before.
    pub(crate) last: &'a [f64],
    /// The parameter.
    pub(crate) param: &'a [f64],
    /// The weight decay.
    pub(crate) decay: f64,
}

/// n numbers, rounded to the type.
pub(crate) fn numbers(
    pattern: Pattern,
    dtype: Dtype,
    n: usize,
    rng: &mut Rng,
    before: &Before<'_>,
) -> Vec<f64> {
    let (max, min) = limits(dtype);
    let (low, high) = (min.log2(), max.log2());
    let special = rng.usize(..n.max(1));
    let one = |i: usize| match pattern {
        Pattern::Ordinary => ordinary(rng),
        Pattern::Small => sign(rng) * size(rng, -20.0, -3.0),
        Pattern::Constant => before.last.get(i).copied().unwrap_or_else(|| ordinary(rng)),
        Pattern::Magnitudes => sign(rng) * size(rng, (-20.0f64).max(low), 20.0f64.min(high - 1.0)),
        Pattern::Zeros if rng.usize(..3) > 0 => 0.0 * sign(rng),
        Pattern::Zeros => ordinary(rng),
        Pattern::Denormals => {
            let bits = -f64::from(dtype.float().map_or(0, |(precision, _)| precision - 1));
            sign(rng) * min * size(rng, bits, -0.01)
        }
        Pattern::Underflow => sign(rng) * size(rng, low, low / 2.0 - 1.0),
        Pattern::Overflow => sign(rng) * size(rng, high / 2.0 - 2.0, high - 0.1),
        Pattern::AgainstMomentum => match before.last.get(i) {
            Some(last) => -last * [1.0, 0.9, 9.0, 0.5, 1.0 + 1e-3][rng.usize(..5)],
            None => ordinary(rng),
        },
        Pattern::AgainstDecay => {
            let p = before.param.get(i).copied().unwrap_or(1.0);
            let decay = if before.decay == 0.0 { 0.01 } else { before.decay };
            -decay * p * [1.0, 1.0 + 1e-3, 0.5][rng.usize(..3)]
        }
        Pattern::Ties => f64::from(rng.i32(-64..=64)) / 32.0,
        Pattern::NonFinite if i == special && before.t == before.param.len() % 2 => {
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][rng.usize(..3)]
        }
        Pattern::NonFinite => ordinary(rng),
    };
    let all: Vec<f64> = (0..n).map(one).collect();
    let rounded = Tensor::round(dtype, &[n], &all);
    rounded.map_or(all, |t| t.to_f64s())
}

/// Whether a number is below the smallest normal one of its type, and not 0.
pub(crate) fn is_denormal(dtype: Dtype, x: f64) -> bool {
    x != 0.0 && x.abs() < limits(dtype).1
}
