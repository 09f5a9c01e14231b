//! Adagrad: the gradient over the root of the sum of all squares so far.

use crate::error::{Error, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, SlotInit, StepContext};

/// Adagrad.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// s ← s + g²
/// p ← p − η / (1 + (t − 1) δ) · g / (√s + ε)
/// ```
/// `maximize` negates g, but not the decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0
/// s ← s + g · g
/// p ← p + (−η / (1 + (t − 1) δ)) · g / (√s + ε)
/// ```
/// With `foreach`, rate · g is an operation of its own, which the eager compute policy rounds in 16-bit types.
///
/// # Source
/// Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011.
/// Reference: `torch.optim.Adagrad`. The paper has neither weight decay nor an ε outside the root.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-2 |
/// | `lr_decay` | δ | ≥ 0 | 0 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `initial_accumulator_value` | s₀ | ≥ 0 | 0 |
/// | `eps` | ε | ≥ 0 | 1e-10 |
/// | `foreach` | | true, false, none (as false) | none |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `sum` | `initial_accumulator_value` | s; in the reference it exists before the first step |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient makes the element and its sum NaN permanently. An infinite gradient makes the sum infinite and the
/// element NaN; a finite gradient whose square overflows makes the sum infinite, which stops the element.
///
/// # Example
/// At t = 1 from an empty sum p moves by η·sign(g):
/// ```
/// use bitstep::prelude::*;
/// let rule = Adagrad::DEFAULT;
/// let mut state = State::new(&rule, 1, [0.0f64])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 2.5).abs() < 1e-10 && state.slots()[0][0] == 16.0);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// Learning rate.
    pub lr: f64,
    /// How fast the learning rate falls with the number of steps.
    pub lr_decay: f64,
    /// Coupled weight decay: added to the gradient.
    pub weight_decay: f64,
    /// Initial value of the sum of squares.
    pub initial_accumulator_value: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// The reference's multi-tensor order of operations.
    pub foreach: Option<bool>,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Adagrad {
    /// The reference's defaults.
    pub const DEFAULT: Self = Adagrad {
        lr: 1e-2,
        lr_decay: 0.0,
        weight_decay: 0.0,
        initial_accumulator_value: 0.0,
        eps: 1e-10,
        foreach: None,
        maximize: false,
    };
}

impl Default for Adagrad {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        eps: S,
        /// Multiplies the gradient before the division: 1 unless `foreach`.
        scale: S,
        /// Multiplies the quotient: 1 with `foreach`.
        minus_rate: S,
        decays: bool,
        maximize: bool,
    }
}

impl HyperParams for Adagrad {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("lr_decay", &mut self.lr_decay);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("initial_accumulator_value", &mut self.initial_accumulator_value);
        f.f64("eps", &mut self.eps);
        f.opt_bool("foreach", &mut self.foreach);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["differentiable", "fused"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for Adagrad {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adagrad";
    const SLOTS: &'static [&'static str] = &["sum"];
    const SLOT_MASKS: &'static [u32] = &[0b1];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("lr_decay", self.lr_decay)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        ensure_not_negative("initial_accumulator_value", self.initial_accumulator_value)?;
        ensure_not_negative("eps", self.eps)
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

    fn slot_init(&self, _: usize) -> SlotInit {
        SlotInit::Constant(self.initial_accumulator_value)
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let minus_rate = -(step.lr / (1.0 + (step.t_f64() - 1.0) * self.lr_decay));
        let foreach = self.foreach == Some(true);
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            eps: C::scalar(self.eps),
            scale: C::scalar(if foreach { minus_rate } else { 1.0 }),
            minus_rate: C::scalar(if foreach { 1.0 } else { minus_rate }),
            decays: self.weight_decay != 0.0,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [sum]: [C; 1]) -> (C, [C; 1]) {
        let g = if k.maximize { -g } else { g };
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let sum = sum.addcmul(g, g, C::Scalar::ONE);
        let denom = sum.sqrt().add_scalar(k.eps);
        (p.addcdiv(g.mul_scalar(k.scale), denom, k.minus_rate), [sum])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::Eager;
    use crate::rule::step;
    use half::bf16;

    #[test]
    fn lr_decay_spares_the_first_step() {
        // s = 4, p = 1 − 1 · 2/2; s = 20 + 5 = 25, p = 0 − 1/(1 + 1 · 3) · 4/5 (from s = 9).
        let rule = Adagrad { lr_decay: 3.0, eps: 0.0, ..Adagrad::default() };
        let mut p = [1.0f64];
        let mut run = |t, g, mut s: f64| {
            let at = StepContext::new(t, 1.0);
            let sum = core::slice::from_mut(&mut s);
            step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[g], [sum]).unwrap();
            (p[0], s)
        };
        assert_eq!(run(1, 2.0, 0.0), (0.0, 4.0));
        assert_eq!(run(2, 4.0, 9.0), (-0.25 * 4.0 / 5.0, 25.0));
    }

    #[test]
    fn foreach_rounds_the_scaled_gradient_in_eager_arithmetic() {
        // s = 3², so p = −(0.3 · 3)/3. In bf16 0.3 · 3 is 0.8984375 and a third of
        // that 0.299479…, which rounds to 153/512, unlike 0.3.
        let run = |foreach| {
            let rule = Adagrad { eps: 0.0, foreach, ..Adagrad::default() };
            let (mut p, mut s) = ([bf16::ZERO], [bf16::ZERO]);
            let (at, g) = (StepContext::new(1, 0.3), [bf16::from_f32_const(3.0)]);
            step::<_, Eager<bf16>, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &g, [&mut s])
                .unwrap();
            p[0].to_f32()
        };
        assert_eq!(run(None), -bf16::from_f32_const(0.3).to_f32());
        assert_eq!(run(Some(false)), run(None));
        assert_eq!(run(Some(true)), -153.0 / 512.0);
    }
}
