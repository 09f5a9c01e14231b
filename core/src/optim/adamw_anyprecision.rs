//! AdamW with a chosen number type for each state slot, and Kahan summation.

use crate::error::Error;
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math;
use crate::rule::{Rule, ScalarState, StepContext};

/// AnyPrecisionAdamW.
///
/// # Formula
/// ```text
/// p ← p − η λ p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// u = −η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
/// p ← p + u
/// ```
/// With `use_kahan_summation`, what an addition to p loses to rounding is kept in c and added to the next one:
/// ```text
/// c ← c + u
/// p' = p + c
/// c ← c + (p − p')
/// ```
///
/// # Order of operations
/// ```text
/// p ← p · (1 − η λ)
/// m ← m · β₁,  m ← m + (1 − β₁) · g
/// v ← v · β₂,  v ← v + ((1 − β₂) · g) · g
/// d ← √v,  d ← d / √(1 − β₂ᵗ),  d ← d + ε
/// p ← p + (−η · (1 / (1 − β₁ᵗ))) · m / d        or c in the place of p, and then
/// r ← p,  p ← p + c,  r ← r − p,  c ← c + r
/// ```
/// Each assignment rounds to the type of its left-hand side, d having that of v; the operations themselves run in
/// `f32`, or in `f64` where an operand is `f64`. The corrections, including the powers, are `f32` throughout.
///
/// # Source
/// Reference: `llama_cookbook.policies.anyprecision_optimizer.AnyPrecisionAdamW` (`adamw_anyprecision`). For a
/// parameter without dimensions, d is at least `f32`.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | any | 1e-3 |
/// | `betas` | β₁, β₂ | any | 0.9, 0.999 |
/// | `eps` | ε | any | 1e-8 |
/// | `weight_decay` | λ | any | 0 |
/// | `use_kahan_summation` | | | false |
/// | `momentum_dtype` | | type of m | bf16 |
/// | `variance_dtype` | | type of v | bf16 |
/// | `compensation_buffer_dtype` | | type of c | bf16 |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
/// | `compensation` | 0 | c; with `use_kahan_summation` only |
///
/// # Errors
/// None: the reference checks nothing.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// An update below half the spacing of bf16 is not lost: updates accumulate until they change p.
/// ```
/// use bitstep::prelude::*;
/// use half::bf16;
///
/// let rule = AdamWAnyPrecision { use_kahan_summation: true, ..AdamWAnyPrecision::DEFAULT };
/// let mut state = State::new(&rule, 1, [bf16::ZERO; 3])?;
/// let (mut p, g) = ([bf16::from_f32(256.0)], [bf16::from_f32(-1.0)]);
/// rule.step(&mut state, 0.5, &mut p, &g)?;
/// let c = state.slots()[2][0];
/// // 0.5, but for moments in bf16: one spacing more
/// assert_eq!((p[0].to_f32(), c.to_f32()), (256.0, 0.503_906_25));
/// rule.step(&mut state, 1.0, &mut p, &g)?;
/// assert!(p[0].to_f32() == 258.0); // 1.5 is rounded up to the spacing, 2
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWAnyPrecision {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Keep what additions to the parameter lose to rounding.
    pub use_kahan_summation: bool,
    /// Type of the average of the gradient.
    pub momentum_dtype: Dtype,
    /// Type of the average of its square.
    pub variance_dtype: Dtype,
    /// Type of the compensation: what additions lost.
    pub compensation_buffer_dtype: Dtype,
}

impl AdamWAnyPrecision {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdamWAnyPrecision {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.0,
        use_kahan_summation: false,
        momentum_dtype: Dtype::Bf16,
        variance_dtype: Dtype::Bf16,
        compensation_buffer_dtype: Dtype::Bf16,
    };
}

impl Default for AdamWAnyPrecision {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl AdamWAnyPrecision {
    /// Whether a slot is `f64`, so that the step has to be computed in `f64`.
    #[cfg(feature = "alloc")]
    pub(crate) fn has_double(&self) -> bool {
        let types = [self.momentum_dtype, self.variance_dtype, self.compensation_buffer_dtype];
        types.contains(&Dtype::F64)
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        decay: S,
        beta1: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        sqrt_correction2: S,
        eps: S,
        minus_step_size: S,
        kahan: bool,
        param: Dtype,
        m: Dtype,
        v: Dtype,
        d: Dtype,
        c: Dtype,
    }
}

/// Rounds an intermediate result of an operation on operands of these types.
#[inline(always)]
fn via<S: ComputeFloat, const N: usize>(operands: [Dtype; N], x: S) -> S {
    if operands.contains(&Dtype::F64) {
        x
    } else if let Some((&first, others)) = operands.split_first()
        && others.iter().all(|&other| other == first)
    {
        x.rounded(Dtype::F32).part_of(first)
    } else {
        x.rounded(Dtype::F32)
    }
}

/// x + a · y of these types.
#[inline(always)]
fn add_scaled<S: ComputeFloat>(types: [Dtype; 2], x: S, y: S, a: S) -> S {
    (x + via(types, a * y)).rounded(types[0])
}

/// x + a · y / z of these types.
#[inline(always)]
fn addcdiv<S: ComputeFloat>(types: [Dtype; 3], x: S, y: S, z: S, a: S) -> S {
    (x + via(types, via(types, a * y) / z)).rounded(types[0])
}

/// A scalar that multiplies in an operation on operands of these types.
fn factor(operands: &[Dtype], x: f64) -> f64 {
    if operands.contains(&Dtype::F64) { x } else { f64::from(x as f32) }
}

/// The scalar of an addition: rounded to the type of its result first.
fn alpha(a: Dtype, b: Dtype, x: f64) -> f64 {
    if a == b { x.rounded(a) } else { factor(&[a, b], x) }
}

impl HyperParams for AdamWAnyPrecision {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        const TYPES: &[(&str, Dtype)] = &[
            ("bfloat16", Dtype::Bf16),
            ("torch.bfloat16", Dtype::Bf16),
            ("float32", Dtype::F32),
            ("torch.float32", Dtype::F32),
            ("float", Dtype::F32),
            ("torch.float", Dtype::F32),
            ("float16", Dtype::F16),
            ("torch.float16", Dtype::F16),
            ("half", Dtype::F16),
            ("torch.half", Dtype::F16),
            ("float64", Dtype::F64),
            ("torch.float64", Dtype::F64),
            ("double", Dtype::F64),
            ("torch.double", Dtype::F64),
        ];
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("use_kahan_summation", &mut self.use_kahan_summation);
        f.choice("momentum_dtype", &mut self.momentum_dtype, TYPES);
        f.choice("variance_dtype", &mut self.variance_dtype, TYPES);
        f.choice("compensation_buffer_dtype", &mut self.compensation_buffer_dtype, TYPES);
    }
}

impl Rule for AdamWAnyPrecision {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adamw_anyprecision";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "compensation"];
    const SLOT_MASKS: &'static [u32] = &[0b011, 0b111];
    const HAS_USUAL_COEFS: bool = true;

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn active_slots(&self, _: Dtype) -> u32 {
        if self.use_kahan_summation { 0b111 } else { 0b011 }
    }

    fn slot_dtype(&self, slot: usize, _: Dtype) -> Dtype {
        match slot {
            0 => self.momentum_dtype,
            1 => self.variance_dtype,
            _ => self.compensation_buffer_dtype,
        }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let correction = |beta: f64| 1.0 - math::pow(f64::from(beta as f32), step.t_f64()) as f32;
        let step_size = 1.0 / correction(beta1) * step.lr as f32;
        let param = step.dtype.unwrap_or(C::DTYPE);
        let (m, v, c) = (self.momentum_dtype, self.variance_dtype, self.compensation_buffer_dtype);
        // PyTorch divides by an f32 tensor without dimensions, whose type counts only if d has no dimensions either.
        let narrow = matches!(v, Dtype::Bf16 | Dtype::F16);
        let d = if step.shape.is_empty() && narrow { Dtype::F32 } else { v };
        Coefs {
            decay: C::scalar(factor(&[param], step.decay_factor(self.weight_decay))),
            beta1: C::scalar(factor(&[m], beta1)),
            one_minus_beta1: C::scalar(alpha(m, param, 1.0 - beta1)),
            beta2: C::scalar(factor(&[v], beta2)),
            one_minus_beta2: C::scalar(factor(&[v, param], 1.0 - beta2)),
            sqrt_correction2: C::scalar(libm::sqrtf(correction(beta2)).into()),
            eps: C::scalar(alpha(d, d, self.eps)),
            minus_step_size: C::scalar((-step_size).into()),
            kahan: self.use_kahan_summation,
            param,
            m,
            v,
            d,
            c,
        }
    }

    /// State of bf16, as is the default.
    #[inline(always)]
    fn usual_coefs<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        param: Dtype,
        active: u32,
    ) -> Option<Coefs<C::Scalar>> {
        let kahan = active == 0b111;
        let [m, v, d, c] = [Dtype::Bf16; 4];
        let types = [k.param, k.m, k.v, k.d, k.c];
        (types == [param, m, v, d, c] && k.kahan == kahan).then_some(Coefs {
            kahan,
            param,
            m,
            v,
            d,
            c,
            ..*k
        })
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, slots: [C; 3]) -> (C, [C; 3]) {
        let (p, g) = (p.widen(), g.widen());
        let [m, v, c] = slots.map(C::widen);
        let one = C::Scalar::ONE;

        let p = (p * k.decay).rounded(k.param);
        let m = (m * k.beta1).rounded(k.m);
        let m = add_scaled([k.m, k.param], m, g, k.one_minus_beta1);
        let v = (v * k.beta2).rounded(k.v);
        let squares = [k.v, k.param];
        let square = via(squares, via(squares, k.one_minus_beta2 * g) * g);
        let v = (v + square).rounded(k.v);
        let d = (v.sqrt().rounded(k.v) / k.sqrt_correction2).rounded(k.d);
        let d = (d + k.eps).rounded(k.d);

        let plain = addcdiv([k.param, k.m, k.d], p, m, d, k.minus_step_size);
        let c = addcdiv([k.c, k.m, k.d], c, m, d, k.minus_step_size);
        let summed = add_scaled([k.param, k.c], p, c, one);
        let c = add_scaled([k.c, k.param], c, (p - summed).rounded(k.param), one);
        let p = if k.kahan { summed } else { plain };
        (C::round_from(p), [C::round_from(m), C::round_from(v), C::round_from(c)])
    }
}
