//! Prints what was fuzzed and found: text, and JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::explain::error_of;
use super::finding::{Finding, Summary, is_property};
use crate::golden::{Case, Data};
use crate::report::text::{plain, plain_json};

/// A word for a shell.
fn quoted(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    if word.chars().all(bare) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The command that replays one finding alone.
fn again(finding: &Finding, backend: &str, folder: &Path) -> String {
    let (backend, case) = (quoted(backend), &finding.case.id);
    let folder = quoted(&folder.display().to_string());
    // `verify` compares numbers alone.
    let what = if is_property(&finding.reports) { "fuzz --replay" } else { "verify" };
    format!(
        "cargo run --release -p bitstep-conformance -- {what} --golden {folder} --backend {backend} --only '{case}'"
    )
}

/// How large a run is, in words.
fn size(case: &Case) -> String {
    let steps = format!("{} step{}", case.steps, if case.steps == 1 { "" } else { "s" });
    match &case.data {
        Data::Optimizer(data) => {
            let params = data.params.iter().map(|p| format!("{} {:?}", p.init.dtype, p.init.shape));
            format!("{steps} of {}", params.collect::<Vec<_>>().join(", "))
        }
        Data::Schedule(data) => format!("{steps} of {} groups", data.groups),
        Data::Gradient(data) => {
            let all = data.tensors.iter().map(|g| format!("{} {:?}", g.input.dtype, g.input.shape));
            all.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The numbers of a small run, a line each.
fn inputs(case: &Case) -> String {
    let mut out = String::new();
    let list = |all: Vec<f64>| {
        let shown: Vec<_> = all.iter().take(12).map(|x| format!("{x:?}")).collect();
        let more = if all.len() > 12 { ", …" } else { "" };
        format!("[{}{more}]", shown.join(", "))
    };
    if let Data::Optimizer(data) = &case.data {
        for (i, p) in data.params.iter().enumerate().take(3) {
            let _ = write!(out, "\n    p{i}     {}", list(p.init.to_f64s()));
            for t in 0..case.steps.min(4) {
                let grad =
                    if p.has_grad[t] { list(p.grad.row(t).to_f64s()) } else { "none".into() };
                let _ = write!(out, "\n    grad   {grad}, step {t}");
            }
        }
        if let Some(lr) = &data.lr {
            let _ = write!(out, "\n    lr     {}", list(lr.clone()));
        }
    }
    if let Data::Gradient(data) = &case.data {
        for (i, g) in data.tensors.iter().enumerate().take(3) {
            let _ = write!(out, "\n    g{i}     {}", list(g.input.to_f64s()));
        }
    }
    out
}

/// A finding in words, with the command that replays it.
#[must_use]
pub fn finding(f: &Finding, backend: &str, folder: Option<&Path>) -> String {
    let mut out = format!("found: {} ({})", plain(&f.case.id), plain(backend));
    let error = error_of(&f.reports);
    let error = if error.is_empty() { error } else { format!(": {error}") };
    let _ = write!(out, "\n    run    {}{error}", size(&f.case));
    let mut groups = vec![f.case.hyper.clone()];
    if let Data::Optimizer(data) = &f.case.data {
        groups = data.groups.iter().map(|g| g.hyper.clone()).collect();
    }
    for hyper in groups {
        let hyper = serde_json::Value::Object(hyper).to_string();
        let _ = write!(out, "\n    hyper  {}", plain(&hyper));
    }
    out.push_str(&inputs(&f.case));
    let _ = write!(out, "\n    note   {}", plain(&f.explanation.words()));
    let _ = write!(out, "\n    detail {}", plain(&f.explanation.detail));
    if let Some(diagnosis) = &f.explanation.diagnosis {
        let _ = write!(out, "\n    looks like: {}", plain(diagnosis));
    }
    let _ = write!(out, "\n    shrunk from run {} in {} tries", f.index, f.tries);
    if f.more > 0 {
        let _ = write!(out, "; {} more runs failed", f.more);
    }
    if let Some(folder) = folder {
        let _ = write!(out, "\n    again  {}", plain(&again(f, backend, folder)));
    }
    out
}

/// One line of `--json` for a finding.
#[must_use]
pub fn json(f: &Finding, backend: &str, folder: Option<&Path>) -> String {
    let e = &f.explanation;
    let line = json!({
        "case": f.case.id,
        "kind": f.case.kind.name(),
        "name": f.case.name,
        "backend": backend,
        "run": f.index,
        "size": size(&f.case),
        "hyper": f.case.hyper,
        "error": error_of(&f.reports),
        "off": e.off,
        "right": e.right,
        "diagnosis": e.diagnosis,
        "parts": e.parts,
        "conditions": e.conditions,
        "detail": e.detail,
        "tries": f.tries,
        "more": f.more,
        "again": folder.map(|folder| again(f, backend, folder)),
    });
    plain_json(&line.to_string())
}

/// The runs of each name: compared, not taken by the oracle, and why.
#[must_use]
pub fn tally(s: &Summary) -> String {
    let mut out = String::new();
    let refused = s.refused.keys().map(|(name, _)| name);
    let names: BTreeSet<&String> = s.names.keys().chain(refused).collect();
    for name in names {
        let compared = s.names.get(name).copied().unwrap_or_default();
        let _ = writeln!(out, "{name}: {compared} runs compared");
        let own = s.refused.iter().filter(|((other, _), _)| other == name);
        let mut why: Vec<(u64, &str)> = own.map(|((_, why), n)| (*n, why.as_str())).collect();
        why.sort_unstable_by(|a, b| b.cmp(a));
        for (n, why) in why {
            let _ = writeln!(out, "    {n} draws not taken: {}", plain(why));
        }
    }
    out
}

/// What was tried, in a few lines.
#[must_use]
pub fn text(s: &Summary) -> String {
    let mut out = String::new();
    let mut reasons = BTreeMap::<&str, (u64, Vec<&str>)>::new();
    for ((name, why), count) in &s.unsupported {
        let entry = reasons.entry(why).or_default();
        entry.0 += count;
        entry.1.push(name);
    }
    for (why, (count, mut names)) in reasons {
        names.dedup();
        let names =
            if names.len() > 4 { format!("{} names", names.len()) } else { names.join(", ") };
        let _ = writeln!(out, "unsupported: {names}, {count} runs: {}", plain(why));
    }
    let refused: u64 = s.refused.values().sum();
    let seconds = s.time.as_secs_f64();
    let _ = writeln!(
        out,
        "{} runs compared in {seconds:.1} s ({:.0} a second), {} numbers; {} of {} names, {} of {} combinations of \
         gradients, types and arguments; {} runs unsupported, {} empty, {refused} draws not taken by the oracle; {} found",
        s.compared,
        s.compared as f64 / seconds.max(1e-3),
        s.numbers,
        s.names.len(),
        s.of,
        s.cells.len(),
        s.all_cells(),
        s.unsupported.values().sum::<u64>(),
        s.empty,
        s.findings.len()
    );
    out
}
