//! Saving the state of a [`Scheduler`] to bytes, and loading it.

use alloc::vec::Vec;

use super::{Scheduler, SchedulerState};
use crate::error::Error;
use crate::state::saved::{Reader, Sink, Writer, copied};
use crate::storage::memory::filled;

/// The tag at the start of saved state.
const KIND: &[u8; 8] = b"bitstes\0";

impl Scheduler {
    /// The number of bytes that [`save`](Self::save) writes.
    #[inline]
    #[must_use]
    pub fn saved_len(&self) -> usize {
        self.written(None)
    }

    /// The state as little-endian bytes, the same on every machine; `docs/checkpoints.md` describes the format.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
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
        copied(to, |to| self.written(to))
    }

    /// Restores the state that [`save`](Self::save) wrote of a schedule built in the same way.
    ///
    /// # Errors
    /// [`Error::is_saved`]: bytes that are damaged, of a later version, or of another schedule. Nothing is changed
    /// then.
    ///
    /// ```
    /// use bitstep::{hyper::Args, schedule};
    /// let mut cosine = schedule::build("cosine", &Args::parse("lr=0.5, num_warmup_steps=2, num_training_steps=20")?)?;
    /// let mut again = cosine.clone();
    /// cosine.step(&[])?;
    /// again.load(&cosine.save()?)?;
    /// assert_eq!(again.step(&[])?, cosine.step(&[])?);
    /// # Ok::<(), bitstep::hyper::ArgError>(())
    /// ```
    #[inline]
    pub fn load(&mut self, from: &[u8]) -> Result<(), Error> {
        let mut state = self.state().clone();
        Reader::validate_then_apply(KIND, from, |from| {
            from.expect_bytes(self.name().as_bytes(), "a schedule of the same name")?;
            read(&mut state, from)
        })?;
        let expected = "a state of this schedule";
        let fits = self.restore(state);
        fits.map_err(|_| Error::InvalidArgument { argument: Error::SAVED, expected })
    }

    /// One word per field of the state, in the order of the fields. State that the schedule does not have is left out;
    /// the reader knows which from its own schedule.
    #[inline]
    fn written(&self, to: Option<&mut Sink<'_>>) -> usize {
        let (state, mut to) = (self.state(), Writer::new(KIND, to));
        to.list(self.name().as_bytes());
        to.number(state.lrs.len() as u64);
        to.number(state.step);
        to.floats(&state.lrs);
        if let Some(p) = &state.plateau {
            to.floats(&[p.best]);
            to.number(p.num_bad_epochs);
            to.number(p.cooldown_counter);
        }
        if let Some((g, window)) = &state.greedy {
            to.floats(&[g.best, g.sum]);
            for n in [g.num_bad_epochs, g.num_good_epochs, g.cooldown_counter, g.warmup_counter] {
                to.number(n);
            }
            to.number(g.reset_start as u64);
            to.number(g.len as u64);
            to.number(g.at as u64);
            to.number(window.len() as u64);
            to.floats(window);
        }
        for a in &state.adafactor {
            to.floats(&[a.lr]);
            to.number(a.step);
            to.number(u64::from(a.f32));
        }
        to.end()
    }
}

/// Reads into `state`, a copy: the caller uses it only if all could be read.
#[inline]
fn read(state: &mut SchedulerState, from: &mut Reader<'_>) -> Result<(), Error> {
    // A value too large for a count makes the check of the whole state fail.
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    from.expect("number of groups", state.lrs.len() as u64)?;
    state.step = from.number()?;
    for lr in &mut state.lrs {
        *lr = from.float()?;
    }
    if let Some(p) = &mut state.plateau {
        p.best = from.float()?;
        p.num_bad_epochs = from.number()?;
        p.cooldown_counter = from.number()?;
    }
    if let Some((g, window)) = &mut state.greedy {
        [g.best, g.sum] = from.floats()?;
        for n in [
            &mut g.num_bad_epochs,
            &mut g.num_good_epochs,
            &mut g.cooldown_counter,
            &mut g.warmup_counter,
        ] {
            *n = from.number()?;
        }
        g.reset_start = from.number()? as i64;
        (g.len, g.at) = (count(from.number()?), count(from.number()?));
        let len = from.count_of_words("length of the window")?;
        *window = filled("window", 0.0, len)?;
        for x in window {
            *x = from.float()?;
        }
    }
    for a in &mut state.adafactor {
        a.lr = from.float()?;
        a.step = from.number()?;
        a.f32 = from.read_bool("whether a rate is an f32")?;
    }
    Ok(())
}
