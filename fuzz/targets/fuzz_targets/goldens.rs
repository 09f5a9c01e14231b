#![no_main]

use std::alloc::System;

// Whatever a file says, it takes no more memory than this: an allocation beyond it is a finding.
#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, 1 << 28);

libfuzzer_sys::fuzz_target!(|data: &[u8]| bitstep_fuzz::goldens(data));
