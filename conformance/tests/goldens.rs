//! The committed goldens as a test: every case passes in every mode, and no exemption is unused.

use bitstep_conformance::Core;
use bitstep_conformance::judge::bounds::Bounds;
use bitstep_conformance::judge::check::{self, Outcome};
use bitstep_conformance::suite::{self, CaseFilter};
use rayon::prelude::*;

#[test]
fn core_passes_every_committed_case_and_needs_every_exemption() {
    let bounds = Bounds::default();
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(None).unwrap()).unwrap();
    assert!(entries.len() >= 600, "{} cases", entries.len());
    // A case of a reference without inputs has nothing to compare, which is no pass either.
    let empty = ["gradient/accumulate/empty_f32"];
    let complaints: Vec<String> = entries
        .par_iter()
        .flat_map_iter(|entry| match &entry.case {
            Err(e) => vec![e.to_string()],
            Ok(case) => check::case(case, &Core, &bounds)
                .into_iter()
                .filter(|report| match empty.contains(&report.case.as_str()) {
                    true => report.outcome != Outcome::Empty,
                    false => report.outcome != Outcome::Pass || report.compared == 0,
                })
                .map(|report| {
                    format!("{} ({}): {}", report.case, report.mode.name(), report.detail)
                })
                .collect(),
        })
        .collect();
    let stale: Vec<String> = bounds.stale().iter().map(ToString::to_string).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(stale.is_empty(), "no case needs {}", stale.join("\n"));
}
