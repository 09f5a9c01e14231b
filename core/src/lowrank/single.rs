//! Rules that keep to `f32`.

use crate::any::{AnyRule, Arithmetic, RuleInfo};
use crate::args::Hyper;
use crate::error::Error;
use crate::lowrank::{Directed, directed};
use crate::mode::Mode;
use crate::real::{Dtype, Real};
use crate::rule::{Rule, Scalars, Start, Step, Tensor};
use crate::storage::{Data, DataMut, Plain};

/// A rule that computes in `f32`, whatever is around it: [`Arithmetic::Single`].
///
/// Between two products that are rounded to the parameter's type, it takes the projection
/// from that type, and its direction is rounded to it. The constants of its second half are
/// those from before its sums are known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Single<R>(pub R);

impl<R: Rule> AnyRule for Single<R> {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part(Arithmetic::Single.id());
        part(R::ID);
    }
    fn check(&self) -> Result<(), Error> {
        AnyRule::check(&self.0)
    }
    fn info(&self) -> RuleInfo {
        RuleInfo { is_eager: true, ..self.0.info() }
    }
    fn hyper(&mut self) -> &mut dyn Hyper {
        self.0.hyper()
    }
    fn lr(&self) -> f64 {
        AnyRule::lr(&self.0)
    }
    fn settle(&mut self) {
        AnyRule::settle(&mut self.0);
    }
    fn norm_scale(&self, given: &[(&str, f64)]) -> Option<f64> {
        AnyRule::norm_scale(&self.0, given)
    }
    fn grad_norm(&self, grads: &[Data<'_>], scale: f64) -> f64 {
        AnyRule::grad_norm(&self.0, grads, scale)
    }
    fn scalars_of(&self, index: usize) -> Scalars {
        self.0.scalars_of(index)
    }
    fn advance(&self, step: &Step, scalars: &mut Scalars) {
        AnyRule::advance(&self.0, step, scalars);
    }
    fn slot_len(&self, slot: usize, shape: &[usize], _: Dtype) -> usize {
        self.0.slot_len(slot, shape, Dtype::F32)
    }
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        AnyRule::slot_dtype(&self.0, slot, param)
    }
    fn slot_start(&self, slot: usize) -> Start {
        self.0.slot_start(slot)
    }
    fn update(
        &self,
        _: Arithmetic,
        step: &Step,
        scalars: &mut Scalars,
        tensor: Tensor<'_, '_>,
    ) -> Result<(), Error> {
        self.0.update(Arithmetic::Single, step, scalars, tensor)
    }
    fn convert(
        &self,
        _: Arithmetic,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        AnyRule::convert(&self.0, Arithmetic::Single, to, param, slots)
    }
    #[cfg(feature = "alloc")]
    fn boxed(&self) -> alloc::boxed::Box<dyn AnyRule> {
        alloc::boxed::Box::new(*self)
    }
}

impl<R: Rule> Directed for Single<R> {
    const EAGER: bool = true; // what is around it
    const KEYS: &'static [&'static str] = <R as Rule>::SLOTS;
    const NUMBERS: &'static [&'static str] = <R as Rule>::SCALARS;
    const GIVEN: &'static [&'static str] = <R as Rule>::GIVEN;
    type Known<C: Real> = <R as Rule>::Coefs<C>;

    fn direct<C: Real<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &Step,
        scalars: &mut Scalars,
        whole: &DataMut<'_>,
        low: Tensor<'_, '_>,
    ) -> Result<<R as Rule>::Coefs<C>, Error> {
        let k = self.0.coefs::<C>(step, scalars);
        directed::direct::<R, f32>(&self.0, step, scalars, whole, low);
        Ok(k)
    }

    fn inner(&self) -> (&dyn AnyRule, bool) {
        (&self.0, true)
    }

    #[inline(always)]
    fn follow<C: Real>(k: &<R as Rule>::Coefs<C>, p: C, direction: C) -> C {
        <R as Rule>::descend(k, p, direction)
    }

    fn check_halves(&self) -> Result<(), Error> {
        Rule::check_halves(&self.0)
    }

    /// As what is around the rule, not as its state.
    fn projector_dtype(&self, param: Dtype) -> Dtype {
        param
    }
}
