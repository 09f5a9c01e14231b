//! The interface that a checked implementation has, and this library's own implementations of it.
//!
//! Here are the traits [`Backend`] and [`Run`], their inputs, the backends `core`, `ndarray`, `candle`, `ptx` and
//! `cuda`, and their [`registry`]. A backend gets the inputs of a case, never its answers; nothing here compares
//! or tolerates anything ([`crate::judge`] does), and no update rule is implemented here.
//!
//! To have your own checked, copy `examples/my_backend.rs`, which runs with
//! `cargo run -p bitstep-conformance --example my_backend`: implement the trait and pass it to
//! [`suite::run`](crate::suite::run) or [`check::case`](crate::judge::check::case). A program in another language
//! goes behind [`exec`](crate::exec).
//!
//! * [`optimizer`](Backend::optimizer) builds a [`Run`]: parameters at their initial values, no state yet, as after
//!   the reference's constructor. The suite then calls [`step`](Run::step) for a free run; or it
//!   [`load`](Run::load)s every parameter with the reference's value and state at some step and makes one step
//!   from there. It reads [`value`](Run::value) and [`state`](Run::state) after each. A run that can't start in
//!   the middle refuses `load` as unsupported; one whose state is hidden says so in
//!   [`shows_state`](Run::shows_state); the rest is checked.
//! * [`schedule`](Backend::schedule) and [`gradient`](Backend::gradient) are plain functions.
//!
//! A backend [refuses](BackendError::Unsupported) what it has no implementation for; the suite counts and prints
//! that. Names are those of the golden format, hyper-parameters those of the reference's constructor, state
//! slots those of its `state_dict`.

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

/// Why a backend gives no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendError {
    /// The backend has no implementation of this; with the reason.
    Unsupported(String),
    /// The backend has an implementation, but it failed.
    Failed(String),
    /// [`Run::load`] only: the case lacks this slot, so the parameter can't be checked from this step.
    NeedsState(String),
}

pub(crate) fn failed(e: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(e.to_string())
}

/// An implementation of any of the references.
pub trait Backend: Send + Sync {
    /// The name for `--backend`.
    fn name(&self) -> &str;

    /// Sets up an optimizer over parameters at their initial values.
    ///
    /// # Errors
    /// [`BackendError`].
    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError>;

    /// The learning rates of every group, (T+1) × G in rows: at construction, then after each step.
    ///
    /// # Errors
    /// [`BackendError`].
    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError>;

    /// Applies a gradient strategy.
    ///
    /// # Errors
    /// [`BackendError`].
    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError>;
}

/// A running optimizer.
pub trait Run {
    /// Puts parameter `i` into the middle of a run: its value, its state, and its counters. `state` holds the slots
    /// that the case has, under the reference's keys; it is empty if the parameter has had no gradient yet.
    ///
    /// # Errors
    /// [`BackendError::NeedsState`] if a slot is missing that the next step depends on.
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError>;

    /// The inputs of all steps to come, in order: the suite calls this before the first step of a free run, so that
    /// a backend may compute them all at once.
    fn plan(&mut self, steps: &[Inputs]) {
        let _ = steps;
    }

    /// One step of all parameters.
    ///
    /// # Errors
    /// [`BackendError`].
    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError>;

    /// The value of parameter `i`, in its own type.
    fn value(&self, i: usize) -> Tensor;

    /// The whole state of parameter `i`, under the reference's keys, in any type; group state is repeated for each
    /// of the group's parameters.
    fn state(&self, i: usize) -> BTreeMap<String, Tensor>;

    /// The evaluation value of parameter `i`, if the optimizer distinguishes training from evaluation.
    fn eval(&self, i: usize) -> Option<Tensor> {
        let _ = i;
        None
    }

    /// A slot that parameter `i`'s step needed and that was not loaded, for a backend that learns of it only at the
    /// step: a late [`BackendError::NeedsState`].
    fn lacks(&self, i: usize) -> Option<String> {
        let _ = i;
        None
    }

    /// Whether [`state`](Run::state) is available. If not, only values are compared.
    fn shows_state(&self) -> bool {
        true
    }
}

/// The counters of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Gradients that this parameter has had since the case began. A step counter in the loaded state takes
    /// precedence: a case may begin late.
    pub updates: u64,
    /// Steps that the optimizer has made since the case began.
    pub steps: u64,
}

/// The inputs of one step.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The index of the step, from 0.
    pub t: usize,
    /// A gradient for each parameter that has one.
    pub grads: Vec<Option<Tensor>>,
    /// The learning rate in force; `None` for the one of the arguments.
    pub lr: Option<f64>,
    /// Extra scalars: `train_loss`, `loss_scale`, ….
    pub given: BTreeMap<String, f64>,
    /// For each parameter, the tensors that the reference drew at random or decomposed, and whether each came into
    /// force at this step.
    pub tensors: Vec<BTreeMap<String, (Tensor, bool)>>,
}

/// The configuration of an optimizer.
#[derive(Clone, Debug)]
pub struct OptimizerSpec<'a> {
    /// The name of the reference, as in the golden format.
    pub name: &'a str,
    /// Its import path, which distinguishes implementations of one name.
    pub reference: &'a str,
    /// The constructor's arguments; groups may override them.
    pub hyper: &'a Map<String, Value>,
    /// The groups; every parameter is in exactly one.
    pub groups: &'a [Group],
    /// The initial parameters.
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

/// The configuration of a schedule.
#[derive(Clone, Debug)]
pub struct ScheduleSpec<'a> {
    /// The name of the reference.
    pub name: &'a str,
    /// Its import path.
    pub reference: &'a str,
    /// The reference's constructor arguments.
    pub hyper: &'a Map<String, Value>,
    /// Number of steps.
    pub steps: usize,
    /// Number of groups.
    pub groups: usize,
    /// The metric at each step, for schedules driven by one.
    pub metric: Option<&'a [f64]>,
    /// Extra inputs.
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

/// The inputs of a gradient strategy.
#[derive(Clone, Debug)]
pub struct GradientSpec<'a> {
    /// The name of the reference.
    pub name: &'a str,
    /// Its import path.
    pub reference: &'a str,
    /// The reference's arguments.
    pub hyper: &'a Map<String, Value>,
    /// The gradients; for `accumulate` with one row per micro-batch.
    pub inputs: Vec<&'a Tensor>,
    /// For each gradient, the random tensors that the reference drew.
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

/// The output of a gradient strategy.
#[derive(Clone, Debug, Default)]
pub struct GradientAnswer {
    /// One gradient per input, of equal type.
    pub outputs: Vec<Tensor>,
    /// The total norm before clipping, for strategies that compute one.
    pub norm: Option<f64>,
}
