//! Writes a case as a file of `bitstep-golden/1`, which [`Case::read`](crate::golden::Case::read) reads back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::exec::file::{File, u8s};
use crate::golden::{Case, Data, FORMAT, Given, GradientCase, OptimizerCase, ScheduleCase};
use crate::tensor::{Dtype, Tensor};

/// The case as a file's bytes.
///
/// # Errors
/// Tensors whose bytes do not fit their shapes.
pub fn bytes(case: &Case) -> Result<Vec<u8>, String> {
    let mut file = File::new(FORMAT);
    let mut hyper = case.hyper.clone();
    match &case.data {
        Data::Optimizer(data) => {
            if let Some(groups) = groups(case, data) {
                hyper.insert("groups".to_owned(), groups);
            }
            optimizer(&mut file, case.steps, data);
        }
        Data::Schedule(data) => schedule(&mut file, case.steps, data),
        Data::Gradient(data) => gradient(&mut file, data),
    }
    file.set("kind", case.kind.name());
    file.set("name", &case.name);
    file.set("reference", &case.reference);
    file.set("hyper", Value::Object(hyper));
    file.set("steps", case.steps);
    file.set("note", &case.note);
    let versions = json!({"bitstep": env!("CARGO_PKG_VERSION")}).to_string();
    file.set("versions", case.metadata.get("versions").unwrap_or(&versions));
    file.set("seed", case.metadata.get("seed").map_or("0", String::as_str));
    file.bytes()
}

/// Writes the case to its place below `root`.
///
/// # Errors
/// A folder or file that can't be written.
pub fn write(case: &Case, root: &Path) -> Result<PathBuf, String> {
    let bytes = bytes(case)?;
    let path = root.join(format!("{}.safetensors", case.id));
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(&path, bytes).map_err(failed)?;
    Ok(path)
}

/// `hyper.groups`; `None` for one group with the common arguments.
fn groups(case: &Case, data: &OptimizerCase) -> Option<Value> {
    let all: Vec<usize> = (0..data.params.len()).collect();
    if let [only] = &data.groups[..]
        && only.hyper == case.hyper
        && only.params == all
    {
        return None;
    }
    let groups = data.groups.iter().map(|group| {
        let mut own = Map::new();
        own.insert("params".to_owned(), json!(group.params));
        let differs = |(key, x): &(&String, &Value)| case.hyper.get(*key) != Some(*x);
        own.extend(group.hyper.iter().filter(differs).map(|(k, x)| (k.clone(), x.clone())));
        Value::Object(own)
    });
    Some(Value::Array(groups.collect()))
}

fn series(values: &[f64]) -> Tensor {
    Tensor::f64(&[values.len()], values)
}

fn optimizer(file: &mut File, steps: usize, data: &OptimizerCase) {
    for (i, p) in data.params.iter().enumerate() {
        let mut put = |what: &str, t: Tensor| file.put(format!("p{i}.{what}"), t);
        put("init", p.init.clone());
        put("grad", p.grad.clone());
        put("value", p.value.clone());
        if p.has_grad.contains(&false) {
            put("has_grad", u8s(p.has_grad.iter().map(|&has| u8::from(has)).collect()));
        }
        p.state.iter().for_each(|(slot, t)| put(&format!("state.{slot}"), t.clone()));
        p.state0.iter().for_each(|(slot, t)| put(&format!("state0.{slot}"), t.clone()));
        if let Some(eval) = &p.eval {
            put("eval", eval.clone());
        }
        let mut refreshes = BTreeMap::new();
        for (what, given) in &p.given {
            let t = match given {
                Given::Steps(t) | Given::Constant(t) => t,
                Given::Refreshes(t, at) => {
                    refreshes.insert("refresh_at", at.clone());
                    t
                }
            };
            put(&format!("given.{what}"), t.clone());
        }
        for (name, at) in refreshes {
            let bytes = at.iter().flat_map(|&t| (t as i64).to_le_bytes()).collect();
            put(name, Tensor { dtype: Dtype::I64, shape: vec![at.len()], bytes });
        }
    }
    if let Some(lr) = &data.lr {
        file.put("lr", series(lr));
    }
    for (what, rows) in &data.given {
        debug_assert_eq!(rows.len(), steps);
        file.put(format!("given.{what}"), series(rows));
    }
}

fn schedule(file: &mut File, steps: usize, data: &ScheduleCase) {
    file.put("lr", Tensor::f64(&[steps + 1, data.groups], &data.lr));
    if let Some(metric) = &data.metric {
        file.put("metric", series(metric));
    }
    data.given.iter().for_each(|(what, t)| file.put(format!("given.{what}"), t.clone()));
}

fn gradient(file: &mut File, data: &GradientCase) {
    for (i, g) in data.tensors.iter().enumerate() {
        file.put(format!("g{i}.in"), g.input.clone());
        file.put(format!("g{i}.out"), g.output.clone());
        for (what, t) in &g.given {
            file.put(format!("g{i}.given.{what}"), t.clone());
        }
    }
    if let Some(norm) = data.norm {
        file.put("norm", Tensor::scalar(norm));
    }
}
