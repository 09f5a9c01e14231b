//! usage: bitstep-exhaustive [CHECK…]: all 2³² inputs of each check, or of those named.

use std::process::ExitCode;
use std::time::Instant;

use bitstep_exhaustive::{CHECKS, over};

fn main() -> ExitCode {
    let expected: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = expected.iter().find(|w| !CHECKS.iter().any(|(name, _)| name == w)) {
        eprintln!("no check {unknown}");
        return ExitCode::from(2);
    }
    let mut failed = false;
    for (name, check) in
        CHECKS.iter().filter(|c| expected.is_empty() || expected.iter().any(|w| w == c.0))
    {
        let start = Instant::now();
        match over(0, u32::MAX, 1, *check) {
            Ok(count) => {
                println!("{name}: {count} inputs right, {:.0} s", start.elapsed().as_secs_f64())
            }
            Err(e) => {
                println!("{name}: WRONG at {e}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}
