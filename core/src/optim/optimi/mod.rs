//! optimi's optimizers ([`StableAdamW`](super::StableAdamW) is one more).
//!
//! One rule per file; shared code is in `common`.

pub(crate) mod common;
pub mod optimi_adam;
pub mod optimi_adan;
pub mod optimi_lion;
pub mod optimi_radam;
pub mod optimi_ranger;
pub mod optimi_sgd;

pub use optimi_adam::OptimiAdam;
pub use optimi_adan::OptimiAdan;
pub use optimi_lion::OptimiLion;
pub use optimi_radam::OptimiRAdam;
pub use optimi_ranger::OptimiRanger;
pub use optimi_sgd::OptimiSgd;
