//! The update of one parameter, of a part of one, or of several small ones: for any thread, in any order.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::buffer::Buffer;
use super::group::{Group, Param, ParamState};
use super::spec::ParamStorage;
use crate::error::Error;
use crate::float::Dtype;
use crate::rule::{
    ComputePolicy, DynRule, ScalarState, Scope, SlotInit, StepContext, UpdateBuffers,
    begin_parameter,
};
use crate::storage::{
    Chunk, Data, DataMut, KahanPair, RawBuffer, RoundingBits, SplitFloat, StochasticRounded,
    chunk_len, paired_chunks_mut, plain_chunks_mut, stochastic_chunks_mut,
};

/// The update of one parameter, of a part of one, or of several small ones.
pub struct Task<'a>(pub(super) TaskKind<'a>);

#[expect(clippy::large_enum_variant, reason = "nearly all tasks are of one parameter")]
pub(super) enum TaskKind<'a> {
    Single(ParamUpdate<'a>),
    /// Parameters that follow each other, each to be prepared when its turn comes.
    Batch {
        len: usize,
        work: usize,
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

/// What a task writes.
pub(super) enum UpdateMemory<'a> {
    Whole {
        param: DataMut<'a>,
        /// What is kept beside the parameter.
        correction: Option<&'a mut RawBuffer>,
        /// What it is rounded with.
        noise: Option<RoundingBits<'a>>,
        slots: &'a mut [Buffer],
    },
    Part {
        param: Chunk<'a>,
        slots: Vec<Chunk<'a>>,
    },
}

/// A rule's carried numbers at a step of one parameter.
pub enum ScalarsRef<'a> {
    /// The parameter's own.
    Own(&'a mut ScalarState),
    /// A copy of its group's, which a parameter may not change.
    Group(ScalarState),
}

impl ScalarsRef<'_> {
    /// The numbers.
    pub fn get(&mut self) -> &mut ScalarState {
        match self {
            ScalarsRef::Own(scalars) => scalars,
            ScalarsRef::Group(scalars) => scalars,
        }
    }
}

/// The update of one parameter but for its numbers, for backends that keep those elsewhere.
pub struct PreparedStep<'a> {
    /// What moves the parameter.
    pub rule: &'a dyn DynRule,
    /// How it is computed.
    pub policy: ComputePolicy,
    /// The step. At the [first](StepContext::is_first) one, slots that start as the parameter
    /// ([`SlotInit::CopyParam`]) are to be filled.
    pub step: StepContext<'a>,
    /// The carried numbers, [advanced](DynRule::advance_scalars) already.
    pub scalars: ScalarsRef<'a>,
    /// The parameter's dimensions.
    pub shape: &'a [usize],
    /// Its state.
    pub slots: &'a mut [Buffer],
    /// What is kept beside it.
    pub correction: Option<&'a mut RawBuffer>,
    /// What it is rounded with.
    pub rounding_bits: Option<RoundingBits<'a>>,
}

impl<'a> Task<'a> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            TaskKind::Single(one) => one.grad.len(),
            TaskKind::Batch { len, .. } => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how much work it is, to deal tasks out evenly. The unit is an element of plain
    /// numbers; one that is decoded and encoded counts eight times, and beginning takes 512.
    #[must_use]
    pub fn cost(&self) -> usize {
        match &self.0 {
            TaskKind::Single(one) => task_cost(one.grad.len(), one.memory.is_encoded()),
            TaskKind::Batch { work, .. } => *work,
        }
    }

    /// Does the work.
    ///
    /// # Errors
    /// A state buffer of the wrong length; [`Optimizer::tasks`](super::Optimizer::tasks) has checked them. No memory to work in,
    /// of which matrix rules need some: other tasks of the step may have run then.
    pub fn run(self) -> Result<(), Error> {
        match self.0 {
            TaskKind::Single(one) => one.run(&mut Scratch::default()),
            TaskKind::Batch { run, .. } => run(),
        }
    }

    /// Cuts it into parts of `len` elements, rounded up to whole blocks, to be run on any threads and
    /// in any order: the bits do not depend on it. One whose elements do not move on their own,
    /// or that is a part already, stays whole, and so do several small ones. There are at most
    /// 4,096 parts: `len` is made larger for that.
    #[must_use]
    pub fn split(self, len: usize) -> Vec<Task<'a>> {
        match self.0 {
            TaskKind::Single(one) => {
                one.split(len).into_iter().map(|one| Task(TaskKind::Single(one))).collect()
            }
            several @ TaskKind::Batch { .. } => alloc::vec![Task(several)],
        }
    }
}

/// The most parts that a task is cut into.
const MAX_PARTS: usize = 4096;

/// Memory to work in: of one step's parameters, one after the other.
#[derive(Default)]
pub(super) struct Scratch {
    single: Vec<f32>,
    double: Vec<f64>,
}

impl Scratch {
    /// Makes room.
    pub(super) fn reserve(&mut self, compute: Dtype, len: usize) -> Result<(), Error> {
        fn room<T>(all: &mut Vec<T>, len: usize) -> Result<(), Error> {
            all.clear();
            all.try_reserve_exact(len)
                .map_err(|_| Error::OutOfMemory { argument: "workspace", len })
        }
        match compute {
            _ if len == 0 => Ok(()),
            Dtype::F64 => room(&mut self.double, len),
            _ => room(&mut self.single, len),
        }
    }

    /// Zeros.
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

pub(super) fn task_cost(len: usize, coded: bool) -> usize {
    len.saturating_mul(if coded { 8 } else { 1 }).saturating_add(512)
}

impl UpdateMemory<'_> {
    fn is_encoded(&self) -> bool {
        match self {
            UpdateMemory::Whole { correction: companion, noise, slots, .. } => {
                let coded = |slot: &Buffer| matches!(slot, Buffer::Encoded(_));
                companion.is_some() || noise.is_some() || slots.iter().any(coded)
            }
            UpdateMemory::Part { param, slots } => {
                let coded = |piece: &Chunk<'_>| matches!(piece, Chunk::Encoded(_));
                coded(param) || slots.iter().any(coded)
            }
        }
    }
}

impl<'a> ParamUpdate<'a> {
    pub(super) fn run(self, work: &mut Scratch) -> Result<(), Error> {
        let ParamUpdate { rule, policy: arithmetic, step, mut scalars, grad, memory } = self;
        let scalars = scalars.get();
        let mut run = |shape: &[usize], param: &mut DataMut<'_>, slots: &mut [DataMut<'_>]| {
            let compute = arithmetic.compute(param.dtype());
            let work =
                work.zeros(compute, rule.scratch_len_at(compute, &step, shape, param, &grad))?;
            let tensor =
                UpdateBuffers { shape, param: param.reborrow(), grad, slots, scratch: work };
            rule.update(arithmetic, &step, scalars, tensor)
        };
        match memory {
            UpdateMemory::Part { mut param, mut slots } => {
                let slots = slots.iter_mut().map(Chunk::data_mut);
                with_slots(slots, |slots| run(&[grad.len()], &mut param.data_mut(), slots))
            }
            UpdateMemory::Whole { mut param, correction: companion, noise, slots } => {
                let slots = slots.iter_mut().map(Buffer::data_mut);
                with_slots(slots, |slots| {
                    let run = |param: &mut DataMut<'_>| run(step.shape, param, slots);
                    with_whole(&mut param, companion, noise, run)
                })
            }
        }
    }

    pub(super) fn split(self, len: usize) -> Vec<ParamUpdate<'a>> {
        let total = self.grad.len();
        let (param, companion, noise, slots) = match self.memory {
            UpdateMemory::Whole { param, correction: companion, noise, slots }
                if total > len && self.rule.info().is_elementwise =>
            {
                (param, companion, noise, slots)
            }
            memory => return alloc::vec![ParamUpdate { memory, ..self }],
        };
        let blocks = slots.iter().map(Buffer::block).chain([param.block()]);
        let len = len.max(total.div_ceil(MAX_PARTS)).max(1);
        let len = len.next_multiple_of(chunk_len(blocks).unwrap_or(1));
        let params = match (companion, noise) {
            (Some(companion), _) => paired_chunks_mut(param, companion, len),
            (_, Some(noise)) => stochastic_chunks_mut(param, noise, len),
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

/// Runs `f` on all slots at once, without the heap if they are few.
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

/// Runs `f` on a whole parameter as its rule sees it.
pub(super) fn with_whole<T>(
    param: &mut DataMut<'_>,
    companion: Option<&mut RawBuffer>,
    noise: Option<RoundingBits<'_>>,
    f: impl FnOnce(&mut DataMut<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    match (companion, noise, param) {
        (Some(companion), _, param) => with_correction(param, companion, f),
        (_, Some(n), DataMut::Bf16(x)) => {
            f(&mut DataMut::Encoded(&mut StochasticRounded::new(x, n)))
        }
        (_, Some(n), DataMut::F16(x)) => {
            f(&mut DataMut::Encoded(&mut StochasticRounded::new(x, n)))
        }
        (_, _, param) => f(param),
    }
}

/// Runs `f` on a 16-bit parameter together with what is kept beside it.
pub(super) fn with_correction<T>(
    value: &mut DataMut<'_>,
    companion: &mut RawBuffer,
    f: impl FnOnce(&mut DataMut<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    match (value, companion) {
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

/// The task of a parameter that has a gradient. `layers` counts those of each group.
pub(super) fn next_task<'a>(
    groups: &'a [Group],
    layers: &mut [u32],
    param: &'a mut Param<'_>,
    state: &'a mut ParamState,
    extra: &'a [(&'a str, f64)],
) -> Option<ParamUpdate<'a>> {
    let (group, next) = (groups.get(state.group.0)?, layers.get_mut(state.group.0)?);
    let grad = param.grad?;
    let layer = *next;
    *next += 1;
    Some(param_update(group, state, param.value.reborrow(), grad, layer, extra))
}

#[inline(always)]
pub(super) fn param_update<'a>(
    group: &'a Group,
    state: &'a mut ParamState,
    mut param: DataMut<'a>,
    grad: Data<'a>,
    layer: u32,
    extra: &'a [(&'a str, f64)],
) -> ParamUpdate<'a> {
    if !state.is_initialized {
        let rule = &*group.spec.rule;
        let slots = &mut state.slots;
        match &mut state.correction {
            // Lengths have been checked: this can't fail.
            Some(companion) => drop(with_correction(&mut param, companion, |value| {
                start(rule, slots, value);
                Ok(())
            })),
            None => start(rule, slots, &param),
        }
    }
    let turn = prepare_one(group, state, param.dtype(), layer, extra);
    ParamUpdate {
        rule: turn.rule,
        policy: turn.policy,
        step: turn.step,
        scalars: turn.scalars,
        grad,
        memory: UpdateMemory::Whole {
            param,
            correction: turn.correction,
            noise: turn.rounding_bits,
            slots: turn.slots,
        },
    }
}

#[inline(always)]
pub(super) fn prepare_one<'a>(
    group: &'a Group,
    state: &'a mut ParamState,
    dtype: Option<Dtype>,
    layer: u32,
    extra: &'a [(&'a str, f64)],
) -> PreparedStep<'a> {
    let rule = &*group.spec.rule;
    let info = rule.info();
    let first = !state.is_initialized;
    state.is_initialized = true;
    let shape = &state.shape;
    let mut step = StepContext {
        t: 0,
        lr: group.lr,
        is_first: first,
        index_in_group: layer,
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
        rounding_bits: matches!(group.spec.storage.param, ParamStorage::Stochastic(_)).then_some(
            match &state.rounding_bits {
                Some(bits) => RoundingBits::Provided(bits),
                None => RoundingBits::Counter { seed: state.seed, step: state.steps, first: 0 },
            },
        ),
        slots: &mut state.slots,
        scalars: if own {
            ScalarsRef::Own(&mut state.scalars)
        } else {
            ScalarsRef::Group(group.scalars)
        },
    }
}

/// Copies the parameter into the slots that start as it.
pub(super) fn start(rule: &dyn DynRule, slots: &mut [Buffer], value: &DataMut<'_>) {
    for (k, slot) in slots.iter_mut().enumerate() {
        if rule.slot_init(k) == SlotInit::CopyParam && !slot.is_empty() {
            slot.data_mut().copy_from_mut(value);
        }
    }
}
