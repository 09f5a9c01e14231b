//! The goldens of every optimizer kill all applicable mutations of its rule.

use std::collections::BTreeMap;

use bitstep::hyper::{Args, FieldMut, FieldVisitor, HyperParams};
use bitstep::registry;
use bitstep_conformance::Core;
use bitstep_conformance::backend::Backend;
use bitstep_conformance::golden::{Case, Data};
use bitstep_conformance::judge::bounds::Bounds;
use bitstep_conformance::judge::check::{Basis, Outcome};
use bitstep_conformance::judge::mutations::{MUTATIONS, NEIGHBOURS};
use bitstep_conformance::suite::{self, CaseFilter};
use globset::Glob;
use rayon::prelude::*;

/// Optimizers whose step counter does not affect the computation.
const UNUSED_STEP: &[&str] = &[
    "adadelta",
    "bnb_adagrad_32bit",
    "bnb_adagrad_8bit",
    "bnb_lars_32bit",
    "bnb_lars_8bit",
    "bnb_sgd_32bit",
    "bnb_sgd_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_32bit",
    "rmsprop_bnb_8bit",
];

fn harmless(name: &str, mistake: &str) -> bool {
    let about_steps = mistake.contains("bias correction") || mistake.starts_with("steps counted");
    // Rprop only distinguishes its first step.
    let first_only = name == "rprop" && mistake.starts_with("steps counted");
    first_only || about_steps && UNUSED_STEP.contains(&name)
}

/// The most elements times steps of a case here, as each is checked dozens of times.
const MODERATE: usize = 6000;

/// Optimizer → its cases of moderate size. Another test checks that the core passes them.
fn cases() -> BTreeMap<String, Vec<Case>> {
    let mut out = BTreeMap::<String, Vec<Case>>::new();
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(None).unwrap()).unwrap();
    for case in entries.into_iter().filter_map(|e| e.case.ok()) {
        let Data::Optimizer(data) = &case.data else { continue };
        let numbers: usize = data.params.iter().map(|p| p.init.len()).sum();
        if numbers * case.steps <= MODERATE {
            out.entry(case.name.clone()).or_default().push(case);
        }
    }
    out
}

/// Whether a backend passes a case in every mode.
fn passes(case: &Basis<'_>, backend: &dyn Backend, bounds: &Bounds) -> bool {
    case.check(backend, bounds).iter().all(|report| report.outcome == Outcome::Pass)
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
            let cases: Vec<_> = cases.iter().map(Basis::of).collect();
            MUTATIONS.iter().chain(NEIGHBOURS).filter_map(move |mutation| {
                let mut fitting = cases.iter().filter(|c| mutation.applies(c.case)).peekable();
                fitting.peek()?;
                let wrong = mutation.in_place_of(&Core);
                let rejected = fitting.any(|c| !passes(c, &wrong, bounds));
                match (rejected, harmless(name, mutation.name)) {
                    (true, false) | (false, true) => None,
                    (false, false) => Some(format!("{name}: {} is not noticed", mutation.name)),
                    (true, true) => Some(format!("{name}: {} does harm", mutation.name)),
                }
            })
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Arguments that choose between kernels, which differ in the last bit at most, within the bounds.
const KERNELS: &[&str] = &["foreach", "fused"];

/// Arguments that no golden can show by its values: (optimizers, arguments, reason).
const IDLE: &[(&str, &str, &str)] = &[
    (
        "{adam_weight_decay,keras_adam}",
        "{learning_rate,init_lr,lr,decay}",
        "cases give each step's rate",
    ),
    ("adamw_hf", "reference", "two implementations of one formula"),
    ("keras_adam", "weight_decay_rate", "with decay it is another optimizer"),
    ("bnb_{lamb,lars}_8bit", "max_unorm", "8-bit state is without a limit"),
    ("galore_adamw_8bit", "max_unorm", "what `percentile_clipping` becomes"),
    ("optimi_adamw", "decouple_wd", "always so"),
    ("{galore,apollo}_*", "update_proj_gap", "cases give the projectors"),
    ("bnb_adagrad_*", "{lr_decay,initial_accumulator_value}", "refused but for 0"),
    ("bnb_{lars,sgd}_*", "dampening", "the reference takes it and does nothing"),
    ("rmsprop_bnb*", "momentum", "the reference takes it and does nothing"),
    ("rmsprop_bnb*", "centered", "refused"),
    (
        "{bnb_*,*lion_*,*ademamix*,*rmsprop_bnb*,adamw_bnb_8bit,galore_adamw_8bit,paged_*}",
        "optim_bits",
        "part of the name",
    ),
    ("{*_32bit,ademamix,rmsprop_bnb}", "min_8bit_size", "nothing is of 8 bits"),
    ("paged_ademamix_8bit", "t_{alpha,beta3}", "the rule of `ademamix_8bit`, in other memory"),
];

/// Whether the table lists the argument.
fn idle(name: &str, argument: &str) -> bool {
    let fits = |glob: &str, text: &str| Glob::new(glob).unwrap().compile_matcher().is_match(text);
    IDLE.iter().any(|(names, arguments, _)| fits(names, name) && fits(arguments, argument))
}

/// A case with one argument set to its default.
fn with_default(case: &Case, argument: &str, default: &serde_json::Value) -> Option<Case> {
    let mut case = case.clone();
    let Data::Optimizer(data) = &mut case.data else { return None };
    let mut changed = false;
    for hyper in data.groups.iter_mut().map(|g| &mut g.hyper).chain([&mut case.hyper]) {
        if let Some(value) = hyper.get_mut(argument) {
            changed |=
                value.as_f64() != default.as_f64() || value.as_f64().is_none() && value != default;
            *value = default.clone();
        }
    }
    changed.then_some(case)
}

fn json(value: &bitstep::hyper::Value) -> serde_json::Value {
    use bitstep::hyper::Value;
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

/// The arguments that can change values.
fn used(source: &mut (impl HyperParams + ?Sized)) -> Vec<&'static str> {
    struct Used(Vec<&'static str>);
    impl FieldVisitor for Used {
        fn field(&mut self, name: &'static str, slot: FieldMut<'_>) {
            if !matches!(slot, FieldMut::Ignored | FieldMut::MustBeNone) {
                self.0.push(name);
            }
        }
    }
    let mut used = Used(Vec::new());
    source.fields(&mut used);
    used.0
}

#[test]
fn every_argument_that_is_ignored_is_noticed() {
    let bounds = Bounds::default();
    let all = cases();
    let complaints: Vec<String> = all
        .par_iter()
        .flat_map_iter(|(name, cases)| {
            let spec = registry::optimizer(name, Args::new().with("lr", 1e-3)).ok();
            let arguments: Vec<_> = spec.map_or(Vec::new(), |mut r| {
                let used = used(r.rule.hyper_params());
                let all = Args::of(r.rule.hyper_params());
                let known = all.iter().filter(|(k, _)| used.contains(k) && !KERNELS.contains(k));
                known.map(|(k, v)| (k.to_owned(), json(v))).collect()
            });
            let bounds = &bounds;
            arguments.into_iter().filter_map(move |(argument, default)| {
                let mut changed =
                    cases.iter().filter_map(|c| with_default(c, &argument, &default)).peekable();
                let idle = idle(name, &argument);
                if changed.peek().is_none() {
                    if idle {
                        return None;
                    }
                    return Some(format!("{name}: no case sets {argument}"));
                }
                let noticed = changed.any(|ignored| !passes(&Basis::of(&ignored), &Core, bounds));
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
