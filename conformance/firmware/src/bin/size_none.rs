//! The baseline: a firmware without an optimizer.
#![cfg_attr(target_os = "none", no_std, no_main)]

fn run() -> bool {
    bitstep_firmware::size::report(0, |_, n| core::hint::black_box(n) > 0)
}
bitstep_firmware::firmware!(run);
