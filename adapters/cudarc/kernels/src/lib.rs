//! The core as GPU kernels: a generic function for each shape of rule, and lists of its instances.
//! The arithmetic is the core's; there is none here.
//!
//! Every kernel takes a table of descriptors, their number, and the number of chunks of work.
#![no_std]
#![feature(abi_ptx, stdarch_nvptx, asm_experimental_arch)]

mod codecs;
mod encoded;
mod gradients;
mod grid;
mod lowrank;
mod matrix;
mod newton_schulz;
mod norms;
mod product;
mod rules;
mod sums;
#[path = "../../src/table.rs"]
mod table;
