//! A rule's state in memory of the caller's: counted, saved and loaded, without a heap.

pub(crate) mod saved;

use crate::error::{Error, ensure_len};
use crate::float::EagerFloat;
use crate::float::{ComputeFloat, StoredFloat};
use crate::rule::Array;
use crate::rule::begin_single;
use crate::rule::{Rule, ScalarState, SlotInit, StepContext, check_slices, step_slices};
use crate::state::saved::{Reader, Sink, Writer, copied};
use crate::storage::Plain;

/// What saved state begins with.
const KIND: &[u8; 8] = b"bitstep1";

/// What a rule keeps of one parameter, over a slice that holds every slot in use.
///
/// Numbers of type `S` rest there; a step is computed in `f64` if that is `S`, and else in `f32`.
/// [`step`](Self::step) counts, starts slots that start as the parameter, and calls [`rule::step`](crate::rule::step);
/// [`save`](Self::save) and [`load`](Self::load) are for flash or a file: the parameter and its state together, the
/// same bytes on every machine, with a version and a checksum.
///
/// ```
/// use bitstep::{optim::AdamW, rule::Rule, state::State};
/// let rule = AdamW { lr: 0.1, ..AdamW::default() };
/// let (mut memory, mut weights) = ([0.0f32; 2 * 3], [1.0f32, -1.0, 0.5]); // two averages of each weight
/// let mut state = State::new(&rule, 3, &mut memory)?;
/// state.step(&rule, rule.lr, &mut weights, &[0.5, 0.5, 0.5])?;
/// let mut flash = [0; 256];
/// let flash = &mut flash[..state.saved_len()];
/// state.save(&weights, flash)?;
///
/// // After a reset:
/// let (mut memory, mut weights) = ([0.0f32; 2 * 3], [0.0f32; 3]);
/// let mut again = State::new(&rule, 3, &mut memory)?;
/// again.load(&mut weights, flash)?;
/// assert!(again.steps() == 1 && weights[0] < 1.0);
/// flash[40] ^= 1; // a bit that has tipped over
/// assert!(again.load(&mut weights, flash).is_err());
/// # Ok::<(), bitstep::Error>(())
/// ```
pub struct State<'a, R: Rule, S> {
    steps: u64,
    scalars: ScalarState,
    slots: R::Slots<&'a mut [S]>,
    len: usize,
}

/// What numbers of this type are computed in.
type Scalar<S> = <<S as EagerFloat>::Compute as ComputeFloat>::Scalar;

impl<'a, R: Rule, S: EagerFloat + Plain> State<'a, R, S> {
    /// How many numbers of memory the state of a parameter of `len` numbers takes.
    #[must_use]
    pub fn numbers(rule: &R, len: usize) -> usize {
        len.saturating_mul(Self::mask(rule).count_ones() as usize)
    }

    /// State before the first step of a parameter of `len` numbers; what is in `memory` is written over.
    ///
    /// # Errors
    /// An invalid configuration, or memory that has not [as many numbers](Self::numbers) as are needed. Nothing is
    /// written then.
    pub fn new(rule: &R, len: usize, memory: &'a mut [S]) -> Result<Self, Error> {
        rule.check()?;
        ensure_len("memory", memory.len(), Self::numbers(rule, len))?;
        let (mask, mut rest) = (Self::mask(rule), memory);
        let slots = R::Slots::<&mut [S]>::from_fn(|slot| {
            let used = mask >> slot & 1 == 1;
            let (own, later) = core::mem::take(&mut rest)
                .split_at_mut_checked(if used { len } else { 0 })
                .unwrap_or_default();
            rest = later;
            if let SlotInit::Constant(x) = rule.slot_init(slot) {
                own.fill(S::from_f64(x));
            }
            own
        });
        Ok(State { steps: 0, scalars: rule.scalars(), slots, len })
    }

    fn mask(rule: &R) -> u32 {
        rule.active_slots(Scalar::<S>::DTYPE)
    }

    /// Updates so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The slots, under the names of [`Rule::SLOTS`]; empty where one is not in use.
    #[must_use]
    pub fn slots(&self) -> R::Slots<&[S]> {
        let views = self.slots.as_ref();
        R::Slots::<&[S]>::from_fn(|k| views.get(k).map_or(&[][..], |s| s))
    }

    /// The next update, at learning rate `lr`.
    ///
    /// # Errors
    /// Those of [`rule::step`](crate::rule::step). Nothing is written then.
    pub fn step(&mut self, rule: &R, lr: f64, param: &mut [S], grad: &[S]) -> Result<(), Error> {
        self.step_with(rule, &StepContext::new(0, lr), param, grad)
    }

    /// The same with whatever else a step may say; its number is counted here.
    ///
    /// # Errors
    /// Those of [`rule::step`](crate::rule::step). Nothing is written then.
    pub fn step_with(
        &mut self,
        rule: &R,
        step: &StepContext<'_>,
        param: &mut [S],
        grad: &[S],
    ) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        let mut views = self.slots.as_mut().iter_mut();
        let mut slots =
            R::Slots::<&mut [S]>::from_fn(|_| views.next().map_or(&mut [][..], |s| &mut **s));
        check_slices::<R, Scalar<S>, S, S, S>(rule, step, param, grad, &mut slots)?;
        let (shape, first) = ([self.len], self.steps == 0);
        let mut at = StepContext { is_first: first, shape: &shape, dtype: Some(S::DTYPE), ..*step };
        begin_single(rule, &mut at, true, &mut self.steps, &mut self.scalars);
        for (k, slot) in slots.as_mut().iter_mut().enumerate() {
            if first && rule.slot_init(k) == SlotInit::CopyParam && !slot.is_empty() {
                slot.copy_from_slice(param);
            }
        }
        let scalars = &mut self.scalars;
        step_slices::<R, Scalar<S>, S, S, S>(rule, &at, scalars, param, grad, slots);
        Ok(())
    }

    fn written(&self, param: Option<&[S]>, to: Option<&mut Sink<'_>>) -> usize {
        let mut to = Writer::new(KIND, to);
        to.list(R::ID.as_bytes());
        to.number(S::DTYPE as u64);
        to.number(self.len as u64);
        to.number(self.steps);
        to.floats(&self.scalars);
        match param {
            Some(param) => to.data(S::data(param)),
            None => to.list_of(self.len.saturating_mul(S::DTYPE.size())),
        }
        self.slots.as_ref().iter().filter(|s| !s.is_empty()).for_each(|s| to.data(S::data(s)));
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
    pub fn save(&self, param: &[S], to: &mut [u8]) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        copied(to, |to| self.written(Some(param), to))
    }

    /// Goes on from what [`save`](Self::save) wrote of a state that was made alike.
    ///
    /// # Errors
    /// A parameter of another length; or [`Error::is_saved`]: bytes that are damaged, of a later version, or of another
    /// rule, type or length. Nothing has changed then.
    pub fn load(&mut self, param: &mut [S], from: &[u8]) -> Result<(), Error> {
        ensure_len("param", param.len(), self.len)?;
        Reader::both(KIND, from, |from| {
            from.expect_bytes(R::ID.as_bytes(), "state of the same rule")?;
            from.expect("type", S::DTYPE as u64)?;
            from.expect("number of elements", self.len as u64)?;
            let (steps, scalars) = (from.number()?, from.floats()?);
            if from.puts {
                (self.steps, self.scalars) = (steps, scalars);
            }
            from.data(S::data_mut(param))?;
            for slot in self.slots.as_mut().iter_mut().filter(|s| !s.is_empty()) {
                from.data(S::data_mut(slot))?;
            }
            Ok(())
        })
    }
}
