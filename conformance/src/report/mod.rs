//! Prints results: JSON lines, a table, failures, and in [`html`] a page.
//!
//! Everything here formats [`Report`]s that [`crate::judge`] made; the only decision is [`verdict`], whether a run is
//! a pass. Names and messages of untrusted files and programs go through [`text`] first.

pub mod groups;
pub mod html;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::json;

use crate::judge::bounds::Mode;
use crate::judge::check::{OffParts, Outcome, Report};
use crate::judge::spread::Spread;
use crate::report::text::{plain, plain_json};

/// One line of `--json`. An infinite error is written as the largest number.
#[must_use]
pub fn json_line(r: &Report) -> String {
    let number = |x: Option<f64>| x.map(|x| x.min(f64::MAX));
    let parts = if r.outcome == Outcome::Fail { r.off_parts() } else { OffParts::default() };
    let params: Vec<String> = parts.params.iter().map(|i| format!("p{i}")).collect();
    let line = json!({
        "case": r.case,
        "kind": r.kind,
        "name": r.name,
        "backend": r.backend,
        "dtype": r.dtype,
        "mode": r.mode.name(),
        "outcome": r.outcome.name(),
        "ulp": number(r.ulp),
        "bound": number(r.bound),
        "detail": r.detail,
        "diagnosis": r.diagnosis,
        "compared": r.compared,
        "zeros": r.zeros,
        "off": parts.off,
        "within": parts.within,
        "exact": parts.exact,
        "params_off": params,
        "steps_off": parts.steps,
        "only": r.only,
    });
    plain_json(&line.to_string())
}

/// Turns every pass with a zero of the other sign into a failure.
pub fn strict_zeros(reports: &mut [Report]) {
    for r in reports.iter_mut().filter(|r| r.outcome == Outcome::Pass && r.zeros > 0) {
        r.outcome = Outcome::Fail;
        let before = if r.detail.is_empty() { String::new() } else { format!("; {}", r.detail) };
        r.detail =
            format!("{} zeros of the other sign, of {} numbers{before}", r.zeros, r.compared);
    }
}

/// Counts of checks and values by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Checks within bounds.
    pub pass: usize,
    /// Checks with a value beyond its bound.
    pub fail: usize,
    /// Checks without an implementation.
    pub unsupported: usize,
    /// Checks without an answer, and files that are not cases.
    pub error: usize,
    /// Checks with nothing to compare.
    pub empty: usize,
    /// Checks in error that the deadline cut off.
    pub not_reached: usize,
    /// Values compared.
    pub compared: usize,
    /// Values beyond their bounds.
    pub off: usize,
    /// Zeros with the other sign.
    pub zeros: usize,
}

impl Totals {
    /// Counts outcomes.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Totals {
        let mut totals = Totals::default();
        for r in reports {
            *match r.outcome {
                Outcome::Pass => &mut totals.pass,
                Outcome::Fail => &mut totals.fail,
                Outcome::Unsupported => &mut totals.unsupported,
                Outcome::Error => &mut totals.error,
                Outcome::Empty => &mut totals.empty,
            } += 1;
            totals.not_reached += usize::from(!r.is_reached());
            totals.compared += r.compared;
            totals.off += r.off;
            totals.zeros += r.zeros;
        }
        totals
    }

    /// The number of checks.
    #[must_use]
    pub fn checks(&self) -> usize {
        self.pass + self.fail + self.unsupported + self.error + self.empty
    }
}

/// The summary of a run in one line; `Ok` if the run is a pass.
///
/// # Errors
/// The summary of a run in which something failed or erred, or nothing was compared.
pub fn verdict(reports: &[Report]) -> Result<String, String> {
    let t = Totals::of(reports);
    let Totals { pass, fail, unsupported, error, empty, compared, off, .. } = t;
    let mut line = format!(
        "{} checks: {pass} passed, {fail} failed, {unsupported} unsupported, {error} in error, {empty} empty",
        t.checks()
    );
    if t.not_reached > 0 {
        let _ = write!(line, " ({} of those in error not reached)", t.not_reached);
    }
    let _ = write!(line, "; {compared} numbers compared, {off} off");
    // Every backend must have compared something of its own.
    let backends: BTreeSet<&str> = reports.iter().map(|r| r.backend.as_str()).collect();
    let idle = backends
        .into_iter()
        .filter(|name| reports.iter().filter(|r| r.backend == *name).all(|r| r.compared == 0));
    let idle: Vec<_> = idle.map(plain).collect();
    if compared == 0 {
        line.push_str(": nothing compared, which is no pass");
    } else if !idle.is_empty() {
        let _ = write!(line, "; nothing compared of {}, which is no pass", idle.join(", "));
    }
    if fail + error == 0 && compared > 0 && idle.is_empty() { Ok(line) } else { Err(line) }
}

/// A row of the table: one name, backend and mode.
#[derive(Clone, Debug)]
pub struct Row {
    /// `KIND/NAME`.
    pub what: String,
    /// The backend.
    pub backend: String,
    /// How the cases were checked.
    pub mode: Mode,
    /// Checks by outcome.
    pub totals: Totals,
    /// The error that is the largest share of its bound, and that bound.
    pub worst: Option<(f64, f64)>,
    /// The diagnosis shared by more than half of the failed checks.
    pub diagnosis: Option<String>,
}

/// The rows of the table, in order.
#[must_use]
pub fn rows(reports: &[Report]) -> Vec<Row> {
    let mut groups: BTreeMap<(String, &str, Mode), Vec<&Report>> = BTreeMap::new();
    for r in reports {
        let what = if r.name.is_empty() {
            "(no case)".to_owned()
        } else {
            format!("{}/{}", r.kind, r.name)
        };
        groups.entry((what, &r.backend, r.mode)).or_default().push(r);
    }
    let row = |((what, backend, mode), reports): ((String, &str, Mode), Vec<&Report>)| {
        let figures = reports.iter().filter_map(|r| Some((r.ulp?, r.bound?)));
        let share = |(ulp, bound): &(f64, f64)| if *ulp == 0.0 { 0.0 } else { ulp / bound };
        let worst = figures.max_by(|a, b| share(a).total_cmp(&share(b)));
        let totals = Totals::of(reports.iter().copied());
        let mut votes = BTreeMap::<&String, usize>::new();
        reports
            .iter()
            .filter_map(|r| r.diagnosis.as_ref())
            .for_each(|d| *votes.entry(d).or_default() += 1);
        let most = votes.into_iter().find(|(_, n)| 2 * n > totals.fail).map(|(d, _)| d.clone());
        Row { what, backend: backend.to_owned(), mode, totals, worst, diagnosis: most }
    };
    groups.into_iter().map(row).collect()
}

/// The table as text.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let rows = rows(reports);
    let width = rows.iter().map(|r| r.what.len()).max().unwrap_or(4).max(4);
    let backend = rows.iter().map(|r| r.backend.len()).max().unwrap_or(7).max(7);
    let mut out = format!(
        "{:width$}  {:backend$}  mode    cases  passed  worst ULP at scale  bound\n",
        "name", "backend"
    );
    for r in rows {
        let t = r.totals;
        let cases = t.checks();
        let (ulp, bound) = match r.worst {
            Some((ulp, bound)) => (figure(ulp), figure(bound)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let _ = write!(
            out,
            "{:width$}  {:backend$}  {:6}  {cases:5}  {:6}  {ulp:>18}  {bound:>5}",
            plain(&r.what),
            plain(&r.backend),
            r.mode.name(),
            t.pass
        );
        for (n, what) in [
            (t.fail, "failed"),
            (t.unsupported, "unsupported"),
            (t.error, "in error"),
            (t.empty, "empty"),
            (t.zeros, "zeros of the other sign"),
        ] {
            if n > 0 {
                let _ = write!(out, "  {n} {what}");
            }
        }
        if let Some(diagnosis) = &r.diagnosis {
            let _ = write!(out, "  looks like: {}", plain(diagnosis));
        }
        out.push('\n');
    }
    out
}

/// Formats a number briefly.
#[must_use]
pub fn figure(x: f64) -> String {
    if x == x.trunc() && x.abs() < 1e6 {
        format!("{x}")
    } else if x.is_finite() && x.abs() < 1e4 {
        format!("{x:.2}")
    } else {
        format!("{x:.1e}")
    }
}

/// Describes a check that did not pass, with the command that reruns only this one; `more` is appended to its
/// arguments.
#[must_use]
pub fn trouble(r: &Report, more: &str) -> String {
    let (what, mode) = (r.outcome.name(), r.mode.name());
    let mut out = format!("{what}: {} ({}, {mode})", plain(&r.case), plain(&r.backend));
    if !r.note.is_empty() {
        let _ = write!(out, "\n    note   {}", plain(&r.note));
    }
    let _ = write!(out, "\n    detail {}", plain(&r.detail));
    let parts = r.off_parts().to_string();
    if r.outcome == Outcome::Fail && !parts.is_empty() {
        let _ = write!(out, "\n    where  {}", plain(&parts));
    }
    if let Some(diagnosis) = &r.diagnosis {
        let _ = write!(out, "\n    looks like: {}", plain(diagnosis));
    }
    if !r.name.is_empty() {
        let command = "cargo run --release -p bitstep-conformance -- verify";
        let bare = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
        let quoted = match &r.backend {
            name if name.chars().all(bare) => name.clone(),
            name => format!("'{}'", name.replace('\'', "'\\''")),
        };
        let (backend, case, more) = (plain(&quoted), plain(&r.case), plain(more));
        let _ = write!(out, "\n    again  {command}{more} --backend {backend} --only '{case}'");
    }
    out
}

/// Errors relative to derived tolerances, and tolerances in ULP: a line per name, backend and mode.
#[must_use]
pub fn tolerances(reports: &[Report]) -> String {
    let mut all = BTreeMap::<(&str, &str, &str), Spread>::new();
    for r in reports {
        all.entry((&r.backend, r.mode.name(), &r.name)).or_default().add(&r.spread);
    }
    let mut out = String::from(
        "error / tolerance: median, 99 %, worst; tolerance in ULP: median, 99 %; numbers; those judged by the table\n",
    );
    for ((backend, mode, name), spread) in all {
        let Spread { shares, ulps, by_table } = &spread;
        if shares.count() == 0 && *by_table == 0 {
            continue;
        }
        let of = |h: &crate::judge::spread::Histogram, part| figure(h.quantile(part));
        let (median, most, worst) = (of(shares, 0.5), of(shares, 0.99), figure(shares.largest));
        let (usual, wide) = (of(ulps, 0.5), of(ulps, 0.99));
        let count = shares.count();
        let _ = writeln!(
            out,
            "{:<28} {:<8} {mode:<6} {median:>8} {most:>8} {worst:>8} {usual:>9} {wide:>9} {count:>9} {by_table:>8}",
            plain(name),
            plain(backend)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figure_is_short() {
        for (x, want) in
            [(0.0, "0"), (4.0, "4"), (1.2345, "1.23"), (123456.0, "123456"), (2.5e7, "2.5e7")]
        {
            assert_eq!(figure(x), want);
        }
        assert_eq!(figure(f64::INFINITY), "inf");
    }
}
