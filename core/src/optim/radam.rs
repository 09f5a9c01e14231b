//! RAdam: Adam that does not divide by √v until the variance of that estimate is small enough.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math::pow;
use crate::rule::{Rule, ScalarState, StepContext};

/// RAdam.
///
/// # Formula
/// ```text
/// g ← g + λ p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// ρ∞ = 2 / (1 − β₂) − 1,  ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
/// r = √((ρ − 4) (ρ − 2) ρ∞ / ((ρ∞ − 4) (ρ∞ − 2) ρ))
/// p ← p − η m / (1 − β₁ᵗ) · r √(1 − β₂ᵗ) / (√v + ε)   if ρ > 5
/// p ← p − η m / (1 − β₁ᵗ)                              otherwise
/// ```
/// With `decoupled_weight_decay`, p ← p − η λ p takes the place of the first line. `maximize` negates g, but not the
/// decay.
///
/// # Order of operations
/// ```text
/// g ← g + λ · p            if λ ≠ 0, or p ← p · (1 − η λ) if decoupled
/// m ← lerp(m, g, 1 − β₁)
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// u ← (m / (1 − β₁ᵗ)) · η,  if ρ > 5 then · ((1 / (√v + ε)) · √(1 − β₂ᵗ)) · r
/// p ← p + (−1) · u
/// ```
/// and with `foreach`, where c is −√(1 − β₂ᵗ) · (η r / (1 − β₁ᵗ)) and h is 0 if ρ > 5, and c is −0 and h is
/// −η / (1 − β₁ᵗ) otherwise:
/// ```text
/// p ← p + m · (1 / ((√v + ε) / c) + h)
/// ```
///
/// # Source
/// Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020. Reference: `torch.optim.RAdam`. The
/// paper rectifies from ρ > 4 and has no ε.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `decoupled_weight_decay` | | | false |
/// | `foreach` | | true, false, none (as false) | none |
/// | `maximize` | | | false |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently.
///
/// # Example
/// At t = 1 ρ is not above 5, and the correction cancels the weight of the average, so p moves by η·g:
/// ```
/// use bitstep::prelude::*;
/// let rule = RAdam::DEFAULT;
/// let mut state = State::new(&rule, 1, [0.0f64; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-4.0])?;
/// assert!((p[0] - 4.0).abs() < 1e-15);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RAdam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay: added to the gradient, unless it is decoupled.
    pub weight_decay: f64,
    /// Shrink the parameter instead of adding to the gradient, as AdamW does.
    pub decoupled_weight_decay: bool,
    /// The reference's multi-tensor order of operations.
    pub foreach: Option<bool>,
    /// Ascend instead of descend.
    pub maximize: bool,
}

impl RAdam {
    /// The reference's defaults.
    pub const DEFAULT: Self = RAdam {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.0,
        decoupled_weight_decay: false,
        foreach: None,
        maximize: false,
    };
}

impl Default for RAdam {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        coupled_decay: S,
        decay: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        correction1: S,
        sqrt_correction2: S,
        eps: S,
        lr: S,
        rect: S,
        /// c and h of `foreach`.
        divisor: S,
        offset: S,
        coupled: bool,
        rectified: bool,
        foreach: bool,
        maximize: bool,
    }
}

impl HyperParams for RAdam {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("decoupled_weight_decay", &mut self.decoupled_weight_decay);
        f.opt_bool("foreach", &mut self.foreach);
        f.bool("maximize", &mut self.maximize);
        for ignored_flag in ["capturable", "differentiable"] {
            f.ignored(ignored_flag);
        }
    }
}

impl Rule for RAdam {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "radam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b11];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_betas(self.betas)?;
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

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let t = step.t_f64();
        let beta2_t = pow(beta2, t);
        let (correction1, correction2) = (1.0 - pow(beta1, t), 1.0 - beta2_t);
        let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
        let rho = rho_inf - 2.0 * t * beta2_t / correction2;
        let rectified = rho > 5.0;
        let rect = if rectified {
            let scale = (rho_inf - 4.0) * (rho_inf - 2.0) * rho;
            libm::sqrt((rho - 4.0) * (rho - 2.0) * rho_inf / scale)
        } else {
            0.0
        };
        let unrectified = if rectified { 0.0 } else { 1.0 };
        let decays = self.weight_decay != 0.0;
        let decoupled = decays && self.decoupled_weight_decay;
        Coefs {
            coupled_decay: C::scalar(self.weight_decay),
            decay: C::scalar(if decoupled { 1.0 - step.lr * self.weight_decay } else { 1.0 }),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            correction1: C::scalar(correction1),
            sqrt_correction2: C::scalar(libm::sqrt(correction2)),
            eps: C::scalar(self.eps),
            lr: C::scalar(step.lr),
            rect: C::scalar(rect),
            divisor: C::scalar(-(libm::sqrt(correction2) * (step.lr * rect / correction1))),
            offset: C::scalar(-(step.lr * unrectified / correction1)),
            coupled: decays && !self.decoupled_weight_decay,
            rectified,
            foreach: self.foreach == Some(true),
            maximize: self.maximize,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let one = C::Scalar::ONE;
        let g = if k.maximize { -g } else { g };
        let g = if k.coupled { g.add_scaled(p, k.coupled_decay) } else { g };
        let p = p.mul_scalar(k.decay);
        let m = m.lerp(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let denom = v.sqrt().add_scalar(k.eps);
        let p = if k.foreach {
            p.addcmul(m, (C::ONE / denom.div_scalar(k.divisor)).add_scalar(k.offset), one)
        } else {
            let plain = m.div_scalar(k.correction1).mul_scalar(k.lr);
            let rate = (C::ONE / denom).mul_scalar(k.sqrt_correction2);
            let rectified = (plain * rate).mul_scalar(k.rect);
            p.add_scaled(if k.rectified { rectified } else { plain }, -one)
        };
        (p, [m, v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    /// One step of p = 0 with g = 4 at η = 1/2 from empty moments.
    fn one_step(rule: RAdam, t: u64) -> (f64, f64) {
        let (mut p, mut m, mut v) = ([0.0f64], [0.0f64], [0.0f64]);
        let at = StepContext::new(t, 0.5);
        let slots = [&mut m[..], &mut v[..]];
        step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0], slots).unwrap();
        (p[0], m[0])
    }

    #[test]
    fn rectification_sets_in_above_5() {
        // With β₂ = 0.75, ρ∞ = 7. At t = 8: β₂⁸ = 0.1001…, ρ = 7 − 16 · 0.1001…/0.8998… = 5.219…
        // At t = 7: ρ = 7 − 14 · 0.1334…/0.8665… = 4.842…, so no root of v is taken.
        let rule = RAdam { betas: (0.0, 0.75), eps: 1.0, ..RAdam::default() };
        for foreach in [None, Some(true)] {
            let rule = RAdam { foreach, ..rule };
            assert_eq!(one_step(rule, 7).0, -0.5 * 4.0);
            let beta2_t = 0.75f64.powi(8);
            let rho = 7.0 - 16.0 * beta2_t / (1.0 - beta2_t);
            let rect = ((rho - 4.0) * (rho - 2.0) * 7.0 / (3.0 * 5.0 * rho)).sqrt();
            let want = -0.5 * 4.0 * rect * (1.0 - beta2_t).sqrt() / (2.0 + 1.0); // v = 4
            assert!((one_step(rule, 8).0 / want - 1.0).abs() < 1e-14);
        }
    }

    #[test]
    fn decay_coupled_enters_the_moments_and_decoupled_does_not() {
        let mut p = [2.0f64];
        let mut run = |decoupled_weight_decay| {
            let rule = RAdam {
                betas: (0.0, 0.9),
                weight_decay: 0.5,
                decoupled_weight_decay,
                ..RAdam::default()
            };
            p = [2.0];
            let (mut m, mut v) = ([0.0], [0.0]);
            let at = StepContext::new(1, 0.5);
            let slots = [&mut m[..], &mut v[..]];
            step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0], slots)
                .unwrap();
            (p[0], m[0])
        };
        assert_eq!(run(false), (2.0 - 0.5 * 5.0, 5.0));
        assert_eq!(run(true), (2.0 * 0.75 - 0.5 * 4.0, 4.0));
    }

    #[test]
    fn rectification_begins_above_5_and_not_at_it() {
        // Here ρ is 5 to the last bit.
        for (t, beta2) in [
            (6, 0.839_768_574_865_979_1),
            (7, 0.767_806_779_692_425_2),
            (9, 0.707_421_460_762_147_2),
            (10, 0.693_717_874_426_063_9),
            (11, 0.684_931_041_328_789_5),
            (12, 0.679_143_736_225_018_1),
        ] {
            let rule = RAdam { betas: (0.9, beta2), ..RAdam::default() };
            assert_eq!(
                rule.coefs::<f64>(&StepContext::new(t, 0.5), &rule.scalars()).rect,
                0.0,
                "{t}"
            );
        }
    }
}
