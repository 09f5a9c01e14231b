//! bitsandbytes' LARS: SGD with momentum and a limit on the norm of its update.

use super::common::{BnbState, trust_ratio};
use crate::error::{Error, ensure_fraction, ensure_not_negative, ensure_range};
use crate::float::{ComputeFloat, Dtype, StoredFloat};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math::reduce;
use crate::rule::{Rule, ScalarState, StepContext, no_decay};

/// bitsandbytes' LARS.
///
/// # Formula
/// ```text
/// m ← μ m + g + λ p        at the first step: g + λ p
/// p ← p − η min(1, τ ‖p‖ / ‖m‖) m
/// ```
///
/// # Order of operations
/// ```text
/// n ← ‖p‖
/// g ← g + λ · p            if λ > 0; with 8-bit state always
/// m ← m · μ + g
/// r ← τ n / ‖m‖ where ‖m‖ > τ n, else 1
/// p ← p + (−η r) · m
/// ```
/// The norms are `f32`, r is `f64`. With 8-bit state there is no r.
///
/// # Source
/// You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017. Reference:
/// `bitsandbytes.optim.LARS` (`bnb_lars_32bit`): arithmetic and state are `f32` throughout. The paper scales every
/// gradient, before the momentum; the reference only reduces updates that are too large. `dampening` and `nesterov` do
/// nothing.
///
/// # Hyper-parameters
/// | field | symbol | range | default |
/// | --- | --- | --- | --- |
/// | `lr` | η | ≥ 0 | 1e-3 (the reference has none) |
/// | `momentum` | μ | (0, 1) | 0.9 (the reference refuses its own default, 0) |
/// | `dampening` | | [0, 1) | 0 |
/// | `weight_decay` | λ | ≥ 0 | 0 |
/// | `max_unorm` | τ | any; no limit if ≤ 0 | 0.02 |
/// | `state` | | | 32-bit |
///
/// # State
/// | slot | start | meaning |
/// | --- | --- | --- |
/// | `state1` | 0 | m, in `f32` |
///
/// The scalar `unorm_vec` records ‖m‖ of the last step, or 0 without a limit; no update depends on it.
///
/// # Errors
/// A hyper-parameter outside its range.
///
/// # Non-finite input
/// A NaN gradient makes its element NaN; the norm then is NaN, and r is 1. An infinite m makes r 0: the other elements
/// stay where they are.
///
/// # Example
/// ```
/// use bitstep::prelude::*;
/// let rule = BnbLars { max_unorm: 0.5, ..BnbLars::DEFAULT };
/// let mut state = State::new(&rule, 2, [0.0f32; 2])?;
/// let mut p = [3.0, 4.0];
/// rule.step(&mut state, 1.0, &mut p, &[6.0, -8.0])?;
/// assert_eq!(p, [1.5, 6.0]); // ‖m‖ = 10, but 0.5 · ‖p‖ = 2.5: a quarter of m
/// assert_eq!(state.scalars()[0], 10.0);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BnbLars {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the momentum buffer.
    pub momentum: f64,
    /// Checked, but without effect.
    pub dampening: f64,
    /// Coupled weight decay.
    pub weight_decay: f64,
    /// The largest norm of an update, as a multiple of the parameter's.
    pub max_unorm: f64,
    /// Whether the state is stored in 32 or in 8 bits.
    pub state: BnbState,
}

impl BnbLars {
    /// The reference's defaults.
    pub const DEFAULT: Self = BnbLars {
        lr: 1e-3,
        momentum: 0.9,
        dampening: 0.0,
        weight_decay: 0.0,
        max_unorm: 0.02,
        state: BnbState::DEFAULT,
    };
}

impl Default for BnbLars {
    fn default() -> Self {
        Self::DEFAULT
    }
}

constants! {
    /// The constants of a step.
    pub struct Coefs<S> {
        weight_decay: S,
        momentum: S,
        minus_lr: S,
        decays: bool,
        first: bool,
        /// Whether the norm of the update is limited; the fields below serve that.
        limited: bool,
        max_unorm: f64,
        single: bool,
        lr: f64,
        unorm: f64,
    }
}

impl HyperParams for BnbLars {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("lr", &mut self.lr);
        f.f64("momentum", &mut self.momentum);
        f.f64("dampening", &mut self.dampening);
        f.f64("weight_decay", &mut self.weight_decay);
        f.ignored("nesterov");
        self.state.fields(f);
        f.f64("max_unorm", &mut self.max_unorm);
    }
}

impl BnbLars {
    /// The new m.
    #[inline(always)]
    fn buffer<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, m: C) -> C {
        let g = if k.decays { g.add_scaled(p, k.weight_decay) } else { g };
        if k.first { g } else { m.mul_scalar(k.momentum) + g }
    }
}

impl Rule for BnbLars {
    type Slots<T> = [T; 1];
    type Coefs<C: ComputeFloat> = Coefs<C::Scalar>;
    const ID: &'static str = "bnb_lars";
    const EAGER: bool = false;
    const SLOTS: &'static [&'static str] = &["state1"];
    const SLOT_MASKS: &'static [u32] = &[0b1];
    const SCALAR_NAMES: &'static [&'static str] = &["unorm_vec"];
    const NUM_SUMS: usize = 2;

    fn check(&self) -> Result<(), Error> {
        ensure_not_negative("lr", self.lr)?;
        let momentum = self.momentum;
        ensure_range(momentum > 0.0 && momentum < 1.0, "momentum", momentum, "0 < value < 1")?;
        ensure_fraction("dampening", self.dampening)?;
        ensure_not_negative("weight_decay", self.weight_decay)?;
        self.state.check()
    }

    fn lr(&self) -> f64 {
        self.lr
    }
    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn needs_sums(&self) -> bool {
        self.max_unorm > 0.0
    }

    fn uses_scalars(&self) -> bool {
        self.needs_sums()
    }

    fn slot_dtype(&self, _: usize, _: Dtype) -> Dtype {
        Dtype::F32
    }

    fn coefs<C: ComputeFloat>(
        &self,
        step: &StepContext,
        scalars: &ScalarState,
    ) -> Coefs<C::Scalar> {
        let eight = self.state.is_8bit(step);
        Coefs {
            weight_decay: C::scalar(self.weight_decay),
            momentum: C::scalar(self.momentum),
            minus_lr: C::scalar(-step.lr),
            decays: self.weight_decay > 0.0 || eight,
            first: step.t == 1,
            limited: self.needs_sums() && !eight,
            max_unorm: self.max_unorm,
            single: step.is_single(),
            lr: step.lr,
            unorm: scalars[0],
        }
    }

    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m]: [C; 1]) -> [C::Scalar; 2] {
        let m = Self::buffer(k, p, g, m);
        [reduce::square(p.widen(), k.single), reduce::square(m.widen(), k.single)]
    }

    fn apply_sums<C: ComputeFloat>(
        k: &mut Coefs<C::Scalar>,
        [param, update]: [C::Scalar; 2],
        _: usize,
    ) {
        if k.limited {
            let [param, update] = [param, update].map(|sum| reduce::root(sum, k.single).to_f64());
            k.unorm = update;
            let ratio = trust_ratio(k.max_unorm, param, update);
            k.minus_lr = C::scalar(-k.lr * ratio);
        }
    }

    fn export_scalars<C: ComputeFloat>(k: &Coefs<C::Scalar>, scalars: &mut ScalarState) {
        scalars[0] = k.unorm;
    }

    #[inline(always)]
    fn update<C: ComputeFloat>(k: &Coefs<C::Scalar>, p: C, g: C, [m]: [C; 1]) -> (C, [C; 1]) {
        let m = Self::buffer(k, p, g, m);
        (p.add_scaled(m, k.minus_lr), [m])
    }

    fn check_separable(&self) -> Result<(), Error> {
        if self.needs_sums() {
            let expected = "no limit, in a projection: it is a part of the parameter's norm";
            return Err(Error::InvalidArgument { argument: "max_unorm", expected });
        }
        no_decay("weight_decay", self.weight_decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::step;

    #[test]
    fn without_decay_an_infinite_parameter_does_not_reach_the_momentum() {
        let rule = BnbLars { lr: 0.5, momentum: 0.5, max_unorm: 0.0, ..BnbLars::default() };
        let (mut p, mut m) = ([f32::INFINITY], [0.0f32]);
        let at = StepContext::new(1, 0.5);
        step::<_, f32, _, _, _>(&rule, &at, &mut rule.scalars(), &mut p, &[4.0f32], [&mut m])
            .unwrap();
        assert_eq!((p[0], m[0]), (f32::INFINITY, 4.0));
    }
}
