//! Failures of one optimizer with one backend, grouped by their diagnosis.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::judge::bounds::Mode;
use crate::judge::check::{Outcome, Report};
use crate::report::text::plain;

/// What stands in place of a diagnosis where there is none.
pub const UNKNOWN: &str = "no known mistake";

/// The failures of one diagnosis.
#[derive(Debug)]
pub struct Group<'a> {
    /// The diagnosis, if there is one.
    pub diagnosis: Option<&'a str>,
    /// `KIND/NAME`.
    pub what: String,
    /// The backend.
    pub backend: &'a str,
    /// The failed checks.
    pub checks: Vec<&'a Report>,
    /// Quantities that are off in some check.
    pub off: BTreeSet<String>,
    /// Quantities that are equal in every value of every check.
    pub exact: BTreeSet<String>,
    /// What they have in common, and most that is right has not.
    pub only: &'a [String],
}

impl Group<'_> {
    /// Which quantities are off and which exact.
    #[must_use]
    pub fn parts(&self) -> String {
        let part = |what: &str, of: &BTreeSet<String>| {
            let names: Vec<&str> = of.iter().map(String::as_str).collect();
            (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
        };
        let parts = [part("off", &self.off), part("exact", &self.exact)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Diagnosis, kind and name, backend.
type Key<'a> = (Option<&'a str>, (&'a str, &'a str), &'a str);

/// The failures in groups, those with a diagnosis first, the largest group first.
#[must_use]
pub fn of(reports: &[Report]) -> Vec<Group<'_>> {
    let mut groups = BTreeMap::<Key<'_>, Vec<&Report>>::new();
    for r in reports.iter().filter(|r| r.outcome == Outcome::Fail) {
        let key = (r.diagnosis.as_deref(), (r.kind.as_str(), r.name.as_str()), r.backend.as_str());
        groups.entry(key).or_default().push(r);
    }
    let mut groups: Vec<Group<'_>> =
        groups.into_iter().map(|(key, checks)| group(key, checks)).collect();
    groups.sort_by_key(|g| (g.diagnosis.is_none(), std::cmp::Reverse(g.checks.len())));
    groups
}

fn group<'a>((diagnosis, (kind, name), backend): Key<'a>, checks: Vec<&'a Report>) -> Group<'a> {
    let (mut off, mut exact) = (BTreeSet::new(), BTreeSet::new());
    let mut inexact = BTreeSet::new();
    // A free run carries every error on, so single steps say what is off, where there are any.
    let single = |r: &Report| r.mode == Mode::Step;
    let stepped = checks.iter().any(|r| single(r));
    for r in checks.iter().filter(|r| !stepped || single(r)) {
        let parts = r.off_parts();
        off.extend(parts.off.iter().cloned());
        inexact.extend(parts.off.into_iter().chain(parts.within));
        exact.extend(parts.exact);
    }
    exact.retain(|what| !inexact.contains(what));
    let (what, only) = (format!("{kind}/{name}"), &checks[0].only[..]);
    Group { diagnosis, what, backend, checks, off, exact, only }
}

/// The groups as text, a line each; empty without failures.
#[must_use]
pub fn text(reports: &[Report]) -> String {
    let mut out = String::new();
    for g in of(reports) {
        let _ = write!(
            out,
            "{}: {} ({}), {} checks; {}",
            plain(g.diagnosis.unwrap_or(UNKNOWN)),
            plain(&g.what),
            plain(g.backend),
            g.checks.len(),
            plain(&g.parts())
        );
        if !g.only.is_empty() {
            let _ = write!(out, "; only {}", plain(&g.only.join(", ")));
        }
        out.push('\n');
    }
    out
}
