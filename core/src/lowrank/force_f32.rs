//! [`ForceF32`]: a rule that computes in `f32` within a projection of any type.

use crate::error::Error;
use crate::float::{ComputeFloat, Dtype};
use crate::hyper::HyperParams;
use crate::lowrank::{SplitRule, split_rule};
use crate::rule::mode::Mode;
use crate::rule::{ComputePolicy, DynRule, RuleInfo};
use crate::rule::{Rule, ScalarState, SlotInit, StepContext, UpdateBuffers};
use crate::storage::{Data, DataMut, Plain};

/// A rule that computes in `f32` whatever the compute type of the projection around it: [`ComputePolicy::Single`].
///
/// The matrix products of the projection are rounded to the parameter's type: the rule converts the projected gradient
/// from that type, and its direction is rounded to it. The constants used to apply the direction are those from before
/// the rule's sums are known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ForceF32<R>(pub R);

impl<R: Rule> DynRule for ForceF32<R> {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part(ComputePolicy::Single.id());
        part(R::ID);
    }
    fn check(&self) -> Result<(), Error> {
        DynRule::check(&self.0)
    }
    fn info(&self) -> RuleInfo {
        RuleInfo { is_eager: true, ..self.0.info() }
    }
    fn hyper_params(&mut self) -> &mut dyn HyperParams {
        self.0.hyper_params()
    }
    fn lr(&self) -> f64 {
        DynRule::lr(&self.0)
    }
    fn resolve_defaults(&mut self) {
        DynRule::resolve_defaults(&mut self.0);
    }
    fn grad_norm_divisor(&self, extra: &[(&str, f64)]) -> Option<f64> {
        DynRule::grad_norm_divisor(&self.0, extra)
    }
    fn grad_norm(&self, grads: &[Data<'_>], scale: f64) -> f64 {
        DynRule::grad_norm(&self.0, grads, scale)
    }
    fn initial_scalars(&self, index: usize) -> ScalarState {
        self.0.initial_scalars(index)
    }
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        DynRule::advance_scalars(&self.0, step, scalars);
    }
    fn slot_len(&self, slot: usize, shape: &[usize], _: Dtype) -> usize {
        self.0.slot_len(slot, shape, Dtype::F32)
    }
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        DynRule::slot_dtype(&self.0, slot, param)
    }
    fn slot_init(&self, slot: usize) -> SlotInit {
        self.0.slot_init(slot)
    }
    fn update(
        &self,
        _: ComputePolicy,
        step: &StepContext,
        scalars: &mut ScalarState,
        tensor: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        self.0.update(ComputePolicy::Single, step, scalars, tensor)
    }
    fn convert(
        &self,
        _: ComputePolicy,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        DynRule::convert(&self.0, ComputePolicy::Single, to, param, slots)
    }
    #[cfg(feature = "alloc")]
    fn clone_box(&self) -> alloc::boxed::Box<dyn DynRule> {
        alloc::boxed::Box::new(*self)
    }
}

impl<R: Rule> SplitRule for ForceF32<R> {
    const EAGER: bool = true; // the projection around it may be eager
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
        let k = self.0.coefs::<C>(step, scalars);
        split_rule::compute_direction::<R, f32>(&self.0, step, scalars, full, low);
        Ok(k)
    }

    fn inner_rule(&self) -> (&dyn DynRule, bool) {
        (&self.0, true)
    }

    #[inline(always)]
    fn apply_direction<C: ComputeFloat>(k: &<R as Rule>::Coefs<C>, p: C, direction: C) -> C {
        <R as Rule>::apply_direction(k, p, direction)
    }

    fn check_separable(&self) -> Result<(), Error> {
        Rule::check_separable(&self.0)
    }

    /// That of the projection around the rule, not that of the rule's state.
    fn projector_dtype(&self, param: Dtype) -> Dtype {
        param
    }
}
