//! Schedule-Free optimizers: trained at y, evaluated at the average x.
//!
//! One rule per file; shared code is in `common`.

mod common;
pub mod schedule_free_adamw;
pub mod schedule_free_radam;
pub mod schedule_free_sgd;

pub use schedule_free_adamw::ScheduleFreeAdamW;
pub use schedule_free_radam::ScheduleFreeRAdam;
pub use schedule_free_sgd::ScheduleFreeSgd;
