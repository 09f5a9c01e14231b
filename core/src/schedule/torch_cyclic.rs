use super::{Schedule, ScheduleFacts, ScheduleFloat};
use crate::Error;
use crate::error::ensure_range;
use crate::hyper::{FieldVisitor, HyperParams};
use crate::math::pow;

/// Linearly up and down between two rates, repeatedly; the height of the cycles may shrink.
///
/// # Formula
/// base_lr + (max_lr − base_lr) · h · s, where c = ⌊1 + t/n⌋ is the number of the cycle, n = step_size_up +
/// step_size_down its length, h the height within it (linear from 0 to 1 and back to 0), and s = 1, 1/2^(c−1) or
/// gammaᵗ, by `mode`.
///
/// # Source
/// `torch.optim.lr_scheduler.CyclicLR`, without a user-defined `scale_fn`. The group's own rate is not used.
/// The reference cycles momentum in the opposite direction: [`momentum`](super::ScheduleFacts::momentum).
///
/// # Errors
/// A `step_size_up`, or a sum of both step sizes, that is 0, by which the reference divides; a step size that is not
/// finite. With [`CyclicMode::ExpRange`], the step at which gammaᵗ of a finite |gamma| > 1 overflows.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, ScheduleFacts, TorchCyclic};
/// let s = TorchCyclic { base_lr: 1.0, max_lr: 3.0, step_size_up: 2.0, ..TorchCyclic::DEFAULT };
/// assert_eq!([0, 1, 2, 3, 4].map(|t| s.lr(0.0, t)), [1.0, 2.0, 3.0, 2.0, 1.0]);
/// assert_eq!(s.momentum(2), Some(0.8));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchCyclic {
    /// The lower rate.
    pub base_lr: f64,
    /// The upper rate.
    pub max_lr: f64,
    /// Steps from the lower to the upper rate.
    pub step_size_up: f64,
    /// Steps back to the lower rate; `None` for `step_size_up`.
    pub step_size_down: Option<f64>,
    /// How the height of the cycles changes.
    pub mode: CyclicMode,
    /// The height's factor per step, for [`CyclicMode::ExpRange`].
    pub gamma: f64,
    /// Whether momentum is cycled too.
    pub cycle_momentum: bool,
    /// The lower momentum.
    pub base_momentum: f64,
    /// The upper momentum.
    pub max_momentum: f64,
}

/// How the height of a [`TorchCyclic`] changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CyclicMode {
    /// It stays the same.
    Triangular,
    /// It is halved each cycle.
    Triangular2,
    /// It is multiplied by `gamma` each step.
    ExpRange,
}

impl TorchCyclic {
    /// The reference's defaults.
    pub const DEFAULT: Self = TorchCyclic {
        base_lr: 1e-3,
        max_lr: 1e-2,
        step_size_up: 2000.0,
        step_size_down: None,
        mode: CyclicMode::Triangular,
        gamma: 1.0,
        cycle_momentum: true,
        base_momentum: 0.8,
        max_momentum: 0.9,
    };
}

impl Default for TorchCyclic {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HyperParams for TorchCyclic {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        const MODES: &[(&str, CyclicMode)] = &[
            ("triangular", CyclicMode::Triangular),
            ("triangular2", CyclicMode::Triangular2),
            ("exp_range", CyclicMode::ExpRange),
        ];
        f.f64("base_lr", &mut self.base_lr);
        f.f64("max_lr", &mut self.max_lr);
        f.f64("step_size_up", &mut self.step_size_up);
        f.opt_f64("step_size_down", &mut self.step_size_down);
        f.choice("mode", &mut self.mode, MODES);
        f.f64("gamma", &mut self.gamma);
        f.must_be_none("scale_fn");
        f.ignored("scale_mode"); // only used together with `scale_fn`
        f.bool("cycle_momentum", &mut self.cycle_momentum);
        f.f64("base_momentum", &mut self.base_momentum);
        f.f64("max_momentum", &mut self.max_momentum);
        f.ignored("verbose");
    }

    fn required(&self) -> &'static [&'static str] {
        &["base_lr", "max_lr"]
    }
}

impl TorchCyclic {
    /// h and s of the formula.
    fn height<F: ScheduleFloat>(&self, step: u64) -> (F, F) {
        let (t, up, one) = (F::count(step), F::of(self.step_size_up), F::ONE);
        let total = up + self.step_size_down.map_or(up, F::of);
        let ratio = up / total;
        let cycle = (one + t / total).floor();
        let x = one + t / total - cycle;
        let height = if x <= ratio { x / ratio } else { (x - one) / (ratio - one) };
        let scale = match self.mode {
            CyclicMode::Triangular => one,
            CyclicMode::Triangular2 => one / F::of(2.0).pow(cycle - one),
            CyclicMode::ExpRange => F::of(self.gamma).pow(t),
        };
        (height, scale)
    }

    fn between<F: ScheduleFloat>(&self, base_lr: F, step: u64) -> F {
        let (height, scale) = self.height(step);
        let height = (F::of(self.max_lr) - base_lr) * height;
        base_lr + height * scale
    }
}

impl<F: ScheduleFloat> Schedule<F> for TorchCyclic {
    fn lr(&self, _: F, step: u64) -> F {
        self.between(F::of(self.base_lr), step)
    }

    fn start(&self, _: F) -> F {
        self.between(F::of(self.base_lr), 0)
    }

    /// The reference sets its own `base_lr` only after this.
    fn attach(&self, base_lr: F, _: F, step: u64) -> F {
        self.between(base_lr, step)
    }

    fn begin_in_sequence(&self, _: F, _: F) -> F {
        self.between(F::of(self.base_lr), 0)
    }

    fn initial_lr(&self, base_lr: F, first: bool) -> F {
        if first { F::of(self.base_lr) } else { base_lr }
    }
}

impl ScheduleFacts for TorchCyclic {
    fn check(&self) -> Result<(), Error> {
        let up = self.step_size_up;
        let down = self.step_size_down.unwrap_or(up);
        let expected = "finite, not 0";
        ensure_range(up.is_finite() && up != 0.0, "step_size_up", up, expected)?;
        let expected = "finite, step_size_up + step_size_down != 0";
        ensure_range(down.is_finite() && up + down != 0.0, "step_size_down", down, expected)
    }

    fn last_step(&self) -> Option<u64> {
        let gamma = self.gamma.abs();
        if self.mode != CyclicMode::ExpRange || !gamma.is_finite() || gamma <= 1.0 {
            return None;
        }
        // The last finite power, up to the rounding of the logarithms: the neighbours are tried too.
        let near = libm::floor(libm::log(f64::MAX) / libm::log(gamma)) as u64;
        let finite = |t: &u64| pow(gamma, *t as f64).is_finite();
        [near.saturating_add(1), near, near.saturating_sub(1)].into_iter().find(finite)
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        let (height, scale) = self.height::<f64>(step);
        let height = (self.max_momentum - self.base_momentum) * height;
        self.cycle_momentum.then_some(self.max_momentum - height * scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::assert_near;

    /// Up in 2 steps, down in 6.
    const CYCLE: TorchCyclic = TorchCyclic {
        base_lr: 1.0,
        max_lr: 3.0,
        step_size_up: 2.0,
        step_size_down: Some(6.0),
        mode: CyclicMode::Triangular,
        gamma: 1.0,
        cycle_momentum: true,
        base_momentum: 0.5,
        max_momentum: 0.75,
    };

    #[test]
    fn rate_follows_the_formula() {
        // The height is t/2 on the way up: 0, ½, 1; on the way down at 5 (5/8 − 1)/(2/8 − 1) = ½; again from 8 on
        let want = [1.0, 2.0, 3.0, 2.0, 1.0, 3.0];
        assert_eq!([0, 1, 2, 5, 8, 802].map(|t| CYCLE.lr(9.0, t)), want);
    }

    #[test]
    fn upper_rate_comes_closer_by_mode() {
        let s = TorchCyclic { mode: CyclicMode::Triangular2, ..CYCLE };
        // the tops of cycles 1, 2, 3: 1 + 2, 1 + 2/2, 1 + 2/4
        assert_eq!([2, 10, 18].map(|t| s.lr(9.0, t)), [3.0, 2.0, 1.5]);
        let s = TorchCyclic { mode: CyclicMode::ExpRange, gamma: 0.5, ..CYCLE };
        // 1 + 2 · ½ · ½¹, 1 + 2 · ½²
        assert_eq!([1, 2].map(|t| s.lr(9.0, t)), [1.5, 1.5]);
    }

    #[test]
    fn momentum_goes_the_other_way() {
        // ¾ − ¼ · height
        let want = [0.75, 0.625, 0.5, 0.625].map(Some);
        assert_eq!([0, 1, 2, 5].map(|t| CYCLE.momentum(t)), want);
        assert_eq!(TorchCyclic { cycle_momentum: false, ..CYCLE }.momentum(1), None);
    }

    #[test]
    fn way_down_without_steps_is_a_drop() {
        let s = TorchCyclic { step_size_down: Some(0.0), ..CYCLE };
        assert_eq!(s.check(), Ok(()));
        // 1 + 2 · ½ and down to 1 at step 2, which begins the next cycle
        assert_eq!([1, 2, 3].map(|t| s.lr(9.0, t)), [2.0, 1.0, 2.0]);
    }

    #[test]
    fn way_down_is_as_long_as_up_by_default() {
        let s = TorchCyclic { step_size_up: 3.0, step_size_down: None, ..CYCLE };
        // at 4: (4/6 − 1)/(½ − 1) = ⅔
        assert_near(s.lr(9.0, 4), 1.0 + 4.0 / 3.0);
    }

    #[test]
    fn steps_that_the_reference_divides_by_are_refused() {
        for up in [0.0, f64::NAN, f64::INFINITY] {
            let s = TorchCyclic { step_size_up: up, ..CYCLE };
            assert!(matches!(s.check(), Err(Error::OutOfRange { argument: "step_size_up", .. })));
        }
        for down in [-CYCLE.step_size_up, f64::NAN, f64::INFINITY] {
            let s = TorchCyclic { step_size_down: Some(down), ..CYCLE };
            assert!(matches!(s.check(), Err(Error::OutOfRange { argument: "step_size_down", .. })));
        }
        assert_eq!(CYCLE.check(), Ok(()));
    }

    #[test]
    fn step_at_which_gamma_becomes_infinite_is_refused() {
        let last = |gamma| TorchCyclic { mode: CyclicMode::ExpRange, gamma, ..CYCLE }.last_step();
        // 10³⁰⁰, 2¹⁰²³
        assert_eq!([1e300, 2.0, -2.0].map(last), [Some(1), Some(1023), Some(1023)]);
        assert_eq!([1.0, 0.5, f64::INFINITY, f64::NAN].map(last), [None; 4]);
        assert_eq!(TorchCyclic { gamma: 2.0, ..CYCLE }.last_step(), None);
    }

    #[test]
    fn momentum_goes_against_the_rate_and_its_height_shrinks_too() {
        let s = TorchCyclic { mode: CyclicMode::Triangular2, ..CYCLE };
        // Down by ¼ at the top of the first cycle, by ⅛ at that of the second.
        assert_eq!(
            [0, 1, 2, 8, 10].map(|t| s.momentum(t)),
            [0.75, 0.625, 0.5, 0.75, 0.625].map(Some)
        );
        assert_eq!(TorchCyclic { cycle_momentum: false, ..s }.momentum(1), None);
    }
}
