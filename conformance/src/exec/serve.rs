//! The program's side of the protocol: answers requests with a Rust backend.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;

use serde_json::{Map, Value};

use super::file::{ANSWER, File, REQUEST};
use crate::backend::{
    Backend, BackendError, Counts, GradientSpec, Inputs, OptimizerSpec, ScheduleSpec,
};
use crate::golden::{self, Group};
use crate::read;
use crate::tensor::{Dtype, Tensor};

/// Answers a stream of requests: the program's side of `exec-loop:`.
///
/// # Errors
/// Lines that can't be read or written.
pub fn serve(
    backend: &dyn Backend,
    requests: impl BufRead,
    mut out: impl Write,
) -> std::io::Result<()> {
    for line in requests.lines() {
        let line = line?;
        let said = match line.split_once('\t') {
            Some((request, to)) => answer(backend, Path::new(request), Path::new(to)),
            None => "error wanted two paths and a tab between them".to_owned(),
        };
        writeln!(out, "{said}")?;
        out.flush()?;
    }
    Ok(())
}

/// Answers one request, and returns the line to print: the program's side of `exec:`.
#[must_use]
pub fn answer(backend: &dyn Backend, request: &Path, to: &Path) -> String {
    let answered = self::request(request).and_then(|file| of(backend, &file)).and_then(|answer| {
        let bytes = answer.bytes().map_err(BackendError::Failed)?;
        std::fs::write(to, bytes).map_err(|e| BackendError::Failed(e.to_string()))
    });
    let line = |text: String| text.replace(['\n', '\r'], " ");
    match answered {
        Ok(()) => "done".to_owned(),
        Err(BackendError::Unsupported(why)) => line(format!("unsupported {why}")),
        Err(BackendError::Failed(why)) => line(format!("error {why}")),
        Err(BackendError::NeedsState(slot)) => line(format!("error the start lacks `{slot}`")),
    }
}

fn request(path: &Path) -> Result<File, BackendError> {
    let bytes = read::at_most(path, golden::LARGEST).map_err(BackendError::Failed)?;
    File::parse(&bytes, REQUEST).map_err(BackendError::Failed)
}

/// The error for a missing or invalid key.
fn bad(key: &str) -> BackendError {
    BackendError::Failed(format!("the request has no good `{key}`"))
}

fn of(backend: &dyn Backend, file: &File) -> Result<File, BackendError> {
    let text = |key: &str| file.meta.get(key).map(String::as_str).ok_or_else(|| bad(key));
    let hyper: Map<String, Value> =
        serde_json::from_str(text("hyper")?).map_err(|_| bad("hyper"))?;
    let (name, reference) = (text("name")?, text("reference")?);
    let mut out = File::new(ANSWER);
    match text("kind")? {
        "optimizer" => optimizer(backend, file, &hyper)?.into_file(&mut out),
        "schedule" => {
            let (steps, groups) = (whole(file, "steps")?, whole(file, "groups")?);
            let metric = file.tensors.get("metric").map(Tensor::to_f64s);
            let (metric, given) = (metric.as_deref(), &file.under("given."));
            let spec =
                ScheduleSpec { name, reference, hyper: &hyper, steps, groups, metric, given };
            let lr = backend.schedule(&spec)?;
            let shape = if lr.len() == (steps + 1) * groups {
                vec![steps + 1, groups]
            } else {
                vec![lr.len()]
            };
            out.put("lr", Tensor::f64(&shape, &lr));
        }
        "gradient" => {
            let count = numbered(file, 'g', "in");
            let inputs = (0..count).filter_map(|i| file.tensors.get(&format!("g{i}.in")));
            let given: Vec<_> = (0..count).map(|i| file.under(&format!("g{i}.given."))).collect();
            let spec = GradientSpec {
                name,
                reference,
                hyper: &hyper,
                inputs: inputs.collect(),
                given: given.iter().collect(),
            };
            let answer = backend.gradient(&spec)?;
            for (i, t) in answer.outputs.into_iter().enumerate() {
                out.put(format!("g{i}.out"), t);
            }
            if let Some(norm) = answer.norm {
                out.put("norm", Tensor::scalar(norm));
            }
        }
        _ => return Err(bad("kind")),
    }
    Ok(out)
}

fn whole(file: &File, key: &str) -> Result<usize, BackendError> {
    file.meta.get(key).and_then(|n| n.parse().ok()).ok_or_else(|| bad(key))
}

fn numbered(file: &File, letter: char, what: &str) -> usize {
    (0..).take_while(|i| file.tensors.contains_key(&format!("{letter}{i}.{what}"))).count()
}

/// Collects the rows of every tensor.
#[derive(Default)]
struct Rows {
    tensors: BTreeMap<String, Vec<Tensor>>,
    single: BTreeMap<String, Tensor>,
    meta: BTreeMap<String, String>,
    steps: usize,
}

impl Rows {
    fn push(&mut self, name: String, row: Tensor) {
        self.tensors.entry(name).or_default().push(row);
    }

    fn into_file(self, out: &mut File) {
        for (name, rows) in self.tensors {
            // A tensor that is missing at some step, or changes its shape, can't be shown.
            let Some(first) = rows.first() else { continue };
            let same = |t: &Tensor| t.dtype == first.dtype && t.shape == first.shape;
            if rows.len() == self.steps && rows.iter().all(same) {
                let shape = [&[rows.len()], &first.shape[..]].concat();
                let bytes = rows.iter().flat_map(|t| t.bytes.iter().copied()).collect();
                out.put(name, Tensor { dtype: first.dtype, shape, bytes });
            }
        }
        out.tensors.extend(self.single);
        out.meta.extend(self.meta);
    }
}

fn optimizer(
    backend: &dyn Backend,
    file: &File,
    hyper: &Map<String, Value>,
) -> Result<Rows, BackendError> {
    let text = |key: &str| file.meta.get(key).map(String::as_str).ok_or_else(|| bad(key));
    let (steps, done, run) = (whole(file, "steps")?, whole(file, "done")?, whole(file, "run")?);
    let count = numbered(file, 'p', "init");
    let init = |i: usize| file.tensors.get(&format!("p{i}.init"));
    let given: Vec<Vec<String>> = serde_json::from_str(text("given")?).map_err(|_| bad("given"))?;
    if given.len() != count {
        return Err(bad("given"));
    }
    let groups = groups(text("groups")?, count).ok_or_else(|| bad("groups"))?;
    let spec = OptimizerSpec {
        name: text("name")?,
        reference: text("reference")?,
        hyper,
        groups: &groups,
        params: (0..count).filter_map(init).collect(),
        given: given.iter().map(|g| g.iter().map(String::as_str).collect()).collect(),
        steps: run,
    };
    let mut rows = Rows { steps, ..Rows::default() };
    let mut run = backend.optimizer(&spec)?;
    let updates = file.tensors.get("updates").filter(|t| t.len() == count);
    let updates = updates.ok_or_else(|| bad("updates"))?;
    for (i, value) in spec.params.iter().enumerate() {
        let state = file.under(&format!("p{i}.state0."));
        if done == 0 && state.is_empty() {
            continue;
        }
        let counts = Counts { updates: updates.bits(i), steps: done as u64 };
        match run.load(i, value, &state, counts) {
            Err(BackendError::NeedsState(slot)) if done > 0 => {
                rows.meta.insert(format!("p{i}.lacks"), slot);
            }
            other => other?,
        }
    }
    let inputs: Vec<Inputs> =
        (0..steps).map(|t| inputs(file, &given, done, t)).collect::<Result<_, _>>()?;
    run.plan(&inputs);
    for (t, inputs) in inputs.iter().enumerate() {
        run.step(inputs)?;
        for i in 0..count {
            rows.push(format!("p{i}.value"), run.value(i));
            for (slot, x) in run.state(i) {
                rows.push(format!("p{i}.state.{slot}"), x);
            }
            if t + 1 == steps {
                let eval = run.eval(i).map(|x| (format!("p{i}.eval"), x));
                rows.single.extend(eval);
            }
        }
    }
    if steps == 0 {
        // Without steps an answer has the types and shapes alone.
        for i in 0..count {
            let x = run.value(i);
            let shape = [&[0], &x.shape[..]].concat();
            rows.single.insert(format!("p{i}.value"), Tensor { shape, bytes: Vec::new(), ..x });
        }
    }
    if !run.shows_state() {
        rows.meta.insert("state".to_owned(), "hidden".to_owned());
    }
    Ok(rows)
}

fn groups(text: &str, count: usize) -> Option<Vec<Group>> {
    let list: Vec<Map<String, Value>> = serde_json::from_str(text).ok()?;
    let group = |mut hyper: Map<String, Value>| {
        let params = hyper.remove("params")?;
        let numbers = params.as_array()?.iter().map(|n| usize::try_from(n.as_u64()?).ok());
        let params: Vec<usize> = numbers.collect::<Option<_>>()?;
        params.iter().all(|&i| i < count).then_some(Group { params, hyper })
    };
    list.into_iter().map(group).collect()
}

/// The inputs of step `t` of a request.
fn inputs(
    file: &File,
    given: &[Vec<String>],
    done: usize,
    t: usize,
) -> Result<Inputs, BackendError> {
    let mut grads = Vec::new();
    for i in 0..given.len() {
        let has = file.tensors.get(&format!("p{i}.has_grad")).is_none_or(|h| h.bits(t) != 0);
        let grad = file.tensors.get(&format!("p{i}.grad")).ok_or_else(|| bad("grad"))?;
        grads.push(has.then(|| grad.row(t)));
    }
    let tensors = given.iter().enumerate().map(|(i, names)| {
        let one = |what: &String| {
            let fresh = file.tensors.get(&format!("p{i}.fresh.{what}"))?.bits(t);
            let rows = file.tensors.get(&format!("p{i}.given.{what}"))?;
            (fresh > 0).then(|| (what.clone(), (rows.row(t), fresh > 1)))
        };
        names.iter().filter_map(one).collect()
    });
    let scalars = file.under("given.").into_iter().map(|(what, x)| (what, x.get(t)));
    let lr = file.tensors.get("lr").filter(|lr| lr.dtype == Dtype::F64);
    Ok(Inputs {
        t: done + t,
        grads,
        lr: lr.map(|lr| lr.get(t)),
        given: scalars.collect(),
        tensors: tensors.collect(),
    })
}
