//! Learning-rate schedules.
//!
//! A schedule is a plain value whose fields are the reference's arguments. Most are pure functions of the number of
//! scheduler steps ([`Schedule::lr`]); torch's recursive ones change the rate in force instead and so accumulate
//! rounding, which [`GroupScheduler`] follows in O(1) a step. [`ReduceLrOnPlateau`] and [`GreedyLr`] are driven by a metric
//! and keep their state in an explicit value, as [`AdafactorSchedule`] follows its optimizer.
//!
//! A [`Scheduler`] runs a schedule for all groups of an optimizer: one that is [built](build) from a name and arguments,
//! or [one of your own](Scheduler::of).
//!
//! Numbers are f64, as Python's, and f32 for those of TensorFlow.
//!
//! ```
//! use bitstep::schedule::{Cosine, Schedule, GroupScheduler};
//! let cosine = Cosine { num_warmup_steps: 10, num_training_steps: 100, num_cycles: 0.5 };
//! assert_eq!(cosine.lr(1e-3, 5), 5e-4);
//! assert_eq!(cosine.lr(1e-3, 55), 1e-3 * 0.5);
//! assert_eq!(cosine.lr(1e-3, 100), 0.0);
//!
//! let mut lr = GroupScheduler::new(cosine, 1e-3); // one for each parameter group
//! assert_eq!(lr.lr(), 0.0);
//! assert_eq!(lr.step()?, 1e-4);
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
pub use group_scheduler::{GroupScheduler, Schedule};
pub use inverse_sqrt::InverseSqrt;
pub use linear::Linear;
pub use metric::{MetricMode, ThresholdMode};
#[cfg(feature = "alloc")]
pub use named::NAMES;
pub use polynomial::Polynomial;
pub use reduce_lr_on_plateau::{PlateauState, ReduceLrOnPlateau};
#[cfg(feature = "alloc")]
pub use scheduler::{Scheduler, SchedulerState, build};
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
