//! Lion of the library `optimi`.

use super::common as optimi;
use crate::error::{Error, ensure_betas};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// optimi's Lion.
///
/// # Formula
/// ```text
/// p ← p − η λ p                      or p − (η / η_max) λ p with `decouple_lr`
/// u = sign(β₁ m + (1 − β₁) g)
/// m ← β₂ m + (1 − β₂) g
/// p ← p − η u
/// ```
/// Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
/// rounding loses stays in c.
///
/// # Order of operations
/// ```text
/// p ← p · (1 − η λ)
/// u ← sign(lerp(m, g, 1 − β₁))
/// m ← lerp(m, g, 1 − β₂)
/// p ← p + (−η) · u
/// ```
/// compensated, instead of the last line:
/// ```text
/// c ← c + (−η) · u
/// q ← p + c
/// c ← c + (p − q);  p ← q
/// ```
///
/// # Source
/// Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Reference: `optimi.Lion` (`optimi_lion`).
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-4 (the reference has none) |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.99 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `decouple_lr` | | | false |
/// | `max_lr` | η_max | ≥ 0 | `lr` |
/// | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
/// | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `kahan_comp` | 0 | c; only where updates are compensated |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// An infinite gradient steps by its sign, but makes m infinite; NaN makes m NaN. The sign of NaN is 0: the parameter
/// then only decays.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = OptimiLion { betas: (0.5, 0.75), weight_decay: 0.5, ..OptimiLion::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (2.0, -1.0)); // 2 · (1 − 0.5 · 0.5) + 0.5
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimiLion {
    /// Learning rate.
    pub lr: f64,
    /// Weight of the average in the update, and its decay.
    pub betas: (f64, f64),
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay by lr / max_lr instead of lr.
    pub decouple_lr: bool,
    /// The largest rate of the schedule; none: `lr`.
    pub max_lr: Option<f64>,
    /// Compensate 16-bit sums; none: yes.
    pub kahan_sum: Option<bool>,
    /// Round scalars as PyTorch's multi-tensor kernels do ([`ComputeFloat::foreach_scalar`]).
    pub foreach: Option<bool>,
}

impl OptimiLion {
    /// The reference's defaults.
    pub const DEFAULT: Self = OptimiLion {
        lr: 1e-4,
        betas: (0.9, 0.99),
        weight_decay: 0.0,
        decouple_lr: false,
        max_lr: None,
        kahan_sum: None,
        foreach: None,
    };
}

impl Default for OptimiLion {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        decay: S,
        one_minus_beta1: S,
        one_minus_beta2: S,
        minus_lr: S,
        kahan: bool,
    }
}

impl HyperParams for OptimiLion {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("decouple_lr", &mut self.decouple_lr);
        f.opt_f64("max_lr", &mut self.max_lr);
        f.opt_bool("kahan_sum", &mut self.kahan_sum);
        f.opt_bool("foreach", &mut self.foreach);
        f.ignored("triton");
        f.ignored("gradient_release");
        // The names that a parameter group uses.
        f.f64("beta1", &mut self.betas.0);
        f.f64("beta2", &mut self.betas.1);
    }
}

impl Rule for OptimiLion {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "optimi_lion";
    const SLOTS: &'static [&'static str] = &["exp_avg", "kahan_comp"];
    const SLOT_MASKS: &'static [u32] = &[0b01, 0b11];

    fn check(&self) -> Result<(), Error> {
        ensure_betas(self.betas)?;
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

    fn active_slots(&self, compute: Dtype) -> u32 {
        if optimi::kahan(self.kahan_sum, compute) { 0b11 } else { 0b01 }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let decay_base_lr = optimi::decay_base_lr(self.decouple_lr, self.max_lr, self.lr);
        let decay = optimi::decay_unless_0(step.lr, self.weight_decay, decay_base_lr);
        Coefs {
            decay: C::foreach_scalar(decay, self.foreach == Some(true)),
            one_minus_beta1: C::scalar(1.0 - self.betas.0),
            one_minus_beta2: C::scalar(1.0 - self.betas.1),
            minus_lr: C::scalar(-step.lr),
            kahan: optimi::kahan(self.kahan_sum, C::DTYPE),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, c]: [C; 2]) -> (C, [C; 2]) {
        let p = p.mul_scalar(k.decay);
        let update = m.lerp(g, k.one_minus_beta1).sign();
        let m = m.lerp(g, k.one_minus_beta2);
        if k.kahan {
            let (p, c) = optimi::add_compensated(p, c.add_scaled(update, k.minus_lr));
            (p, [m, c])
        } else {
            (p.add_scaled(update, k.minus_lr), [m, c])
        }
    }
}
