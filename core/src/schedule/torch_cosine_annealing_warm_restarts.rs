use core::f64::consts::PI;

use super::Schedule;
use crate::Error;
use crate::accurate::cos;
use crate::args::{Fields, Hyper};

/// Down along half a cosine from the rate to `eta_min`, again and again, each time `t_mult` times longer.
///
/// # Formula
/// eta_min + (base_lr − eta_min) · (1 + cos(π · T_cur / T_i)) / 2, T_cur counting from the last restart.
///
/// # Source
/// `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`. Resumed from a `last_epoch`, the reference restarts at most
/// once before it goes on, so it is not where it would be without the interruption (unless `t_mult` is 1).
///
/// # Errors
/// `t_0` or `t_mult` 0.
///
/// # Example
/// ```
/// use bitstep::schedule::{Schedule, TorchCosineAnnealingWarmRestarts};
/// let s = TorchCosineAnnealingWarmRestarts { t_0: 2, t_mult: 2, ..Default::default() };
/// assert_eq!([0, 1, 2, 4, 6].map(|t| s.lr(1.0, t)), [1.0, 0.5, 1.0, 0.5, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TorchCosineAnnealingWarmRestarts {
    /// `T_0`: steps until the first restart.
    pub t_0: u64,
    /// `T_mult`: how much longer each next part is.
    pub t_mult: u64,
    /// The lowest rate.
    pub eta_min: f64,
    /// The step after which training is resumed; −1 for its start.
    pub last_epoch: i64,
}

impl Default for TorchCosineAnnealingWarmRestarts {
    fn default() -> Self {
        TorchCosineAnnealingWarmRestarts { t_0: 1, t_mult: 1, eta_min: 0.0, last_epoch: -1 }
    }
}

impl Hyper for TorchCosineAnnealingWarmRestarts {
    fn fields(&mut self, f: &mut dyn Fields) {
        f.u64("T_0", &mut self.t_0);
        f.u64("T_mult", &mut self.t_mult);
        f.f64("eta_min", &mut self.eta_min);
        f.i64("last_epoch", &mut self.last_epoch);
        f.ignored("verbose");
    }
}

impl TorchCosineAnnealingWarmRestarts {
    /// (T_cur, T_i)
    fn position(&self, step: u64) -> (u64, u64) {
        let (mut cur, mut part) = (step, self.t_0);
        if let Ok(last) = u64::try_from(self.last_epoch) {
            let start = last + 1;
            cur = start;
            if cur >= part {
                cur = cur.checked_rem(part).unwrap_or(0);
                part = part.saturating_mul(self.t_mult);
            }
            cur = cur.saturating_add(step.saturating_sub(start));
        }
        if self.t_mult <= 1 {
            return (cur.checked_rem(part).unwrap_or(0), part);
        }
        while cur >= part && part > 0 {
            cur -= part;
            part = part.saturating_mul(self.t_mult);
        }
        (cur, part)
    }
}

impl Schedule for TorchCosineAnnealingWarmRestarts {
    fn check(&self) -> Result<(), Error> {
        Error::range(self.t_0 > 0, "T_0", self.t_0 as f64, "T_0 >= 1")?;
        Error::range(self.t_mult > 0, "T_mult", self.t_mult as f64, "T_mult >= 1")
    }

    fn lr(&self, base_lr: f64, step: u64) -> f64 {
        let (cur, part) = self.position(step);
        let wave = 1.0 + cos(PI * cur as f64 / part as f64);
        self.eta_min + (base_lr - self.eta_min) * wave / 2.0
    }
}
