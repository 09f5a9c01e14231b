//! StableAdamW: AdamW with Adafactor's update clipping.

use super::optimi::common as optimi;
use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, Scope, StepContext};

/// StableAdamW.
///
/// # Formula
/// ```text
/// β̂ = (βᵗ − β) / (βᵗ − 1)
/// m ← β̂₁ m + (1 − β̂₁) g
/// v ← β̂₂ v + (1 − β̂₂) g²
/// r = √mean(g² / max(v, ε²))          over the tensor
/// η' = η / max(1, r)
/// p ← p − η' λ p
/// p ← p − η' m / (√v + ε)
/// ```
/// With `decouple_lr` the decay is (η' / η_max) λ p. Where sums are rounded to 16 bits, the update is
/// Kahan-compensated: it is added to c, c is added to p, and what rounding loses stays in c.
///
/// # Order of operations
/// ```text
/// m ← lerp(m, g, 1 − β̂₁)
/// v ← v · β̂₂ + ((1 − β̂₂) · g) · g
/// r ← √(sum((g · g) / max(v, ε²)) / n)
/// p ← p · (1 − η' λ)
/// d ← √v + ε
/// p ← p + (−η') · m / d
/// ```
/// compensated, instead of the last line:
/// ```text
/// c ← c + (−η') · m / d
/// q ← p + c
/// c ← c + (p − q);  p ← q
/// ```
///
/// # Source
/// Wortsman et al., "Stable and low-precision training for large-scale vision-language models", 2023. Reference:
/// `optimi.StableAdamW` (`stable_adamw`). The weight decay also uses the rate that r has reduced.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
/// | `weight_decay` | λ | ≥ 0 | 1e-2 |
/// | `eps` | ε | ≥ 0 | 1e-6 |
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
/// The scalar `eps_sq` is ε² in the parameter's type, which in `f16` is easily 0.
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element NaN permanently. The mean is then NaN, which does not reduce the rate,
/// so the other elements step as in AdamW.
///
/// # Example
/// At t = 1 the averages are g and g² themselves, g² / v is 1, and p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = StableAdamW { weight_decay: 0.5, ..StableAdamW::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 2.0).abs() < 1e-6); // 2 · (1 − 0.5 · 0.5) + 0.5
/// let [m, v, _] = state.slots();
/// assert_eq!((m[0], v[0]), (-4.0, 16.0));
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StableAdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
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

impl StableAdamW {
    /// The reference's defaults.
    pub const DEFAULT: Self = StableAdamW {
        lr: 1e-3,
        betas: (0.9, 0.99),
        weight_decay: 1e-2,
        eps: 1e-6,
        decouple_lr: false,
        max_lr: None,
        kahan_sum: None,
        foreach: None,
        gradient_release: false,
    };
}

impl Default for StableAdamW {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step; the last two are set once the mean is known.
    pub struct Coefs<S> {
        lr: f64,
        weight_decay: f64,
        decay_base_lr: f64,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        eps: S,
        eps_sq: S,
        kahan: bool,
        foreach: bool,
        decay: S,
        minus_lr: S,
    }
}

impl HyperParams for StableAdamW {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("eps", &mut self.eps);
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

impl Rule for StableAdamW {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "stable_adamw";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "kahan_comp"];
    const SLOT_MASKS: &'static [u32] = &[0b011, 0b111];
    const SCALAR_NAMES: &'static [&'static str] = &["eps_sq"];
    const NUM_SUMS: usize = 1;

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

    fn scalar_scope(&self) -> Scope {
        Scope::Parameter
    }

    fn active_slots(&self, compute: Dtype) -> u32 {
        if optimi::kahan(self.kahan_sum, compute) { 0b111 } else { 0b011 }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let beta1 = optimi::debiased_beta(self.betas.0, step.t_f64());
        let beta2 = optimi::debiased_beta(self.betas.1, step.t_f64());
        let foreach = self.foreach == Some(true);
        Coefs {
            lr: step.lr,
            weight_decay: self.weight_decay,
            decay_base_lr: optimi::decay_base_lr(self.decouple_lr, self.max_lr, self.lr),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::foreach_scalar(beta2, foreach),
            one_minus_beta2: C::scalar(1.0 - beta2),
            eps: C::scalar(self.eps),
            eps_sq: C::round_from(C::scalar(self.eps * self.eps)).widen(),
            kahan: optimi::kahan(self.kahan_sum, C::DTYPE),
            foreach,
            decay: C::Scalar::ONE,
            minus_lr: C::Scalar::ZERO,
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        _: C,
        g: C,
        [_, v, _]: [C; 3],
    ) -> [C::Scalar; 2] {
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let ratio = g * g / v.maximum(C::round_from(k.eps_sq));
        [ratio.widen(), C::Scalar::ZERO]
    }

    fn apply_sums<C: ComputeFloat>(k: &mut Coefs<C::Scalar>, sums: [C::Scalar; 2], n: usize) {
        let rms = C::round_from(sums[0] / C::scalar(n as f64)).sqrt().to_f64();
        // As Python's max(1, rms): NaN is not larger.
        let lr = k.lr / if rms > 1.0 { rms } else { 1.0 };
        k.decay = C::foreach_scalar(optimi::decay(lr, k.weight_decay, k.decay_base_lr), k.foreach);
        k.minus_lr = C::scalar(-lr);
    }

    fn export_scalars<C: ComputeFloat>(k: &Coefs<C::Scalar>, scalars: &mut ScalarState) {
        scalars[0] = k.eps_sq.to_f64();
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v, c]: [C; 3]) -> (C, [C; 3]) {
        let m = m.lerp(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let p = p.mul_scalar(k.decay);
        let denom = v.sqrt().add_scalar(k.eps);
        if k.kahan {
            let (p, c) = optimi::add_compensated(p, c.addcdiv(m, denom, k.minus_lr));
            (p, [m, v, c])
        } else {
            (p.addcdiv(m, denom, k.minus_lr), [m, v, c])
        }
    }
}
