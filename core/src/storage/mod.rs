//! How numbers rest in memory between steps.
//!
//! Plain numbers ([`Data`], [`DataMut`]) are read and written inside the loops.
//! Everything else is a [`Storage`]: it decodes a stretch of elements to `f32`
//! and encodes it again, a block at a time.

mod blocks;
#[cfg(feature = "alloc")]
mod coded;
mod companded;
mod data;
mod dynamic;
mod kahan;
mod maps;
#[cfg(feature = "alloc")]
mod piece;
mod scaled;
mod split;
mod stochastic;

pub use blocks::{Blocks, Codec};
#[cfg(feature = "alloc")]
pub use coded::{Coded, Element, Format, Part, Raw};
pub use companded::Companded;
pub use data::{Data, DataMut, MAX_BLOCK, Plain, Storage};
pub(crate) use data::{check_blocks, floor, numel, stretch, stretch_of};
pub use dynamic::Dynamic;
pub use kahan::Kahan;
#[cfg(feature = "alloc")]
pub(crate) use piece::{Piece, dithered, paired, plain};
pub use scaled::{Fp8, Scaled4, Scaled8};
pub use split::{Correction, Narrow, Split};
pub use stochastic::{Dithered, Noise, Stochastic};
