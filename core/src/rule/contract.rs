//! What a rule says of itself.

use super::context::StepContext;
use crate::error::{Error, ensure_range};
use crate::float::{ComputeFloat, Dtype};
use crate::gradient::unscaled_norm;
use crate::hyper::HyperParams;
use crate::rule::Array;
use crate::storage::Data;

/// How a state slot starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlotInit {
    /// This number everywhere.
    Constant(f64),
    /// A copy of the parameter.
    CopyParam,
}

/// What the parameter in the caller's hands is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Taking gradients at, and stepping.
    #[default]
    Train,
    /// Evaluating, and saving for others to use.
    Eval,
}

/// Who counts the steps, or owns the carried numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each parameter: it stands still while that parameter has no gradient.
    Parameter,
    /// The whole group, with every call of the optimizer's `step`.
    Group,
}

/// How an optimizer moves one parameter.
///
/// A plain configuration whose public fields carry the reference's names. The
/// element functions take no `self`: all that they need of the configuration is
/// in [`Rule::Coefs`], computed once a step on the host, so that every backend
/// computes with the same bits.
pub trait Rule: HyperParams + Copy + PartialEq + core::fmt::Debug + Send + Sync + 'static {
    /// One `T` for each state slot: `[T; 2]` for two.
    type Slots<T>: Array<T>;
    /// The step's constants.
    type Coefs<C: ComputeFloat>: Copy + Send + Sync;

    /// What saved files call the rule, whatever becomes of its type's name. It never changes.
    const ID: &'static str;
    /// The slots' names: the reference's `state_dict` keys. Slots of the same name are one tensor
    /// of the reference, stacked along a new first dimension in this order.
    const SLOTS: &'static [&'static str];
    /// The combinations of slots that occur, as bit masks (bit k: slot k); at most 4.
    const SLOT_MASKS: &'static [u32];
    /// Names of the numbers carried from step to step beside the slots, at most [`MAX_SCALARS`].
    const SCALAR_NAMES: &'static [&'static str] = &[];
    /// Whose steps are counted.
    const STEP_SCOPE: Scope = Scope::Parameter;
    /// The reference's state key of the number of steps.
    const STEP_KEY: &'static str = "step";
    /// Whether the reference has a way to compute that rounds 16-bit numbers after each operation. Where it is a kernel
    /// that computes in `f32`, [eager arithmetic](crate::rule::ComputePolicy::Eager) is refused, and nothing is compiled for it.
    const EAGER: bool = true;
    /// Whether a step of a parameter without elements counts.
    const COUNTS_EMPTY_PARAMS: bool = true;
    /// The numbers from outside that the rule [listens to](StepContext::extra).
    const EXTRA_ARGS: &'static [&'static str] = &[];
    /// How many sums over the tensor the coefficients may need: 0 (elementwise), 1 or 2.
    const NUM_SUMS: usize = 0;
    /// Which of the sums (as bits) are over the parameter alone. Where the rule steps a
    /// projection ([`crate::lowrank`]), these are over the whole parameter all the same.
    const PARAM_ONLY_SUMS: u32 = 0;

    /// Whether the configuration is valid; ranges are the reference's.
    fn check(&self) -> Result<(), Error>;
    /// The learning rate of the configuration.
    fn lr(&self) -> f64;
    /// Its weight decay, however the rule applies it; 0 if it has none.
    fn weight_decay(&self) -> f64;
    /// Whether it goes up along gradients.
    fn maximizes(&self) -> bool {
        false
    }
    /// Fills in the defaults that depend on other arguments, as the reference's constructor does:
    /// parameter groups then start from these values, whatever they change.
    fn resolve_defaults(&mut self) {}

    /// Whether this configuration needs the sums; without, [`Rule::apply_sums`] is not called.
    fn needs_sums(&self) -> bool {
        Self::NUM_SUMS > 0
    }
    /// Whether this configuration carries the numbers of [`Rule::SCALAR_NAMES`].
    fn uses_scalars(&self) -> bool {
        true
    }
    /// What gradients are divided by before the norm over all of them is taken for
    /// [`StepContext::grad_norm`]; `None` if the rule can do without that norm.
    fn grad_norm_divisor(&self, given: &[(&str, f64)]) -> Option<f64> {
        let _ = given;
        None
    }
    /// That norm, of gradients divided by `scale`.
    fn grad_norm(&self, grads: &[Data<'_>], scale: f64) -> f64 {
        unscaled_norm(grads.iter().copied(), scale)
    }
    /// Whether the step depends on the parameter's [place](StepContext::index_in_group) among the others.
    fn needs_index_in_group(&self) -> bool {
        false
    }
    /// Whose steps are counted, under this configuration.
    fn step_scope(&self) -> Scope {
        Self::STEP_SCOPE
    }
    /// Who owns the carried numbers: as a rule whoever counts the steps.
    fn scalar_scope(&self) -> Scope {
        self.step_scope()
    }
    /// Of which numbers the constants hold [`StepContext::beta_power`]s: those are found once for a group.
    fn decay_bases(&self) -> [f64; 2] {
        [1.0; 2]
    }
    /// The slots that this configuration uses; one of [`Rule::SLOT_MASKS`]. `compute` is the type that
    /// the step is computed in: a sum needs a compensation only where it is rounded to 16 bits.
    fn active_slots(&self, compute: Dtype) -> u32 {
        let _ = compute;
        Self::SLOT_MASKS.first().copied().unwrap_or(0)
    }
    /// How slot k starts.
    fn slot_init(&self, slot: usize) -> SlotInit {
        let _ = slot;
        SlotInit::Constant(0.0)
    }
    /// The number type in which the reference keeps slot k for a parameter of this type.
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        let _ = slot;
        param
    }
    /// How the carried numbers start.
    fn scalars(&self) -> ScalarState {
        [0.0; MAX_SCALARS]
    }
    /// Moves the carried numbers on, before the coefficients are computed.
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        let _ = (step, scalars);
    }

    /// The step's constants, as the reference computes them.
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, scalars: &ScalarState) -> Self::Coefs<C>;

    /// What one element adds to the tensor's sums. Not rounded to `C`: PyTorch's
    /// norms and means of 16-bit tensors add up in `f32` too.
    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        slots: Self::Slots<C>,
    ) -> [C::Scalar; 2] {
        let _ = (k, p, g, slots);
        [C::Scalar::ZERO; 2]
    }
    /// Completes the constants with the sums over the tensor's n elements.
    fn apply_sums<C: ComputeFloat>(k: &mut Self::Coefs<C>, sums: [C::Scalar; 2], n: usize) {
        let _ = (k, sums, n);
    }
    /// Notes numbers of the finished constants among the carried ones, for those who read the state.
    fn export_scalars<C: ComputeFloat>(k: &Self::Coefs<C>, scalars: &mut ScalarState) {
        let _ = (k, scalars);
    }

    /// The update of one element: the parameter and its slots afterwards. A slot
    /// outside of the mask comes in as zero and is not stored.
    fn update<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>);

    /// The constant that [`Rule::convert_element`] needs to turn a parameter into the one of
    /// mode `to`; `None` if training and evaluation share one, as they mostly do.
    fn eval_weight(&self, to: Mode) -> Option<f64> {
        let _ = to;
        None
    }
    /// One element of the parameter, turned into that of the other mode.
    #[inline(always)]
    fn convert_element<C: ComputeFloat>(weight: C::Scalar, p: C, slots: Self::Slots<C>) -> C {
        let _ = (weight, slots);
        p
    }

    /// The first half of [`Rule::update`], for what may come between ([`crate::lowrank`]): the
    /// direction to be found in a gradient. Unless a rule says otherwise, the way from 0.
    #[inline(always)]
    fn update_direction<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        g: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>) {
        Self::update(k, C::ZERO, g, slots)
    }
    /// The second half: the parameter, moved along a direction. Decay is part of it, where the rule
    /// says so in [`Rule::check_separable`].
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Self::Coefs<C>, p: C, direction: C) -> C {
        let _ = k;
        p + direction
    }
    /// Whether the two halves, one after the other, are [`Rule::update`] but for rounding. Unless a rule
    /// says otherwise they are if nothing decays and no slot starts as the parameter: then the parameter
    /// is only added to.
    ///
    /// # Errors
    /// They are not; with the argument that stands in the way.
    fn check_separable(&self) -> Result<(), Error> {
        if (0..Self::SLOTS.len()).any(|slot| self.slot_init(slot) == SlotInit::CopyParam) {
            return Err(Error::InvalidArgument {
                argument: "rank",
                expected: "none: a slot of the rule stands for the parameter",
            });
        }
        no_decay("weight_decay", self.weight_decay())
    }
}

/// Refuses a weight decay. For a rule that applies it where a projection has no parameter.
pub(crate) fn no_decay(argument: &'static str, value: f64) -> Result<(), Error> {
    ensure_range(
        value == 0.0,
        argument,
        value,
        "= 0: in a projection this rule has nothing to decay",
    )
}

/// The most numbers that a rule may carry from step to step beside its slots.
pub const MAX_SCALARS: usize = 4;
/// Numbers carried from step to step beside the slots.
pub type ScalarState = [f64; MAX_SCALARS];

/// What a check says of arguments that a group may have brought: a weight decay below 0, which the
/// references refuse where an optimizer is made, they step with if it is a group's own.
pub(crate) fn check_group(checked: Result<(), Error>) -> Result<(), Error> {
    match checked {
        Err(Error::OutOfRange { argument: "weight_decay", value, .. }) if value < 0.0 => Ok(()),
        checked => checked,
    }
}
