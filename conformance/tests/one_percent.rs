//! `docs/one-percent.md` is up to date.

use bitstep_conformance::judge::percent;
use bitstep_conformance::suite::{self, CaseFilter};

#[test]
fn page_is_that_of_the_committed_cases() {
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(None).unwrap()).unwrap();
    let cases: Vec<_> = entries.into_iter().filter_map(|e| e.case.ok()).collect();
    let held = percent::held(&cases);
    assert!(held.len() > 70, "the committed goldens are there");
    let unheld = held.iter().find(|(_, h)| !h.held.contains(&percent::Argument::lr()));
    assert_eq!(unheld, None, "every learning rate is held");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/one-percent.md");
    let page = std::fs::read_to_string(page).expect("docs/one-percent.md");
    assert_eq!(
        page,
        percent::page(&held),
        "write docs/one-percent.md anew: its first lines say how"
    );
}
