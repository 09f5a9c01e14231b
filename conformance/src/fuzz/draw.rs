//! From a [`Plan`] to a run of one name: arguments, parameters, gradients, rates.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bitstep::registry;
use fastrand::Rng;
use proptest::sample::Index;
use serde_json::{Map, Value};

use super::oracle::{self, ORACLE};
use super::plan::{Change, Missing, Plan, Rates, Start};
use super::template::{Pool, Slots, Source, Template, number};
use super::values::{Before, Pattern, numbers};
use crate::Core;
use crate::backend::{Backend, GradientSpec, ScheduleSpec};
use crate::convert;
use crate::golden::{
    Case, Data, Given, GradientCase, GradientTensor, Group, OptimizerCase, ParamCase, ScheduleCase,
};
use crate::tensor::{Dtype, Tensor};

/// Arguments that choose among implementations of one formula, or print; they stay as the suite has them.
const KERNELS: &[&str] = &[
    "args",
    "capturable",
    "check_numerics",
    "compress_state_dict",
    "differentiable",
    "foreach",
    "fused",
    "gradient_release",
    "is_paged",
    "master_weight_bits",
    "name",
    "names",
    "no_deprecation_warning",
    "optim_bits",
    "quantizer",
    "reference",
    "triton",
    "verbose",
];

/// Numbers within the ranges of most arguments.
const ORDINARY: &[f64] = &[
    0.5, 0.1, 0.9, 0.99, 0.01, 0.999, 1e-3, 0.25, 0.3, 0.7, 0.8, 0.95, 1e-8, 1e-4, 2.0, 3.0, 1.5,
    10.0, 1.0, 0.0,
];

/// Numbers at the ends of ranges.
const EDGES: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    0.999_999_999_999_999_9,
    0.999_999_9,
    1.0 + 1.0 / 1_099_511_627_776.0,
    1e-300,
    1e-45,
    1e-30,
    1e30,
    1e300,
    -1.0,
    -0.5,
    1.5,
    2.0,
    100.0,
    f64::INFINITY,
    f64::MIN_POSITIVE,
];

/// Whole numbers.
const COUNTS: &[i64] = &[0, 1, 2, 3, 5, 7, 16, 64, 100];

/// Whether the core takes these arguments.
fn is_taken(pool: &Pool, template: &Template, hyper: &Map<String, Value>) -> bool {
    match template.inputs {
        Source::Optimizer { .. } => registry::optimizer(&pool.name, convert::args(hyper)).is_ok(),
        Source::Schedule(ref like) => {
            let spec = ScheduleSpec {
                name: &pool.name,
                reference: ORACLE,
                hyper,
                steps: 0,
                groups: like.groups,
                metric: like.metric.as_ref().map(|_| &[][..]),
                given: &like.given,
            };
            Core.schedule(&spec).is_ok()
        }
        Source::Gradient(ref like) => {
            let spec = GradientSpec {
                name: &pool.name,
                reference: ORACLE,
                hyper,
                inputs: like.tensors.iter().map(|g| &g.input).collect(),
                given: like.tensors.iter().map(|g| &g.given).collect(),
            };
            Core.gradient(&spec).is_ok()
        }
    }
}

/// Another value for a number: from a list, or 2 or ½ times what it is.
fn other_number(x: &Value, list: &[f64], choice: Index) -> Value {
    if let Some(i) = x.as_i64().filter(|_| !x.is_f64()) {
        let k = choice.index(COUNTS.len() + 2 + list.len());
        return match k {
            k if k < COUNTS.len() => COUNTS[k].into(),
            k if k == COUNTS.len() => (i + 1).into(),
            k if k == COUNTS.len() + 1 => (i / 2).into(),
            k => number(list[k - COUNTS.len() - 2]),
        };
    }
    let x = x.as_f64().unwrap_or(1.0);
    match choice.index(list.len() + 3) {
        k if k < list.len() => number(list[k]),
        k if k == list.len() => number(x * 2.0),
        k if k == list.len() + 1 => number(x * 0.5),
        _ => number(1.0 - (1.0 - x) * 0.3),
    }
}

/// The argument with a change.
fn changed(x: &Value, list: &[f64], choice: Index) -> Value {
    match x {
        Value::Bool(b) => Value::Bool(!b),
        Value::Number(_) => other_number(x, list, choice),
        Value::Array(all) if !all.is_empty() && all.iter().any(Value::is_number) => {
            let at = choice.index(all.len() * 64) % all.len();
            let one = |(i, x): (usize, &Value)| {
                if i == at && x.is_number() { other_number(x, list, choice) } else { x.clone() }
            };
            Value::Array(all.iter().enumerate().map(one).collect())
        }
        other => other.clone(),
    }
}

/// Arguments with the changes of a plan, as far as the core takes them.
fn hyper(pool: &Pool, template: &Template, plan: &Plan) -> Map<String, Value> {
    let mut hyper = template.hyper.clone();
    let defaults = pool.defaults(template);
    for (which, change) in &plan.changes {
        let open: Vec<&String> =
            hyper.keys().filter(|key| !KERNELS.contains(&key.as_str())).collect();
        if open.is_empty() {
            break;
        }
        let key = open[which.index(open.len())].clone();
        let old = hyper.get(&key).cloned().unwrap_or(Value::Null);
        let new = match change {
            Change::Default => defaults.get(&key).cloned(),
            Change::Other(other) => {
                let same = pool.templates.iter().filter(|t| t.reference == template.reference);
                let same: Vec<&Template> = same.collect();
                same[other.index(same.len())].hyper.get(&key).cloned()
            }
            Change::Ordinary(choice) => Some(changed(&old, ORDINARY, *choice)),
            Change::Edge(choice) => Some(changed(&old, EDGES, *choice)),
        };
        let Some(new) = new else { continue };
        let mut with = hyper.clone();
        with.insert(key, new);
        if is_taken(pool, template, &with) {
            hyper = with;
        }
    }
    hyper
}

/// A learning rate of the arguments, to base moving ones on.
fn base_rate(hyper: &Map<String, Value>) -> f64 {
    let rate =
        ["lr", "learning_rate", "init_lr"].into_iter().find_map(|key| hyper.get(key)?.as_f64());
    rate.filter(|x| x.is_finite() && *x > 0.0).unwrap_or(0.01)
}

fn rates(plan: &Plan, base: f64, needed: bool, rng: &mut Rng) -> Option<Vec<f64>> {
    let factor = |rng: &mut Rng| match plan.rates {
        Rates::Constant => 1.0,
        Rates::Moving => 0.5 + rng.f64(),
        Rates::Jumping => [0.0, 1.0, 0.001, 2.0, 0.25, 1.0, 100.0][rng.usize(..7)],
    };
    if plan.rates == Rates::Constant && !needed {
        return None;
    }
    Some((0..plan.steps).map(|_| base * factor(rng)).collect())
}

fn has_gradient(missing: Missing, t: usize, steps: usize, rng: &mut Rng) -> bool {
    match missing {
        Missing::Never => true,
        Missing::Sometimes => rng.usize(..3) > 0,
        Missing::First => t >= (steps / 2).clamp(1, 3) || steps == 1,
    }
}

fn rows(dtype: Dtype, shape: &[usize], rows: &[Vec<f64>]) -> Option<Tensor> {
    let all: Vec<f64> = rows.iter().flatten().copied().collect();
    Tensor::round(dtype, &[&[rows.len()], shape].concat(), &all)
}

/// A run of this plan, without answers; `None` where the plan does not fit the name.
/// `by_core`: whether the core will answer it, or the reference.
pub(crate) fn case(
    pool: &Pool,
    plan: &Plan,
    (seed, index): (u64, u64),
    by_core: bool,
) -> Option<Case> {
    let template = pool.templates.get(plan.template.index(pool.templates.len().max(1)))?;
    let mut rng = Rng::with_seed(plan.numbers);
    let hyper = hyper(pool, template, plan);
    let (steps, data) = match &template.inputs {
        Source::Optimizer { overrides, scalars, has_rate, .. } => {
            let data = optimizer(pool, plan, &hyper, (overrides, scalars, *has_rate), &mut rng)?;
            (plan.steps, Data::Optimizer(data))
        }
        Source::Schedule(like) => {
            // One step of an optimizer is ten of a schedule.
            let steps = (plan.steps * 10).min(200);
            (steps, Data::Schedule(schedule(like, plan, steps, &mut rng)))
        }
        Source::Gradient(like) => (1, Data::Gradient(gradient(&pool.name, like, plan, &mut rng)?)),
    };
    let mut metadata = BTreeMap::from([("seed".to_owned(), seed.to_string())]);
    if let Some(versions) = template.versions.as_ref().filter(|_| !by_core) {
        metadata.insert("versions".to_owned(), versions.clone());
    }
    let case = Case {
        path: PathBuf::new(),
        id: format!("{}/{}/fuzz_{seed}_{index}", pool.kind.name(), pool.name),
        kind: pool.kind,
        name: pool.name.clone(),
        reference: if by_core { ORACLE.to_owned() } else { template.reference.clone() },
        hyper,
        steps,
        note: String::new(),
        metadata,
        data,
    };
    match plan.start {
        Start::Fresh => Some(case),
        Start::Preset => Some(preset(case, &pool.slots, None)),
        Start::Late(counter) => Some(preset(case, &pool.slots, Some(counter))),
    }
}

fn optimizer(
    pool: &Pool,
    plan: &Plan,
    hyper: &Map<String, Value>,
    (overrides, scalars, has_rate): (&[Map<String, Value>], &[String], bool),
    rng: &mut Rng,
) -> Option<OptimizerCase> {
    let first = *pool.dtypes.get(plan.dtype.index(pool.dtypes.len().max(1)))?;
    let stochastic = hyper.get("bf16_stochastic_round") == Some(&Value::Bool(true));
    let decay = hyper.get("weight_decay").and_then(Value::as_f64).unwrap_or(0.0);
    let mut params = Vec::new();
    let mut groups = vec![Vec::new(); overrides.len().max(1)];
    for (i, p) in plan.params.iter().enumerate() {
        let dtype = p.dtype.map_or(first, |d| pool.dtypes[d.index(pool.dtypes.len())]);
        let n = p.shape.iter().product();
        let nothing = Before { t: 0, last: &[], param: &[], decay };
        let init = numbers(p.init, dtype, n, rng, &nothing);
        let mut grads: Vec<Vec<f64>> = Vec::new();
        for t in 0..plan.steps {
            let last = grads.last().map_or(&[][..], |x| x);
            let before = Before { t, last, param: &init, decay };
            grads.push(numbers(p.grad, dtype, n, rng, &before));
        }
        let has_grad: Vec<bool> = (0..plan.steps)
            .map(|t| n == 0 || has_gradient(p.missing, t, plan.steps, rng))
            .collect();
        let mut given = BTreeMap::new();
        if stochastic && dtype == Dtype::Bf16 {
            let bits = (0..plan.steps * n).flat_map(|_| rng.u16(..).to_le_bytes());
            let shape = [&[plan.steps], &p.shape[..]].concat();
            let bits = Tensor { dtype: Dtype::U16, shape, bytes: bits.collect() };
            given.insert("rand16".to_owned(), Given::Steps(bits));
        }
        let init = Tensor::round(dtype, &p.shape, &init)?;
        params.push(ParamCase {
            grad: rows(dtype, &p.shape, &grads)?,
            value: Tensor { shape: [&[plan.steps], &p.shape[..]].concat(), ..init.clone() },
            init,
            has_grad,
            state: BTreeMap::new(),
            state0: BTreeMap::new(),
            eval: None,
            given,
        });
        groups[p.group.index(overrides.len().max(1))].push(i);
    }
    // What a group counts is shown by a parameter that has had a gradient.
    if params.iter().all(|p: &ParamCase| p.has_grad.first() == Some(&false))
        && let Some(p) = params.first_mut()
    {
        p.has_grad[0] = true;
    }
    let group = |(k, params): (usize, Vec<usize>)| {
        let mut own = hyper.clone();
        own.extend(overrides.get(k).cloned().unwrap_or_default());
        Group { params, hyper: own }
    };
    let groups = groups.into_iter().enumerate().filter(|(_, params)| !params.is_empty());
    let given = scalars.iter().map(|what| {
        let rows = (0..plan.steps).map(|_| match what.as_str() {
            "loss_scale" => f64::from(1u32 << rng.u32(0..12)),
            _ => 0.125 + 4.0 * rng.f64(),
        });
        (what.clone(), rows.collect())
    });
    let given = given.collect();
    let lr = rates(plan, base_rate(hyper), has_rate, rng);
    Some(OptimizerCase { params, groups: groups.map(group).collect(), lr, given })
}

/// The run from the state that the core has after some steps with other gradients. A late counter is one up to whose
/// last step the suite's type holds every count: the state between two steps could not be handed over otherwise.
fn preset(case: Case, slots: &Slots, counter: Option<f64>) -> Case {
    let Data::Optimizer(data) = &case.data else { return case };
    let mut before = data.clone();
    let mut rng = Rng::with_seed(case.steps as u64);
    for p in &mut before.params {
        p.has_grad.fill(true);
        p.given.clear();
        let all: Vec<f64> = (0..p.grad.len())
            .map(|_| {
                let nothing = Before { t: 0, last: &[], param: &[], decay: 0.0 };
                numbers(Pattern::Ordinary, p.grad.dtype, 1, &mut rng, &nothing)[0]
            })
            .collect();
        if let Some(grad) = Tensor::round(p.grad.dtype, &p.grad.shape, &all) {
            p.grad = grad;
        }
    }
    let steps = case.steps.min(3);
    let warm = Case { steps, ..case.clone() };
    let Ok((rows, _)) = oracle::run(&warm, &before, &Core) else { return case };
    let mut case = case;
    let steps = case.steps as f64;
    let Data::Optimizer(data) = &mut case.data else { return case };
    let most = |p: &ParamCase| oracle::largest_count(slots, p.init.dtype).unwrap_or(0.0);
    let most = data.params.iter().map(most).fold(f64::INFINITY, f64::min) - steps;
    let counter = counter.map(|counter| counter.min(most)).filter(|counter| *counter > 0.0);
    if let Some(last) = rows.last() {
        for (p, shown) in data.params.iter_mut().zip(last) {
            p.init = shown.0.clone();
            p.state0 = oracle::start(shown, slots, counter);
            p.has_grad.iter_mut().take(1).for_each(|has| *has = true);
        }
    }
    case
}

fn schedule(like: &ScheduleCase, plan: &Plan, steps: usize, rng: &mut Rng) -> ScheduleCase {
    let mut level = 2.0;
    let metric = like.metric.as_ref().map(|_| {
        let one = |rng: &mut Rng| {
            level *= match plan.rates {
                Rates::Constant => 1.0,
                Rates::Moving => 0.8 + 0.3 * rng.f64(),
                Rates::Jumping => [1.0, 0.5, 2.0, 0.0, 1.001][rng.usize(..5)],
            };
            level
        };
        let mut one = one;
        (0..steps).map(|_| one(rng)).collect()
    });
    let given = like.given.iter().map(|(what, t)| {
        // A row a step, of positive numbers.
        let columns: usize = t.shape.iter().skip(1).product();
        let shape = [&[steps], t.shape.get(1..).unwrap_or_default()].concat();
        let values: Vec<f64> = (0..steps * columns).map(|_| size_of_rms(rng)).collect();
        let rows = Tensor::round(t.dtype, &shape, &values).unwrap_or_else(|| t.clone());
        (what.clone(), rows)
    });
    ScheduleCase { groups: like.groups, lr: Vec::new(), metric, given: given.collect() }
}

fn size_of_rms(rng: &mut Rng) -> f64 {
    f64::from((8.0 * rng.f32() - 6.0).exp2())
}

fn gradient(name: &str, like: &GradientCase, plan: &Plan, rng: &mut Rng) -> Option<GradientCase> {
    let keeps_shape = matches!(name, "accumulate" | "neftune");
    let draw = |dtype: Dtype, shape: &[usize], pattern: Pattern, rng: &mut Rng| {
        let n = shape.iter().product();
        let nothing = Before { t: 0, last: &[], param: &[], decay: 0.0 };
        Tensor::round(dtype, shape, &numbers(pattern, dtype, n, rng, &nothing))
    };
    let pattern = |k: usize| plan.params[k % plan.params.len()].grad;
    if keeps_shape {
        let one = |(k, g): (usize, &GradientTensor)| {
            let input = draw(g.input.dtype, &g.input.shape, pattern(k), rng)?;
            Some(GradientTensor { input, ..g.clone() })
        };
        let tensors = like.tensors.iter().enumerate().map(one).collect::<Option<_>>()?;
        return Some(GradientCase { tensors, norm: None });
    }
    let dtypes: Vec<Dtype> = like.tensors.iter().map(|g| g.input.dtype).collect();
    let one = |p: &super::plan::ParamPlan| {
        let dtype = dtypes[p.dtype.unwrap_or(plan.dtype).index(dtypes.len())];
        let input = draw(dtype, &p.shape, p.grad, rng)?;
        Some(GradientTensor { output: input.clone(), input, given: BTreeMap::new() })
    };
    let tensors = plan.params.iter().map(one).collect::<Option<_>>()?;
    Some(GradientCase { tensors, norm: None })
}
