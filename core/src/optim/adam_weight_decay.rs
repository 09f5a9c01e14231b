//! Transformers' Adam with decoupled weight decay for TensorFlow.

use crate::error::{Error, ensure_not_negative};
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math;
use crate::optim::keras::{Clip, KerasClip};
use crate::rule::{Rule, ScalarState, Scope, StepContext, no_decay};
use crate::storage::Data;

/// AdamWeightDecay.
///
/// # Formula
/// ```text
/// p ← p − η λ p
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) m / (√v + ε)
/// ```
/// With `amsgrad`, the largest v so far replaces v under the root.
///
/// # Order of operations
/// ```text
/// g ← clipped by value, by its norm, by the norm of all gradients
/// p ← p − (η · p) · λ                    if λ ≠ 0
/// m ← m + (g − m) · (1 − β₁)
/// v ← v + (g · g − v) · (1 − β₂)
/// p ← p − (m · α) / (√v + ε)             α = η · √(1 − β₂ᵗ) / (1 − β₁ᵗ)
/// ```
/// Everything, including α and the powers, is computed and rounded in the variable's type; η, β and λ are rounded to
/// `f32` first.
///
/// # Source
/// Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019. Reference (`adam_weight_decay`):
/// `transformers.optimization_tf.AdamWeightDecay`, built on Keras' legacy Adam, also as made by `create_optimizer`,
/// whose argument names are accepted too. The paper adds ε to the corrected root.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `learning_rate` | η | any | 1e-3 |
/// | `beta_1` | β₁ | any | 0.9 |
/// | `beta_2` | β₂ | any | 0.999 |
/// | `epsilon` | ε | any; 0 stands for 1e-7 | 1e-7 |
/// | `amsgrad` | | | false |
/// | `weight_decay_rate` | λ | any | 0 |
/// | `decay` | | ≥ 0 | 0 |
/// | `clip` | | ≥ 0; not both by norm and by global norm | none |
///
/// The learning rate of a step is final: the caller has already applied `decay` and the schedule of `create_optimizer`.
/// Which variables decay depends on their names ([`AdamWeightDecay::decays`]); those that don't belong in a group with
/// `weight_decay_rate` 0.
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `m` | 0 | m |
/// | `v` | 0 | v |
/// | `vhat` | 0 | largest v so far; with `amsgrad` only |
///
/// t counts the steps of the optimizer, also for a variable that is added later.
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently; only `vhat` keeps the largest v before
/// it. Clipping by a non-finite norm spreads it.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule =
///     AdamWeightDecay { beta_1: 0.0, beta_2: 0.0, epsilon: 1.0, weight_decay_rate: 0.5, ..AdamWeightDecay::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[3.0])?;
/// assert_eq!(p, [1.125]); // 2 − 0.5 · 2 · 0.5 − 0.5 · 3 / (3 + 1)
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWeightDecay {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the running average of the gradient.
    pub beta_1: f64,
    /// Decay of the running average of its square.
    pub beta_2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// Decoupled weight decay.
    pub weight_decay_rate: f64,
    /// How fast the learning rate falls with the number of steps; applied by the caller.
    pub decay: f64,
    /// Limits on gradients.
    pub clip: KerasClip,
}

impl AdamWeightDecay {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdamWeightDecay {
        learning_rate: 1e-3,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-7,
        amsgrad: false,
        weight_decay_rate: 0.0,
        decay: 0.0,
        clip: KerasClip::DEFAULT,
    };
}

impl Default for AdamWeightDecay {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl AdamWeightDecay {
    /// The defaults of `create_optimizer`.
    #[cfg(feature = "alloc")]
    pub(crate) fn created() -> Self {
        AdamWeightDecay { epsilon: 1e-8, ..AdamWeightDecay::default() }
    }

    /// The parts of names that `create_optimizer` excludes from decay.
    pub const EXCLUDED: &'static [&'static str] = &["LayerNorm", "layer_norm", "bias"];

    /// Whether a variable of this name decays: if the name contains one of the strings in `include`, or else none of
    /// those in `exclude`. (Before version 4.50 of Transformers they were patterns.)
    ///
    /// ```
    /// use bitstep::optim::AdamWeightDecay;
    /// assert!(AdamWeightDecay::decays("dense/kernel", &[], AdamWeightDecay::EXCLUDED));
    /// assert!(!AdamWeightDecay::decays("dense/bias", &[], AdamWeightDecay::EXCLUDED));
    /// assert!(AdamWeightDecay::decays("dense/bias", &["dense"], AdamWeightDecay::EXCLUDED));
    /// ```
    #[must_use]
    pub fn decays(name: &str, include: &[&str], exclude: &[&str]) -> bool {
        let has_any = |pieces: &[&str]| pieces.iter().any(|piece| name.contains(piece));
        has_any(include) || !has_any(exclude)
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<C> {
        clip: Clip<C>,
        decays: bool,
        lr: C,
        weight_decay: C,
        one_minus_beta1: C,
        one_minus_beta2: C,
        alpha: C,
        eps: C,
        amsgrad: bool,
    }
}

impl HyperParams for AdamWeightDecay {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("learning_rate", &mut self.learning_rate);
        f.f64("beta_1", &mut self.beta_1);
        f.f64("beta_2", &mut self.beta_2);
        f.f64("epsilon", &mut self.epsilon);
        f.bool("amsgrad", &mut self.amsgrad);
        f.f64("weight_decay_rate", &mut self.weight_decay_rate);
        f.f64("decay", &mut self.decay);
        f.f64("lr", &mut self.learning_rate);
        self.clip.fields(f);
        f.f64("init_lr", &mut self.learning_rate);
        f.f64("adam_beta1", &mut self.beta_1);
        f.f64("adam_beta2", &mut self.beta_2);
        f.f64("adam_epsilon", &mut self.epsilon);
        self.clip.created_fields(f);
        for elsewhere in [
            "num_train_steps",
            "num_warmup_steps",
            "min_lr_ratio",
            "power",
            "include_in_weight_decay",
            "exclude_from_weight_decay",
            "names",
            "name",
        ] {
            f.ignored(elsewhere);
        }
    }
}

impl Rule for AdamWeightDecay {
    type Slots<T> = [T; 3];
    type Coefs<C: ComputeFloat> = Coefs<C>;
    const ID: &'static str = "adam_weight_decay";
    const SLOTS: &'static [&'static str] = &["m", "v", "vhat"];
    const SLOT_MASKS: &'static [u32] = &[0b011, 0b111];
    const STEP_SCOPE: Scope = Scope::Group;
    const NUM_SUMS: usize = 1;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("decay", self.decay)?;
        self.clip.check()
    }

    fn lr(&self) -> f64 {
        self.learning_rate
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay_rate
    }

    fn needs_sums(&self) -> bool {
        self.clip.clipnorm.is_some()
    }

    fn grad_norm_divisor(&self, _: &[(&str, f64)]) -> Option<f64> {
        self.clip.global_clipnorm.map(|_| 1.0)
    }

    fn grad_norm(&self, grads: &[Data<'_>], _: f64) -> f64 {
        self.clip.grad_norm(grads)
    }

    fn active_slots(&self, _: Dtype) -> u32 {
        if self.amsgrad { 0b111 } else { 0b011 }
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C> {
        let narrow = |x: f64| C::round_from(C::scalar(x));
        let single = |x: f64| narrow(f64::from(x as f32));
        // A rate that has been divided by 1 + decay · t is no longer an f32.
        let lr = if self.decay > 0.0 { narrow(step.lr) } else { single(step.lr) };
        let (beta1, beta2) = (single(self.beta_1), single(self.beta_2));
        let t = narrow(step.t_f64());
        let power = |beta: C| narrow(math::pow(beta.to_f64(), t.to_f64()));
        Coefs {
            clip: self.clip.coefs(step),
            decays: self.weight_decay_rate != 0.0,
            lr,
            weight_decay: single(self.weight_decay_rate),
            one_minus_beta1: C::ONE - beta1,
            one_minus_beta2: C::ONE - beta2,
            alpha: lr * (C::ONE - power(beta2)).sqrt() / (C::ONE - power(beta1)),
            eps: narrow(if self.epsilon == 0.0 { 1e-7 } else { self.epsilon }),
            amsgrad: self.amsgrad,
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(k: &Coefs<C>, _: C, g: C, _: [C; 3]) -> [C::Scalar; 2] {
        [k.clip.square(g), C::Scalar::ZERO]
    }

    fn apply_sums<C: ComputeFloat>(k: &mut Coefs<C>, [squares, _]: [C::Scalar; 2], _: usize) {
        k.clip.finish(squares);
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C>, p: C, g: C, [m, v, v_max]: [C; 3]) -> (C, [C; 3]) {
        let g = k.clip.apply(g);
        let p = if k.decays { p - k.lr * p * k.weight_decay } else { p };
        let m = m + (g - m) * k.one_minus_beta1;
        let v = v + (g * g - v) * k.one_minus_beta2;
        let v_max = if v > v_max { v } else { v_max };
        let largest = if k.amsgrad { v_max } else { v };
        (p - m * k.alpha / (largest.sqrt() + k.eps), [m, v, v_max])
    }

    fn check_separable(&self) -> Result<(), Error> {
        no_decay("weight_decay_rate", self.weight_decay_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    fn one_step(rule: AdamWeightDecay, at: StepContext<'_>, grad: [f64; 2]) -> [f64; 2] {
        let (mut p, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        let slots = [&mut m[..], &mut v, &mut []];
        step::<_, f64, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &grad, slots).unwrap();
        m
    }

    #[test]
    fn clip_each_kind_limits_what_the_moment_sees() {
        let base = AdamWeightDecay { beta_1: 0.0, ..AdamWeightDecay::default() };
        let with = |clip| AdamWeightDecay { clip, ..base };
        let none = KerasClip::default();
        let at = StepContext::new(1, 0.1);
        assert_eq!(one_step(base, at, [3.0, -4.0]), [3.0, -4.0]);
        let value = KerasClip { clipvalue: Some(3.5), ..none };
        assert_eq!(one_step(with(value), at, [3.0, -4.0]), [3.0, -3.5]);
        let norm = KerasClip { clipnorm: Some(10.0), ..none };
        assert_eq!(one_step(with(norm), at, [3.0, -4.0]), [3.0, -4.0]);
        let norm = KerasClip { clipnorm: Some(2.5), ..none };
        assert_eq!(one_step(with(norm), at, [3.0, -4.0]), [1.5, -2.0]);
        let all = KerasClip { global_clipnorm: Some(2.0), ..none };
        let at = StepContext { grad_norm: Some(8.0), ..at };
        assert_eq!(one_step(with(all), at, [3.0, -4.0]), [0.75, -1.0]);
    }

    #[test]
    fn check_two_norms_are_refused() {
        let clip = KerasClip { clipnorm: Some(1.0), global_clipnorm: Some(1.0), clipvalue: None };
        assert!(Rule::check(&AdamWeightDecay { clip, ..AdamWeightDecay::default() }).is_err());
    }

    #[test]
    fn rate_is_an_f32_unless_it_has_been_divided() {
        let lr = |decay| {
            let rule = AdamWeightDecay { decay, ..AdamWeightDecay::default() };
            rule.coefs::<f64>(&StepContext::new(1, 0.1), &rule.scalars()).lr
        };
        assert_eq!((lr(0.0), lr(0.5)), (f64::from(0.1f32), 0.1));
    }
}
