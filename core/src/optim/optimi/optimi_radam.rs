//! RAdam of the library `optimi`.

use super::common as optimi;
use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, Scope, StepContext};

/// optimi's RAdam.
///
/// # Formula
/// ```text
/// β̂ = (βᵗ − β) / (βᵗ − 1)
/// g ← g + λ p                        without decoupling
/// p ← p − η λ p                      with `decouple_wd`
/// p ← p − (η / η_max) λ p            with `decouple_lr`
/// m ← β̂₁ m + (1 − β̂₁) g
/// v ← β̂₂ v + (1 − β̂₂) g²
/// ρ∞ = 2 / (1 − β₂) − 1,   ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
/// r = √((ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ))
/// p ← p − η r m / (√v + ε)           if ρ > 5, else p − η m
/// ```
/// Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
/// rounding loses stays in c.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p
/// p ← p · (1 − η λ)
/// m ← lerp(m, g, 1 − β̂₁)
/// v ← v · β̂₂ + ((1 − β̂₂) · g) · g
/// d ← √v + ε
/// p ← p + (−η r) · m / d             or p + (−η) · m
/// ```
/// compensated, instead of the last line:
/// ```text
/// c ← c + (−η r) · m / d             or c + (−η) · m
/// q ← p + c
/// c ← c + (p − q);  p ← q
/// ```
///
/// # Source
/// Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020. Reference: `optimi.RAdam`
/// (`optimi_radam`).
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `eps` | ε | ≥ 0 | 1e-6 |
/// | `decouple_wd` | | | false |
/// | `decouple_lr` | | | false |
/// | `max_lr` | η_max | ≥ 0 | `lr` |
/// | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
/// | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
/// | `gradient_release` | each parameter counts its own steps | | false: the group counts |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
/// | `kahan_comp` | 0 | c; only where updates are compensated |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// At t = 1 the averages are g and g² themselves, and ρ is not above 5: p moves by η·g.
/// ```
/// use bitstep::prelude::*;
/// let rule = OptimiRAdam { weight_decay: 0.5, decouple_wd: true, ..OptimiRAdam::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// let [m, v, _] = state.slots();
/// assert_eq!((p[0], m[0], v[0]), (3.5, -4.0, 16.0)); // 2 · (1 − 0.5 · 0.5) + 0.5 · 4
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimiRAdam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decay the parameter directly instead of through the gradient.
    pub decouple_wd: bool,
    /// Decay by lr / max_lr instead of lr.
    pub decouple_lr: bool,
    /// The largest rate of the schedule; none: `lr`.
    pub max_lr: Option<f64>,
    /// Compensate 16-bit sums; none: yes.
    pub kahan_sum: Option<bool>,
    /// Round scalars as PyTorch's multi-tensor kernels do ([`ComputeFloat::foreach_scalar`]).
    pub foreach: Option<bool>,
    /// Each parameter counts its own steps.
    pub gradient_release: bool,
}

impl OptimiRAdam {
    /// The reference's defaults.
    pub const DEFAULT: Self = OptimiRAdam {
        lr: 1e-3,
        betas: (0.9, 0.99),
        weight_decay: 0.0,
        eps: 1e-6,
        decouple_wd: false,
        decouple_lr: false,
        max_lr: None,
        kahan_sum: None,
        foreach: None,
        gradient_release: false,
    };
}

impl Default for OptimiRAdam {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        couples: bool,
        weight_decay: S,
        decay: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        eps: S,
        rectified: bool,
        step_size: S,
        kahan: bool,
    }
}

impl HyperParams for OptimiRAdam {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("eps", &mut self.eps);
        f.bool("decouple_wd", &mut self.decouple_wd);
        f.bool("decouple_lr", &mut self.decouple_lr);
        f.opt_f64("max_lr", &mut self.max_lr);
        f.opt_bool("kahan_sum", &mut self.kahan_sum);
        f.opt_bool("foreach", &mut self.foreach);
        f.ignored("triton");
        f.bool("gradient_release", &mut self.gradient_release);
        // The names that a parameter group uses.
        f.f64("beta1", &mut self.betas.0);
        f.f64("beta2", &mut self.betas.1);
    }
}

impl Rule for OptimiRAdam {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "optimi_radam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "kahan_comp"];
    const SLOT_MASKS: &'static [u32] = &[0b011, 0b111];

    fn check(&self) -> Result<(), Error> {
        ensure_betas(self.betas)?;
        ensure_not_negative("eps", self.eps)?;
        optimi::check(self.lr, self.weight_decay, self.max_lr)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn resolve_defaults(&mut self) {
        self.max_lr = optimi::resolved_max_lr(self.decouple_lr, self.max_lr, self.lr);
    }

    fn step_scope(&self) -> Scope {
        optimi::step_scope(self.gradient_release)
    }

    fn active_slots(&self, compute: Dtype) -> u32 {
        if optimi::kahan(self.kahan_sum, compute) { 0b111 } else { 0b011 }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let foreach = self.foreach == Some(true);
        let beta1 = optimi::debiased_beta(self.betas.0, step.t_f64());
        let beta2 = optimi::debiased_beta(self.betas.1, step.t_f64());
        let decay_base_lr = optimi::decay_base_lr(self.decouple_lr, self.max_lr, self.lr);
        let decay = optimi::decay_unless_0(step.lr, self.weight_decay, decay_base_lr);
        let rectification = optimi::rectification(self.betas.1, step.t_f64());
        let decoupled = self.decouple_wd || self.decouple_lr;
        Coefs {
            couples: !decoupled && self.weight_decay != 0.0,
            weight_decay: C::scalar(self.weight_decay),
            decay: C::foreach_scalar(if decoupled { decay } else { 1.0 }, foreach),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::foreach_scalar(beta2, foreach),
            one_minus_beta2: C::scalar(1.0 - beta2),
            eps: C::scalar(self.eps),
            rectified: rectification.is_some(),
            step_size: C::scalar(-step.lr * rectification.unwrap_or(1.0)),
            kahan: optimi::kahan(self.kahan_sum, C::DTYPE),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v, c]: [C; 3]) -> (C, [C; 3]) {
        let g = if k.couples { g.add_scaled(p, k.weight_decay) } else { g };
        let p = p.mul_scalar(k.decay);
        let m = m.lerp(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let denom = v.sqrt().add_scalar(k.eps);
        let to = if k.kahan { c } else { p };
        let rectified = to.addcdiv(m, denom, k.step_size);
        let moved = if k.rectified { rectified } else { to.add_scaled(m, k.step_size) };
        let (p, c) = if k.kahan { optimi::add_compensated(p, moved) } else { (moved, c) };
        (p, [m, v, c])
    }
}
