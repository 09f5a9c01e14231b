//! An optimizer's state as bytes, and back.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::{Buffer, Optimizer, OptimizerSpec};
use crate::error::Error;
use crate::rule::Mode;
use crate::state::saved::{Reader, Sink, Writer, copied};
use crate::storage::memory::filled;

/// What saved state begins with.
const KIND: &[u8; 8] = b"bitstep\0";

impl OptimizerSpec {
    /// What saved files call it, hyper-parameters left out: the rule, its arithmetic and its storage, in words that
    /// never change.
    #[must_use]
    pub fn id(&self) -> String {
        let (mut id, coding) = (String::new(), &self.storage);
        self.rule.id(&mut |part| {
            id.push_str(if id.is_empty() { "" } else { "/" });
            id.push_str(part);
        });
        let state = self.state_dtype.map_or("own", |dtype| dtype.id());
        let (compute, min_len, multiple) = (self.policy.id(), coding.min_len, coding.len_multiple);
        // Writing to a string does not fail.
        _ = write!(id, " {compute} {state} {} {min_len} {multiple}", coding.param);
        // What the list does not reach is plain.
        let coded =
            coding.slot_formats.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        for slot in coding.slot_formats.iter().take(coded) {
            _ = match slot {
                Some(format) => write!(id, " {format}"),
                None => write!(id, " plain"),
            };
        }
        id
    }
}

impl Optimizer {
    /// How many bytes [`save`](Self::save) writes.
    #[must_use]
    pub fn saved_len(&self) -> usize {
        self.written(None)
    }

    /// All state, counters and learning rates, as bytes that are the same on every machine: `docs/checkpoints.md`
    /// describes them. Parameters and hyper-parameters are not among them.
    ///
    /// # Errors
    /// No memory for them.
    ///
    /// ```
    /// use bitstep::{hyper::Args, registry, optimizer::{Optimizer, Param}, float::Dtype, storage::{Data, DataMut}};
    /// let made = || {
    ///     let mut optimizer = Optimizer::new();
    ///     let group = optimizer.add_group(registry::optimizer("adamw_bnb_8bit", &Args::new())?)?;
    ///     optimizer.add_param(group, &[64, 64], Dtype::F32)?;
    ///     Ok::<_, Box<dyn core::error::Error>>(optimizer)
    /// };
    /// let (mut weight, grad) = ([1.0f32; 4096], [0.5f32; 4096]);
    /// let mut optimizer = made()?;
    /// optimizer.step(&mut [Param { value: DataMut::F32(&mut weight), grad: Some(Data::F32(&grad)) }], &[])?;
    /// let mut again = made()?;
    /// again.load(&optimizer.save()?)?;
    /// assert_eq!(again.params()[0].slots, optimizer.params()[0].slots);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = filled("memory", 0, self.saved_len())?;
        self.save_into(&mut bytes)?;
        Ok(bytes)
    }

    /// [`save`](Self::save) to memory of the caller's.
    ///
    /// # Errors
    /// Not [`saved_len`](Self::saved_len) bytes. Nothing is written then.
    pub fn save_into(&self, to: &mut [u8]) -> Result<(), Error> {
        copied(to, |to| self.written(to))
    }

    /// Goes on from what [`save`](Self::save) wrote of an optimizer with groups of the same [recipes](OptimizerSpec::id) and
    /// parameters of the same shapes and types. Hyper-parameters other than the rates stay those of here.
    ///
    /// # Errors
    /// [`Error::is_saved`]: bytes that are damaged, of a later version, or of another optimizer. Nothing has changed
    /// then.
    pub fn load(&mut self, from: &[u8]) -> Result<(), Error> {
        self.load_named(from, &[])
    }

    /// The same; also from what version 2 wrote, which called groups by `names`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_named(&mut self, from: &[u8], names: &[&str]) -> Result<(), Error> {
        Reader::both(KIND, from, |from| self.read(from, names))
    }

    fn written(&self, to: Option<&mut Sink<'_>>) -> usize {
        let mut to = Writer::new(KIND, to);
        to.number(u64::from(self.mode == Mode::Eval));
        to.number(self.groups.len() as u64);
        for group in &self.groups {
            to.list(group.spec.id().as_bytes());
            to.number(group.steps);
            to.floats(&[group.lr]);
            to.floats(&group.scalars);
        }
        to.number(self.params.len() as u64);
        for p in &self.params {
            to.number(p.group.0 as u64);
            to.number(p.dtype as u64);
            to.number(p.shape.len() as u64);
            p.shape.iter().for_each(|&d| to.number(d as u64));
            to.number(p.steps);
            to.number(u64::from(p.is_initialized));
            to.floats(&p.scalars);
            to.number(p.seed);
            for slot in &p.slots {
                match (slot, slot.data()) {
                    (Buffer::Encoded(coded), _) => {
                        coded.raws().iter().for_each(|raw| raw.save(&mut to))
                    }
                    (_, data) => data.into_iter().for_each(|data| to.data(data)),
                }
            }
            p.correction.iter().for_each(|companion| companion.save(&mut to));
        }
        to.end()
    }

    fn read(&mut self, from: &mut Reader<'_>, names: &[&str]) -> Result<(), Error> {
        let mode = if from.truth("mode")? { Mode::Eval } else { Mode::Train };
        from.expect("number of groups", self.groups.len() as u64)?;
        for (i, group) in self.groups.iter_mut().enumerate() {
            let (id, name) = (group.spec.id(), names.get(i).copied().unwrap_or_default());
            let here = if from.version == 2 { name } else { &id };
            from.expect_bytes(here.as_bytes(), "groups of the same rules, arithmetic and storage")?;
            let (steps, lr, scalars) = (from.number()?, from.float()?, from.floats()?);
            if from.puts {
                (group.steps, group.lr, group.scalars) = (steps, lr, scalars);
            }
        }
        from.expect("number of parameters", self.params.len() as u64)?;
        for p in &mut self.params {
            from.expect("group of a parameter", p.group.0 as u64)?;
            from.expect("type of a parameter", p.dtype as u64)?;
            from.expect("number of dimensions of a parameter", p.shape.len() as u64)?;
            p.shape.iter().try_for_each(|&d| from.expect("dimension of a parameter", d as u64))?;
            let (steps, started) = (from.number()?, from.truth("whether a parameter was stepped")?);
            let (scalars, seed) = (from.floats()?, from.number()?);
            if from.puts {
                (p.steps, p.is_initialized, p.scalars, p.seed) = (steps, started, scalars, seed);
            }
            for slot in &mut p.slots {
                match slot {
                    Buffer::Encoded(coded) => {
                        coded.raws_mut().into_iter().try_for_each(|raw| raw.load(from))?;
                    }
                    plain => from.data(plain.data_mut())?,
                }
            }
            p.correction.iter_mut().try_for_each(|companion| companion.load(from))?;
        }
        if from.puts {
            self.mode = mode;
        }
        Ok(())
    }
}
