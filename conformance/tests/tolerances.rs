//! Tolerances are derived for every rule that can be tracked, and are narrow.

use std::collections::BTreeMap;

use bitstep_conformance::Core;
use bitstep_conformance::judge::bounds::{Bounds, Mode};
use bitstep_conformance::judge::check;
use bitstep_conformance::judge::spread::Spread;
use bitstep_conformance::suite::{self, CaseFilter};

/// Optimizers with matrix products, which are not tracked.
const BY_TABLE: &[&str] = &["muon", "galore_", "apollo_"];

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
fn every_rule_but_products_of_matrices_is_followed() {
    let all = spreads("optimizer/*/default_f32");
    assert!(all.len() > 100, "{}", all.len());
    for ((name, mode), spread) in &all {
        let followed = spread.shares.count() > 0;
        let expected = !BY_TABLE.iter().any(|start| name.starts_with(start));
        assert_eq!(followed, expected, "{name} {}", mode.name());
    }
}

#[test]
fn tolerances_are_narrow_and_hold() {
    for ((name, mode), spread) in spreads("optimizer/*/default_f32") {
        let (usual, worst) = (spread.ulps.quantile(0.5), spread.shares.largest);
        let most = if mode == Mode::Free { 500.0 } else { 50.0 };
        assert!(usual <= most, "{name} {}: {usual} ULP", mode.name());
        assert!(worst <= 1.0, "{name} {}: {worst} of the tolerance", mode.name());
    }
}
