//! Arguments that are ignored: at their defaults in place of what is given.

use bitstep::hyper::{Args, FieldMut, FieldVisitor, HyperParams, Value as Argument};
use bitstep::registry;
use serde_json::Value;

use super::{Mistake, MutatedStep, StepOutput};
use crate::backend::BackendError;
use crate::golden::{Case, Data};

/// Arguments that choose between kernels.
const KERNELS: [&str; 4] = ["foreach", "fused", "capturable", "differentiable"];

/// For each argument that a case sets to something else than its default, the mistake of ignoring it; for each
/// switch that is on by default, that of leaving it off.
#[must_use]
pub fn ignored_arguments(case: &Case) -> Vec<Mistake> {
    let Data::Optimizer(data) = &case.data else { return Vec::new() };
    let Some((used, defaults)) = defaults(case) else { return Vec::new() };
    let mut out = Vec::new();
    for (key, default) in defaults.iter().filter(|(key, _)| used.contains(key)) {
        let default = json(default);
        // To ignore weight decay is a mistake of its own.
        if KERNELS.contains(&key) || key == "weight_decay" && default.as_f64() == Some(0.0) {
            continue;
        }
        let is_default = |x: &Value| match (x.as_f64(), default.as_f64()) {
            (Some(x), Some(default)) => x == default,
            _ => *x == default,
        };
        let is_set = data.groups.iter().filter_map(|g| g.hyper.get(key)).any(|x| !is_default(x));
        let (name, to) = match &default {
            Value::Bool(true) if !is_set => (format!("`{key}` ignored"), Value::Bool(false)),
            _ if !is_set => continue,
            Value::Bool(false) | Value::Null => (format!("`{key}` ignored"), default),
            x if x.as_f64() == Some(0.0) => (format!("`{key}` ignored"), default),
            _ => (format!("`{key}` at its default"), default),
        };
        let key = key.to_owned();
        let step = move |mut s: MutatedStep<'_>| {
            s.set(&key, |g| g.hyper.get(&key).map(|_| to.clone()));
            s.answer()
        };
        // amsgrad's maximum that is not used is a mistake of its own.
        if name.ends_with("ignored") && !name.contains("amsgrad") {
            let (name, step) = (name.clone(), step.clone());
            let step = move |s: MutatedStep<'_>| with_its_state(s, &step);
            out.push(Mistake { name, step: Box::new(step) });
        }
        out.push(Mistake { name, step: Box::new(step) });
    }
    out
}

/// The answer with all the state that the right rule keeps, which is computed but not used.
fn with_its_state(
    s: MutatedStep<'_>,
    step: impl Fn(MutatedStep<'_>) -> Result<StepOutput, BackendError>,
) -> Result<StepOutput, BackendError> {
    let right = s.answer()?;
    let mut out = step(s)?;
    let mut adds = false;
    for (state, right) in out.states.iter_mut().zip(right.states) {
        for (slot, x) in right {
            adds |= !state.contains_key(&slot);
            state.entry(slot).or_insert(x);
        }
    }
    let none = || BackendError::Unsupported("no further state".to_owned());
    if adds { Ok(out) } else { Err(none()) }
}

/// The arguments that can change values, and all of them with their defaults.
fn defaults(case: &Case) -> Option<(Vec<&'static str>, Args)> {
    struct Used(Vec<&'static str>);
    impl FieldVisitor for Used {
        fn field(&mut self, name: &'static str, slot: FieldMut<'_>) {
            if !matches!(slot, FieldMut::Ignored | FieldMut::MustBeNone) {
                self.0.push(name);
            }
        }
    }
    // Some need a rate, and some refuse one beside their own.
    let made = registry::optimizer(&case.name, Args::new().with("lr", 1e-3));
    let mut spec = made.or_else(|_| registry::optimizer(&case.name, Args::new())).ok()?;
    let hyper: &mut dyn HyperParams = spec.rule.hyper_params();
    let mut used = Used(Vec::new());
    hyper.fields(&mut used);
    let all = Args::of(hyper);
    Some((used.0, all))
}

fn json(x: &Argument) -> Value {
    match x {
        Argument::None => Value::Null,
        Argument::Bool(b) => (*b).into(),
        Argument::Int(i) => (*i).into(),
        Argument::Float(x) => (*x).into(),
        Argument::Str(s) => s.as_str().into(),
        Argument::List(l) => l.iter().map(json).collect(),
        Argument::Map(m) => m.iter().map(|(k, v)| (k.clone(), json(v))).collect(),
    }
}
