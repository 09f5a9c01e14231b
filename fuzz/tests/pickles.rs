//! Untrusted pickles under a memory limit. It has a test file to itself, as the limit applies to the process.

use bitstep_fuzz::{pickle_seeds, resumed};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[test]
fn any_pickle_is_an_error_or_plain_values_within_a_gigabyte() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let limit = Some(1 << 30);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).expect("a lower limit");
    }
    let seeds = pickle_seeds();
    seeds.iter().for_each(|(name, pickle)| {
        println!("{name}");
        resumed(pickle);
    });
    let rng = || TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = |cases| Config { cases, failure_persistence: None, ..Config::default() };
    // Generated from random bytes, then mutated from seeds.
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..300);
    let made = TestRunner::new_with_rng(config(20_000), rng()).run(&bytes, |bytes| {
        resumed(&[&[0x81], &bytes[..]].concat());
        Ok(())
    });
    made.expect("no panic");
    let some = (0..seeds.len(), proptest::collection::vec((0..4096usize, 0..=255u8), 1..8));
    let changed = TestRunner::new_with_rng(config(20_000), rng()).run(&some, |(seed, changes)| {
        let mut pickle = seeds[seed].1.clone();
        for (at, byte) in changes {
            let at = 2 + at % (pickle.len() - 2);
            pickle[at] = byte;
        }
        resumed(&pickle);
        Ok(())
    });
    changed.expect("no panic");
}
