//! AdaLomo: LOMO with Adafactor's second moments.

use super::lomo::Clip;
use crate::error::{Error, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math;
use crate::math::reduce;
use crate::rule::factored::FactoredUpdate;
use crate::rule::{Rule, ScalarState, Scope, StepContext};

/// AdaLomo: an adaptive step fused into the backward pass, with second moments by row and column.
///
/// # Formula
/// ```text
/// G ← G / s, clamped to ±v, times min(1, n / ‖all G / s‖)        each if set
/// β ← 1 − t^decay_rate
/// V ← β V + (1 − β) (G² + ε₁)            kept as row averages R and column averages C:
///                                        V = R Cᵀ / mean(R)
/// U ← G / √V
/// U ← U / max(1, RMS(U) / d)
/// α ← η max(ε₂, RMS(p))
/// p ← p − α λ p − α U
/// ```
///
/// # Order of operations
/// ```text
/// g ← unscaled, clamped and clipped as in Lomo
/// x ← g · g + ε₁
/// R ← R · β + (1 − β) · (Σ x / columns)        C ← C · β + (1 − β) · (Σ x / rows)
/// r ← 1 / √(R / (Σ R / rows))                  c ← 1 / √C
/// u ← (r · c) · g                              below two dimensions (1 / √v) · g
/// u ← u / max(1, (√Σu² / √n) / d)
/// p ← p · (1 − α λ)
/// p ← p + (−α) · u
/// ```
/// All in `f32`, for `f64` parameters too. If RMS(p) exceeds ε₂, α and 1 − αλ are `f32` products, else `f64` products
/// rounded once.
///
/// # Source
/// Lv et al., "AdaLomo: Low-memory Optimization with Adaptive Learning Rate", 2023. Reference: `lomo_optim.AdaLomo`,
/// whose step counter is the model's. The reference takes tensors of one or two dimensions; here leading dimensions are
/// batches.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | any | 1e-3 |
/// | `loss_scale` | s | any; 0 or none for no division | 1024 |
/// | `eps` | ε₁, ε₂ | any | 1e-30, 1e-3 |
/// | `clip_threshold` | d | any | 1 |
/// | `decay_rate` | | any | −0.8 |
/// | `clip_grad_norm` | n | > 0, or none | none |
/// | `clip_grad_value` | v | any, or none | none |
/// | `weight_decay` | λ | any; above 0 it decays | 0 |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg_sq` | 0 | V of a tensor below two dimensions |
/// | `exp_avg_sq_row` | 0 | R, one value for each row of the last two dimensions |
/// | `exp_avg_sq_col` | 0 | C, one value for each column |
///
/// All of it is `f32`. `step_num` belongs to the group: it counts every step, also for parameters without a gradient.
///
/// # Errors
/// `clip_grad_norm` at most 0; a step without the norm that it needs.
///
/// # Non-finite input
/// A NaN gradient makes its parameter NaN, and under `clip_grad_norm` every parameter.
///
/// # Example
/// At t = 1 β is 0, so V is the squared gradient, u is a sign, and α = 0.5 · RMS(p).
/// ```
/// use bitstep::prelude::*;
/// let rule = AdaLomo { weight_decay: 0.5, ..AdaLomo::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4096.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (2.0, 16.0)); // 2 · (1 − 0.5) + 1
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaLomo {
    /// Learning rate.
    pub lr: f64,
    /// The factor by which the loss, and so every gradient, was multiplied.
    pub loss_scale: Option<f64>,
    /// ε₁, added to every squared gradient; ε₂, the least scale of a parameter.
    pub eps: (f64, f64),
    /// The largest RMS of an update before the learning rate.
    pub clip_threshold: f64,
    /// Exponent of the decay of second moments.
    pub decay_rate: f64,
    /// The largest norm over all gradients.
    pub clip_grad_norm: Option<f64>,
    /// The largest absolute value of a gradient.
    pub clip_grad_value: Option<f64>,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
}

impl AdaLomo {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdaLomo {
        lr: 1e-3,
        loss_scale: Some(1024.0),
        eps: (1e-30, 1e-3),
        clip_threshold: 1.0,
        decay_rate: -0.8,
        clip_grad_norm: None,
        clip_grad_value: None,
        weight_decay: 0.0,
    };
}

impl Default for AdaLomo {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl AdaLomo {
    fn scale(&self) -> Option<f64> {
        self.loss_scale.filter(|&s| s != 0.0)
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        clip: Clip<S>,
        beta2: S,
        one_minus_beta2: S,
        eps: S,
        clip_threshold: S,
        /// ε₂, the least RMS(p) that scales the rate.
        least_rms: S,
        lr: S,
        weight_decay: S,
        /// Rate and decay for RMS(p) ≤ ε₂, which `apply_sums` replaces where RMS(p) is larger.
        minus_step_size: S,
        decay: S,
        /// The divisor of the update.
        divisor: S,
        decays: bool,
        single: bool,
    }
}

impl HyperParams for AdaLomo {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.opt_f64("loss_scale", &mut self.loss_scale);
        f.pair("eps", &mut self.eps.0, &mut self.eps.1);
        f.f64("clip_threshold", &mut self.clip_threshold);
        f.f64("decay_rate", &mut self.decay_rate);
        f.opt_f64("clip_grad_norm", &mut self.clip_grad_norm);
        f.opt_f64("clip_grad_value", &mut self.clip_grad_value);
        f.f64("weight_decay", &mut self.weight_decay);
    }
}

impl Rule for AdaLomo {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adalomo";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b1, 0b0];
    const STEP_SCOPE: Scope = Scope::Group;
    const STEP_KEY: &'static str = "step_num";
    const NUM_SUMS: usize = 2;
    const PARAM_ONLY_SUMS: u32 = 0b01;

    fn check(&self) -> Result<(), Error> {
        let norm = self.clip_grad_norm.unwrap_or(1.0);
        // As in the reference, NaN passes.
        ensure_range(norm > 0.0 || norm.is_nan(), "clip_grad_norm", norm, "> 0")
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn grad_norm_divisor(&self, _: &[(&str, f64)]) -> Option<f64> {
        self.clip_grad_norm.map(|_| self.scale().unwrap_or(1.0))
    }

    fn slot_dtype(&self, _: usize, _: Dtype) -> Dtype {
        Dtype::F32
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let beta2 = 1.0 - math::pow(step.t_f64(), self.decay_rate);
        let (least_scale, norm) = (self.eps.1, step.grad_norm);
        Coefs {
            clip: Clip::new(self.scale(), norm, self.clip_grad_norm, self.clip_grad_value),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            eps: C::scalar(self.eps.0),
            clip_threshold: C::scalar(self.clip_threshold),
            least_rms: C::scalar(least_scale),
            lr: C::scalar(step.lr),
            weight_decay: C::scalar(self.weight_decay),
            minus_step_size: C::scalar(-(step.lr * least_scale)),
            decay: C::scalar(1.0 - step.lr * least_scale * self.weight_decay),
            divisor: C::Scalar::ONE,
            decays: self.weight_decay > 0.0,
            single: step.is_single(),
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [v]: [C; 1]) -> [C::Scalar; 2] {
        let v = Self::update_moment(k, v, C::round_from(Self::accumulate_term(k, g)));
        Self::factored_terms(k, p, g, v.rsqrt(), [v])
    }

    fn apply_sums<C: ComputeFloat>(k: &mut Coefs<C::Scalar>, [p, u]: [C::Scalar; 2], n: usize) {
        let root = C::scalar(ComputeFloat::sqrt(n as f64));
        let [p, u] = [p, u].map(|sum| reduce::root(sum, k.single));
        let rms = p / root;
        if rms > k.least_rms {
            let step_size = rms * k.lr;
            k.minus_step_size = -step_size;
            k.decay = C::Scalar::ONE - step_size * k.weight_decay;
        }
        k.divisor = (u / root / k.clip_threshold).maximum(C::Scalar::ONE);
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [v]: [C; 1]) -> (C, [C; 1]) {
        let v = Self::update_moment(k, v, C::round_from(Self::accumulate_term(k, g)));
        Self::factored_update(k, p, g, v.rsqrt(), [v])
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        (if k.decays { p.mul_scalar(k.decay) } else { p }) + direction
    }
}

impl FactoredUpdate for AdaLomo {
    const SLOT_NAMES: &'static [&'static str] = &["exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"];
    const FACTORED_SLOTS: u32 = 0b1;

    #[inline(always)]
    fn accumulate_term<C: ComputeFloat>(k: &Coefs<C::Scalar>, g: C) -> C::Scalar {
        let g = k.clip.apply(g);
        (g * g).widen().add_scalar(k.eps)
    }

    #[inline(always)]
    fn update_moment<C: ComputeFloat>(k: &Coefs<C::Scalar>, old: C, mean: C) -> C {
        old.mul_scalar(k.beta2).add_scaled(mean, k.one_minus_beta2)
    }

    #[inline(always)]
    fn row_factor<C: ComputeFloat>(_: &Coefs<C::Scalar>, row: C, mean_of_rows: C) -> C {
        (row / mean_of_rows).rsqrt()
    }

    #[inline(always)]
    fn col_factor<C: ComputeFloat>(_: &Coefs<C::Scalar>, col: C) -> C {
        col.rsqrt()
    }

    #[inline(always)]
    fn element_scale<C: ComputeFloat>(_: &Coefs<C::Scalar>, row: C, col: C, _: C) -> C {
        row * col
    }

    #[inline(always)]
    fn factored_terms<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        scale: C,
        _: [C; 1],
    ) -> [C::Scalar; 2] {
        let u = scale * k.clip.apply(g);
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
        let u = (scale * k.clip.apply(g)).div_scalar(k.divisor);
        let p = if k.decays { p.mul_scalar(k.decay) } else { p };
        (p.add_scaled(u, k.minus_step_size), [v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_decay_the_parameter_is_not_multiplied() {
        for (weight_decay, expected) in [(0.0, false), (0.5, true)] {
            let rule = AdaLomo { weight_decay, ..AdaLomo::default() };
            assert_eq!(
                rule.coefs::<f32>(&StepContext::new(1, 0.5), &rule.scalars()).decays,
                expected
            );
        }
    }
}
