#[cfg(feature = "alloc")]
use alloc::vec::Vec;

#[cfg(feature = "alloc")]
use crate::hyper::{ArgError, Args};
use crate::hyper::{FieldVisitor, HyperParams};

use super::{ScheduleFloat, min};

/// The learning rate that [`Adafactor`](crate::optim::Adafactor) computes for itself, reported as a schedule.
///
/// # Formula
/// Before the first step `initial_lr`; after step t of the optimizer max(ε₂, RMS(p)) · ρ, ρ = min(10⁻², 1/√t), with
/// `warmup_init` min(10⁻⁶·t, 1/√t); without `scale_parameter` ρ alone. RMS(p) is the root mean square of the group's
/// first parameter, before the step.
///
/// # Source
/// `transformers.optimization.AdafactorSchedule`. Without `relative_step` ρ is the group's rate, which this schedule
/// itself has overwritten: it starts from `initial_lr`, not from the optimizer's `lr`, and the factors multiply up.
/// The RMS of an f32 or 16-bit parameter is an f32 tensor. Where it is above ε₂ the product is an f32 tensor too, and
/// so is the group's rate from then on.
///
/// # Non-finite input
/// A NaN RMS counts as below ε₂.
///
/// # Example
/// ```
/// use bitstep::schedule::AdafactorSchedule;
/// let s = AdafactorSchedule { initial_lr: 0.5, ..AdafactorSchedule::DEFAULT };
/// let mut state = s.start();
/// assert_eq!(state.lr, 0.5);
/// s.step(&mut state, 2.0);
/// assert_eq!(state.lr, f64::from(2.0 * 0.01_f32));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorSchedule {
    /// The rate before the first step.
    pub initial_lr: f64,
    /// Adafactor's (ε₁, ε₂): ε₁ is added to the squared gradient (unused here), ε₂ is the least scale of a parameter.
    pub eps: (f64, f64),
    /// Adafactor's argument: whether the rate is scaled by the RMS of the parameter.
    pub scale_parameter: bool,
    /// Adafactor's argument: whether the rate falls as 1/√t.
    pub relative_step: bool,
    /// Adafactor's argument: whether the rate first rises as 10⁻⁶·t.
    pub warmup_init: bool,
    /// Whether the parameters, and so their RMS, are f64.
    pub f64: bool,
}

/// The state of [`AdafactorSchedule`] for one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorScheduleState<F = f64> {
    /// The current rate.
    pub lr: F,
    /// The number of optimizer steps so far.
    pub step: u64,
    /// Whether the reference holds the rate in an f32 tensor.
    pub f32: bool,
}

impl AdafactorSchedule {
    /// The reference's defaults.
    pub const DEFAULT: Self = AdafactorSchedule {
        initial_lr: 0.0,
        eps: (1e-30, 1e-3),
        scale_parameter: true,
        relative_step: true,
        warmup_init: false,
        f64: false,
    };
}

impl Default for AdafactorSchedule {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One schedule per group, from the shared arguments and those of the group.
#[inline]
#[cfg(feature = "alloc")]
pub(super) fn for_each(
    entry: &super::Entry,
    args: &Args,
    groups: &[Args],
) -> Result<Vec<AdafactorSchedule>, ArgError> {
    let mut all = AdafactorSchedule::default();
    args.apply(entry.name, &mut all)?;
    let own = groups.iter().map(|changes| {
        let mut own = all;
        changes.apply(entry.name, &mut own).map(|()| own)
    });
    own.collect()
}

impl HyperParams for AdafactorSchedule {
    fn fields(&mut self, f: &mut dyn FieldVisitor) {
        f.f64("initial_lr", &mut self.initial_lr);
        f.pair("eps", &mut self.eps.0, &mut self.eps.1);
        f.bool("scale_parameter", &mut self.scale_parameter);
        f.bool("relative_step", &mut self.relative_step);
        f.bool("warmup_init", &mut self.warmup_init);
        for other in ["clip_threshold", "decay_rate", "beta1", "weight_decay"] {
            f.ignored(other);
        }
        const F64: &[(&str, bool)] = &[
            ("float32", false),
            ("float64", true),
            ("float16", false),
            ("bfloat16", false),
            ("f32", false),
            ("f64", true),
            ("f16", false),
            ("bf16", false),
        ];
        f.choice("dtype", &mut self.f64, F64);
    }
}

impl AdafactorSchedule {
    /// The state before the first step.
    #[must_use]
    pub fn start(&self) -> AdafactorScheduleState {
        AdafactorScheduleState { lr: self.initial_lr, step: 0, f32: false }
    }

    /// A scheduler step after an optimizer step; `rms` is the RMS of the group's first parameter before that step.
    pub fn step<F: ScheduleFloat>(&self, state: &mut AdafactorScheduleState<F>, rms: f64) {
        state.step = state.step.saturating_add(1);
        let t = F::count(state.step);
        let relative = if self.relative_step {
            let most = if self.warmup_init { F::of(1e-6) * t } else { F::of(1e-2) };
            min(most, F::ONE / t.sqrt())
        } else {
            state.lr
        };
        // The reference compares in the tensor's type as well.
        let least = if self.f64 { self.eps.1 } else { f64::from(self.eps.1 as f32) };
        let scaled = self.scale_parameter && rms > least;
        let scale = F::of(match self.scale_parameter {
            true if scaled => rms,
            true => self.eps.1,
            false => 1.0,
        });
        let scale_is_tensor = scaled && !self.f64;
        let relative_is_tensor = !self.relative_step && state.f32;
        state.lr = if scale_is_tensor || relative_is_tensor {
            // The product of two `f32` is exact in `f64`.
            (scale.single() * relative.single()).single()
        } else {
            scale * relative
        };
        // Once the rate is a tensor it stays one: later values are written into it.
        state.f32 |= scale_is_tensor;
        if state.f32 {
            state.lr = state.lr.single();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELATIVE: AdafactorSchedule = AdafactorSchedule {
        initial_lr: 0.5,
        eps: (1e-30, 1e-3),
        scale_parameter: true,
        relative_step: true,
        warmup_init: false,
        f64: true,
    };

    /// The rate after this many steps of the optimizer.
    fn lr_at(s: &AdafactorSchedule, step: u64, rms: f64) -> f64 {
        let mut state = AdafactorScheduleState { step: step - 1, ..s.start() };
        s.step(&mut state, rms);
        state.lr
    }

    #[test]
    fn rate_follows_the_formula() {
        assert_eq!(RELATIVE.start().lr, 0.5);
        // 2 · min(1/100, 1/√1); where the two meet, at 10⁴; 2 · 1/√40 000
        let steps = [1, 10_000, 40_000].map(|t| lr_at(&RELATIVE, t, 2.0));
        assert_eq!(steps, [2.0 * 1e-2, 2.0 * 1e-2, 2.0 * 0.005]);
    }

    #[test]
    fn warmup_init_is_a_line_until_the_root_is_lower() {
        let s = AdafactorSchedule { warmup_init: true, ..RELATIVE };
        // 2 · 10⁻⁶ · 5000; they meet at 10⁴; 2/√40 000 is below 2 · 0.04
        let steps = [5000, 10_000, 40_000].map(|t| lr_at(&s, t, 2.0));
        assert_eq!(steps, [2.0 * (1e-6 * 5000.0), 2.0 * 0.01, 2.0 * 0.005]);
    }

    #[test]
    fn scale_of_an_rms_that_is_eps_is_the_number_and_no_tensor() {
        // As Python's max(eps, RMS), which keeps the first of two equals: in f64, though RMS is f32.
        let s = AdafactorSchedule { f64: false, ..RELATIVE };
        let mut state = s.start();
        s.step(&mut state, f64::from(1e-3f32));
        assert_eq!((state.lr, state.f32), (1e-3 * 1e-2, false));
        s.step(&mut state, f64::from(1e-3f32.next_up()));
        assert!(state.f32);
    }

    #[test]
    fn scale_of_a_small_parameter_is_eps() {
        // max(10⁻³, RMS); NaN is not above
        for rms in [0.0, 1e-3, f64::NAN] {
            assert_eq!(lr_at(&RELATIVE, 1, rms), 1e-3 * 1e-2);
        }
        let s = AdafactorSchedule { scale_parameter: false, ..RELATIVE };
        assert_eq!(lr_at(&s, 1, 2.0), 1e-2);
    }

    #[test]
    fn rate_without_relative_step_multiplies_up() {
        let s = AdafactorSchedule { relative_step: false, ..RELATIVE };
        let mut state = s.start();
        // ½ · 2, then 1 · 2: the rate it finds is its own
        s.step(&mut state, 2.0);
        assert_eq!(state.lr, 1.0);
        s.step(&mut state, 2.0);
        assert_eq!(state.lr, 2.0);
    }

    #[test]
    fn rate_of_f32_parameters_becomes_f32_and_stays_so() {
        let s = AdafactorSchedule { f64: false, ..RELATIVE };
        let mut state = s.start();
        s.step(&mut state, 0.0); // 10⁻³ · 10⁻², both Python's
        assert_eq!((state.lr, state.f32), (1e-3 * 1e-2, false));
        s.step(&mut state, 2.0); // a tensor times 10⁻²
        assert_eq!((state.lr, state.f32), (f64::from(0.02_f32), true));
        s.step(&mut state, 0.0); // written into the tensor
        assert_eq!((state.lr, state.f32), (f64::from((1e-3 * 1e-2) as f32), true));
    }
}
