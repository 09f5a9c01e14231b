//! Everything that depends on the processor: vector units, square roots, table look-ups.
//!
//! Each has a portable form with the same bits. `unsafe` is allowed here, and nowhere else in this crate. Portable
//! numerical code is in [`crate::math`]; the loops that run on the vector units are next to what they implement.

#[cfg(all(feature = "std", target_arch = "x86_64"))]
pub(crate) mod bf16;
pub(crate) mod gather;
pub(crate) mod simd;
pub(crate) mod sqrt;
