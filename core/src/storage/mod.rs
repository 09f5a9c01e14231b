//! How parameters and state are stored between steps: one storage format per file.
//!
//! Plain floats ([`Data`], [`DataMut`]) are read and written inside the loops. Every other format is a [`Storage`]: it
//! decodes a chunk of elements to `f32` and encodes it again, block by block. [`EncodedBuffer`] owns such memory,
//! [`StorageFormat`] names a format at run time. Nothing here is named after an optimizer: which slot is stored in which
//! format is in [`crate::optimizer`], the conversions of single floats in [`crate::float`].

mod block_quant;
mod block_quantized;
#[cfg(feature = "alloc")]
mod chunk;
mod companded;
mod data;
mod dynamic;
#[cfg(feature = "alloc")]
mod encoded;
mod kahan;
#[cfg(feature = "alloc")]
pub mod memory;
mod quant_maps;
mod split;
mod stochastic;

pub use block_quant::{BlockFp8, BlockQuant4, BlockQuant8};
pub use block_quantized::{BlockQuantized, Codec, code_shift};
#[cfg(feature = "alloc")]
pub(crate) use chunk::{Chunk, paired_chunks_mut, plain_chunks_mut, stochastic_chunks_mut};
pub use companded::Companded;
#[cfg(feature = "alloc")]
pub(crate) use data::common_block;
pub use data::numel;
pub use data::{Data, DataMut, MAX_BLOCK, Plain, Storage};
pub(crate) use data::{check_blocks, chunk_len, chunk_len_within, floor};
pub use dynamic::DynamicQuant8;
#[cfg(feature = "alloc")]
pub use encoded::{EncodedBuffer, RawBuffer, RawDtype, RawPart, StorageFormat};
pub use kahan::KahanPair;
pub use split::{CorrectionInt, HalfPrecision, SplitFloat};
pub use stochastic::{RoundingBits, StochasticRound, StochasticRounded};
