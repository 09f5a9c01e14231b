//! The [`Rule`] trait, and the types that its methods use.

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
    /// Filled with this value.
    Constant(f64),
    /// A copy of the parameter.
    CopyParam,
}

/// Which of a rule's two parameter sets the caller holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The one that gradients are taken at and that is stepped.
    #[default]
    Train,
    /// The one to evaluate, and to save for inference.
    Eval,
}

/// Whether steps and scalars belong to the parameter or the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The parameter: they do not advance in a step in which it has no gradient.
    Parameter,
    /// The group: they advance with every call of the optimizer's `step`.
    Group,
}

/// How an optimizer updates one parameter.
///
/// A plain configuration whose public fields carry the reference's names. The
/// element functions take no `self`: everything they need is in [`Rule::Coefs`],
/// which the host computes once a step, so that every backend uses the same bits.
pub trait Rule: HyperParams + Copy + PartialEq + core::fmt::Debug + Send + Sync + 'static {
    /// One `T` per state slot: `[T; 2]` for two.
    type Slots<T>: Array<T>;
    /// The step's constants: bias corrections, `lr · weight_decay`, `1 − β`, …
    type Coefs<C: ComputeFloat>: Copy + Send + Sync;

    /// The rule's name in saved files. It never changes, even if the type is renamed.
    const ID: &'static str;
    /// The slots' names: the reference's `state_dict` keys. Slots that share a name are one tensor
    /// of the reference, stacked in this order along a new first dimension.
    const SLOTS: &'static [&'static str];
    /// Every value of [`Rule::active_slots`] that occurs (bit k: slot k is active); at most 4.
    const SLOT_MASKS: &'static [u32];
    /// Names of the scalars that persist from step to step, at most [`MAX_SCALARS`].
    const SCALAR_NAMES: &'static [&'static str] = &[];
    /// Whether steps are counted by the parameter or the group.
    const STEP_SCOPE: Scope = Scope::Parameter;
    /// The reference's `state_dict` key of the step count.
    const STEP_KEY: &'static str = "step";
    /// Whether the reference can compute eagerly, rounding 16-bit values after each operation. If not, because it is a kernel that
    /// computes in `f32` only, [`ComputePolicy::Eager`](crate::rule::ComputePolicy::Eager) is refused and not compiled.
    const EAGER: bool = true;
    /// Whether a parameter without elements still counts its steps.
    const COUNTS_EMPTY_PARAMS: bool = true;
    /// Names of the [extra arguments](StepContext::extra) that the rule uses.
    const EXTRA_ARGS: &'static [&'static str] = &[];
    /// How many sums over the tensor the coefficients may need: 0 (elementwise), 1 or 2.
    const NUM_SUMS: usize = 0;
    /// Which of the sums (bit k: sum k) depend on the parameter alone. In a low-rank projection
    /// ([`crate::lowrank`]), these are still taken over the full parameter.
    const PARAM_ONLY_SUMS: u32 = 0;

    /// Whether there are [`Rule::usual_coefs`].
    const HAS_USUAL_COEFS: bool = false;

    /// Checks the configuration against the reference's ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] or [`Error::InvalidArgument`], with the argument that is refused.
    fn check(&self) -> Result<(), Error>;
    /// The learning rate of the configuration.
    fn lr(&self) -> f64;
    /// The weight decay, however the rule applies it; 0 if it has none.
    fn weight_decay(&self) -> f64;
    /// Whether the rule maximizes (`maximize`).
    fn maximizes(&self) -> bool {
        false
    }
    /// Fills in the defaults that depend on other arguments, as the reference's constructor does.
    /// Parameter groups start from the resolved values.
    fn resolve_defaults(&mut self) {}

    /// Whether this configuration needs the sums; if not, [`Rule::apply_sums`] is not called.
    fn needs_sums(&self) -> bool {
        Self::NUM_SUMS > 0
    }
    /// Whether this configuration uses the scalars of [`Rule::SCALAR_NAMES`].
    fn uses_scalars(&self) -> bool {
        true
    }
    /// The divisor of all gradients in the norm [`StepContext::grad_norm`]; `None` if the rule does
    /// not need that norm.
    fn grad_norm_divisor(&self, extra: &[(&str, f64)]) -> Option<f64> {
        let _ = extra;
        None
    }
    /// The norm over all gradients, each divided by `divisor`; by default of order 2, in `f32`.
    fn grad_norm(&self, grads: &[Data<'_>], divisor: f64) -> f64 {
        unscaled_norm(grads.iter().copied(), divisor)
    }
    /// Whether the step depends on [`StepContext::index_in_group`].
    fn needs_index_in_group(&self) -> bool {
        false
    }
    /// Whether this configuration counts steps by the parameter or the group.
    fn step_scope(&self) -> Scope {
        Self::STEP_SCOPE
    }
    /// Whether the scalars belong to the parameter or the group; by default as the step count.
    fn scalar_scope(&self) -> Scope {
        self.step_scope()
    }
    /// The bases of the [`StepContext::beta_power`]s in the constants, so that a group computes them once.
    fn decay_bases(&self) -> [f64; 2] {
        [1.0; 2]
    }
    /// The active slots of this configuration (bit k: slot k); one of [`Rule::SLOT_MASKS`]. It depends on
    /// the compute type because Kahan compensation is only kept when sums are rounded to 16 bits.
    fn active_slots(&self, compute: Dtype) -> u32 {
        let _ = compute;
        Self::SLOT_MASKS.first().copied().unwrap_or(0)
    }
    /// How slot k starts.
    fn slot_init(&self, slot: usize) -> SlotInit {
        let _ = slot;
        SlotInit::Constant(0.0)
    }
    /// The type in which the reference stores slot k for a parameter of this type.
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        let _ = slot;
        param
    }
    /// The initial scalars.
    fn scalars(&self) -> ScalarState {
        [0.0; MAX_SCALARS]
    }
    /// Updates the scalars at the beginning of a step, before [`Rule::coefs`].
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        let _ = (step, scalars);
    }

    /// The step's constants, as the reference computes them.
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, scalars: &ScalarState) -> Self::Coefs<C>;

    /// One element's terms of the tensor's sums. They are not rounded to `C`: PyTorch
    /// accumulates norms and means of 16-bit tensors in `f32` too.
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
    /// Copies values of the completed constants into the scalars, so that they appear in the
    /// saved state.
    fn export_scalars<C: ComputeFloat>(k: &Self::Coefs<C>, scalars: &mut ScalarState) {
        let _ = (k, scalars);
    }

    /// The same constants, where this is a usual configuration for a parameter of this type and these active slots, with
    /// those that choose an operation written out: loops over them are compiled for these alone, without the choice.
    #[inline(always)]
    fn usual_coefs<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        param: Dtype,
        active: u32,
    ) -> Option<Self::Coefs<C>> {
        let _ = (k, param, active);
        None
    }

    /// The update of one element: the new parameter and slots. An inactive slot
    /// is passed as zero, and its new value is not stored.
    fn update<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>);

    /// The weight with which [`Rule::convert_element`] converts a parameter to mode `to`; `None` if
    /// training and evaluation use the same parameter, as in most rules.
    fn eval_weight(&self, to: Mode) -> Option<f64> {
        let _ = to;
        None
    }
    /// Converts one element of the parameter to the other mode.
    #[inline(always)]
    fn convert_element<C: ComputeFloat>(weight: C::Scalar, p: C, slots: Self::Slots<C>) -> C {
        let _ = (weight, slots);
        p
    }

    /// The first half of [`Rule::update`], for rules that are split by a projection
    /// ([`crate::lowrank`]): the direction, and the new slots. By default, the update that starts
    /// from a zero parameter.
    #[inline(always)]
    fn update_direction<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        g: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>) {
        Self::update(k, C::ZERO, g, slots)
    }
    /// The second half: moves the parameter along a direction. It includes weight decay if the rule's
    /// [`Rule::check_separable`] permits one.
    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &Self::Coefs<C>, p: C, direction: C) -> C {
        let _ = k;
        p + direction
    }
    /// Whether [`Rule::apply_direction`] adds the direction, which then includes −η; if not, it multiplies it by −η.
    const ADDS_DIRECTION: bool = true;
    /// Returns an error unless [`Rule::apply_direction`] after [`Rule::update_direction`] equals
    /// [`Rule::update`] except for rounding. By default they are equal if there is no weight decay and
    /// no slot starts as a copy of the parameter: such an update only adds to the parameter.
    ///
    /// # Errors
    /// The two differ: [`Error::OutOfRange`] or [`Error::InvalidArgument`], with the argument that causes it.
    fn check_separable(&self) -> Result<(), Error> {
        if (0..Self::SLOTS.len()).any(|slot| self.slot_init(slot) == SlotInit::CopyParam) {
            return Err(Error::InvalidArgument {
                argument: "rank",
                expected: "none: this rule copies the parameter into its state",
            });
        }
        no_decay("weight_decay", self.weight_decay())
    }
}

/// Refuses a weight decay, for rules that would apply it in the projected space, where the parameter is absent.
pub(crate) fn no_decay(argument: &'static str, value: f64) -> Result<(), Error> {
    ensure_range(value == 0.0, argument, value, "= 0: this rule has no decay under a projection")
}

/// The most scalars that a rule may keep.
pub const MAX_SCALARS: usize = 4;
/// Scalars that a rule keeps from step to step beside its slots; unused ones are 0.
pub type ScalarState = [f64; MAX_SCALARS];

/// The result of a check, for arguments that may be a group's own: the references refuse a weight decay
/// below 0 in an optimizer's constructor, but not in a parameter group, and step with it.
pub(crate) fn allow_negative_decay(checked: Result<(), Error>) -> Result<(), Error> {
    match checked {
        Err(Error::OutOfRange { argument: "weight_decay", value, .. }) if value < 0.0 => Ok(()),
        checked => checked,
    }
}
