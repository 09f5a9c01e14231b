//! The core as GPU kernels: one generic function a shape, and the lists of what there is of each.
//! No arithmetic: that is the core's.
//!
//! Every kernel gets a table of tensors, its number of lines, and the number of chunks of work.
#![no_std]
#![feature(abi_ptx, stdarch_nvptx, asm_experimental_arch)]

mod codecs;
mod gradients;
mod grid;
mod lowrank;
mod matrix;
mod newton_schulz;
mod norms;
mod product;
mod rules;
mod sums;
mod table;
