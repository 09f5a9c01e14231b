//! An optimizer that owns its state: groups, parameters, counters.
//!
//! The caller keeps parameters and gradients; [`Optimizer::step`] borrows them.
//! Everything that PyTorch's `Optimizer` decides around the rule is decided here,
//! once for all backends that keep their state in memory: a parameter without a
//! gradient does not move, nor does its own counter; a group's counter moves with
//! every call.

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

/// Groups of parameters and their state.
///
/// ```
/// use bitstep::prelude::*;
/// let mut opt = Optimizer::new(registry::optimizer("adamw_torch", [("lr", 0.1)])?)?;
/// let w = opt.add_param(&[2], Dtype::F32)?;
/// let (mut weight, grad) = ([1.0f32, 2.0], [0.5f32, -0.5]);
/// opt.step([(w, (&mut weight).into(), (&grad).into())])?;
/// assert!(weight[0] < 1.0 && weight[1] > 2.0);
/// let bytes = opt.save()?; // and `opt.load(&bytes)?` into one that was made alike
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Optimizer {
    groups: Vec<Group>,
    params: Vec<ParamState>,
    mode: Mode,
}

impl Optimizer {
    /// With one group, to which [`add_param`](Self::add_param) adds.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn new(spec: OptimizerSpec) -> Result<Self, Error> {
        let mut optimizer = Self::empty();
        optimizer.add_group(spec)?;
        Ok(optimizer)
    }

    /// No groups yet.
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
    /// No such group, a shape that the rule has no update for, a storage that does not exist, or
    /// [no memory](Error::OutOfMemory) for the state. The optimizer is as it was then.
    pub fn add_param_to(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<ParamId, Error> {
        self.add(group, shape, dtype, false)
    }

    /// The same for a parameter whose state rests as plain numbers, whatever
    /// [`StorageConfig::slot_formats`] says: an embedding beside others with 8-bit state, as Transformers has it.
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
        self.add(group, shape, dtype, true)
    }

    fn add(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
        plain: bool,
    ) -> Result<ParamId, Error> {
        let Some(g) = self.groups.get(group.0) else {
            return Err(Error::InvalidArgument {
                argument: "group",
                expected: "the number of a group",
            });
        };
        let rule = &*g.spec.rule;
        let len = numel(shape);
        if len.checked_mul(dtype.size()).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Error::OutOfMemory { argument: "shape", len });
        }
        rule.check_shape(shape)?;
        let own_shape = collected("shape", shape.iter().copied())?;
        let slots = (0..rule.info().slots.len())
            .map(|k| {
                let format = match plain {
                    true => g.spec.plain_format(k, dtype),
                    false => g.spec.slot_format(k, shape, dtype),
                };
                let len = g.spec.slot_len(k, shape, dtype);
                let mut slot = Buffer::new(format, len).map_err(|e| with_slot_name(e, rule, k))?;
                match (rule.slot_init(k), &mut slot) {
                    (SlotInit::CopyParam, _) => {}
                    // Zeros already.
                    (SlotInit::Constant(0.0), plain) if !matches!(plain, Buffer::Encoded(_)) => {}
                    (SlotInit::Constant(x), slot) => slot.data_mut().fill(x),
                }
                Ok(slot)
            })
            .collect::<Result<_, Error>>()?;
        let companion = g.spec.storage.param.correction_dtype(dtype);
        let companion = companion.map(|e| RawBuffer::zeros(e, len)).transpose()?;
        let one_more = self.params.try_reserve(1);
        one_more.map_err(|_| Error::OutOfMemory { argument: "params", len: self.params.len() })?;
        self.params.push(ParamState {
            group,
            shape: own_shape,
            dtype,
            steps: 0,
            scalars: rule.initial_scalars(self.params.len()),
            slots,
            has_plain_state: plain,
            correction: companion,
            seed: match g.spec.storage.param {
                ParamStorage::Stochastic(seed) => counter_u64(seed, self.params.len() as u64, 0),
                _ => 0,
            },
            rounding_bits: None,
            is_initialized: false,
        });
        Ok(ParamId(self.params.len() - 1))
    }

    /// The state of a parameter; `None` if the number is of another optimizer.
    #[must_use]
    pub fn param(&self, id: ParamId) -> Option<&ParamState> {
        self.params.get(id.0)
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The groups, to set learning rates or to restore.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        &mut self.groups
    }

    /// The parameters' state.
    #[must_use]
    pub fn params(&self) -> &[ParamState] {
        &self.params
    }

    /// The parameters' state, to restore. Buffers must keep their lengths, or `step` refuses.
    pub fn params_mut(&mut self) -> &mut [ParamState] {
        &mut self.params
    }

    /// Which parameters the caller holds.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Says which parameters the caller holds, without converting any: to restore.
    pub fn restore_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Turns the parameters into those to evaluate, in place. Most rules train and
    /// evaluate the same ones; the schedule-free ones do not. `step` then refuses
    /// until [`train`](Self::train) turns them back.
    ///
    /// # Errors
    /// Any wrong length, or a configuration that can't be evaluated. Nothing is written then.
    pub fn eval(&mut self, params: &mut [DataMut<'_>]) -> Result<(), Error> {
        self.switch(Mode::Eval, params)
    }

    /// Turns the parameters back into those to train, in place.
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
        // Nothing to convert, but refused like everything would be.
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
            let OptimizerSpec { rule, policy: arithmetic, .. } = &group.spec;
            let slots = &mut state.slots;
            let mut convert = |value: &mut DataMut<'_>| {
                let mut slots: Vec<_> = slots.iter_mut().map(Buffer::data_mut).collect();
                rule.convert(*arithmetic, to, value, &mut slots)
            };
            match &mut state.correction {
                _ if !state.is_initialized => {}
                Some(companion) => with_correction(param, companion, convert)?,
                None => convert(param)?,
            }
        }
        Ok(())
    }

    /// One step of the parameters that have a gradient: each with its number, its value and that gradient.
    ///
    /// Parameters that are not mentioned keep their value, their state and their own count of steps.
    ///
    /// # Errors
    /// Those of [`step_with`](Self::step_with). Nothing is written then.
    pub fn step<'a>(
        &mut self,
        updates: impl IntoIterator<Item = (ParamId, DataMut<'a>, Data<'a>)>,
    ) -> Result<(), Error> {
        self.step_with(updates, &[])
    }

    /// The same with extra arguments, by name, for rules that [use any](StepContext::extra): `train_loss`, `eval_loss`,
    /// `loss_scale`, …
    ///
    /// # Errors
    /// No such parameter, or one that is mentioned twice; any wrong length or type, an invalid configuration, parameters
    /// that are being [evaluated](Self::eval), or no memory to work in. Nothing is written then.
    pub fn step_with<'a>(
        &mut self,
        updates: impl IntoIterator<Item = (ParamId, DataMut<'a>, Data<'a>)>,
        extra: &[(&str, f64)],
    ) -> Result<(), Error> {
        let mut values: Vec<Option<(DataMut<'a>, Data<'a>)>> = Vec::new();
        values.resize_with(self.params.len(), || None);
        for (id, value, grad) in updates {
            self.check(id.0, &value, Some(&grad))?;
            let Some(place @ None) = values.get_mut(id.0) else {
                let expected = "each parameter once";
                return Err(Error::InvalidArgument { argument: "updates", expected });
            };
            *place = Some((value, grad));
        }
        let grads = || values.iter().map(|update| update.as_ref().map(|(_, grad)| *grad));
        let mut scratch = Scratch::default();
        for (update, state) in values.iter().zip(&self.params) {
            if let (Some((value, _)), Some(group)) = (update, self.groups.get(state.group.0)) {
                let compute = group.spec.compute_dtype(value.dtype());
                scratch.reserve(compute, group.spec.rule.scratch_len(&state.shape))?;
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

    /// One step of all parameters, in the order in which they were added, with or without a gradient: what adapters call.
    ///
    /// `extra` are extra arguments, by name, for the rules that use any ([`StepContext::extra`]).
    ///
    /// # Errors
    /// Any wrong length or type, an invalid configuration, parameters that are being
    /// [evaluated](Self::eval), or no memory to work in. Nothing is written then.
    pub fn step_all(
        &mut self,
        params: &mut [Param<'_>],
        extra: &[(&str, f64)],
    ) -> Result<(), Error> {
        let mut work = Scratch::default();
        for (param, state) in params.iter().zip(&self.params).filter(|(p, _)| p.grad.is_some()) {
            let Some(group) = self.groups.get(state.group.0) else { continue };
            let compute = group.spec.compute_dtype(param.value.dtype());
            work.reserve(compute, group.spec.rule.scratch_len(&state.shape))?;
        }
        self.begin_tasks(params, extra)?;
        let mut layers = alloc::vec![0u32; self.groups.len()];
        let states = params.iter_mut().zip(&mut self.params);
        states
            .filter_map(|(p, s)| next_task(&self.groups, &mut layers, p, s, extra))
            .try_for_each(|one| one.run(&mut work))
    }

    /// One step, as independent pieces of work: run them all, on any threads and in any order.
    ///
    /// # Errors
    /// Any wrong length, or an invalid configuration. Nothing is written then.
    pub fn tasks<'a>(
        &'a mut self,
        params: &'a mut [Param<'_>],
        extra: &'a [(&'a str, f64)],
    ) -> Result<Vec<Task<'a>>, Error> {
        self.tasks_batched(params, extra, 0)
    }

    /// The same, with small parameters that follow each other as one piece of work, as long as
    /// all of it is at most `work` ([`Task::cost`]).
    ///
    /// # Errors
    /// Any wrong length, or an invalid configuration. Nothing is written then.
    pub fn tasks_batched<'a>(
        &'a mut self,
        params: &'a mut [Param<'_>],
        extra: &'a [(&'a str, f64)],
        work: usize,
    ) -> Result<Vec<Task<'a>>, Error> {
        self.begin_tasks(params, extra)?;
        let groups = &*self.groups;
        let mut layers = alloc::vec![0u32; groups.len()];
        let (mut params, mut states) = (params, &mut *self.params);
        let mut tasks = Vec::new();
        while !params.is_empty() {
            let mut all = 0usize;
            let few = params.iter().position(|p| {
                all = all.saturating_add(task_cost(p.value.len(), true));
                all > work
            });
            let count = few.unwrap_or(params.len()).max(1);
            let (now, later) = params.split_at_mut(count.min(params.len()));
            let (own, others) = states.split_at_mut(count.min(states.len()));
            (params, states) = (later, others);
            tasks.extend(match (now, own) {
                ([param], [state]) => next_task(groups, &mut layers, param, state, extra)
                    .map(|one| Task(TaskKind::Single(one))),
                (now, own) => {
                    let mut layers_now = layers.clone();
                    let moving = now.iter().zip(&*own).filter(|(param, _)| param.grad.is_some());
                    for (_, state) in moving {
                        layers.iter_mut().skip(state.group.0).take(1).for_each(|n| *n += 1);
                    }
                    let len = now.iter().map(|param| param.value.len()).sum();
                    let run = Box::new(move || {
                        let mut pairs = now.iter_mut().zip(own);
                        let mut work = Scratch::default();
                        pairs.try_for_each(|(param, state)| {
                            let one = next_task(groups, &mut layers_now, param, state, extra);
                            one.map_or(Ok(()), |one| one.run(&mut work))
                        })
                    });
                    Some(Task(TaskKind::Batch { len, work: all.min(work), run }))
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
        self.begin_with(&dtypes, extra, |rule, scale| {
            rule.grad_norm(&grads().flatten().collect::<Vec<_>>(), scale)
        })
    }

    /// Begins a step whose parameters come one at a time: groups move on, and take
    /// note of what their rules need to know of all gradients. Then
    /// [`step_param`](Self::step_param) each.
    ///
    /// # Errors
    /// An invalid configuration, parameters that are being [evaluated](Self::eval), or not a
    /// gradient or `None` for each parameter. Nothing is written then.
    pub fn begin_step(
        &mut self,
        grads: &[Option<Data<'_>>],
        extra: &[(&str, f64)],
    ) -> Result<(), Error> {
        let dtypes: Vec<_> = grads.iter().map(|grad| grad.map(|grad| grad.dtype())).collect();
        self.begin_with(&dtypes, extra, |rule, scale| {
            rule.grad_norm(&grads.iter().filter_map(|&grad| grad).collect::<Vec<_>>(), scale)
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
        }
        for (index, group) in self.groups.iter_mut().enumerate() {
            let (rule, info) = (&*group.spec.rule, group.spec.rule.info());
            let at = StepContext { extra, ..StepContext::new(0, group.lr) };
            begin_group(rule, &info, &at, &mut group.steps, &mut group.scalars);
            group.decay_powers = DecayPowers::new(info.decay_bases, group.steps);
            let own = grads.iter().zip(&self.params).filter(|(_, state)| state.group.0 == index);
            group.group_dtype = own.filter_map(|(grad, _)| *grad).next();
            group.grad_norm = rule.grad_norm_divisor(extra).map(|scale| norm(rule, scale));
        }
        Ok(())
    }

    /// [`tasks`](Self::tasks) where this processor does not hold the numbers. `types` are those of
    /// each parameter and of its gradient, `None` for one without; `norm` finds
    /// [`DynRule::grad_norm`] over all gradients, if a rule asks for it.
    ///
    /// # Errors
    /// An invalid configuration, parameters that are being [evaluated](Self::eval), or not as
    /// many types as parameters. Nothing is written then.
    pub fn prepare_all<'a>(
        &'a mut self,
        types: &[Option<[Dtype; 2]>],
        extra: &'a [(&'a str, f64)],
        norm: impl FnMut(&dyn DynRule, f64) -> f64,
    ) -> Result<Vec<(ParamId, PreparedStep<'a>)>, Error> {
        let grads: Vec<_> = types.iter().map(|t| t.map(|[_, grad]| grad)).collect();
        self.begin_with(&grads, extra, norm)?;
        let mut layers = alloc::vec![0u32; self.groups.len()];
        let mut turns = Vec::with_capacity(types.len());
        for (index, (types, state)) in types.iter().zip(&mut self.params).enumerate() {
            let (Some([dtype, _]), Some(group), Some(next)) =
                (types, self.groups.get(state.group.0), layers.get_mut(state.group.0))
            else {
                continue;
            };
            turns.push((ParamId(index), prepare_one(group, state, Some(*dtype), *next, extra)));
            *next += 1;
        }
        Ok(turns)
    }

    fn check(
        &self,
        index: usize,
        value: &DataMut<'_>,
        grad: Option<&Data<'_>>,
    ) -> Result<(), Error> {
        let Some(state) = self.params.get(index) else { return Err(NO_PARAM) };
        let Some(group) = self.groups.get(state.group.0) else { return Err(NO_PARAM) };
        let n = numel(&state.shape);
        ensure_len("param", value.len(), n)?;
        ensure_len("grad", grad.map_or(n, Data::len), n)?;
        if value.dtype().is_some_and(|dtype| dtype != state.dtype) {
            return Err(Error::InvalidArgument {
                argument: "param",
                expected: "the type that it was added with",
            });
        }
        let rule = &*group.spec.rule;
        let compute = group.spec.compute_dtype(value.dtype());
        for (k, slot) in state.slots.iter().enumerate() {
            let expected = rule.slot_len(k, &state.shape, compute);
            if slot.len() != expected {
                let name = rule.info().slots.get(k).copied().unwrap_or("slot");
                return ensure_len(name, slot.len(), expected);
            }
        }
        check_blocks(state.slots.iter().map(Buffer::block).chain([value.block()]))?;
        if let Some(noise) = &state.rounding_bits {
            ensure_len("noise", noise.len(), n)?;
        }
        if let Some(companion) = &state.correction {
            ensure_len("companion", companion.len(), n)?;
            let of = value.dtype().and_then(|d| group.spec.storage.param.correction_dtype(d));
            if of != Some(companion.element()) {
                return Err(Error::InvalidArgument { argument: "param", expected: "its own type" });
            }
        }
        Ok(())
    }

    /// The update of one parameter in a step that has [begun](Self::begin_step).
    /// `layer`: its position among those of its group that have a gradient.
    ///
    /// # Errors
    /// No such parameter, or any wrong length. Nothing is written then.
    pub fn step_param<'a>(
        &'a mut self,
        id: ParamId,
        value: DataMut<'a>,
        grad: Data<'a>,
        layer: u32,
        extra: &'a [(&'a str, f64)],
    ) -> Result<Task<'a>, Error> {
        self.check(id.0, &value, Some(&grad))?;
        let Some(state) = self.params.get_mut(id.0) else { return Err(NO_PARAM) };
        let Some(group) = self.groups.get(state.group.0) else { return Err(NO_PARAM) };
        Ok(Task(TaskKind::Single(param_update(group, state, value, grad, layer, extra))))
    }
}

/// An error about memory with the name of the slot that it was for.
fn with_slot_name(error: Error, rule: &dyn DynRule, slot: usize) -> Error {
    match (error, rule.info().slots.get(slot)) {
        (Error::OutOfMemory { len, .. }, Some(argument)) => Error::OutOfMemory { argument, len },
        (error, _) => error,
    }
}

const NO_PARAM: Error =
    Error::InvalidArgument { argument: "param", expected: "the number of a parameter of a group" };
