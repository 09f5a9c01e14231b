//! Explains a failing run: what is off and what is right, which known mistake it looks like, and in which inputs it
//! shows, found by varying the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::edit;
use super::template::number;
use super::values::{is_denormal, limits};
use crate::golden::{Case, Data};
use crate::judge::bounds::Mode;
use crate::judge::check::{Outcome, Report};
use crate::judge::derived::{self, Parting};
use crate::judge::{Sample, compare, diagnose};
use crate::report::figure;
use crate::tensor::Dtype;

/// What is known of a fault.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// The quantities that are off: a parameter's `value`, a state slot, `lr`, `out`.
    pub off: Vec<String>,
    /// Those that are right.
    pub right: Vec<String>,
    /// The known mistake that it looks like.
    pub diagnosis: Option<String>,
    /// In which inputs it shows.
    pub conditions: Vec<String>,
    /// At which operation of a step the answer parts from what is right.
    pub parts: Option<String>,
    /// The first number that is off, or what the backend said.
    pub detail: String,
}

impl Explanation {
    /// In words, on one line.
    #[must_use]
    pub fn words(&self) -> String {
        let mut out = String::new();
        if !self.off.is_empty() {
            let _ = write!(out, "off: {}", self.off.join(", "));
            if !self.right.is_empty() {
                let _ = write!(out, "; right: {}", self.right.join(", "));
            }
        } else {
            out.push_str(&self.detail);
        }
        if let Some(diagnosis) = &self.diagnosis {
            let _ = write!(out, "; looks like: {diagnosis}");
        }
        if let Some(parts) = &self.parts {
            let _ = write!(out, "; parts at {parts}");
        }
        if !self.conditions.is_empty() {
            let _ = write!(out, "; shows {}", self.conditions.join(", "));
        }
        out
    }
}

/// Runs a case with its answers filled in; `None` if oracle or backend do not take it.
pub(crate) type Judge<'a> = dyn Fn(&Case) -> Option<Vec<Report>> + 'a;

/// Whether any check of a case failed or erred.
pub(crate) fn is_bad(reports: &[Report]) -> bool {
    reports.iter().any(|r| matches!(r.outcome, Outcome::Fail | Outcome::Error))
}

/// The quantities that are off in a case, and those that are right. The single steps decide, if they fail.
fn quantities(reports: &[Report]) -> (Vec<String>, Vec<String>) {
    let failed = |mode: Mode| reports.iter().find(|r| r.mode == mode && r.outcome == Outcome::Fail);
    let Some(report) = failed(Mode::Step).or_else(|| failed(Mode::Free)) else {
        let off = reports.iter().filter_map(|r| r.failure.as_ref()).map(|f| f.tensor.clone());
        return (off.collect(), Vec::new());
    };
    let mut off = BTreeMap::<String, bool>::new();
    for s in &report.samples {
        let what = s.tensor.split('.').next_back().unwrap_or_default();
        let is_off = compare::error(s.got, s.want, s.unit) > s.bound;
        *off.entry(what.to_owned()).or_default() |= is_off;
    }
    let some =
        |wanted: bool| off.iter().filter(move |(_, off)| **off == wanted).map(|(s, _)| s.clone());
    (some(true).collect(), some(false).collect())
}

/// The steps at which single steps are off.
fn steps_off(reports: &[Report]) -> BTreeSet<usize> {
    let steps = reports.iter().filter(|r| r.mode == Mode::Step);
    let off = steps.flat_map(|r| &r.samples);
    off.filter(|s| compare::error(s.got, s.want, s.unit) > s.bound).map(|s| s.step).collect()
}

/// Explains a shrunk run. `neighbours` are other runs of the same optimizer, with their answers.
pub(crate) fn explain(
    case: &Case,
    defaults: &Map<String, Value>,
    neighbours: &[Case],
    judge: &Judge<'_>,
) -> Explanation {
    let Some(reports) = judge(case) else { return Explanation::default() };
    let (off, right) = quantities(&reports);
    let bad = |r: &&Report| matches!(r.outcome, Outcome::Fail | Outcome::Error);
    let detail = reports.iter().find(bad).map_or(String::new(), |r| r.detail.clone());
    let mut conditions = Vec::new();
    if edit::optimizer(case).is_some() {
        conditions.extend(special_numbers(case, judge));
        conditions.extend(types(case, judge));
        conditions.extend(shape(case, judge));
        conditions.extend(course(case, judge));
    }
    conditions.extend(arguments(case, defaults, judge));
    let parts = parts(case, &reports, neighbours, judge);
    let diagnosis = diagnosis(case, reports, neighbours, judge);
    Explanation { off, right, diagnosis, conditions, parts, detail }
}

/// The operations at which the first step that is off may part from what is right, and how many of its numbers are off.
fn partings(case: &Case, reports: &[Report], constants: bool) -> Option<(Vec<Parting>, usize)> {
    let data = edit::optimizer(case)?;
    let is_off = |s: &&Sample| compare::error(s.got, s.want, s.unit) > s.bound;
    let report = reports.iter().find(|r| r.mode == Mode::Step && r.outcome == Outcome::Fail)?;
    let first = report.samples.iter().filter(is_off).min_by_key(|s| s.step)?;
    // One parameter: each has constants and operations of its own.
    let param = first.tensor.split('.').next()?;
    let of_step = report.samples.iter().filter(|s| s.step == first.step);
    let own: Vec<&Sample> = of_step.filter(|s| s.tensor.split('.').next() == Some(param)).collect();
    let off = own.iter().filter(|s| is_off(s) && s.got.is_finite()).count();
    Some((derived::parting(case, data, first.step, &own, constants), off))
}

/// How many neighbours are asked whether it is a constant, and of how many numbers that are off: for fewer, a constant
/// can make up for anything.
const ASKED: (usize, usize) = (4, 3);

/// At which operation the answer parts from what is right, in words. A single number can be had by another result of
/// any operation before it, so neighbours of more numbers say whether it is a constant of the step.
fn parts(
    case: &Case,
    reports: &[Report],
    neighbours: &[Case],
    judge: &Judge<'_>,
) -> Option<String> {
    let (all, _) = partings(case, reports, false)?;
    let failing = neighbours.iter().filter_map(|near| partings(near, &judge(near)?, true));
    let failing = failing.filter(|(_, off)| *off >= ASKED.1).take(ASKED.0);
    let failing: Vec<Vec<Parting>> = failing.map(|(all, _)| all).collect();
    // Not all: where a number is not finite, or hardly off, nothing can be searched for.
    let with_one = failing.iter().filter(|all| !all.is_empty()).count();
    let is_constant = 2 * with_one > failing.len();
    let mut left = all.iter().filter(|p| p.is_constant() == is_constant);
    let mut out = left.next()?.to_string();
    let later: Vec<String> = match is_constant {
        true => left.take(2).map(|p| format!(", or {p}")).collect(),
        false => left.map(|p| p.sign().to_owned()).collect(),
    };
    if is_constant {
        out.extend(later);
    } else if !later.is_empty() {
        let _ = write!(out, ", or after it ({})", later.join(" "));
    }
    Some(out)
}

/// The mistake that fits most of the failing checks of the run and its neighbours.
fn diagnosis(
    case: &Case,
    reports: Vec<Report>,
    neighbours: &[Case],
    judge: &Judge<'_>,
) -> Option<String> {
    let mut all = Vec::new();
    let diagnosed = |case: &Case, reports: Vec<Report>| {
        reports
            .into_iter()
            .map(|mut r| {
                r.candidates = diagnose::candidates(case, &r);
                r
            })
            .collect::<Vec<_>>()
    };
    all.extend(diagnosed(case, reports));
    for near in neighbours {
        if let Some(reports) = judge(near) {
            all.extend(diagnosed(near, reports));
        }
    }
    diagnose::vote_diagnoses(&mut all);
    let failed = all.iter().filter(|r| r.outcome == Outcome::Fail).count();
    let mut votes = BTreeMap::<&str, usize>::new();
    for name in all.iter().filter_map(|r| r.diagnosis.as_deref()) {
        *votes.entry(name).or_default() += 1;
    }
    let (name, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
    (2 * count > failed).then(|| name.to_owned())
}

/// Whether a variation of the run passes; `None` if it can't be run.
fn passes(case: Option<Case>, judge: &Judge<'_>) -> Option<bool> {
    let reports = judge(&case?)?;
    let compared = reports.iter().any(|r| r.outcome == Outcome::Pass);
    (compared || is_bad(&reports)).then(|| !is_bad(&reports))
}

/// A kind of numbers, and a number just outside of it.
type Class = (&'static str, fn(Dtype, f64) -> bool, fn(Dtype, f64) -> f64);

const CLASSES: &[Class] = &[
    ("NaN or infinite", |_, x| !x.is_finite(), |_, _| 1.0),
    ("denormal", is_denormal, |dtype, x| limits(dtype).1.copysign(x)),
    ("0", |_, x| x == 0.0, |_, _| 0.25),
    (
        "of a size whose square overflows",
        |dtype, x| x.is_finite() && x.abs() > limits(dtype).0.sqrt(),
        |dtype, x| (0.25 * limits(dtype).0.sqrt()).copysign(x),
    ),
    (
        "of a size whose square vanishes",
        |dtype, x| x != 0.0 && !is_denormal(dtype, x) && x.abs() < limits(dtype).1.sqrt(),
        |dtype, x| (4.0 * limits(dtype).1.sqrt()).copysign(x),
    ),
];

/// Whether it shows only where a gradient, or a parameter, is of a kind.
fn special_numbers(case: &Case, judge: &Judge<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(data) = edit::optimizer(case) else { return out };
    for (what, of_grad) in [("gradient", true), ("parameter", false)] {
        for (name, is, outside) in CLASSES {
            let of = |p: &crate::golden::ParamCase| {
                if of_grad { p.grad.clone() } else { p.init.clone() }
            };
            let any = data.params.iter().any(|p| {
                let t = of(p);
                t.to_f64s().into_iter().any(|x| is(t.dtype, x))
            });
            if !any {
                continue;
            }
            let mut data = data.clone();
            for p in &mut data.params {
                let old = of(p);
                let new = edit::map(
                    &old,
                    |_, x| {
                        if is(old.dtype, x) { outside(old.dtype, x) } else { x }
                    },
                );
                *(if of_grad { &mut p.grad } else { &mut p.init }) = new;
            }
            if passes(Some(edit::with_data(case, data)), judge) == Some(true) {
                out.push(format!("only where a {what} is {name}"));
            }
        }
    }
    out
}

/// In which types of the same numbers it shows.
fn types(case: &Case, judge: &Judge<'_>) -> Option<String> {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for dtype in [Dtype::F64, Dtype::F32, Dtype::Bf16, Dtype::F16] {
        match passes(edit::with_dtype(case, dtype), judge) {
            Some(true) => good.push(dtype.name()),
            Some(false) => bad.push(dtype.name()),
            None => {}
        }
    }
    let text =
        || format!("in {} and not in {} of the same numbers", bad.join(", "), good.join(", "));
    (!good.is_empty() && !bad.is_empty()).then(text)
}

/// How it depends on the number of elements, parameters and groups.
fn shape(case: &Case, judge: &Judge<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(data) = edit::optimizer(case) else { return out };
    if data.groups.len() > 1 {
        out.push("only with several groups".to_owned());
    }
    if data.params.len() > 1 {
        out.push(format!("only with {} parameters", data.params.len()));
        return out;
    }
    let Some(p) = data.params.first() else { return out };
    let n = p.init.len();
    let of = |keep: &[usize]| passes(edit::with_elements(case, 0, keep, &[keep.len()]), judge);
    if n == 1 {
        let more = [vec![0; 2], vec![0; 3], vec![0; 5]];
        let more: Vec<_> = more.iter().filter_map(|keep| of(keep)).collect();
        if !more.is_empty() && !more.contains(&false) {
            out.push("only in tensors of one element".to_owned());
        }
    } else {
        let single: Vec<_> = (0..n.min(8)).filter_map(|k| of(&[k])).collect();
        if !single.is_empty() && !single.contains(&false) {
            out.push("only in tensors of more than one element".to_owned());
        }
    }
    out
}

/// How it depends on the course of the run: missing gradients, the rate, the first step, the state it starts from.
fn course(case: &Case, judge: &Judge<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(data) = edit::optimizer(case) else { return out };
    if data.params.iter().any(|p| p.has_grad.contains(&false)) {
        let mut full = data.clone();
        full.params.iter_mut().for_each(|p| p.has_grad.fill(true));
        if passes(Some(edit::with_data(case, full)), judge) == Some(true) {
            out.push("only after a step without a gradient".to_owned());
        }
    }
    if let Some(lr) = data.lr.as_ref().filter(|lr| lr.iter().any(|x| *x != lr[0])) {
        let constant = |&rate: &f64| {
            let mut data = data.clone();
            data.lr = Some(vec![rate; lr.len()]);
            passes(Some(edit::with_data(case, data)), judge)
        };
        let all: Vec<_> = lr.iter().filter_map(constant).collect();
        if !all.is_empty() && !all.contains(&false) {
            out.push("only if the rate changes".to_owned());
        }
    }
    if let Some(state) = data.params.iter().map(|p| &p.state0).find(|s| !s.is_empty()) {
        let mut fresh = data.clone();
        fresh.params.iter_mut().for_each(|p| p.state0.clear());
        if passes(Some(edit::with_data(case, fresh)), judge) == Some(true) {
            let counter = super::oracle::STEP_KEYS.iter().find_map(|key| state.get(*key));
            let late = counter.map_or(String::new(), |t| format!(", after {} steps", t.get(0)));
            out.push(format!("only from a state that was loaded{late}"));
        }
    }
    // The same steps again, to see at which of them it shows.
    let more: Vec<usize> = (0..4).map(|t| t.min(case.steps.saturating_sub(1))).collect();
    let fresh = data.params.iter().all(|p| p.state0.is_empty());
    if fresh
        && case.steps > 0
        && case.steps < 4
        && let Some(reports) = edit::with_steps(case, &more).and_then(|c| judge(&c))
    {
        let off = steps_off(&reports);
        if off.len() == 1 && off.contains(&0) {
            out.push("only at the first step".to_owned());
        } else if !off.is_empty() && !off.contains(&0) && !out.iter().any(|x| x.contains("without"))
        {
            out.push(format!("only from step {} on", off.first().map_or(0, |t| t + 1)));
        }
    }
    out
}

/// Which arguments it needs.
fn arguments(case: &Case, defaults: &Map<String, Value>, judge: &Judge<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let with = |key: &str, x: &Value| passes(Some(edit::with_argument(case, key, x)), judge);
    let shown = |x: &Value| match x.as_f64().filter(|_| x.is_f64()) {
        Some(x) => format!("{x:?}"),
        None => x.to_string(),
    };
    for (key, x) in &case.hyper {
        let needed =
            defaults.get(key).filter(|default| *default != x && with(key, default) == Some(true));
        if let Some(default) = needed {
            out.push(format!("only with `{key}` = {} (not {})", shown(x), shown(default)));
        }
        let is_rate = matches!(key.as_str(), "lr" | "learning_rate" | "init_lr");
        // Positions of a list, or the argument itself.
        let parts: Vec<(Option<usize>, f64)> = match x {
            Value::Number(n) => n.as_f64().map(|x| (None, x)).into_iter().collect(),
            Value::Array(list) => {
                let one = |(i, x): (usize, &Value)| Some((Some(i), x.as_f64()?));
                list.iter().enumerate().filter_map(one).collect()
            }
            _ => Vec::new(),
        };
        for (at, value) in parts {
            let place = |y: f64| match (at, x) {
                (Some(i), Value::Array(list)) => {
                    let mut list = list.clone();
                    list[i] = number(y);
                    Value::Array(list)
                }
                _ => number(y),
            };
            let name = at.map_or(format!("`{key}`"), |i| format!("`{key}[{i}]`"));
            let narrow = f64::from(value as f32);
            if narrow != value && value.is_finite() && with(key, &place(narrow)) == Some(true) {
                out.push(format!("only where {name} is no number of f32"));
            } else if value != 0.0 && !is_rate && with(key, &place(0.0)) == Some(true) {
                out.push(format!("not with {name} = 0"));
            }
        }
    }
    if let Data::Optimizer(data) = &case.data
        && let Some(lr) = &data.lr
        && lr.iter().any(|&x| f64::from(x as f32) != x)
    {
        let mut data = data.clone();
        data.lr = Some(lr.iter().map(|&x| f64::from(x as f32)).collect());
        if passes(Some(edit::with_data(case, data)), judge) == Some(true) {
            out.push("only where the rate is no number of f32".to_owned());
        }
    }
    out
}

/// One line about the size of an error, for a summary.
pub(crate) fn error_of(reports: &[Report]) -> String {
    let worst = reports.iter().filter(|r| r.outcome == Outcome::Fail);
    let worst = worst.filter_map(|r| Some((r.ulp?, r.bound?)));
    let share = |(ulp, bound): &(f64, f64)| ulp / bound.max(f64::MIN_POSITIVE);
    let worst = worst.max_by(|a, b| share(a).total_cmp(&share(b)));
    worst.map_or(String::new(), |(ulp, bound)| {
        format!("{} ULP, bound {}", figure(ulp), figure(bound))
    })
}
