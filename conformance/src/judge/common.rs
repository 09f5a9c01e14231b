//! What failures have in common: a type, an argument, the first step, parameters of one element, ….
//!
//! What is judged is a parameter at a step. A trait is named if all that are off have it, and most of those that are
//! right don't.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::golden::{Case, Data, OptimizerCase};
use crate::judge::bounds::Mode;
use crate::judge::check::{Outcome, Report, Unit};
use crate::tensor::Tensor;

/// What may be said of a parameter at a step.
const TRAITS: [&str; 15] = [
    "step 0",
    "later steps than 0",
    "a parameter's first gradient",
    "steps after a missing gradient",
    "steps without a gradient",
    "parameters of one element",
    "parameters of several elements",
    "parameters without dimensions",
    "parameters of one dimension",
    "parameters of two or more dimensions",
    "gradients with NaN or infinity",
    "gradients with subnormal numbers",
    "gradients with zeros",
    "groups after the first",
    "the first group",
];

/// The most traits that are named together.
const MOST: usize = 2;

/// The parameters and steps that a check compared.
pub(crate) fn units(case: &Case, report: &Report) -> Vec<Unit> {
    let Data::Optimizer(data) = &case.data else { return Vec::new() };
    if report.mode != Mode::Step {
        return Vec::new();
    }
    let mut seen = BTreeMap::<(usize, usize), bool>::new();
    for x in report.tensors.values() {
        let Some(param) = x.param else { continue };
        for (step, off) in &x.steps {
            *seen.entry((param, *step)).or_default() |= *off > 0;
        }
    }
    seen.into_iter().map(|((i, t), off)| Unit { traits: traits(data, i, t), off }).collect()
}

fn traits(data: &OptimizerCase, i: usize, t: usize) -> u32 {
    let p = &data.params[i];
    let has = |t: usize| p.has_grad.get(t).copied().unwrap_or(false);
    let g = p.grad.row(t);
    let any = |f: &dyn Fn(f64) -> bool| has(t) && (0..g.len()).any(|k| f(g.get(k)));
    let dimensions = p.init.shape.len();
    let group = data.groups.iter().position(|group| group.params.contains(&i));
    let missed = (0..t).any(|t| !has(t)) && has(t);
    let holds = [
        t == 0,
        t > 0,
        has(t) && p.updates_before(t) == 0 && p.state0.is_empty(),
        missed,
        !has(t),
        p.init.len() == 1,
        p.init.len() > 1,
        dimensions == 0,
        dimensions == 1,
        dimensions >= 2,
        any(&|x| !x.is_finite()),
        any(&|x| is_subnormal(&g, x)),
        any(&|x| x == 0.0),
        group.is_some_and(|g| g > 0),
        group.is_some_and(|g| g == 0),
    ];
    holds.iter().enumerate().map(|(k, &holds)| u32::from(holds) << k).sum()
}

fn is_subnormal(of: &Tensor, x: f64) -> bool {
    let least = of.dtype.float().map_or(0.0, |(_, exponent)| 2f64.powi(exponent));
    x != 0.0 && x.abs() < least
}

/// What may be said of a whole case.
pub(crate) fn settings(case: &Case) -> Vec<String> {
    let mut out = BTreeSet::from([case.dtype().name().to_owned()]);
    let mut say = |key: &str, value: &Value| {
        let text = match value {
            Value::Bool(true) => format!("`{key}`"),
            Value::Bool(false) => format!("no `{key}`"),
            Value::Null => format!("no `{key}` given"),
            x if x.as_f64() == Some(0.0) => format!("`{key}` of 0"),
            x if x.as_f64().is_some() => format!("`{key}` other than 0"),
            _ => return,
        };
        out.insert(text);
    };
    match &case.data {
        Data::Optimizer(data) => {
            for (key, value) in data.groups.iter().flat_map(|g| &g.hyper) {
                say(key, value);
            }
            let missing = data.params.iter().any(|p| p.has_grad.iter().any(|has| !has));
            for (holds, text) in [
                (data.lr.is_some(), "a schedule of rates"),
                (data.groups.len() > 1, "several groups"),
                (data.params.iter().any(|p| !p.state0.is_empty()), "a late start"),
                (missing, "missing gradients"),
            ] {
                out.extend(holds.then(|| text.to_owned()));
            }
        }
        _ => case.hyper.iter().for_each(|(key, value)| say(key, value)),
    }
    out.into_iter().collect()
}

/// What the failures among some checks of an optimizer have in common.
pub(crate) fn only(reports: &[&Report]) -> Vec<String> {
    // Single steps say at which step a fault is; without them, whole checks.
    let single = |r: &&&Report| r.mode == Mode::Step;
    let stepped = reports.iter().any(|r| single(&r) && r.outcome == Outcome::Fail);
    let mut all = Vec::new();
    for r in reports {
        if stepped && r.mode == Mode::Step {
            all.extend(r.units.iter().map(|u| (*r, *u)));
        } else if !stepped {
            all.push((*r, Unit { traits: 0, off: r.outcome == Outcome::Fail }));
        }
    }
    let mut out = Vec::new();
    while out.len() < MOST {
        let rights = all.iter().filter(|(_, u)| !u.off).count();
        if rights == 0 {
            break;
        }
        let Some((text, kept)) = best(&all) else { break };
        // Worth saying if most of what is right is without it.
        if 2 * kept.iter().filter(|(_, u)| !u.off).count() > rights {
            break;
        }
        out.push(text);
        all = kept;
    }
    out
}

type Units<'a> = Vec<(&'a Report, Unit)>;

/// The trait that all that is off has, and the least of what is right.
fn best<'a>(all: &Units<'a>) -> Option<(String, Units<'a>)> {
    let mut off = all.iter().filter(|(_, u)| u.off);
    let (first, unit) = off.next()?;
    let mut found: Option<(String, Units<'a>)> = None;
    let mut consider = |text: &str, has: &dyn Fn(&Report, &Unit) -> bool| {
        let kept: Units<'a> = all.iter().filter(|(r, u)| has(r, u)).copied().collect();
        let is_common =
            kept.iter().filter(|(_, u)| u.off).count() == all.iter().filter(|(_, u)| u.off).count();
        if is_common && found.as_ref().is_none_or(|(_, best)| kept.len() < best.len()) {
            found = Some((text.to_owned(), kept));
        }
    };
    for setting in &first.settings {
        consider(setting, &|r, _| r.settings.contains(setting));
    }
    for (k, text) in TRAITS.iter().enumerate().filter(|(k, _)| unit.traits >> k & 1 == 1) {
        consider(text, &|_, u| u.traits >> k & 1 == 1);
    }
    found
}
