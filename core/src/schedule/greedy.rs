use super::metric::{MODES, THRESHOLD_MODES};
use super::{Mode, PerGroup, ThresholdMode, check_groups, max, min};
use crate::Error;
use crate::args::{Fields, Hyper};

/// Lowers the rates after a run of bad steps and raises them after a run of good ones.
///
/// # Order of operations
/// With `smooth`, the metric becomes the mean of the last `window_size` ones, from a running sum. A step of cooldown
/// or warm-up ends both runs and looks at nothing else. Otherwise a step better than `best` by more than the threshold
/// becomes `best` and lengthens the good run, any other the bad run; each ends the other.
/// A good run longer than `patience` divides each rate by `factor`, up to `max_lr`, and warm-up begins; a bad one
/// multiplies it by `factor`, down to `min_lr`, and cooldown begins. Changes of `eps` or less are not made.
/// After `reset_start` reductions that found (or left) every rate at its minimum, without a raise between them,
/// everything starts again from the initial rates, with cooldown.
///
/// # Source
/// `transformers.optimization.GreedyLR` (`get_greedy_schedule`).
///
/// # Errors
/// `factor` ≥ 1; `smooth` with an empty window, which the reference divides by.
///
/// # Non-finite input
/// A NaN metric is a bad step; with `smooth` it poisons the running sum until everything starts again.
///
/// # Example
/// ```
/// use bitstep::schedule::Greedy;
/// let s = Greedy { patience: 0, factor: 0.5, ..Greedy::default() };
/// let (start, mut state) = ([0.25], s.start());
/// let mut lrs = start;
/// s.step(&mut state, &mut [], 3.0, &start, &mut lrs)?; // good: better than nothing
/// assert_eq!(lrs, [0.5]);
/// s.step(&mut state, &mut [], 4.0, &start, &mut lrs)?;
/// assert_eq!(lrs, [0.25]);
/// # Ok::<(), bitstep::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Greedy<L = f64, H = f64> {
    /// Which direction of the metric is good.
    pub mode: Mode,
    /// What a rate is multiplied or divided by.
    pub factor: f64,
    /// Length of a run that changes nothing yet.
    pub patience: u64,
    /// How much better a step has to be.
    pub threshold: f64,
    /// Whether that is a share or a difference.
    pub threshold_mode: ThresholdMode,
    /// Steps of rest after a reduction.
    pub cooldown: u64,
    /// Steps of rest after a raise.
    pub warmup: u64,
    /// The lowest rate, for all groups or for each.
    pub min_lr: L,
    /// The highest rate, for all groups or for each.
    pub max_lr: H,
    /// The least change that is made.
    pub eps: f64,
    /// Whether the metric is averaged.
    pub smooth: bool,
    /// Over how many steps.
    pub window_size: u64,
    /// Reductions at the minimum until everything starts again.
    pub reset_start: i64,
}

/// What [`Greedy`] remembers, beside the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GreedyState {
    /// The best metric.
    pub best: f64,
    /// Length of the present run of bad steps.
    pub num_bad_epochs: u64,
    /// Length of the present run of good steps.
    pub num_good_epochs: u64,
    /// Steps of cooldown that remain.
    pub cooldown_counter: u64,
    /// Steps of warm-up that remain.
    pub warmup_counter: u64,
    /// Reductions at the minimum that remain until everything starts again.
    pub reset_start: i64,
    /// Running sum of the window.
    pub sum: f64,
    /// Metrics in the window.
    pub len: usize,
    /// Where the next one goes, and where the oldest is once the window is full.
    pub at: usize,
}

impl Default for Greedy {
    fn default() -> Self {
        Greedy {
            mode: Mode::Min,
            factor: 0.95,
            patience: 10,
            threshold: 1e-6,
            threshold_mode: ThresholdMode::Abs,
            cooldown: 0,
            warmup: 0,
            min_lr: 1e-3,
            max_lr: 1.0,
            eps: 1e-8,
            smooth: false,
            window_size: 50,
            reset_start: 500,
        }
    }
}

impl Hyper for Greedy {
    fn fields(&mut self, f: &mut dyn Fields) {
        f.choice("mode", &mut self.mode, MODES);
        f.f64("factor", &mut self.factor);
        f.u64("patience", &mut self.patience);
        f.f64("threshold", &mut self.threshold);
        f.choice("threshold_mode", &mut self.threshold_mode, THRESHOLD_MODES);
        f.u64("cooldown", &mut self.cooldown);
        f.u64("warmup", &mut self.warmup);
        f.f64("min_lr", &mut self.min_lr);
        f.f64("max_lr", &mut self.max_lr);
        f.f64("eps", &mut self.eps);
        f.ignored("verbose");
        f.bool("smooth", &mut self.smooth);
        f.u64("window_size", &mut self.window_size);
        f.i64("reset_start", &mut self.reset_start);
    }
}

impl<L: PerGroup, H: PerGroup> Greedy<L, H> {
    /// `Ok` if the reference would take these arguments for so many groups.
    ///
    /// # Errors
    /// The argument that it refuses.
    pub fn check(&self, groups: usize) -> Result<(), Error> {
        Error::range(self.factor < 1.0, "factor", self.factor, "factor < 1")?;
        let window = self.window_size;
        Error::range(!self.smooth || window > 0, "window_size", window as f64, "window_size >= 1")?;
        check_groups("min_lr", &self.min_lr, groups)?;
        check_groups("max_lr", &self.max_lr, groups)
    }

    /// How many numbers the window needs: none without `smooth`.
    #[must_use]
    pub fn window_len(&self) -> usize {
        if self.smooth { usize::try_from(self.window_size).unwrap_or(usize::MAX) } else { 0 }
    }

    /// The state before the first step.
    #[must_use]
    pub fn start(&self) -> GreedyState {
        GreedyState {
            best: self.mode.worst(),
            num_bad_epochs: 0,
            num_good_epochs: 0,
            cooldown_counter: 0,
            warmup_counter: 0,
            reset_start: self.reset_start,
            sum: 0.0,
            len: 0,
            at: 0,
        }
    }

    /// A scheduler step: changes the rates of all groups, if at all. `initial_lrs` are those at the start of training;
    /// the contents of `window` ([`window_len`](Self::window_len) numbers) belong to the state.
    ///
    /// # Errors
    /// What [`check`](Self::check) refuses, or a buffer of the wrong length; nothing has changed then.
    pub fn step(
        &self,
        state: &mut GreedyState,
        window: &mut [f64],
        metric: f64,
        initial_lrs: &[f64],
        lrs: &mut [f64],
    ) -> Result<(), Error> {
        self.check(lrs.len())?;
        length("initial_lrs", initial_lrs.len(), lrs.len())?;
        length("window", window.len(), self.window_len())?;
        let metric = if self.smooth { average(state, window, metric) } else { metric };

        if state.cooldown_counter > 0 || state.warmup_counter > 0 {
            let counter = match state.cooldown_counter {
                0 => &mut state.warmup_counter,
                _ => &mut state.cooldown_counter,
            };
            *counter -= 1;
            state.num_bad_epochs = 0;
            state.num_good_epochs = 0;
            return Ok(());
        }

        if self.mode.better(metric, state.best, self.threshold, self.threshold_mode) {
            state.best = metric;
            state.num_bad_epochs = 0;
            state.num_good_epochs = state.num_good_epochs.saturating_add(1);
        } else {
            state.num_bad_epochs = state.num_bad_epochs.saturating_add(1);
            state.num_good_epochs = 0;
        }

        if state.num_good_epochs > self.patience {
            self.raise(state, lrs);
            state.warmup_counter = self.warmup;
            state.num_good_epochs = 0;
        } else if state.num_bad_epochs > self.patience {
            self.lower(state, initial_lrs, lrs);
            state.cooldown_counter = self.cooldown;
            state.num_bad_epochs = 0;
        }
        Ok(())
    }

    fn raise(&self, state: &mut GreedyState, lrs: &mut [f64]) {
        for (i, lr) in lrs.iter_mut().enumerate() {
            let new = min(*lr / self.factor, self.max_lr.at(i).unwrap_or(f64::NAN));
            if new - *lr > self.eps {
                *lr = new;
            }
        }
        state.reset_start = self.reset_start;
    }

    fn lower(&self, state: &mut GreedyState, initial_lrs: &[f64], lrs: &mut [f64]) {
        let mut all_at_min = true;
        for (i, lr) in lrs.iter_mut().enumerate() {
            let least = self.min_lr.at(i).unwrap_or(f64::NAN);
            let new = max(*lr * self.factor, least);
            if *lr - new > self.eps {
                *lr = new;
            }
            if *lr > least {
                all_at_min = false;
            }
        }
        if all_at_min {
            state.reset_start = state.reset_start.saturating_sub(1);
            if state.reset_start <= 0 {
                lrs.copy_from_slice(initial_lrs);
                *state = self.start();
            }
        }
    }
}

/// Puts a metric into the window and returns the mean.
fn average(state: &mut GreedyState, window: &mut [f64], metric: f64) -> f64 {
    let size = window.len();
    if let Some(slot) = window.get_mut(state.at) {
        let oldest = core::mem::replace(slot, metric);
        state.sum += metric;
        if state.len < size {
            state.len += 1;
        } else {
            state.sum -= oldest;
        }
        state.at = if state.at + 1 < size { state.at + 1 } else { 0 };
    }
    state.sum / state.len as f64
}

fn length(argument: &'static str, got: usize, wanted: usize) -> Result<(), Error> {
    if got == wanted { Ok(()) } else { Err(Error::Length { argument, got, wanted }) }
}
