//! Bugs planted in plain code of optimizers get the right name, and none a wrong one.

mod planted;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bitstep_conformance::backend::Backend;
use bitstep_conformance::golden::Data;
use bitstep_conformance::judge::bounds::{Bounds, Mode};
use bitstep_conformance::judge::check::{Outcome, Report};
use bitstep_conformance::report;
use bitstep_conformance::suite::{self, CaseFilter, Entry};
use planted::Planted;
use rayon::prelude::*;

/// The most elements times steps of a case here.
const MODERATE: usize = 6000;

const OPTIMIZERS: [&str; 6] =
    ["adam", "adamw_torch", "sgd", "rmsprop", "adafactor", "adafactor_torch"];

/// Optimizer → its cases of moderate size, read once.
static CASES: LazyLock<BTreeMap<&str, Vec<Entry>>> = LazyLock::new(|| {
    let only = format!("optimizer/{{{}}}/*_f{{32,64}}", OPTIMIZERS.join(","));
    let only = CaseFilter::new(Some(&only)).unwrap();
    let mut out = BTreeMap::<&str, Vec<Entry>>::new();
    for entry in suite::read(&[suite::committed()], &only).unwrap() {
        let case = entry.case.as_ref().unwrap();
        let Data::Optimizer(data) = &case.data else { continue };
        if data.params.iter().map(|p| p.init.len()).sum::<usize>() * case.steps <= MODERATE {
            let name = OPTIMIZERS.into_iter().find(|name| *name == case.name).unwrap();
            out.entry(name).or_default().push(entry);
        }
    }
    out
});

fn check(name: &str, bug: &'static str) -> Vec<Report> {
    let backends: Vec<Box<dyn Backend>> = vec![Box::new(Planted(bug))];
    suite::run(&CASES[name], &backends, &Bounds::default(), || {})
}

#[test]
fn the_plain_code_is_right_without_a_bug() {
    let reports: Vec<Report> = OPTIMIZERS.into_iter().flat_map(|name| check(name, "")).collect();
    let wrong: Vec<String> = reports
        .iter()
        .filter(|r| matches!(r.outcome, Outcome::Fail | Outcome::Error))
        .map(|r| format!("{} {}: {}", r.case, r.mode.name(), r.detail))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(reports.iter().filter(|r| r.outcome == Outcome::Pass).count() > 200);
}

/// The optimizer, the bug, and its name; an empty one for a bug that the suite does not know.
// For SGD, momentum of the buffer before the step is no Nesterov's momentum, and decay after the momentum is
// decoupled: the same formulas.
const BUGS: &[(&str, &str, &str)] = &[
    ("adamw_torch", "eps_inside", "epsilon inside the root"),
    ("adamw_torch", "eps_inside_uncorrected", "epsilon inside the root"),
    ("adamw_torch", "eps_early", "epsilon added before the bias correction"),
    ("adamw_torch", "eps_ignored", "epsilon ignored"),
    ("adamw_torch", "decay_coupled", "weight decay coupled into the gradient"),
    ("adamw_torch", "decay_ignored", "weight decay ignored"),
    ("adamw_torch", "decay_without_rate", "weight decay not multiplied by the learning rate"),
    ("adamw_torch", "decay_late", "weight decay on the other side of the update"),
    ("adamw_torch", "betas_swapped", "betas swapped"),
    ("adamw_torch", "m_by_beta2", "beta2 for the first moment"),
    ("adamw_torch", "both_by_beta2", "beta2 for the first moment"),
    ("adamw_torch", "v_by_beta1", "beta1 for the second moment"),
    ("adamw_torch", "correction_late", "bias correction off by one"),
    ("adamw_torch", "correction_early", "bias correction off by one"),
    ("adamw_torch", "uncorrected", "no bias correction"),
    ("adamw_torch", "first_uncorrected", "no bias correction of the first moment"),
    ("adamw_torch", "second_uncorrected", "no bias correction of the second moment"),
    ("adamw_torch", "correction_without_root", "no root of the second moment's bias correction"),
    ("adamw_torch", "rate_f32", "learning rate in f32"),
    ("adamw_torch", "f32", "hyper-parameters in f32"),
    ("adamw_torch", "compute_f32", "computed in f32"),
    ("adamw_torch", "max_not_kept", "amsgrad's maximum not kept"),
    ("adamw_torch", "max_not_stored", "amsgrad's maximum not kept"),
    ("adamw_torch", "max_not_used", "amsgrad's maximum not used"),
    ("adamw_torch", "max_of_corrected", "amsgrad's maximum of the corrected second moment"),
    ("adamw_torch", "amsgrad_ignored", "`amsgrad` ignored"),
    ("adamw_torch", "m_starts_at_gradient", "first moment started at the gradient"),
    ("adamw_torch", "negated", "gradient negated"),
    ("adamw_torch", "update_added", "update added, not subtracted"),
    ("adamw_torch", "maximize_ignored", "`maximize` ignored"),
    ("adamw_torch", "missing_is_zero", "missing gradient taken as zero"),
    ("adamw_torch", "first_rate", "learning rate not updated"),
    ("adamw_torch", "first_group", "arguments of a group ignored"),
    ("adamw_torch", "no_root", ""),
    ("adamw_torch", "eps_not_added", ""),
    ("adam", "decay_decoupled", "weight decay decoupled from the gradient"),
    ("adam", "m_by_beta2", "beta2 for the first moment"),
    ("adam", "eps_early", "epsilon added before the bias correction"),
    ("adam", "max_not_used", "amsgrad's maximum not used"),
    ("adam", "no_root", ""),
    ("sgd", "dampened_first", "dampening on the first step"),
    ("sgd", "dampening_ignored", "`dampening` ignored"),
    ("sgd", "momentum_averages", "momentum as an average: 1 - momentum times the gradient"),
    ("sgd", "nesterov_ignored", "`nesterov` ignored"),
    ("sgd", "nesterov_of_old", "`nesterov` ignored"),
    ("sgd", "nesterov_other_way", "Nesterov's momentum with the factor on the gradient"),
    ("sgd", "nesterov_without_gradient", "Nesterov's momentum without the gradient"),
    ("sgd", "nesterov_twice", "Nesterov's momentum with the buffer in place of the gradient"),
    ("sgd", "nesterov_stored", "Nesterov's step kept as the buffer"),
    ("sgd", "nesterov_always", "Nesterov's momentum where none is asked for"),
    ("sgd", "rate_in_buffer", "learning rate inside of the momentum"),
    ("sgd", "decay_after_momentum", "weight decay decoupled from the gradient"),
    ("sgd", "decay_decoupled", "weight decay decoupled from the gradient"),
    ("sgd", "decay_ignored", "weight decay ignored"),
    ("sgd", "rate_f32", "learning rate in f32"),
    ("sgd", "update_added", "update added, not subtracted"),
    ("sgd", "momentum_dampened", ""),
    ("rmsprop", "eps_inside", "epsilon inside the root"),
    ("rmsprop", "average_other_way", "alpha and 1 - alpha exchanged"),
    ("rmsprop", "centered_ignored", "`centered` ignored"),
    ("rmsprop", "rate_in_buffer", ""),
    ("adafactor", "clipped_late", "update clipped after the learning rate"),
    ("adafactor", "unclipped", "update not clipped"),
    ("adafactor", "unscaled", "`scale_parameter` ignored"),
    ("adafactor", "decay_without_rate", "weight decay not multiplied by the learning rate"),
    ("adafactor_torch", "clipped_late", "update clipped after the learning rate"),
    ("adafactor_torch", "unclipped", "update not clipped"),
    ("adafactor_torch", "absolute_rate", ""),
];

#[test]
fn planted_bugs_are_named() {
    let complaints = BUGS.par_iter().filter_map(|&(optimizer, bug, want)| {
        let reports = check(optimizer, bug);
        let failed = reports.iter().filter(|r| r.outcome == Outcome::Fail);
        let mut names = BTreeMap::<&str, usize>::new();
        for r in failed {
            *names.entry(r.diagnosis.as_deref().unwrap_or("")).or_default() += 1;
        }
        // Some checks of a bug may show too little for a name, but none may have a wrong one.
        let is_right = names.contains_key(want) && names.keys().all(|n| n.is_empty() || *n == want);
        (!is_right).then(|| format!("{optimizer} {bug}: wanted {want:?}: {names:?}"))
    });
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The bug, what its group of failures says, and what it has in common.
const WHERE: &[(&str, &str, &str, &str)] = &[
    ("adamw_torch", "rate_f32", "off: value; exact: step", "f64"),
    ("adamw_torch", "max_not_stored", "off: max_exp_avg_sq; exact: step", "`amsgrad`"),
    ("adamw_torch", "m_by_beta2", "off: exp_avg, value; exact: step", ""),
    ("adamw_torch", "one_element", "off: exp_avg, exp_avg_sq", "parameters of one element"),
    ("adamw_torch", "after_missing", "off: exp_avg, exp_avg_sq", "steps after a missing gradient"),
    ("adamw_torch", "first_step", "off: exp_avg, exp_avg_sq", "step 0"),
    ("sgd", "nesterov_ignored", "off: value", "`nesterov`"),
];

#[test]
fn failures_say_what_is_off_and_what_they_have_in_common() {
    for &(optimizer, bug, parts, only) in WHERE {
        let reports = check(optimizer, bug);
        let groups = report::groups::of(&reports);
        let group = &groups[0];
        let said = report::groups::text(&reports);
        assert!(group.parts().starts_with(parts), "{bug}: {said}");
        let of: Vec<&str> = group.only.iter().map(String::as_str).collect();
        assert!(if only.is_empty() { of.is_empty() } else { of.contains(&only) }, "{bug}: {said}");
        let line: serde_json::Value =
            serde_json::from_str(&report::json_line(group.checks[0])).unwrap();
        assert!(!line["off"].as_array().unwrap().is_empty(), "{line}");
        assert_eq!(line["only"].as_array().unwrap().len(), of.len(), "{line}");
    }
}

#[test]
fn the_first_tensor_that_is_off_is_named_and_not_the_last() {
    for (bug, first) in [("m_by_beta2", "exp_avg"), ("eps_early", "value")] {
        let reports = check("adamw_torch", bug);
        let failed = reports.iter().filter(|r| r.outcome == Outcome::Fail && r.mode == Mode::Step);
        let tensors: Vec<_> = failed.filter_map(|r| Some(&r.failure.as_ref()?.tensor)).collect();
        assert!(tensors.len() > 10);
        assert!(tensors.iter().all(|t| t.ends_with(first)), "{bug}: {tensors:?}");
    }
}

#[test]
fn a_page_groups_failures_by_diagnosis() {
    let reports = check("adamw_torch", "m_by_beta2");
    let page = report::html::page(&reports);
    let at = page.find("Failures by diagnosis").unwrap();
    assert!(page[at..].contains("<td class=fail>beta2 for the first moment<td>"));
    assert!(report::html::page(&check("adamw_torch", "")).find("Failures by diagnosis").is_none());
}
