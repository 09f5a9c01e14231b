//! Learning-rate schedules: those of Transformers, of `torch.optim.lr_scheduler` (`Torch…`) and of [`keras`].
//!
//! A schedule is a plain value whose fields are the reference's arguments; each has a file of its own. Most are pure
//! functions of the number of scheduler steps ([`Schedule::lr`]). torch's recursive schedules modify the current rate
//! instead, so that rounding errors accumulate; [`GroupScheduler`] reproduces that in O(1) per step.
//! [`ReduceLrOnPlateau`] and [`GreedyLr`] are driven by a metric, [`AdafactorSchedule`] by its optimizer: they keep
//! their state in an explicit value. A [`Scheduler`] runs a schedule for all groups of an optimizer, [built](build)
//! from a name and arguments or [supplied by the caller](Scheduler::of).
//!
//! Rates are computed in `f64`, as in Python; those of TensorFlow in `f32`. Nothing here reads a clock or knows the
//! type of an optimizer; [`crate::optimizer`] applies the rates to its groups.
//!
//! The t-th update of Transformers' `Trainer` uses the rate after t − 1 scheduler steps:
//!
//! ```
//! use bitstep::prelude::*;
//! use bitstep::schedule::Cosine;
//!
//! const OPT: AdamW = AdamW { lr: 1e-3, ..AdamW::DEFAULT };
//! let cosine = Cosine { num_warmup_steps: 10, num_training_steps: 100, num_cycles: 0.5 };
//! let (mut weights, mut lr) = ([1.0f32], 0.0);
//! let mut state = State::new(&OPT, 1, [0.0; 2])?;
//! for t in 1..=56 {
//!     lr = cosine.lr(OPT.lr, t - 1);
//!     let grad = weights;
//!     OPT.step(&mut state, lr, &mut weights, &grad)?;
//! }
//! assert_eq!(lr, 1e-3 * 0.5); // after 55 scheduler steps: half way down
//! # Ok::<(), bitstep::Error>(())
//! ```
//!
//! [`GroupScheduler`] gives the same rates step by step:
//!
//! ```
//! use bitstep::schedule::{Cosine, GroupScheduler};
//! let cosine = Cosine { num_warmup_steps: 10, num_training_steps: 100, num_cycles: 0.5 };
//! let mut scheduler = GroupScheduler::new(cosine, 1e-3); // one for each parameter group
//! assert_eq!(scheduler.lr(), 0.0); // for the first update
//! assert_eq!(scheduler.step()?, 1e-4); // for the second
//! # Ok::<(), bitstep::Error>(())
//! ```

mod adafactor_schedule;
#[cfg(feature = "alloc")]
mod arguments;
mod common;
mod constant;
mod constant_with_warmup;
mod cosine;
mod cosine_warmup_with_min_lr;
mod cosine_with_min_lr;
mod cosine_with_restarts;
mod create_optimizer;
#[cfg(feature = "alloc")]
mod entry;
mod greedy;
mod group_scheduler;
mod inverse_sqrt;
pub mod keras;
mod linear;
mod metric;
#[cfg(feature = "alloc")]
mod named;
mod number;
mod polynomial;
mod reduce_lr_on_plateau;
#[cfg(feature = "alloc")]
mod saved;
#[cfg(feature = "alloc")]
mod scheduler;
mod torch_chained;
mod torch_constant;
mod torch_cosine_annealing;
mod torch_cosine_annealing_warm_restarts;
mod torch_cyclic;
mod torch_exponential;
mod torch_linear;
mod torch_multi_step;
mod torch_one_cycle;
mod torch_polynomial;
mod torch_sequential;
mod torch_step;
mod warm_up;
mod warmup_stable_decay;

pub use adafactor_schedule::{AdafactorSchedule, AdafactorScheduleState};
#[cfg(test)]
use common::assert_near;
pub use common::{PerGroup, max, min, progress, warmup};
use common::{check_cycles, check_groups, cosine_wave};
pub use constant::Constant;
pub use constant_with_warmup::ConstantWithWarmup;
pub use cosine::Cosine;
pub use cosine_warmup_with_min_lr::CosineWarmupWithMinLr;
pub use cosine_with_min_lr::CosineWithMinLr;
pub use cosine_with_restarts::CosineWithRestarts;
pub use create_optimizer::CreateOptimizerSchedule;
#[cfg(feature = "alloc")]
use entry::{Entry, Make};
pub use greedy::{GreedyLr, GreedyState};
#[cfg(feature = "alloc")]
pub use group_scheduler::AnySchedule;
use group_scheduler::iterate;
pub use group_scheduler::{GroupScheduler, Schedule, ScheduleFacts};
pub use inverse_sqrt::InverseSqrt;
pub use linear::Linear;
pub use metric::{MetricMode, ThresholdMode};
#[cfg(feature = "alloc")]
pub use named::{NAMES, defaults};
pub use number::ScheduleFloat;
pub use polynomial::Polynomial;
pub use reduce_lr_on_plateau::{PlateauState, ReduceLrOnPlateau};
#[cfg(feature = "alloc")]
pub use scheduler::{Scheduler, SchedulerKind, SchedulerState, build, visit_arguments};
pub use torch_chained::TorchChained;
pub use torch_constant::TorchConstant;
pub use torch_cosine_annealing::TorchCosineAnnealing;
pub use torch_cosine_annealing_warm_restarts::TorchCosineAnnealingWarmRestarts;
pub use torch_cyclic::{CyclicMode, TorchCyclic};
pub use torch_exponential::TorchExponential;
pub use torch_linear::TorchLinear;
pub use torch_multi_step::TorchMultiStep;
pub use torch_one_cycle::{Anneal, TorchOneCycle};
pub use torch_polynomial::TorchPolynomial;
pub use torch_sequential::TorchSequential;
pub use torch_step::TorchStep;
pub use warm_up::WarmUp;
pub use warmup_stable_decay::{DecayShape, WarmupStableDecay};
