//! Property-based differential fuzzing of any backend against the core.
//!
//! `plan` and `draw` make runs: hyper-parameters within the reference's ranges and at their ends, groups, types,
//! shapes, gradients by pattern, missing gradients, rates, late counters. `oracle` has the core answer them,
//! [`crate::judge`] compares under derived tolerances, `shrink` makes what fails as small as it can be, `explain` says
//! what it is, and [`write()`] keeps it as a case that `verify` replays. Equal seeds give equal runs, whatever the number
//! of threads. `docs/fuzzing.md` shows the way from nothing to a finding.

mod draw;
mod edit;
mod explain;
mod finding;
mod oracle;
mod plan;
mod properties;
mod report;
mod rule;
mod run;
mod shrink;
mod template;
mod values;
mod write;

pub use explain::Explanation;
pub use finding::{Arguments, Finding, Progress, Summary};
pub use oracle::{ORACLE, answered};
pub use plan::Profile;
pub use report::{finding, json, tally, text};
pub use rule::{RuleFuzz, Symmetry, fuzz_rule};
pub use run::{FuzzError, Options, replay, run};
pub use values::Pattern;
pub use write::{bytes, write};
