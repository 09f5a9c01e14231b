//! A rule with its state: steps counted, saved and loaded, with and without a heap.
//!
//! [`State`] holds what a rule keeps of one parameter; [`Optimize`] steps it. Groups of parameters are in
//! [`crate::optimizer`], formats other than plain numbers in [`crate::storage`].

pub(crate) mod memory;
pub(crate) mod saved;

use core::marker::PhantomData;

pub use memory::Memory;

use crate::error::{Error, ensure_len};
use crate::float::{ComputeFloat, Eager, EagerFloat, StoredFloat};
use crate::rule::{
    Array, ComputePolicy, NOT_EAGER, Rule, ScalarState, SlotInit, StepContext, begin_single,
    check_slices, step_slices,
};
use crate::state::saved::{Reader, Sink, Writer, copied};
use crate::storage::Plain;

/// What saved state begins with.
const KIND: &[u8; 8] = b"bitstep1";

/// The state that a rule keeps of one parameter, in memory of any kind: an array, a borrowed slice, a vector.
///
/// The memory holds the slots in use one after the other, each as long as the parameter ([`State::memory_len`] numbers
/// in all: two for each of AdamW's weights). [`Optimize::step`] counts the updates and makes them; [`save`](Self::save)
/// and [`load`](Self::load) are for flash or a file: the parameter and its state together, the same bytes on every
/// machine, with a version and a checksum.
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
/// flash[40] ^= 1; // a bit that has tipped over
/// assert!(state.load(&mut weights, flash).is_err());
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct State<R, M> {
    steps: u64,
    scalars: ScalarState,
    memory: M,
    /// Which slots are in use, as bits.
    active: u32,
    len: usize,
    rule: PhantomData<R>,
}

/// What numbers of this type are computed in: `f64` for `f64`, else `f32`.
type Scalar<S> = <<S as EagerFloat>::Compute as ComputeFloat>::Scalar;

/// Each slot's part of the memory; empty for one that is not in use.
fn slots<R: Rule, S>(active: u32, len: usize, memory: &mut [S]) -> R::Slots<&mut [S]> {
    let mut rest = memory;
    R::Slots::<&mut [S]>::from_fn(|slot| {
        let used = if active >> slot & 1 == 1 { len } else { 0 };
        let (own, later) =
            core::mem::take(&mut rest).split_at_mut_checked(used).unwrap_or_default();
        rest = later;
        own
    })
}

impl<R: Rule, M: Memory> State<R, M> {
    /// How many numbers the state of a parameter of `len` numbers takes.
    #[must_use]
    pub fn memory_len(rule: &R, len: usize) -> usize {
        len.saturating_mul(Self::active(rule).count_ones() as usize)
    }

    /// State before the first step of a parameter of `len` numbers; what is in `memory` is written over.
    ///
    /// # Errors
    /// An invalid configuration, or memory that has not [as many numbers](Self::memory_len) as are needed. Nothing is
    /// written then.
    pub fn new(rule: &R, len: usize, memory: M) -> Result<Self, Error> {
        rule.check()?;
        ensure_len("memory", memory.numbers().len(), Self::memory_len(rule, len))?;
        let active = Self::active(rule);
        let scalars = rule.scalars();
        let mut state = State::<R, M> { steps: 0, scalars, memory, active, len, rule: PhantomData };
        state.fill(rule);
        Ok(state)
    }

    /// Fills the slots that start as a number.
    fn fill(&mut self, rule: &R) {
        let mut slots = self.slots_mut();
        for (k, slot) in slots.as_mut().iter_mut().enumerate() {
            if let SlotInit::Constant(x) = rule.slot_init(k) {
                slot.fill(M::Number::from_f64(x));
            }
        }
    }

    fn active(rule: &R) -> u32 {
        rule.active_slots(Scalar::<M::Number>::DTYPE)
    }

    /// Updates so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on as after that many updates: for state that comes from elsewhere, by way of [`slots_mut`](Self::slots_mut).
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Numbers carried from step to step beside the slots, under the names of [`Rule::SCALAR_NAMES`].
    #[must_use]
    pub fn scalars(&self) -> &ScalarState {
        &self.scalars
    }

    /// The slots, under the names of [`Rule::SLOTS`]; empty where one is not in use.
    #[must_use]
    pub fn slots(&self) -> R::Slots<&[M::Number]> {
        let mut rest = self.memory.numbers();
        R::Slots::<&[M::Number]>::from_fn(|slot| {
            let used = if self.active >> slot & 1 == 1 { self.len } else { 0 };
            let (own, later) = rest.split_at_checked(used).unwrap_or_default();
            rest = later;
            own
        })
    }

    /// The slots, to be written.
    pub fn slots_mut(&mut self) -> R::Slots<&mut [M::Number]> {
        slots::<R, M::Number>(self.active, self.len, self.memory.numbers_mut())
    }

    fn written(&self, param: Option<&[M::Number]>, to: Option<&mut Sink<'_>>) -> usize {
        let mut to = Writer::new(KIND, to);
        to.list(R::ID.as_bytes());
        to.number(M::Number::DTYPE as u64);
        to.number(self.len as u64);
        to.number(self.steps);
        to.floats(&self.scalars);
        match param {
            Some(param) => to.data(M::Number::data(param)),
            None => to.list_of(self.len.saturating_mul(M::Number::DTYPE.size())),
        }
        let slots = self.slots();
        slots.as_ref().iter().filter(|s| !s.is_empty()).for_each(|s| to.data(M::Number::data(s)));
        to.end()
    }

    /// How many bytes [`save`](Self::save) writes.
    #[must_use]
    pub fn saved_len(&self) -> usize {
        self.written(None, None)
    }

    /// Writes the parameter and all that a step leaves behind.
    ///
    /// # Errors
    /// A parameter of another length, or not [`saved_len`](Self::saved_len) bytes. Nothing is written then.
    pub fn save(&self, param: &[M::Number], to: &mut [u8]) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        copied(to, |to| self.written(Some(param), to))
    }

    /// Goes on from what [`save`](Self::save) wrote of a state that was made alike.
    ///
    /// # Errors
    /// A parameter of another length; or [`Error::is_saved`]: bytes that are damaged, of a later version, or of another
    /// rule, type or length. Nothing has changed then.
    pub fn load(&mut self, param: &mut [M::Number], from: &[u8]) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        Reader::both(KIND, from, |from| {
            from.expect_bytes(R::ID.as_bytes(), "state of the same rule")?;
            from.expect("type", M::Number::DTYPE as u64)?;
            from.expect("number of elements", self.len as u64)?;
            let (steps, scalars) = (from.number()?, from.floats()?);
            if from.puts {
                (self.steps, self.scalars) = (steps, scalars);
            }
            from.data(M::Number::data_mut(param))?;
            for slot in self.slots_mut().as_mut().iter_mut().filter(|s| !s.is_empty()) {
                from.data(M::Number::data_mut(slot))?;
            }
            Ok(())
        })
    }

    /// The step itself, computed in C.
    fn step_as<C: ComputeFloat>(
        &mut self,
        rule: &R,
        step: &StepContext<'_>,
        param: &mut [M::Number],
        grad: &[M::Number],
    ) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        let mut slots = slots::<R, M::Number>(self.active, self.len, self.memory.numbers_mut());
        check_slices::<R, C, M::Number, M::Number, M::Number>(rule, step, param, grad, &mut slots)?;
        let (shape, is_first) = ([self.len], self.steps == 0);
        let dtype = Some(M::Number::DTYPE);
        let mut at = StepContext { is_first, shape: &shape, dtype, ..*step };
        begin_single(rule, &mut at, true, &mut self.steps, &mut self.scalars);
        for (k, slot) in slots.as_mut().iter_mut().enumerate() {
            if is_first && rule.slot_init(k) == SlotInit::CopyParam && !slot.is_empty() {
                // Of one length, as has been checked: no panic is linked.
                slot.iter_mut().zip(&*param).for_each(|(to, from)| *to = *from);
            }
        }
        let scalars = &mut self.scalars;
        step_slices::<R, C, M::Number, M::Number, M::Number>(
            rule, &at, scalars, param, grad, slots,
        );
        Ok(())
    }
}

#[cfg(feature = "alloc")]
impl<R: Rule, S: EagerFloat + Plain> State<R, alloc::vec::Vec<S>> {
    /// State before the first step of a parameter of `len` numbers, on the heap.
    ///
    /// # Errors
    /// An invalid configuration, or no memory.
    pub fn allocate(rule: &R, len: usize) -> Result<Self, Error> {
        rule.check()?;
        let zero = S::from_f32(0.0);
        let memory = crate::storage::memory::filled("state", zero, Self::memory_len(rule, len))?;
        Self::new(rule, len, memory)
    }
}

/// Steps of one parameter by a rule that is known when the program is compiled: every [`Rule`]'s.
///
/// Many parameters, groups, and rules that are known at run time only are [`Optimizer`](crate::optimizer::Optimizer)'s.
pub trait Optimize: Rule {
    /// The next update, at learning rate `lr`.
    ///
    /// Computed in `f64` if the numbers are of that type, else in `f32`, and rounded once when stored: as PyTorch's
    /// fused kernels do.
    ///
    /// # Errors
    /// An invalid configuration, or a parameter or gradient of another length than the state is for. Nothing is
    /// written then.
    fn step<M: Memory>(
        &self,
        state: &mut State<Self, M>,
        lr: f64,
        param: &mut [M::Number],
        grad: &[M::Number],
    ) -> Result<(), Error> {
        self.step_with(state, &StepContext::new(0, lr), param, grad)
    }

    /// The same with whatever else a step may say: the norm over all gradients, [extra](StepContext::extra) arguments.
    /// Its number is counted by the state.
    ///
    /// # Errors
    /// Those of [`step`](Self::step), or without the norm that the rule asks for. Nothing is written then.
    fn step_with<M: Memory>(
        &self,
        state: &mut State<Self, M>,
        step: &StepContext<'_>,
        param: &mut [M::Number],
        grad: &[M::Number],
    ) -> Result<(), Error> {
        state.step_as::<Scalar<M::Number>>(self, step, param, grad)
    }

    /// The same, computed otherwise: [`ComputePolicy::Eager`] rounds 16-bit numbers after every operation, as
    /// PyTorch's other kernels do.
    ///
    /// # Errors
    /// Those of [`step_with`](Self::step_with); a policy in which the rule's reference does not compute, or one that
    /// needs other slots than the state was made for. Nothing is written then.
    fn step_in<M: Memory>(
        &self,
        policy: ComputePolicy,
        state: &mut State<Self, M>,
        step: &StepContext<'_>,
        param: &mut [M::Number],
        grad: &[M::Number],
    ) -> Result<(), Error> {
        use crate::float::Dtype;
        match policy.compute(Some(M::Number::DTYPE)) {
            Dtype::F64 => state.step_as::<f64>(self, step, param, grad),
            Dtype::F32 => state.step_as::<f32>(self, step, param, grad),
            _ if const { !Self::EAGER } => Err(NOT_EAGER),
            Dtype::Bf16 => state.step_as::<Eager<half::bf16>>(self, step, param, grad),
            Dtype::F16 => state.step_as::<Eager<half::f16>>(self, step, param, grad),
        }
    }
}

impl<R: Rule> Optimize for R {}
