//! Golden files under a memory limit: reading any file of a few thousand bytes and checking the core on it stays
//! within the limit. An allocation beyond it aborts this program.
//!
//! `BITSTEP_FUZZ_SECONDS=3600 cargo test -p bitstep-fuzz --test goldens -- --nocapture` runs for an hour of CPU time,
//! whatever else the machine does.

use std::alloc::System;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitstep_fuzz::{goldens, is_golden};
use cap::Cap;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The limit on all allocations together: a few copies of a projection of 2²² elements.
const LIMIT: usize = 1 << 28;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, LIMIT);

/// The CPU time of this program.
#[cfg(unix)]
fn worked() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// The time since the first call, where CPU time is not available.
#[cfg(not(unix))]
fn worked() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// The CPU time, in milliseconds and plus 1, at which the current file began; 0 between files.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Ends the program if a file takes a minute: a hang, whatever the machine's speed.
fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let began = BEGAN.load(Ordering::Relaxed);
            if began > 0 && worked().as_millis() as u64 > began + 60_000 {
                eprintln!("a file that takes a minute");
                std::process::exit(1);
            }
        }
    });
}

/// Checks some files, seeded by the number of the round.
fn round(number: u64, cases: u32) {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..2000);
    let result = TestRunner::new_with_rng(config, rng).run(&bytes, |bytes| {
        BEGAN.store(worked().as_millis() as u64 + 1, Ordering::Relaxed);
        goldens(&bytes);
        BEGAN.store(0, Ordering::Relaxed);
        Ok(())
    });
    assert!(
        result.is_ok(),
        "round {number}: {}",
        result.err().map_or(String::new(), |e| e.to_string())
    );
}

#[test]
fn no_file_takes_more_than_its_share_of_memory() {
    watch();
    let seconds = std::env::var("BITSTEP_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let Some(seconds) = seconds else { return round(0, 4000) };
    let mut rounds = 0;
    while worked() < Duration::from_secs(seconds) {
        rounds += 1;
        round(rounds, 1000);
        if rounds.is_multiple_of(10) {
            println!("{} files, {} s", rounds * 1000, worked().as_secs());
        }
    }
    println!("{} files, {} s, no finding", rounds * 1000, worked().as_secs());
}

#[test]
fn many_of_the_files_drawn_are_cases() {
    // Otherwise the other test would check little but the parser's errors.
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..2000);
    let mut cases = 0;
    for _ in 0..1000 {
        use proptest::strategy::{Strategy, ValueTree};
        cases += usize::from(is_golden(&bytes.new_tree(&mut runner).unwrap().current()));
    }
    assert!(cases > 200, "{cases} of 1000");
}
