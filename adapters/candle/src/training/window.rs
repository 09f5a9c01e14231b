//! Accumulation of micro-batches into steps.

use bitstep::gradient::GradientAccumulator;
use candle_core::{Error, Result, Tensor};

use super::{Outcome, Training};
use crate::cpu;

impl Training {
    /// Sets how many micro-batches make a step, and whether it uses the mean or the sum of their
    /// gradients. Discards a window that is not full.
    pub fn set_accumulation(&mut self, accumulation: GradientAccumulator) {
        self.accumulation = accumulation;
        self.begin_window();
    }

    /// Sets the number of micro-batches of the next window only, such as the shorter last one of an
    /// epoch.
    ///
    /// # Errors
    /// 0, or a window that has begun.
    pub fn expect(&mut self, micro_batches: u64) -> Result<()> {
        self.accumulation.window(micro_batches).map_err(Error::wrap)?;
        self.labels.clear();
        Ok(())
    }

    /// Sets the number of labels in each micro-batch of the next window. The gradients, of losses
    /// that are means over those labels, are weighted by it. Trainer does so for models that take
    /// `num_items_in_batch` (nearly all of Transformers' own), to which it passes the number of
    /// labels (other than −100) of the window; where the counts differ, this is not the mean over
    /// micro-batches. Applies to one window.
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

    /// The factor of the next micro-batch's gradients.
    fn weight(&self) -> f64 {
        let sum: f64 = self.labels.iter().map(|&n| n as f64).sum();
        match self.labels.get(self.accumulation.position() as usize) {
            Some(&n) => n as f64 / sum,
            None => self.accumulation.weight(),
        }
    }

    /// Discards the micro-batches of a window that is not full.
    pub(super) fn begin_window(&mut self) {
        self.accumulation.restart();
        self.totals.fill(None);
        self.labels.clear();
    }

    /// The backward pass of a micro-batch and, once the window is full, a step.
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
        // candle allocates a gradient for each variable, which no one else holds.
        self.run(grads, &[], true)
    }

    /// [`backward`](Self::backward) with gradients computed elsewhere: one or `None` for each
    /// variable, in the optimizer's order. `extra` are extra arguments of the rules. The tensors are
    /// not modified, and several variables may share one.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn micro_batch(
        &mut self,
        grads: Vec<Option<Tensor>>,
        extra: &[(&str, f64)],
    ) -> Result<Outcome> {
        self.run(grads, extra, false)
    }

    /// `own`: whether no one else holds the gradients, so that they may be modified.
    fn run(
        &mut self,
        grads: Vec<Option<Tensor>>,
        extra: &[(&str, f64)],
        mut own: bool,
    ) -> Result<Outcome> {
        let mut grads = self.optimizer.check(grads)?;
        let weight = self.weight();
        if weight == 0.0 {
            // Without labels the loss is a mean of nothing, NaN, and must not count.
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
        self.optimizer.step_with(grads, extra)?;
        if self.accumulation.position() > 0 {
            return Ok(Outcome::Moved);
        }
        self.step_schedules(None)?;
        Ok(Outcome::Stepped(norm))
    }

    /// Adds a micro-batch's gradients to the totals of its window.
    fn accumulate(&mut self, grads: &[Option<Tensor>], weight: f64) -> Result<()> {
        // Variables may have been added since.
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

/// Copies gradients that others may hold if it `matters`; returns whether they may be modified.
fn own_and(own: bool, grads: &mut [Option<Tensor>], matters: bool) -> Result<bool> {
    if matters && !own {
        cpu::own(grads)?;
    }
    Ok(own || matters)
}
