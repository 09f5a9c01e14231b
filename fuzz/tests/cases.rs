//! Replays the seed corpus of the fuzzers, and earlier findings.

use std::fs;
use std::path::Path;

use bitstep_fuzz::TARGETS;

/// Runs every target on its files below a folder; returns their number.
fn replay(folder: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut count = 0;
    for dir in fs::read_dir(&root).expect("the folder").map(|d| d.expect("an entry").path()) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = TARGETS.iter().find(|(target, _)| *target == name);
        let (_, target) = target.unwrap_or_else(|| panic!("{folder}/{name}: no such target"));
        for file in fs::read_dir(&dir).expect("a folder").map(|f| f.expect("an entry").path()) {
            println!("{}", file.display());
            target(&fs::read(&file).expect("a file"));
            count += 1;
        }
    }
    count
}

#[test]
fn seeds_are_taken() {
    assert!(replay("corpus") >= 100);
}

#[test]
fn earlier_findings_stay_fixed() {
    assert!(replay("cases") >= 1);
}

#[test]
fn counter_at_its_end_is_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/rules/counter_at_its_end");
    let bytes = fs::read(path).expect("a file");
    let mut u = arbitrary::Unstructured::new(&bytes);
    assert_eq!(bitstep_fuzz::named(&mut u, &["never_panics"]), Ok("never_panics"));
    let trial = bitstep_fuzz::any_trial(&mut u).expect("a trial");
    assert_eq!((trial.name, trial.before), ("bnb_adagrad_32bit", u64::MAX));
}
