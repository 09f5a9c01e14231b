//! FlashOptim's optimizers, over split weights and companded state.
//!
//! One rule per file; shared code is in `common`.

mod common;
pub mod flash_adam;
pub mod flash_lion;
pub mod flash_sgd;

#[cfg(feature = "alloc")]
pub(crate) use common::build;
pub use flash_adam::{FlashAdam, FlashAdamRule, FlashAdamW};
pub use flash_lion::FlashLion;
pub use flash_sgd::{FlashSgd, FlashSgdRule, FlashSgdW};
