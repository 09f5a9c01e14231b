//! `pack OUT`: packs a selection of golden cases for firmware, with cases of every optimizer.

use std::collections::BTreeMap;
use std::error::Error;

use bitstep_conformance::golden::{Case, Kind};
use bitstep_conformance::{pack, suite};

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1).ok_or("usage: pack OUT")?;
    let entries = suite::read(&[suite::committed()], &suite::CaseFilter::new(None)?)?;
    // Each optimizer's default cases in every type, or if there are none its smallest case.
    let mut of_name = BTreeMap::<String, Vec<(u64, Case)>>::new();
    for entry in entries {
        let case = entry.case?;
        if case.kind == Kind::Optimizer {
            let size = std::fs::metadata(&case.path)?.len();
            of_name.entry(case.name.clone()).or_default().push((size, case));
        }
    }
    let names = of_name.len();
    let mut cases = Vec::new();
    for mut all in of_name.into_values() {
        all.sort_by(|(a, x), (b, y)| (a, &x.id).cmp(&(b, &y.id)));
        let default = |case: &Case| case.id.contains("/default_");
        let any_default = all.iter().any(|(_, case)| default(case));
        let smallest = all.first().map(|(_, case)| case.id.clone());
        let expected = all.into_iter().map(|(_, case)| case);
        cases.extend(expected.filter(|case| {
            if any_default { default(case) } else { Some(&case.id) == smallest.as_ref() }
        }));
    }
    let bytes = pack::pack(&cases).map_err(|e| format!("{e:?}"))?;
    println!("{} cases of {names} optimizers, {} bytes", cases.len(), bytes.len());
    std::fs::write(out, bytes)?;
    Ok(())
}
