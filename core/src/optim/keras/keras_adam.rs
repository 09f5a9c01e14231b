//! Keras' Adam, which Transformers uses for TensorFlow without weight decay.

use super::common::{Clip, KerasClip};
use crate::error::{Error, ensure_range};
use crate::float::ComputeFloat;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math;
use crate::rule::{Rule, ScalarState, Scope, StepContext, no_decay};
use crate::storage::Data;

/// Keras' Adam.
///
/// # Formula
/// ```text
/// m ← β₁ m + (1 − β₁) g
/// v ← β₂ v + (1 − β₂) g²
/// p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) m / (√v + ε)
/// ```
///
/// # Order of operations
/// ```text
/// g ← clipped by its norm, or by the norm of all gradients
/// m ← m + (g − m) · (1 − β₁)
/// v ← v + (g · g − v) · (1 − β₂)
/// p ← p − (m · α) / (√v + ε)             α = η · √(1 − β₂ᵗ) / (1 − β₁ᵗ)
/// ```
/// Everything, including α and the powers, is computed and rounded in the variable's type. η, and β under the powers,
/// are rounded to `f32` first; 1 − β is not.
///
/// # Source
/// Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015. Reference (`keras_adam`): what
/// `transformers.optimization_tf.create_optimizer` returns without weight decay, `tf_keras.optimizers.Adam`. The paper
/// adds ε to the corrected root.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `init_lr` | η | any | 1e-3 (the reference has none) |
/// | `adam_beta1` | β₁ | any | 0.9 |
/// | `adam_beta2` | β₂ | any | 0.999 |
/// | `adam_epsilon` | ε | any | 1e-8 |
/// | `weight_decay_rate` | | ≤ 0: else it is [`AdamWeightDecay`](crate::optim::AdamWeightDecay) | 0 |
/// | `clip` | | by norm or by global norm, not both | none |
///
/// The learning rate of a step is final: the caller has already applied the schedule of `create_optimizer`. A clipping
/// limit that is not above 0 is no limit.
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `m` | 0 | m |
/// | `v` | 0 | v |
///
/// t counts the steps of the optimizer, also for a variable that is added later.
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN or infinite gradient makes the element and its state NaN permanently. Clipping by a non-finite norm spreads
/// it.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = KerasAdam { adam_beta1: 0.0, adam_beta2: 0.0, adam_epsilon: 1.0, ..KerasAdam::DEFAULT };
/// let mut state = State::new(&rule, 1, [0.0f32; 2])?;
/// let mut p = [2.0];
/// rule.step(&mut state, 0.5, &mut p, &[3.0])?;
/// assert_eq!(p, [1.625]); // 2 − 0.5 · 3 / (3 + 1)
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KerasAdam {
    /// Learning rate.
    pub init_lr: f64,
    /// Decay of the running average of the gradient.
    pub adam_beta1: f64,
    /// Decay of the running average of its square.
    pub adam_beta2: f64,
    /// Added to the denominator.
    pub adam_epsilon: f64,
    /// Must not be above 0.
    pub weight_decay_rate: f64,
    /// Limits on gradients.
    pub clip: KerasClip,
}

impl KerasAdam {
    /// The reference's defaults.
    pub const DEFAULT: Self = KerasAdam {
        init_lr: 1e-3,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        weight_decay_rate: 0.0,
        clip: KerasClip::DEFAULT,
    };
}

impl Default for KerasAdam {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl KerasAdam {
    /// The limits that this generation of Keras applies: those above 0, and the norm of each gradient before the global
    /// norm.
    fn limits(&self) -> KerasClip {
        let clipnorm = self.clip.clipnorm.filter(|&limit| limit > 0.0);
        let all = self.clip.global_clipnorm.filter(|&limit| limit > 0.0 && clipnorm.is_none());
        KerasClip { clipnorm, global_clipnorm: all, clipvalue: None }
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<C> {
        clip: Clip<C>,
        one_minus_beta1: C,
        one_minus_beta2: C,
        alpha: C,
        eps: C,
    }
}

impl HyperParams for KerasAdam {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("init_lr", &mut self.init_lr);
        f.ignored("num_train_steps");
        f.ignored("num_warmup_steps");
        f.ignored("min_lr_ratio");
        f.f64("adam_beta1", &mut self.adam_beta1);
        f.f64("adam_beta2", &mut self.adam_beta2);
        f.f64("adam_epsilon", &mut self.adam_epsilon);
        self.clip.created_fields(f);
        f.f64("weight_decay_rate", &mut self.weight_decay_rate);
        f.ignored("power");
        f.ignored("include_in_weight_decay");
        f.ignored("names");
        f.f64("lr", &mut self.init_lr);
    }
}

impl Rule for KerasAdam {
    type Slots<T> = [T; 2];
    type Coefs<C: ComputeFloat> = Coefs<C>;
    const ID: &'static str = "keras_adam";
    const SLOTS: &'static [&'static str] = &["m", "v"];
    const SLOT_MASKS: &'static [u32] = &[0b11];
    const STEP_SCOPE: Scope = Scope::Group;
    const NUM_SUMS: usize = 1;

    fn check(&self) -> Result<(), Error> {
        let decay = self.weight_decay_rate;
        ensure_range(decay <= 0.0, "weight_decay_rate", decay, "<= 0")?;
        if self.clip.clipnorm.is_some() && self.clip.global_clipnorm.is_some() {
            let expected = "no adam_clipnorm beside it";
            return Err(Error::InvalidArgument { argument: "adam_global_clipnorm", expected });
        }
        Ok(())
    }

    fn lr(&self) -> f64 {
        self.init_lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay_rate
    }

    fn needs_sums(&self) -> bool {
        self.limits().clipnorm.is_some()
    }

    fn grad_norm_divisor(&self, _: &[(&str, f64)]) -> Option<f64> {
        self.limits().global_clipnorm.map(|_| 1.0)
    }

    fn grad_norm(&self, grads: &[Data<'_>], _: f64) -> f64 {
        self.limits().grad_norm(grads)
    }

    fn coefs<C: ComputeFloat>(&self, step: &StepContext, _: &ScalarState) -> Coefs<C> {
        let narrow = |x: f64| C::round_from(C::scalar(x));
        let single = |x: f64| narrow(f64::from(x as f32));
        let t = narrow(step.t_f64());
        let power = |beta: f64| narrow(math::pow(single(beta).to_f64(), t.to_f64()));
        let (power1, power2) = (power(self.adam_beta1), power(self.adam_beta2));
        Coefs {
            clip: self.limits().coefs(step),
            one_minus_beta1: narrow(1.0 - self.adam_beta1),
            one_minus_beta2: narrow(1.0 - self.adam_beta2),
            alpha: single(step.lr) * (C::ONE - power2).sqrt() / (C::ONE - power1),
            eps: narrow(self.adam_epsilon),
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(k: &Coefs<C>, _: C, g: C, _: [C; 2]) -> [C::Scalar; 2] {
        [k.clip.square(g), C::Scalar::ZERO]
    }

    fn apply_sums<C: ComputeFloat>(k: &mut Coefs<C>, [squares, _]: [C::Scalar; 2], _: usize) {
        k.clip.finish(squares);
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C>, p: C, g: C, [m, v]: [C; 2]) -> (C, [C; 2]) {
        let g = k.clip.apply(g);
        let m = m + (g - m) * k.one_minus_beta1;
        let v = v + (g * g - v) * k.one_minus_beta2;
        (p - m * k.alpha / (v.sqrt() + k.eps), [m, v])
    }

    fn check_separable(&self) -> Result<(), Error> {
        no_decay("weight_decay_rate", self.weight_decay_rate)
    }
}
