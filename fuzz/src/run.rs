//! A run of one optimizer on one parameter.

use bitstep::Error;
use bitstep::float::Dtype;
use bitstep::optimizer::{Buffer, Optimizer, OptimizerSpec, Param, Task};
use bitstep::storage::{RawBuffer, StorageFormat};

use crate::bits::{bits, buffer, numbers};

/// The extra named inputs that some rules use.
pub const EXTRA_ARGS: [&str; 4] = ["train_loss", "eval_loss", "loss_scale", "grokking_signal"];

/// One optimizer, one parameter, some steps.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The optimizer's name.
    pub name: &'static str,
    /// The rule, storage and arguments.
    pub spec: OptimizerSpec,
    /// Whether hyper-parameters differ from the defaults.
    pub tuned: bool,
    /// The parameter's type.
    pub dtype: Dtype,
    /// The parameter's dimensions.
    pub shape: Vec<usize>,
    /// The initial value of the step counters.
    pub before: u64,
    /// The parameter's bits before the first step.
    pub init: Vec<u64>,
    /// Its gradient's bits at each step; `None`: no gradient.
    pub grads: Vec<Option<Vec<u64>>>,
    /// The learning rate at each step.
    pub lrs: Vec<f64>,
    /// Values for the first of [`EXTRA_ARGS`].
    pub extra: Vec<f64>,
}

impl Trial {
    /// Number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.grads.len()
    }

    /// Whether state and parameter are stored without encoding.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = |f: &Option<StorageFormat>| matches!(f, None | Some(StorageFormat::Plain(_)));
        self.spec.storage.slot_formats.iter().all(plain)
            && self.spec.storage.param == Default::default()
    }

    pub(crate) fn extra(&self) -> Vec<(&'static str, f64)> {
        EXTRA_ARGS.into_iter().zip(self.extra.iter().copied()).collect()
    }
}

/// An optimizer in mid-run with its parameter.
#[derive(Clone, Debug)]
pub struct Run {
    /// The optimizer: one group, one parameter.
    pub optimizer: Optimizer,
    /// The parameter.
    pub value: Buffer,
}

impl Run {
    /// Before the first step.
    ///
    /// # Errors
    /// Whatever the core refuses.
    pub fn try_new(trial: &Trial) -> Result<Run, Error> {
        let mut optimizer = Optimizer::empty();
        let group = optimizer.add_group(trial.spec.clone())?;
        optimizer.add_param_to(group, &trial.shape, trial.dtype)?;
        optimizer.groups_mut()[0].steps = trial.before;
        optimizer.params_mut()[0].steps = trial.before;
        Ok(Run { optimizer, value: buffer(trial.dtype, &trial.init) })
    }

    /// Before the first step of a valid trial.
    ///
    /// # Panics
    /// If the core refuses the trial.
    #[must_use]
    pub fn new(trial: &Trial) -> Run {
        Run::try_new(trial).expect("a spec and a shape that are taken")
    }

    /// Makes step t of the trial.
    ///
    /// # Errors
    /// Whatever the core refuses.
    pub fn step(&mut self, trial: &Trial, t: usize) -> Result<(), Error> {
        self.optimizer.groups_mut()[0].lr = trial.lrs[t];
        let grad = trial.grads[t].as_ref().map(|g| buffer(trial.dtype, g));
        let grad = grad.as_ref().and_then(Buffer::data);
        self.optimizer.step_all(&mut [Param { value: self.value.data_mut(), grad }], &trial.extra())
    }

    /// Makes step t in tasks of `len` elements, rounded up to whole blocks, the last task first; in one task if it
    /// can't be split.
    ///
    /// # Errors
    /// Whatever the core refuses.
    pub fn step_in_parts(&mut self, trial: &Trial, t: usize, len: usize) -> Result<(), Error> {
        self.optimizer.groups_mut()[0].lr = trial.lrs[t];
        let grad = trial.grads[t].as_ref().map(|g| buffer(trial.dtype, g));
        let grad = grad.as_ref().and_then(Buffer::data);
        let mut params = [Param { value: self.value.data_mut(), grad }];
        for task in self.optimizer.tasks(&mut params, &trial.extra())? {
            task.split(len).into_iter().rev().try_for_each(Task::run)?;
        }
        Ok(())
    }

    /// Makes the steps of a range.
    ///
    /// # Panics
    /// If a step is refused.
    pub fn steps(&mut self, trial: &Trial, range: std::ops::Range<usize>) {
        for t in range {
            self.step(trial, t).expect("a step that is taken");
        }
    }

    /// A whole run.
    ///
    /// # Panics
    /// If the core refuses anything.
    #[must_use]
    pub fn whole(trial: &Trial) -> Run {
        let mut run = Run::new(trial);
        run.steps(trial, 0..trial.steps());
        run
    }

    /// Everything that a step may write: parameter, slots, per-step scalars, counters.
    #[must_use]
    pub fn bits(&self) -> Vec<Vec<u64>> {
        let (group, param) = (&self.optimizer.groups()[0], &self.optimizer.params()[0]);
        let canonical = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
        let mut all = vec![bits(&self.value), vec![group.steps, param.steps]];
        all.push(group.scalars.iter().chain(&param.scalars).map(canonical).collect());
        all.extend(param.slots.iter().map(bits));
        let bytes = |raw: &RawBuffer| raw.bytes().into_iter().map(u64::from).collect();
        all.extend(param.correction.iter().map(bytes));
        all
    }

    /// The parameter's values.
    #[must_use]
    pub fn numbers(&self) -> Vec<f64> {
        numbers(&self.value)
    }

    /// The values of the slots, by name.
    pub fn slots(&self) -> impl Iterator<Item = (&'static str, Vec<f64>)> {
        let names = self.optimizer.groups()[0].spec.rule.info().slots;
        let slots = self.optimizer.params()[0].slots.iter().map(numbers);
        names.iter().copied().zip(slots)
    }
}
