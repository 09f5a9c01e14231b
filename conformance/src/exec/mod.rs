//! `exec:COMMAND` and `exec-loop:COMMAND`: programs in any language as backends.
//!
//! The suite writes a request, a safetensors file of inputs, and the program writes an answer, another one:
//! `conformance/README.md` defines both. A free run is one request. So is a single step, which starts from the
//! reference's answer to the step before; the program has answered that one by then.
//!
//! Nothing that a program does can fool, hang or end the suite: `process` and `live` end it with all that it
//! started, `folder` isolates its files, and `file` validates every part of its answer. `serve` is the program's
//! side. What the answers are compared with is in [`crate::judge`].

pub(crate) mod file;
mod folder;
mod live;
mod process;
mod serve;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec,
};
use crate::tensor::{Dtype, Tensor};
use file::{File, ParamStart, Steps};
use folder::Folder;
use process::{ExitOutcome, WorkerProcess};

pub use file::{ANSWER, REQUEST};
pub use live::{finish, own_process};
pub use serve::{answer, serve};

/// How long a program may take over one answer, unless told otherwise.
pub const LIMIT: Duration = Duration::from_secs(30);

/// After so many timeouts in a row, no more requests are made.
const GIVE_UP: usize = 5;

/// The most bytes of an answer per byte of its request and of the outputs that are not inputs too. An f64 of
/// every slot for every bf16 of a parameter and its gradient is a third of it.
const FACTOR: u64 = 64;
/// The bytes that any answer may have in addition.
const BESIDE: u64 = 1 << 20;

/// A program as a backend.
#[derive(Debug)]
pub struct Exec {
    name: String,
    command: String,
    /// The idle workers of `exec-loop:`; `None` for `exec:`.
    idle: Option<Mutex<Vec<WorkerProcess>>>,
    limit: Duration,
    late: AtomicUsize,
}

impl Exec {
    /// The backend of a name such as `exec:COMMAND`; `None` without such a prefix.
    #[must_use]
    pub fn new(name: &str, limit: Duration) -> Option<Exec> {
        let (prefix, command) = name.split_once(':')?;
        let idle = match prefix {
            "exec" => None,
            "exec-loop" => Some(Mutex::new(Vec::new())),
            _ => return None,
        };
        let (name, command) = (name.to_owned(), command.to_owned());
        Some(Exec { name, command, idle, limit, late: AtomicUsize::new(0) })
    }

    /// Requests an answer. `expected` is the number of its bytes that the size of the request does not account for.
    fn request(&self, request: &File, expected: usize) -> Result<File, BackendError> {
        let late = self.late.load(Ordering::Relaxed);
        if late >= GIVE_UP {
            return Err(BackendError::Failed(format!(
                "not asked: {late} answers in a row did not come in time"
            )));
        }
        let own = |e: String| BackendError::Failed(format!("the suite can't write a request: {e}"));
        let bytes = request.bytes().map_err(own)?;
        let folder = Folder::new().map_err(|e| own(e.to_string()))?;
        folder.write(file::REQUEST_FILE, &bytes).map_err(|e| own(e.to_string()))?;
        let paths = [file::REQUEST_FILE, file::ANSWER_FILE].map(|name| folder.path(name));
        let (Some(from), Some(to)) = (paths[0].to_str(), paths[1].to_str()) else {
            return Err(own("the folder for temporary files has no plain name".to_owned()));
        };
        let outcome = match &self.idle {
            None => process::once(&self.command, &[from, to], self.limit),
            Some(idle) => self.request_from_worker(idle, from, to),
        };
        let late = matches!(outcome, ExitOutcome::Late(_));
        self.late
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(if late { n + 1 } else { 0 })
            })
            .ok();
        let about = (bytes.len() as u64).saturating_add(expected as u64);
        let most = FACTOR.saturating_mul(about).saturating_add(BESIDE);
        let read = || File::parse(&folder.read(file::ANSWER_FILE, most)?, ANSWER);
        match outcome {
            ExitOutcome::Done => {
                read().map_err(|e| BackendError::Failed(format!("the answer: {e}")))
            }
            ExitOutcome::Unsupported(why) if why.is_empty() => {
                Err(BackendError::Unsupported("the program gives no reason".to_owned()))
            }
            ExitOutcome::Unsupported(why) => Err(BackendError::Unsupported(why)),
            ExitOutcome::Failed(what) | ExitOutcome::Trouble(what) | ExitOutcome::Late(what) => {
                Err(BackendError::Failed(what))
            }
        }
    }

    /// Takes an idle worker or starts one, so each thread of the suite uses one at a time.
    fn request_from_worker(
        &self,
        idle: &Mutex<Vec<WorkerProcess>>,
        from: &str,
        to: &str,
    ) -> ExitOutcome {
        let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut process = match waiting.map_or_else(|| WorkerProcess::start(&self.command), Ok) {
            Ok(process) => process,
            Err(outcome) => return outcome,
        };
        let outcome = process.request(from, to, self.limit);
        // One that takes seconds to start is kept after an error that it reports itself.
        if !matches!(outcome, ExitOutcome::Trouble(_) | ExitOutcome::Late(_)) {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(process);
        }
        outcome
    }
}

/// Validates an answer of `steps` steps to a request with these parameters.
///
/// # Errors
/// The defect.
pub fn check_answer(bytes: &[u8], params: &[&Tensor], steps: usize) -> Result<(), String> {
    file::steps(&File::parse(bytes, ANSWER)?, params, steps).map(|_| ())
}

fn failed(e: String) -> BackendError {
    BackendError::Failed(format!("the answer: {e}"))
}

impl Backend for Exec {
    fn name(&self) -> &str {
        &self.name
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        Ok(Box::new(ExecRun {
            exec: self,
            spec: OwnedSpec::of(spec),
            before: vec![ParamStart::default(); spec.params.len()],
            done: 0,
            planned: Vec::new(),
            made: 0,
            answer: Steps::default(),
            count: 0,
        }))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        let expected = spec.steps.saturating_add(1).saturating_mul(spec.groups).saturating_mul(8);
        let answer = self.request(&file::schedule(spec), expected)?;
        let lr = answer.tensors.get("lr").ok_or_else(|| failed("it lacks `lr`".to_owned()))?;
        let expected = [spec.steps + 1, spec.groups];
        if lr.dtype != Dtype::F64 || lr.shape != expected {
            let (dtype, shape) = (lr.dtype, &lr.shape);
            return Err(failed(format!("its `lr` is {dtype} {shape:?}, wanted f64 {expected:?}")));
        }
        Ok(lr.to_f64s())
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        let answer = self.request(&file::gradient(spec), 0)?;
        let mut outputs = Vec::new();
        for (i, input) in spec.inputs.iter().enumerate() {
            let name = format!("g{i}.out");
            // The first dimension, micro-batches, is reduced.
            let shape = match spec.name {
                "accumulate" => input.shape.get(1..).unwrap_or_default(),
                _ => &input.shape,
            };
            match answer.tensors.get(&name) {
                None => return Err(failed(format!("it lacks `{name}`"))),
                Some(t) if t.dtype != input.dtype || t.shape != shape => {
                    return Err(failed(format!(
                        "its `{name}` is {} {:?}, wanted {} {shape:?}",
                        t.dtype, t.shape, input.dtype
                    )));
                }
                Some(t) => outputs.push(t.clone()),
            }
        }
        let norm = answer.tensors.get("norm").filter(|t| t.len() == 1).map(|t| t.get(0));
        Ok(GradientAnswer { outputs, norm })
    }
}

/// An owned [`OptimizerSpec`].
struct OwnedSpec {
    name: String,
    reference: String,
    hyper: serde_json::Map<String, serde_json::Value>,
    groups: Vec<crate::golden::Group>,
    params: Vec<Tensor>,
    given: Vec<Vec<String>>,
    steps: usize,
}

impl OwnedSpec {
    fn of(spec: &OptimizerSpec<'_>) -> OwnedSpec {
        let given = spec.given.iter().map(|g| g.iter().map(|&what| what.to_owned()).collect());
        OwnedSpec {
            name: spec.name.to_owned(),
            reference: spec.reference.to_owned(),
            hyper: spec.hyper.clone(),
            groups: spec.groups.to_vec(),
            params: spec.params.iter().map(|&t| t.clone()).collect(),
            given: given.collect(),
            steps: spec.steps,
        }
    }

    fn spec(&self) -> OptimizerSpec<'_> {
        OptimizerSpec {
            name: &self.name,
            reference: &self.reference,
            hyper: &self.hyper,
            groups: &self.groups,
            params: self.params.iter().collect(),
            given: self.given.iter().map(|g| g.iter().map(String::as_str).collect()).collect(),
            steps: self.steps,
        }
    }
}

struct ExecRun<'a> {
    exec: &'a Exec,
    spec: OwnedSpec,
    before: Vec<ParamStart>,
    /// Steps before the first of a request.
    done: u64,
    planned: Vec<Inputs>,
    /// Steps made since the latest request.
    made: usize,
    answer: Steps,
    /// Steps in the answer.
    count: usize,
}

impl ExecRun<'_> {
    /// The row of the latest step.
    fn row(&self, t: &Tensor) -> Tensor {
        t.row(self.made.saturating_sub(1))
    }
}

impl Run for ExecRun<'_> {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        if let Some(before) = self.before.get_mut(i) {
            let (value, state) = (Some(value.clone()), state.clone());
            *before = ParamStart { value, state, updates: counts.updates };
        }
        self.done = self.done.max(counts.steps);
        self.count = 0;
        Ok(())
    }

    fn plan(&mut self, steps: &[Inputs]) {
        self.planned = steps.to_vec();
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        if self.made == self.count {
            if self.count > 0 {
                // The program's state may be more than it shows, so it can't be resumed.
                let text = "one step at a time needs the state before each";
                return Err(BackendError::Failed(text.to_owned()));
            }
            let one = std::slice::from_ref(inputs);
            let steps = if self.planned.is_empty() { one } else { &self.planned };
            let spec = self.spec.spec();
            let request = file::optimizer(&spec, &self.before, self.done, steps);
            let request = request.map_err(BackendError::Failed)?;
            let answer = self.exec.request(&request, 0)?;
            self.answer = file::steps(&answer, &spec.params, steps.len()).map_err(failed)?;
            (self.count, self.made) = (steps.len(), 0);
        }
        self.made += 1;
        Ok(())
    }

    fn value(&self, i: usize) -> Tensor {
        self.answer.values.get(i).map_or_else(|| self.spec.params[i].clone(), |t| self.row(t))
    }

    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        let all = self.answer.states.get(i).into_iter().flatten();
        all.map(|(slot, t)| (slot.clone(), self.row(t))).collect()
    }

    fn eval(&self, i: usize) -> Option<Tensor> {
        // The answer has it for the last step only.
        let last = self.made == self.count;
        self.answer.evals.get(i).filter(|_| last)?.clone()
    }

    fn lacks(&self, i: usize) -> Option<String> {
        self.answer.lacks.get(i)?.clone()
    }

    fn shows_state(&self) -> bool {
        !self.answer.hidden
    }
}
