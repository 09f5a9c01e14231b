//! Rprop: steps that follow the gradient's sign only.

use crate::error::{Error, ensure_not_negative, ensure_range};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// Resilient backpropagation.
///
/// # Formula
/// ```text
/// s ← s · η⁺ if g g′ > 0,  s · η⁻ if g g′ < 0,  s otherwise; then s ← clamp(s, Γmin, Γmax)
/// g ← 0 if g g′ < 0
/// p ← p − sign(g) s
/// g′ ← g
/// ```
/// where g′ is the gradient that the previous step stored. `maximize` negates g.
///
/// # Order of operations
/// ```text
/// f ← sign(g · g′), then η⁺ for 1, η⁻ for −1, 1 for 0
/// s ← clamp(s · f, Γmin, Γmax)
/// g ← 0 if f = η⁻
/// p ← p + (−1) · sign(g) · s
/// ```
/// Where a 16-bit type rounds η⁻ to 1 or to 0, it is treated as that value.
///
/// # Source
/// Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm", 1993.
/// Reference: `torch.optim.Rprop`: after a change of sign it stores 0 as the gradient instead of undoing the last step.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | first s | ≥ 0 | 1e-2 |
/// | `etas` | η⁻, η⁺ | 0 < η⁻ < 1 < η⁺ | 0.5, 1.2 |
/// | `step_sizes` | Γmin, Γmax | any | 1e-6, 50 |
/// | `maximize` | | | false |
///
/// Only the learning rate at the parameter's first step has an effect.
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `prev` | 0 | g′ |
/// | `step_size` | the rate at the first step | s |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient has the sign 0: the element stays where it is, and its step size stays the same for this step and the
/// next. An infinite gradient counts by its sign like any other; its product with 0 is NaN, whose sign is 0 too.
///
/// # Example
/// Two gradients of one sign, then one of the other: steps of 0.5, 0.5 · 2, and none.
/// ```
/// use bitstep::prelude::*;
/// let rule = Rprop { etas: (0.25, 2.0), ..Rprop::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 2])?;
/// let mut p = [2.0];
/// for g in [3.0, 0.1, -7.0] {
///     rule.step(&mut state, 0.5, &mut p, &[g])?;
/// }
/// let [prev, size] = state.slots();
/// assert_eq!((p[0], prev[0], size[0]), (0.5, 0.0, 0.25));
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rprop {
    /// Size of the first step.
    pub lr: f64,
    /// Factors of the step size after a change of sign and without one.
    pub etas: (f64, f64),
    /// The smallest and the largest step size.
    pub step_sizes: (f64, f64),
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Rprop {
    /// The reference's defaults.
    pub const DEFAULT: Self =
        Rprop { lr: 1e-2, etas: (0.5, 1.2), step_sizes: (1e-6, 50.0), maximize: false };
}

impl Default for Rprop {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        first_size: S,
        eta_minus: S,
        eta_plus: S,
        smallest: S,
        largest: S,
        first: bool,
        maximize: bool,
    }
}

impl HyperParams for Rprop {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("etas", &mut self.etas.0, &mut self.etas.1);
        f.pair("step_sizes", &mut self.step_sizes.0, &mut self.step_sizes.1);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["capturable", "foreach", "differentiable"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for Rprop {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "rprop";
    const SLOTS: &'static [&'static str] = &["prev", "step_size"];
    const SLOT_MASKS: &'static [u32] = &[0b11];

    fn check(&self) -> Result<(), Error> {
        let (minus, plus) = self.etas;
        ensure_not_negative("lr", self.lr)?;
        ensure_range(0.0 < minus && minus < 1.0, "etas[0]", minus, "0 < etas[0] < 1")?;
        ensure_range(1.0 < plus, "etas[1]", plus, "1 < etas[1]")
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        0.0
    }
    fn maximizes(&self) -> bool {
        self.maximize
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        Coefs {
            first_size: C::scalar(step.lr),
            eta_minus: C::scalar(self.etas.0),
            eta_plus: C::scalar(self.etas.1),
            smallest: C::scalar(self.step_sizes.0),
            largest: C::scalar(self.step_sizes.1),
            first: step.is_first,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [prev, size]: [C; 2],
    ) -> (C, [C; 2]) {
        let eta_minus = C::round_from(k.eta_minus);
        let g = if k.maximize { -g } else { g };
        let size = if k.first { C::round_from(k.first_size) } else { size };
        let factor = (g * prev).sign();
        let factor = if factor > C::ZERO { C::round_from(k.eta_plus) } else { factor };
        let factor = if factor < C::ZERO { eta_minus } else { factor };
        let factor = if factor == C::ZERO { C::ONE } else { factor };
        let size =
            (size * factor).maximum(C::round_from(k.smallest)).minimum(C::round_from(k.largest));
        let g = if factor == eta_minus { C::ZERO } else { g };
        (p.addcmul(g.sign(), size, -C::Scalar::ONE), [g, size])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float::Eager;
    use crate::rule::step;
    use half::bf16;

    fn run<C: ComputeFloat>(rule: Rprop, t: u64, g: C, prev: C, size: C) -> (C, C, C) {
        let (mut p, mut prev, mut size) = ([C::ZERO], [prev], [size]);
        let (at, slots) = (StepContext::new(t, 0.25), [&mut prev[..], &mut size[..]]);
        step::<_, C, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[g], slots).unwrap();
        (p[0], prev[0], size[0])
    }

    #[test]
    fn first_step_takes_the_rate_in_force() {
        assert_eq!(run(Rprop::default(), 1, -3.0f32, 0.0, 9.0), (0.25, -3.0, 0.25));
        assert_eq!(run(Rprop::default(), 2, -3.0f32, 0.0, 9.0), (9.0, -3.0, 9.0));
    }

    #[test]
    fn sizes_stay_within_their_limits() {
        let rule = Rprop { etas: (0.5, 2.0), step_sizes: (0.75, 3.0), ..Rprop::default() };
        assert_eq!(run(rule, 2, 1.0f64, 1.0, 2.0), (-3.0, 1.0, 3.0));
        assert_eq!(run(rule, 2, 1.0f64, -1.0, 1.0), (0.0, 0.0, 0.75));
    }

    #[test]
    fn maximize_remembers_the_negated_gradient() {
        let rule = Rprop { maximize: true, ..Rprop::default() };
        assert_eq!(run(rule, 2, 3.0f32, 0.0, 1.0), (1.0, -3.0, 1.0));
    }

    #[test]
    fn gradient_nan_rests() {
        let (p, prev, size) = run(Rprop::default(), 2, f32::NAN, 1.0, 1.0);
        assert!(p == 0.0 && prev.is_nan() && size == 1.0);
    }

    #[test]
    fn eta_minus_that_rounds_to_1_swallows_gradients_without_a_past() {
        let rule = Rprop { etas: (0.999, 1.2), ..Rprop::default() };
        let [zero, one] = [0.0, 1.0].map(Eager::<bf16>::new);
        assert_eq!(run(rule, 2, one, zero, one), (zero, zero, one));
        assert_eq!(run(rule, 2, 1.0f32, 0.0, 1.0), (-1.0, 1.0, 1.0));
    }
}
