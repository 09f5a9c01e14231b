//! Draws runs, checks them, and takes what fails to its end.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::explain;
use super::finding::{Arguments, Finding, Progress, Summary, is_property};
use super::oracle::Oracle;
use super::plan::{self, Plan, Profile};
use super::template::{self, Pool};
use super::{draw, properties, shrink};
use crate::backend::{Backend, BackendError};
use crate::golden::{Case, Data, GoldenError, Kind};
use crate::judge::bounds::Bounds;
use crate::judge::check::{self, Outcome, Report};
use crate::suite::{self, CaseFilter, Suite};

/// What to fuzz, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The suites that names and arguments are taken from.
    pub golden: Vec<Suite>,
    /// The names.
    pub only: CaseFilter,
    /// The case to stay near, instead of all cases of a name.
    pub like: Option<CaseFilter>,
    /// Which inputs are drawn.
    pub profile: Profile,
    /// The seed.
    pub seed: u64,
    /// The most runs.
    pub cases: u64,
    /// How long to draw.
    pub time: Option<Duration>,
    /// Whether to go on with a name after its first finding.
    pub all: bool,
}

/// Fails or errs, and how: what shrinking has to keep.
fn badness(reports: &[Report]) -> Option<Outcome> {
    let has = |wanted: Outcome| reports.iter().any(|r| r.outcome == wanted);
    [Outcome::Fail, Outcome::Error].into_iter().find(|&bad| has(bad))
}

/// The seed of a run.
fn own_seed(seed: u64, index: u64) -> u64 {
    // SplitMix64: neighbouring numbers give unrelated ones.
    let mut z =
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How often a draw is repeated that the core refuses.
const DRAWS: u64 = 8;

/// A run that was drawn, with the core's answers.
struct Drawn {
    case: Case,
    plan: Plan,
    /// Why draws before it were refused.
    refused: Vec<String>,
}

/// Run number `index` of a name.
fn drawn(
    pool: &Pool,
    profile: Profile,
    (seed, index): (u64, u64),
    oracle: &dyn Backend,
) -> Result<Drawn, Vec<String>> {
    let plans = plan::plans(profile);
    let mut refused = Vec::new();
    for n in 0..DRAWS {
        let name = pool.name.bytes().fold(seed, |h, b| own_seed(h, b.into()));
        let plan = plan::draw(&plans, own_seed(name, index * DRAWS + n));
        let case = plan.and_then(|plan| {
            Some((draw::case(pool, &plan, (seed, index), oracle.name() == "core")?, plan))
        });
        let Some((case, plan)) = case else {
            refused.push("such inputs do not fit the name".to_owned());
            continue;
        };
        match (Oracle { by: oracle, slots: Some(&pool.slots) }).answered(&case) {
            Ok(case) => return Ok(Drawn { case, plan, refused }),
            Err(BackendError::Unsupported(why) | BackendError::Failed(why)) => refused.push(why),
            Err(BackendError::NeedsState(slot)) => refused.push(format!("it lacks `{slot}`")),
        }
    }
    Err(refused)
}

/// How a run's arguments stand to their defaults.
fn arguments(plan: &Plan, hyper: &Map<String, Value>, defaults: &Map<String, Value>) -> Arguments {
    if hyper.iter().all(|(key, x)| defaults.get(key).is_none_or(|d| d == x)) {
        Arguments::Default
    } else if plan.changes.iter().any(|(_, change)| matches!(change, plan::Change::Edge(_))) {
        Arguments::Edge
    } else {
        Arguments::Ordinary
    }
}

/// Every how many runs the properties are asked for too.
const PROPERTIES_EVERY: u64 = 8;

/// Checks a run against its answers, and the properties that need none.
fn judged(case: &Case, backend: &dyn Backend, bounds: &Bounds, properties: bool) -> Vec<Report> {
    let mut reports = check::case(case, backend, bounds);
    let ran = reports.iter().all(|r| matches!(r.outcome, Outcome::Pass | Outcome::Empty));
    if properties && ran {
        reports.extend(properties::check(case, backend));
    }
    reports
}

/// What became of one run.
enum Outcomes {
    Refused(Vec<String>),
    Ran { drawn: Box<Drawn>, reports: Vec<Report> },
}

/// Why nothing was fuzzed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FuzzError {
    #[error(transparent)]
    Golden(#[from] GoldenError),
    #[error("no name of the suite fits")]
    NoName,
}

/// The templates that the options select.
fn pools(options: &Options) -> Result<Vec<Pool>, FuzzError> {
    let mut pools = template::pools(&options.golden, &options.only)?;
    if let Some(like) = &options.like {
        // Near one case: its arguments and types, with the name's other cases for the defaults alone.
        let mut near = Vec::new();
        for entry in suite::read(&options.golden, like)? {
            let case = entry.case?;
            let of = pools.iter().find(|p| p.kind == case.kind && p.name == case.name);
            let mut one = template::pool(case.kind, case.name.clone(), std::slice::from_ref(&case));
            if let Some(of) = of {
                one.defaults.clone_from(&of.defaults);
                one.slots.clone_from(&of.slots);
            }
            near.push(one);
        }
        pools = near;
    }
    pools
        .retain(|p| !p.templates.is_empty() && (p.kind != Kind::Optimizer || !p.dtypes.is_empty()));
    if pools.is_empty() { Err(FuzzError::NoName) } else { Ok(pools) }
}

/// Fuzzes a backend. The oracle is the core, or a program that runs the references.
///
/// # Errors
/// A suite that can't be read, or no name.
pub fn run(
    options: &Options,
    backend: &dyn Backend,
    oracle: &dyn Backend,
    progress: &Progress,
) -> Result<Summary, FuzzError> {
    let pools = pools(options)?;
    let start = Instant::now();
    let bounds = Bounds::default();
    let mut summary = Summary { of: pools.len(), ..Summary::default() };
    let mut open: Vec<usize> = (0..pools.len()).collect();
    let mut unsupported = vec![0u64; pools.len()];
    let over = || options.time.is_some_and(|time| start.elapsed() >= time);
    let mut next = 0u64;
    // Batches of a fixed size: which runs a name gets does not depend on the number of threads.
    while next < options.cases && !open.is_empty() && !over() {
        let batch = (options.cases - next).min(BATCH);
        let jobs: Vec<(u64, usize)> = (next..next + batch)
            .map(|index| (index, open[(index % open.len() as u64) as usize]))
            .collect();
        next += batch;
        let ran: Vec<Option<Outcomes>> = jobs
            .par_iter()
            .with_max_len(1)
            .map(|&(index, k)| {
                if over() {
                    return None;
                }
                progress.runs.fetch_add(1, Ordering::Relaxed);
                Some(match drawn(&pools[k], options.profile, (options.seed, index), oracle) {
                    Err(refused) => Outcomes::Refused(refused),
                    Ok(drawn) => {
                        let asked = index % PROPERTIES_EVERY == 0;
                        let reports = judged(&drawn.case, backend, &bounds, asked);
                        Outcomes::Ran { drawn: Box::new(drawn), reports }
                    }
                })
            })
            .collect();
        for ((index, k), outcome) in jobs.into_iter().zip(ran) {
            let pool = &pools[k];
            let Some(outcome) = outcome else { continue };
            match outcome {
                Outcomes::Refused(why) => {
                    summary.refuse(&pool.name, why);
                    unsupported[k] += 1;
                }
                Outcomes::Ran { mut drawn, reports } => {
                    summary.refuse(&pool.name, std::mem::take(&mut drawn.refused));
                    unsupported[k] += u64::from(count(&mut summary, pool, &drawn, &reports));
                    if badness(&reports).is_some() {
                        found(
                            &Parties { options, backend, oracle, bounds: &bounds },
                            &mut summary,
                            pool,
                            (index, *drawn),
                            &reports,
                        );
                    }
                }
            }
        }
        let done: BTreeSet<&str> = summary.findings.iter().map(|f| f.case.name.as_str()).collect();
        // A name that was refused so often, and never taken, is not there.
        open.retain(|&k| {
            let name = pools[k].name.as_str();
            (options.all || !done.contains(name))
                && (unsupported[k] < GIVE_UP || summary.names.contains_key(name))
        });
        progress.findings.store(summary.findings.len() as u64, Ordering::Relaxed);
        progress.names.store(summary.names.len() as u64, Ordering::Relaxed);
        progress.cells.store(summary.cells.len() as u64, Ordering::Relaxed);
    }
    summary.time = start.elapsed();
    Ok(summary)
}

/// Checks kept cases, and the properties that need no answers.
///
/// # Errors
/// A suite that can't be read.
pub fn replay(
    golden: &[Suite],
    only: &CaseFilter,
    backend: &dyn Backend,
) -> Result<Vec<Report>, FuzzError> {
    let bounds = Bounds::default();
    let mut all = Vec::new();
    for entry in suite::read(golden, only)? {
        all.extend(judged(&entry.case?, backend, &bounds, true));
    }
    Ok(all)
}

/// Runs between two looks at what failed.
const BATCH: u64 = 64;

/// After so many runs of a name that backend or oracle refuse, and none that they take, no more are drawn.
const GIVE_UP: u64 = 48;

/// Counts a run; whether the backend refused it.
fn count(summary: &mut Summary, pool: &Pool, drawn: &Drawn, reports: &[Report]) -> bool {
    if let Some(r) = reports.iter().find(|r| r.outcome == Outcome::Unsupported) {
        *summary.unsupported.entry((pool.name.clone(), r.detail.clone())).or_default() += 1;
        return true;
    }
    summary.numbers += reports.iter().map(|r| r.compared as u64).sum::<u64>();
    if reports.iter().all(|r| r.outcome == Outcome::Empty) {
        summary.empty += 1;
        return false;
    }
    summary.compared += 1;
    *summary.names.entry(pool.name.clone()).or_default() += 1;
    if let Data::Optimizer(data) = &drawn.case.data {
        let reference = pool.templates.get(drawn.plan.template.index(pool.templates.len()));
        let defaults = reference.map(|t| pool.defaults(t)).unwrap_or_default();
        let arguments = arguments(&drawn.plan, &drawn.case.hyper, &defaults);
        for (p, like) in data.params.iter().zip(&drawn.plan.params) {
            summary.cells.insert((like.grad, p.init.dtype, arguments));
        }
    }
    false
}

/// Who takes part.
struct Parties<'a> {
    options: &'a Options,
    backend: &'a dyn Backend,
    oracle: &'a dyn Backend,
    bounds: &'a Bounds,
}

/// Shrinks and explains a failing run, or counts it where one like it is known.
fn found(
    parties: &Parties<'_>,
    summary: &mut Summary,
    pool: &Pool,
    (index, drawn): (u64, Drawn),
    reports: &[Report],
) {
    let Some(bad) = badness(reports) else { return };
    let Parties { backend, bounds, .. } = *parties;
    let oracle = Oracle { by: parties.oracle, slots: Some(&pool.slots) };
    let known = summary.findings.iter_mut().find(|f| {
        f.case.name == pool.name && f.case.kind == pool.kind && badness(&f.reports) == Some(bad)
    });
    if let Some(known) = known {
        known.more += 1;
        return;
    }
    let reference = pool.templates.get(drawn.plan.template.index(pool.templates.len()));
    let defaults = reference.map(|t| pool.defaults(t)).unwrap_or_default();
    let property = is_property(reports);
    let still = |case: &Case| {
        if !pool.has_types_of(case) {
            return None;
        }
        let case = oracle.answered(case).ok()?;
        let reports = judged(&case, backend, bounds, property);
        (badness(&reports) == Some(bad) && is_property(&reports) == property).then_some(case)
    };
    let shrunk = shrink::shrink(&drawn.case, &defaults, still);
    let judge = |case: &Case| {
        if !pool.has_types_of(case) {
            return None;
        }
        let case = oracle.answered(case).ok()?;
        Some(judged(&case, backend, bounds, property))
    };
    let neighbours = neighbours(parties, pool, &drawn.case, &shrunk.case, index);
    let explanation = explain::explain(&shrunk.case, &defaults, &neighbours, &judge);
    let mut case = shrunk.case;
    case.note = explanation.words();
    let reports = judged(&case, backend, bounds, property);
    let tries = shrunk.tries;
    summary.findings.push(Finding { case, index, tries, reports, explanation, more: 0 });
}

/// Runs like a failing one, to tell mistakes apart: the first one, others with its arguments, and any others.
fn neighbours(
    parties: &Parties<'_>,
    pool: &Pool,
    first: &Case,
    shrunk: &Case,
    index: u64,
) -> Vec<Case> {
    let oracle = parties.oracle;
    let mut all = vec![first.clone()];
    for k in 0..NEIGHBOURS {
        let seed = own_seed(parties.options.seed, index ^ 0x5eed);
        let Ok(other) = drawn(pool, Profile::Ordinary, (seed, k), oracle) else { continue };
        if k % 2 == 0 {
            let mut case = other.case.clone();
            case.hyper = shrunk.hyper.clone();
            if let (Data::Optimizer(to), Data::Optimizer(from)) = (&mut case.data, &shrunk.data)
                && let [only] = &from.groups[..]
            {
                let params = (0..to.params.len()).collect();
                to.groups = vec![crate::golden::Group { params, hyper: only.hyper.clone() }];
            }
            let oracle = Oracle { by: oracle, slots: Some(&pool.slots) };
            all.extend(oracle.answered(&case));
        } else {
            all.push(other.case);
        }
    }
    all
}

/// How many neighbours are drawn.
const NEIGHBOURS: u64 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Core;
    use crate::judge::mutations::MUTATIONS;

    fn options(seed: u64) -> Options {
        Options {
            golden: vec![suite::committed()],
            only: CaseFilter::new(Some("optimizer/{adamw_torch,sgd}/*")).unwrap(),
            like: None,
            profile: Profile::All,
            seed,
            cases: 64,
            time: None,
            all: false,
        }
    }

    #[test]
    fn the_operation_is_named_at_which_an_answer_parts() {
        for (mistake, want) in [
            ("epsilon doubled", "the constant 1e-8, which would have to be "),
            ("epsilon inside the root", "√"),
        ] {
            let wrong = MUTATIONS.iter().find(|m| m.name == mistake).unwrap();
            let wrong = wrong.in_place_of(&Core);
            let ran = run(&options(1), &wrong, &Core, &Progress::default()).unwrap();
            let found = ran.findings.iter().find(|f| f.case.name == "adamw_torch").unwrap();
            let parts = found.explanation.parts.as_deref().unwrap_or_default();
            assert!(parts.contains(want), "{mistake}: {parts}");
            assert!(found.case.note.contains(parts), "{}", found.case.note);
        }
    }

    fn findings(seed: u64, threads: usize) -> Vec<(String, u64, usize)> {
        let options = options(seed);
        let wrong = MUTATIONS.iter().find(|m| m.name.contains("off by one")).unwrap();
        let wrong = wrong.in_place_of(&Core);
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let ran = threads.install(|| run(&options, &wrong, &Core, &Progress::default())).unwrap();
        // Not the file's bytes: its texts stand in no fixed order.
        let of = |f: &Finding| (format!("{:?}", f.case), f.index, f.tries);
        ran.findings.iter().map(of).collect()
    }

    #[test]
    fn equal_seeds_give_equal_findings_on_any_number_of_threads() {
        let first = findings(1, 1);
        assert!(!first.is_empty(), "nothing was found");
        assert!(first == findings(1, 2), "other findings on two threads");
        assert!(first != findings(2, 1), "equal findings of another seed");
    }
}
