#![doc = include_str!("../README.md")]
#![no_std]

/// The folder with the vectors. In a checkout it holds all of them.
pub const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden");
