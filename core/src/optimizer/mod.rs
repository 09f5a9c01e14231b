//! An optimizer that owns its state: groups of parameters, slots, step counts.
//!
//! The caller keeps parameters and gradients; [`Optimizer::step`] borrows them.
//! It does what PyTorch's `Optimizer` does around the rule, once for all backends
//! whose state is in host memory: a parameter without a gradient stays as
//! it is, and so does its step count; a group's step count advances with every call.
//!
//! Not here: the update itself ([`crate::rule`]), the state of a single parameter
//! without a heap ([`crate::state`]), names of optimizers ([`crate::registry`]).

mod buffer;
mod group;
mod saved;
mod scheduled;
mod spec;
mod task;

pub use buffer::Buffer;
pub use group::{Group, GroupId, Param, ParamId, ParamState};
pub use spec::{OptimizerSpec, ParamStorage, StorageConfig};
pub use task::{PreparedStep, ScalarsRef, Task};
use task::{Scratch, TaskKind, next_task, param_update, prepare_one, task_cost, with_correction};

use crate::error::{Error, ensure_len};
use crate::float::Dtype;
use crate::math::random::counter_u64;
use crate::rule::mode::Mode;
use crate::rule::{ComputePolicy, DynRule, begin_group};
use crate::rule::{DecayPowers, SlotInit, StepContext};
use crate::storage::memory::collected;
use crate::storage::{Data, DataMut, RawBuffer, check_blocks, numel};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

/// Groups of parameters and their state.
///
/// ```
/// use bitstep::prelude::*;
/// let mut opt = Optimizer::new(registry::optimizer("adamw_torch", [("lr", 0.1)])?)?;
/// let w = opt.add_param(&[2], Dtype::F32)?;
/// let (mut weight, grad) = ([1.0f32, 2.0], [0.5f32, -0.5]);
/// opt.step([(w, (&mut weight).into(), (&grad).into())])?;
/// assert!(weight[0] < 1.0 && weight[1] > 2.0);
/// let bytes = opt.save()?; // and `opt.load(&bytes)?` into an optimizer that was built the same way
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Optimizer {
    groups: Vec<Group>,
    params: Vec<ParamState>,
    mode: Mode,
}

impl Optimizer {
    /// An optimizer with one group, to which [`add_param`](Self::add_param) adds.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn new(spec: OptimizerSpec) -> Result<Self, Error> {
        let mut optimizer = Self::empty();
        optimizer.add_group(spec)?;
        Ok(optimizer)
    }

    /// An optimizer without groups.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a group.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn add_group(&mut self, spec: OptimizerSpec) -> Result<GroupId, Error> {
        spec.check()?;
        let (lr, scalars) = (spec.rule.lr(), spec.rule.initial_scalars(0));
        self.groups.push(Group {
            original_spec: spec.clone(),
            spec,
            lr,
            steps: 0,
            scalars,
            group_dtype: None,
            decay_powers: DecayPowers::default(),
            grad_norm: None,
            given_grad_norm: None,
        });
        Ok(GroupId(self.groups.len() - 1))
    }

    /// Adds a parameter to the latest group.
    ///
    /// # Errors
    /// As [`add_param_to`](Self::add_param_to).
    pub fn add_param(&mut self, shape: &[usize], dtype: Dtype) -> Result<ParamId, Error> {
        self.add_param_to(GroupId(self.groups.len().wrapping_sub(1)), shape, dtype)
    }

    /// Adds a parameter to a group.
    ///
    /// # Errors
    /// An unknown group, a shape that the rule has no update for, an invalid storage format, or
    /// [no memory](Error::OutOfMemory) for the state. The optimizer is unchanged then.
    pub fn add_param_to(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<ParamId, Error> {
        self.add(group, shape, dtype, false, None)
    }

    /// Adds a parameter of which this optimizer holds and steps only the `elements`; other optimizers, in other processes,
    /// hold the others. Values, gradients and state are then as long as the part.
    ///
    /// A rule whose update of an element depends on others steps a whole parameter or nothing: one process has all
    /// of its elements and the others none (`0..0`), and still count its steps. Elsewhere a part begins and ends at a
    /// multiple of [`OptimizerSpec::part_multiple`], or at the parameter's end. Together the parts have the bits
    /// of the whole: a step knows the whole parameter's shape and, to round at random, the part's place in it.
    ///
    /// Every process adds every parameter, in the same order, and steps those that have a gradient in any, with an empty
    /// one where it holds nothing. A norm over all gradients comes from the caller ([`Group::given_grad_norm`],
    /// [`grad_norms`](Self::grad_norms)). Bytes that [`save`](Self::save) writes are those of the part, and load into the
    /// same part.
    ///
    /// # Errors
    /// As [`add_param_to`](Self::add_param_to); elements that the parameter does not have, or that can't be stepped on
    /// their own.
    ///
    /// ```
    /// use bitstep::{optimizer::GroupId, prelude::*};
    /// let adam = || registry::optimizer("adam", [("lr", 0.5)]);
    /// let mut whole = [1.0f32, 2.0, 3.0];
    /// let mut opt = Optimizer::new(adam()?)?;
    /// let w = opt.add_param(&[3], Dtype::F32)?;
    /// opt.step([(w, (&mut whole).into(), (&[0.1f32, -0.2, 0.3]).into())])?;
    /// // The second of two processes.
    /// let mut second = [3.0f32];
    /// let mut opt = Optimizer::new(adam()?)?;
    /// let w = opt.add_part(GroupId(0), &[3], Dtype::F32, 2..3)?;
    /// opt.step([(w, (&mut second).into(), (&[0.3f32]).into())])?;
    /// assert_eq!(second[0], whole[2]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn add_part(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
        elements: Range<usize>,
    ) -> Result<ParamId, Error> {
        self.add(group, shape, dtype, false, Some(elements))
    }

    /// Adds a parameter whose state is stored as plain values, regardless of [`StorageConfig::slot_formats`].
    /// Transformers does so for embeddings when the other parameters have 8-bit state.
    ///
    /// # Errors
    /// As [`add_param_to`](Self::add_param_to).
    ///
    /// ```
    /// use bitstep::{optimizer::Buffer, prelude::*};
    /// let mut opt = Optimizer::empty();
    /// let group = opt.add_group(registry::optimizer("adamw_bnb_8bit", Args::new())?)?;
    /// let weight = opt.add_param_to(group, &[64, 64], Dtype::F32)?;
    /// let embedding = opt.add_plain_param(group, &[64, 64], Dtype::F32)?;
    /// let slot = |id| &opt.param(id).unwrap().slots[0];
    /// assert!(matches!(slot(weight), Buffer::Encoded(_)) && matches!(slot(embedding), Buffer::F32(_)));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn add_plain_param(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<ParamId, Error> {
        self.add(group, shape, dtype, true, None)
    }

    fn add(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
        plain: bool,
        part: Option<Range<usize>>,
    ) -> Result<ParamId, Error> {
        let Some(g) = self.groups.get(group.0) else {
            return Err(Error::InvalidArgument {
                argument: "group",
                expected: "the id of a group",
            });
        };
        let rule = &*g.spec.rule;
        let len = numel(shape);
        if len.checked_mul(dtype.size()).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Error::OutOfMemory { argument: "shape", len });
        }
        rule.check_shape(shape)?;
        let part = part.unwrap_or(0..len);
        check_part(&g.spec, shape, dtype, &part)?;
        let mut state = ParamState {
            group,
            shape: collected("shape", shape.iter().copied())?,
            first: part.start,
            len: part.len(),
            dtype,
            steps: 0,
            scalars: rule.initial_scalars(self.params.len()),
            slots: Vec::new(),
            has_plain_state: plain,
            correction: None,
            seed: match g.spec.storage.param.seed() {
                Some(seed) => counter_u64(seed, self.params.len() as u64, 0),
                None => 0,
            },
            rounding_bits: None,
            is_initialized: false,
        };
        let compute = g.spec.compute_dtype(Some(dtype));
        state.slots = (0..rule.info().slots.len())
            .map(|k| {
                let format = match plain {
                    true => g.spec.plain_format(k, dtype),
                    false => g.spec.slot_format(k, shape, dtype),
                };
                let len = state.slot_len(rule, k, compute);
                let mut slot = Buffer::new(format, len).map_err(|e| with_slot_name(e, rule, k))?;
                match (rule.slot_init(k), &mut slot) {
                    (SlotInit::CopyParam, _) => {}
                    // `Buffer::new` fills with zeros.
                    (SlotInit::Constant(0.0), plain) if !matches!(plain, Buffer::Encoded(_)) => {}
                    (SlotInit::Constant(x), slot) => slot.data_mut().fill(x),
                }
                Ok(slot)
            })
            .collect::<Result<_, Error>>()?;
        let correction = g.spec.storage.param.correction_dtype(dtype);
        state.correction = correction.map(|e| RawBuffer::zeros(e, state.len)).transpose()?;
        let reserved = self.params.try_reserve(1);
        reserved.map_err(|_| Error::OutOfMemory { argument: "params", len: self.params.len() })?;
        self.params.push(state);
        Ok(ParamId(self.params.len() - 1))
    }

    /// Takes back the parameter that was added last, with its state; `None` without parameters. A backend that keeps
    /// state elsewhere does so where it has no room for it.
    pub fn remove_last_param(&mut self) -> Option<ParamState> {
        self.params.pop()
    }

    /// A copy, for sizes that may be too large for the memory that is left. (`clone` ends the process then.)
    ///
    /// # Errors
    /// [No memory](Error::OutOfMemory).
    pub fn try_clone(&self) -> Result<Optimizer, Error> {
        let mut params = Vec::new();
        let reserved = params.try_reserve_exact(self.params.len());
        reserved.map_err(|_| Error::OutOfMemory { argument: "params", len: self.params.len() })?;
        for p in &self.params {
            let mut slots = Vec::new();
            for slot in &p.slots {
                slots.push(slot.try_clone()?);
            }
            let rounding_bits = p.rounding_bits.as_ref();
            let rounding_bits =
                rounding_bits.map(|bits| collected("rounding_bits", bits.iter().copied()));
            params.push(ParamState {
                shape: p.shape.clone(),
                slots,
                correction: p.correction.as_ref().map(RawBuffer::try_clone).transpose()?,
                rounding_bits: rounding_bits.transpose()?,
                ..*p
            });
        }
        Ok(Optimizer { groups: self.groups.clone(), params, mode: self.mode })
    }

    /// The state of a parameter; `None` for an id that this optimizer does not have.
    #[must_use]
    pub fn param(&self, id: ParamId) -> Option<&ParamState> {
        self.params.get(id.0)
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The groups, to set learning rates or to restore state.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        &mut self.groups
    }

    /// The parameters' state, in the order in which they were added.
    #[must_use]
    pub fn params(&self) -> &[ParamState] {
        &self.params
    }

    /// The parameters' state, to restore it. If a buffer changes its length, `step` fails.
    pub fn params_mut(&mut self) -> &mut [ParamState] {
        &mut self.params
    }

    /// Whether the caller's parameters hold their training or evaluation values.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Sets the [`mode`](Self::mode) without converting any parameter: to restore state.
    pub fn restore_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Converts all parameters to their evaluation values, in place. With most rules these are
    /// the training values; with the schedule-free ones they are not. `step` then fails
    /// until [`train`](Self::train) converts them back.
    ///
    /// # Errors
    /// Any wrong length, or a configuration that can't be evaluated. Nothing is written then.
    pub fn eval(&mut self, params: &mut [DataMut<'_>]) -> Result<(), Error> {
        self.switch(Mode::Eval, params)
    }

    /// Converts all parameters back to their training values, in place.
    ///
    /// # Errors
    /// Any wrong length. Nothing is written then.
    pub fn train(&mut self, params: &mut [DataMut<'_>]) -> Result<(), Error> {
        self.switch(Mode::Train, params)
    }

    fn switch(&mut self, to: Mode, params: &mut [DataMut<'_>]) -> Result<(), Error> {
        ensure_len("params", params.len(), self.params.len())?;
        for (index, param) in params.iter().enumerate() {
            self.check(index, param, None)?;
        }
        // Converting nothing reports a configuration that can't be evaluated before anything is written.
        let mut none = DataMut::F32(&mut []);
        for group in &self.groups {
            group.spec.rule.convert(ComputePolicy::Fused, to, &mut none, &mut [])?;
        }
        if self.mode == to {
            return Ok(());
        }
        self.mode = to;
        for (param, state) in params.iter_mut().zip(&mut self.params) {
            let Some(group) = self.groups.get(state.group.0) else { continue };
            let OptimizerSpec { rule, policy, .. } = &group.spec;
            let slots = &mut state.slots;
            let mut convert = |value: &mut DataMut<'_>| {
                let mut slots: Vec<_> = slots.iter_mut().map(Buffer::data_mut).collect();
                rule.convert(*policy, to, value, &mut slots)
            };
            match &mut state.correction {
                _ if !state.is_initialized => {}
                Some(correction) => with_correction(param, correction, convert)?,
                None => convert(param)?,
            }
        }
        Ok(())
    }

    /// One step of the parameters that have a gradient: for each its id, value and gradient, in any order.
    ///
    /// Parameters that are not listed keep their value, their state and their step count.
    ///
    /// # Errors
    /// Those of [`step_with`](Self::step_with). Nothing is written then.
    pub fn step<'a>(
        &mut self,
        updates: impl IntoIterator<Item = (ParamId, DataMut<'a>, Data<'a>)>,
    ) -> Result<(), Error> {
        self.step_with(updates, &[])
    }

    /// [`step`](Self::step) with named extra arguments for rules that [use any](StepContext::extra): `train_loss`,
    /// `eval_loss`, `loss_scale`, …
    ///
    /// # Errors
    /// An unknown parameter, or one that is listed twice; a wrong length or type, an invalid configuration, parameters
    /// that are being [evaluated](Self::eval), or no memory for scratch space. Nothing is written then.
    pub fn step_with<'a>(
        &mut self,
        updates: impl IntoIterator<Item = (ParamId, DataMut<'a>, Data<'a>)>,
        extra: &[(&str, f64)],
    ) -> Result<(), Error> {
        let mut values: Vec<Option<(DataMut<'a>, Data<'a>)>> = Vec::new();
        values.resize_with(self.params.len(), || None);
        for (id, value, grad) in updates {
            self.check(id.0, &value, Some(&grad))?;
            let Some(entry @ None) = values.get_mut(id.0) else {
                let expected = "each parameter once";
                return Err(Error::InvalidArgument { argument: "updates", expected });
            };
            *entry = Some((value, grad));
        }
        let grads = || values.iter().map(|update| update.as_ref().map(|(_, grad)| *grad));
        let mut scratch = Scratch::default();
        for (update, state) in values.iter().zip(&self.params) {
            if let (Some((value, _)), Some(group)) = (update, self.groups.get(state.group.0)) {
                let compute = group.spec.compute_dtype(value.dtype());
                scratch.reserve(compute, state.scratch_len(&*group.spec.rule))?;
            }
        }
        self.begin_step(&grads().collect::<Vec<_>>(), extra)?;
        let mut positions = alloc::vec![0u32; self.groups.len()];
        for (update, state) in values.into_iter().zip(&mut self.params) {
            let (Some((mut value, grad)), Some(group), Some(position)) =
                (update, self.groups.get(state.group.0), positions.get_mut(state.group.0))
            else {
                continue;
            };
            param_update(group, state, value.reborrow(), grad, *position, extra)
                .run(&mut scratch)?;
            *position += 1;
        }
        Ok(())
    }

    /// One step of all parameters, in the order in which they were added, with or without a gradient. For adapters.
    ///
    /// `extra` are named extra arguments for rules that use any ([`StepContext::extra`]).
    ///
    /// # Errors
    /// A wrong length or type, an invalid configuration, parameters that are being
    /// [evaluated](Self::eval), or no memory for scratch space. Nothing is written then.
    pub fn step_all(
        &mut self,
        params: &mut [Param<'_>],
        extra: &[(&str, f64)],
    ) -> Result<(), Error> {
        let mut scratch = Scratch::default();
        for (param, state) in params.iter().zip(&self.params).filter(|(p, _)| p.grad.is_some()) {
            let Some(group) = self.groups.get(state.group.0) else { continue };
            let compute = group.spec.compute_dtype(param.value.dtype());
            scratch.reserve(compute, state.scratch_len(&*group.spec.rule))?;
        }
        self.begin_tasks(params, extra)?;
        let mut positions = alloc::vec![0u32; self.groups.len()];
        let states = params.iter_mut().zip(&mut self.params);
        states
            .filter_map(|(p, s)| next_task(&self.groups, &mut positions, p, s, extra))
            .try_for_each(|update| update.run(&mut scratch))
    }

    /// One step as independent tasks: run all of them, on any threads and in any order. The step is counted at once: a
    /// task that is dropped loses its update.
    ///
    /// # Errors
    /// A wrong length or type, parameters that are being [evaluated](Self::eval), or an invalid configuration. Nothing is
    /// written then.
    pub fn tasks<'a>(
        &'a mut self,
        params: &'a mut [Param<'_>],
        extra: &'a [(&'a str, f64)],
    ) -> Result<Vec<Task<'a>>, Error> {
        self.tasks_batched(params, extra, 0)
    }

    /// [`tasks`](Self::tasks) that batches consecutive small parameters into one task, as long as its
    /// [cost](Task::cost) is at most `max_cost`. The groups' step is counted at once here too: a task that is dropped
    /// loses its updates.
    ///
    /// # Errors
    /// Those of [`tasks`](Self::tasks). Nothing is written then.
    pub fn tasks_batched<'a>(
        &'a mut self,
        params: &'a mut [Param<'_>],
        extra: &'a [(&'a str, f64)],
        max_cost: usize,
    ) -> Result<Vec<Task<'a>>, Error> {
        self.begin_tasks(params, extra)?;
        let groups = &*self.groups;
        let mut positions = alloc::vec![0u32; groups.len()];
        let (mut params, mut states) = (params, &mut *self.params);
        let mut tasks = Vec::new();
        while !params.is_empty() {
            let mut cost = 0usize;
            let end = params.iter().position(|p| {
                cost = cost.saturating_add(task_cost(p.value.len(), true));
                cost > max_cost
            });
            let count = end.unwrap_or(params.len()).max(1);
            let (batch, later) = params.split_at_mut(count.min(params.len()));
            let (own, later_states) = states.split_at_mut(count.min(states.len()));
            (params, states) = (later, later_states);
            tasks.extend(match (batch, own) {
                ([param], [state]) => next_task(groups, &mut positions, param, state, extra)
                    .map(|update| Task(TaskKind::Single(update))),
                (batch, own) => {
                    let mut batch_positions = positions.clone();
                    let updated = batch.iter().zip(&*own).filter(|(param, _)| param.grad.is_some());
                    for (_, state) in updated {
                        if let Some(n) = positions.get_mut(state.group.0) {
                            *n += 1;
                        }
                    }
                    let len = batch.iter().map(|param| param.value.len()).sum();
                    let run = Box::new(move || {
                        let mut pairs = batch.iter_mut().zip(own);
                        let mut scratch = Scratch::default();
                        pairs.try_for_each(|(param, state)| {
                            let update =
                                next_task(groups, &mut batch_positions, param, state, extra);
                            update.map_or(Ok(()), |update| update.run(&mut scratch))
                        })
                    });
                    Some(Task(TaskKind::Batch { len, cost: cost.min(max_cost), run }))
                }
            });
        }
        Ok(tasks)
    }

    fn begin_tasks(&mut self, params: &[Param<'_>], extra: &[(&str, f64)]) -> Result<(), Error> {
        ensure_len("params", params.len(), self.params.len())?;
        for (index, param) in params.iter().enumerate() {
            self.check(index, &param.value, param.grad.as_ref())?;
        }
        let grads = || params.iter().map(|param| param.grad);
        let dtypes: Vec<_> = grads().map(|grad| grad.map(|grad| grad.dtype())).collect();
        self.begin_with(&dtypes, extra, |rule, divisor| {
            rule.grad_norm(&grads().flatten().collect::<Vec<_>>(), divisor)
        })
    }

    /// Begins a step whose parameters are stepped one at a time, by [`step_param`](Self::step_param): advances the
    /// groups, and computes what their rules need of all gradients. `grads` has an entry for each parameter, `None` for
    /// one without a gradient.
    ///
    /// # Errors
    /// An invalid configuration, parameters that are being [evaluated](Self::eval), or a wrong number
    /// of gradients. Nothing is written then.
    pub fn begin_step(
        &mut self,
        grads: &[Option<Data<'_>>],
        extra: &[(&str, f64)],
    ) -> Result<(), Error> {
        let dtypes: Vec<_> = grads.iter().map(|grad| grad.map(|grad| grad.dtype())).collect();
        self.begin_with(&dtypes, extra, |rule, divisor| {
            rule.grad_norm(&grads.iter().filter_map(|&grad| grad).collect::<Vec<_>>(), divisor)
        })
    }

    fn begin_with(
        &mut self,
        grads: &[Option<Dtype>],
        extra: &[(&str, f64)],
        mut norm: impl FnMut(&dyn DynRule, f64) -> f64,
    ) -> Result<(), Error> {
        if self.mode == Mode::Eval {
            return Err(Error::InvalidArgument {
                argument: "mode",
                expected: "training: call `train` first",
            });
        }
        ensure_len("params", grads.len(), self.params.len())?;
        for group in &self.groups {
            group.spec.check()?;
            if group.given_grad_norm.is_none()
                && group.spec.rule.grad_norm_divisor(extra).is_some()
                && self.params.iter().any(ParamState::is_part)
            {
                let expected = "the norm over whole gradients, as parameters are held in parts";
                return Err(Error::InvalidArgument { argument: "given_grad_norm", expected });
            }
        }
        for (index, group) in self.groups.iter_mut().enumerate() {
            let (rule, info) = (&*group.spec.rule, group.spec.rule.info());
            let at = StepContext { extra, ..StepContext::new(0, group.lr) };
            begin_group(rule, &info, &at, &mut group.steps, &mut group.scalars);
            group.decay_powers = DecayPowers::new(info.decay_bases, group.steps);
            let own = grads.iter().zip(&self.params).filter(|(_, state)| state.group.0 == index);
            group.group_dtype = own.filter_map(|(grad, _)| *grad).next();
            let given = group.given_grad_norm.take();
            let divisor = rule.grad_norm_divisor(extra);
            group.grad_norm = divisor.map(|by| given.unwrap_or_else(|| norm(rule, by)));
        }
        Ok(())
    }

    /// The norm over all gradients that each group's rule needs of a step with these whole gradients and `extra`
    /// arguments; `None` for a rule that needs none. It is what [`Group::given_grad_norm`] takes.
    ///
    /// `grads` are those of the parameters that have one, in order. They are not looked at if no rule needs them.
    #[must_use]
    pub fn grad_norms(&self, grads: &[Data<'_>], extra: &[(&str, f64)]) -> Vec<Option<f64>> {
        let rules = self.groups.iter().map(|group| &*group.spec.rule);
        rules
            .map(|rule| rule.grad_norm_divisor(extra).map(|by| rule.grad_norm(grads, by)))
            .collect()
    }

    /// One step as a [`PreparedStep`] for each parameter with a gradient: for a backend whose tensors are not in host
    /// memory. The step is counted at once: a [`PreparedStep`] that is dropped loses its update. `types` has an entry for
    /// each parameter: its type and its gradient's, `None` for one without a gradient. `norm` computes
    /// [`DynRule::grad_norm`] over all gradients, for a rule that needs it and with its divisor.
    ///
    /// # Errors
    /// An invalid configuration, parameters that are being [evaluated](Self::eval), or a wrong number
    /// of types. Nothing is written then.
    pub fn prepare_all<'a>(
        &'a mut self,
        types: &[Option<[Dtype; 2]>],
        extra: &'a [(&'a str, f64)],
        norm: impl FnMut(&dyn DynRule, f64) -> f64,
    ) -> Result<Vec<(ParamId, PreparedStep<'a>)>, Error> {
        let grads: Vec<_> = types.iter().map(|t| t.map(|[_, grad]| grad)).collect();
        self.begin_with(&grads, extra, norm)?;
        let mut positions = alloc::vec![0u32; self.groups.len()];
        let mut steps = Vec::with_capacity(types.len());
        for (index, (types, state)) in types.iter().zip(&mut self.params).enumerate() {
            let (Some([dtype, _]), Some(group), Some(position)) =
                (types, self.groups.get(state.group.0), positions.get_mut(state.group.0))
            else {
                continue;
            };
            steps.push((ParamId(index), prepare_one(group, state, Some(*dtype), *position, extra)));
            *position += 1;
        }
        Ok(steps)
    }

    fn check(
        &self,
        index: usize,
        value: &DataMut<'_>,
        grad: Option<&Data<'_>>,
    ) -> Result<(), Error> {
        let Some(state) = self.params.get(index) else { return Err(NO_PARAM) };
        let Some(group) = self.groups.get(state.group.0) else { return Err(NO_PARAM) };
        let n = state.len;
        ensure_len("param", value.len(), n)?;
        ensure_len("grad", grad.map_or(n, Data::len), n)?;
        if value.dtype().is_some_and(|dtype| dtype != state.dtype) {
            return Err(Error::InvalidArgument {
                argument: "param",
                expected: "the type that it was added with",
            });
        }
        let rule = &*group.spec.rule;
        if state.is_part() && n > 0 && !rule.info().is_elementwise {
            return Err(NOT_IN_PARTS);
        }
        let compute = group.spec.compute_dtype(value.dtype());
        for (k, slot) in state.slots.iter().enumerate() {
            let expected = state.slot_len(rule, k, compute);
            if slot.len() != expected {
                let name = rule.info().slots.get(k).copied().unwrap_or("slot");
                return ensure_len(name, slot.len(), expected);
            }
        }
        check_blocks(state.slots.iter().map(Buffer::block).chain([value.block()]))?;
        if let Some(rounding_bits) = &state.rounding_bits {
            ensure_len("rounding_bits", rounding_bits.len(), n)?;
        }
        if let Some(correction) = &state.correction {
            ensure_len("correction", correction.len(), n)?;
            let expected = value.dtype().and_then(|d| group.spec.storage.param.correction_dtype(d));
            if expected != Some(correction.element()) {
                return Err(Error::InvalidArgument { argument: "param", expected: "its own type" });
            }
        }
        Ok(())
    }

    /// The update of one parameter, in a step that has [begun](Self::begin_step), as a task that must be run: the
    /// parameter's step is counted already, and dropping the task loses the update. `index_in_group` is its index among
    /// those of its group that have a gradient.
    ///
    /// # Errors
    /// An unknown parameter, or a wrong length or type. Nothing is written then.
    pub fn step_param<'a>(
        &'a mut self,
        id: ParamId,
        value: DataMut<'a>,
        grad: Data<'a>,
        index_in_group: u32,
        extra: &'a [(&'a str, f64)],
    ) -> Result<Task<'a>, Error> {
        self.check(id.0, &value, Some(&grad))?;
        let Some(state) = self.params.get_mut(id.0) else { return Err(NO_PARAM) };
        let Some(group) = self.groups.get(state.group.0) else { return Err(NO_PARAM) };
        let update = param_update(group, state, value, grad, index_in_group, extra);
        Ok(Task(TaskKind::Single(update)))
    }
}

/// Refuses elements that a parameter does not have, or that can't be stepped apart from its others.
fn check_part(
    spec: &OptimizerSpec,
    shape: &[usize],
    dtype: Dtype,
    part: &Range<usize>,
) -> Result<(), Error> {
    let n = numel(shape);
    if part.start > part.end || part.end > n {
        let expected = "a range of the parameter's elements";
        return Err(Error::InvalidArgument { argument: "elements", expected });
    }
    if part.is_empty() || part.len() == n {
        return Ok(());
    }
    let Some(multiple) = spec.part_multiple(shape, dtype) else { return Err(NOT_IN_PARTS) };
    let between = |at: usize| at.is_multiple_of(multiple) || at == n;
    if !between(part.start) || !between(part.end) {
        let expected = "a range that begins and ends between blocks of the state";
        return Err(Error::InvalidArgument { argument: "elements", expected });
    }
    Ok(())
}

const NOT_IN_PARTS: Error = Error::InvalidArgument {
    argument: "elements",
    expected: "all or none: the rule's update of an element depends on others",
};

/// Puts the slot's name into an error about memory.
fn with_slot_name(error: Error, rule: &dyn DynRule, slot: usize) -> Error {
    match (error, rule.info().slots.get(slot)) {
        (Error::OutOfMemory { len, .. }, Some(argument)) => Error::OutOfMemory { argument, len },
        (error, _) => error,
    }
}

const NO_PARAM: Error =
    Error::InvalidArgument { argument: "param", expected: "the id of a parameter" };
