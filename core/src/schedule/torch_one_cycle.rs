use crate::error::{ensure_range, ensure_unit};
use core::f64::consts::PI;

use super::{Schedule, ScheduleFacts, ScheduleFloat};
use crate::Error;
use crate::hyper::{FieldVisitor, HyperParams};

/// One rise to `max_lr`, then a fall far below the rate at the start.
///
/// # Formula
/// From max_lr / div_factor to max_lr until step pct_start·n − 1, then to max_lr / div_factor / final_div_factor until
/// step n − 1; with `three_phase` back to max_lr / div_factor in between, until step 2·pct_start·n − 2. Each phase is
/// linear or half a cosine; n is `total_steps` or `epochs` · `steps_per_epoch`.
///
/// # Source
/// `torch.optim.lr_scheduler.OneCycleLR`. The group's own rate is not used. The reference makes step n, beyond the end of
/// the last phase (unless that phase has length 0, by which it would divide), and refuses any later one. It cycles
/// momentum in the opposite direction: [`momentum`](super::ScheduleFacts::momentum).
///
/// # Errors
/// No number of steps, or 0; `pct_start` outside of [0, 1]; a first phase that ends at step 0, by whose length the
/// reference divides, as it does by `div_factor` and `final_div_factor`: neither may be 0.
///
/// # Example
/// ```
/// use bitstep::schedule::{Anneal, Schedule, TorchOneCycle};
/// let s = TorchOneCycle {
///     max_lr: 1.0, total_steps: Some(10), pct_start: 0.5, anneal_strategy: Anneal::Linear,
///     div_factor: 2.0, final_div_factor: 2.0, ..TorchOneCycle::DEFAULT
/// };
/// assert_eq!([0, 2, 4, 9].map(|t| s.lr(0.0, t)), [0.5, 0.75, 1.0, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchOneCycle {
    /// The highest rate.
    pub max_lr: f64,
    /// The number of steps.
    pub total_steps: Option<u64>,
    /// Without `total_steps`: the number of epochs.
    pub epochs: Option<u64>,
    /// Without `total_steps`: the number of steps per epoch.
    pub steps_per_epoch: Option<u64>,
    /// The fraction of the steps in which the rate rises.
    pub pct_start: f64,
    /// The shape of a phase.
    pub anneal_strategy: Anneal,
    /// Whether momentum is cycled too.
    pub cycle_momentum: bool,
    /// The lower momentum.
    pub base_momentum: f64,
    /// The upper momentum.
    pub max_momentum: f64,
    /// The highest rate divided by the first one.
    pub div_factor: f64,
    /// The first rate divided by the last one.
    pub final_div_factor: f64,
    /// Whether the fall has two phases.
    pub three_phase: bool,
}

/// The shape of a phase of [`TorchOneCycle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine.
    Cos,
    /// A straight line.
    Linear,
}

impl TorchOneCycle {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchOneCycle {
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
    };
}

impl Default for TorchOneCycle {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchOneCycle {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
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

    fn required(&self) -> &'static [&'static str] {
        &["max_lr"]
    }
}

impl TorchOneCycle {
    fn total(&self) -> Option<u64> {
        let product = || Some(self.epochs?.saturating_mul(self.steps_per_epoch?));
        self.total_steps.or_else(product)
    }

    /// The end of the first phase, and that of the second-to-last phase, in steps.
    fn ends<F: ScheduleFloat>(&self) -> (F, F) {
        let n = F::count(self.total().unwrap_or(0));
        let [two, pct_start] = [2.0, self.pct_start].map(F::of);
        let up = pct_start * n - F::ONE;
        (up, if self.three_phase { two * pct_start * n - two } else { up })
    }

    /// The value at a step: from `low` to `high` in the first phase, and to `end` in the last.
    fn anneal<F: ScheduleFloat>(&self, step: u64, low: F, high: F, end: F) -> F {
        let (t, last) = (F::count(step), F::count(self.total().unwrap_or(0)) - F::ONE);
        let (up, down) = self.ends();
        let (from, to, start, stop) = if t <= up {
            (low, high, F::ZERO, up)
        } else if !self.three_phase {
            (high, end, up, last)
        } else if t <= down {
            (high, low, up, down)
        } else {
            (low, end, down, last)
        };
        let pct = (t - start) / (stop - start);
        match self.anneal_strategy {
            Anneal::Cos => {
                let [two, pi] = [2.0, PI].map(F::of);
                to + (from - to) / two * ((pi * pct).cos() + F::ONE)
            }
            Anneal::Linear => (to - from) * pct + from,
        }
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchOneCycle {
    fn lr(&self, _: F, step: u64) -> F {
        let max = F::of(self.max_lr);
        let first = max / F::of(self.div_factor);
        self.anneal(step, first, max, first / F::of(self.final_div_factor))
    }

    fn initial_lr(&self, _: F, _: bool) -> F {
        F::of(self.max_lr) / F::of(self.div_factor)
    }
}

impl ScheduleFacts for TorchOneCycle {
    fn check(&self) -> Result<(), Error> {
        let expected = "total_steps, or epochs and steps_per_epoch";
        let total =
            self.total().ok_or(Error::InvalidArgument { argument: "total_steps", expected })?
                as f64;
        if self.total_steps.is_none() {
            ensure_range(self.epochs != Some(0), "epochs", 0.0, "epochs >= 1")?;
            let steps = self.steps_per_epoch;
            ensure_range(steps != Some(0), "steps_per_epoch", 0.0, "steps_per_epoch >= 1")?;
        }
        ensure_range(total > 0.0, "total_steps", total, "total_steps >= 1")?;
        let (first, last) = (self.div_factor, self.final_div_factor);
        ensure_range(first != 0.0, "div_factor", first, "div_factor != 0")?;
        ensure_range(last != 0.0, "final_div_factor", last, "final_div_factor != 0")?;
        let pct = self.pct_start;
        ensure_unit("pct_start", pct)?;
        ensure_range(pct * total != 1.0, "pct_start", pct, "pct_start * total_steps != 1")
    }

    fn last_step(&self) -> Option<u64> {
        let total = self.total()?;
        let (_, before) = self.ends::<f64>();
        if before == total as f64 - 1.0 { total.checked_sub(1) } else { Some(total) }
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        let (low, high) = (self.base_momentum, self.max_momentum);
        self.cycle_momentum.then(|| self.anneal(step, high, low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;
    use crate::schedule::GroupScheduler;

    /// Phases of a line: 0 to 4 from ½ to 1, 4 to 9 down to ¼.
    const LINES: TorchOneCycle = TorchOneCycle {
        max_lr: 1.0,
        total_steps: Some(10),
        epochs: None,
        steps_per_epoch: None,
        pct_start: 0.5,
        anneal_strategy: Anneal::Linear,
        cycle_momentum: true,
        base_momentum: 0.5,
        max_momentum: 1.0,
        div_factor: 2.0,
        final_div_factor: 2.0,
        three_phase: false,
    };

    #[test]
    fn rate_follows_the_formula() {
        // (1 − ½) · 2/4 + ½; the top; the last step: (¼ − 1) · 5/5 + 1
        assert_eq!([0, 2, 4, 9].map(|t| LINES.lr(9.0, t)), [0.5, 0.75, 1.0, 0.25]);
        // beyond the last phase: (¼ − 1) · 6/5 + 1, the sum of −0.9 and 1
        assert!((LINES.lr(9.0_f64, 10) - 0.1).abs() <= f64::EPSILON);
    }

    #[test]
    fn rate_along_cosines_follows_the_formula() {
        let s = TorchOneCycle { anneal_strategy: Anneal::Cos, ..LINES };
        // 1 + (½ − 1)/2 · (1 + cos ½π); the ends as with lines
        assert_eq!([0, 2, 4, 9].map(|t| s.lr(9.0, t)), [0.5, 0.75, 1.0, 0.25]);
        // 1 − ¼ (1 + √½)
        assert_near(s.lr(9.0, 1), 0.573_223_304_703_363_1);
    }

    #[test]
    fn three_phases_come_back_to_the_start_first() {
        let s = TorchOneCycle { three_phase: true, ..LINES };
        // 1 at 4; (½ − 1) · 2/4 + 1 at 6; ½ at 8; ¼ at 9
        assert_eq!([2, 4, 6, 8, 9].map(|t| s.lr(9.0, t)), [0.75, 1.0, 0.75, 0.5, 0.25]);
    }

    #[test]
    fn momentum_goes_the_other_way() {
        let want = [1.0, 0.75, 0.5, 1.0].map(Some);
        assert_eq!([0, 2, 4, 9].map(|t| LINES.momentum(t)), want);
        let s = TorchOneCycle { three_phase: true, ..LINES };
        // up again by 8, then held
        assert_eq!([6, 8, 9].map(|t| s.momentum(t)), [0.75, 1.0, 1.0].map(Some));
        assert_eq!(TorchOneCycle { cycle_momentum: false, ..LINES }.momentum(2), None);
    }

    #[test]
    fn epochs_and_steps_per_epoch_are_multiplied() {
        let s =
            TorchOneCycle { total_steps: None, epochs: Some(5), steps_per_epoch: Some(2), ..LINES };
        assert_eq!((s.check(), s.lr(9.0, 2)), (Ok(()), 0.75));
        // total_steps takes precedence: n = 10, and the others are not used
        let s = TorchOneCycle { epochs: Some(0), ..LINES };
        assert_eq!((s.check(), s.lr(9.0, 2)), (Ok(()), 0.75));
    }

    #[test]
    fn step_past_the_total_is_refused() {
        let mut lr = GroupScheduler::new(LINES, 9.0);
        for _ in 0..10 {
            assert!(lr.step().is_ok());
        }
        let last = lr;
        assert!(matches!(lr.step(), Err(Error::InvalidArgument { argument: "step", .. })));
        assert_eq!(lr, last);
    }

    #[test]
    fn last_phase_without_length_ends_the_schedule() {
        // up = 4 − 1: at step 4 the reference divides by 4 − 1 − up = 0
        let s = TorchOneCycle { total_steps: Some(4), pct_start: 1.0, ..LINES };
        assert_eq!((s.lr(9.0, 3), s.last_step()), (1.0, Some(3)));
        // down = 2 · ¾ · 2 − 2 = 2 − 1
        let s = TorchOneCycle { total_steps: Some(2), pct_start: 0.75, three_phase: true, ..LINES };
        assert_eq!((s.lr(9.0, 1), s.last_step()), (0.5, Some(1)));
    }

    #[test]
    fn wrong_steps_are_refused() {
        let s = TorchOneCycle { total_steps: None, epochs: Some(2), ..LINES };
        let expected = "total_steps, or epochs and steps_per_epoch";
        assert_eq!(s.check(), Err(Error::InvalidArgument { argument: "total_steps", expected }));

        let zero = |argument, expected| Err(Error::OutOfRange { argument, value: 0.0, expected });
        let s = TorchOneCycle { total_steps: Some(0), ..LINES };
        assert_eq!(s.check(), zero("total_steps", "total_steps >= 1"));
        let s = TorchOneCycle { total_steps: None, steps_per_epoch: Some(3), ..LINES };
        let s = TorchOneCycle { epochs: Some(0), ..s };
        assert_eq!(s.check(), zero("epochs", "epochs >= 1"));
        let s = TorchOneCycle { epochs: Some(2), steps_per_epoch: Some(0), ..s };
        assert_eq!(s.check(), zero("steps_per_epoch", "steps_per_epoch >= 1"));
    }

    #[test]
    fn factor_by_which_the_reference_divides_is_refused() {
        for zero in [0.0, -0.0] {
            let s = TorchOneCycle { div_factor: zero, ..LINES };
            assert!(matches!(s.check(), Err(Error::OutOfRange { argument: "div_factor", .. })));
            let s = TorchOneCycle { final_div_factor: zero, ..LINES };
            assert!(matches!(
                s.check(),
                Err(Error::OutOfRange { argument: "final_div_factor", .. })
            ));
        }
    }

    #[test]
    fn wrong_pct_start_is_refused() {
        let refused =
            |value, expected| Err(Error::OutOfRange { argument: "pct_start", value, expected });
        for value in [-0.25, 1.25] {
            let s = TorchOneCycle { pct_start: value, ..LINES };
            assert_eq!(s.check(), refused(value, "0 <= value <= 1"));
        }
        // up = ⅛ · 8 − 1 = 0, by which the reference divides at once
        let s = TorchOneCycle { pct_start: 0.125, total_steps: Some(8), ..LINES };
        assert_eq!(s.check(), refused(0.125, "pct_start * total_steps != 1"));
        assert_eq!(LINES.check(), Ok(()));
    }
}
