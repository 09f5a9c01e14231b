//! Rules in two halves.

use crate::any::AnyRule;
use crate::args::{Fields, Hyper};
use crate::error::Error;
use crate::factored::{self, Factored, Layout, Matrix};
use crate::real::{Dtype, Real};
use crate::rule::{
    Counter, Elements, InPlaceOf, Rule, Scalars, Start, Step, Tensor, Uses, run, sums_of_param,
};
use crate::storage::{DataMut, Plain};

/// A rule whose update is found in a gradient first, and then made: any there is.
pub trait Directed: AnyRule + Copy + PartialEq + 'static {
    /// [`RuleInfo::is_eager`](crate::any::RuleInfo::is_eager).
    const EAGER: bool;
    /// [`RuleInfo::slots`](crate::any::RuleInfo::slots).
    const KEYS: &'static [&'static str];
    /// [`RuleInfo::scalars`](crate::any::RuleInfo::scalars), of any configuration.
    const NUMBERS: &'static [&'static str];
    /// [`RuleInfo::given`](crate::any::RuleInfo::given).
    const GIVEN: &'static [&'static str];
    /// What the second half needs to know of the first.
    type Known<C: Real>: Copy;

    /// Finds the direction of a gradient: over the parameter of `low`, which comes in as zeros.
    /// `whole` is the parameter that it stands for.
    ///
    /// # Errors
    /// Scratch memory of the wrong type.
    fn direct<C: Real<Scalar: Plain, Stored: Plain>>(
        &self,
        step: &Step,
        scalars: &mut Scalars,
        whole: &DataMut<'_>,
        low: Tensor<'_, '_>,
    ) -> Result<Self::Known<C>, Error>;

    /// The rule that finds it, and whether it computes in `f32` whatever is around it: for
    /// backends with loops of their own.
    fn inner(&self) -> (&dyn AnyRule, bool) {
        (self, false)
    }

    /// An element of the parameter, moved along a direction.
    fn follow<C: Real>(k: &Self::Known<C>, p: C, direction: C) -> C;

    /// [`Rule::check_halves`].
    ///
    /// # Errors
    /// The halves are not the whole.
    fn check_halves(&self) -> Result<(), Error>;

    /// The number type in which projectors are kept beside the slots.
    fn projector_dtype(&self, param: Dtype) -> Dtype {
        self.slot_dtype(0, param)
    }
}

/// A rule's first half, as a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Direction<R>(R);

impl<R: Rule> Hyper for Direction<R> {
    fn fields(&mut self, f: &mut dyn Fields) {
        self.0.fields(f);
    }
}

impl<R: Rule> Rule for Direction<R> {
    type Slots<T> = R::Slots<T>;
    type Coefs<C: Real> = R::Coefs<C>;
    const ID: &'static str = R::ID;
    const SLOTS: &'static [&'static str] = R::SLOTS;
    const MASKS: &'static [u32] = R::MASKS;
    const SCALARS: &'static [&'static str] = R::SCALARS;
    const SUMS: usize = R::SUMS;
    const SUMS_OF_PARAM: u32 = R::SUMS_OF_PARAM;

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
    fn counter(&self) -> Counter {
        Rule::counter(&self.0)
    }
    fn mask(&self, compute: Dtype) -> u32 {
        self.0.mask(compute)
    }
    fn start(&self, slot: usize) -> Start {
        self.0.start(slot)
    }
    fn coefs<C: Real>(&self, step: &Step, scalars: &Scalars) -> Self::Coefs<C> {
        self.0.coefs::<C>(step, scalars)
    }
    #[inline(always)]
    fn terms<C: Real>(k: &Self::Coefs<C>, p: C, g: C, slots: Self::Slots<C>) -> [C::Scalar; 2] {
        R::terms(k, p, g, slots)
    }
    fn finish<C: Real>(k: &mut Self::Coefs<C>, sums: [C::Scalar; 2], n: usize) {
        R::finish::<C>(k, sums, n);
    }
    fn record<C: Real>(k: &Self::Coefs<C>, scalars: &mut Scalars) {
        R::record::<C>(k, scalars);
    }
    #[inline(always)]
    fn element<C: Real>(
        k: &Self::Coefs<C>,
        _: C,
        g: C,
        slots: Self::Slots<C>,
    ) -> (C, Self::Slots<C>) {
        R::direction(k, g, slots)
    }
}

/// The direction of a gradient, over the zeros of `low`; the finished constants.
pub(super) fn direct<R: Rule, C: Real<Scalar: Plain, Stored: Plain>>(
    rule: &R,
    step: &Step,
    scalars: &mut Scalars,
    whole: &DataMut<'_>,
    mut low: Tensor<'_, '_>,
) -> R::Coefs<C> {
    let mut k = rule.coefs::<C>(step, scalars);
    let sums = sums_of_param::<R, C>(&k, whole, low.param.len());
    let uses = Uses::of(rule, C::DTYPE);
    run::<Direction<R>, C, _>(InPlaceOf(Elements, sums), &mut k, uses, scalars, &mut low);
    k
}

impl<R: Rule> Directed for R {
    const EAGER: bool = <R as Rule>::EAGER;
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
        Ok(direct(self, step, scalars, whole, low))
    }

    #[inline(always)]
    fn follow<C: Real>(k: &<R as Rule>::Coefs<C>, p: C, direction: C) -> C {
        <R as Rule>::descend(k, p, direction)
    }

    fn check_halves(&self) -> Result<(), Error> {
        Rule::check_halves(self)
    }
}

/// The direction is the way from 0: [`Factored::scaled_element`] of a parameter of zeros.
impl<R: Factored> Directed for Matrix<R> {
    const EAGER: bool = <R as Rule>::EAGER;
    const KEYS: &'static [&'static str] = R::NAMES;
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
        let Some(layout) = Layout::of(low.shape) else {
            return Err(Error::Invalid { argument: "shape", wanted: "a matrix" });
        };
        factored::update::<R, C>(&self.0, step, scalars, layout, low, Some(whole))
    }

    #[inline(always)]
    fn follow<C: Real>(k: &<R as Rule>::Coefs<C>, p: C, direction: C) -> C {
        <R as Rule>::descend(k, p, direction)
    }

    fn check_halves(&self) -> Result<(), Error> {
        self.0.check_halves()
    }
}
