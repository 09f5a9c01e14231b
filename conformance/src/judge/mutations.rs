//! Mutations: the mistakes that implementations make.
//!
//! A [`Mutation`] makes a backend wrong in one known way, by passing altered arguments, gradients or state to the
//! right rule, or by altering its answer. `tests/mutation_kill.rs` shows that the goldens kill each of them;
//! [`crate::judge::diagnose`] explains failures by them.

use std::collections::BTreeMap;

use half::{bf16, f16};
use serde_json::{Map, Value};

use crate::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use crate::golden::{Case, Data, Group};
use crate::judge::bounds::is_low_bit;
use crate::judge::comparator::MAX_SAMPLES;
use crate::judge::compare::is_code;
use crate::tensor::Tensor;

mod arguments;
mod formulas;
mod known;

pub use arguments::ignored_arguments;
pub use formulas::FORMULAS;
pub use known::mistakes;

/// One known mistake.
#[derive(Clone, Copy)]
pub struct Mutation {
    /// Its name in reports.
    pub name: &'static str,
    /// Whether a case has the arguments or state that it alters.
    applies: fn(&Case, &Group) -> bool,
    step: fn(MutatedStep<'_>) -> Result<StepOutput, BackendError>,
}

impl std::fmt::Debug for Mutation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every mutation that the goldens must kill.
pub const MUTATIONS: &[Mutation] = &[
    Mutation { name: "weight decay ignored", applies: decays, step: decay_ignored },
    Mutation {
        name: "weight decay coupled into the gradient",
        applies: |case, group| decays(case, group) && !is_coupled(&case.name),
        step: decay_coupled,
    },
    Mutation {
        name: "weight decay decoupled from the gradient",
        applies: |case, group| decays(case, group) && is_coupled(&case.name),
        step: decay_decoupled,
    },
    Mutation {
        name: "weight decay not multiplied by the learning rate",
        applies: |case, group| decays(case, group) && !is_coupled(&case.name),
        step: decay_without_lr,
    },
    Mutation {
        name: "weight decay on the other side of the update",
        applies: |case, group| decays(case, group) && !is_coupled(&case.name),
        step: decay_late,
    },
    Mutation { name: "betas swapped", applies: |_, g| two_betas(g).is_some(), step: betas_swapped },
    Mutation {
        name: "bias correction off by one",
        applies: |case, _| counts(case),
        step: |s| shifted(s, |step, _| step + 1.0),
    },
    Mutation {
        name: "no bias correction",
        applies: |case, _| counts(case),
        step: |s| shifted(s, |_, _| 1e15),
    },
    Mutation {
        name: "steps counted without a gradient",
        applies: |case, _| counted(case) == Some(Counted::Updates),
        step: |s| shifted(s, |_, counts| counts.steps as f64),
    },
    Mutation {
        name: "steps counted only with a gradient",
        applies: |case, _| counted(case) == Some(Counted::Calls),
        step: steps_with_gradient,
    },
    Mutation { name: "epsilon ignored", applies: has_eps, step: |s| with_eps(s, |_| 0.0) },
    Mutation { name: "epsilon doubled", applies: has_eps, step: |s| with_eps(s, |eps| 2.0 * eps) },
    Mutation {
        name: "epsilon inside the root",
        applies: |case, group| has_eps(case, group) && second_moment(case).is_some(),
        step: |s| eps_inside(s, false),
    },
    Mutation {
        name: "hyper-parameters in f16",
        applies: |_, _| true,
        step: |s| rounded(s, |x| f64::from(f16::from_f64(x))),
    },
    Mutation { name: "gradient negated", applies: |_, _| true, step: negated },
];

/// More mistakes that the goldens must kill, of rules that few implementations have: too special to explain a failure.
pub const NEIGHBOURS: &[Mutation] = &[
    Mutation {
        name: "no look ahead",
        // bitsandbytes takes the argument and does nothing.
        applies: |case, group| {
            group.hyper.get("nesterov") == Some(&Value::Bool(true))
                && !case.name.starts_with("bnb_")
        },
        step: |s| with_argument(s, "nesterov", |_| Value::Bool(false)),
    },
    // Projections.
    Mutation { name: "projector in bf16", applies: projects, step: projector_in_bf16 },
    Mutation {
        name: "projector not divided by the root of the rank",
        applies: |case, group| case.name.starts_with("apollo") && rank_above_one(case, group),
        step: projector_undivided,
    },
    Mutation {
        name: "scale of the projection applied twice",
        applies: |case, group| {
            projects(case, group) && number(group, "scale").is_some_and(|scale| scale != 1.0)
        },
        step: |s| with_argument(s, "scale", |x| Value::from(x.as_f64().unwrap_or(1.0).powi(2))),
    },
    Mutation {
        name: "growth of the norm not limited",
        applies: |_, group| group.hyper.get("disable_nl") == Some(&Value::Bool(false)),
        step: |s| with_argument(s, "disable_nl", |_| Value::Bool(true)),
    },
    // Newton-Schulz iterations.
    Mutation {
        name: "one iteration too few",
        applies: |_, group| number(group, "ns_steps").is_some_and(|steps| steps > 0.0),
        step: |s| {
            with_argument(s, "ns_steps", |x| Value::from(x.as_u64().unwrap_or(1).saturating_sub(1)))
        },
    },
    Mutation {
        name: "learning rate adjusted to shrinking shapes too",
        applies: |case, group| adjusts(group) == Some(Value::Null) && has_wide_matrix(case, group),
        step: |s| with_argument(s, "adjust_lr_fn", |_| "spectral_unclamped".into()),
    },
    Mutation {
        name: "weight decay by the adjusted learning rate",
        applies: |case, group| {
            decays(case, group) && adjusts(group) == Some("match_rms_adamw".into())
        },
        step: decay_adjusted,
    },
    // Factored second moments.
    Mutation {
        name: "update not clipped",
        applies: |_, group| number(group, "clip_threshold").is_some(),
        step: |s| with_argument(s, "clip_threshold", |_| Value::from(1e30)),
    },
    Mutation {
        name: "size of the parameter not bounded below",
        applies: |_, group| {
            group.hyper.get("scale_parameter") == Some(&Value::Bool(true))
                && group.hyper.get("eps").and_then(Value::as_array).is_some()
        },
        step: |s| {
            with_argument(s, "eps", |eps| {
                Value::from(vec![eps.get(0).cloned().unwrap_or_default(), Value::from(0.0)])
            })
        },
    },
    // Schedule-free averages.
    Mutation {
        name: "evaluated where it is trained",
        applies: |case, _| case.name.starts_with("schedule_free"),
        step: |s| {
            let mut out = s.answer()?;
            for (eval, value) in out.evals.iter_mut().zip(&out.values) {
                *eval = eval.is_some().then(|| value.clone());
            }
            Ok(out)
        },
    },
    Mutation {
        name: "average of the last point alone",
        applies: |case, _| case.name.starts_with("schedule_free"),
        step: last_point,
    },
    // State in few bits.
    Mutation {
        name: "one code in fifty the next one",
        applies: |case, _| is_low_bit(&case.id) && has_codes(case),
        step: |s| spoiled(s, next_code),
    },
    Mutation {
        name: "scales in bf16",
        applies: |case, _| is_low_bit(&case.id) && has_codes(case),
        step: |s| spoiled(s, scale_in_bf16),
    },
];

/// Deviations that some references make on purpose, so that not every golden can kill them; for
/// [`crate::judge::diagnose`] only.
pub const VARIANTS: &[Mutation] = &[Mutation {
    name: "hyper-parameters in f32",
    applies: |_, _| true,
    step: |s| rounded(s, |x| f64::from(x as f32)),
}];

impl Mutation {
    /// Whether a case has the arguments or state that it alters.
    #[must_use]
    pub fn applies(&self, case: &Case) -> bool {
        let Data::Optimizer(data) = &case.data else { return false };
        data.groups.iter().any(|g| (self.applies)(case, g))
    }

    /// The backend with this mutation in its optimizers.
    #[must_use]
    pub fn in_place_of<'a>(&'a self, backend: &'a dyn Backend) -> impl Backend + 'a {
        MutatedBackend { backend, name: self.name, step: &self.step }
    }
}

/// What a mutation does to a step.
type WrongStep = dyn Fn(MutatedStep<'_>) -> Result<StepOutput, BackendError> + Send + Sync;

/// A mistake with which a case can be computed.
pub struct Mistake {
    /// Its name in reports.
    pub name: String,
    step: Box<WrongStep>,
}

impl Mistake {
    /// The backend with this mistake in its optimizers.
    #[must_use]
    pub fn in_place_of<'a>(&'a self, backend: &'a dyn Backend) -> impl Backend + 'a {
        MutatedBackend { backend, name: &self.name, step: &self.step }
    }
}

/// Names whose reference adds weight decay to the gradient.
#[must_use]
pub fn is_coupled(name: &str) -> bool {
    let plain =
        ["adadelta", "adagrad", "adam", "adamax", "asgd", "nadam", "radam", "rmsprop", "sgd"];
    let others = ["flash_adam", "flash_sgd", "schedule_free_sgd"];
    let bnb = name.starts_with("bnb_") || name.starts_with("rmsprop_bnb");
    let bnb = bnb && !["adam", "lamb"].iter().any(|n| name.contains(n));
    let torchao = name.starts_with("torchao_adam") && !name.starts_with("torchao_adamw");
    plain.contains(&name) || others.contains(&name) || bnb || torchao
}

fn number(group: &Group, key: &str) -> Option<f64> {
    group.hyper.get(key).and_then(Value::as_f64)
}

fn decays(_: &Case, group: &Group) -> bool {
    number(group, "weight_decay").is_some_and(|wd| wd != 0.0)
}

/// The two betas, if they differ.
fn two_betas(group: &Group) -> Option<(f64, f64)> {
    let list = group.hyper.get("betas").and_then(Value::as_array);
    let listed = list.and_then(|b| Some((b.first()?.as_f64()?, b.get(1)?.as_f64()?)));
    let single = || {
        let either = |a, b| number(group, a).or_else(|| number(group, b));
        Some((either("beta1", "beta_1")?, either("beta2", "beta_2")?))
    };
    listed.or_else(single).filter(|(a, b)| a != b)
}

/// The keys under which references store the number of steps.
const STEP_KEYS: [&str; 3] = ["step", "step_num", "k"];

fn counts(case: &Case) -> bool {
    let Data::Optimizer(data) = &case.data else { return false };
    data.params.iter().any(|p| STEP_KEYS.iter().any(|k| p.state.contains_key(*k)))
}

/// Whether a step counter counts the updates of its parameter or the calls of `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Updates,
    Calls,
}

/// The meaning of the reference's step counter, if the case shows the difference.
fn counted(case: &Case) -> Option<Counted> {
    let Data::Optimizer(data) = &case.data else { return None };
    if data.params.iter().any(|p| !p.state0.is_empty()) {
        return None; // started elsewhere
    }
    data.params.iter().find_map(|p| {
        let steps = STEP_KEYS.iter().find_map(|k| p.state.get(*k))?;
        let (last, updates) = (case.steps.checked_sub(1)?, p.updates_before(case.steps));
        match steps.get(last) as usize {
            _ if updates == case.steps => None,
            n if n == updates => Some(Counted::Updates),
            n if n == case.steps => Some(Counted::Calls),
            _ => None,
        }
    })
}

fn has_eps(_: &Case, group: &Group) -> bool {
    eps_key(group).is_some()
}

fn eps_key(group: &Group) -> Option<&'static str> {
    ["eps", "epsilon"].into_iter().find(|k| number(group, k).is_some_and(|eps| eps != 0.0))
}

/// The slot whose root is in the denominator.
fn second_moment(case: &Case) -> Option<&'static str> {
    let Data::Optimizer(data) = &case.data else { return None };
    SECOND_MOMENTS.into_iter().find(|k| data.params.iter().any(|p| p.state.contains_key(*k)))
}

const SECOND_MOMENTS: [&str; 5] = ["exp_avg_sq", "square_avg", "sum", "state2", "v"];

/// The slots of amsgrad's maximum.
const MAXIMA: [&str; 2] = ["max_exp_avg_sq", "vhat"];

fn projects(_: &Case, group: &Group) -> bool {
    number(group, "rank").is_some()
}

fn rank_above_one(_: &Case, group: &Group) -> bool {
    let random = group.hyper.get("proj").is_none_or(|proj| proj == "random");
    random && number(group, "rank").is_some_and(|rank| rank > 1.0)
}

fn adjusts(group: &Group) -> Option<Value> {
    group.hyper.get("adjust_lr_fn").cloned()
}

/// Whether a matrix of the group has more columns than rows.
fn has_wide_matrix(case: &Case, group: &Group) -> bool {
    let Data::Optimizer(data) = &case.data else { return false };
    let is_wide = |&i: &usize| matches!(data.params[i].init.shape[..], [rows, cols] if rows < cols);
    group.params.iter().any(is_wide)
}

fn has_codes(case: &Case) -> bool {
    let Data::Optimizer(data) = &case.data else { return false };
    let is_coded = |rows: &Tensor| is_code(rows.dtype);
    data.params.iter().any(|p| p.state.values().any(is_coded))
}

/// The state before a step and its inputs, to be altered and then [stepped](MutatedStep::answer).
#[derive(Clone)]
struct MutatedStep<'a> {
    backend: &'a dyn Backend,
    name: String,
    reference: String,
    steps: usize,
    given: Vec<Vec<String>>,
    hyper: Map<String, Value>,
    groups: Vec<Group>,
    params: Vec<ParamState>,
    inputs: Inputs,
}

/// A parameter before the step.
#[derive(Clone)]
struct ParamState {
    value: Tensor,
    state: BTreeMap<String, Tensor>,
    counts: Counts,
    /// Neither value nor state has been set since construction.
    fresh: bool,
}

/// All parameters after the step.
#[derive(Clone, Default)]
struct StepOutput {
    values: Vec<Tensor>,
    states: Vec<BTreeMap<String, Tensor>>,
    evals: Vec<Option<Tensor>>,
}

impl MutatedStep<'_> {
    fn spec(&self) -> OptimizerSpec<'_> {
        OptimizerSpec {
            name: &self.name,
            reference: &self.reference,
            hyper: match &self.groups[..] {
                [only] => &only.hyper,
                _ => &self.hyper,
            },
            groups: &self.groups,
            params: self.params.iter().map(|p| &p.value).collect(),
            steps: self.steps,
            given: self.given.iter().map(|g| g.iter().map(String::as_str).collect()).collect(),
        }
    }

    /// The initial state of every parameter.
    fn initial(&self) -> Result<Vec<BTreeMap<String, Tensor>>, BackendError> {
        let spec = self.spec();
        let run = self.backend.optimizer(&spec)?;
        Ok((0..self.params.len()).map(|i| run.state(i)).collect())
    }

    /// The answer of the right rule.
    fn answer(&self) -> Result<StepOutput, BackendError> {
        let spec = self.spec();
        let mut run = self.backend.optimizer(&spec)?;
        for (i, p) in self.params.iter().enumerate().filter(|(_, p)| !p.fresh) {
            match run.load(i, &p.value, &p.state, p.counts) {
                Err(BackendError::NeedsState(_)) => {}
                other => other?,
            }
        }
        run.step(&self.inputs)?;
        let all = || 0..self.params.len();
        Ok(StepOutput {
            values: all().map(|i| run.value(i)).collect(),
            states: all().map(|i| run.state(i)).collect(),
            evals: all().map(|i| run.eval(i)).collect(),
        })
    }

    fn group(&self, i: usize) -> Option<&Group> {
        self.groups.iter().find(|g| g.params.contains(&i))
    }

    fn number(&self, i: usize, key: &str) -> f64 {
        self.group(i).and_then(|g| number(g, key)).unwrap_or(0.0)
    }

    /// The learning rate in force for parameter `i`.
    fn lr(&self, i: usize) -> f64 {
        self.inputs.lr.unwrap_or_else(|| {
            self.group(i)
                .and_then(|g| number(g, "lr").or_else(|| number(g, "learning_rate")))
                .unwrap_or(0.0)
        })
    }

    fn set(&mut self, key: &str, f: impl Fn(&Group) -> Option<Value>) {
        for group in &mut self.groups {
            if let Some(value) = f(group) {
                group.hyper.insert(key.to_owned(), value);
            }
        }
    }

    /// Parameters that have a gradient.
    fn with_gradient(&self) -> Vec<usize> {
        (0..self.params.len())
            .filter(|&i| self.inputs.grads.get(i).is_some_and(Option::is_some))
            .collect()
    }
}

/// Applies a function to every element, and rounds to the tensor's type.
fn map(x: &Tensor, f: impl Fn(usize, f64) -> f64) -> Tensor {
    let values: Vec<f64> = x.to_f64s().iter().enumerate().map(|(i, &x)| f(i, x)).collect();
    Tensor::round(x.dtype, &x.shape, &values).unwrap_or_else(|| x.clone())
}

fn undecayed(mut s: MutatedStep<'_>) -> MutatedStep<'_> {
    s.set("weight_decay", |g| number(g, "weight_decay").map(|_| Value::from(0.0)));
    s
}

fn decay_ignored(s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    undecayed(s).answer()
}

fn decay_coupled(s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    // Where the gradient is negated, decay comes after that.
    let maximizes = |i| s.group(i).is_some_and(|g| g.hyper.get("maximize") == Some(&true.into()));
    let sign = |i| if maximizes(i) { -1.0 } else { 1.0 };
    let decay = (0..s.params.len()).map(|i| sign(i) * s.number(i, "weight_decay"));
    let decay: Vec<f64> = decay.collect();
    let mut s = undecayed(s);
    let grads = s.inputs.grads.iter_mut().zip(&s.params).zip(decay);
    for ((grad, p), wd) in grads {
        if let Some(g) = grad {
            *g = map(g, |k, g| g + wd * p.value.get(k));
        }
    }
    s.answer()
}

fn decay_decoupled(s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    let mut out = undecayed(s.clone()).answer()?;
    for i in s.with_gradient() {
        let (factor, p) = (s.lr(i) * s.number(i, "weight_decay"), &s.params[i].value);
        out.values[i] = map(&out.values[i], |k, x| x - factor * p.get(k));
    }
    Ok(out)
}

fn decay_without_lr(mut s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    let lr = s.lr(0);
    s.set("weight_decay", |g| number(g, "weight_decay").map(|wd| Value::from(wd / lr)));
    s.answer()
}

/// (p − u)(1 − lr·wd) for p(1 − lr·wd) − u, or vice versa.
fn decay_late(s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    let right = s.answer()?;
    let mut out = undecayed(s.clone()).answer()?;
    for i in s.with_gradient() {
        let (factor, p) = (s.lr(i) * s.number(i, "weight_decay"), &s.params[i].value);
        out.values[i] = map(&out.values[i], |k, x| {
            let (early, late) = (x - factor * p.get(k), x - factor * x);
            let right = right.values[i].get(k);
            // Take the order that the rule does not use.
            if (late - right).abs() < (early - right).abs() { early } else { late }
        });
    }
    Ok(out)
}

fn betas_swapped(mut s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    for group in &mut s.groups {
        let Some((first, second)) = two_betas(group) else { continue };
        if let Some(Value::Array(betas)) = group.hyper.get_mut("betas") {
            betas.swap(0, 1);
        }
        for (key, value) in
            [("beta1", second), ("beta_1", second), ("beta2", first), ("beta_2", first)]
        {
            if let Some(x) = group.hyper.get_mut(key) {
                *x = Value::from(value);
            }
        }
    }
    s.answer()
}

/// Changes the step counters that the rule sees, but not those that the backend shows.
fn shifted(mut s: MutatedStep<'_>, f: fn(f64, Counts) -> f64) -> Result<StepOutput, BackendError> {
    let right = s.answer()?;
    let initial = s.initial()?;
    for (p, initial) in s.params.iter_mut().zip(initial) {
        // A parameter that has not been loaded has no counter yet: give it the initial state.
        let initial_step = STEP_KEYS.iter().find_map(|key| initial.get(*key)).map(|x| x.get(0));
        if p.fresh && initial_step.is_some_and(|step| f(step, p.counts) != step) {
            (p.state, p.fresh) = (initial, false);
        }
        for key in STEP_KEYS {
            if let Some(step) = p.state.get_mut(key) {
                *step = Tensor::scalar(f(step.get(0), p.counts));
            }
        }
    }
    let mut out = s.answer()?;
    for (state, right) in out.states.iter_mut().zip(right.states) {
        for key in STEP_KEYS {
            if let Some(step) = right.get(key) {
                state.insert(key.to_owned(), step.clone());
            }
        }
    }
    Ok(out)
}

/// A shared counter counts only as often as the parameter with the fewest gradients.
fn steps_with_gradient(mut s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    let least = s.params.iter().map(|p| p.counts.updates).min().unwrap_or(0);
    s.params.iter_mut().for_each(|p| p.counts.updates = least);
    shifted(s, |_, counts| counts.updates as f64)
}

fn with_eps(mut s: MutatedStep<'_>, f: impl Fn(f64) -> f64) -> Result<StepOutput, BackendError> {
    for key in ["eps", "epsilon"] {
        s.set(key, |g| number(g, key).map(|eps| Value::from(f(eps))));
    }
    s.answer()
}

/// √(v + ε) for √v + ε, by an ε′ for each element that has this effect; before Adam's correction, or after it.
fn eps_inside(s: MutatedStep<'_>, is_early: bool) -> Result<StepOutput, BackendError> {
    let mut out = s.answer()?;
    for i in s.with_gradient() {
        let Some(group) = s.group(i) else { continue };
        let Some(eps) = eps_key(group).and_then(|k| number(group, k)) else { continue };
        let state = out.states[i].clone();
        // With amsgrad the root is of the maximum.
        let mut moments = MAXIMA.iter().chain(&SECOND_MOMENTS);
        let Some(v) = moments.find_map(|k| state.get(*k)) else { continue };
        let step = STEP_KEYS.iter().find_map(|k| state.get(*k)).map(|t| t.get(0));
        let Some(step) = step else { continue };
        // Adam takes the root of the corrected moment, except in older Transformers.
        let correction = match two_betas(group) {
            Some((_, beta2)) if s.name != "adamw_hf" => 1.0 - beta2.powf(step),
            _ => 1.0,
        };
        let (before, after) = if is_early { (1.0, correction.sqrt()) } else { (correction, 1.0) };
        let mean = state.get("grad_avg");
        for k in 0..out.values[i].len().min(MAX_SAMPLES).min(v.len()) {
            let v = v.get(k) - mean.map_or(0.0, |mean| mean.get(k) * mean.get(k));
            let inside = (v / before + eps).sqrt();
            let answer = with_eps(s.clone(), |_| (inside - (v / before).sqrt()) / after)?;
            put(&mut out.values[i], k, &answer.values[i]);
            for (slot, x) in &mut out.states[i] {
                answer.states[i].get(slot).into_iter().for_each(|new| put(x, k, new));
            }
        }
    }
    Ok(out)
}

/// Takes one element of another tensor.
fn put(x: &mut Tensor, k: usize, from: &Tensor) {
    let at = k * x.dtype.size()..(k + 1) * x.dtype.size();
    if let (true, Some(new)) = (x.dtype == from.dtype, from.bytes.get(at.clone()))
        && let Some(old) = x.bytes.get_mut(at)
    {
        old.copy_from_slice(new);
    }
}

fn rounded(mut s: MutatedStep<'_>, to: fn(f64) -> f64) -> Result<StepOutput, BackendError> {
    fn round(value: &mut Value, to: fn(f64) -> f64) {
        match value {
            Value::Number(n) if n.is_f64() => *value = Value::from(to(n.as_f64().unwrap_or(0.0))),
            Value::Array(list) => list.iter_mut().for_each(|x| round(x, to)),
            _ => {}
        }
    }
    s.groups.iter_mut().flat_map(|g| g.hyper.values_mut()).for_each(|x| round(x, to));
    s.inputs.lr = s.inputs.lr.map(to);
    s.answer()
}

fn negated(mut s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    s.inputs.grads.iter_mut().flatten().for_each(|g| *g = map(g, |_, g| -g));
    s.answer()
}

/// Changes an argument of the groups that have it.
fn with_argument(
    mut s: MutatedStep<'_>,
    key: &str,
    f: impl Fn(&Value) -> Value,
) -> Result<StepOutput, BackendError> {
    s.set(key, |g| g.hyper.get(key).map(&f));
    s.answer()
}

/// Alters the projectors that the reference drew or decomposed.
fn with_projectors(
    mut s: MutatedStep<'_>,
    f: impl Fn(&MutatedStep<'_>, usize, &Tensor) -> Tensor,
) -> Result<StepOutput, BackendError> {
    let given = s.inputs.tensors.clone();
    for (i, given) in given.iter().enumerate() {
        for (name, (projector, now)) in
            given.iter().filter(|(name, _)| name.starts_with("projector"))
        {
            let altered = f(&s, i, projector);
            s.inputs.tensors[i].insert(name.clone(), (altered, *now));
        }
    }
    s.answer()
}

fn projector_in_bf16(s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    with_projectors(s, |_, _, x| map(x, |_, x| bf16::from_f64(x).to_f64()))
}

fn projector_undivided(s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    with_projectors(s, |s, i, x| {
        let root = s.number(i, "rank").sqrt();
        map(x, |_, x| x * root)
    })
}

/// 1 − η r λ for 1 − η λ, where r = 0.2 √max(rows, columns).
fn decay_adjusted(mut s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    let longest = |group: &Group| {
        let shapes = group.params.iter().map(|&i| s.params[i].value.shape.iter().max());
        shapes.flatten().max().copied().unwrap_or(1) as f64
    };
    let ratios: Vec<f64> = s.groups.iter().map(|g| 0.2 * longest(g).sqrt()).collect();
    for (group, ratio) in s.groups.iter_mut().zip(ratios) {
        let decay = number(group, "weight_decay").unwrap_or(0.0);
        group.hyper.insert("weight_decay".to_owned(), Value::from(decay * ratio));
    }
    s.answer()
}

/// The weights of all points before are forgotten, though the sum is shown as it should be.
fn last_point(mut s: MutatedStep<'_>) -> Result<StepOutput, BackendError> {
    const SUM: &str = "weight_sum";
    let right = s.answer()?;
    for p in &mut s.params {
        if let Some(sum) = p.state.get_mut(SUM) {
            *sum = map(sum, |_, _| 0.0);
        }
    }
    let mut out = s.answer()?;
    for (state, right) in out.states.iter_mut().zip(right.states) {
        if let Some(sum) = right.get(SUM) {
            state.insert(SUM.to_owned(), sum.clone());
        }
    }
    Ok(out)
}

/// Alters the state that is shown, and kept.
fn spoiled(s: MutatedStep<'_>, f: fn(&str, &Tensor) -> Tensor) -> Result<StepOutput, BackendError> {
    let mut out = s.answer()?;
    for state in &mut out.states {
        state.iter_mut().for_each(|(slot, x)| *x = f(slot, x));
    }
    Ok(out)
}

/// The next code towards the middle, for one element in fifty.
fn next_code(_: &str, x: &Tensor) -> Tensor {
    let mut x = x.clone();
    if is_code(x.dtype) {
        for code in x.bytes.iter_mut().step_by(50) {
            *code = if *code & 0x7f > 0x40 { *code - 1 } else { *code + 1 };
        }
    }
    x
}

fn scale_in_bf16(slot: &str, x: &Tensor) -> Tensor {
    let is_scale =
        slot.ends_with("scale") || slot.ends_with("scales") || slot.starts_with("absmax");
    if is_scale { map(x, |_, x| bf16::from_f64(x).to_f64()) } else { x.clone() }
}

struct MutatedBackend<'a> {
    backend: &'a dyn Backend,
    name: &'a str,
    step: &'a WrongStep,
}

struct MutatedRun<'a> {
    mutated: MutatedStep<'a>,
    /// An unmutated run, which checks whether a state can be loaded.
    probe: Box<dyn Run + 'a>,
    wrong: &'a WrongStep,
    after: StepOutput,
}

impl Backend for MutatedBackend<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        let probe = self.backend.optimizer(spec)?;
        let params = spec.params.iter().map(|&value| ParamState {
            value: value.clone(),
            state: BTreeMap::new(),
            counts: Counts::default(),
            fresh: true,
        });
        let mutated = MutatedStep {
            backend: self.backend,
            name: spec.name.to_owned(),
            reference: spec.reference.to_owned(),
            steps: spec.steps,
            given: spec.given.iter().map(|g| g.iter().map(|&w| w.to_owned()).collect()).collect(),
            hyper: spec.hyper.clone(),
            groups: spec.groups.to_vec(),
            params: params.collect(),
            inputs: Inputs::default(),
        };
        let after = StepOutput::default();
        Ok(Box::new(MutatedRun { mutated, probe, wrong: self.step, after }))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        self.backend.schedule(spec)
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        self.backend.gradient(spec)
    }
}

impl Run for MutatedRun<'_> {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        self.mutated.params[i] =
            ParamState { value: value.clone(), state: state.clone(), counts, fresh: false };
        self.probe.load(i, value, state, counts)
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        self.mutated.inputs = inputs.clone();
        self.after = (self.wrong)(self.mutated.clone())?;
        for (i, p) in self.mutated.params.iter_mut().enumerate() {
            p.value = self.after.values[i].clone();
            p.state = self.after.states[i].clone();
            p.counts.steps += 1;
            p.counts.updates += u64::from(inputs.grads[i].is_some());
            p.fresh = false;
        }
        Ok(())
    }

    fn value(&self, i: usize) -> Tensor {
        self.mutated.params[i].value.clone()
    }

    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        let p = &self.mutated.params[i];
        if p.fresh { self.probe.state(i) } else { p.state.clone() }
    }

    fn eval(&self, i: usize) -> Option<Tensor> {
        // Before the first step there is none.
        self.after.evals.get(i).cloned().flatten()
    }
}
