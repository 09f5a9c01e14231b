//! What is being checked.
//!
//! A [`Backend`] gets the inputs of a case, never its answers, and computes. To
//! have your own checked, copy `examples/my_backend.rs`, which runs with
//! `cargo run -p bitstep-conformance --example my_backend`: implement the trait
//! and hand it to [`suite::run`](crate::suite::run) or
//! [`check::case`](crate::judge::check::case). A program in another language goes
//! behind [`exec`](crate::exec).
//!
//! * [`optimizer`](Backend::optimizer) builds a [`Run`]: the parameters at their
//!   start, no state yet, as after the reference's constructor. The suite then
//!   calls [`step`](Run::step) for a free run; or it [`load`](Run::load)s every
//!   parameter with the reference's own value and state of some step and makes
//!   one step from there. It reads [`value`](Run::value) and
//!   [`state`](Run::state) after each. A run that can't be put into the middle
//!   refuses to be loaded as unsupported, one whose state can't be seen says so in
//!   [`shows_state`](Run::shows_state); what remains is checked.
//! * [`schedule`](Backend::schedule) and [`gradient`](Backend::gradient) are plain functions.
//!
//! What a backend has no implementation for, it [refuses](BackendError::Unsupported);
//! the suite counts and prints that. Names are those of `GOLDEN_FORMAT.md`,
//! hyper-parameters those of the reference's constructor, state slots those of
//! its `state_dict`.

#[cfg(feature = "candle")]
mod candle_backend;
pub(crate) mod core_backend;
pub(crate) mod core_gradient;
pub(crate) mod core_schedule;
#[cfg(feature = "ptx")]
mod device_buffers;
pub(crate) mod diverged;
#[cfg(feature = "ptx")]
mod gpu_gradient;
pub(crate) mod host;
pub(crate) mod lacking;
#[cfg(feature = "ndarray")]
mod ndarray_backend;
#[cfg(feature = "ptx")]
mod ptx_backend;
pub mod registry;

#[cfg(feature = "candle")]
pub use candle_backend::Candle;
pub use core_backend::Core;
#[cfg(feature = "ndarray")]
pub use ndarray_backend::Ndarray;
#[cfg(feature = "cuda")]
pub use ptx_backend::Cuda;
#[cfg(feature = "ptx")]
pub use ptx_backend::Ptx;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::golden::{Case, GradientCase, Group, OptimizerCase, ScheduleCase};
use crate::tensor::Tensor;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendError {
    /// The backend has no implementation of this, and why.
    Unsupported(String),
    /// The backend has one, but it did not work.
    Failed(String),
    /// [`Run::load`] only: the case does not hold this piece of state, so the
    /// parameter can't be checked from here.
    NeedsState(String),
}

pub(crate) fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(e.to_string())
}

/// An implementation of any of the references.
pub trait Backend: Send + Sync {
    /// What `--backend` calls it.
    fn name(&self) -> &str;

    /// Sets up an optimizer over parameters at their start.
    ///
    /// # Errors
    /// [`BackendError`].
    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError>;

    /// The rates of every group, (T+1) × G in rows: at construction, then after each step.
    ///
    /// # Errors
    /// [`BackendError`].
    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError>;

    /// What becomes of the gradients.
    ///
    /// # Errors
    /// [`BackendError`].
    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError>;
}

/// An optimizer at work.
pub trait Run {
    /// Puts parameter `i` into the middle of a run: its value, its state, and its counters.
    /// `state` holds what the case has, under the reference's keys; nothing if
    /// the parameter has had no gradient yet.
    ///
    /// # Errors
    /// [`BackendError::NeedsState`] if something is missing that the next step depends on.
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError>;

    /// What the steps to come will be given, in order, if that is known: the suite says so before
    /// the first step of a free run, so that a backend may compute them all at once.
    fn plan(&mut self, steps: &[Inputs]) {
        let _ = steps;
    }

    /// One step of all parameters.
    ///
    /// # Errors
    /// [`BackendError`].
    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError>;

    /// Parameter `i`, in its own type.
    fn value(&self, i: usize) -> Tensor;

    /// Everything that is kept of parameter `i`, under the reference's keys, in
    /// any number type; the group's part is repeated for each of its parameters.
    fn state(&self, i: usize) -> BTreeMap<String, Tensor>;

    /// Parameter `i` as shown for evaluation, if the optimizer makes that difference.
    fn eval(&self, i: usize) -> Option<Tensor> {
        let _ = i;
        None
    }

    /// The state that parameter `i`'s step would have needed and that was not loaded, if a
    /// backend learns of it only at the step: [`BackendError::NeedsState`], later.
    fn lacks(&self, i: usize) -> Option<String> {
        let _ = i;
        None
    }

    /// Whether [`state`](Run::state) can be seen at all. Where it can't, values alone are compared.
    fn shows_state(&self) -> bool {
        true
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Gradients that this parameter has had since the case began. A step
    /// counter among the loaded state is to be preferred: a case may begin late.
    pub updates: u64,
    /// Steps that the optimizer has made since the case began.
    pub steps: u64,
}

/// What comes from outside at a step.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The number of the step, from 0.
    pub t: usize,
    /// A gradient for each parameter that has one.
    pub grads: Vec<Option<Tensor>>,
    /// The rate in force; `None` for that of the arguments.
    pub lr: Option<f64>,
    /// Other numbers: `train_loss`, `loss_scale`, ….
    pub given: BTreeMap<String, f64>,
    /// For each parameter, what the reference drew or decomposed for itself: the
    /// tensor in force, and whether it came into force at this very step.
    pub tensors: Vec<BTreeMap<String, (Tensor, bool)>>,
}

/// An optimizer to be set up.
#[derive(Clone, Debug)]
pub struct OptimizerSpec<'a> {
    /// The name of what ran, as in `GOLDEN_FORMAT.md`.
    pub name: &'a str,
    /// Import path of what ran: tells two implementations of one name apart.
    pub reference: &'a str,
    /// The constructor's arguments, which groups may change.
    pub hyper: &'a Map<String, Value>,
    /// Every parameter is in exactly one.
    pub groups: &'a [Group],
    /// The parameters at their start.
    pub params: Vec<&'a Tensor>,
    /// For each parameter, the names of [`Inputs::tensors`].
    pub given: Vec<Vec<&'a str>>,
    /// Number of steps of the whole run.
    pub steps: usize,
}

impl<'a> OptimizerSpec<'a> {
    /// The inputs of a case.
    #[must_use]
    pub fn new(case: &'a Case, data: &'a OptimizerCase) -> Self {
        OptimizerSpec {
            name: &case.name,
            reference: &case.reference,
            hyper: &case.hyper,
            groups: &data.groups,
            params: data.params.iter().map(|p| &p.init).collect(),
            given: data
                .params
                .iter()
                .map(|p| p.given.keys().map(String::as_str).collect())
                .collect(),
            steps: case.steps,
        }
    }
}

impl Inputs {
    /// The inputs of step `t` of a case.
    #[must_use]
    pub fn new(data: &OptimizerCase, t: usize) -> Inputs {
        let grads = data.params.iter().map(|p| {
            let present = p.has_grad.get(t).copied().unwrap_or(false);
            present.then(|| p.grad.row(t))
        });
        let tensors = data.params.iter().map(|p| {
            p.given.iter().filter_map(|(what, g)| g.at(t).map(|x| (what.clone(), x))).collect()
        });
        Inputs {
            t,
            grads: grads.collect(),
            lr: data.lr.as_ref().and_then(|lr| lr.get(t).copied()),
            given: data.given.iter().map(|(what, rows)| (what.clone(), rows[t])).collect(),
            tensors: tensors.collect(),
        }
    }
}

/// A schedule to be followed.
#[derive(Clone, Debug)]
pub struct ScheduleSpec<'a> {
    /// The name of what ran.
    pub name: &'a str,
    /// Import path of what ran.
    pub reference: &'a str,
    /// The reference's constructor arguments.
    pub hyper: &'a Map<String, Value>,
    /// Number of steps.
    pub steps: usize,
    /// Number of groups.
    pub groups: usize,
    /// The value handed over at each step, for schedules driven by one.
    pub metric: Option<&'a [f64]>,
    /// Whatever else came from outside.
    pub given: &'a BTreeMap<String, Tensor>,
}

impl<'a> ScheduleSpec<'a> {
    /// The inputs of a case.
    #[must_use]
    pub fn new(case: &'a Case, data: &'a ScheduleCase) -> Self {
        ScheduleSpec {
            name: &case.name,
            reference: &case.reference,
            hyper: &case.hyper,
            steps: case.steps,
            groups: data.groups,
            metric: data.metric.as_deref(),
            given: &data.given,
        }
    }
}

/// Gradients to be treated.
#[derive(Clone, Debug)]
pub struct GradientSpec<'a> {
    /// The name of what ran.
    pub name: &'a str,
    /// Import path of what ran.
    pub reference: &'a str,
    /// The reference's arguments.
    pub hyper: &'a Map<String, Value>,
    /// The gradients; for `accumulate` with one row a micro-batch.
    pub inputs: Vec<&'a Tensor>,
    /// For each gradient, what the reference drew for itself.
    pub given: Vec<&'a BTreeMap<String, Tensor>>,
}

impl<'a> GradientSpec<'a> {
    /// The inputs of a case.
    #[must_use]
    pub fn new(case: &'a Case, data: &'a GradientCase) -> Self {
        GradientSpec {
            name: &case.name,
            reference: &case.reference,
            hyper: &case.hyper,
            inputs: data.tensors.iter().map(|g| &g.input).collect(),
            given: data.tensors.iter().map(|g| &g.given).collect(),
        }
    }
}

/// Gradients after their treatment.
#[derive(Clone, Debug, Default)]
pub struct GradientAnswer {
    /// One for each that went in, of the same type.
    pub outputs: Vec<Tensor>,
    /// The total norm before, where there is one.
    pub norm: Option<f64>,
}
