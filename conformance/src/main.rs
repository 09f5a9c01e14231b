//! The command line of the suite.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitstep_conformance::backend::Backend;
use bitstep_conformance::golden::{Case, Data};
use bitstep_conformance::judge::bounds::Bounds;
use bitstep_conformance::judge::check::{self, Outcome, Report};
use bitstep_conformance::report::text::plain;
use bitstep_conformance::report::{self, Totals};
use bitstep_conformance::suite::{self, CaseFilter, Entry, Plan, Suite};
use bitstep_conformance::{
    add, backend::registry, exec, export, fuzz, judge::percent, report::html,
};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Checks optimizers, schedules and gradient strategies against golden vectors of the real references.
#[derive(Parser)]
#[command(name = "bitstep-conformance", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check backends; status 0 only if values were compared and nothing failed or erred.
    Verify {
        #[command(flatten)]
        which: CaseArgs,
        /// A backend, or exec:COMMAND or exec-loop:COMMAND; may be given several times [default: all that are compiled in]
        #[arg(long, value_name = "NAME")]
        backend: Vec<String>,
        #[command(flatten)]
        limit: TimeoutArgs,
        /// Write one JSON object a line
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Write a page with the table and plots of error over steps
        #[arg(long, value_name = "FILE.html")]
        report: Option<PathBuf>,
        #[command(flatten)]
        rules: Rules,
    },
    /// Look for inputs at which a backend is wrong: draw runs, compare with the core, shrink and explain what fails.
    /// Status 0 only if values were compared and nothing failed.
    Fuzz {
        #[command(flatten)]
        which: CaseArgs,
        /// The backend, or exec:COMMAND or exec-loop:COMMAND
        #[arg(long, value_name = "NAME", default_value = "core")]
        backend: String,
        #[command(flatten)]
        limit: TimeoutArgs,
        #[command(flatten)]
        what: FuzzArgs,
    },
    /// List the cases.
    List {
        #[command(flatten)]
        which: CaseArgs,
    },
    /// Show one case, and a backend's errors at each of its steps.
    Show {
        /// `KIND/NAME/CASE`, or a glob
        case: String,
        /// A suite's folder; may be given several times [default: the committed vectors]
        #[arg(long, value_name = "DIR")]
        golden: Vec<PathBuf>,
        /// The backend
        #[arg(long, value_name = "NAME", default_value = "core")]
        backend: String,
        #[command(flatten)]
        limit: TimeoutArgs,
    },
    /// Run the references on new random inputs, and write the vectors.
    Export {
        /// The seed of the inputs
        #[arg(long)]
        seed: u64,
        /// The suite's folder
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// One name instead of all
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Begin an optimizer: the rule's file from a template, its lines in the lists, its exporter case. CONTRIBUTING.md
    /// goes on from there.
    Add {
        /// The name in the project's tables, which everything about the optimizer has
        name: String,
        #[command(flatten)]
        what: NewArgs,
        /// Of an optimizer that is filled in, write anew what commands write: goldens, pages, kernels
        #[arg(long, conflicts_with = "reference")]
        regenerate: bool,
        /// The checkout [default: where this was built]
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Write the skeleton of a file that exports a reference.
    NewCase {
        /// The name in the project's tables
        name: String,
        /// The reference's import path, such as torch.optim.AdamW
        #[arg(long, value_name = "PATH")]
        reference: String,
        /// It is a schedule
        #[arg(long)]
        schedule: bool,
        /// Where the file goes [default: the exporter's cases]
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Print which arguments the committed vectors hold to one per cent: docs/one-percent.md.
    OnePercent,
    /// Answer requests, as a program behind `exec:` does with two paths and one behind `exec-loop:` without.
    Serve {
        /// The request
        #[arg(requires = "answer")]
        request: Option<PathBuf>,
        /// Where the answer goes
        answer: Option<PathBuf>,
        /// The backend that computes
        #[arg(long, value_name = "NAME", default_value = "core")]
        backend: String,
        #[command(flatten)]
        limit: TimeoutArgs,
    },
}

#[derive(Args)]
struct NewArgs {
    /// The reference's import path, such as torch.optim.AdamW
    #[arg(long, value_name = "PATH", required_unless_present = "regenerate")]
    reference: Option<String>,
    /// The Rust type [default: the name in CamelCase]
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<String>,
    /// What the reference computes 16-bit parameters in
    #[arg(long, default_value = "eager")]
    entry: add::Entry,
    /// The package that brings the reference, if the exporter has not got it
    #[arg(long, value_name = "NAME==VERSION")]
    package: Option<String>,
}

#[derive(Args)]
struct Rules {
    /// Fail on unsupported checks too
    #[arg(long)]
    strict: bool,
    /// Fail on zeros with the other sign too
    #[arg(long)]
    strict_zeros: bool,
    /// Check new random inputs, with the core as the oracle
    #[arg(long, value_name = "SEED")]
    fresh: Option<u64>,
    /// The seed of the order in which programs get the cases [default: random, and printed]
    #[arg(long, value_name = "SEED")]
    shuffle: Option<u64>,
    /// The time limit of the whole run; checks that are not reached are errors
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<f64>,
    /// Print errors relative to their tolerances, for each name
    #[arg(long)]
    tolerances: bool,
}

#[derive(Args)]
struct FuzzArgs {
    /// How long to draw runs; without it and --cases, 60
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// How many runs to draw
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// The seed of the runs
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Where findings are written, as a suite of their own
    #[arg(long, value_name = "DIR", default_value = "fuzz-findings")]
    out: PathBuf,
    /// Only arguments and types of this case
    #[arg(long, value_name = "CASE")]
    like: Option<String>,
    /// Which inputs are drawn
    #[arg(long, value_enum, default_value_t = Inputs::All)]
    profile: Inputs,
    /// What is right: the core, what the references do (with the exporter's Python), or a program (exec-loop:COMMAND)
    #[arg(long, value_name = "NAME", default_value = "core")]
    oracle: String,
    /// Draw nothing: check the cases of --golden again, properties included
    #[arg(long)]
    replay: bool,
    /// Go on with a name after its first finding
    #[arg(long)]
    go_on: bool,
    /// Print for each name how many runs were compared, and which draws the oracle did not take
    #[arg(long)]
    tally: bool,
    /// Write one JSON object a finding
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with the findings
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Which inputs are drawn.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Inputs {
    /// What occurs in training
    Ordinary,
    /// The ends of ranges, NaN, infinity, denormals, cancellation, ties
    Edges,
    /// Both
    All,
}

#[derive(Args)]
struct TimeoutArgs {
    /// The time limit of a program for one answer
    #[arg(long, value_name = "SECONDS", default_value_t = exec::LIMIT.as_secs_f64())]
    timeout: f64,
}

impl TimeoutArgs {
    fn get(&self) -> Result<Duration> {
        seconds("timeout", self.timeout)
    }
}

/// Parses an option in seconds.
fn seconds(option: &str, value: f64) -> Result<Duration> {
    let of = Duration::try_from_secs_f64(value).ok().filter(|d| !d.is_zero());
    let expected = || format!("--{option} is {value}, wanted seconds above 0");
    Ok(of.filter(|d| d.as_secs() < 1 << 32).ok_or_else(expected)?)
}

#[derive(Args)]
struct CaseArgs {
    /// A suite's folder; may be given several times [default: the committed vectors]
    #[arg(long, value_name = "DIR")]
    golden: Vec<PathBuf>,
    /// Only cases that fit: a glob over KIND/NAME/CASE, or over the name or the case alone
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
}

impl CaseArgs {
    fn golden(&self) -> Vec<Suite> {
        if self.golden.is_empty() {
            return vec![suite::committed()];
        }
        self.golden.iter().cloned().map(Suite::Folder).collect()
    }

    fn read(&self) -> Result<(Vec<Entry>, CaseFilter)> {
        let only = CaseFilter::new(self.only.as_deref())?;
        let entries = suite::read(&self.golden(), &only)?;
        if entries.is_empty() {
            return Err(format!("no case fits `{}`", self.only.as_deref().unwrap_or("")).into());
        }
        Ok((entries, only))
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Verify { which, backend, limit, json, report, rules } => {
            limit.get().and_then(|limit| verify(&which, &backend, limit, json, report, &rules))
        }
        Command::Fuzz { which, backend, limit, what } => {
            limit.get().and_then(|limit| fuzz(&which, &backend, limit, &what))
        }
        Command::List { which } => list(&which),
        Command::Show { case, golden, backend, limit } => limit
            .get()
            .and_then(|limit| show(&CaseArgs { golden, only: Some(case) }, &backend, limit)),
        Command::Export { seed, out, only } => export(seed, &out, only.as_deref()),
        Command::Add { name, what, regenerate, root } => {
            let root = root.unwrap_or_else(add::checkout);
            match &what.reference {
                Some(reference) if !regenerate => begin(&root, &name, reference, &what),
                _ => regenerated(&root, &name),
            }
        }
        Command::NewCase { name, reference, schedule, folder } => {
            new_case(&name, &reference, schedule, folder)
        }
        Command::OnePercent => one_percent(),
        Command::Serve { request, answer, backend, limit } => {
            limit.get().and_then(|limit| serve(request.zip(answer), &backend, limit))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {}", plain(&e.to_string()));
            ExitCode::from(2)
        }
    }
}

/// The named backends, or all that are compiled in.
fn backends(names: &[String], limit: Duration) -> Result<Vec<Box<dyn Backend>>> {
    let names: Vec<&str> = match names {
        [] => registry::NAMES.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    names.into_iter().map(|name| Ok(registry::backend(name, limit)?)).collect()
}

fn verify(
    which: &CaseArgs,
    names: &[String],
    limit: Duration,
    json: Option<PathBuf>,
    html: Option<PathBuf>,
    rules: &Rules,
) -> Result<bool> {
    let start = Instant::now();
    let deadline = rules.deadline.map(|s| seconds("deadline", s)).transpose()?;
    exec::own_process()?;
    let backends = backends(names, limit)?;
    // Opened before the work, so that a path that can't be written does not cost a run.
    let mut json = json.map(File::create).transpose()?.map(BufWriter::new);
    let mut html = html.map(File::create).transpose()?;
    let (mut entries, only) = which.read()?;
    if let Some(seed) = rules.fresh {
        entries = suite::fresh(entries, seed);
    }
    let cases = entries.len();
    let has_core = backends.iter().any(|b| b.name() == "core");
    let programs = backends.iter().any(|b| b.name().starts_with("exec"));
    // A program must not recognize a case by its position.
    let drawn = || programs.then(|| fastrand::u64(..1 << 32));
    let shuffle = rules.shuffle.or_else(drawn);
    let plan = Plan { shuffle, until: deadline.map(|limit| start + limit) };
    let bounds = Arc::new(Bounds::default());
    let bar = progress(cases * backends.len());
    let step = bar.clone();
    let mut reports = suite::run_as(&plan, entries, backends, &bounds, move || step.inc(1));
    exec::finish();
    bar.finish_and_clear();
    if rules.strict_zeros {
        report::strict_zeros(&mut reports);
    }

    if let Some(out) = &mut json {
        for r in &reports {
            writeln!(out, "{}", report::json_line(r))?;
        }
        out.flush()?;
    }
    if let Some(out) = &mut html {
        out.write_all(html::page(&reports).as_bytes())?;
    }

    let mut out = std::io::stdout().lock();
    write!(out, "{}", report::table(&reports))?;
    unsupported(&mut out, &reports)?;
    if rules.tolerances {
        write!(out, "\n{}", report::tolerances(&reports))?;
    }
    let groups = report::groups::text(&reports);
    if !groups.is_empty() {
        write!(out, "\nfailures by diagnosis:\n{groups}")?;
    }
    let mut more: String =
        which.golden.iter().map(|g| format!(" --golden {}", g.display())).collect();
    more.extend(rules.fresh.map(|seed| format!(" --fresh {seed}")));
    let reached = reports.iter().filter(|r| r.is_reached());
    for r in reached.filter(|r| matches!(r.outcome, Outcome::Fail | Outcome::Error)) {
        writeln!(out, "\n{}", report::trouble(r, &more))?;
    }
    let all = rules.fresh.is_none() && reports.iter().all(Report::is_reached);
    let judges = all && has_core && suite::is_committed(&which.golden(), &only);
    let stale = if judges { bounds.stale() } else { Vec::new() };
    for exemption in &stale {
        writeln!(out, "\nstale: no committed case needs the exemption {exemption}")?;
    }
    if let Some(seed) = shuffle {
        writeln!(out, "\norder of the cases: --shuffle {seed}")?;
    }
    let unsupported = Totals::of(&reports).unsupported;
    let (ok, verdict) = match report::verdict(&reports) {
        Ok(line) => (stale.is_empty() && !(rules.strict && unsupported > 0), line),
        Err(line) => (false, line),
    };
    writeln!(out, "\n{cases} cases, {verdict}")?;
    Ok(ok)
}

/// Prints each reason for unsupported checks once.
fn unsupported(out: &mut impl Write, reports: &[Report]) -> Result<()> {
    let mut reasons = std::collections::BTreeMap::<(&str, &str, &str), usize>::new();
    for r in reports.iter().filter(|r| r.outcome == Outcome::Unsupported) {
        *reasons.entry((&r.backend, &r.name, &r.detail)).or_default() += 1;
    }
    for ((backend, name, why), count) in reasons {
        let (name, backend, why) = (plain(name), plain(backend), plain(why));
        writeln!(out, "unsupported: {name} ({backend}), {count} checks: {why}")?;
    }
    Ok(())
}

fn progress(total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if !std::io::stderr().is_terminal() || !std::io::stdout().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Whether a folder is the committed suite or lies in it: only what references wrote belongs there.
fn is_in_suite(folder: &Path) -> bool {
    let Suite::Folder(suite) = suite::committed() else { return false };
    let Ok(suite) = suite.canonicalize() else { return false };
    let known = folder.ancestors().find_map(|dir| dir.canonicalize().ok());
    known.is_some_and(|known| known.starts_with(suite))
}

fn fuzz(which: &CaseArgs, name: &str, limit: Duration, what: &FuzzArgs) -> Result<bool> {
    let start = Instant::now();
    exec::own_process()?;
    let backend = registry::backend(name, limit)?;
    if is_in_suite(&what.out) {
        return Err(
            format!("--out is {}, in the suite of the references", what.out.display()).into()
        );
    }
    if what.replay {
        let only = CaseFilter::new(which.only.as_deref())?;
        let reports = fuzz::replay(&which.golden(), &only, &*backend)?;
        drop(backend);
        exec::finish();
        let mut out = std::io::stdout().lock();
        for r in reports.iter().filter(|r| matches!(r.outcome, Outcome::Fail | Outcome::Error)) {
            writeln!(out, "{}\n", report::trouble(r, ""))?;
        }
        let verdict = report::verdict(&reports);
        writeln!(out, "{}", verdict.as_ref().unwrap_or_else(|line| line))?;
        return Ok(verdict.is_ok());
    }
    let mut json = what.json.as_ref().map(File::create).transpose()?.map(BufWriter::new);
    let mut html = what.report.as_ref().map(File::create).transpose()?;
    let time = match (what.seconds, what.cases) {
        (None, Some(_)) => None,
        (given, _) => Some(seconds("seconds", given.unwrap_or(60.0))?),
    };
    let options = fuzz::Options {
        golden: which.golden(),
        only: CaseFilter::new(which.only.as_deref())?,
        like: what.like.as_deref().map(|like| CaseFilter::new(Some(like))).transpose()?,
        profile: match what.profile {
            Inputs::Ordinary => fuzz::Profile::Ordinary,
            Inputs::Edges => fuzz::Profile::Edges,
            Inputs::All => fuzz::Profile::All,
        },
        seed: what.seed,
        cases: what.cases.unwrap_or(u64::MAX),
        time,
        all: what.go_on,
    };
    let progress = Arc::new(fuzz::Progress::default());
    let bar = progress_line(&progress, start);
    let oracle = match what.oracle.as_str() {
        // It imports a name's packages when it is first asked for it, which takes far longer than an answer.
        "reference" => registry::backend(&export::reference()?, limit.max(STARTS))?,
        name => registry::backend(name, limit)?,
    };
    let summary = fuzz::run(&options, &*backend, &*oracle, &progress);
    drop((backend, oracle));
    exec::finish();
    bar.finish_and_clear();
    let summary = summary?;

    let mut out = std::io::stdout().lock();
    for f in &summary.findings {
        fuzz::write(&f.case, &what.out)?;
        writeln!(out, "{}\n", fuzz::finding(f, name, Some(&what.out)))?;
        if let Some(json) = &mut json {
            writeln!(json, "{}", fuzz::json(f, name, Some(&what.out)))?;
        }
    }
    if let Some(json) = &mut json {
        json.flush()?;
    }
    if let Some(html) = &mut html {
        let reports: Vec<Report> =
            summary.findings.iter().flat_map(|f| f.reports.clone()).collect();
        html.write_all(html::page(&reports).as_bytes())?;
    }
    if what.tally {
        write!(out, "{}", fuzz::tally(&summary))?;
    }
    write!(out, "{}", fuzz::text(&summary))?;
    if summary.compared == 0 {
        writeln!(out, "nothing compared, which is no pass")?;
    }
    Ok(summary.findings.is_empty() && summary.compared > 0)
}

/// The least time that the references have for an answer.
const STARTS: Duration = Duration::from_secs(300);

/// A line with runs a second, names and combinations covered, and findings so far.
fn progress_line(progress: &Arc<fuzz::Progress>, start: Instant) -> ProgressBar {
    use std::sync::atomic::Ordering::Relaxed;
    let bar = ProgressBar::new_spinner();
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    let (own, progress) = (bar.clone(), progress.clone());
    std::thread::spawn(move || {
        while !own.is_finished() {
            let [runs, names, cells, found] =
                [&progress.runs, &progress.names, &progress.cells, &progress.findings]
                    .map(|count| count.load(Relaxed));
            let rate = runs as f64 / start.elapsed().as_secs_f64().max(1e-3);
            own.set_message(format!(
                "{runs} runs, {rate:.0} a second; {names} names, {cells} combinations; {found} found"
            ));
            own.tick();
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    bar
}

fn list(which: &CaseArgs) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut ok = true;
    for entry in which.read()?.0 {
        match entry.case {
            Ok(c) => {
                let (id, dtype, note) = (plain(&c.id), c.dtype(), plain(&c.note));
                writeln!(out, "{id}  {dtype}  {} steps  {note}", c.steps)?;
            }
            Err(e) => {
                ok = false;
                writeln!(out, "error: {}", plain(&e.to_string()))?;
            }
        }
    }
    Ok(ok)
}

fn show(which: &CaseArgs, backend: &str, limit: Duration) -> Result<bool> {
    exec::own_process()?;
    let backends = backends(&[backend.to_owned()], limit)?;
    let mut ok = true;
    for entry in which.read()?.0 {
        let case = entry.case?;
        let mut out = std::io::stdout().lock();
        describe(&mut out, &case)?;
        for (tensor, total, shares) in check::origins(&case) {
            let shares: Vec<_> =
                shares.iter().map(|(name, x)| format!("{name} {:.0} %", 100.0 * x)).collect();
            let from = match (total == 0.0, shares.is_empty()) {
                (true, _) => "0, as every operation is exact or rounds at one place".to_owned(),
                (_, true) => "several operations, none of which matters alone".to_owned(),
                _ => shares.join(", "),
            };
            let tensor = format!("tolerance of {}", plain(&tensor));
            writeln!(out, "  {tensor:32} {from}")?;
        }
        let bounds = Bounds::default();
        let entry = [Entry { file: entry.file, case: Ok(case) }];
        for r in suite::run(&entry, &backends, &bounds, || {}) {
            ok &= !matches!(r.outcome, Outcome::Fail | Outcome::Error);
            let figures = match (r.ulp, r.bound) {
                (Some(ulp), Some(bound)) => {
                    format!(": {} ULP, bound {}", report::figure(ulp), report::figure(bound))
                }
                _ => String::new(),
            };
            let backend = plain(&r.backend);
            writeln!(out, "\n{backend} {} {}{figures}", r.mode.name(), r.outcome.name())?;
            if !r.detail.is_empty() {
                writeln!(out, "  {}", plain(&r.detail))?;
            }
            for (what, history) in &r.history {
                let history: Vec<_> = history.iter().map(|&x| report::figure(x)).collect();
                writeln!(out, "  {:20} {}", plain(what), history.join(" "))?;
            }
        }
    }
    drop(backends);
    exec::finish();
    Ok(ok)
}

fn describe(out: &mut impl Write, case: &Case) -> Result<()> {
    writeln!(out, "{}\n  {}", plain(&case.id), plain(&case.path.display().to_string()))?;
    for (key, value) in &case.metadata {
        writeln!(out, "  {:10} {}", plain(key), plain(value))?;
    }
    match &case.data {
        Data::Optimizer(data) => {
            for (i, p) in data.params.iter().enumerate() {
                let state: Vec<_> = p
                    .state
                    .iter()
                    .map(|(slot, t)| format!("{slot} {} {:?}", t.dtype, t.shape))
                    .collect();
                let (dtype, shape, state) = (p.init.dtype, &p.init.shape, state.join(", "));
                writeln!(out, "  p{i}         {dtype} {shape:?}; {}", plain(&state))?;
            }
        }
        Data::Schedule(data) => writeln!(out, "  groups     {}", data.groups)?,
        Data::Gradient(data) => {
            for (i, g) in data.tensors.iter().enumerate() {
                writeln!(out, "  g{i}         {} {:?}", g.input.dtype, g.input.shape)?;
            }
        }
    }
    Ok(())
}

fn one_percent() -> Result<bool> {
    let entries = suite::read(&[suite::committed()], &CaseFilter::new(None)?)?;
    let cases: Vec<Case> = entries.into_iter().filter_map(|e| e.case.ok()).collect();
    print!("{}", percent::page(&percent::held(&cases)));
    Ok(true)
}

/// Answers one request, or a stream of them.
fn serve(paths: Option<(PathBuf, PathBuf)>, backend: &str, limit: Duration) -> Result<bool> {
    let backend = registry::backend(backend, limit)?;
    match paths {
        Some((request, to)) => println!("{}", exec::answer(&*backend, &request, &to)),
        None => exec::serve(&*backend, std::io::stdin().lock(), std::io::stdout().lock())?,
    }
    Ok(true)
}

fn export(seed: u64, out: &Path, only: Option<&str>) -> Result<bool> {
    export::run(seed, out, only)?;
    println!("the suite is in {0}: verify --golden {0}", out.display());
    Ok(true)
}

/// Writes what can be, and prints the rest of the way.
fn begin(root: &Path, name: &str, reference: &str, what: &NewArgs) -> Result<bool> {
    let (type_name, package) = (what.type_name.as_deref(), what.package.as_deref());
    let new = add::NewOptimizer { name, reference, type_name, entry: what.entry, package };
    let here = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    println!("written:");
    for path in add::begin(root, &new)? {
        println!("  {}", here(&path));
    }
    println!("\nnow fill in the rule and its exporter case, until these pass:");
    println!("  cargo test -p bitstep {name}");
    println!("  conformance/export/run --only {name} --out conformance/golden");
    println!(
        "  cargo run --release -p bitstep-conformance -- verify --backend core --backend ndarray --only 'optimizer/{name}/*'"
    );
    println!("\nthen what is written anew, by `add {name} --regenerate` or one by one:");
    for (_, command) in add::commands(name) {
        println!("  {command}");
    }
    println!("\nand what these ask for, as CONTRIBUTING.md says:");
    for check in add::CHECKS {
        println!("  {check}");
    }
    Ok(true)
}

fn regenerated(root: &Path, name: &str) -> Result<bool> {
    add::regenerate(root, name, |command| println!("$ {command}"))?;
    Ok(true)
}

fn new_case(name: &str, reference: &str, schedule: bool, to: Option<PathBuf>) -> Result<bool> {
    let to = to.map_or_else(|| export::folder().map(|at| at.join("cases")), Ok)?;
    let path = export::new_case(name, reference, schedule, &to)?;
    println!("{}: fill in its arguments, then export --only {name}", path.display());
    Ok(true)
}
