//! Transformers' former AdamW.

use crate::error::{Error, ensure_betas, ensure_not_negative};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::{Rule, ScalarState, StepContext};

/// The former AdamW of Transformers.
///
/// # Formula
/// ```text
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) m / (√v + ε)
/// p ← p − η λ p
/// ```
/// Without `correct_bias` the step size in the third line is η.
///
/// # Order of operations
/// ```text
/// m ← m · β₁ + (1 − β₁) · g
/// v ← v · β₂ + ((1 − β₂) · g) · g
/// d ← √v + ε
/// p ← p + (−η √(1 − β₂ᵗ) / (1 − β₁ᵗ)) · m / d
/// p ← p + (−η λ) · p        if λ > 0
/// ```
/// GaLore's copy rounds m / d before it is multiplied by the step size.
///
/// # Source
/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Reference (`adamw_hf`):
/// `transformers.optimization.AdamW`, until 4.49, and `galore_torch.GaLoreAdamW` for parameters that it does not
/// project. The paper adds ε to the corrected root and decays the parameter as it was before the update.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-6 |
/// | `weight_decay` | λ | any; none if ≤ 0 | 0 |
/// | `correct_bias` | | | true |
/// | `reference` | | which implementation | Transformers' |
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
/// ```
/// use bitstep::prelude::*;
/// let rule = AdamWHf { weight_decay: 0.5, betas: (0.0, 0.0), eps: 1.0, ..AdamWHf::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-3.0])?;
/// assert_eq!(p, [1.78125]); // 2 + 0.5 · 3 / (3 + 1) = 2.375, less a quarter of that
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWHf {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Whether the averages are corrected for their start at 0.
    pub correct_bias: bool,
    /// The implementation whose order of operations is followed.
    pub reference: AdamWHfReference,
}

/// The two implementations of [`AdamWHf`]; they differ in one rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdamWHfReference {
    /// `transformers.optimization.AdamW`.
    #[default]
    Transformers,
    /// `galore_torch.GaLoreAdamW`, and `apollo_torch.APOLLOAdamW`.
    Galore,
}

impl AdamWHf {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdamWHf {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-6,
        weight_decay: 0.0,
        correct_bias: true,
        reference: AdamWHfReference::Transformers,
    };
}

impl Default for AdamWHf {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        beta1: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        eps: S,
        minus_step_size: S,
        minus_decay: S,
        decays: bool,
        divides_first: bool,
    }
}

impl HyperParams for AdamWHf {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.bool("correct_bias", &mut self.correct_bias);
        f.ignored("no_deprecation_warning");
        f.choice(
            "reference",
            &mut self.reference,
            &[
                ("transformers.optimization.AdamW", AdamWHfReference::Transformers),
                ("galore_torch.GaLoreAdamW", AdamWHfReference::Galore),
            ],
        );
    }
}

impl Rule for AdamWHf {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "adamw_hf";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SLOT_MASKS: &'static [u32] = &[0b11];
    const ADDS_DIRECTION: bool = false;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_betas(self.betas)?;
        ensure_not_negative("eps", self.eps)
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn decay_bases(&self) -> [f64; 2] {
        self.betas.into()
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let correction1 = 1.0 - step.beta_power(beta1);
        let correction2 = 1.0 - step.beta_power(beta2);
        let corrected = step.lr * libm::sqrt(correction2) / correction1;
        let step_size = if self.correct_bias { corrected } else { step.lr };
        Coefs {
            beta1: C::scalar(beta1),
            one_minus_beta1: C::scalar(1.0 - beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            eps: C::scalar(self.eps),
            minus_step_size: C::scalar(-step_size),
            minus_decay: C::scalar(-step.lr * self.weight_decay),
            decays: self.weight_decay > 0.0,
            divides_first: self.reference == AdamWHfReference::Galore,
        }
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let m = m.mul_scalar(k.beta1).add_scaled(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        let denom = v.sqrt().add_scalar(k.eps);
        let p = if k.divides_first {
            p.add_scaled(m / denom, k.minus_step_size)
        } else {
            p.addcdiv(m, denom, k.minus_step_size)
        };
        (if k.decays { p.add_scaled(p, k.minus_decay) } else { p }, [m, v])
    }

    #[inline(always)]
    fn update_direction<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        g: C,
        [m, v]: [C; 2],
    ) -> (C, [C; 2]) {
        let m = m.mul_scalar(k.beta1).add_scaled(g, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(g, g, k.one_minus_beta2);
        (m / v.sqrt().add_scalar(k.eps), [m, v])
    }

    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, direction: C) -> C {
        let p = p.add_scaled(direction, k.minus_step_size);
        if k.decays { p.add_scaled(p, k.minus_decay) } else { p }
    }

    fn check_separable(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    #[test]
    fn without_decay_an_infinite_parameter_stays_where_it_is() {
        let rule = AdamWHf { weight_decay: 0.0, ..AdamWHf::default() };
        let (mut p, mut m, mut v) = ([f32::INFINITY], [0.0f32], [0.0f32]);
        let (at, slots) = (StepContext::new(1, 0.5), [&mut m[..], &mut v[..]]);
        step::<_, f32, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0f32], slots).unwrap();
        assert_eq!(p[0], f32::INFINITY);
    }

    #[test]
    fn order_of_operations_is_the_references() {
        for (reference, expected) in
            [(AdamWHfReference::Galore, true), (AdamWHf::default().reference, false)]
        {
            let rule = AdamWHf { reference, ..AdamWHf::default() };
            let coefs = rule.coefs::<f32>(&StepContext::new(1, 0.5), &rule.scalars());
            assert_eq!(coefs.divides_first, expected);
        }
    }
}
