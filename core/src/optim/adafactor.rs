//! Transformers' Adafactor.

use crate::error::Error;
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math;
use crate::math::reduce;
use crate::rule::factored::FactoredUpdate;
use crate::rule::{Rule, ScalarState, StepContext};

/// Adafactor: second moments of matrices by row and column, with a learning rate of its own or the caller's.
///
/// # Formula
/// ```text
/// ρ ← min(10⁻², 1/√t)                    relative_step; with warmup_init min(10⁻⁶ t, 1/√t)
/// ρ ← η                                  otherwise
/// α ← max(ε₂, RMS(p)) ρ                  scale_parameter; otherwise ρ
/// β ← 1 − t^decay_rate
/// V ← β V + (1 − β) (G² + ε₁)            kept as row averages R and column averages C:
///                                        V = R Cᵀ / mean(R)
/// U ← G / √V
/// U ← α U / max(1, RMS(U) / d)
/// U ← M ← β₁ M + (1 − β₁) U              if beta1 is set
/// p ← p − α λ p − U
/// ```
///
/// # Order of operations
/// ```text
/// x ← g · g + ε₁
/// R ← R · β + (1 − β) · (Σ x / columns)        C ← C · β + (1 − β) · (Σ x / rows)
/// r ← 1 / √(R / (Σ R / rows))                  c ← 1 / √C
/// u ← (r · c) · g                              below two dimensions (1 / √v) · g
/// u ← u / max(1, (√Σu² / √n) / d) · α
/// m ← m · β₁ + (1 − β₁) · u
/// p ← p + (−λ α) · p
/// p ← p − u
/// ```
/// α is f32(RMS(p)) · f32(ρ) if RMS(p) > ε₂, else max(ε₂, …) · ρ rounded once (for `f64` parameters everything is
/// `f64`). If √Σu² is NaN, so is the update.
///
/// # Source
/// Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018. Reference:
/// `transformers.optimization.Adafactor`, which computes 16-bit parameters in `f32` and keeps their state in `f32`.
/// Unlike the paper it averages squares instead of summing them, and the first moment averages updates that contain α.
/// [`crate::optim::AdafactorTorch`] is a different rule.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | set if and only if not `relative_step` | none |
/// | `eps` | ε₁, ε₂ | any | 1e-30, 1e-3 |
/// | `clip_threshold` | d | any | 1 |
/// | `decay_rate` | | any | −0.8 |
/// | `beta1` | β₁ | any, or none | none |
/// | `weight_decay` | λ | any | 0 |
/// | `scale_parameter` | | | true |
/// | `relative_step` | | | true |
/// | `warmup_init` | | only with `relative_step` | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | M; with `beta1` only |
/// | `exp_avg_sq` | 0 | V of a tensor below two dimensions |
/// | `exp_avg_sq_row` | 0 | R, one value for each row of the last two dimensions |
/// | `exp_avg_sq_col` | 0 | C, one value for each column |
/// | `RMS` | 0 | a scalar: RMS(p) before the step |
///
/// All of it is `f32` for 16-bit parameters.
///
/// # Errors
/// Both `lr` and `relative_step`, or neither; `warmup_init` without `relative_step`.
///
/// # Non-finite input
/// A NaN gradient makes its row and column of state NaN, and through RMS(U) the whole parameter. An infinite one makes
/// its own update NaN, with the same result. A NaN in the parameter counts as RMS(p) ≤ ε₂ and stays in its element.
///
/// # Example
/// At t = 1 β is 0, so V is the squared gradient, the |u| of a single element is 1, and α = 0.5.
/// ```
/// use bitstep::{prelude::*, rule::factored::FactoredRule};
///
/// let rule = Adafactor { lr: Some(0.5), scale_parameter: false, relative_step: false, ..Adafactor::DEFAULT };
/// let mut opt = Optimizer::new(OptimizerSpec::new(FactoredRule(rule), ComputePolicy::Fused))?;
/// let w = opt.add_param(&[1, 1], Dtype::F64)?;
/// let mut p = [3.0];
/// opt.step([(w, DataMut::F64(&mut p), Data::F64(&[-2.0]))])?;
/// assert_eq!(p, [3.5]);
/// let [_, _, row, col] = &opt.params()[w.0].slots[..] else { unreachable!() };
/// assert!(matches!((row.data(), col.data()), (Some(Data::F64([4.0])), Some(Data::F64([4.0])))));
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// Learning rate; `None` if `relative_step`.
    pub lr: Option<f64>,
    /// ε₁, added to every squared gradient; ε₂, the least scale of a parameter.
    pub eps: (f64, f64),
    /// The largest RMS of an update before the learning rate.
    pub clip_threshold: f64,
    /// Exponent of the decay of second moments.
    pub decay_rate: f64,
    /// Decay of the average of updates.
    pub beta1: Option<f64>,
    /// Weight decay, decoupled.
    pub weight_decay: f64,
    /// Whether the learning rate is multiplied by the parameter's RMS.
    pub scale_parameter: bool,
    /// Whether the learning rate is a function of the step.
    pub relative_step: bool,
    /// Whether the relative learning rate warms up from near 0.
    pub warmup_init: bool,
}

impl Adafactor {
    /// The reference's defaults.
    pub const DEFAULT: Self = Adafactor {
        lr: None,
        eps: (1e-30, 1e-3),
        clip_threshold: 1.0,
        decay_rate: -0.8,
        beta1: None,
        weight_decay: 0.0,
        scale_parameter: true,
        relative_step: true,
        warmup_init: false,
    };
}

impl Default for Adafactor {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Adafactor {
    /// ρ: the learning rate before it is scaled by the parameter.
    #[must_use]
    pub fn relative_lr(&self, step: &StepContext) -> f64 {
        if !self.relative_step {
            return step.lr;
        }
        let t = step.t_f64();
        let cap = if self.warmup_init { 1e-6 * t } else { 1e-2 };
        cap.min(1.0 / libm::sqrt(t))
    }

    /// α, the learning rate in effect, from the state's `RMS`: the value that AdafactorSchedule reports.
    #[must_use]
    pub fn effective_lr(&self, step: &StepContext, rms: f64) -> f64 {
        let floor = self.eps.1;
        let scale = if rms > floor { rms } else { floor };
        self.relative_lr(step) * if self.scale_parameter { scale } else { 1.0 }
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        beta2: S,
        one_minus_beta2: S,
        eps: S,
        clip_threshold: S,
        beta1: S,
        one_minus_beta1: S,
        has_beta1: bool,
        is_scalar: bool,
        scale_parameter: bool,
        has_decay: bool,
        /// Whether a direction is computed, which has no decay: 0 times an infinite one is NaN.
        is_direction: bool,
        /// ε₂, the least RMS(p) that scales the rate.
        least_rms: S,
        relative_lr: S,
        minus_weight_decay: S,
        rms: S,
        /// Rate and decay for RMS(p) ≤ ε₂, which `apply_sums` replaces where RMS(p) is larger.
        lr: S,
        minus_decay: S,
        /// The divisor of the update.
        clip: S,
    }
}

impl HyperParams for Adafactor {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.opt_f64("lr", &mut self.lr);
        f.pair("eps", &mut self.eps.0, &mut self.eps.1);
        f.f64("clip_threshold", &mut self.clip_threshold);
        f.f64("decay_rate", &mut self.decay_rate);
        f.opt_f64("beta1", &mut self.beta1);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("scale_parameter", &mut self.scale_parameter);
        f.bool("relative_step", &mut self.relative_step);
        f.bool("warmup_init", &mut self.warmup_init);
    }
}

/// The parameter moved by u / clip · α or by its running average, and that average.
#[inline(always)]
fn descend<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, u: C, m: C) -> (C, C) {
    let u = u.div_scalar(k.clip).mul_scalar(k.lr);
    let m = m.mul_scalar(k.beta1).add_scaled(u, k.one_minus_beta1);
    let u = if k.has_beta1 { m } else { u };
    (if k.is_direction { p } else { decay(k, p) } - u, m)
}

#[inline(always)]
fn decay<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C) -> C {
    if k.has_decay { p.add_scaled(p, k.minus_decay) } else { p }
}

/// The squares that RMS(p) and RMS(u) average.
#[inline(always)]
fn squares<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, u: C) -> [C::Scalar; 2] {
    [reduce::square(p.widen(), k.is_scalar), reduce::square(u.widen(), k.is_scalar)]
}

impl Rule for Adafactor {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adafactor";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b00, 0b01, 0b10, 0b11];
    const SCALAR_NAMES: &'static [&'static str] = &["RMS"];
    const NUM_SUMS: usize = 2;
    const PARAM_ONLY_SUMS: u32 = 0b01;

    fn check(&self) -> Result<(), Error> {
        if self.lr.is_some() == self.relative_step {
            return Err(Error::InvalidArgument {
                argument: "lr",
                expected: "either lr or relative_step",
            });
        }
        if self.warmup_init && !self.relative_step {
            return Err(Error::InvalidArgument {
                argument: "warmup_init",
                expected: "relative_step = true",
            });
        }
        Ok(())
    }

    fn lr(&self) -> f64 {
        self.lr.unwrap_or(0.0)
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn active_slots(&self, _: Dtype) -> u32 {
        if self.beta1.is_some() { 0b11 } else { 0b10 }
    }

    fn slot_dtype(&self, _: usize, param: Dtype) -> Dtype {
        if param == Dtype::F64 { Dtype::F64 } else { Dtype::F32 }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let beta2 = 1.0 - math::pow(step.t_f64(), self.decay_rate);
        let lr = self.effective_lr(step, 0.0);
        let beta1 = self.beta1.unwrap_or(0.0);
        Coefs {
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            eps: C::scalar(self.eps.0),
            clip_threshold: C::scalar(self.clip_threshold),
            beta1: C::scalar(beta1),
            one_minus_beta1: C::scalar(1.0 - beta1),
            has_beta1: self.beta1.is_some(),
            is_scalar: step.is_single(),
            scale_parameter: self.scale_parameter,
            has_decay: self.weight_decay != 0.0,
            is_direction: step.projected.is_some(),
            least_rms: C::scalar(self.eps.1),
            relative_lr: C::scalar(self.relative_lr(step)),
            minus_weight_decay: C::scalar(-self.weight_decay),
            rms: C::Scalar::ZERO,
            lr: C::scalar(lr),
            minus_decay: C::scalar(-self.weight_decay * lr),
            clip: C::Scalar::ONE,
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [_, v]: [C; 2],
    ) -> [C::Scalar; 2] {
        let v = Self::update_moment(k, v, C::round_from(Self::accumulate_term(k, g)));
        squares(k, p, v.rsqrt() * g)
    }

    fn apply_sums<C: ComputeFloat>(k: &mut Coefs<C::Scalar>, [p, u]: [C::Scalar; 2], n: usize) {
        // A projection of rank 0 has no elements, and its parameter an RMS.
        let n = if k.is_direction { n.max(1) } else { n };
        let root = C::scalar(ComputeFloat::sqrt(n as f64));
        let [p, u] = [p, u].map(|sum| reduce::root(sum, k.is_scalar));
        k.rms = p / root;
        if k.scale_parameter && k.rms > k.least_rms {
            k.lr = k.rms * k.relative_lr;
            k.minus_decay = k.minus_weight_decay * k.lr;
        }
        k.clip = (u / root / k.clip_threshold).maximum(C::Scalar::ONE);
    }

    fn export_scalars<C: ComputeFloat>(k: &Coefs<C::Scalar>, scalars: &mut ScalarState) {
        let [rms, ..] = scalars;
        *rms = k.rms.to_f64();
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let v = Self::update_moment(k, v, C::round_from(Self::accumulate_term(k, g)));
        let (p, m) = descend(k, p, v.rsqrt() * g, m);
        (p, [m, v])
    }

    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        decay(k, p) + direction
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl FactoredUpdate for Adafactor {
    const SLOT_NAMES: &'static [&'static str] =
        &["exp_avg", "exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col"];
    const FACTORED_SLOTS: u32 = 0b10;

    #[inline(always)]
    fn accumulate_term<C: ComputeFloat>(k: &Coefs<C::Scalar>, g: C) -> C::Scalar {
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
        _: [C; 2],
    ) -> [C::Scalar; 2] {
        squares(k, p, scale * g)
    }

    #[inline(always)]
    fn factored_update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        scale: C,
        [m, v]: [C; 2],
    ) -> (C, [C; 2]) {
        let (p, m) = descend(k, p, scale * g, m);
        (p, [m, v])
    }
}
