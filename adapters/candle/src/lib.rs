#![doc = include_str!("../README.md")]
//!
//! The crate also has:
//! * parameters by name ([`named_vars`]), groups ([`Optimizer::add_group`]), their state
//!   ([`Optimizer::state`]), clipping by the global norm ([`Optimizer::clip_grad_norm`]);
//! * [`Training`], Transformers' Trainer around the optimizer: groups from a `TrainingArguments`
//!   file, schedules, clipping, accumulation, loss scaling, checkpoints;
//! * [`import`], which reads a checkpoint that Trainer wrote;
//! * steps that free each gradient once it is used ([`Optimizer::step_and_free`]), or hold the
//!   gradients of one layer at a time ([`Layers`]).
//!
//! All of these take variables on the CPU and refuse others. With the feature `cuda`,
//! `CudaOptimizer` steps variables on a GPU with the same bits, by `bitstep-cudarc`, on candle's
//! own stream and storage. It builds where candle's `cuda` builds, with nvcc. **It has not run on a
//! GPU yet**: it has been type-checked, and its kernels have run in an interpreter.
//!
//! Metal is not supported, and `CudaOptimizer` has no [`Training`].
// docs.rs marks what a feature brings.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../../../docs/training.md")]
struct Pages;

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod import;
mod layers;
mod memory;
mod training;

#[cfg(feature = "cuda")]
pub use cuda::CudaOptimizer;
pub use layers::Layers;
pub use memory::SharedMemory;
pub use training::{Outcome, Training};

use std::cell::RefCell;

use bitstep::float::Dtype;
use bitstep::gradient::ClipGradNorm;
use bitstep::optimizer::{
    Buffer, Group, GroupId, Optimizer as State, OptimizerSpec, ParamId, ParamState,
};
use bitstep::storage::DataMut;
use candle_core::backprop::GradStore;
use candle_core::{DType, Error, Result, Tensor, Var};
use candle_nn::VarMap;

use memory::Places;

/// The variables of a map with their names, sorted by name: the order of a hash map
/// changes from run to run, so that state could not be resumed.
///
/// A [`VarBuilder`](candle_nn::VarBuilder) hands out tensors and does not show their origin.
/// Those from a [`VarMap`] are variables, which this map holds under the builder's names. Those
/// from a file or another map are constants without gradients: to train them, load the file into
/// the map ([`VarMap::load`]).
#[must_use]
pub fn named_vars(map: &VarMap) -> Vec<(String, Var)> {
    let data = map.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut vars: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    vars
}

/// Groups of variables on the CPU, their optimizers, and their state.
#[derive(Debug)]
pub struct Optimizer {
    state: State,
    vars: Vec<(String, Var)>,
    places: Places,
    grain: usize,
}

impl Default for Optimizer {
    fn default() -> Self {
        let grain = bitstep_rayon::GRAIN;
        Self { state: State::empty(), vars: Vec::new(), places: Places::default(), grain }
    }
}

impl Optimizer {
    /// An optimizer without groups.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a group of variables that share a spec.
    ///
    /// # Errors
    /// An invalid spec; a variable that is not on the CPU, or not of f64, f32, bf16 or f16, or
    /// that shares memory with another ([`SharedMemory`]).
    pub fn add_group(
        &mut self,
        spec: OptimizerSpec,
        vars: impl IntoIterator<Item = (String, Var)>,
    ) -> Result<GroupId> {
        let group = self.state.add_group(spec).map_err(Error::wrap)?;
        vars.into_iter().try_for_each(|(name, var)| self.add_var(group, name, var))?;
        Ok(group)
    }

    /// Adds one variable to a group.
    ///
    /// # Errors
    /// No such group; a name that no checkpoint can have; a variable as in
    /// [`add_group`](Self::add_group), or one that was added before, even under another name. (torch
    /// refuses that across groups, and within one warns that it will.)
    pub fn add_var(&mut self, group: GroupId, name: String, var: Var) -> Result<()> {
        self.add(group, name, var, State::add_param_to)
    }

    /// Adds one variable whose state is stored unquantized, whatever the group's spec says
    /// ([`State::add_plain_param`]).
    ///
    /// # Errors
    /// As [`add_var`](Self::add_var).
    pub fn add_plain_var(&mut self, group: GroupId, name: String, var: Var) -> Result<()> {
        self.add(group, name, var, State::add_plain_param)
    }

    fn add(&mut self, group: GroupId, name: String, var: Var, to: AddParam) -> Result<()> {
        bitstep_trainer::checkpoint::check_name(&name).map_err(Error::wrap)?;
        let dtype = dtype(&name, &var)?;
        let at = self.places.free(&self.vars, &name, &var)?;
        to(&mut self.state, group, var.dims(), dtype).map_err(Error::wrap)?;
        at.into_iter().for_each(|at| self.places.add(at, self.vars.len()));
        self.vars.push((name, var));
        Ok(())
    }

    /// Sets the number of elements below which a variable is not split among threads.
    pub fn set_grain(&mut self, grain: usize) {
        self.grain = grain;
    }

    /// Sets one group's learning rate, as a schedule gives it.
    ///
    /// # Errors
    /// No such group.
    pub fn set_group_lr(&mut self, group: GroupId, lr: f64) -> Result<()> {
        let Some(found) = self.state.groups_mut().get_mut(group.0) else {
            return Err(Error::msg(format!("no group {}", group.0)));
        };
        found.lr = lr;
        Ok(())
    }

    /// The state of the variable with that name.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<&ParamState> {
        let index = self.vars.iter().position(|(n, _)| n == name)?;
        self.state.params().get(index)
    }

    /// Groups, counters and buffers, in the order in which variables were added.
    #[must_use]
    pub fn inner(&self) -> &State {
        &self.state
    }

    /// Groups, counters and buffers, mutably: to restore them.
    pub fn inner_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The variables with their names, in the order in which they were added.
    #[must_use]
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// One step. `extra` are extra arguments by name, for the rules that use any.
    ///
    /// # Errors
    /// A gradient of another shape, type or device than its variable, or one that shares memory
    /// with a variable ([`SharedMemory`]). Nothing is written then.
    pub fn step_with_extra_args(&mut self, grads: &GradStore, extra: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.get(var).cloned()).collect();
        self.step_with(grads, extra)
    }

    /// One step that frees each gradient as soon as it is used.
    ///
    /// # Errors
    /// As [`step_with_extra_args`](Self::step_with_extra_args).
    pub fn step_and_free(&mut self, grads: &mut GradStore, extra: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.remove(var)).collect();
        self.step_with(grads, extra)
    }

    /// One step with a gradient or `None` for each variable, in the order of [`vars`](Self::vars).
    ///
    /// # Errors
    /// As [`step_with_extra_args`](Self::step_with_extra_args).
    pub fn step_with(&mut self, grads: Vec<Option<Tensor>>, extra: &[(&str, f64)]) -> Result<()> {
        let grads = self.check(grads)?;
        cpu::with_data(&grads, |data| self.state.begin_step(data, extra).map_err(Error::wrap))?;
        let mut layers = vec![0u32; self.state.groups().len()];
        for (index, grad) in grads.into_iter().enumerate() {
            let Some(grad) = grad else { continue };
            let layer = &mut layers[self.state.params()[index].group.0];
            self.step_one(index, &grad, *layer, extra)?;
            *layer += 1;
        }
        Ok(())
    }

    /// Begins a step whose gradients arrive a few at a time; call
    /// [`step_some`](Self::step_some) for each portion. See [`Layers`].
    ///
    /// # Errors
    /// A rule that needs the norm over all gradients before the first update.
    pub fn begin(&mut self, extra: &[(&str, f64)]) -> Result<()> {
        let all_at_once = |g: &Group| g.spec.rule.grad_norm_divisor(extra).is_some();
        if let Some(number) = self.state.groups().iter().position(all_at_once) {
            let message = "needs the norm over all gradients: step with all of them";
            return Err(Error::msg(format!("group {number} {message}")));
        }
        let empty =
            self.vars.iter().map(|(_, var)| cpu::empty_data(var.dtype())).collect::<Vec<_>>();
        self.state.begin_step(&empty, extra).map_err(Error::wrap)
    }

    /// Updates the variables that have a gradient in `grads`, and frees those gradients.
    ///
    /// # Errors
    /// As [`step_with_extra_args`](Self::step_with_extra_args).
    pub fn step_some(&mut self, grads: &mut GradStore, extra: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.remove(var)).collect();
        let mut layers = vec![0u32; self.state.groups().len()];
        for (index, grad) in self.check(grads)?.into_iter().enumerate() {
            // All variables count: those without a gradient here get theirs in another call.
            let layer = &mut layers[self.state.params()[index].group.0];
            if let Some(grad) = grad {
                self.step_one(index, &grad, *layer, extra)?;
            }
            *layer += 1;
        }
        Ok(())
    }

    /// Converts the variables to their evaluation values, which differ from the trained ones for
    /// the schedule-free rules only. Copies them.
    ///
    /// # Errors
    /// A configuration that can't be evaluated. Nothing is written then.
    pub fn eval(&mut self) -> Result<()> {
        self.switch(State::eval)
    }

    /// Converts the variables back to their training values.
    ///
    /// # Errors
    /// Those of candle.
    pub fn train(&mut self) -> Result<()> {
        self.switch(State::train)
    }

    fn switch(&mut self, to: Switch) -> Result<()> {
        let buffers = self.vars.iter().map(|(_, var)| cpu::buffer(var));
        let mut buffers = buffers.collect::<Result<Vec<_>>>()?;
        let mut views: Vec<_> = buffers.iter_mut().map(Buffer::data_mut).collect();
        to(&mut self.state, &mut views).map_err(Error::wrap)?;
        drop(views);
        self.vars.iter().zip(buffers).try_for_each(|((_, var), buffer)| cpu::set(var, buffer))
    }

    /// Scales the gradients of all variables in place, to a total norm of at most
    /// `clip.max_norm`; returns the norm before clipping.
    ///
    /// # Errors
    /// A non-finite norm, if `clip` refuses one; a gradient that shares memory with a variable or
    /// with another ([`SharedMemory`]). Nothing is written then.
    pub fn clip_grad_norm(&self, grads: &GradStore, clip: &ClipGradNorm) -> Result<f64> {
        let grads = self.vars.iter().map(|(_, var)| grads.get(var).cloned()).collect::<Vec<_>>();
        self.places.check(&self.vars, &grads, true)?;
        let (factor, norm) = cpu::clip_factor(&grads, clip)?;
        cpu::scale(&grads, factor)?;
        Ok(norm)
    }

    fn check(&self, grads: Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> {
        check(&self.vars, &self.places, grads)
    }

    fn step_one(
        &mut self,
        index: usize,
        grad: &Tensor,
        layer: u32,
        extra: &[(&str, f64)],
    ) -> Result<()> {
        let (state, grain) = (RefCell::new(&mut self.state), self.grain);
        let step = cpu::Step { state, index, layer, extra, grain };
        // candle refuses to write to a tensor without elements, but the step counts.
        match self.vars[index].1.elem_count() {
            0 => step.without_elements(grad.dtype()),
            _ => self.vars[index].1.inplace_op2(grad, &step),
        }
    }
}

type AddParam =
    fn(&mut State, GroupId, &[usize], Dtype) -> std::result::Result<ParamId, bitstep::Error>;
type Switch = fn(&mut State, &mut [DataMut<'_>]) -> std::result::Result<(), bitstep::Error>;

impl candle_nn::Optimizer for Optimizer {
    type Config = OptimizerSpec;

    /// An optimizer with one group, whose variables are named by their position.
    fn new(vars: Vec<Var>, spec: OptimizerSpec) -> Result<Self> {
        let mut optimizer = Self::default();
        let named = vars.into_iter().enumerate().map(|(i, var)| (i.to_string(), var));
        optimizer.add_group(spec, named)?;
        Ok(optimizer)
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.step_with_extra_args(grads, &[])
    }

    /// The first group's learning rate.
    fn learning_rate(&self) -> f64 {
        self.state.groups().first().map_or(0.0, |g| g.lr)
    }

    /// Sets every group's learning rate.
    fn set_learning_rate(&mut self, lr: f64) {
        self.state.groups_mut().iter_mut().for_each(|g| g.lr = lr);
    }
}

/// Makes the gradients contiguous, and refuses any that does not match its variable.
fn check(
    vars: &[(String, Var)],
    places: &Places,
    grads: Vec<Option<Tensor>>,
) -> Result<Vec<Option<Tensor>>> {
    if grads.len() != vars.len() {
        let (got, want) = (grads.len(), vars.len());
        return Err(Error::msg(format!("{got} gradients for {want} variables")));
    }
    let one = |((name, var), grad): (&(String, Var), Option<Tensor>)| {
        let Some(grad) = grad else { return Ok(None) };
        if grad.dims() != var.dims()
            || grad.dtype() != var.dtype()
            || !grad.device().same_device(var.device())
        {
            let form = |t: &Tensor| format!("{:?} {:?}", t.shape(), t.dtype());
            let (got, want) = (form(&grad), form(var));
            return Err(Error::msg(format!("gradient of {name}: {got}, wanted {want}")));
        }
        // Detached from the graph, which it would keep alive; contiguous, as autograd may
        // leave it transposed.
        grad.detach().contiguous().map(Some)
    };
    let grads = vars.iter().zip(grads).map(one).collect::<Result<Vec<_>>>()?;
    places.check(vars, &grads, false)?;
    Ok(grads)
}

fn dtype(name: &str, var: &Var) -> Result<Dtype> {
    if !var.device().is_cpu() {
        return Err(Error::msg(format!("{name}: wanted a variable on the CPU")));
    }
    number(name, var)
}

fn number(name: &str, var: &Var) -> Result<Dtype> {
    match var.dtype() {
        DType::F64 => Ok(Dtype::F64),
        DType::F32 => Ok(Dtype::F32),
        DType::BF16 => Ok(Dtype::Bf16),
        DType::F16 => Ok(Dtype::F16),
        other => Err(Error::msg(format!("{name}: wanted f64, f32, bf16 or f16, not {other:?}"))),
    }
}
