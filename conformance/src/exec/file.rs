//! Encodes requests, and decodes and validates answers, as safetensors files.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use crate::backend::{GradientSpec, Inputs, OptimizerSpec, ScheduleSpec};
use crate::golden;
use crate::tensor::{Dtype, Tensor};

/// The value of `format` in a request.
pub const REQUEST: &str = "bitstep-request/1";
/// The value of `format` in an answer.
pub const ANSWER: &str = "bitstep-answer/1";

/// The names of the two files, which do not depend on the case.
pub(super) const REQUEST_FILE: &str = "request.safetensors";
pub(super) const ANSWER_FILE: &str = "answer.safetensors";

/// A decoded safetensors file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct File {
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl File {
    pub(crate) fn new(format: &str) -> File {
        let mut file = File::default();
        file.set("format", format);
        file
    }

    pub(crate) fn set(&mut self, key: &str, value: impl ToString) {
        self.meta.insert(key.to_owned(), value.to_string());
    }

    pub(crate) fn put(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// All tensors whose names have this prefix, by the rest of the name.
    pub(crate) fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let own =
            |(k, t): (&String, &Tensor)| Some((k.strip_prefix(prefix)?.to_owned(), t.clone()));
        self.tensors.iter().filter_map(own).collect()
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>, String> {
        let views = self.tensors.iter().map(|(name, t)| {
            let view = TensorView::new(t.dtype.stored(), t.shape.clone(), &t.bytes);
            Ok((name, view.map_err(|e| e.to_string())?))
        });
        let views = views.collect::<Result<Vec<_>, String>>()?;
        let meta: HashMap<_, _> = self.meta.clone().into_iter().collect();
        safetensors::serialize(views, Some(meta)).map_err(|e| e.to_string())
    }

    pub(crate) fn parse(bytes: &[u8], format: &str) -> Result<File, String> {
        let (meta, tensors) = golden::split(bytes).map_err(|e| e.to_string())?;
        match meta.get("format") {
            Some(found) if found == format => Ok(File { meta, tensors }),
            Some(found) => Err(format!("its `format` is `{found}`, wanted `{format}`")),
            None => Err(format!("its metadata lack `format`, wanted `{format}`")),
        }
    }
}

/// A parameter before the first step of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParamStart {
    pub(crate) value: Option<Tensor>,
    pub(crate) state: BTreeMap<String, Tensor>,
    pub(crate) updates: u64,
}

/// Stacks rows, with zeros for missing ones; `None` if all are missing.
fn rows<'a>(
    rows: impl Iterator<Item = Option<&'a Tensor>> + Clone,
) -> Result<Option<Tensor>, String> {
    let Some(first) = rows.clone().flatten().next() else { return Ok(None) };
    let mut bytes = Vec::new();
    let mut count = 0;
    for row in rows {
        match row {
            Some(t) if t.dtype == first.dtype && t.shape == first.shape => {
                bytes.extend_from_slice(&t.bytes);
            }
            Some(t) => {
                return Err(format!("rows of shapes {:?} and {:?}", first.shape, t.shape));
            }
            None => bytes.resize(bytes.len() + first.bytes.len(), 0),
        }
        count += 1;
    }
    let shape = [&[count], &first.shape[..]].concat();
    Ok(Some(Tensor { dtype: first.dtype, shape, bytes }))
}

/// A `u8` vector.
pub(crate) fn u8s(values: Vec<u8>) -> Tensor {
    Tensor { dtype: Dtype::U8, shape: vec![values.len()], bytes: values }
}

fn start(kind: &str, name: &str, reference: &str, hyper: &Map<String, Value>) -> File {
    let mut file = File::new(REQUEST);
    file.set("kind", kind);
    file.set("name", name);
    file.set("reference", reference);
    file.set("hyper", Value::Object(hyper.clone()));
    file
}

/// A request for steps of an optimizer, of which `done` have been made before.
pub(crate) fn optimizer(
    spec: &OptimizerSpec<'_>,
    before: &[ParamStart],
    done: u64,
    steps: &[Inputs],
) -> Result<File, String> {
    let mut file = start("optimizer", spec.name, spec.reference, spec.hyper);
    let groups = spec.groups.iter().map(|g| {
        let mut all = Map::new();
        all.insert("params".to_owned(), json!(g.params));
        all.extend(g.hyper.clone());
        Value::Object(all)
    });
    file.set("groups", Value::Array(groups.collect()));
    file.set("given", json!(spec.given));
    file.set("steps", steps.len());
    file.set("done", done);
    file.set("run", spec.steps);
    let updates = before.iter().flat_map(|b| b.updates.to_le_bytes()).collect();
    let shape = vec![before.len()];
    file.put("updates", Tensor { dtype: Dtype::I64, shape, bytes: updates });
    for (i, (init, before)) in spec.params.iter().zip(before).enumerate() {
        let init = before.value.as_ref().unwrap_or(init);
        file.put(format!("p{i}.init"), init.clone());
        for (slot, t) in &before.state {
            file.put(format!("p{i}.state0.{slot}"), t.clone());
        }
        let grads = steps.iter().map(|s| s.grads.get(i).and_then(Option::as_ref));
        if grads.clone().any(|g| g.is_none()) {
            let has = grads.clone().map(|g| u8::from(g.is_some())).collect();
            file.put(format!("p{i}.has_grad"), u8s(has));
        }
        let none = || {
            let shape = [&[steps.len()], &init.shape[..]].concat();
            let bytes = vec![0; steps.len() * init.bytes.len()];
            Tensor { dtype: init.dtype, shape, bytes }
        };
        file.put(format!("p{i}.grad"), rows(grads)?.unwrap_or_else(none));
        for what in spec.given.get(i).into_iter().flatten() {
            let given = steps.iter().map(|s| s.tensors.get(i)?.get(*what));
            if let Some(t) = rows(given.clone().map(|g| g.map(|(t, _)| t)))? {
                file.put(format!("p{i}.given.{what}"), t);
                // 0: none yet; 1: unchanged since the step before; 2: new at this step
                let fresh = given.map(|g| g.map_or(0, |(_, fresh)| 1 + u8::from(*fresh)));
                file.put(format!("p{i}.fresh.{what}"), u8s(fresh.collect()));
            }
        }
    }
    let series = |values: Vec<f64>| Tensor::f64(&[values.len()], &values);
    let lr: Vec<f64> = steps.iter().filter_map(|s| s.lr).collect();
    if lr.len() == steps.len() && !lr.is_empty() {
        file.put("lr", series(lr));
    }
    for what in steps.first().into_iter().flat_map(|s| s.given.keys()) {
        let values = steps.iter().map(|s| s.given.get(what).copied().unwrap_or(f64::NAN));
        file.put(format!("given.{what}"), series(values.collect()));
    }
    Ok(file)
}

pub(crate) fn schedule(spec: &ScheduleSpec<'_>) -> File {
    let mut file = start("schedule", spec.name, spec.reference, spec.hyper);
    file.set("steps", spec.steps);
    file.set("groups", spec.groups);
    if let Some(metric) = spec.metric {
        file.put("metric", Tensor::f64(&[metric.len()], metric));
    }
    for (what, t) in spec.given {
        file.put(format!("given.{what}"), t.clone());
    }
    file
}

pub(crate) fn gradient(spec: &GradientSpec<'_>) -> File {
    let mut file = start("gradient", spec.name, spec.reference, spec.hyper);
    for (i, (input, given)) in spec.inputs.iter().zip(&spec.given).enumerate() {
        file.put(format!("g{i}.in"), (*input).clone());
        for (what, t) in *given {
            file.put(format!("g{i}.given.{what}"), t.clone());
        }
    }
    file
}

/// The answer to an optimizer's request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) values: Vec<Tensor>,
    pub(crate) states: Vec<BTreeMap<String, Tensor>>,
    pub(crate) evals: Vec<Option<Tensor>>,
    pub(crate) lacks: Vec<Option<String>>,
    pub(crate) hidden: bool,
}

fn describe_tensor(t: &Tensor) -> String {
    format!("{} {:?}", t.dtype, t.shape)
}

/// Decodes an answer, any part of which may be missing or of the wrong type or shape.
pub(crate) fn steps(answer: &File, inits: &[&Tensor], steps: usize) -> Result<Steps, String> {
    let hidden = match answer.meta.get("state").map(String::as_str) {
        None => false,
        Some("hidden") => true,
        Some(other) => {
            return Err(format!("`state` in its metadata is `{other}`, wanted `hidden`"));
        }
    };
    let mut out = Steps { hidden, ..Steps::default() };
    for (i, init) in inits.iter().enumerate() {
        let lacks = answer.meta.get(&format!("p{i}.lacks")).cloned();
        let name = format!("p{i}.value");
        let shape = [&[steps], &init.shape[..]].concat();
        let empty = || Tensor { dtype: init.dtype, shape: shape.clone(), bytes: Vec::new() };
        out.values.push(match answer.tensors.get(&name) {
            Some(t) if t.dtype == init.dtype && t.shape == shape => t.clone(),
            Some(t) => {
                return Err(format!(
                    "its `{name}` is {}, wanted {}",
                    describe_tensor(t),
                    describe_tensor(&empty())
                ));
            }
            None if lacks.is_some() => empty(),
            None => return Err(format!("it lacks `{name}`")),
        });
        let state = answer.under(&format!("p{i}.state."));
        if let Some((slot, t)) = state.iter().find(|(_, t)| t.shape.first() != Some(&steps)) {
            let found = describe_tensor(t);
            return Err(format!("its `p{i}.state.{slot}` is {found}, wanted {steps} rows"));
        }
        out.states.push(state);
        out.evals.push(answer.tensors.get(&format!("p{i}.eval")).cloned());
        out.lacks.push(lacks);
    }
    Ok(out)
}
