//! An optimizer that owns its state: groups, parameters, counters.
//!
//! The caller keeps parameters and gradients; [`Optimizer::step`] borrows them.
//! Everything that PyTorch's `Optimizer` decides around the rule is decided here,
//! once for all backends that keep their state in memory: a parameter without a
//! gradient does not move, nor does its own counter; a group's counter moves with
//! every call.

mod saved;
mod scheduled;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use half::{bf16, f16};

use crate::error::{Error, ensure_len};
use crate::float::Dtype;
use crate::hyper::{ArgError, Args};
use crate::math::random::counter_u64;
use crate::rule::mode::Mode;
use crate::rule::{ComputePolicy, DynRule, NOT_EAGER, begin_group, begin_parameter};
use crate::rule::{DecayPowers, ScalarState, Scope, SlotInit, StepContext, UpdateBuffers};
use crate::storage::memory::{collected, filled};
use crate::storage::{
    Chunk, Data, DataMut, EncodedBuffer, KahanPair, RawBuffer, RawDtype, RoundingBits, SplitFloat,
    StochasticRounded, Storage, StorageFormat, check_blocks, chunk_len, numel, paired_chunks_mut,
    plain_chunks_mut, stochastic_chunks_mut,
};

/// A rule with the way it is computed: what a name of the references stands for.
#[derive(Clone, Debug)]
pub struct OptimizerSpec {
    /// How a parameter moves.
    pub rule: Box<dyn DynRule>,
    /// How 16-bit parameters are computed.
    pub policy: ComputePolicy,
    /// The number type of every plain state slot; `None` for the rule's own choice.
    pub state_dtype: Option<Dtype>,
    /// What does not rest in memory as plain numbers.
    pub storage: StorageConfig,
}

impl OptimizerSpec {
    /// A rule over plain numbers.
    pub fn new(rule: impl DynRule + 'static, arithmetic: ComputePolicy) -> OptimizerSpec {
        OptimizerSpec {
            rule: Box::new(rule),
            policy: arithmetic,
            state_dtype: None,
            storage: StorageConfig::default(),
        }
    }

    /// The same with some arguments changed, as a parameter group changes them.
    ///
    /// # Errors
    /// An unknown argument, or a refused value.
    ///
    /// ```
    /// use bitstep::{hyper::Args, registry::optimizer};
    /// let recipe = optimizer("adamw_torch", &Args::parse("lr=1e-3, eps=1e-6")?)?;
    /// assert_eq!(recipe.with(&Args::parse("lr=1e-4")?)?.rule.lr(), 1e-4);
    /// # Ok::<(), bitstep::hyper::ArgError>(())
    /// ```
    pub fn with_args(&self, args: &Args) -> Result<OptimizerSpec, ArgError> {
        let mut recipe = self.clone();
        args.apply("a parameter group", recipe.rule.hyper_params())?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Whether the references would step a group with these arguments: a rule's own ranges, but for
    /// a `weight_decay` below 0, which they refuse where an optimizer is made and not where a group
    /// brings its own.
    ///
    /// # Errors
    /// The argument that is refused.
    pub fn check(&self) -> Result<(), Error> {
        if self.policy == ComputePolicy::Eager && !self.rule.info().is_eager {
            return Err(NOT_EAGER);
        }
        match self.rule.check() {
            refused @ Err(Error::OutOfRange { argument: "weight_decay", value, .. })
                if value < 0.0 =>
            {
                // Refused for its number, or because this rule would lose any decay?
                let mut rule = self.rule.clone();
                let some = Args::new().with("weight_decay", 1.0);
                match some.apply("a parameter group", rule.hyper_params()) {
                    Ok(()) if rule.check().is_ok() => Ok(()),
                    _ => refused,
                }
            }
            checked => checked,
        }
    }

    /// The type that a parameter is computed in: `f32` if it is more than its plain numbers.
    fn compute_dtype(&self, param: Option<Dtype>) -> Dtype {
        self.policy.compute(param.filter(|&d| self.storage.param.is_plain(d)))
    }

    /// How many numbers slot k of a parameter has.
    #[must_use]
    pub fn slot_len(&self, slot: usize, shape: &[usize], param: Dtype) -> usize {
        self.rule.slot_len(slot, shape, self.compute_dtype(Some(param)))
    }

    /// How slot k of a parameter rests in memory.
    #[must_use]
    pub fn slot_format(&self, slot: usize, shape: &[usize], param: Dtype) -> StorageFormat {
        let len = self.slot_len(slot, shape, param);
        let StorageConfig { slot_formats: slots, min_len, len_multiple: multiple, .. } =
            &self.storage;
        let big = len >= *min_len && len.is_multiple_of((*multiple).max(1));
        let coded = slots.get(slot).copied().flatten().filter(|_| big);
        coded.unwrap_or_else(|| self.plain_format(slot, param))
    }

    /// The same if it is not coded.
    fn plain_format(&self, slot: usize, param: Dtype) -> StorageFormat {
        self.state_dtype.unwrap_or_else(|| self.rule.slot_dtype(slot, param)).into()
    }

    /// Bytes of memory for each number of a parameter of this shape: the number
    /// itself, its gradient and its state.
    ///
    /// ```
    /// use bitstep::{hyper::Args, registry::optimizer, float::Dtype};
    /// let bytes = |name, dtype| Ok::<f64, bitstep::hyper::ArgError>(optimizer(name, &Args::new())?.bytes_per_parameter(&[1 << 20], dtype));
    /// assert_eq!(bytes("adamw_torch", Dtype::F32)?, 16.0);
    /// assert_eq!(bytes("flash_adamw", Dtype::Bf16)?, 7.125); // 1/16 for each of two scales
    /// # Ok::<(), bitstep::hyper::ArgError>(())
    /// ```
    #[must_use]
    pub fn bytes_per_parameter(&self, shape: &[usize], dtype: Dtype) -> f64 {
        let n = numel(shape);
        let slots = (0..self.rule.info().slots.len()).map(|k| {
            self.slot_format(k, shape, dtype).bytes(self.slot_len(k, shape, dtype)) as f64
        });
        let companion = self.storage.param.correction_dtype(dtype).map_or(0, RawDtype::size);
        (2 * dtype.size() + companion) as f64 + slots.sum::<f64>() / n.max(1) as f64
    }
}

/// What of a recipe does not rest in memory as plain numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageConfig {
    /// The format of each slot; `None`, or no entry, is plain.
    pub slot_formats: Vec<Option<StorageFormat>>,
    /// A slot with fewer elements stays plain.
    pub min_len: usize,
    /// So does one whose number of elements is no multiple of this; 0 for any.
    pub len_multiple: usize,
    /// What is kept beside 16-bit parameters.
    pub param: ParamStorage,
}

/// What is kept beside 16-bit parameters, so that small updates are not lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParamStorage {
    /// Nothing.
    #[default]
    Plain,
    /// 8 or 16 correction bits: [`SplitFloat`].
    Split(u32),
    /// A compensation of the same type: [`KahanPair`].
    Kahan,
    /// Nothing, but they are rounded at random: [`StochasticRounded`]. The seed.
    Stochastic(u64),
}

/// What saved files call it. It never changes.
impl fmt::Display for ParamStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamStorage::Plain => f.write_str("plain"),
            ParamStorage::Split(bits) => write!(f, "split:{bits}"),
            ParamStorage::Kahan => f.write_str("kahan"),
            ParamStorage::Stochastic(seed) => write!(f, "stochastic:{seed}"),
        }
    }
}

impl ParamStorage {
    /// The type of what is kept beside a parameter of this type.
    fn correction_dtype(self, param: Dtype) -> Option<RawDtype> {
        match (self, param) {
            (_, Dtype::F64 | Dtype::F32) => None,
            (ParamStorage::Split(8), _) => Some(RawDtype::I8),
            (ParamStorage::Split(16), _) => Some(RawDtype::I16),
            (ParamStorage::Kahan, _) => Some(param.into()),
            (ParamStorage::Plain | ParamStorage::Split(_) | ParamStorage::Stochastic(_), _) => None,
        }
    }

    /// Whether a parameter of this type is nothing but its plain numbers.
    fn is_plain(self, param: Dtype) -> bool {
        let wide = matches!(param, Dtype::F64 | Dtype::F32);
        wide || self.correction_dtype(param).is_none()
            && !matches!(self, ParamStorage::Stochastic(_))
    }
}

/// Numbers, owned.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Buffer {
    F64(Vec<f64>),
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    /// Not plain numbers.
    Encoded(EncodedBuffer),
}

impl Buffer {
    /// Zeros in any format.
    ///
    /// # Errors
    /// A format that does not exist, or no memory for it.
    pub fn new(format: StorageFormat, len: usize) -> Result<Buffer, Error> {
        Ok(match format {
            StorageFormat::Plain(dtype) => Buffer::zeros(dtype, len)?,
            coded => Buffer::Encoded(EncodedBuffer::zeros(coded, len)?),
        })
    }

    /// Plain zeros.
    ///
    /// # Errors
    /// No memory for them.
    pub fn zeros(dtype: Dtype, len: usize) -> Result<Buffer, Error> {
        const OF: &str = "numbers";
        Ok(match dtype {
            Dtype::F64 => Buffer::F64(filled(OF, 0.0, len)?),
            Dtype::F32 => Buffer::F32(filled(OF, 0.0, len)?),
            Dtype::Bf16 => Buffer::Bf16(filled(OF, bf16::ZERO, len)?),
            Dtype::F16 => Buffer::F16(filled(OF, f16::ZERO, len)?),
        })
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Buffer::F64(x) => x.len(),
            Buffer::F32(x) => x.len(),
            Buffer::Bf16(x) => x.len(),
            Buffer::F16(x) => x.len(),
            Buffer::Encoded(x) => x.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many elements are handled together.
    fn block(&self) -> usize {
        match self {
            Buffer::Encoded(x) => x.block(),
            _ => 1,
        }
    }

    /// To read, if the numbers are plain.
    #[must_use]
    pub fn data(&self) -> Option<Data<'_>> {
        Some(match self {
            Buffer::F64(x) => Data::F64(x),
            Buffer::F32(x) => Data::F32(x),
            Buffer::Bf16(x) => Data::Bf16(x),
            Buffer::F16(x) => Data::F16(x),
            Buffer::Encoded(_) => return None,
        })
    }

    /// In pieces of `len` elements, a multiple of the block.
    fn chunks_mut(&mut self, len: usize) -> Vec<Chunk<'_>> {
        match self {
            Buffer::Encoded(x) => x.chunks_mut(len),
            numbers => plain_chunks_mut(numbers.data_mut(), len),
        }
    }

    /// To read and write.
    pub fn data_mut(&mut self) -> DataMut<'_> {
        match self {
            Buffer::F64(x) => DataMut::F64(x),
            Buffer::F32(x) => DataMut::F32(x),
            Buffer::Bf16(x) => DataMut::Bf16(x),
            Buffer::F16(x) => DataMut::F16(x),
            Buffer::Encoded(x) => DataMut::Encoded(x),
        }
    }
}

/// One tensor handed to [`Optimizer::step`].
pub struct Param<'a> {
    /// The parameter.
    pub value: DataMut<'a>,
    /// Its gradient; `None` leaves the parameter and its state alone.
    pub grad: Option<Data<'a>>,
}

/// Parameters that share a recipe and a learning rate.
#[derive(Clone, Debug)]
pub struct Group {
    /// What moves the parameters. A schedule may write its momentum, and a resumed run all of its arguments.
    pub spec: OptimizerSpec,
    /// The recipe that the group was added with.
    pub original_spec: OptimizerSpec,
    /// The learning rate in force; a schedule writes it.
    pub lr: f64,
    /// Calls of `step` so far.
    pub steps: u64,
    /// The rule's carried numbers, if the group owns them.
    pub scalars: ScalarState,
    /// The type of the first parameter with a gradient, at the latest [`Optimizer::tasks`].
    group_dtype: Option<Dtype>,
    /// For parameters that have made as many steps as the group.
    decay_powers: DecayPowers,
    /// The norm over all gradients, for rules that ask for it: found by
    /// [`Optimizer::tasks`]; before [`Optimizer::step_param`], the caller's to set.
    pub grad_norm: Option<f64>,
}

/// What is kept of one parameter.
#[derive(Clone, Debug)]
pub struct ParamState {
    /// Its group.
    pub group: usize,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its number type. A value of another one is refused; one in a storage of the caller's is taken.
    pub dtype: Dtype,
    /// Updates so far.
    pub steps: u64,
    /// The rule's carried numbers, if the parameter owns them.
    pub scalars: ScalarState,
    /// One buffer a slot, empty for a slot that is not in use.
    pub slots: Vec<Buffer>,
    /// Whether the slots are plain numbers whatever the recipe says
    /// ([`Optimizer::add_plain_param`]).
    pub has_plain_state: bool,
    /// What is kept beside a 16-bit parameter ([`StorageConfig::param`]): FlashOptim's `error_bits`.
    pub correction: Option<RawBuffer>,
    /// Seed of the bits that round it ([`ParamStorage::Stochastic`]).
    pub seed: u64,
    /// Bits to use instead, one number an element, for as long as they are here.
    pub rounding_bits: Option<Vec<u16>>,
    /// Whether the slots that start as the parameter have been filled.
    pub is_initialized: bool,
}

/// Groups of parameters and their state.
///
/// ```
/// use bitstep::{hyper::Args, registry, optimizer::{Optimizer, Param}, float::Dtype, storage::{Data, DataMut}};
/// let recipe = registry::optimizer("adamw_torch", &Args::new().with("lr", 0.1))?;
/// let mut optimizer = Optimizer::new();
/// let group = optimizer.add_group(recipe)?;
/// optimizer.add_param(group, &[2], Dtype::F32)?;
/// let (mut weight, grad) = ([1.0f32, 2.0], [0.5f32, -0.5]);
/// optimizer.step(&mut [Param { value: DataMut::F32(&mut weight), grad: Some(Data::F32(&grad)) }], &[])?;
/// assert!(weight[0] < 1.0 && weight[1] > 2.0);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Optimizer {
    groups: Vec<Group>,
    params: Vec<ParamState>,
    mode: Mode,
}

impl Optimizer {
    /// No groups yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a group; returns its number.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn add_group(&mut self, recipe: OptimizerSpec) -> Result<usize, Error> {
        recipe.check()?;
        let (lr, scalars) = (recipe.rule.lr(), recipe.rule.initial_scalars(0));
        self.groups.push(Group {
            original_spec: recipe.clone(),
            spec: recipe,
            lr,
            steps: 0,
            scalars,
            group_dtype: None,
            decay_powers: DecayPowers::default(),
            grad_norm: None,
        });
        Ok(self.groups.len() - 1)
    }

    /// Adds a parameter to a group; returns its number.
    ///
    /// # Errors
    /// No such group, a shape that the rule has no update for, a storage that does not exist, or
    /// [no memory](Error::OutOfMemory) for the state. The optimizer is as it was then.
    pub fn add_param(
        &mut self,
        group: usize,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<usize, Error> {
        self.add(group, shape, dtype, false)
    }

    /// The same for a parameter whose state rests as plain numbers, whatever
    /// [`StorageConfig::slot_formats`] says: an embedding beside others with 8-bit state, as Transformers has it.
    ///
    /// # Errors
    /// As [`add_param`](Self::add_param).
    ///
    /// ```
    /// use bitstep::{hyper::Args, registry, optimizer::{Buffer, Optimizer}, float::Dtype};
    /// let mut optimizer = Optimizer::new();
    /// let group = optimizer.add_group(registry::optimizer("adamw_bnb_8bit", &Args::new())?)?;
    /// optimizer.add_param(group, &[64, 64], Dtype::F32)?;
    /// optimizer.add_plain_param(group, &[64, 64], Dtype::F32)?;
    /// let slot = |param: usize| &optimizer.params()[param].slots[0];
    /// assert!(matches!(slot(0), Buffer::Coded(_)) && matches!(slot(1), Buffer::F32(_)));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn add_plain_param(
        &mut self,
        group: usize,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<usize, Error> {
        self.add(group, shape, dtype, true)
    }

    fn add(
        &mut self,
        group: usize,
        shape: &[usize],
        dtype: Dtype,
        plain: bool,
    ) -> Result<usize, Error> {
        let Some(g) = self.groups.get(group) else {
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
        Ok(self.params.len() - 1)
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
            let Some(group) = self.groups.get(state.group) else { continue };
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

    /// One step of all parameters, in the order in which they were added.
    ///
    /// `given` are numbers from outside for the rules that listen to any ([`StepContext::extra`]).
    ///
    /// # Errors
    /// Any wrong length or type, an invalid configuration, parameters that are being
    /// [evaluated](Self::eval), or no memory to work in. Nothing is written then.
    pub fn step(&mut self, params: &mut [Param<'_>], given: &[(&str, f64)]) -> Result<(), Error> {
        let mut work = Scratch::default();
        for (param, state) in params.iter().zip(&self.params).filter(|(p, _)| p.grad.is_some()) {
            let Some(group) = self.groups.get(state.group) else { continue };
            let compute = group.spec.compute_dtype(param.value.dtype());
            work.reserve(compute, group.spec.rule.scratch_len(&state.shape))?;
        }
        self.begin_tasks(params, given)?;
        let mut layers = alloc::vec![0u32; self.groups.len()];
        let states = params.iter_mut().zip(&mut self.params);
        states
            .filter_map(|(p, s)| next_task(&self.groups, &mut layers, p, s, given))
            .try_for_each(|one| one.run(&mut work))
    }

    /// One step, as independent pieces of work: run them all, on any threads and in any order.
    ///
    /// # Errors
    /// Any wrong length, or an invalid configuration. Nothing is written then.
    pub fn tasks<'a>(
        &'a mut self,
        params: &'a mut [Param<'_>],
        given: &'a [(&'a str, f64)],
    ) -> Result<Vec<Task<'a>>, Error> {
        self.tasks_batched(params, given, 0)
    }

    /// The same, with small parameters that follow each other as one piece of work, as long as
    /// all of it is at most `work` ([`Task::cost`]).
    ///
    /// # Errors
    /// Any wrong length, or an invalid configuration. Nothing is written then.
    pub fn tasks_batched<'a>(
        &'a mut self,
        params: &'a mut [Param<'_>],
        given: &'a [(&'a str, f64)],
        work: usize,
    ) -> Result<Vec<Task<'a>>, Error> {
        self.begin_tasks(params, given)?;
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
                ([param], [state]) => next_task(groups, &mut layers, param, state, given)
                    .map(|one| Task(TaskKind::Single(one))),
                (now, own) => {
                    let mut layers_now = layers.clone();
                    let moving = now.iter().zip(&*own).filter(|(param, _)| param.grad.is_some());
                    for (_, state) in moving {
                        layers.iter_mut().skip(state.group).take(1).for_each(|n| *n += 1);
                    }
                    let len = now.iter().map(|param| param.value.len()).sum();
                    let run = Box::new(move || {
                        let mut pairs = now.iter_mut().zip(own);
                        let mut work = Scratch::default();
                        pairs.try_for_each(|(param, state)| {
                            let one = next_task(groups, &mut layers_now, param, state, given);
                            one.map_or(Ok(()), |one| one.run(&mut work))
                        })
                    });
                    Some(Task(TaskKind::Batch { len, work: all.min(work), run }))
                }
            });
        }
        Ok(tasks)
    }

    fn begin_tasks(&mut self, params: &[Param<'_>], given: &[(&str, f64)]) -> Result<(), Error> {
        ensure_len("params", params.len(), self.params.len())?;
        for (index, param) in params.iter().enumerate() {
            self.check(index, &param.value, param.grad.as_ref())?;
        }
        let grads = || params.iter().map(|param| param.grad);
        let dtypes: Vec<_> = grads().map(|grad| grad.map(|grad| grad.dtype())).collect();
        self.begin_with(&dtypes, given, |rule, scale| {
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
        given: &[(&str, f64)],
    ) -> Result<(), Error> {
        let dtypes: Vec<_> = grads.iter().map(|grad| grad.map(|grad| grad.dtype())).collect();
        self.begin_with(&dtypes, given, |rule, scale| {
            rule.grad_norm(&grads.iter().filter_map(|&grad| grad).collect::<Vec<_>>(), scale)
        })
    }

    fn begin_with(
        &mut self,
        grads: &[Option<Dtype>],
        given: &[(&str, f64)],
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
            let at = StepContext { extra: given, ..StepContext::new(0, group.lr) };
            begin_group(rule, &info, &at, &mut group.steps, &mut group.scalars);
            group.decay_powers = DecayPowers::new(info.decay_bases, group.steps);
            let own = grads.iter().zip(&self.params).filter(|(_, state)| state.group == index);
            group.group_dtype = own.filter_map(|(grad, _)| *grad).next();
            group.grad_norm = rule.grad_norm_divisor(given).map(|scale| norm(rule, scale));
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
        given: &'a [(&'a str, f64)],
        norm: impl FnMut(&dyn DynRule, f64) -> f64,
    ) -> Result<Vec<(usize, PreparedStep<'a>)>, Error> {
        let grads: Vec<_> = types.iter().map(|t| t.map(|[_, grad]| grad)).collect();
        self.begin_with(&grads, given, norm)?;
        let mut layers = alloc::vec![0u32; self.groups.len()];
        let mut turns = Vec::with_capacity(types.len());
        for (index, (types, state)) in types.iter().zip(&mut self.params).enumerate() {
            let (Some([dtype, _]), Some(group), Some(next)) =
                (types, self.groups.get(state.group), layers.get_mut(state.group))
            else {
                continue;
            };
            turns.push((index, prepare_one(group, state, Some(*dtype), *next, given)));
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
        let Some(group) = self.groups.get(state.group) else { return Err(NO_PARAM) };
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
        index: usize,
        value: DataMut<'a>,
        grad: Data<'a>,
        layer: u32,
        given: &'a [(&'a str, f64)],
    ) -> Result<Task<'a>, Error> {
        self.check(index, &value, Some(&grad))?;
        let Some(state) = self.params.get_mut(index) else { return Err(NO_PARAM) };
        let Some(group) = self.groups.get(state.group) else { return Err(NO_PARAM) };
        Ok(Task(TaskKind::Single(task(group, state, value, grad, layer, given))))
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

/// The update of one parameter, of a part of one, or of several small ones.
pub struct Task<'a>(TaskKind<'a>);

#[expect(clippy::large_enum_variant, reason = "nearly all tasks are of one parameter")]
enum TaskKind<'a> {
    Single(ParamUpdate<'a>),
    /// Parameters that follow each other, each to be prepared when its turn comes.
    Batch {
        len: usize,
        work: usize,
        run: Box<dyn FnOnce() -> Result<(), Error> + Send + 'a>,
    },
}

/// The update of one parameter, or of a part of one.
struct ParamUpdate<'a> {
    rule: &'a dyn DynRule,
    policy: ComputePolicy,
    step: StepContext<'a>,
    scalars: ScalarsRef<'a>,
    grad: Data<'a>,
    memory: UpdateMemory<'a>,
}

/// What a task writes.
enum UpdateMemory<'a> {
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
    /// A state buffer of the wrong length; [`Optimizer::tasks`] has checked them. No memory to work in,
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
struct Scratch {
    single: Vec<f32>,
    double: Vec<f64>,
}

impl Scratch {
    /// Makes room.
    fn reserve(&mut self, compute: Dtype, len: usize) -> Result<(), Error> {
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

fn task_cost(len: usize, coded: bool) -> usize {
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
    fn run(self, work: &mut Scratch) -> Result<(), Error> {
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

    fn split(self, len: usize) -> Vec<ParamUpdate<'a>> {
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
fn with_slots<'a, T>(
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
fn with_whole<T>(
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
fn with_correction<T>(
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
fn next_task<'a>(
    groups: &'a [Group],
    layers: &mut [u32],
    param: &'a mut Param<'_>,
    state: &'a mut ParamState,
    given: &'a [(&'a str, f64)],
) -> Option<ParamUpdate<'a>> {
    let (group, next) = (groups.get(state.group)?, layers.get_mut(state.group)?);
    let grad = param.grad?;
    let layer = *next;
    *next += 1;
    Some(task(group, state, param.value.reborrow(), grad, layer, given))
}

#[inline(always)]
fn task<'a>(
    group: &'a Group,
    state: &'a mut ParamState,
    mut param: DataMut<'a>,
    grad: Data<'a>,
    layer: u32,
    given: &'a [(&'a str, f64)],
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
    let turn = prepare_one(group, state, param.dtype(), layer, given);
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
fn prepare_one<'a>(
    group: &'a Group,
    state: &'a mut ParamState,
    dtype: Option<Dtype>,
    layer: u32,
    given: &'a [(&'a str, f64)],
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
        extra: given,
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
fn start(rule: &dyn DynRule, slots: &mut [Buffer], value: &DataMut<'_>) {
    for (k, slot) in slots.iter_mut().enumerate() {
        if rule.slot_init(k) == SlotInit::CopyParam && !slot.is_empty() {
            slot.data_mut().copy_from_mut(value);
        }
    }
}
