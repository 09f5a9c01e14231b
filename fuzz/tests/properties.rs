//! Every property over every rule and schedule that is listed, on arbitrary bytes.

use arbitrary::Unstructured;
use bitstep::registry::OPTIMIZERS;
use bitstep::schedule::NAMES;
use bitstep_fuzz::{PROPERTIES, SCHEDULE_PROPERTIES, ScheduleTrial, TARGETS, trial};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Runs `check` on random bytes; returns the failure, if any.
fn on_bytes(cases: u32, len: usize, what: &str, check: impl Fn(&[u8])) -> Option<String> {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..len);
    let result = runner.run(&bytes, |bytes| {
        check(&bytes);
        Ok(())
    });
    let text = |e: String| format!("{what}: {}", e.chars().take(1500).collect::<String>());
    result.err().map(|e| text(e.to_string()))
}

fn none(failures: impl Iterator<Item = String>) {
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_property_holds_for_every_rule() {
    let pairs = OPTIMIZERS.iter().flat_map(|entry| PROPERTIES.iter().map(move |p| (entry.name, p)));
    none(pairs.filter_map(|(rule, (name, property))| {
        on_bytes(100, 200, &format!("{name} of {rule}"), |bytes| {
            property(&trial(&mut Unstructured::new(bytes), rule).expect("bytes"));
        })
    }));
}

#[test]
fn every_property_holds_for_every_schedule() {
    let pairs = NAMES.iter().flat_map(|&s| SCHEDULE_PROPERTIES.iter().map(move |p| (s, p)));
    none(pairs.filter_map(|(schedule, (name, property))| {
        on_bytes(1000, 120, &format!("{name} of {schedule}"), |bytes| {
            let trial = ScheduleTrial::new(&mut Unstructured::new(bytes), schedule);
            property(&trial.expect("bytes"));
        })
    }));
}

#[test]
fn every_target_takes_any_bytes() {
    none(TARGETS.iter().filter_map(|(name, target)| on_bytes(2000, 300, name, target)));
}
