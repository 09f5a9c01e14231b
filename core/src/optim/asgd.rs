//! ASGD: gradient descent whose iterates are averaged.

use crate::error::{Error, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math::pow;
use crate::rule::{Rule, ScalarState, StepContext};

/// Averaged stochastic gradient descent.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// p ← p (1 − ν ηₜ) − ηₜ g
/// a ← p if μₜ = 1, else a + μₜ (p − a)
/// ηₜ₊₁ = η / (1 + ν η t)^α,  μₜ₊₁ = 1 / max(1, t − t₀)
/// ```
/// from η₁ = η and μ₁ = 1. `maximize` negates g, but not the decays.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0
/// p ← p · (1 − ν ηₜ)
/// p ← p + (−ηₜ) · g
/// a ← a + (p − a) · μₜ     or p, if μₜ = 1
/// ```
/// and with `foreach`
/// ```text
/// g ← g + λ · p            if λ ≠ 0
/// p ← p + (−1) · (g + ν · p) · ηₜ
/// a ← a + (p − a) · μₜ
/// ```
/// ηₜ and μₜ are kept in `f32`, whatever the parameter's type; with `foreach` the next ηₜ is also computed in `f32`.
///
/// # Source
/// Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992. Reference: `torch.optim.ASGD`. A
/// step uses the rate that the previous step computed, so a schedule takes effect one step late.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-2 |
/// | `lambd` | ν | ≥ 0 | 1e-4 |
/// | `alpha` | α | ≥ 0 | 0.75 |
/// | `t0` | t₀ | any | 1e6 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `foreach` | | true, false, none (as false) | none |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `ax` | 0 | a |
/// | `eta` | the rate at the first step | ηₜ₊₁, a scalar |
/// | `mu` | 1 | μₜ₊₁, a scalar |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its average NaN or infinite permanently.
///
/// # Example
/// Until t₀ has passed, the average is the parameter:
/// ```
/// use bitstep::prelude::*;
/// let rule = Asgd { lambd: 0.5, ..Asgd::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert_eq!((p[0], state.slots()[0][0]), (3.5, 3.5)); // 2 · (1 − 0.25) + 0.5 · 4
/// let [eta, mu, ..] = *state.scalars();
/// assert!((eta - 0.5 / 1.25f64.powf(0.75)).abs() < 1e-7 && mu == 1.0);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asgd {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the parameter; it also sets how fast the learning rate falls.
    pub lambd: f64,
    /// Exponent of the learning rate's fall.
    pub alpha: f64,
    /// The step after which averaging begins.
    pub t0: f64,
    /// Coupled weight decay: added to the gradient.
    pub weight_decay: f64,
    /// The reference's multi-tensor order of operations.
    pub foreach: Option<bool>,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl Asgd {
    /// The reference's defaults.
    pub const DEFAULT: Self = Asgd {
        lr: 1e-2,
        lambd: 1e-4,
        alpha: 0.75,
        t0: 1e6,
        weight_decay: 0.0,
        foreach: None,
        maximize: false,
    };
}

impl Default for Asgd {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Asgd {
    /// ηₜ₊₁: the rate of the step after this one.
    fn next_eta(&self, step: &StepContext) -> f64 {
        if self.foreach == Some(true) {
            let base = 1.0 + (self.lambd * step.lr) as f32 * step.t as f32;
            let power = pow(base.into(), f64::from(self.alpha as f32)) as f32;
            f64::from(1.0 / power * step.lr as f32)
        } else {
            let base = 1.0 + self.lambd * step.lr * step.t_f64();
            f64::from((step.lr / pow(base, self.alpha)) as f32)
        }
    }

    /// μₜ₊₁: the averaging weight of the step after this one.
    fn next_mu(&self, step: &StepContext) -> f64 {
        let averaged = step.t_f64() - self.t0;
        f64::from((1.0 / if averaged > 1.0 { averaged } else { 1.0 }) as f32)
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        lambd: S,
        decay: S,
        eta: S,
        mu: S,
        next_eta: f64,
        next_mu: f64,
        decays: bool,
        averages: bool,
        foreach: bool,
        maximize: bool,
    }
}

impl HyperParams for Asgd {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("lambd", &mut self.lambd);
        f.f64("alpha", &mut self.alpha);
        f.f64("t0", &mut self.t0);
        f.f64("weight_decay", &mut self.weight_decay);
        f.opt_bool("foreach", &mut self.foreach);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["differentiable", "capturable"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for Asgd {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "asgd";
    const SLOTS: &'static [&'static str] = &["ax"];
    const SLOT_MASKS: &'static [u32] = &[0b1];
    const SCALAR_NAMES: &'static [&'static str] = &["eta", "mu"];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("lambd", self.lambd)?;
        ensure_not_negative("alpha", self.alpha)?;
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

    fn scalars(&self) -> ScalarState {
        [f64::from(self.lr as f32), 1.0, 0.0, 0.0]
    }

    fn advance_scalars(&self, step: &StepContext, [eta, ..]: &mut ScalarState) {
        if step.is_first {
            *eta = f64::from(step.lr as f32);
        }
    }

    fn coefs<C: ComputeFloat>(
        &self,
        step: &StepContext,
        &[eta, mu, ..]: &ScalarState,
    ) -> Coefs<C::Scalar> {
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            lambd: C::scalar(self.lambd),
            decay: C::scalar(1.0 - self.lambd * eta),
            eta: C::scalar(eta),
            mu: C::scalar(mu),
            next_eta: self.next_eta(step),
            next_mu: self.next_mu(step),
            decays: self.weight_decay != 0.0,
            averages: mu != 1.0,
            foreach: self.foreach == Some(true),
            maximize: self.maximize,
        }
    }

    fn export_scalars<C: ComputeFloat>(k: &Coefs<C::Scalar>, [eta, mu, ..]: &mut ScalarState) {
        (*eta, *mu) = (k.next_eta, k.next_mu);
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [average]: [C; 1]) -> (C, [C; 1]) {
        let one = C::Scalar::ONE;
        let g = if k.maximize { -g } else { g };
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        if k.foreach {
            let p = p.addcmul(g.add_scaled(p, k.lambd), C::round_from(k.eta), -one);
            (p, [average.addcmul(p - average, C::round_from(k.mu), one)])
        } else {
            let p = p.mul_scalar(k.decay).add_scaled(g, -k.eta);
            let towards = average + (p - average).mul_scalar(k.mu);
            (p, [if k.averages { towards } else { p }])
        }
    }

    fn check_separable(&self) -> Result<(), Error> {
        Err(Error::InvalidArgument {
            argument: "rank",
            expected: "none: the rule averages its parameter",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    /// p, a, η and μ after each of three steps of p = 4 with gradient 2.
    fn three_steps(rule: Asgd, lr: [f64; 3]) -> [[f64; 4]; 3] {
        let (mut p, mut a, mut scalars, mut t) = ([4.0f64], [0.0f64], rule.scalars(), 0);
        lr.map(|lr| {
            t += 1;
            let at = StepContext::new(t, lr);
            step::<_, f64, _, _, _>(&rule, &at, &mut scalars, &mut p, &[2.0], [&mut a]).unwrap();
            [p[0], a[0], scalars[0], scalars[1]]
        })
    }

    #[test]
    fn averaging_starts_after_t0() {
        // t − t₀ is 1, 2, 3: μ is 1, 1/2, 1/3 for the steps after.
        let rule = Asgd { lambd: 0.0, t0: 0.0, ..Asgd::default() };
        for foreach in [None, Some(true)] {
            let [one, two, three] = three_steps(Asgd { foreach, ..rule }, [0.5; 3]);
            assert_eq!(one, [3.0, 3.0, 0.5, 1.0]);
            assert_eq!(two, [2.0, 2.0, 0.5, 0.5]);
            assert_eq!(three, [1.0, 1.5, 0.5, f64::from(1f32 / 3.0)]);
        }
    }

    #[test]
    fn rate_takes_effect_one_step_late() {
        let rule = Asgd { lambd: 0.0, ..Asgd::default() };
        let [one, two, three] = three_steps(rule, [0.5, 0.25, 0.0]);
        assert_eq!([one[0], two[0], three[0]], [3.0, 2.0, 1.5]);
    }

    #[test]
    fn rate_falls_with_lambd() {
        // η₂ = 1/(1 + 1 · 1 · 1)² = 1/4; p = 4 (1 − 1) − 2 = −2, then −2 · 3/4 − 1/4 · 2 = −2.
        let rule = Asgd { lambd: 1.0, alpha: 2.0, ..Asgd::default() };
        for foreach in [None, Some(true)] {
            let [one, two, _] = three_steps(Asgd { foreach, ..rule }, [1.0; 3]);
            assert_eq!((one[0], one[2]), (-2.0, 0.25));
            assert_eq!((two[0], two[2]), (-2.0, f64::from(1f32 / 9.0)));
        }
    }

    #[test]
    fn order_of_operations_is_the_one_of_foreach_where_it_is_asked_for() {
        for (foreach, expected) in [(None, false), (Some(false), false), (Some(true), true)] {
            let rule = Asgd { foreach, ..Asgd::default() };
            assert_eq!(
                rule.coefs::<f32>(&StepContext::new(1, 0.5), &rule.scalars()).foreach,
                expected
            );
        }
    }
}
