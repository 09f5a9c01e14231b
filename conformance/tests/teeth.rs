//! The goldens of every optimizer tell its rule from the neighbouring wrong ones.

use std::collections::BTreeMap;

use bitstep::args::Args;
use bitstep::named;
use bitstep_conformance::Core;
use bitstep_conformance::backend::Backend;
use bitstep_conformance::bounds::Bounds;
use bitstep_conformance::check::{self, Outcome};
use bitstep_conformance::golden::{Case, Data, Kind};
use bitstep_conformance::neighbour::NEIGHBOURS;
use bitstep_conformance::suite::{self, Only};
use rayon::prelude::*;

/// Optimizers whose step counter only counts: nothing is computed from it.
const UNUSED_STEP: &[&str] = &[
    "adadelta",
    "bnb_adagrad_32bit",
    "bnb_lars_32bit",
    "bnb_sgd_32bit",
    "lion_32bit",
    "paged_lion_32bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_32bit",
    "rprop",
];

fn harmless(name: &str, mistake: &str) -> bool {
    let about_steps = mistake.contains("bias correction") || mistake.starts_with("steps counted");
    about_steps && UNUSED_STEP.contains(&name)
}

/// Optimizer → its cases of moderate size.
fn cases() -> BTreeMap<String, Vec<Case>> {
    let mut out = BTreeMap::<String, Vec<Case>>::new();
    let entries = suite::read(&[suite::committed()], &Only::new(None).unwrap()).unwrap();
    for case in entries.into_iter().filter_map(|e| e.case.ok()) {
        if case.kind == Kind::Optimizer {
            out.entry(case.name.clone()).or_default().push(case);
        }
    }
    out
}

/// Whether a backend passes a case one step at a time.
fn passes(case: &Case, backend: &dyn Backend, bounds: &Bounds) -> bool {
    check::case(case, backend, bounds)[0].outcome == Outcome::Pass
}

#[test]
fn every_wrong_neighbour_is_rejected() {
    let bounds = Bounds::default();
    let all = cases();
    assert!(all.len() > 20, "the committed goldens are there");
    let complaints: Vec<String> = all
        .par_iter()
        .flat_map_iter(|(name, cases)| {
            let bounds = &bounds;
            NEIGHBOURS.iter().filter_map(move |neighbour| {
                let mut fitting = cases.iter().filter(|c| neighbour.applies(c)).peekable();
                fitting.peek()?;
                let wrong = neighbour.in_place_of(&Core);
                let rejected =
                    fitting.any(|c| passes(c, &Core, bounds) && !passes(c, &wrong, bounds));
                match (rejected, harmless(name, neighbour.name)) {
                    (true, false) | (false, true) => None,
                    (false, false) => Some(format!("{name}: {} is not noticed", neighbour.name)),
                    (true, true) => Some(format!("{name}: {} does harm", neighbour.name)),
                }
            })
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Arguments whose value makes no difference in a reference, though it has them: optimizer, argument, why.
const IDLE: &[(&str, &str, &str)] = &[];

/// A case as if one argument had its default.
fn with_default(case: &Case, argument: &str, default: &serde_json::Value) -> Option<Case> {
    let mut case = case.clone();
    let Data::Optimizer(data) = &mut case.data else { return None };
    let mut changed = false;
    for group in &mut data.groups {
        if let Some(value) = group.hyper.get_mut(argument) {
            changed |=
                value.as_f64() != default.as_f64() || value.as_f64().is_none() && value != default;
            *value = default.clone();
        }
    }
    changed.then_some(case)
}

fn json(value: &bitstep::args::Value) -> serde_json::Value {
    use bitstep::args::Value;
    match value {
        Value::None => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(i) => (*i).into(),
        Value::Float(x) => (*x).into(),
        Value::Str(s) => s.as_str().into(),
        Value::List(l) => l.iter().map(json).collect(),
        Value::Map(m) => m.iter().map(|(k, v)| (k.clone(), json(v))).collect(),
    }
}

#[test]
fn every_argument_that_is_ignored_is_noticed() {
    let bounds = Bounds::default();
    let all = cases();
    let complaints: Vec<String> = all
        .par_iter()
        .flat_map_iter(|(name, cases)| {
            let recipe = named::optimizer(name, &Args::new().with("lr", 1e-3)).ok();
            let arguments = recipe.map(|mut r| Args::of(r.rule.hyper())).unwrap_or_default();
            let arguments: Vec<_> =
                arguments.iter().map(|(k, v)| (k.to_owned(), json(v))).collect();
            let bounds = &bounds;
            arguments.into_iter().filter_map(move |(argument, default)| {
                let mut changed = cases
                    .iter()
                    .filter_map(|c| Some((c, with_default(c, &argument, &default)?)))
                    .peekable();
                let idle = IDLE.iter().any(|i| i.0 == name && i.1 == argument);
                if changed.peek().is_none() {
                    return Some(format!("{name}: no case sets {argument}"));
                }
                let noticed = changed.any(|(c, ignored)| {
                    passes(c, &Core, bounds) && !passes(&ignored, &Core, bounds)
                });
                match (noticed, idle) {
                    (true, false) | (false, true) => None,
                    (false, false) => Some(format!("{name}: {argument} may be ignored")),
                    (true, true) => Some(format!("{name}: {argument} is not idle")),
                }
            })
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
