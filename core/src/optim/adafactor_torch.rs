//! PyTorch's Adafactor.

use crate::error::{Error, ensure_not_negative, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldMut, FieldVisitor, HyperParams};
use crate::math;
use crate::math::reduce;
use crate::rule::factored::FactoredUpdate;
use crate::rule::{Rule, ScalarState, StepContext};

/// PyTorch's Adafactor: like [`crate::optim::Adafactor`], but ε₁ is a floor, the learning rate bounds the relative
/// step, and there is no first moment.
///
/// # Formula
/// ```text
/// w ← t^beta2_decay
/// α ← max(ε₂, RMS(p)) min(η, 1/√t)
/// p ← p − η λ p
/// V ← (1 − w) V + w G²                   kept as row averages R and column averages C:
///                                        V = R Cᵀ / max(mean(R), ε₁)
/// U ← G / max(√V, ε₁)
/// p ← p − α U / max(1, RMS(U) / d)
/// ```
/// `maximize` negates G.
///
/// # Order of operations
/// ```text
/// a ← −max(ε₂, √Σp² / √n) · min(η, 1/√t) / max(1, √Σu² / (√n · d))
/// p ← p · (1 − η λ)
/// R ← lerp(R, (√Σg²)² / columns, w)      C ← lerp(C, (√Σg²)² / rows, w)
/// s ← 1 / √max(R · C / max(Σ R / rows, ε₁), ε₁²)     below two dimensions 1 / √max(v, ε₁²)
/// u ← s · g
/// p ← p + a · u                          with foreach p + (u · a)
/// ```
/// a is computed in f64 from norms that were rounded to the parameter's type.
///
/// # Source
/// Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018. Reference:
/// `torch.optim.Adafactor`. Where `eps[0]` is none, the machine epsilon of the first parameter of the group that has a
/// gradient is used for the whole group. `foreach` rounds once more, which matters in 16-bit types.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-2 |
/// | `beta2_decay` | | ≤ 0 | −0.8 |
/// | `eps` | ε₁, ε₂ | ≥ 0; ε₁ none for the type's epsilon | none, 1e-3 |
/// | `d` | d | ≥ 1 | 1 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `foreach` | | | none |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `variance` | 0 | V of a tensor below two dimensions |
/// | `row_var` | 0 | R, one value for each row of the last two dimensions |
/// | `col_var` | 0 | C, one value for each column |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient makes its row, its column and, through the mean of rows, every element NaN. A NaN RMS(U) does not
/// clip, and a NaN RMS(p) counts as ε₂.
///
/// # Example
/// At t = 1 w is 1, so V is the squared gradient, u is a sign, and α = RMS(p) · min(η, 1).
/// ```
/// use bitstep::prelude::*;
/// let rule = AdafactorTorch { weight_decay: 1.0, ..AdafactorTorch::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.25, &mut p, &[-3.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (2.0, 9.0)); // 2 · (1 − 0.25) + 2 · 0.25
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorTorch {
    /// Learning rate; bounds the relative step.
    pub lr: f64,
    /// Exponent of the weight of new squares.
    pub beta2_decay: f64,
    /// Floor of the root of second moments; least scale of a parameter.
    pub eps: (Option<f64>, f64),
    /// The largest RMS of an update before the learning rate.
    pub d: f64,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
    /// Whether the update is multiplied by its rate before it is added.
    pub foreach: Option<bool>,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl AdafactorTorch {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdafactorTorch {
        lr: 1e-2,
        beta2_decay: -0.8,
        eps: (None, 1e-3),
        d: 1.0,
        weight_decay: 0.0,
        foreach: None,
        maximize: false,
    };
}

impl Default for AdafactorTorch {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight: S,
        decay: S,
        /// ε₁ and its square.
        eps: S,
        eps_squared: S,
        least_scale: f64,
        rate: f64,
        d: f64,
        /// −α over the divisor that clips the update; set once the sums are known.
        minus_step_size: S,
        multiplies_first: bool,
        maximize: bool,
        single: bool,
    }
}

impl HyperParams for AdafactorTorch {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        let (eps1, eps2) = &mut self.eps;
        f.f64("lr", &mut self.lr);
        f.f64("beta2_decay", &mut self.beta2_decay);
        f.tuple("eps", &mut [FieldMut::OptF64(eps1), FieldMut::F64(eps2)]);
        f.f64("d", &mut self.d);
        f.f64("weight_decay", &mut self.weight_decay);
        f.opt_bool("foreach", &mut self.foreach);
        f.bool("maximize", &mut self.maximize);
    }
}

/// The distance from 1 to the next larger value.
const fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F64 => f64::EPSILON,
        Dtype::F32 => f32::EPSILON as f64,
        Dtype::Bf16 => 1.0 / 128.0,
        Dtype::F16 => 1.0 / 1024.0,
    }
}

/// 1 / √max(v, ε₁²).
#[inline(always)]
fn scale_of<C: ComputeFloat>(k: &Coefs<C::Scalar>, v: C) -> C {
    v.maximum(C::round_from(k.eps_squared)).rsqrt()
}

impl Rule for AdafactorTorch {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adafactor_torch";
    const SLOTS: &'static [&'static str] = &["variance"];
    const SLOT_MASKS: &'static [u32] = &[0b1, 0b0];
    const NUM_SUMS: usize = 2;
    const PARAM_ONLY_SUMS: u32 = 0b01;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_range(self.beta2_decay <= 0.0, "beta2_decay", self.beta2_decay, "<= 0")?;
        ensure_not_negative("eps[0]", self.eps.0.unwrap_or(0.0))?;
        ensure_not_negative("eps[1]", self.eps.1)?;
        ensure_range(self.d >= 1.0, "d", self.d, ">= 1")?;
        ensure_not_negative("weight_decay", self.weight_decay)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }
    fn maximizes(&self) -> bool {
        self.maximize
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let t = step.t_f64();
        let relative = 1.0 / libm::sqrt(t);
        let eps =
            self.eps.0.unwrap_or(epsilon(step.group_dtype.or(step.dtype).unwrap_or(C::DTYPE)));
        Coefs {
            weight: C::scalar(math::pow(t, self.beta2_decay)),
            decay: C::foreach_scalar(
                step.decay_factor(self.weight_decay),
                self.foreach == Some(true),
            ),
            eps: C::scalar(eps),
            eps_squared: C::scalar(eps * eps),
            least_scale: self.eps.1,
            rate: if relative < step.lr { relative } else { step.lr },
            d: self.d,
            minus_step_size: C::Scalar::ZERO,
            multiplies_first: self.foreach == Some(true),
            maximize: self.maximize,
            single: step.is_single(),
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [v]: [C; 1]) -> [C::Scalar; 2] {
        let v = v.lerp(g * g, k.weight);
        Self::factored_terms(k, p, g, scale_of(k, v), [v])
    }

    fn apply_sums<C: ComputeFloat>(k: &mut Coefs<C::Scalar>, sums: [C::Scalar; 2], n: usize) {
        let root = ComputeFloat::sqrt(n as f64);
        let [p, u] = sums.map(|sum| C::round_from(reduce::root(sum, k.single)).to_f64());
        let rms = p / root;
        let alpha = if rms > k.least_scale { rms } else { k.least_scale } * k.rate;
        let clip = u / (root * k.d);
        let minus_step_size = -alpha / if clip > 1.0 { clip } else { 1.0 };
        k.minus_step_size = C::foreach_scalar(minus_step_size, k.multiplies_first);
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [v]: [C; 1]) -> (C, [C; 1]) {
        let v = v.lerp(g * g, k.weight);
        Self::factored_update(k, p, g, scale_of(k, v), [v])
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        p.mul_scalar(k.decay) + direction
    }
}

impl FactoredUpdate for AdafactorTorch {
    const SLOT_NAMES: &'static [&'static str] = &["variance", "row_var", "col_var"];
    const FACTORED_SLOTS: u32 = 0b1;
    const KEEPDIM: bool = true;

    #[inline(always)]
    fn accumulate_term<C: ComputeFloat>(_: &Coefs<C::Scalar>, g: C) -> C::Scalar {
        g.widen() * g.widen()
    }

    #[inline(always)]
    fn mean<C: ComputeFloat>(_: &Coefs<C::Scalar>, sum: C::Scalar, n: C::Scalar) -> C {
        let norm = C::round_from(sum.sqrt());
        (norm * norm).div_scalar(n)
    }

    #[inline(always)]
    fn update_moment<C: ComputeFloat>(k: &Coefs<C::Scalar>, old: C, mean: C) -> C {
        old.lerp(mean, k.weight)
    }

    #[inline(always)]
    fn mean_of_rows<C: ComputeFloat>(k: &Coefs<C::Scalar>, sum: C::Scalar, n: C::Scalar) -> C {
        C::round_from(sum / n).maximum(C::round_from(k.eps))
    }

    #[inline(always)]
    fn element_scale<C: ComputeFloat>(k: &Coefs<C::Scalar>, row: C, col: C, mean_of_rows: C) -> C {
        scale_of(k, row * col / mean_of_rows)
    }

    #[inline(always)]
    fn factored_terms<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        scale: C,
        _: [C; 1],
    ) -> [C::Scalar; 2] {
        let u = scale * g;
        [reduce::square(p.widen(), k.single), reduce::square(u.widen(), k.single)]
    }

    #[inline(always)]
    fn factored_update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        scale: C,
        [v]: [C; 1],
    ) -> (C, [C; 1]) {
        let u = scale * if k.maximize { -g } else { g };
        let p = p.mul_scalar(k.decay);
        let twice = p + u.mul_scalar(k.minus_step_size);
        (if k.multiplies_first { twice } else { p.add_scaled(u, k.minus_step_size) }, [v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_operations_is_the_one_of_foreach_where_it_is_asked_for() {
        for (foreach, expected) in [(None, false), (Some(false), false), (Some(true), true)] {
            let rule = AdafactorTorch { foreach, ..AdafactorTorch::default() };
            let coefs = rule.coefs::<f32>(&StepContext::new(1, 0.5), &rule.scalars());
            assert_eq!(coefs.multiplies_first, expected);
        }
    }
}
