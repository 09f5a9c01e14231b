//! Code shared by the firmware of all emulated boards and by the host, which must all get identical bits.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(feature = "names")]
extern crate alloc;

pub mod board;
#[cfg(feature = "names")]
pub mod hash_runs;
pub mod net;
#[cfg(feature = "names")]
pub mod replay;
pub mod size;
