//! A rule with the state of one parameter, with and without a heap.
//!
//! [`State`] holds slots, scalars and step count, and saves and loads them; [`Optimize`] makes a step with it.
//!
//! Not here: several parameters and groups ([`crate::optimizer`]), state that is not stored as plain values
//! ([`crate::storage`], [`step_buffered`](crate::rule::step_buffered)).

pub(crate) mod memory;
pub(crate) mod saved;

use core::marker::PhantomData;

pub use memory::Memory;

use crate::error::{Error, ensure_len};
use crate::float::{ComputeFloat, Eager, EagerFloat, StoredFloat};
use crate::rule::mode;
use crate::rule::{
    Array, ComputePolicy, NOT_EAGER, Rule, ScalarState, SlotInit, StepContext, begin_single,
    check_slices, step_slices,
};
use crate::state::saved::{Reader, Sink, Writer, copied};
use crate::storage::Plain;

/// The first 8 bytes of saved state.
const KIND: &[u8; 8] = b"bitstep1";

/// The state of one parameter under a rule, in an array, a borrowed slice or a `Vec`.
///
/// The memory holds the active slots one after the other, each as long as the parameter: [`State::memory_len`] values
/// in total, two per weight for AdamW. [`Optimize::step`] updates the parameter and counts steps. [`save`](Self::save)
/// and [`load`](Self::load) write the parameter with its state to flash or a file: the same bytes on every machine,
/// with a version and a checksum.
///
/// ```
/// use bitstep::prelude::*;
///
/// const OPT: AdamW = AdamW { lr: 0.1, ..AdamW::DEFAULT };
/// let mut weights = [1.0f32, -1.0, 0.5];
/// let mut state = State::new(&OPT, 3, [0.0; 2 * 3])?; // two averages of each weight
/// OPT.step(&mut state, OPT.lr, &mut weights, &[0.5, 0.5, 0.5])?;
/// let mut flash = [0; 256];
/// let flash = &mut flash[..state.saved_len()];
/// state.save(&weights, flash)?;
///
/// // After a reset:
/// let mut weights = [0.0f32; 3];
/// let mut state = State::new(&OPT, 3, [0.0; 2 * 3])?;
/// state.load(&mut weights, flash)?;
/// assert!(state.steps() == 1 && weights[0] < 1.0);
/// flash[40] ^= 1; // a flipped bit
/// assert!(state.load(&mut weights, flash).is_err());
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct State<R, M> {
    steps: u64,
    scalars: ScalarState,
    memory: M,
    /// The active slots (bit k: slot k).
    active: u32,
    len: usize,
    rule: PhantomData<R>,
}

/// The compute type of values of this type: `f64` for `f64`, else `f32`.
type Scalar<S> = <<S as EagerFloat>::Compute as ComputeFloat>::Scalar;

/// Each slot's part of the memory; empty for an inactive slot.
fn slots<R: Rule, S>(active: u32, len: usize, memory: &mut [S]) -> R::Slots<&mut [S]> {
    let mut rest = memory;
    R::Slots::<&mut [S]>::from_fn(|slot| {
        let slot_len = if active >> slot & 1 == 1 { len } else { 0 };
        let (own, later) =
            core::mem::take(&mut rest).split_at_mut_checked(slot_len).unwrap_or_default();
        rest = later;
        own
    })
}

impl<R: Rule, M: Memory> State<R, M> {
    /// The number of values of state for a parameter of `len` elements: `len` per active slot.
    #[must_use]
    pub fn memory_len(rule: &R, len: usize) -> usize {
        len.saturating_mul(Self::active(rule).count_ones() as usize)
    }

    /// The initial state of a parameter of `len` elements. Overwrites `memory`.
    ///
    /// # Errors
    /// An invalid configuration, or memory that is not [as long as required](Self::memory_len). Nothing is written
    /// then.
    pub fn new(rule: &R, len: usize, memory: M) -> Result<Self, Error> {
        rule.check()?;
        ensure_len("memory", memory.values().len(), Self::memory_len(rule, len))?;
        let active = Self::active(rule);
        let scalars = rule.scalars();
        let mut state = State::<R, M> { steps: 0, scalars, memory, active, len, rule: PhantomData };
        state.fill(rule);
        Ok(state)
    }

    /// Fills the slots that start as a constant; copies of the parameter are made in the first step.
    fn fill(&mut self, rule: &R) {
        let mut slots = self.slots_mut();
        for (k, slot) in slots.as_mut().iter_mut().enumerate() {
            if let SlotInit::Constant(x) = rule.slot_init(k) {
                slot.fill(M::Value::from_f64(x));
            }
        }
    }

    fn active(rule: &R) -> u32 {
        rule.active_slots(Scalar::<M::Value>::DTYPE)
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Sets the number of steps so far, to restore state from another source together with [`slots_mut`](Self::slots_mut).
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// The rule's scalars, in the order of [`Rule::SCALAR_NAMES`].
    #[must_use]
    pub fn scalars(&self) -> &ScalarState {
        &self.scalars
    }

    /// The slots, in the order of [`Rule::SLOTS`]; an inactive slot is empty.
    #[must_use]
    pub fn slots(&self) -> R::Slots<&[M::Value]> {
        let mut rest = self.memory.values();
        R::Slots::<&[M::Value]>::from_fn(|slot| {
            let slot_len = if self.active >> slot & 1 == 1 { self.len } else { 0 };
            let (own, later) = rest.split_at_checked(slot_len).unwrap_or_default();
            rest = later;
            own
        })
    }

    /// The slots, to write.
    pub fn slots_mut(&mut self) -> R::Slots<&mut [M::Value]> {
        slots::<R, M::Value>(self.active, self.len, self.memory.values_mut())
    }

    fn write_to(&self, param: Option<&[M::Value]>, to: Option<&mut Sink<'_>>) -> usize {
        let mut to = Writer::new(KIND, to);
        to.list(R::ID.as_bytes());
        to.number(M::Value::DTYPE as u64);
        to.number(self.len as u64);
        to.number(self.steps);
        to.floats(&self.scalars);
        match param {
            Some(param) => to.data(M::Value::data(param)),
            None => to.list_of(self.len.saturating_mul(M::Value::DTYPE.size())),
        }
        let slots = self.slots();
        slots.as_ref().iter().filter(|s| !s.is_empty()).for_each(|s| to.data(M::Value::data(s)));
        to.end()
    }

    /// The number of bytes that [`save`](Self::save) writes.
    #[must_use]
    pub fn saved_len(&self) -> usize {
        self.write_to(None, None)
    }

    /// Writes the parameter, the slots, the scalars and the step count.
    ///
    /// # Errors
    /// A parameter of another length, or `to` is not [`saved_len`](Self::saved_len) bytes long. Nothing is written then.
    pub fn save(&self, param: &[M::Value], to: &mut [u8]) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        copied(to, |to| self.write_to(Some(param), to))
    }

    /// Restores what [`save`](Self::save) wrote, from a state of the same rule, type and length.
    ///
    /// # Errors
    /// A parameter of another length; or [`Error::is_saved`]: bytes that are damaged, of a later version, or of another
    /// rule, type, length or set of active slots. Nothing is changed then.
    pub fn load(&mut self, param: &mut [M::Value], from: &[u8]) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        Reader::validate_then_apply(KIND, from, |from| {
            from.expect_bytes(R::ID.as_bytes(), "state of the same rule")?;
            from.expect("type", M::Value::DTYPE as u64)?;
            from.expect("number of elements", self.len as u64)?;
            let (steps, scalars) = (from.number()?, from.floats()?);
            if from.is_applying {
                (self.steps, self.scalars) = (steps, scalars);
            }
            from.data(M::Value::data_mut(param))?;
            for slot in self.slots_mut().as_mut().iter_mut().filter(|s| !s.is_empty()) {
                from.data(M::Value::data_mut(slot))?;
            }
            Ok(())
        })
    }

    /// One step, computed in `C`.
    fn step_as<C: ComputeFloat>(
        &mut self,
        rule: &R,
        step: &StepContext<'_>,
        param: &mut [M::Value],
        grad: &[M::Value],
    ) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        let mut slots = slots::<R, M::Value>(self.active, self.len, self.memory.values_mut());
        check_slices::<R, C, M::Value, M::Value, M::Value>(rule, step, param, grad, &mut slots)?;
        let (shape, is_first) = ([self.len], self.steps == 0);
        let dtype = Some(M::Value::DTYPE);
        let mut at = StepContext { is_first, shape: &shape, dtype, ..*step };
        begin_single(rule, &mut at, true, &mut self.steps, &mut self.scalars);
        for (k, slot) in slots.as_mut().iter_mut().enumerate() {
            if is_first && rule.slot_init(k) == SlotInit::CopyParam && !slot.is_empty() {
                // Of one length, as has been checked: no panic is linked.
                slot.iter_mut().zip(&*param).for_each(|(to, from)| *to = *from);
            }
        }
        let scalars = &mut self.scalars;
        step_slices::<R, C, M::Value, M::Value, M::Value>(rule, &at, scalars, param, grad, slots);
        Ok(())
    }
}

#[cfg(feature = "alloc")]
impl<R: Rule, S: EagerFloat + Plain> State<R, alloc::vec::Vec<S>> {
    /// The initial state of a parameter of `len` elements, on the heap.
    ///
    /// # Errors
    /// An invalid configuration, or [no memory](Error::OutOfMemory).
    ///
    /// ```
    /// use bitstep::prelude::*;
    /// let (rule, mut weights) = (AdamW::DEFAULT, vec![1.0f32; 1000]);
    /// let mut state = State::allocate(&rule, weights.len())?;
    /// rule.step(&mut state, 1e-3, &mut weights, &vec![0.5; 1000])?;
    /// assert_eq!(state.steps(), 1);
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    pub fn allocate(rule: &R, len: usize) -> Result<Self, Error> {
        rule.check()?;
        let zero = S::from_f32(0.0);
        let memory = crate::storage::memory::filled("state", zero, Self::memory_len(rule, len))?;
        Self::new(rule, len, memory)
    }
}

/// Steps of one parameter by a rule that is known at compile time. Every [`Rule`] has these methods.
///
/// For several parameters, groups, or rules that are chosen at run time, see [`crate::optimizer`] (feature `alloc`).
pub trait Optimize: Rule {
    /// Updates the parameter at learning rate `lr`, which replaces the configuration's.
    ///
    /// `f64` values are computed in `f64`, all others in `f32`, and rounded once when stored, as in PyTorch's fused
    /// kernels.
    ///
    /// # Errors
    /// An invalid configuration, a parameter or gradient whose length is not the state's, or a rule that needs
    /// [more inputs](Self::step_with). Nothing is written then.
    fn step<M: Memory>(
        &self,
        state: &mut State<Self, M>,
        lr: f64,
        param: &mut [M::Value],
        grad: &[M::Value],
    ) -> Result<(), Error> {
        self.step_with(state, &StepContext::new(0, lr), param, grad)
    }

    /// [`step`](Self::step) with the other inputs of a [`StepContext`]: the norm over all gradients,
    /// [extra arguments](StepContext::extra). The state sets `t`, `is_first`, `shape` and `dtype`.
    ///
    /// # Errors
    /// Those of [`step`](Self::step), or no [`StepContext::grad_norm`] for a rule that needs it. Nothing is written then.
    fn step_with<M: Memory>(
        &self,
        state: &mut State<Self, M>,
        step: &StepContext<'_>,
        param: &mut [M::Value],
        grad: &[M::Value],
    ) -> Result<(), Error> {
        state.step_as::<Scalar<M::Value>>(self, step, param, grad)
    }

    /// [`step_with`](Self::step_with) under another compute policy: [`ComputePolicy::Eager`] rounds 16-bit values after
    /// every operation, as PyTorch's eager kernels do.
    ///
    /// # Errors
    /// Those of [`step_with`](Self::step_with); a policy that the rule's reference does not have, or one under which other
    /// slots are active than in this state. Nothing is written then.
    fn step_in<M: Memory>(
        &self,
        policy: ComputePolicy,
        state: &mut State<Self, M>,
        step: &StepContext<'_>,
        param: &mut [M::Value],
        grad: &[M::Value],
    ) -> Result<(), Error> {
        use crate::float::Dtype;
        match policy.compute(Some(M::Value::DTYPE)) {
            Dtype::F64 => state.step_as::<f64>(self, step, param, grad),
            Dtype::F32 => state.step_as::<f32>(self, step, param, grad),
            _ if const { !Self::EAGER } => Err(NOT_EAGER),
            Dtype::Bf16 => state.step_as::<Eager<half::bf16>>(self, step, param, grad),
            Dtype::F16 => state.step_as::<Eager<half::f16>>(self, step, param, grad),
        }
    }

    /// Calls `f` with the parameter to evaluate, then restores the one to train: a schedule-free rule trains at y and
    /// evaluates at x; for most rules they are one. Both conversions are computed as [`step`](Self::step) is, and round.
    ///
    /// # Errors
    /// A parameter of another length than the state is for, or a configuration that can't be evaluated. Nothing is
    /// written then.
    ///
    /// # Example
    /// ```
    /// use bitstep::prelude::*;
    /// let rule = ScheduleFreeSgd::DEFAULT; // momentum 0.9
    /// let mut y = [1.0f64];
    /// let mut state = State::new(&rule, 1, [0.0; 1])?; // z
    /// for _ in 0..3 {
    ///     let gradient = y; // of y²/2
    ///     rule.step(&mut state, 0.5, &mut y, &gradient)?;
    /// }
    /// let (before, z) = (y[0], state.slots()[0][0]);
    /// let x = rule.evaluate(&state, &mut y, |x| x[0])?;
    /// assert!((before - (0.9 * x + 0.1 * z)).abs() < 1e-15); // y lies between x and z
    /// assert!((y[0] - before).abs() < 1e-15);
    /// # Ok::<(), bitstep::Error>(())
    /// ```
    fn evaluate<M: Memory, T>(
        &self,
        state: &State<Self, M>,
        param: &mut [M::Value],
        f: impl FnOnce(&[M::Value]) -> T,
    ) -> Result<T, Error> {
        ensure_len("param", param.len(), state.len)?;
        if state.steps == 0 {
            return Ok(f(param)); // not trained yet: one parameter for both
        }
        mode::evaluate::<Self, Scalar<M::Value>, _, _, _>(self, param, state.slots(), f)
    }
}

impl<R: Rule> Optimize for R {}
