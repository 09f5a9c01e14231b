//! The suite in process: golden vectors against an optimizer that is a Python object.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use std::time::Duration;

use bitstep_conformance::Core;
use bitstep_conformance::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use bitstep_conformance::fuzz;
use bitstep_conformance::golden::{Case, Data, OptimizerCase};
use bitstep_conformance::judge::bounds::Bounds;
use bitstep_conformance::judge::check::{Outcome, Report};
use bitstep_conformance::report::{self, html};
use bitstep_conformance::suite::{self, CaseFilter, Entry, Suite};
use bitstep_conformance::tensor::{Dtype, Tensor};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

/// A Python object with the methods `optimizer`, `schedule` and `gradient`.
struct Object {
    name: String,
    object: Py<PyAny>,
}

/// What an exception means: classes of these names are answers, all others failures.
fn failed(py: Python<'_>, error: &PyErr) -> BackendError {
    let name = error.get_type(py).name().map(|name| name.to_string()).unwrap_or_default();
    let text = error.value(py).to_string();
    match &*name {
        "Unsupported" => BackendError::Unsupported(text),
        "Lacks" => BackendError::NeedsState(text),
        _ => {
            let place =
                error.traceback(py).and_then(|trace| trace.format().ok()).unwrap_or_default();
            let last = place.lines().rev().find(|line| line.trim_start().starts_with("File"));
            let last = last.map(|line| format!(" ({})", line.trim())).unwrap_or_default();
            BackendError::Failed(format!("{name}: {text}{last}"))
        }
    }
}

fn ask<T>(f: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T, BackendError> {
    Python::attach(|py| f(py).map_err(|error| failed(py, &error)))
}

const TYPES: [(&str, Dtype); 15] = [
    ("float64", Dtype::F64),
    ("float32", Dtype::F32),
    ("bfloat16", Dtype::Bf16),
    ("float16", Dtype::F16),
    ("float8_e4m3fn", Dtype::F8E4M3),
    ("float8_e5m2", Dtype::F8E5M2),
    ("int64", Dtype::I64),
    ("int32", Dtype::I32),
    ("int16", Dtype::I16),
    ("int8", Dtype::I8),
    ("uint64", Dtype::U64),
    ("uint32", Dtype::U32),
    ("uint16", Dtype::U16),
    ("uint8", Dtype::U8),
    ("bool", Dtype::Bool),
];

/// A tensor as (type, dimensions, bytes).
fn to_python<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyTuple>> {
    let name = TYPES.iter().find(|(_, dtype)| *dtype == tensor.dtype).map_or("", |(name, _)| name);
    (name, &tensor.shape, PyBytes::new(py, &tensor.bytes)).into_pyobject(py)
}

fn from_python(tensor: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let (name, shape, bytes): (String, Vec<usize>, Vec<u8>) = tensor.extract()?;
    let known = TYPES.iter().find(|(known, _)| *known == name);
    let (_, dtype) = known.ok_or_else(|| PyValueError::new_err(format!("unknown type {name}")))?;
    let len = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d));
    if len != Some(bytes.len()) {
        return Err(PyValueError::new_err(format!(
            "{} bytes for {shape:?} of {name}",
            bytes.len()
        )));
    }
    Ok(Tensor { dtype: *dtype, shape, bytes })
}

fn tensors<'py, 'a>(
    py: Python<'py>,
    all: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, tensor) in all {
        dict.set_item(key, to_python(py, tensor)?)?;
    }
    Ok(dict)
}

impl Backend for Object {
    fn name(&self) -> &str {
        &self.name
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        ask(|py| {
            let groups = PyList::empty(py);
            for group in spec.groups {
                let hyper = serde_json::Value::Object(group.hyper.clone()).to_string();
                groups.append((&group.params, hyper))?;
            }
            let params: Vec<_> =
                spec.params.iter().map(|p| to_python(py, p)).collect::<PyResult<_>>()?;
            let hyper = serde_json::Value::Object(spec.hyper.clone()).to_string();
            let arguments = (spec.name, spec.reference, hyper, groups, params, &spec.given);
            let run = self.object.bind(py).call_method1("optimizer", arguments)?.unbind();
            Ok(Box::new(ObjectRun { run, count: spec.params.len() }) as Box<dyn Run>)
        })
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        ask(|py| {
            let hyper = serde_json::Value::Object(spec.hyper.clone()).to_string();
            let given = tensors(py, spec.given)?;
            let metric = spec.metric.map(<[f64]>::to_vec);
            let arguments =
                (spec.name, spec.reference, hyper, spec.steps, spec.groups, metric, given);
            self.object.bind(py).call_method1("schedule", arguments)?.extract()
        })
    }

    fn gradient(&self, _: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        Err(BackendError::Unsupported("no gradient strategies from Python".to_owned()))
    }
}

/// A Python object with the methods `load`, `step`, `value`, `state` and `eval`.
struct ObjectRun {
    run: Py<PyAny>,
    count: usize,
}

impl ObjectRun {
    /// An answer about parameter `i`; none that can be shown if the object fails.
    fn show<T: Default>(&self, i: usize, f: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> T {
        debug_assert!(i < self.count);
        Python::attach(|py| f(self.run.bind(py)).unwrap_or_default())
    }
}

impl Run for ObjectRun {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        ask(|py| {
            let arguments =
                (i, to_python(py, value)?, tensors(py, state)?, counts.updates, counts.steps);
            self.run.bind(py).call_method1("load", arguments)?;
            Ok(())
        })
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        ask(|py| {
            let grads =
                inputs.grads.iter().map(|g| g.as_ref().map(|g| to_python(py, g)).transpose());
            let grads = grads.collect::<PyResult<Vec<_>>>()?;
            let drawn = inputs.tensors.iter().map(|all| {
                let dict = PyDict::new(py);
                for (key, (tensor, is_new)) in all {
                    dict.set_item(key, (to_python(py, tensor)?, *is_new))?;
                }
                Ok(dict)
            });
            let drawn = drawn.collect::<PyResult<Vec<_>>>()?;
            let given = inputs.given.clone();
            self.run.bind(py).call_method1("step", (inputs.t, grads, inputs.lr, given, drawn))?;
            Ok(())
        })
    }

    fn value(&self, i: usize) -> Tensor {
        let read =
            |run: &Bound<'_, PyAny>| from_python(&run.call_method1("value", (i,))?).map(Some);
        // A missing answer is of no type and no shape, which the comparison refuses.
        let missing = || Tensor { dtype: Dtype::Bool, shape: vec![0], bytes: Vec::new() };
        self.show(i, read).unwrap_or_else(missing)
    }

    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        self.show(i, |run| {
            let state =
                run.call_method1("state", (i,))?.cast_into::<PyDict>().map_err(PyErr::from)?;
            state.iter().map(|(key, t)| Ok((key.extract()?, from_python(&t)?))).collect()
        })
    }

    fn eval(&self, i: usize) -> Option<Tensor> {
        self.show(i, |run| {
            let value = run.call_method1("eval", (i,))?;
            if value.is_none() { Ok(None) } else { from_python(&value).map(Some) }
        })
    }

    fn shows_state(&self) -> bool {
        Python::attach(|py| {
            self.run.bind(py).getattr("shows_state").is_ok_and(|x| x.is_truthy().unwrap_or(true))
        })
    }
}

fn entries(only: Option<&str>, golden: Vec<PathBuf>) -> PyResult<Vec<Entry>> {
    let wrong = |e: &dyn std::fmt::Display| PyValueError::new_err(e.to_string());
    let filter = CaseFilter::new(only).map_err(|e| wrong(&e))?;
    let mut suites: Vec<Suite> = golden.into_iter().map(Suite::Folder).collect();
    if suites.is_empty() {
        suites.push(Suite::BuiltIn);
    }
    suite::read(&suites, &filter).map_err(|e| wrong(&e))
}

/// Checks an object against golden vectors, those of the wheel or of folders. Returns whether it passed, and the text to
/// show; writes lines of JSON and a page where asked to.
#[pyfunction]
#[pyo3(signature = (name, backend, only=None, golden=vec![], json=None, html=None, fresh=None, strict=false))]
#[expect(clippy::too_many_arguments, reason = "the options of a command")]
pub(crate) fn verify(
    py: Python<'_>,
    name: String,
    backend: Py<PyAny>,
    only: Option<String>,
    golden: Vec<PathBuf>,
    json: Option<PathBuf>,
    html: Option<PathBuf>,
    fresh: Option<u64>,
    strict: bool,
) -> PyResult<(bool, String)> {
    let mut entries = entries(only.as_deref(), golden)?;
    if let Some(seed) = fresh {
        entries = suite::fresh(entries, seed);
    }
    let backends: [Box<dyn Backend>; 1] = [Box::new(Object { name, object: backend })];
    let reports = py.detach(|| suite::run(&entries, &backends, &Bounds::default(), || {}));
    let failed = |e: std::io::Error| PyOSError::new_err(e.to_string());
    if let Some(path) = json {
        let lines: String = reports.iter().map(|r| report::json_line(r) + "\n").collect();
        std::fs::write(path, lines).map_err(failed)?;
    }
    if let Some(path) = html {
        std::fs::write(path, html::page(&reports)).map_err(failed)?;
    }
    let mut text = report::table(&reports);
    let mut reasons = BTreeMap::<&str, usize>::new();
    for r in reports.iter().filter(|r| r.outcome == Outcome::Unsupported) {
        *reasons.entry(&r.detail).or_default() += 1;
    }
    for (reason, count) in &reasons {
        let _ = write!(text, "\n{count} unsupported: {reason}");
    }
    for r in reports.iter().filter(|r| matches!(r.outcome, Outcome::Fail | Outcome::Error)) {
        let _ = write!(text, "\n{}\n", report::trouble(r, ""));
    }
    let strict_failure = strict && !reasons.is_empty();
    let (ok, verdict) = match report::verdict(&reports) {
        Ok(line) => (!strict_failure, line),
        Err(line) => (false, line),
    };
    let _ = write!(text, "\n{} cases, {verdict}", entries.len());
    Ok((ok, text))
}

/// The outcomes of checks as (case, mode, outcome, detail), for test frameworks.
#[pyfunction]
#[pyo3(signature = (name, backend, only=None, golden=vec![]))]
pub(crate) fn check(
    py: Python<'_>,
    name: String,
    backend: Py<PyAny>,
    only: Option<String>,
    golden: Vec<PathBuf>,
) -> PyResult<Vec<(String, String, String, String)>> {
    let entries = entries(only.as_deref(), golden)?;
    let backends: [Box<dyn Backend>; 1] = [Box::new(Object { name, object: backend })];
    let reports = py.detach(|| suite::run(&entries, &backends, &Bounds::default(), || {}));
    let row = |r: &Report| {
        let mut detail = r.detail.clone();
        if let Some(diagnosis) = &r.diagnosis {
            let _ = write!(detail, "; looks like: {diagnosis}");
        }
        (r.case.clone(), r.mode.name().to_owned(), r.outcome.name().to_owned(), detail)
    };
    Ok(reports.iter().map(row).collect())
}

/// Draws runs for an object, with the core as the oracle, and makes what fails small. Returns whether nothing was found,
/// and the text to show; writes the findings to a folder, as cases.
#[pyfunction]
#[pyo3(signature = (name, backend, only, out, cases=None, seconds=None, seed=1, profile="all", go_on=false))]
#[expect(clippy::too_many_arguments, reason = "the options of a command")]
pub(crate) fn fuzz_object(
    py: Python<'_>,
    name: String,
    backend: Py<PyAny>,
    only: String,
    out: PathBuf,
    cases: Option<u64>,
    seconds: Option<f64>,
    seed: u64,
    profile: &str,
    go_on: bool,
) -> PyResult<(bool, String)> {
    let wrong = |e: &dyn std::fmt::Display| PyValueError::new_err(e.to_string());
    let profile = match profile {
        "all" => fuzz::Profile::All,
        "ordinary" => fuzz::Profile::Ordinary,
        "edges" => fuzz::Profile::Edges,
        other => {
            return Err(wrong(&format!("profile: {other}, but must be all, ordinary or edges")));
        }
    };
    let time = match (seconds, cases) {
        (None, Some(_)) => None,
        (given, _) => Some(
            Duration::try_from_secs_f64(given.unwrap_or(60.0))
                .map_err(|e| wrong(&format!("seconds: {e}")))?,
        ),
    };
    let options = fuzz::Options {
        golden: vec![Suite::BuiltIn],
        only: CaseFilter::new(Some(&only)).map_err(|e| wrong(&e))?,
        like: None,
        profile,
        seed,
        cases: cases.unwrap_or(u64::MAX),
        time,
        all: go_on,
    };
    let object = Object { name, object: backend };
    let ran = py.detach(|| fuzz::run(&options, &object, &Core, &fuzz::Progress::default()));
    let summary = ran.map_err(|e| wrong(&e))?;
    let mut text = String::new();
    for finding in &summary.findings {
        fuzz::write(&finding.case, &out).map_err(PyOSError::new_err)?;
        let _ = writeln!(text, "{}\n", fuzz::finding(finding, &object.name, Some(&out)));
    }
    text.push_str(&fuzz::text(&summary));
    if summary.compared == 0 {
        text.push_str("nothing compared, which is no pass\n");
    }
    Ok((summary.findings.is_empty() && summary.compared > 0, text))
}

/// The ids of the cases, of the wheel or of folders.
#[pyfunction]
#[pyo3(signature = (only=None, golden=vec![]))]
pub(crate) fn cases(only: Option<String>, golden: Vec<PathBuf>) -> PyResult<Vec<String>> {
    let entries = entries(only.as_deref(), golden)?;
    Ok(entries.iter().filter_map(|e| e.case.as_ref().ok().map(|case| case.id.clone())).collect())
}

/// Value and state after a step; any NaN equals any NaN.
type Bits = Vec<(String, Vec<u64>)>;

fn bits(run: &dyn Run, params: usize) -> Bits {
    let of = |t: &Tensor| -> Vec<u64> {
        (0..t.len()).map(|k| if t.get(k).is_nan() { u64::MAX } else { t.bits(k) }).collect()
    };
    let mut all = Bits::new();
    for i in 0..params {
        all.push((format!("p{i}.value"), of(&run.value(i))));
        all.extend(run.eval(i).map(|t| (format!("p{i}.eval"), of(&t))));
        all.extend(run.state(i).into_iter().map(|(key, t)| (format!("p{i}.state.{key}"), of(&t))));
    }
    all
}

/// The answers to a case: of the free run's steps, then of single steps from each state of the reference.
fn answers(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
) -> Result<Vec<Bits>, BackendError> {
    let spec = OptimizerSpec::new(case, data);
    let mut all = Vec::new();
    let mut run = backend.optimizer(&spec)?;
    for (i, p) in data.params.iter().enumerate().filter(|(_, p)| !p.state0.is_empty()) {
        run.load(i, &p.init, &p.state0, Counts::default())?;
    }
    for t in 0..case.steps {
        run.step(&Inputs::new(data, t))?;
        all.push(bits(&*run, data.params.len()));
    }
    'steps: for t in 1..case.steps {
        let mut run = backend.optimizer(&spec)?;
        for (i, p) in data.params.iter().enumerate() {
            let counts = Counts { updates: p.updates_before(t) as u64, steps: t as u64 };
            match run.load(i, &p.value_before(t), &p.state_before(t), counts) {
                Err(BackendError::NeedsState(_)) => continue 'steps,
                other => other?,
            }
        }
        run.step(&Inputs::new(data, t))?;
        all.push(bits(&*run, data.params.len()));
    }
    Ok(all)
}

/// The number of equal answers, the cases that differ, and the unsupported ones with the reason.
type Compared = (usize, Vec<String>, Vec<(String, String)>);

/// Compares every answer to every golden case of an optimizer or a schedule with the core's, bit by bit.
#[pyfunction]
#[pyo3(signature = (backend, only=None, golden=vec![]))]
pub(crate) fn same_bits(
    py: Python<'_>,
    backend: Py<PyAny>,
    only: Option<String>,
    golden: Vec<PathBuf>,
) -> PyResult<Compared> {
    let entries = entries(only.as_deref(), golden)?;
    let object = Object { name: "python".to_owned(), object: backend };
    let (mut equal, mut different, mut unsupported) = (0, Vec::new(), Vec::new());
    for case in entries.iter().filter_map(|e| e.case.as_ref().ok()) {
        py.check_signals()?;
        let compared = py.detach(|| match &case.data {
            Data::Optimizer(data) => {
                let (got, want) = (answers(case, data, &object), answers(case, data, &Core));
                Some(got.and_then(|got| Ok((got == want.clone()?, want?.len()))))
            }
            Data::Schedule(data) => {
                let spec = ScheduleSpec::new(case, data);
                let all = |rates: Vec<f64>| rates.into_iter().map(f64::to_bits).collect::<Vec<_>>();
                let (got, want) = (object.schedule(&spec).map(all), Core.schedule(&spec).map(all));
                Some(got.and_then(|got| Ok((got == want.clone()?, want?.len()))))
            }
            Data::Gradient(_) => None,
        });
        match compared {
            None => {
                unsupported.push((case.id.clone(), "no gradient strategies from Python".to_owned()))
            }
            Some(Ok((true, count))) => equal += count,
            Some(Ok((false, _))) => different.push(case.id.clone()),
            Some(Err(BackendError::Unsupported(why))) => unsupported.push((case.id.clone(), why)),
            Some(Err(error)) => different.push(format!("{}: {error:?}", case.id)),
        }
    }
    Ok((equal, different, unsupported))
}
