//! From micro-batches to steps.

use bitstep::gradient::GradientAccumulator;
use candle_core::{Error, Result, Tensor};

use super::{Outcome, Training};
use crate::cpu;

impl Training {
    /// Steps after so many micro-batches, with the mean or the sum of their gradients.
    pub fn set_accumulation(&mut self, accumulation: GradientAccumulator) {
        self.accumulation = accumulation;
        self.begin_window();
    }

    /// Announces that the window about to begin has only this many micro-batches, as the last
    /// one of an epoch may. Those after it are as long as ever.
    ///
    /// # Errors
    /// 0, or a window that has begun.
    pub fn expect(&mut self, micro_batches: u64) -> Result<()> {
        self.accumulation.window(micro_batches).map_err(Error::wrap)?;
        self.labels.clear();
        Ok(())
    }

    /// Announces the micro-batches of the window about to begin by the number of labels in each:
    /// their gradients, of losses that are means over those labels, are weighted by it. That is
    /// what Trainer does for models that take `num_items_in_batch` (nearly all of Transformers'
    /// own), which it tells how many labels (other than −100) the window has; the mean over
    /// micro-batches is another number wherever they differ. Good for one window.
    ///
    /// # Errors
    /// No micro-batch, no label in any, or a window that has begun.
    pub fn expect_labels(&mut self, labels: &[u64]) -> Result<()> {
        if labels.iter().all(|&n| n == 0) {
            return Err(Error::msg(format!("labels of {labels:?}: wanted at least one label")));
        }
        self.expect(labels.len() as u64)?;
        self.labels = labels.to_vec();
        Ok(())
    }

    /// By what the next micro-batch's gradients are multiplied.
    fn weight(&self) -> f64 {
        let sum: f64 = self.labels.iter().map(|&n| n as f64).sum();
        match self.labels.get(self.accumulation.position() as usize) {
            Some(&n) => n as f64 / sum,
            None => self.accumulation.weight(),
        }
    }

    /// Forgets the micro-batches of a window that is not full.
    pub(super) fn begin_window(&mut self) {
        self.accumulation.restart();
        self.totals.fill(None);
        self.labels.clear();
    }

    /// The backward pass of a micro-batch and, when enough of them are in, a step.
    ///
    /// # Errors
    /// Those of candle; a schedule past its end.
    pub fn backward(&mut self, loss: &Tensor) -> Result<Outcome> {
        let mut store = match &self.loss_scale {
            Some(scale) => loss.affine(scale.scale, 0.0)?.backward()?,
            None => loss.backward()?,
        };
        let grads = self.optimizer.vars().iter().map(|(_, var)| store.remove(var)).collect();
        drop(store);
        // candle makes a gradient for each variable.
        self.run(grads, &[], true)
    }

    /// The same for gradients that come from elsewhere, one or none for each variable in the
    /// optimizer's order; `given` are numbers from outside. The gradients themselves stay as they
    /// are, and one tensor may be that of several variables.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn micro_batch(
        &mut self,
        grads: Vec<Option<Tensor>>,
        given: &[(&str, f64)],
    ) -> Result<Outcome> {
        self.run(grads, given, false)
    }

    /// `own`: whether nobody else holds the gradients.
    fn run(
        &mut self,
        grads: Vec<Option<Tensor>>,
        given: &[(&str, f64)],
        mut own: bool,
    ) -> Result<Outcome> {
        let mut grads = self.optimizer.check(grads)?;
        let weight = self.weight();
        if weight == 0.0 {
            // Without labels there is no loss to speak of: its mean is NaN.
            for grad in grads.iter_mut().flatten() {
                *grad = grad.zeros_like()?;
            }
            own = true;
        }
        let waits = !self.every_micro_batch && !self.accumulation.is_single();
        if waits {
            self.accumulate(&grads, weight)?;
        } else if weight != 1.0 {
            own = own_and(own, &mut grads, true)?;
            cpu::scale(&grads, weight)?;
        }
        self.accumulation.advance();
        if waits {
            if !self.accumulation.is_complete() {
                return Ok(Outcome::Accumulated);
            }
            grads = self.totals.iter_mut().map(Option::take).collect();
            own = true;
        }
        if self.accumulation.position() == 0 {
            self.labels.clear();
        }
        if let Some(scale) = &mut self.loss_scale {
            own = own_and(own, &mut grads, true)?;
            let finite = cpu::unscale(&grads, scale)?;
            scale.update(finite);
            if !finite {
                return Ok(Outcome::Skipped);
            }
        }
        let mut norm = None;
        if let Some(clip) = &self.clip {
            let (factor, total) = cpu::clip_factor(&grads, clip)?;
            own_and(own, &mut grads, factor != 1.0)?;
            if factor != 1.0 {
                cpu::scale(&grads, factor)?;
            }
            norm = Some(total);
        }
        self.optimizer.step_with(grads, given)?;
        if self.accumulation.position() > 0 {
            return Ok(Outcome::Moved);
        }
        self.step_schedules(None)?;
        Ok(Outcome::Stepped(norm))
    }

    /// Adds a micro-batch's gradients to those of its window.
    fn accumulate(&mut self, grads: &[Option<Tensor>], weight: f64) -> Result<()> {
        // Groups may have been added since.
        self.totals.resize(grads.len(), None);
        for (total, grad) in self.totals.iter_mut().zip(grads) {
            let Some(grad) = grad else { continue };
            let total = match total {
                Some(total) => total,
                None => total.insert(grad.zeros_like()?),
            };
            cpu::accumulate(total, grad, &self.accumulation, weight)?;
        }
        Ok(())
    }
}

/// Makes the gradients one's own where it `matters`; whether they are then.
fn own_and(own: bool, grads: &mut [Option<Tensor>], matters: bool) -> Result<bool> {
    if matters && !own {
        cpu::own(grads)?;
    }
    Ok(own || matters)
}
