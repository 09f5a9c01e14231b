//! SGD: gradient descent, optionally with momentum.

use crate::error::{Error, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// Stochastic gradient descent: plain, with momentum, or with Nesterov momentum.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// b ← g at the first step, then μ b + (1 − τ) g
/// p ← p − η d,  where d = b; with Nesterov g + μ b; without momentum g
/// ```
/// `maximize` negates g, but not the decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0
/// b ← g at the first step, then b · μ + (1 − τ) · g
/// d ← b, or g + μ · b, or g
/// p ← p + (−η) · d
/// ```
///
/// # Source
/// Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013. Reference:
/// `torch.optim.SGD`. The reference multiplies the whole buffer by the learning rate, the paper only what enters it.
/// The first buffer of the reference is the gradient, without dampening.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `momentum` | μ | ≥ 0 | 0 |
/// | `dampening` | τ | any | 0 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `nesterov` | | needs μ > 0 and τ = 0 | false |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `momentum_buffer` | the first gradient | b; with momentum only |
///
/// # Errors
/// A hyper-parameter outside its range. As in the reference, NaN passes.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the parameter non-finite, and stays in the buffer.
///
/// # Example
/// Two steps with the gradient 1: the buffer is 1, then 0.5 · 1 + 1 = 1.5.
/// ```
/// use bitstep::prelude::*;
/// let rule = Sgd { momentum: 0.5, ..Sgd::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32])?;
/// let mut p = [2.0];
/// for _ in 0..2 {
///     rule.step(&mut state, 0.5, &mut p, &[1.0])?;
/// }
/// assert_eq!((p[0], state.slots()[0][0]), (0.75, 1.5)); // 2 − 0.5 · 1 − 0.5 · 1.5
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the momentum buffer.
    pub momentum: f64,
    /// Share of each gradient after the first that is kept out of the buffer.
    pub dampening: f64,
    /// Coupled weight decay: added to the gradient.
    pub weight_decay: f64,
    /// Look ahead along the new buffer.
    pub nesterov: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Sgd {
    /// The reference's defaults.
    pub const DEFAULT: Self = Sgd {
        lr: 1e-3,
        momentum: 0.0,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        maximize: false,
    };
}

impl Default for Sgd {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        momentum: S,
        one_minus_dampening: S,
        minus_lr: S,
        first: bool,
        buffered: bool,
        decays: bool,
        nesterov: bool,
        maximize: bool,
    }
}

impl HyperParams for Sgd {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("momentum", &mut self.momentum);
        f.f64("dampening", &mut self.dampening);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("nesterov", &mut self.nesterov);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["foreach", "differentiable", "fused"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for Sgd {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "sgd";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    const SLOT_MASKS: &'static [u32] = &[0b0, 0b1];

    fn check(&self) -> Result<(), Error> {
        // The reference refuses values below 0, and NaN is not below 0.
        let not_below_0 =
            |argument, x: f64| ensure_range(x >= 0.0 || x.is_nan(), argument, x, ">= 0");
        not_below_0("lr", self.lr)?;
        not_below_0("momentum", self.momentum)?;
        not_below_0("weight_decay", self.weight_decay)?;
        if self.nesterov && (self.momentum <= 0.0 || self.dampening != 0.0) {
            let expected = "a momentum and zero dampening with nesterov";
            return Err(Error::InvalidArgument { argument: "nesterov", expected });
        }
        Ok(())
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

    fn active_slots(&self, _: Dtype) -> u32 {
        u32::from(self.momentum != 0.0)
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            momentum: C::scalar(self.momentum),
            one_minus_dampening: C::scalar(1.0 - self.dampening),
            minus_lr: C::scalar(-step.lr),
            first: step.is_first,
            buffered: self.momentum != 0.0,
            decays: self.weight_decay != 0.0,
            nesterov: self.nesterov,
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [b]: [C; 1]) -> (C, [C; 1]) {
        let g = if k.maximize { -g } else { g };
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        let b = b.mul_scalar(k.momentum).add_scaled(g, k.one_minus_dampening);
        let b = if k.first { g } else { b };
        let d = if k.nesterov { g.add_scaled(b, k.momentum) } else { b };
        let d = if k.buffered { d } else { g };
        (p.add_scaled(d, k.minus_lr), [b])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    /// Two steps of p = 4 with gradients 1 and 2 at η = 1/2.
    fn two_steps(rule: Sgd) -> (f64, f64) {
        let (mut p, mut b) = ([4.0f64], [0.0f64; 1]);
        for (t, g) in [(1, 1.0), (2, 2.0)] {
            let b = if rule.momentum != 0.0 { &mut b[..] } else { &mut [] };
            let at = StepContext::new(t, 0.5);
            step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[g], [b]).unwrap();
        }
        (p[0], b[0])
    }

    #[test]
    fn plain_follows_the_gradient() {
        assert_eq!(two_steps(Sgd::default()), (4.0 - 0.5 - 1.0, 0.0));
    }

    #[test]
    fn dampening_spares_the_first_gradient() {
        // b = 1, then 0.5 · 1 + (1 − 0.75) · 2 = 1.
        let rule = Sgd { momentum: 0.5, dampening: 0.75, ..Sgd::default() };
        assert_eq!(two_steps(rule), (4.0 - 0.5 - 0.5, 1.0));
    }

    #[test]
    fn nesterov_looks_ahead_from_the_first_step() {
        // d = 1 + 0.5 · 1 = 1.5; b = 0.5 + 2 = 2.5, d = 2 + 0.5 · 2.5 = 3.25.
        let rule = Sgd { momentum: 0.5, nesterov: true, ..Sgd::default() };
        assert_eq!(two_steps(rule), (4.0 - 0.75 - 1.625, 2.5));
    }

    #[test]
    fn maximize_turns_the_gradient_but_not_the_decay() {
        // g = −1 + 0.5 · 4 = 1, p = 3.5; g = −2 + 0.5 · 3.5 = −0.25, p = 3.625.
        let rule = Sgd { weight_decay: 0.5, maximize: true, ..Sgd::default() };
        assert_eq!(two_steps(rule), (3.625, 0.0));
    }

    #[test]
    fn check_nesterov_without_momentum_is_refused() {
        assert!(Sgd { nesterov: true, ..Sgd::default() }.check().is_err());
        let dampened = Sgd { nesterov: true, momentum: 0.9, dampening: 0.1, ..Sgd::default() };
        assert!(dampened.check().is_err());
        assert!(Sgd { momentum: -0.1, ..Sgd::default() }.check().is_err());
        assert!(Sgd { momentum: 1.5, dampening: -1.0, ..Sgd::default() }.check().is_ok());
    }
}
