//! [`SplitRule`]: a rule as a direction and its application.

use crate::error::Error;
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::{FieldVisitor, HyperParams};
use crate::rule::DynRule;
use crate::rule::factored::{self, FactoredRule, FactoredUpdate, MatrixLayout};
use crate::rule::{
    ActiveParts, Elementwise, Rule, ScalarState, Scope, SlotInit, StepContext, UpdateBuffers,
    WithParamSums, param_sums, run,
};
use crate::storage::{DataMut, Plain};

/// A rule whose update is split into computing a direction from a gradient, and applying it to the parameter.
///
/// Implemented for every [`Rule`], every [`FactoredRule`], and [`ForceF32`](super::ForceF32).
pub trait SplitRule: DynRule + Copy + PartialEq + 'static {
    /// [`RuleInfo::is_eager`](crate::rule::RuleInfo::is_eager).
    const EAGER: bool;
    /// [`RuleInfo::slots`](crate::rule::RuleInfo::slots).
    const SLOTS: &'static [&'static str];
    /// [`RuleInfo::scalar_names`](crate::rule::RuleInfo::scalar_names) of all configurations.
    const SCALAR_NAMES: &'static [&'static str];
    /// [`RuleInfo::extra_args`](crate::rule::RuleInfo::extra_args).
    const EXTRA_ARGS: &'static [&'static str];
    /// [`Rule::ADDS_DIRECTION`].
    const ADDS_DIRECTION: bool;
    /// The constants of the step, for [`apply_direction`](Self::apply_direction).
    type Coefs<C: ComputeFloat>: Copy;

    /// Computes the direction of a gradient into the parameter of `low`, which must be zeros. `full` is the parameter
    /// that is projected.
    ///
    /// # Errors
    /// Scratch memory of the wrong type.
    fn compute_direction<C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        full: &DataMut<'_>,
        low: UpdateBuffers<'_, '_>,
    ) -> Result<Self::Coefs<C>, Error>;

    /// The rule that computes the direction, and whether it always computes in `f32`: for backends with their own loops.
    fn inner_rule(&self) -> (&dyn DynRule, bool) {
        (self, false)
    }

    /// An element of the parameter, moved along a direction.
    fn apply_direction<C: ComputeFloat>(k: &Self::Coefs<C>, p: C, direction: C) -> C;

    /// [`Rule::check_separable`].
    ///
    /// # Errors
    /// Direction and application together are not the rule's update.
    fn check_separable(&self) -> Result<(), Error>;

    /// The type in which projectors are stored.
    fn projector_dtype(&self, param: Dtype) -> Dtype {
        self.slot_dtype(0, param)
    }
}

/// The direction of a rule, as a rule whose update is the direction.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Direction<R>(R);

impl<R: Rule> HyperParams for Direction<R> {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        self.0.fields(f);
    }
}

impl<R: Rule> Rule for Direction<R> {
    type Slots<T> = R::Slots<T>;
    type Coefs<C: ComputeFloat> = R::Coefs<C>;
    const ID: &'static str = R::ID;
    const SLOTS: &'static [&'static str] = R::SLOTS;
    const SLOT_MASKS: &'static [u32] = R::SLOT_MASKS;
    const SCALAR_NAMES: &'static [&'static str] = R::SCALAR_NAMES;
    const NUM_SUMS: usize = R::NUM_SUMS;
    const PARAM_ONLY_SUMS: u32 = R::PARAM_ONLY_SUMS;

    fn check(&self) -> Result<(), Error> {
        Rule::check(&self.0)
    }
    fn lr(&self) -> f64 {
        Rule::lr(&self.0)
    }
    fn weight_decay(&self) -> f64 {
        self.0.weight_decay()
    }
    fn maximizes(&self) -> bool {
        self.0.maximizes()
    }
    fn needs_sums(&self) -> bool {
        self.0.needs_sums()
    }
    fn step_scope(&self) -> Scope {
        Rule::step_scope(&self.0)
    }
    fn active_slots(&self, compute: Dtype) -> u32 {
        self.0.active_slots(compute)
    }
    fn slot_init(&self, slot: usize) -> SlotInit {
        self.0.slot_init(slot)
    }
    fn coefs<C: ComputeFloat>(&self, step: &StepContext, scalars: &ScalarState) -> Self::Coefs<C> {
        self.0.coefs::<C>(step, scalars)
    }
    #[inline(always)]
    fn sum_terms<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        p: C,
        g: C,
        slots: Self::Slots<C>,
    ) -> [C::Scalar; 2] {
        R::sum_terms(k, p, g, slots)
    }
    fn apply_sums<C: ComputeFloat>(k: &mut Self::Coefs<C>, sums: [C::Scalar; 2], n: usize) {
        R::apply_sums::<C>(k, sums, n);
    }
    fn export_scalars<C: ComputeFloat>(k: &Self::Coefs<C>, scalars: &mut ScalarState) {
        R::export_scalars::<C>(k, scalars);
    }
    #[inline(always)]
    fn update<C: ComputeFloat>(
        k: &Self::Coefs<C>,
        _: C,
        g: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>) {
        R::update_direction(k, g, slots)
    }
}

/// Computes the direction of a gradient into the zeros of `low`; returns the constants, completed with the sums.
pub(super) fn compute_direction<R: Rule, C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
    rule: &R,
    step: &StepContext,
    scalars: &mut ScalarState,
    full: &DataMut<'_>,
    mut low: UpdateBuffers<'_, '_>,
) -> R::Coefs<C> {
    let mut k = rule.coefs::<C>(step, scalars);
    let sums = param_sums::<R, C>(&k, full, low.param.len());
    let uses = ActiveParts::of(rule, C::DTYPE);
    run::<Direction<R>, C, _>(WithParamSums(Elementwise, sums), &mut k, uses, scalars, &mut low);
    k
}

impl<R: Rule> SplitRule for R {
    const EAGER: bool = <R as Rule>::EAGER;
    const SLOTS: &'static [&'static str] = <R as Rule>::SLOTS;
    const SCALAR_NAMES: &'static [&'static str] = <R as Rule>::SCALAR_NAMES;
    const EXTRA_ARGS: &'static [&'static str] = <R as Rule>::EXTRA_ARGS;
    const ADDS_DIRECTION: bool = <R as Rule>::ADDS_DIRECTION;
    type Coefs<C: ComputeFloat> = <R as Rule>::Coefs<C>;

    fn compute_direction<C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        full: &DataMut<'_>,
        low: UpdateBuffers<'_, '_>,
    ) -> Result<<R as Rule>::Coefs<C>, Error> {
        Ok(compute_direction(self, step, scalars, full, low))
    }

    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &<R as Rule>::Coefs<C>, p: C, direction: C) -> C {
        <R as Rule>::apply_direction(k, p, direction)
    }

    fn check_separable(&self) -> Result<(), Error> {
        Rule::check_separable(self)
    }
}

/// The direction is the update that starts from zero: [`FactoredUpdate::factored_update`] of a parameter of zeros.
impl<R: FactoredUpdate> SplitRule for FactoredRule<R> {
    const EAGER: bool = <R as Rule>::EAGER;
    const SLOTS: &'static [&'static str] = R::SLOT_NAMES;
    const SCALAR_NAMES: &'static [&'static str] = <R as Rule>::SCALAR_NAMES;
    const EXTRA_ARGS: &'static [&'static str] = <R as Rule>::EXTRA_ARGS;
    const ADDS_DIRECTION: bool = <R as Rule>::ADDS_DIRECTION;
    type Coefs<C: ComputeFloat> = <R as Rule>::Coefs<C>;

    fn compute_direction<C: ComputeFloat<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &StepContext,
        scalars: &mut ScalarState,
        full: &DataMut<'_>,
        low: UpdateBuffers<'_, '_>,
    ) -> Result<<R as Rule>::Coefs<C>, Error> {
        let Some(layout) = MatrixLayout::of(low.shape) else {
            return Err(Error::InvalidArgument { argument: "shape", expected: "a matrix" });
        };
        factored::update::<R, C>(&self.0, step, scalars, layout, low, Some(full))
    }

    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &<R as Rule>::Coefs<C>, p: C, direction: C) -> C {
        <R as Rule>::apply_direction(k, p, direction)
    }

    fn check_separable(&self) -> Result<(), Error> {
        self.0.check_separable()
    }
}
