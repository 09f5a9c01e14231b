//! bitstep's optimizers for [candle](candle_core).
//!
//! [`Optimizer`] is a drop-in [`candle_nn::Optimizer`] whose configuration is a
//! [`OptimizerSpec`]: any optimizer of the list. It writes to the `Var`s in place, with
//! no temporary tensor and no copy of parameter, gradient or state.
//!
//! ```
//! use bitstep::{hyper::Args, registry};
//! use bitstep_candle::Optimizer;
//! use candle_core::{DType, Device, Var};
//! use candle_nn::Optimizer as _;
//!
//! let weight = Var::ones((2, 3), DType::F32, &Device::Cpu)?;
//! let recipe = registry::optimizer("adamw_torch", &Args::new().with("lr", 0.1))?;
//! let mut optimizer = Optimizer::new(vec![weight.clone()], recipe)?;
//! for _ in 0..10 {
//!     optimizer.backward_step(&weight.sqr()?.sum_all()?)?;
//! }
//! assert!(weight.sum_all()?.to_scalar::<f32>()? < 3.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Beside it:
//! * parameters by name ([`named_vars`]), groups ([`Optimizer::add_group`]), their state
//!   ([`Optimizer::state`]), clipping by global norm ([`Optimizer::clip_grad_norm`]);
//! * [`Training`], which does what Transformers' Trainer does around the optimizer: groups from
//!   a `TrainingArguments` file, schedules, clipping, accumulation, loss scaling, checkpoints;
//! * [`import`], which goes on from a checkpoint that Trainer wrote;
//! * steps that free each gradient as they go ([`Optimizer::step_and_free`]), or hold the
//!   gradients of one layer at a time ([`Layers`]).
//!
//! Those are for variables on the CPU; elsewhere they are an error. With the feature `cuda`,
//! `CudaOptimizer` steps variables on a GPU, with the same bits: on candle's own stream and
//! storage, by `bitstep-cudarc`. It builds where candle's `cuda` builds, with nvcc. **It has not met
//! a card yet**: it has been type-checked, and what it launches runs in an interpreter.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

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

/// The variables of a map under their names, in the order of the names: a hash
/// map's own order changes from run to run, and state could not be resumed.
///
/// A [`VarBuilder`](candle_nn::VarBuilder) does not show what it was made from, and hands out
/// tensors. Those from a [`VarMap`] are variables, which this map still has under the
/// builder's names; those from a file or another map are constants, which no gradient reaches:
/// to train them, load the file into the map ([`VarMap::load`]).
#[must_use]
pub fn named_vars(map: &VarMap) -> Vec<(String, Var)> {
    let data = map.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut vars: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    vars.sort_by(|a, b| a.0.cmp(&b.0));
    vars
}

/// Groups of variables, what moves them, and their state.
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
    /// No groups yet.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds variables that share a recipe; returns the group's number.
    ///
    /// # Errors
    /// An invalid recipe; a variable that is not on the CPU, or not of f64, f32, bf16 or f16, or
    /// that shares memory with another ([`SharedMemory`]).
    pub fn add_group(
        &mut self,
        recipe: OptimizerSpec,
        vars: impl IntoIterator<Item = (String, Var)>,
    ) -> Result<GroupId> {
        let group = self.state.add_group(recipe).map_err(Error::wrap)?;
        vars.into_iter().try_for_each(|(name, var)| self.add_var(group, name, var))?;
        Ok(group)
    }

    /// Adds one variable to a group.
    ///
    /// # Errors
    /// No such group, a name that no checkpoint can have, a variable as in [`add_group`](Self::add_group), or one that is there
    /// already, be it under another name: torch refuses that across groups, and warns that it
    /// will within one.
    pub fn add_var(&mut self, group: GroupId, name: String, var: Var) -> Result<()> {
        self.add(group, name, var, State::add_param_to)
    }

    /// The same for a variable whose state rests as plain numbers, whatever the group's recipe
    /// says ([`State::add_plain_param`]).
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

    /// Sets the number of elements below which a variable is not cut for threads.
    pub fn set_grain(&mut self, grain: usize) {
        self.grain = grain;
    }

    /// Sets one group's learning rate; a schedule's value goes here.
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

    /// What is kept of the variable of that name.
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

    /// The same, to restore.
    pub fn inner_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The variables under their names, in the order in which they were added.
    #[must_use]
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// One step; `given` are numbers from outside, for the rules that listen to any.
    ///
    /// # Errors
    /// A gradient of another shape, type or device than its variable, or one that shares memory
    /// with a variable ([`SharedMemory`]). Nothing is written then.
    pub fn step_with_extra_args(&mut self, grads: &GradStore, given: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.get(var).cloned()).collect();
        self.step_with(grads, given)
    }

    /// One step that drops each gradient as soon as it is used.
    ///
    /// # Errors
    /// As [`step_with_extra_args`](Self::step_with_extra_args).
    pub fn step_and_free(&mut self, grads: &mut GradStore, given: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.remove(var)).collect();
        self.step_with(grads, given)
    }

    /// One step with a gradient, or none, for each variable in their order.
    ///
    /// # Errors
    /// As [`step_with_extra_args`](Self::step_with_extra_args).
    pub fn step_with(&mut self, grads: Vec<Option<Tensor>>, given: &[(&str, f64)]) -> Result<()> {
        let grads = self.check(grads)?;
        cpu::with_data(&grads, |data| self.state.begin_step(data, given).map_err(Error::wrap))?;
        let mut layers = vec![0u32; self.state.groups().len()];
        for (index, grad) in grads.into_iter().enumerate() {
            let Some(grad) = grad else { continue };
            let layer = &mut layers[self.state.params()[index].group.0];
            self.step_one(index, &grad, *layer, given)?;
            *layer += 1;
        }
        Ok(())
    }

    /// Begins a step whose gradients come a few at a time; then
    /// [`step_some`](Self::step_some) as often as there are any. See [`Layers`].
    ///
    /// # Errors
    /// A rule that needs the norm over all gradients before the first update.
    pub fn begin(&mut self, given: &[(&str, f64)]) -> Result<()> {
        let all_at_once = |g: &Group| g.spec.rule.grad_norm_divisor(given).is_some();
        if let Some(number) = self.state.groups().iter().position(all_at_once) {
            let message = "needs the norm over all gradients: step with all of them";
            return Err(Error::msg(format!("group {number} {message}")));
        }
        let nothing =
            self.vars.iter().map(|(_, var)| cpu::nothing(var.dtype())).collect::<Vec<_>>();
        self.state.begin_step(&nothing, given).map_err(Error::wrap)
    }

    /// The update of the variables that have a gradient here; drops those gradients.
    ///
    /// # Errors
    /// As [`step_with_extra_args`](Self::step_with_extra_args).
    pub fn step_some(&mut self, grads: &mut GradStore, given: &[(&str, f64)]) -> Result<()> {
        let grads = self.vars.iter().map(|(_, var)| grads.remove(var)).collect();
        let mut layers = vec![0u32; self.state.groups().len()];
        for (index, grad) in self.check(grads)?.into_iter().enumerate() {
            // All variables count, as their gradients will come, or have come.
            let layer = &mut layers[self.state.params()[index].group.0];
            if let Some(grad) = grad {
                self.step_one(index, &grad, *layer, given)?;
            }
            *layer += 1;
        }
        Ok(())
    }

    /// Turns the variables into those to evaluate; the same ones for most rules, but not for
    /// the schedule-free ones. Copies them.
    ///
    /// # Errors
    /// A configuration that can't be evaluated. Nothing is written then.
    pub fn eval(&mut self) -> Result<()> {
        self.switch(State::eval)
    }

    /// Turns the variables back into those to train.
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
    /// `clip.max_norm`; returns the norm before.
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

    /// Contiguous gradients, if all of them fit.
    fn check(&self, grads: Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> {
        check(&self.vars, &self.places, grads)
    }

    fn step_one(
        &mut self,
        index: usize,
        grad: &Tensor,
        layer: u32,
        given: &[(&str, f64)],
    ) -> Result<()> {
        let (state, grain) = (RefCell::new(&mut self.state), self.grain);
        let step = cpu::Step { state, index, layer, given, grain };
        // candle refuses to write into a tensor without elements, but the step counts.
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

    /// One group; variables are named by their position.
    fn new(vars: Vec<Var>, recipe: OptimizerSpec) -> Result<Self> {
        let mut optimizer = Self::default();
        let named = vars.into_iter().enumerate().map(|(i, var)| (i.to_string(), var));
        optimizer.add_group(recipe, named)?;
        Ok(optimizer)
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.step_with_extra_args(grads, &[])
    }

    /// The first group's.
    fn learning_rate(&self) -> f64 {
        self.state.groups().first().map_or(0.0, |g| g.lr)
    }

    /// Every group's.
    fn set_learning_rate(&mut self, lr: f64) {
        self.state.groups_mut().iter_mut().for_each(|g| g.lr = lr);
    }
}

/// Contiguous gradients, if all of them fit their variables.
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
        // It holds on to what it was computed from. One that autograd left transposed is
        // laid out in order.
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
