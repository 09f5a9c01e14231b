//! Tolerances are derived for every rule that can be tracked, and are narrow.

use std::collections::BTreeMap;

use bitstep_conformance::Core;
use bitstep_conformance::judge::bounds::{Bounds, Mode};
use bitstep_conformance::judge::check;
use bitstep_conformance::judge::spread::Spread;
use bitstep_conformance::suite::{self, CaseFilter};

/// A case of every optimizer.
const ONE_EACH: &str = "optimizer/*/{default,std}_f32";

fn spreads(only: &str) -> BTreeMap<(String, Mode), Spread> {
    let entries =
        suite::read(&[suite::committed()], &CaseFilter::new(Some(only)).unwrap()).unwrap();
    let bounds = Bounds::default();
    let mut all = BTreeMap::<_, Spread>::new();
    for case in entries.into_iter().filter_map(|entry| entry.case.ok()) {
        for report in check::case(&case, &Core, &bounds) {
            all.entry((report.name.clone(), report.mode)).or_default().add(&report.spread);
        }
    }
    all
}

#[test]
fn every_rule_is_followed() {
    let all = spreads(ONE_EACH);
    assert!(all.len() > 100, "{}", all.len());
    for ((name, mode), spread) in &all {
        assert!(spread.shares.count() > 0, "{name} {}", mode.name());
    }
}

#[test]
fn tolerances_are_narrow_and_hold() {
    for ((name, mode), spread) in spreads(ONE_EACH) {
        let (usual, worst) = (spread.ulps.quantile(0.5), spread.shares.largest);
        let most = if mode == Mode::Free { 500.0 } else { 50.0 };
        assert!(usual <= most, "{name} {}: {usual} ULP", mode.name());
        assert!(worst <= 1.0, "{name} {}: {worst} of the tolerance", mode.name());
    }
}
