//! [`Task`]: the update of a parameter, of a part of one, or of several small ones, to run on any thread in any order.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::buffer::Buffer;
use super::group::{Group, Param, ParamState};
use crate::error::Error;
use crate::float::Dtype;
use crate::rule::{
    ComputePolicy, DynRule, ScalarState, Scope, SlotInit, StepContext, UpdateBuffers,
    begin_parameter,
};
use crate::storage::{
    Chunk, Data, DataMut, KahanPair, RawBuffer, RoundingBits, SplitFloat, StochasticRounded,
    chunk_len, numel, paired_chunks_mut, plain_chunks_mut, stochastic_chunks_mut,
};

/// The update of one parameter, of a part of one, or of several small ones.
#[must_use = "the step has been counted: run it"]
pub struct Task<'a>(pub(super) TaskKind<'a>);

#[expect(clippy::large_enum_variant, reason = "nearly all tasks are of one parameter")]
pub(super) enum TaskKind<'a> {
    Single(ParamUpdate<'a>),
    /// Consecutive parameters, each of which is prepared just before its update.
    Batch {
        len: usize,
        cost: usize,
        run: Box<dyn FnOnce() -> Result<(), Error> + Send + 'a>,
    },
}

/// The update of one parameter, or of a part of one.
pub(super) struct ParamUpdate<'a> {
    rule: &'a dyn DynRule,
    policy: ComputePolicy,
    step: StepContext<'a>,
    scalars: ScalarsRef<'a>,
    grad: Data<'a>,
    memory: UpdateMemory<'a>,
}

/// The memory that a task writes.
pub(super) enum UpdateMemory<'a> {
    Whole {
        param: DataMut<'a>,
        correction: Option<&'a mut RawBuffer>,
        rounding_bits: Option<RoundingBits<'a>>,
        slots: &'a mut [Buffer],
    },
    Part {
        param: Chunk<'a>,
        slots: Vec<Chunk<'a>>,
    },
}

/// A rule's scalars in a step of one parameter.
pub enum ScalarsRef<'a> {
    /// The parameter's own.
    Own(&'a mut ScalarState),
    /// A copy of its group's, so that changes to it are not kept.
    Group(ScalarState),
}

impl ScalarsRef<'_> {
    /// The scalars, to read and write.
    pub fn get(&mut self) -> &mut ScalarState {
        match self {
            ScalarsRef::Own(scalars) => scalars,
            ScalarsRef::Group(scalars) => scalars,
        }
    }
}

/// The update of one parameter without its values, for backends that keep those elsewhere.
#[must_use = "the step has been counted: make it"]
pub struct PreparedStep<'a> {
    /// The rule.
    pub rule: &'a dyn DynRule,
    /// The compute policy.
    pub policy: ComputePolicy,
    /// The step. In the [first](StepContext::is_first) one, the backend must fill slots that start as a copy of the
    /// parameter ([`SlotInit::CopyParam`]).
    pub step: StepContext<'a>,
    /// The scalars, already [advanced](DynRule::advance_scalars).
    pub scalars: ScalarsRef<'a>,
    /// The parameter's dimensions.
    pub shape: &'a [usize],
    /// One buffer per slot.
    pub slots: &'a mut [Buffer],
    /// The correction that is stored beside a 16-bit parameter.
    pub correction: Option<&'a mut RawBuffer>,
    /// The bits of stochastic rounding, if the parameter is rounded so.
    pub rounding_bits: Option<RoundingBits<'a>>,
}

impl<'a> Task<'a> {
    /// The number of elements to update.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            TaskKind::Single(update) => update.grad.len(),
            TaskKind::Batch { len, .. } => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An estimate of the run time, to distribute tasks evenly. The unit is the update of one element
    /// stored as a plain value; an encoded element counts as 8, and starting a task as 512.
    #[must_use]
    pub fn cost(&self) -> usize {
        match &self.0 {
            TaskKind::Single(update) => task_cost(update.grad.len(), update.memory.is_encoded()),
            TaskKind::Batch { cost, .. } => *cost,
        }
    }

    /// Runs the update.
    ///
    /// # Errors
    /// No memory for the scratch space that matrix rules need; other tasks of the step may have run then. A state buffer
    /// of the wrong length can't occur: [`Optimizer::tasks`](super::Optimizer::tasks) has checked them.
    pub fn run(self) -> Result<(), Error> {
        match self.0 {
            TaskKind::Single(update) => update.run(&mut Scratch::default()),
            TaskKind::Batch { run, .. } => run(),
        }
    }

    /// Splits the task into parts of `len` elements, rounded up to whole blocks, to run on any threads in
    /// any order: the resulting bits are the same. There are at most 4,096 parts; `len` is increased if
    /// needed. A task of a rule that is not elementwise, of several parameters, or that is a part
    /// already, is not split.
    #[must_use]
    pub fn split(self, len: usize) -> Vec<Task<'a>> {
        match self.0 {
            TaskKind::Single(update) => {
                update.split(len).into_iter().map(|update| Task(TaskKind::Single(update))).collect()
            }
            batch @ TaskKind::Batch { .. } => alloc::vec![Task(batch)],
        }
    }
}

/// The most parts that a task is split into.
const MAX_PARTS: usize = 4096;

/// Scratch space, reused for the parameters that one thread updates in a step.
#[derive(Default)]
pub(super) struct Scratch {
    single: Vec<f32>,
    double: Vec<f64>,
}

impl Scratch {
    /// Clears the buffer of this compute type and makes room for `len` elements.
    pub(super) fn reserve(&mut self, compute: Dtype, len: usize) -> Result<(), Error> {
        fn reserve<T>(buffer: &mut Vec<T>, len: usize) -> Result<(), Error> {
            buffer.clear();
            buffer
                .try_reserve_exact(len)
                .map_err(|_| Error::OutOfMemory { argument: "scratch", len })
        }
        match compute {
            _ if len == 0 => Ok(()),
            Dtype::F64 => reserve(&mut self.double, len),
            _ => reserve(&mut self.single, len),
        }
    }

    /// `len` zeros of this compute type.
    fn zeros(&mut self, compute: Dtype, len: usize) -> Result<DataMut<'_>, Error> {
        self.reserve(compute, len)?;
        Ok(match compute {
            Dtype::F64 => {
                self.double.resize(len, 0.0);
                DataMut::F64(&mut self.double)
            }
            _ => {
                self.single.resize(len, 0.0);
                DataMut::F32(&mut self.single)
            }
        })
    }
}

pub(super) fn task_cost(len: usize, encoded: bool) -> usize {
    len.saturating_mul(if encoded { 8 } else { 1 }).saturating_add(512)
}

impl UpdateMemory<'_> {
    fn is_encoded(&self) -> bool {
        match self {
            UpdateMemory::Whole { correction, rounding_bits, slots, .. } => {
                let encoded = |slot: &Buffer| matches!(slot, Buffer::Encoded(_));
                correction.is_some() || rounding_bits.is_some() || slots.iter().any(encoded)
            }
            UpdateMemory::Part { param, slots } => {
                let encoded = |chunk: &Chunk<'_>| matches!(chunk, Chunk::Encoded(_));
                encoded(param) || slots.iter().any(encoded)
            }
        }
    }
}

impl<'a> ParamUpdate<'a> {
    pub(super) fn run(self, scratch: &mut Scratch) -> Result<(), Error> {
        let ParamUpdate { rule, policy, step, mut scalars, grad, memory } = self;
        let scalars = scalars.get();
        let mut run = |shape: &[usize], param: &mut DataMut<'_>, slots: &mut [DataMut<'_>]| {
            let compute = policy.compute(param.dtype());
            let scratch =
                scratch.zeros(compute, rule.scratch_len_at(compute, &step, shape, param, &grad))?;
            let tensor = UpdateBuffers { shape, param: param.reborrow(), grad, slots, scratch };
            rule.update(policy, &step, scalars, tensor)
        };
        match memory {
            UpdateMemory::Part { mut param, mut slots } => {
                let slots = slots.iter_mut().map(Chunk::data_mut);
                with_slots(slots, |slots| run(&[grad.len()], &mut param.data_mut(), slots))
            }
            UpdateMemory::Whole { mut param, correction, rounding_bits, slots } => {
                let len = [grad.len()];
                let is_part = len != [numel(step.shape)];
                if is_part && len == [0] {
                    return Ok(()); // its elements are stepped elsewhere
                }
                let shape = if is_part { &len } else { step.shape };
                let slots = slots.iter_mut().map(Buffer::data_mut);
                with_slots(slots, |slots| {
                    let run = |param: &mut DataMut<'_>| run(shape, param, slots);
                    with_whole(&mut param, correction, rounding_bits, run)
                })
            }
        }
    }

    pub(super) fn split(self, len: usize) -> Vec<ParamUpdate<'a>> {
        let total = self.grad.len();
        let (param, correction, rounding_bits, slots) = match self.memory {
            UpdateMemory::Whole { param, correction, rounding_bits, slots }
                if total > len && self.rule.info().is_elementwise =>
            {
                (param, correction, rounding_bits, slots)
            }
            memory => return alloc::vec![ParamUpdate { memory, ..self }],
        };
        let blocks = slots.iter().map(Buffer::block).chain([param.block()]);
        let len = len.max(total.div_ceil(MAX_PARTS)).max(1);
        let len = len.next_multiple_of(chunk_len(blocks).unwrap_or(1));
        let params = match (correction, rounding_bits) {
            (Some(correction), _) => paired_chunks_mut(param, correction, len),
            (_, Some(rounding_bits)) => stochastic_chunks_mut(param, rounding_bits, len),
            _ => plain_chunks_mut(param, len),
        };
        let mut slots: Vec<_> = slots.iter_mut().map(|s| s.chunks_mut(len).into_iter()).collect();
        let copy = match &self.scalars {
            ScalarsRef::Own(scalars) => **scalars,
            ScalarsRef::Group(scalars) => *scalars,
        };
        let mut first = Some(self.scalars);
        let parts =
            params.into_iter().zip((0..total).step_by(len)).map(|(param, start)| ParamUpdate {
                rule: self.rule,
                policy: self.policy,
                step: self.step,
                scalars: first.take().unwrap_or(ScalarsRef::Group(copy)),
                grad: self.grad.part(start..total.min(start.saturating_add(len))),
                memory: UpdateMemory::Part {
                    param,
                    slots: slots
                        .iter_mut()
                        .map(|s| s.next().unwrap_or_else(Chunk::empty))
                        .collect(),
                },
            });
        parts.collect()
    }
}

/// Calls `f` with a slice of all slots, which is on the stack if they are few.
pub(super) fn with_slots<'a, T>(
    mut slots: impl ExactSizeIterator<Item = DataMut<'a>>,
    f: impl FnOnce(&mut [DataMut<'a>]) -> T,
) -> T {
    const FEW: usize = 4;
    let n = slots.len();
    if n > FEW {
        return f(&mut slots.collect::<Vec<_>>());
    }
    let mut few: [_; FEW] = core::array::from_fn(|_| slots.next().unwrap_or(DataMut::F32(&mut [])));
    f(few.get_mut(..n).unwrap_or_default())
}

/// Calls `f` with a parameter in the storage that its rule sees: with its correction, or rounded stochastically.
pub(super) fn with_whole<T>(
    param: &mut DataMut<'_>,
    correction: Option<&mut RawBuffer>,
    rounding_bits: Option<RoundingBits<'_>>,
    f: impl FnOnce(&mut DataMut<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    match (correction, rounding_bits, param) {
        (Some(correction), _, param) => with_correction(param, correction, f),
        (_, Some(bits), DataMut::Bf16(x)) => {
            f(&mut DataMut::Encoded(&mut StochasticRounded::new(x, bits)))
        }
        (_, Some(bits), DataMut::F16(x)) => {
            f(&mut DataMut::Encoded(&mut StochasticRounded::new(x, bits)))
        }
        (_, _, param) => f(param),
    }
}

/// Calls `f` with a 16-bit parameter and its correction as one storage.
pub(super) fn with_correction<T>(
    value: &mut DataMut<'_>,
    correction: &mut RawBuffer,
    f: impl FnOnce(&mut DataMut<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    match (value, correction) {
        (DataMut::Bf16(x), RawBuffer::I8(e)) => {
            f(&mut DataMut::Encoded(&mut SplitFloat::new(x, e)?))
        }
        (DataMut::Bf16(x), RawBuffer::I16(e)) => {
            f(&mut DataMut::Encoded(&mut SplitFloat::new(x, e)?))
        }
        (DataMut::F16(x), RawBuffer::I8(e)) => {
            f(&mut DataMut::Encoded(&mut SplitFloat::new(x, e)?))
        }
        (DataMut::F16(x), RawBuffer::I16(e)) => {
            f(&mut DataMut::Encoded(&mut SplitFloat::new(x, e)?))
        }
        (DataMut::Bf16(x), RawBuffer::Bf16(c)) => {
            f(&mut DataMut::Encoded(&mut KahanPair::new(x, c)?))
        }
        (DataMut::F16(x), RawBuffer::F16(c)) => {
            f(&mut DataMut::Encoded(&mut KahanPair::new(x, c)?))
        }
        (value, _) => f(value),
    }
}

/// The update of a parameter; `None` without a gradient. `positions` counts the updated parameters of each group.
pub(super) fn next_task<'a>(
    groups: &'a [Group],
    positions: &mut [u32],
    param: &'a mut Param<'_>,
    state: &'a mut ParamState,
    extra: &'a [(&'a str, f64)],
) -> Option<ParamUpdate<'a>> {
    let (group, position) = (groups.get(state.group.0)?, positions.get_mut(state.group.0)?);
    let grad = param.grad?;
    let index_in_group = *position;
    *position += 1;
    Some(param_update(group, state, param.value.reborrow(), grad, index_in_group, extra))
}

#[inline(always)]
pub(super) fn param_update<'a>(
    group: &'a Group,
    state: &'a mut ParamState,
    mut param: DataMut<'a>,
    grad: Data<'a>,
    index_in_group: u32,
    extra: &'a [(&'a str, f64)],
) -> ParamUpdate<'a> {
    if !state.is_initialized {
        let rule = &*group.spec.rule;
        let slots = &mut state.slots;
        match &mut state.correction {
            // Lengths have been checked: this can't fail.
            Some(correction) => drop(with_correction(&mut param, correction, |value| {
                copy_param_to_slots(rule, slots, value);
                Ok(())
            })),
            None => copy_param_to_slots(rule, slots, &param),
        }
    }
    let prepared = prepare_one(group, state, param.dtype(), index_in_group, extra);
    ParamUpdate {
        rule: prepared.rule,
        policy: prepared.policy,
        step: prepared.step,
        scalars: prepared.scalars,
        grad,
        memory: UpdateMemory::Whole {
            param,
            correction: prepared.correction,
            rounding_bits: prepared.rounding_bits,
            slots: prepared.slots,
        },
    }
}

#[inline(always)]
pub(super) fn prepare_one<'a>(
    group: &'a Group,
    state: &'a mut ParamState,
    dtype: Option<Dtype>,
    index_in_group: u32,
    extra: &'a [(&'a str, f64)],
) -> PreparedStep<'a> {
    let rule = &*group.spec.rule;
    let info = rule.info();
    let is_first = !state.is_initialized;
    state.is_initialized = true;
    let shape = &state.shape;
    let mut step = StepContext {
        t: 0,
        lr: group.lr,
        is_first,
        index_in_group,
        shape,
        projected: None,
        dtype,
        has_plain_state: state.has_plain_state,
        group_dtype: group.group_dtype,
        grad_norm: group.grad_norm,
        extra,
        decay_powers: Some(&group.decay_powers),
    };
    begin_parameter(rule, &info, &mut step, group.steps, &mut state.steps, &mut state.scalars);
    let own = info.scalar_scope == Scope::Parameter;
    PreparedStep {
        rule,
        policy: group.spec.policy,
        step,
        shape,
        correction: state.correction.as_mut(),
        rounding_bits: group.spec.storage.param.is_stochastic(state.dtype).then_some(match &state
            .rounding_bits
        {
            Some(bits) => RoundingBits::Provided(bits),
            None => RoundingBits::Counter {
                seed: state.seed,
                step: state.steps,
                first: state.first as u64,
            },
        }),
        slots: &mut state.slots,
        scalars: if own {
            ScalarsRef::Own(&mut state.scalars)
        } else {
            ScalarsRef::Group(group.scalars)
        },
    }
}

/// Copies the parameter into the slots that start as a copy of it.
fn copy_param_to_slots(rule: &dyn DynRule, slots: &mut [Buffer], value: &DataMut<'_>) {
    for (k, slot) in slots.iter_mut().enumerate() {
        if rule.slot_init(k) == SlotInit::CopyParam && !slot.is_empty() {
            slot.data_mut().copy_from_mut(value);
        }
    }
}
