use core::f64::consts::PI;

use super::Schedule;
use crate::Error;
use crate::accurate::cos;
use crate::args::{Fields, Hyper};

/// Once up to `max_lr` and down again, far below where it began.
///
/// # Formula
/// From max_lr / div_factor to max_lr until step pct_start·n − 1, then to max_lr / div_factor / final_div_factor until
/// step n − 1; with `three_phase` first back to where it began, until step 2·pct_start·n − 2. Each phase is a line or
/// half a cosine; n is `total_steps` or `epochs` · `steps_per_epoch`.
///
/// # Source
/// `torch.optim.lr_scheduler.OneCycleLR`. The group's own rate does not count. The reference takes step n, beyond the
/// end of the last phase, and refuses any later one. It cycles momentum the other way: [`momentum`](Self::momentum).
///
/// # Errors
/// No number of steps, or 0; `pct_start` outside of [0, 1]; a first phase that ends at step 0, by whose length the
/// reference divides.
///
/// # Example
/// ```
/// use bitstep::schedule::{Anneal, Schedule, TorchOneCycle};
/// let s = TorchOneCycle {
///     max_lr: 1.0, total_steps: Some(10), pct_start: 0.5, anneal_strategy: Anneal::Linear,
///     div_factor: 2.0, final_div_factor: 2.0, ..Default::default()
/// };
/// assert_eq!([0, 2, 4, 9].map(|t| s.lr(0.0, t)), [0.5, 0.75, 1.0, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchOneCycle {
    /// The highest rate.
    pub max_lr: f64,
    /// Steps in all.
    pub total_steps: Option<u64>,
    /// Without `total_steps`: epochs.
    pub epochs: Option<u64>,
    /// Without `total_steps`: steps in each.
    pub steps_per_epoch: Option<u64>,
    /// The share of steps on the way up.
    pub pct_start: f64,
    /// The shape of a phase.
    pub anneal_strategy: Anneal,
    /// Whether momentum is cycled too.
    pub cycle_momentum: bool,
    /// The lower momentum.
    pub base_momentum: f64,
    /// The upper momentum.
    pub max_momentum: f64,
    /// How far below the highest rate the first one is.
    pub div_factor: f64,
    /// How far below the first rate the last one is.
    pub final_div_factor: f64,
    /// Whether the way down is in two phases.
    pub three_phase: bool,
}

/// The shape of a phase of [`TorchOneCycle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine.
    Cos,
    /// A line.
    Linear,
}

impl Default for TorchOneCycle {
    fn default() -> Self {
        TorchOneCycle {
            max_lr: 1e-2,
            total_steps: None,
            epochs: None,
            steps_per_epoch: None,
            pct_start: 0.3,
            anneal_strategy: Anneal::Cos,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }
}

impl Hyper for TorchOneCycle {
    fn fields(&mut self, f: &mut dyn Fields) {
        f.f64("max_lr", &mut self.max_lr);
        f.opt_u64("total_steps", &mut self.total_steps);
        f.opt_u64("epochs", &mut self.epochs);
        f.opt_u64("steps_per_epoch", &mut self.steps_per_epoch);
        f.f64("pct_start", &mut self.pct_start);
        let shapes = &[("cos", Anneal::Cos), ("linear", Anneal::Linear)];
        f.choice("anneal_strategy", &mut self.anneal_strategy, shapes);
        f.bool("cycle_momentum", &mut self.cycle_momentum);
        f.f64("base_momentum", &mut self.base_momentum);
        f.f64("max_momentum", &mut self.max_momentum);
        f.f64("div_factor", &mut self.div_factor);
        f.f64("final_div_factor", &mut self.final_div_factor);
        f.bool("three_phase", &mut self.three_phase);
        f.ignored("verbose");
    }
}

impl TorchOneCycle {
    fn total(&self) -> Option<u64> {
        let product = || Some(self.epochs?.saturating_mul(self.steps_per_epoch?));
        self.total_steps.or_else(product)
    }

    /// Between the `low` and the `high` value of the first phase and the `end` of the last.
    fn anneal(&self, step: u64, low: f64, high: f64, end: f64) -> f64 {
        let (t, n) = (step as f64, self.total().unwrap_or(0) as f64);
        let up = self.pct_start * n - 1.0;
        let down = 2.0 * self.pct_start * n - 2.0;
        let (from, to, start, stop) = if t <= up {
            (low, high, 0.0, up)
        } else if !self.three_phase {
            (high, end, up, n - 1.0)
        } else if t <= down {
            (high, low, up, down)
        } else {
            (low, end, down, n - 1.0)
        };
        let pct = (t - start) / (stop - start);
        match self.anneal_strategy {
            Anneal::Cos => to + (from - to) / 2.0 * (cos(PI * pct) + 1.0),
            Anneal::Linear => (to - from) * pct + from,
        }
    }

    /// The momentum (or β₁) after `step` scheduler steps; `None` if it is not cycled.
    #[must_use]
    pub fn momentum(&self, step: u64) -> Option<f64> {
        let (low, high) = (self.base_momentum, self.max_momentum);
        self.cycle_momentum.then(|| self.anneal(step, high, low, high))
    }
}

impl Schedule for TorchOneCycle {
    fn check(&self) -> Result<(), Error> {
        let wanted = "total_steps, or epochs and steps_per_epoch";
        let total = self.total().ok_or(Error::Invalid { argument: "total_steps", wanted })? as f64;
        Error::range(total > 0.0, "total_steps", total, "total_steps >= 1")?;
        let pct = self.pct_start;
        Error::unit("pct_start", pct)?;
        Error::range(pct * total != 1.0, "pct_start", pct, "pct_start * total_steps != 1")
    }

    fn lr(&self, _: f64, step: u64) -> f64 {
        let first = self.max_lr / self.div_factor;
        self.anneal(step, first, self.max_lr, first / self.final_div_factor)
    }

    fn initial_lr(&self, _: f64, _: bool) -> f64 {
        self.max_lr / self.div_factor
    }

    fn last_step(&self) -> Option<u64> {
        self.total()
    }
}
