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

pub use blocks::{BlockQuantized, Codec};
#[cfg(feature = "alloc")]
pub use coded::{EncodedBuffer, RawBuffer, RawDtype, RawPart, StorageFormat};
pub use companded::Companded;
pub use data::{Data, DataMut, MAX_BLOCK, Plain, Storage};
pub(crate) use data::{check_blocks, chunk_len, chunk_len_within, floor, numel};
pub use dynamic::DynamicQuant8;
pub use kahan::KahanPair;
#[cfg(feature = "alloc")]
pub(crate) use piece::{Chunk, paired_chunks_mut, plain_chunks_mut, stochastic_chunks_mut};
pub use scaled::{BlockFp8, BlockQuant4, BlockQuant8};
pub use split::{CorrectionInt, HalfPrecision, SplitFloat};
pub use stochastic::{RoundingBits, StochasticRound, StochasticRounded};
