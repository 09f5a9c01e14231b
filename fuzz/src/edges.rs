//! The edge-case table: each rule's result at inputs where arithmetic changes (NaN, infinity, overflow,
//! denormals), beside the reference's. [`edge_case_table`] writes `docs/edge-cases.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use bitstep::float::Dtype;
use bitstep::hyper::{Args, Value};
use bitstep::optimizer::OptimizerSpec;
use bitstep::registry;
use bitstep::registry::OPTIMIZERS;
use bitstep_conformance::golden::{Case, Data, OptimizerCase};
use bitstep_conformance::suite::{self, CaseFilter};
use bitstep_conformance::tensor;

use crate::input::encode;
use crate::run::{Run, Trial};

/// An edge case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Nan,
    Inf,
    MinusInf,
    Overflow,
    Denormal,
    EpsZero,
    BetaZero,
    LrZero,
    First,
    Late,
}

const EDGES: [(Edge, &str); 10] = [
    (Edge::Nan, "g = NaN"),
    (Edge::Inf, "g = +inf"),
    (Edge::MinusInf, "g = −inf"),
    (Edge::Overflow, "g² overflows"),
    (Edge::Denormal, "g denormal"),
    (Edge::EpsZero, "ε = 0, g = 0"),
    (Edge::BetaZero, "β = 0"),
    (Edge::LrZero, "lr = 0"),
    (Edge::First, "t = 1"),
    (Edge::Late, "t = 2⁵³"),
];

const DTYPES: [(Dtype, &str); 4] =
    [(Dtype::F64, "f64"), (Dtype::F32, "f32"), (Dtype::Bf16, "bf16"), (Dtype::F16, "f16")];

/// The largest value whose square is finite, and the smallest normal one.
fn limits(dtype: Dtype) -> (f64, f64) {
    match dtype {
        Dtype::F64 => (f64::MAX.sqrt(), f64::MIN_POSITIVE),
        Dtype::F32 => (f64::from(f32::MAX).sqrt(), f64::from(f32::MIN_POSITIVE)),
        Dtype::Bf16 => (f64::from(f32::MAX).sqrt(), f64::from(f32::MIN_POSITIVE)),
        Dtype::F16 => (65504f64.sqrt(), 2f64.powi(-14)),
    }
}

/// Classifies the value of an element after a step.
fn class(before: f64, after: f64) -> &'static str {
    match after {
        x if x.is_nan() => "NaN",
        x if x == f64::INFINITY => "+inf",
        x if x == f64::NEG_INFINITY => "−inf",
        x if x == before => "stays",
        _ => "moves",
    }
}

/// The spec with those of the named arguments that may be 0 set to 0; `None` if there are none.
fn zeroed(spec: &OptimizerSpec, which: &[&str]) -> Option<OptimizerSpec> {
    let mut changed = spec.clone();
    let all = Args::of(changed.rule.hyper_params());
    let mut any = false;
    for (name, value) in all.iter().filter(|(name, _)| which.contains(name)) {
        let zero = match value {
            Value::List(list) => Value::List(vec![Value::Float(0.0); list.len()]),
            _ => Value::Float(0.0),
        };
        if let Ok(next) = changed.with_args(&Args::new().with(name, zero)) {
            (changed, any) = (next, true);
        }
    }
    any.then_some(changed)
}

const EPS: &[&str] = &["eps", "epsilon", "eps1", "eps2"];
const BETAS: &[&str] =
    &["betas", "beta1", "beta2", "beta_1", "beta_2", "beta", "momentum", "alpha", "rho"];

/// Our result at an edge: for the parameter, and for the slots that are no longer finite. `None` where the rule has
/// no such argument.
fn ours(name: &'static str, edge: Edge, dtype: Dtype) -> Option<(String, String)> {
    let mut spec = registry::optimizer(name, Args::new()).expect("defaults are valid");
    if let Ok(any_size) = spec.with_args(&Args::new().with("min_8bit_size", 0i64)) {
        spec = any_size;
    }
    (spec.storage.min_len, spec.storage.len_multiple) = (0, 0);
    match edge {
        Edge::EpsZero => spec = zeroed(&spec, EPS)?,
        Edge::BetaZero => spec = zeroed(&spec, BETAS)?,
        _ => {}
    }
    let (root, normal) = limits(dtype);
    let special = match edge {
        Edge::Nan => f64::NAN,
        Edge::Inf => f64::INFINITY,
        Edge::MinusInf => f64::NEG_INFINITY,
        Edge::Overflow => root * 4.0,
        Edge::Denormal => normal / 4.0,
        _ => 0.5,
    };
    // Two ordinary steps, the special one, three ordinary ones; a matrix, for rules that need one.
    let ordinary = [0.5, -0.25, 0.125, 0.5, -0.5, 0.25];
    let mut grads = vec![ordinary; 6];
    let special_step = match edge {
        Edge::EpsZero | Edge::First | Edge::Late => 0,
        _ => 2,
    };
    match edge {
        Edge::EpsZero => grads[special_step] = [0.0; 6],
        _ => grads[special_step][0] = special,
    }
    let encoded = |x: &[f64]| x.iter().map(|&x| encode(x, dtype)).collect::<Vec<_>>();
    let lr = spec.rule.lr();
    let lr = if lr > 0.0 && lr.is_finite() { lr } else { 1e-3 };
    let mut trial = Trial {
        name,
        spec,
        tuned: false,
        dtype,
        shape: vec![2, 3],
        before: if edge == Edge::Late { (1 << 53) - 1 } else { 0 },
        init: encoded(&[0.0625, -0.0625, 0.03125, 0.125, -0.125, 0.015625]),
        grads: grads.iter().map(|g| Some(encoded(g))).collect(),
        lrs: vec![lr; 6],
        extra: vec![],
    };
    if edge == Edge::LrZero {
        trial.lrs[special_step] = 0.0;
    }
    let mut run = Run::new(&trial);
    run.steps(&trial, 0..special_step);
    let before = run.numbers();
    run.steps(&trial, special_step..special_step + 1);
    let (after, slots) = (run.numbers(), run.slots().collect::<Vec<_>>());
    run.steps(&trial, special_step + 1..special_step + 4);
    let end = run.numbers();

    let mut what = class(before[0], after[0]).to_owned();
    if !after[0].is_finite() && !end[0].is_finite() {
        what += " for good";
    }
    let others = (1..6).filter(|&i| !after[i].is_finite()).count();
    match others {
        0 => {}
        5 => what += ", and all others",
        _ => what += ", and others",
    }
    let state = slots.iter().filter_map(|(slot, numbers)| {
        let worst =
            numbers.iter().find(|x| x.is_nan()).or(numbers.iter().find(|x| x.is_infinite()));
        worst.map(|&x| format!("`{slot}` {}", class(0.0, x)))
    });
    Some((what, state.collect::<Vec<_>>().join(", ")))
}

/// The reference's results at each edge, each with a case that shows it.
type Seen = BTreeMap<Edge, BTreeMap<&'static str, String>>;

/// Collects the elements of a golden case that are at an edge.
fn look(case: &Case, data: &OptimizerCase, seen: &mut Seen) {
    let stem = case.id.rsplit('/').next().unwrap_or_default();
    let mut note = |edge: Edge, what: &'static str| {
        seen.entry(edge).or_default().entry(what).or_insert_with(|| stem.to_owned());
    };
    let zero = |name: &&str| match case.hyper.get(*name) {
        Some(serde_json::Value::Array(list)) => list.iter().any(|x| x.as_f64() == Some(0.0)),
        Some(x) => x.as_f64() == Some(0.0),
        None => false,
    };
    let (eps0, beta0) = (EPS.iter().any(zero), stem.starts_with("beta") && BETAS.iter().any(zero));
    for p in &data.params {
        let dtype = match p.init.dtype {
            tensor::Dtype::F64 => Dtype::F64,
            tensor::Dtype::F32 => Dtype::F32,
            tensor::Dtype::Bf16 => Dtype::Bf16,
            tensor::Dtype::F16 => Dtype::F16,
            _ => continue,
        };
        let (root, normal) = limits(dtype);
        let late = !p.state0.is_empty();
        let mut before = p.init.to_f64s();
        for t in 0..case.steps.min(p.has_grad.len()) {
            let after = p.value.row(t).to_f64s();
            let grad = p.grad.row(t).to_f64s();
            let lr0 = data.lr.as_ref().map_or(zero(&"lr"), |lr| lr[t] == 0.0);
            if p.has_grad[t] {
                for ((&b, &a), &g) in
                    before.iter().zip(&after).zip(&grad).filter(|x| x.0.0.is_finite())
                {
                    let what = class(b, a);
                    match g {
                        g if g.is_nan() => note(Edge::Nan, what),
                        f64::INFINITY => note(Edge::Inf, what),
                        f64::NEG_INFINITY => note(Edge::MinusInf, what),
                        g if g.abs() > root => note(Edge::Overflow, what),
                        g if g != 0.0 && g.abs() < normal => note(Edge::Denormal, what),
                        _ if eps0 && t == 0 && g == 0.0 => note(Edge::EpsZero, what),
                        _ if beta0 => note(Edge::BetaZero, what),
                        _ if lr0 => note(Edge::LrZero, what),
                        _ if t == 0 && !late && stem.starts_with("default") => {
                            note(Edge::First, what)
                        }
                        _ => {}
                    }
                }
            }
            before = after;
        }
    }
}

/// The text of `docs/edge-cases.md`.
///
/// # Panics
/// If a committed case can't be read.
#[must_use]
pub fn edge_case_table() -> String {
    let mut references: BTreeMap<String, Seen> = BTreeMap::new();
    let only = CaseFilter::new(Some("optimizer/*/*")).expect("a glob");
    for entry in suite::read(&[suite::committed()], &only).expect("the committed suite") {
        let case = entry.case.expect("a committed case");
        if let Data::Optimizer(data) = &case.data {
            look(&case, data, references.entry(case.name.clone()).or_default());
        }
    }
    let mut page = String::from(HEAD);
    let mut written: BTreeMap<String, &str> = BTreeMap::new();
    for entry in OPTIMIZERS {
        let rows = rows(entry.name, references.get(entry.name));
        let same = written.get(&rows).copied();
        match same {
            Some(other) => {
                let _ = write!(page, "\n## `{}`\n\nAs `{other}`.\n", entry.name);
            }
            None => {
                let _ = write!(page, "\n## `{}`\n\n{TABLE}{rows}", entry.name);
                written.insert(rows, entry.name);
            }
        }
    }
    page
}

fn rows(name: &'static str, seen: Option<&Seen>) -> String {
    let mut rows = String::new();
    for (edge, title) in EDGES {
        // Types with equal results share a row.
        let mut by_result: Vec<((String, String), Vec<&str>)> = Vec::new();
        for (dtype, called) in DTYPES {
            let Some(result) = ours(name, edge, dtype) else { continue };
            match by_result.iter_mut().find(|(r, _)| *r == result) {
                Some((_, types)) => types.push(called),
                None => by_result.push((result, vec![called])),
            }
        }
        let reference = match seen.and_then(|s| s.get(&edge)) {
            None => "no golden".to_owned(),
            Some(seen) => {
                let seen = seen.iter().map(|(what, case)| format!("{what} (`{case}`)"));
                seen.collect::<Vec<_>>().join(", ")
            }
        };
        for ((parameter, state), types) in by_result {
            let types =
                if types.len() == DTYPES.len() { "all".to_owned() } else { types.join(" ") };
            let _ = writeln!(rows, "| {title} | {types} | {parameter} | {state} | {reference} |");
        }
    }
    rows
}

const TABLE: &str =
    "| input | types | parameter | state | reference |\n| --- | --- | --- | --- | --- |\n";

const HEAD: &str = "\
# Edge cases

What every optimizer, with its defaults, makes of the inputs at which arithmetic changes. Written by
`cargo run -p bitstep-fuzz --example edges`, a test holds it to the code.

A 2 × 3 matrix makes two ordinary steps, then one where its first element's gradient is special (with
ε = 0, t = 1 and t = 2⁵³ the first step is the special one), then three ordinary ones.

* *parameter*: what becomes of the first element in the special step: it *moves*, *stays* bit by bit, or
  is no longer finite; *for good* if it still is not at the end; *and others* if the special gradient did
  so to elements with ordinary ones.
* *state*: the slots that are no longer finite after the special step.
* *reference*: what its goldens show of elements with such a gradient (any of them, in any type, with any
  arguments, so more than one thing may happen), and a case that shows it. Every case passes `verify`.
* State of 8 or 4 bits is so here for any number of elements; by default small tensors keep 32 bits.
* g² overflows: 4 times the root of the largest number of the type (of `f32` for `bf16`). g denormal: a
  quarter of the smallest normal number. β = 0: every decay rate that may be 0 is, and so is the momentum.
";
