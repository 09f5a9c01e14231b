//! GrokAdamW: AdamW over a gradient whose slow component is amplified.

use crate::error::{Error, ensure_betas, ensure_not_negative, ensure_range};
use crate::float::ComputeFloat;
use crate::gradient::ClipGradNorm;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math;
use crate::math::reduce;
use crate::rule::{Rule, ScalarState, StepContext};

/// GrokAdamW: AdamW over a gradient whose slow component is amplified.
///
/// # Formula
/// ```text
/// g ← g · min(1, c / (‖g‖ + 1e-6))                  over the tensor, if c > 0
/// s = max(0, eval − train) / max(eval, train)       0 unless both losses are known and one is positive
/// α = α₀ e^(−κ s)
/// e ← α e + (1 − α) g
/// h = g + λ_grok e
/// β = β₁ (1 − γ)^layer
/// m ← β m + (1 − β) h
/// v ← β₂ v + (1 − β₂) h²
/// p ← p − η λ p
/// p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε)
/// ```
///
/// # Order of operations
/// ```text
/// n ← √(sum(g · g))
/// g ← g · min(1 / (n + 1e-6) · c, 1)
/// e ← e · α + (1 − α) · g
/// h ← g + λ_grok · e
/// m ← m · β + (1 − β) · h
/// v ← v · β₂ + ((1 − β₂) · h) · h
/// p ← p · (1 − η λ)
/// p ← p + (−η √(1 − β₂ᵗ) / (1 − β₁ᵗ)) · m / (√v + ε)
/// ```
///
/// # Source
/// Lee et al., "Grokfast: Accelerated Grokking by Amplifying Slow Gradients", 2024, combined with AdamW by Hartford.
/// Reference: `grokadamw.GrokAdamW` (`grokadamw`). It clips each parameter's gradient by that gradient's own norm,
/// corrects m with β₁ instead of the layer's β, adds ε to the uncorrected root, and counts as layers the parameters of
/// a group that have a gradient. The reference's signal functions are left to the caller, who passes their mean as the
/// extra argument `grokking_signal`; without it, the signal is computed from `train_loss` and `eval_loss`.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 |
/// | `betas` | β₁, β₂ | [0, 1) | 0.9, 0.999 |
/// | `eps` | ε | ≥ 0 | 1e-8 |
/// | `weight_decay` | λ | ≥ 0 | 1e-2 |
/// | `alpha_init` | α₀ | [0, 1] | 0.98 |
/// | `lamb` | λ_grok | | 2 |
/// | `gamma` | γ | | 0.1 |
/// | `grokking_signal_decay_rate` | κ | | 0.1 |
/// | `gradient_clipping` | c | off unless > 0 | 1 |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `exp_avg` | 0 | m |
/// | `exp_avg_sq` | 0 | v |
/// | `grok_ema` | 0 | e |
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// While clipping, a NaN gradient makes the whole tensor NaN; an infinite one, or a norm that overflows, makes the
/// finite elements' gradients 0 and the infinite ones NaN. NaN is permanent.
///
/// # Example
/// With α₀ = ½ a first gradient of −2, below the clipping threshold, gives e = −1 and h = −2 + 2 · (−1).
/// ```
/// use bitstep::prelude::*;
/// let rule =
///     GrokAdamW { eps: 0.0, alpha_init: 0.5, weight_decay: 0.5, gradient_clipping: 3.0, ..GrokAdamW::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f64; 3])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[-2.0])?;
/// let [m, _, e] = state.slots();
/// assert_eq!(e[0], -1.0);
/// assert!((m[0] + 0.4).abs() < 1e-15); // 0.1 · h
/// assert!((p[0] - 2.0).abs() < 1e-15); // 2 · (1 − 0.5 · 0.5) + 0.5
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GrokAdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running averages of the amplified gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the slow average while there is no signal.
    pub alpha_init: f64,
    /// Weight of the slow average.
    pub lamb: f64,
    /// Fraction by which β₁ falls from layer to layer.
    pub gamma: f64,
    /// How fast the slow average's decay falls with the signal.
    pub grokking_signal_decay_rate: f64,
    /// The largest norm of a parameter's gradient; no clipping if not positive.
    pub gradient_clipping: f64,
}

impl GrokAdamW {
    /// The reference's defaults.
    pub const DEFAULT: Self = GrokAdamW {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 1e-2,
        alpha_init: 0.98,
        lamb: 2.0,
        gamma: 0.1,
        grokking_signal_decay_rate: 0.1,
        gradient_clipping: 1.0,
    };
}

impl Default for GrokAdamW {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The caller's grokking signal, or else how far the validation loss is above the training loss, relative to the
/// larger.
fn signal(step: &StepContext) -> f64 {
    if let Some(signal) = step.extra("grokking_signal") {
        return signal;
    }
    let (Some(train), Some(eval)) = (step.extra("train_loss"), step.extra("eval_loss")) else {
        return 0.0;
    };
    // As Python's max: the first, unless the other is larger.
    let gap = if eval - train > 0.0 { eval - train } else { 0.0 };
    let larger = if train > eval { train } else { eval };
    if larger > 0.0 { gap / larger } else { 0.0 }
}

constants! {
    /// The constants of a step; `clip` is set once the norm is known.
    pub struct Coefs<S> {
        max_norm: f64,
        single: bool,
        clip: S,
        alpha: S,
        one_minus_alpha: S,
        lamb: S,
        beta1: S,
        one_minus_beta1: S,
        beta2: S,
        one_minus_beta2: S,
        decay: S,
        eps: S,
        minus_step_size: S,
    }
}

impl HyperParams for GrokAdamW {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.pair("betas", &mut self.betas.0, &mut self.betas.1);
        f.f64("eps", &mut self.eps);
        f.f64("weight_decay", &mut self.weight_decay);
        f.f64("alpha_init", &mut self.alpha_init);
        f.f64("lamb", &mut self.lamb);
        f.f64("gamma", &mut self.gamma);
        f.must_be_none("grokking_signal_fns");
        f.f64("grokking_signal_decay_rate", &mut self.grokking_signal_decay_rate);
        f.f64("gradient_clipping", &mut self.gradient_clipping);
    }
}

impl Rule for GrokAdamW {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "grokadamw";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "grok_ema"];
    const SLOT_MASKS: &'static [u32] = &[0b111];
    const NUM_SUMS: usize = 1;
    const EXTRA_ARGS: &'static [&'static str] = &["train_loss", "eval_loss", "grokking_signal"];

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        ensure_betas(self.betas)?;
        ensure_not_negative("eps", self.eps)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        let alpha = self.alpha_init;
        ensure_range((0.0..=1.0).contains(&alpha), "alpha_init", alpha, "0 <= value <= 1")
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn needs_sums(&self) -> bool {
        self.gradient_clipping > 0.0
    }

    fn needs_index_in_group(&self) -> bool {
        self.gamma != 0.0
    }

    fn decay_bases(&self) -> [f64; 2] {
        self.betas.into()
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C::Scalar> {
        let (beta1, beta2) = self.betas;
        let decay = libm::exp(-self.grokking_signal_decay_rate * signal(step));
        let alpha = self.alpha_init * decay;
        let layer_beta1 = beta1 * math::pow(1.0 - self.gamma, step.index_in_group.into());
        let correction1 = 1.0 - step.beta_power(beta1);
        let correction2 = 1.0 - step.beta_power(beta2);
        Coefs {
            max_norm: self.gradient_clipping,
            single: step.is_single(),
            clip: C::Scalar::ONE,
            alpha: C::scalar(alpha),
            one_minus_alpha: C::scalar(1.0 - alpha),
            lamb: C::scalar(self.lamb),
            beta1: C::scalar(layer_beta1),
            one_minus_beta1: C::scalar(1.0 - layer_beta1),
            beta2: C::scalar(beta2),
            one_minus_beta2: C::scalar(1.0 - beta2),
            decay: C::scalar(1.0 - step.lr * self.weight_decay),
            eps: C::scalar(self.eps),
            minus_step_size: C::scalar(-(step.lr * libm::sqrt(correction2) / correction1)),
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(k: &Coefs<C::Scalar>, _: C, g: C, _: [C; 3]) -> [C::Scalar; 2] {
        [reduce::square(g.widen(), k.single), C::Scalar::ZERO]
    }

    fn apply_sums<C: ComputeFloat>(k: &mut Coefs<C::Scalar>, sums: [C::Scalar; 2], _: usize) {
        let norm = C::round_from(reduce::root(sums[0], k.single));
        let clip = ClipGradNorm { max_norm: k.max_norm, ..ClipGradNorm::default() };
        k.clip = C::scalar(clip.coefficient(norm.to_f64(), C::DTYPE));
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Coefs<C::Scalar>,
        p: C,
        g: C,
        [m, v, ema]: [C; 3],
    ) -> (C, [C; 3]) {
        let g = g.mul_scalar(k.clip);
        let ema = ema.mul_scalar(k.alpha).add_scaled(g, k.one_minus_alpha);
        let h = g + ema.mul_scalar(k.lamb);
        let m = m.mul_scalar(k.beta1).add_scaled(h, k.one_minus_beta1);
        let v = v.mul_scalar(k.beta2).addcmul(h, h, k.one_minus_beta2);
        let p = p.mul_scalar(k.decay);
        (p.addcdiv(m, v.sqrt().add_scalar(k.eps), k.minus_step_size), [m, v, ema])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_is_the_gap_as_a_share_of_the_larger_loss() {
        let of = |train, eval| {
            signal(&StepContext {
                extra: &[("train_loss", train), ("eval_loss", eval)],
                ..StepContext::new(1, 0.1)
            })
        };
        assert_eq!([of(1.0, 4.0), of(4.0, 1.0), of(-1.0, 1.0)], [0.75, 0.0, 2.0]);
        assert_eq!([of(-2.0, -1.0), of(0.0, 0.0), of(f64::NAN, 1.0)], [0.0; 3]);
        assert_eq!(of(1.0, f64::NAN), 0.0);
        assert!(of(1.0, f64::INFINITY).is_nan());
        assert_eq!(signal(&StepContext::new(1, 0.1)), 0.0);
        let given = [("train_loss", 1.0), ("eval_loss", 4.0), ("grokking_signal", 0.5)];
        assert_eq!(signal(&StepContext { extra: &given, ..StepContext::new(1, 0.1) }), 0.5);
    }

    #[test]
    fn clipping_cuts_to_the_threshold_by_the_norm_of_the_tensor() {
        let rule =
            GrokAdamW { alpha_init: 0.0, lamb: 0.0, betas: (0.0, 0.0), ..GrokAdamW::default() };
        let (mut p, mut m, mut v, mut e) = ([0.0f64; 2], [0.0f64; 2], [0.0f64; 2], [0.0f64; 2]);
        let slots = [&mut m[..], &mut v, &mut e];
        let at = StepContext::new(1, 0.1);
        crate::rule::step::<_, f64, _, _, _>(
            &rule,
            &at,
            &mut [0.0; 4],
            &mut p,
            &[3.0, -4.0],
            slots,
        )
        .unwrap();
        assert!((m[0] - 0.6).abs() < 1e-6 && (m[1] + 0.8).abs() < 1e-6);
    }
}
