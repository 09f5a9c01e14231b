//! [`DynRule`]: a rule whose type is known at run time only, as adapters, registry names and
//! checkpoints use it.
//!
//! Its tensors may have any types and storages. The common combinations run the loops of
//! [`crate::rule`] in place; every other one goes through small staging buffers, with the same
//! bits.

use half::{bf16, f16};

use crate::error::{Error, ensure_len};
use crate::float::Eager;
use crate::float::{ComputeFloat, Dtype};
use crate::gradient::unscaled_norm;
use crate::hyper::HyperParams;
use crate::rule::Array;
use crate::rule::mode::{self, Mode};
use crate::rule::{
    ActiveParts, Elementwise, Rule, ScalarState, Scope, SlotInit, StepContext,
    allow_negative_decay, check_norm, run, run_in_scratch,
};
use crate::storage::{
    Data, DataMut, MAX_BLOCK, Plain, check_blocks, chunk_len, chunk_len_within, numel,
};

use super::elementwise::filled;
use super::{ComputePolicy, RuleInfo, UpdateBuffers};

/// A type-erased rule.
pub trait DynRule: core::any::Any + core::fmt::Debug + Send + Sync {
    /// Calls `part` with each part of the name in saved files: those of the wrappers, outermost first, then [`Rule::ID`].
    fn id(&self, part: &mut dyn FnMut(&'static str));
    /// [`Rule::check`].
    fn check(&self) -> Result<(), Error>;
    /// The rule's other properties.
    fn info(&self) -> RuleInfo;
    /// The hyper-parameters.
    fn hyper_params(&mut self) -> &mut dyn HyperParams;
    /// [`Rule::lr`].
    fn lr(&self) -> f64;
    /// [`Rule::resolve_defaults`].
    fn resolve_defaults(&mut self) {}
    /// [`Rule::grad_norm_divisor`].
    fn grad_norm_divisor(&self, extra: &[(&str, f64)]) -> Option<f64> {
        let _ = extra;
        None
    }
    /// [`Rule::grad_norm`].
    fn grad_norm(&self, grads: &[Data<'_>], divisor: f64) -> f64 {
        unscaled_norm(grads.iter().copied(), divisor)
    }
    /// [`Rule::scalars`] of parameter `index` of an optimizer, from 0: APOLLO derives a seed from it.
    fn initial_scalars(&self, index: usize) -> ScalarState;
    /// [`Rule::advance_scalars`].
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState);
    /// Whether the rule has an update for parameters of this shape.
    ///
    /// # Errors
    /// It has none; Muon, for one, takes matrices only.
    fn check_shape(&self, shape: &[usize]) -> Result<(), Error> {
        let _ = shape;
        Ok(())
    }
    /// The number of elements of a slot, for a parameter of this shape and compute type; 0 if the
    /// slot is inactive.
    fn slot_len(&self, slot: usize, shape: &[usize], compute: Dtype) -> usize;
    /// Calls `dims` with each dimension of the slot in the reference: those of `shape`, except for row and column state.
    fn slot_shape(&self, slot: usize, shape: &[usize], dims: &mut dyn FnMut(usize)) {
        let _ = slot;
        shape.iter().for_each(|&d| dims(d));
    }
    /// [`Rule::slot_dtype`].
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype;
    /// [`Rule::slot_init`].
    fn slot_init(&self, slot: usize) -> SlotInit;
    /// The largest number of scratch elements that a step of a parameter of this shape may need.
    fn scratch_len(&self, shape: &[usize]) -> usize {
        let _ = shape;
        0
    }
    /// The number of scratch elements that this step needs, at most [`DynRule::scratch_len`]. `compute` is the
    /// type that it computes in.
    fn scratch_len_at(
        &self,
        compute: Dtype,
        step: &StepContext,
        shape: &[usize],
        param: &DataMut<'_>,
        grad: &Data<'_>,
    ) -> usize {
        let _ = (compute, step, param, grad);
        self.scratch_len(shape)
    }
    /// Updates a tensor; `scalars` have been [advanced](DynRule::advance_scalars).
    ///
    /// # Errors
    /// A buffer of the wrong length, or an invalid configuration. Nothing is written then.
    fn update(
        &self,
        policy: ComputePolicy,
        step: &StepContext,
        scalars: &mut ScalarState,
        tensor: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error>;
    /// Converts a parameter that has been stepped to mode `to`.
    ///
    /// # Errors
    /// A buffer of the wrong length, or a configuration that can't be evaluated. Nothing is written then.
    fn convert(
        &self,
        policy: ComputePolicy,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        let _ = (policy, to, param, slots);
        Ok(())
    }
    /// A clone on the heap.
    #[cfg(feature = "alloc")]
    fn clone_box(&self) -> alloc::boxed::Box<dyn DynRule>;
}

/// Begins a step of a group: advances its step count, and the scalars if they belong to the group.
///
/// Code that keeps state itself begins every step with this, then calls [`begin_parameter`] for each parameter of the
/// group that has a gradient. [`begin_single`] does both for a group of one.
pub fn begin_group<R: DynRule + ?Sized>(
    rule: &R,
    info: &RuleInfo,
    at: &StepContext<'_>,
    steps: &mut u64,
    scalars: &mut ScalarState,
) {
    *steps = steps.saturating_add(1);
    if info.scalar_scope == Scope::Group {
        rule.advance_scalars(
            &StepContext { extra: at.extra, ..StepContext::new(*steps, at.lr) },
            scalars,
        );
    }
}

/// Begins a parameter's step: advances its step count, sets `at.t`, and advances the scalars if they belong to the
/// parameter. `group` is the group's step count.
#[inline(always)]
pub fn begin_parameter<R: DynRule + ?Sized>(
    rule: &R,
    info: &RuleInfo,
    at: &mut StepContext<'_>,
    group: u64,
    steps: &mut u64,
    scalars: &mut ScalarState,
) {
    let counts = info.counts_empty_params || !at.shape.contains(&0);
    *steps = steps.saturating_add(counts.into());
    at.t = match info.step_scope {
        Scope::Parameter => *steps,
        Scope::Group => group,
    };
    if info.scalar_scope == Scope::Parameter {
        rule.advance_scalars(at, scalars);
    }
}

/// Begins a step of a parameter that is alone in its group, with one step count and one set of scalars, whichever of the
/// two they belong to. Group-scoped counters advance even without a gradient.
pub fn begin_single<R: DynRule + ?Sized>(
    rule: &R,
    at: &mut StepContext<'_>,
    has_grad: bool,
    steps: &mut u64,
    scalars: &mut ScalarState,
) {
    let info = rule.info();
    let (mut group, mut own) = ((*steps, *scalars), (*steps, *scalars));
    begin_group(rule, &info, at, &mut group.0, &mut group.1);
    if has_grad {
        begin_parameter(rule, &info, at, group.0, &mut own.0, &mut own.1);
    }
    let of = |scope| if scope == Scope::Group { group } else { own };
    (*steps, *scalars) = (of(info.step_scope).0, of(info.scalar_scope).1);
}

#[cfg(feature = "alloc")]
impl Clone for alloc::boxed::Box<dyn DynRule> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// Checks the length of every buffer, and that the step has the gradient norm if the rule needs it: what an
/// implementation of [`DynRule::update`] begins with, so that nothing is written on an error.
///
/// # Errors
/// [`Error::LengthMismatch`] with the buffer, [`Error::InvalidArgument`] without the norm, [`DynRule::check_shape`]'s.
pub fn check_tensor(
    rule: &dyn DynRule,
    policy: ComputePolicy,
    step: &StepContext,
    t: &UpdateBuffers<'_, '_>,
) -> Result<(), Error> {
    check_tensor_in(rule, policy.compute(t.param.dtype()), step, t)
}

/// [`check_tensor`] for a known compute type; generic, so that firmware links it for its own rule only.
fn check_tensor_in<R: DynRule + ?Sized>(
    rule: &R,
    compute: Dtype,
    step: &StepContext,
    t: &UpdateBuffers<'_, '_>,
) -> Result<(), Error> {
    check_norm(rule.grad_norm_divisor(step.extra), step)?;
    rule.check_shape(t.shape)?;
    let n = numel(t.shape);
    ensure_len("param", t.param.len(), n)?;
    ensure_len("grad", t.grad.len(), n)?;
    let names = rule.info().slots;
    ensure_len("slots", t.slots.len(), names.len())?;
    for (k, slot) in t.slots.iter().enumerate() {
        let name = names.get(k).copied().unwrap_or("slot");
        ensure_len(name, slot.len(), rule.slot_len(k, t.shape, compute))?;
    }
    check_blocks(t.slots.iter().map(DataMut::block).chain([t.param.block()]))?;
    let expected = rule.scratch_len_at(compute, step, t.shape, &t.param, &t.grad);
    if t.scratch.len() < expected {
        return Err(Error::LengthMismatch { argument: "scratch", got: t.scratch.len(), expected });
    }
    Ok(())
}

/// The error for [`ComputePolicy::Eager`] for a rule whose reference never rounds after each operation.
pub(crate) const NOT_EAGER: Error = Error::InvalidArgument {
    argument: "policy",
    expected: "a policy that the rule's reference supports",
};

impl<R: Rule> DynRule for R {
    fn id(&self, part: &mut dyn FnMut(&'static str)) {
        part(R::ID);
    }
    fn check(&self) -> Result<(), Error> {
        Rule::check(self)
    }
    fn info(&self) -> RuleInfo {
        RuleInfo::of(self)
    }
    fn hyper_params(&mut self) -> &mut dyn HyperParams {
        self
    }
    fn lr(&self) -> f64 {
        Rule::lr(self)
    }
    fn resolve_defaults(&mut self) {
        Rule::resolve_defaults(self);
    }
    fn grad_norm_divisor(&self, extra: &[(&str, f64)]) -> Option<f64> {
        Rule::grad_norm_divisor(self, extra)
    }
    fn grad_norm(&self, grads: &[Data<'_>], divisor: f64) -> f64 {
        Rule::grad_norm(self, grads, divisor)
    }
    fn initial_scalars(&self, _: usize) -> ScalarState {
        Rule::scalars(self)
    }
    fn advance_scalars(&self, step: &StepContext, scalars: &mut ScalarState) {
        Rule::advance_scalars(self, step, scalars);
    }
    fn slot_len(&self, slot: usize, shape: &[usize], compute: Dtype) -> usize {
        if self.active_slots(compute) >> slot & 1 == 1 { numel(shape) } else { 0 }
    }
    fn slot_dtype(&self, slot: usize, param: Dtype) -> Dtype {
        Rule::slot_dtype(self, slot, param)
    }
    fn slot_init(&self, slot: usize) -> SlotInit {
        self.slot_init(slot)
    }
    fn update(
        &self,
        policy: ComputePolicy,
        step: &StepContext,
        scalars: &mut ScalarState,
        mut tensor: UpdateBuffers<'_, '_>,
    ) -> Result<(), Error> {
        allow_negative_decay(Rule::check(self))?;
        check_tensor(self, policy, step, &tensor)?;
        let t = &mut tensor;
        match policy.compute(t.param.dtype()) {
            Dtype::F64 => update::<R, f64>(self, step, scalars, t),
            Dtype::F32 => update::<R, f32>(self, step, scalars, t),
            _ if const { !R::EAGER } => return Err(NOT_EAGER),
            Dtype::Bf16 => update::<R, Eager<bf16>>(self, step, scalars, t),
            Dtype::F16 => update::<R, Eager<f16>>(self, step, scalars, t),
        }
        Ok(())
    }
    fn convert(
        &self,
        policy: ComputePolicy,
        to: Mode,
        param: &mut DataMut<'_>,
        slots: &mut [DataMut<'_>],
    ) -> Result<(), Error> {
        let Some(weight) = mode::conversion(self, to)? else { return Ok(()) };
        let compute = policy.compute(param.dtype());
        for (k, slot) in slots.iter().enumerate() {
            let name = R::SLOTS.get(k).copied().unwrap_or("slot");
            ensure_len(name, slot.len(), self.slot_len(k, &[param.len()], compute))?;
        }
        check_blocks(slots.iter().map(DataMut::block).chain([param.block()]))?;
        match compute {
            Dtype::F64 => convert::<R, f64>(weight, param, slots),
            Dtype::F32 => convert::<R, f32>(weight, param, slots),
            _ if const { !R::EAGER } => return Err(NOT_EAGER),
            Dtype::Bf16 => convert::<R, Eager<bf16>>(weight, param, slots),
            Dtype::F16 => convert::<R, Eager<f16>>(weight, param, slots),
        }
        Ok(())
    }
    #[cfg(feature = "alloc")]
    fn clone_box(&self) -> alloc::boxed::Box<dyn DynRule> {
        alloc::boxed::Box::new(*self)
    }
}

/// One step of a tensor in any storage, decoded and encoded a chunk at a time in `scratch`: for devices with little memory.
///
/// [`DynRule::update`] links code and buffers for every type; this links only those of one rule and of the type of
/// `scratch` (`f32` or `f64`), in which it computes, with the same bits. `scratch` holds a buffer for the
/// parameter, one for the gradient and one for each slot, active or not. Unlike `update`, this
/// [advances](Rule::advance_scalars) `scalars`.
///
/// # Errors
/// An invalid configuration, a buffer of the wrong length, fewer buffers than are needed, or blocks longer than one.
/// Nothing is written then.
///
/// # Example
/// `tensor.scratch` is empty: the step uses only the argument `scratch`.
/// ```
/// use bitstep::{prelude::*, rule::{UpdateBuffers, step_buffered}, storage::{BlockQuantized, Companded}};
/// let (mut codes, mut scales) = ([0; 40], [half::f16::ZERO; 2]);
/// let mut momentum = BlockQuantized::new(Companded::Momentum, 40, &mut codes, &mut scales)?;
/// let mut param = [1.0f32; 40];
/// let tensor = UpdateBuffers {
///     shape: &[40],
///     param: (&mut param).into(),
///     grad: (&[1.0f32; 40]).into(),
///     slots: &mut [DataMut::Encoded(&mut momentum)],
///     scratch: DataMut::F32(&mut []),
/// };
/// let mut scalars = FlashLion::DEFAULT.scalars();
/// let scratch = &mut [[0.0f32; 32]; 3];
/// step_buffered(&FlashLion::DEFAULT, &StepContext::new(1, 0.25), &mut scalars, tensor, scratch)?;
/// assert_eq!(param, [0.75; 40]);
/// # Ok::<(), bitstep::Error>(())
/// ```
pub fn step_buffered<R: Rule, C: ComputeFloat<Stored = C> + Plain, const B: usize>(
    rule: &R,
    step: &StepContext,
    scalars: &mut ScalarState,
    mut tensor: UpdateBuffers<'_, '_>,
    scratch: &mut [[C; B]],
) -> Result<(), Error> {
    Rule::check(rule)?;
    check_tensor_in(rule, C::DTYPE, step, &tensor)?;
    let t = &mut tensor;
    let expected = 2 + R::SLOTS.len();
    if scratch.len() < expected {
        return Err(Error::LengthMismatch { argument: "scratch", got: scratch.len(), expected });
    }
    let blocks = t.slots.iter().map(DataMut::block).chain([t.param.block()]);
    let Some(chunk_len) = chunk_len_within(B, blocks.clone()) else {
        let largest = blocks.max().unwrap_or(1) as f64;
        return Err(Error::OutOfRange {
            argument: "block",
            value: largest,
            expected: "blocks that fit into the scratch buffers",
        });
    };
    let step = &StepContext { shape: t.shape, dtype: t.param.dtype(), ..*step };
    Rule::advance_scalars(rule, step, scalars);
    let mut k = rule.coefs::<C>(step, scalars);
    let active = ActiveParts::of(rule, C::DTYPE);
    run_in_scratch::<R, C, _, B>(Elementwise, &mut k, active, scalars, t, chunk_len, scratch);
    Ok(())
}

/// Element i of each slot. Of any rule, as [`elementwise`](super::elementwise)'s.
#[inline(always)]
fn load_decoded_at<C: ComputeFloat, A: Array<C>>(state: &[[C::Stored; MAX_BLOCK]], i: usize) -> A {
    A::from_fn(|k| state.get(k).and_then(|s| s.get(i)).map_or(C::ZERO, |&x| C::load(x)))
}

fn convert<R: Rule, C: ComputeFloat<Stored: Plain>>(
    weight: f64,
    param: &mut DataMut<'_>,
    slots: &[DataMut<'_>],
) {
    let blocks = slots.iter().map(DataMut::block).chain([param.block()]);
    let Some(chunk_len) = chunk_len(blocks) else { return };
    let weight = C::scalar(weight);
    let mut state: R::Slots<[C::Stored; MAX_BLOCK]> = filled([C::Stored::default(); MAX_BLOCK]);
    convert_chunks(chunk_len, param, slots, state.as_mut(), &mut |values, state| {
        for (i, p) in values.iter_mut().enumerate() {
            let slots: R::Slots<C> = load_decoded_at(state, i);
            *p = R::convert_element(weight, C::load(*p), slots).store();
        }
    });
}

/// Converts decoded values, with the slots of their rule.
type ConvertChunk<'a, S> = &'a mut dyn FnMut(&mut [S], &[[S; MAX_BLOCK]]);

/// Converts a parameter a chunk at a time, decoded into `state` and a buffer. It is compiled once for all rules.
fn convert_chunks<S: Plain>(
    chunk_len: usize,
    param: &mut DataMut<'_>,
    slots: &[DataMut<'_>],
    state: &mut [[S; MAX_BLOCK]],
    convert: ConvertChunk<'_, S>,
) {
    let mut values = [S::default(); MAX_BLOCK];
    for start in (0..param.len()).step_by(chunk_len) {
        let len = (param.len() - start).min(chunk_len);
        let values = values.get_mut(..len).unwrap_or_default();
        param.load(start, values);
        for (to, from) in state.iter_mut().zip(slots).filter(|(_, s)| !s.is_empty()) {
            from.load(start, to.get_mut(..len).unwrap_or_default());
        }
        convert(values, state);
        param.store(start, values);
    }
}

/// A step of checked buffers in a known compute type.
pub(crate) fn update<R: Rule, C: ComputeFloat<Stored: Plain>>(
    rule: &R,
    step: &StepContext,
    scalars: &mut ScalarState,
    t: &mut UpdateBuffers<'_, '_>,
) {
    let mut k = rule.coefs::<C>(&step.with_default_shape(t.shape), scalars);
    run::<R, C, _>(Elementwise, &mut k, ActiveParts::of(rule, C::DTYPE), scalars, t);
}
