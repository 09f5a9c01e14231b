//! SGD of the library `optimi`.

use super::common as optimi;
use crate::error::{Error, ensure_fraction};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// optimi's SGD.
///
/// # Formula
/// ```text
/// g ← g + λ p                        without decoupling
/// p ← p − η λ p                      with `decouple_wd`
/// p ← p − (η / η_max) λ p            with `decouple_lr`
/// m ← μ m + g                        or μ m + (1 − μ) g with `dampening`
/// p ← p − η m                        or η g without momentum
/// ```
/// Where sums are rounded to 16 bits, the update is Kahan-compensated: it is added to c, c is added to p, and what
/// rounding loses stays in c.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p
/// p ← p · (1 − η λ)
/// m ← m · μ + g                      or lerp(m, g, 1 − μ)
/// p ← p + (−η) · m
/// ```
/// compensated, instead of the last line:
/// ```text
/// c ← c + (−η) · m
/// q ← p + c
/// c ← c + (p − q);  p ← q
/// ```
///
/// # Source
/// Reference: `optimi.SGD` (`optimi_sgd`). Dampening is by 1 − μ, where torch's is an argument of its own. With
/// `torch_init` and dampening, m starts as the first gradient instead of 0.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
/// | `momentum` | μ | [0, 1) | 0 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `dampening` | | | false |
/// | `decouple_wd` | | | false |
/// | `decouple_lr` | | | false |
/// | `max_lr` | η_max | ≥ 0 | `lr` |
/// | `torch_init` | | | false |
/// | `kahan_sum` | | | none: wherever sums are rounded to 16 bits |
/// | `foreach` | round factors to 16 bits where the parameter has 16 | | none: no |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0, or the first gradient | m; with momentum, or with dampening and `torch_init` |
/// | `kahan_comp` | 0 | c; only where updates are compensated |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element NaN or infinite permanently.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = OptimiSgd { momentum: 0.5, weight_decay: 0.5, ..OptimiSgd::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64])?;
/// state.slots_mut()[0][0] = 4.0;
/// state.set_steps(1);
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[1.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (0.0, 4.0)); // m = 0.5 · 4 + (1 + 0.5 · 2)
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimiSgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Average the gradients instead of adding them up.
    pub dampening: bool,
    /// Decay the parameter directly instead of through the gradient.
    pub decouple_wd: bool,
    /// Decay by lr / max_lr instead of lr.
    pub decouple_lr: bool,
    /// The largest rate of the schedule; none: `lr`.
    pub max_lr: Option<f64>,
    /// With dampening, start from the first gradient instead of 0.
    pub torch_init: bool,
    /// Compensate 16-bit sums; none: yes.
    pub kahan_sum: Option<bool>,
    /// Round scalars as PyTorch's multi-tensor kernels do ([`ComputeFloat::foreach_scalar`]).
    pub foreach: Option<bool>,
}

impl OptimiSgd {
    /// The reference's defaults.
    pub const DEFAULT: Self = OptimiSgd {
        lr: 1e-3,
        momentum: 0.0,
        weight_decay: 0.0,
        dampening: false,
        decouple_wd: false,
        decouple_lr: false,
        max_lr: None,
        torch_init: false,
        kahan_sum: None,
        foreach: None,
    };
}

impl Default for OptimiSgd {
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
        has_momentum: bool,
        momentum: S,
        one_minus_momentum: S,
        dampening: bool,
        starts: bool,
        minus_lr: S,
        kahan: bool,
    }
}

impl HyperParams for OptimiSgd {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("momentum", &mut self.momentum);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("dampening", &mut self.dampening);
        f.bool("decouple_wd", &mut self.decouple_wd);
        f.bool("decouple_lr", &mut self.decouple_lr);
        f.opt_f64("max_lr", &mut self.max_lr);
        f.bool("torch_init", &mut self.torch_init);
        f.opt_bool("kahan_sum", &mut self.kahan_sum);
        f.opt_bool("foreach", &mut self.foreach);
        f.ignored("triton");
        f.ignored("gradient_release");
    }
}

impl Rule for OptimiSgd {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "optimi_sgd";
    const SLOTS: &'static [&'static str] = &["exp_avg", "kahan_comp"];
    const SLOT_MASKS: &'static [u32] = &[0b00, 0b01, 0b10, 0b11];

    fn check(&self) -> Result<(), Error> {
        ensure_fraction("momentum", self.momentum)?;
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
        let average = self.momentum != 0.0 || self.dampening && self.torch_init;
        u32::from(average) | u32::from(optimi::kahan(self.kahan_sum, compute)) << 1
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let foreach = self.foreach == Some(true);
        let decay_base_lr = optimi::decay_base_lr(self.decouple_lr, self.max_lr, self.lr);
        let decay = optimi::decay_unless_0(step.lr, self.weight_decay, decay_base_lr);
        let decoupled = self.decouple_wd || self.decouple_lr;
        Coefs {
            couples: !decoupled && self.weight_decay != 0.0,
            weight_decay: C::scalar(self.weight_decay),
            decay: C::foreach_scalar(if decoupled { decay } else { 1.0 }, foreach),
            has_momentum: self.momentum != 0.0,
            momentum: C::foreach_scalar(self.momentum, foreach),
            one_minus_momentum: C::scalar(1.0 - self.momentum),
            dampening: self.dampening,
            starts: step.is_first && self.dampening && self.torch_init,
            minus_lr: C::scalar(-step.lr),
            kahan: optimi::kahan(self.kahan_sum, C::DTYPE),
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, c]: [C; 2]) -> (C, [C; 2]) {
        let g = if k.couples { g.add_scaled(p, k.weight_decay) } else { g };
        let p = p.mul_scalar(k.decay);
        let m = if k.starts { g } else { m };
        let sum = m.mul_scalar(k.momentum) + g;
        let average = m.lerp(g, k.one_minus_momentum);
        let moved = if k.dampening { average } else { sum };
        // Without momentum the state, if there is any, does not change.
        let (m, update) = if k.has_momentum { (moved, moved) } else { (m, g) };
        if k.kahan {
            let (p, c) = optimi::add_compensated(p, c.add_scaled(update, k.minus_lr));
            (p, [m, c])
        } else {
            (p.add_scaled(update, k.minus_lr), [m, c])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    #[test]
    fn first_gradient_with_dampening_is_weighed_or_taken_whole() {
        let rule = OptimiSgd { lr: 1.0, momentum: 0.75, dampening: true, ..OptimiSgd::default() };
        for (torch_init, want) in [(false, 1.0), (true, 4.0)] {
            let rule = OptimiSgd { torch_init, ..rule };
            let (mut p, mut m) = ([0.0f64], [0.0f64]);
            let slots: [&mut [f64]; 2] = [&mut m, &mut []];
            let at = StepContext::new(1, 1.0);
            step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0], slots)
                .unwrap();
            assert_eq!((p[0], m[0]), (-want, want));
        }
    }

    #[test]
    fn average_is_kept_where_something_reads_it() {
        let mask = |momentum, dampening, torch_init| {
            let rule = OptimiSgd { momentum, dampening, torch_init, ..OptimiSgd::default() };
            rule.active_slots(Dtype::F32)
        };
        assert_eq!(
            [mask(0.0, false, false), mask(0.0, true, false), mask(0.0, false, true)],
            [0; 3]
        );
        assert_eq!([mask(0.5, false, false), mask(0.0, true, true)], [1; 2]);
    }
}
