//! Saving an optimizer's state to bytes, and loading it.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::{Buffer, Optimizer, OptimizerSpec};
use crate::error::Error;
use crate::rule::Mode;
use crate::state::saved::{Reader, Sink, Writer, copied};
use crate::storage::memory::filled;

/// The first 8 bytes of saved state.
const KIND: &[u8; 8] = b"bitstep\0";

impl OptimizerSpec {
    /// The spec's name in saved files: rule, compute policy and storage formats, without the hyper-parameters. It never
    /// changes.
    #[inline]
    #[must_use]
    pub fn id(&self) -> String {
        let (mut id, storage) = (String::new(), &self.storage);
        self.rule.id(&mut |part| {
            id.push_str(if id.is_empty() { "" } else { "/" });
            id.push_str(part);
        });
        let state = self.state_dtype.map_or("own", |dtype| dtype.id());
        let (compute, min_len, multiple) =
            (self.policy.id(), storage.min_len, storage.len_multiple);
        // Writing to a string does not fail.
        _ = write!(id, " {compute} {state} {} {min_len} {multiple}", storage.param);
        // Slots beyond the last encoded one are plain, and left out.
        let encoded =
            storage.slot_formats.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        for slot in storage.slot_formats.iter().take(encoded) {
            _ = match slot {
                Some(format) => write!(id, " {format}"),
                None => write!(id, " plain"),
            };
        }
        id
    }
}

impl Optimizer {
    /// The number of bytes that [`save`](Self::save) writes.
    #[inline]
    #[must_use]
    pub fn saved_len(&self) -> usize {
        self.write_to(None)
    }

    /// State, step counts and learning rates as bytes, the same on every machine. `docs/checkpoints.md` describes the
    /// format. Parameters and the other hyper-parameters are not included.
    ///
    /// # Errors
    /// [No memory](Error::OutOfMemory).
    ///
    /// ```
    /// use bitstep::{optimizer::ParamId, prelude::*};
    /// fn build() -> Result<(Optimizer, ParamId), Box<dyn core::error::Error>> {
    ///     let mut opt = Optimizer::new(registry::optimizer("adamw_bnb_8bit", Args::new())?)?;
    ///     let w = opt.add_param(&[64, 64], Dtype::F32)?;
    ///     Ok((opt, w))
    /// }
    /// let (mut opt, w) = build()?;
    /// let (mut weight, grad) = ([1.0f32; 4096], [0.5f32; 4096]);
    /// opt.step([(w, (&mut weight).into(), (&grad).into())])?;
    /// let (mut resumed, w) = build()?;
    /// resumed.load(&opt.save()?)?;
    /// assert_eq!(resumed.param(w).unwrap().slots, opt.param(w).unwrap().slots);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[inline]
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = filled("memory", 0, self.saved_len())?;
        self.save_into(&mut bytes)?;
        Ok(bytes)
    }

    /// [`save`](Self::save) into the caller's memory.
    ///
    /// # Errors
    /// `to` is not [`saved_len`](Self::saved_len) bytes long. Nothing is written then.
    #[inline]
    pub fn save_into(&self, to: &mut [u8]) -> Result<(), Error> {
        copied(to, |to| self.write_to(to))
    }

    /// Restores what [`save`](Self::save) wrote, from an optimizer whose groups have the same [ids](OptimizerSpec::id) and
    /// whose parameters have the same shapes and types. Hyper-parameters other than the learning rates stay as they are.
    ///
    /// # Errors
    /// [`Error::is_saved`]: bytes that are damaged, of a later version, or of another optimizer. Nothing is changed
    /// then.
    #[inline]
    pub fn load(&mut self, from: &[u8]) -> Result<(), Error> {
        self.load_named(from, &[])
    }

    /// [`load`](Self::load) that also reads version 2, in which `names` identify the groups' specs: one per group.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[inline]
    pub fn load_named(&mut self, from: &[u8], names: &[&str]) -> Result<(), Error> {
        Reader::validate_then_apply(KIND, from, |from| self.read(from, names))
    }

    #[inline]
    fn write_to(&self, to: Option<&mut Sink<'_>>) -> usize {
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
                    (Buffer::Encoded(encoded), _) => {
                        encoded.raws().iter().for_each(|raw| raw.save(&mut to))
                    }
                    (_, data) => data.into_iter().for_each(|data| to.data(data)),
                }
            }
            p.correction.iter().for_each(|correction| correction.save(&mut to));
        }
        to.end()
    }

    #[inline]
    fn read(&mut self, from: &mut Reader<'_>, names: &[&str]) -> Result<(), Error> {
        let mode = if from.read_bool("mode")? { Mode::Eval } else { Mode::Train };
        from.expect("number of groups", self.groups.len() as u64)?;
        for (i, group) in self.groups.iter_mut().enumerate() {
            let (id, name) = (group.spec.id(), names.get(i).copied().unwrap_or_default());
            let here = if from.version == 2 { name } else { &id };
            from.expect_bytes(
                here.as_bytes(),
                "groups of the same rules, compute policies and storage",
            )?;
            let (steps, lr, scalars) = (from.number()?, from.float()?, from.floats()?);
            if from.is_applying {
                (group.steps, group.lr, group.scalars) = (steps, lr, scalars);
            }
        }
        from.expect("number of parameters", self.params.len() as u64)?;
        for p in &mut self.params {
            from.expect("group of a parameter", p.group.0 as u64)?;
            from.expect("type of a parameter", p.dtype as u64)?;
            from.expect("number of dimensions of a parameter", p.shape.len() as u64)?;
            p.shape.iter().try_for_each(|&d| from.expect("dimension of a parameter", d as u64))?;
            let (steps, initialized) =
                (from.number()?, from.read_bool("whether a parameter was stepped")?);
            let (scalars, seed) = (from.floats()?, from.number()?);
            if from.is_applying {
                (p.steps, p.is_initialized, p.scalars, p.seed) =
                    (steps, initialized, scalars, seed);
            }
            for slot in &mut p.slots {
                match slot {
                    Buffer::Encoded(encoded) => {
                        encoded.raws_mut().into_iter().try_for_each(|raw| raw.load(from))?;
                    }
                    plain => from.data(plain.data_mut())?,
                }
            }
            p.correction.iter_mut().try_for_each(|correction| correction.load(from))?;
        }
        if from.is_applying {
            self.mode = mode;
        }
        Ok(())
    }
}
