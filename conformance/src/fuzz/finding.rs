//! What was tried, and what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::explain::Explanation;
use super::values::Pattern;
use crate::golden::Case;
use crate::judge::check::{Outcome, Report};
use crate::tensor::Dtype;

/// A failing run, shrunk and explained.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The smallest failing run, with the oracle's answers.
    pub case: Case,
    /// Which run of this seed it was found in.
    pub index: u64,
    /// How many runs were tried in shrinking.
    pub tries: usize,
    /// The checks of the smallest run.
    pub reports: Vec<Report>,
    /// What is known of the fault.
    pub explanation: Explanation,
    /// How many more runs of this name failed alike.
    pub more: u64,
}

/// What has been tried, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that were compared.
    pub compared: u64,
    /// Runs that the backend has no implementation for, by name and reason.
    pub unsupported: BTreeMap<(String, String), u64>,
    /// Draws that the oracle refused, by name and reason: no run came of them.
    pub refused: BTreeMap<(String, String), u64>,
    /// Runs without elements or steps.
    pub empty: u64,
    /// Numbers compared.
    pub numbers: u64,
    /// Names of which a run was compared, and how many.
    pub names: BTreeMap<String, u64>,
    /// All names.
    pub of: usize,
    /// Combinations of gradient pattern, type and hyper-parameters of which a run was compared.
    pub cells: BTreeSet<(Pattern, Dtype, Arguments)>,
    /// What failed.
    pub findings: Vec<Finding>,
    /// How long it took.
    pub time: Duration,
}

/// How hyper-parameters stand to their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arguments {
    /// All at their defaults.
    Default,
    /// Others, within their ranges.
    Ordinary,
    /// Some at the end of a range.
    Edge,
}

impl Summary {
    pub(super) fn refuse(&mut self, name: &str, why: Vec<String>) {
        for why in why {
            *self.refused.entry((name.to_owned(), why)).or_default() += 1;
        }
    }

    /// The number of combinations that [`cells`](Self::cells) can hold: those of every type in use.
    #[must_use]
    pub fn all_cells(&self) -> usize {
        Pattern::ALL.len() * 4 * 3
    }
}

/// How far a run is, for a progress line.
#[derive(Debug, Default)]
pub struct Progress {
    /// Runs so far.
    pub runs: AtomicU64,
    /// Findings so far.
    pub findings: AtomicU64,
    /// Names of which a run was compared.
    pub names: AtomicU64,
    /// Combinations of which a run was compared.
    pub cells: AtomicU64,
}

/// Whether a property failed, and no number.
pub(super) fn is_property(reports: &[Report]) -> bool {
    reports.iter().any(|r| r.outcome == Outcome::Fail && r.bound.is_none() && r.ulp.is_none())
}
