//! bitsandbytes' optimizers, computed in `f32` throughout.
//!
//! One rule per file; shared code is in `common`.

pub mod bnb_adagrad;
pub mod bnb_adam;
pub mod bnb_lamb;
pub mod bnb_lars;
pub mod bnb_rmsprop;
pub mod bnb_sgd;
mod common;

pub use bnb_adagrad::BnbAdagrad;
pub use bnb_adam::BnbAdam;
pub use bnb_lamb::BnbLamb;
pub use bnb_lars::BnbLars;
pub use bnb_rmsprop::BnbRmsprop;
pub use bnb_sgd::BnbSgd;
pub use common::BnbState;
#[cfg(feature = "alloc")]
pub(crate) use common::build;
