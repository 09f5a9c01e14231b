//! Changes to a group during training: its learning rate, its momentum, any of its arguments.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Buffer, GroupId, Optimizer, OptimizerSpec};
use crate::error::{Error, ensure_len};
use crate::hyper::{ArgError, Args, Value};
use crate::rule::SlotInit;
use crate::schedule::Scheduler;

impl Optimizer {
    /// Sets the learning rates of these groups to a schedule's current ones, in order, and their momentum (or β₁) if the
    /// schedule cycles it ([`Scheduler::momentum`]).
    ///
    /// # Errors
    /// A number of groups other than the schedule's, or an unknown one; a schedule that cycles the momentum of a rule
    /// without one, which the reference refuses too; a momentum that the rule refuses. Nothing is written then.
    ///
    /// ```
    /// use bitstep::{prelude::*, schedule};
    /// let mut opt = Optimizer::empty();
    /// let group = opt.add_group(registry::optimizer("adamw_torch", Args::new())?)?;
    /// let mut cycle = schedule::build("torch_one_cycle", &Args::parse("max_lr=0.1, total_steps=10")?)?;
    /// opt.follow(&cycle, &[group])?;
    /// assert!((opt.groups()[0].lr - 0.1 / 25.0).abs() < 1e-15);
    /// opt.step_schedule(&mut cycle, &[group], &[])?;
    /// let args = Args::of(opt.groups_mut()[0].spec.rule.hyper_params());
    /// let betas = args.get("betas").and_then(|betas| betas.as_list()).unwrap();
    /// assert!((betas[0].as_f64().unwrap() - 0.9).abs() < 1e-15); // 0.95 before
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[inline]
    pub fn follow(&mut self, scheduler: &Scheduler, groups: &[GroupId]) -> Result<(), ArgError> {
        ensure_len("groups", groups.len(), scheduler.lrs().len())?;
        let mut next = Vec::new();
        for (position, &id) in groups.iter().enumerate() {
            let group = self.groups.get(id.0).ok_or(NO_GROUP)?;
            next.push(match scheduler.momentum(position) {
                None => None,
                Some(m) => Some(self.plan_change(id, &momentum(&group.spec, m)?)?),
            });
        }
        for ((&id, &lr), changed) in groups.iter().zip(scheduler.lrs()).zip(next) {
            if let Some(changed) = changed {
                self.apply_change(id, changed);
            }
            if let Some(group) = self.groups.get_mut(id.0) {
                group.lr = lr;
            }
        }
        Ok(())
    }

    /// Steps a schedule of these groups and [`follow`](Self::follow)s it. Like the reference, it starts from the groups'
    /// current learning rates, which may have been set by hand. `metrics` are those of [`Scheduler::step`].
    ///
    /// # Errors
    /// Those of [`follow`](Self::follow) and of [`Scheduler::step`]. Neither the schedule nor the optimizer has changed
    /// then, with one exception: if the rule refuses a momentum, the schedule has made its step.
    #[inline]
    pub fn step_schedule(
        &mut self,
        scheduler: &mut Scheduler,
        groups: &[GroupId],
        metrics: &[f64],
    ) -> Result<(), ArgError> {
        let lrs = groups.iter().map(|&g| Ok(self.groups.get(g.0).ok_or(NO_GROUP)?.lr));
        let lrs = lrs.collect::<Result<Vec<f64>, Error>>()?;
        let before = scheduler.lrs().to_vec();
        scheduler.set_lrs(&lrs)?;
        if let Err(error) = scheduler.step(metrics) {
            scheduler.set_lrs(&before)?;
            return Err(error.into());
        }
        self.follow(scheduler, groups)
    }

    /// Changes arguments of a group during training, like assigning to the reference's `param_groups`. Slots that become
    /// active are allocated, with their initial values.
    ///
    /// # Errors
    /// An unknown argument, a refused value, or one that would deactivate a slot of a parameter that has been stepped,
    /// such as a momentum of 0 after another one. Nothing is written then.
    #[inline]
    pub fn set_args(&mut self, group: GroupId, args: &Args) -> Result<(), ArgError> {
        let changed = self.plan_change(group, args)?;
        self.apply_change(group, changed);
        Ok(())
    }

    /// Computes what [`set_args`](Self::set_args) changes in a group, without changing it.
    #[inline]
    fn plan_change(&self, id: GroupId, args: &Args) -> Result<Changed, ArgError> {
        let group = self.groups.get(id.0).ok_or(NO_GROUP)?;
        let spec = group.spec.with_args(args)?;
        let mut slots = Vec::new();
        let kept = spec.rule.info().slots == group.spec.rule.info().slots;
        if !kept && self.params.iter().any(|param| param.group == id) {
            // A rank makes a projection of a rule, whose state is another.
            let expected = "arguments under which the state has the same slots";
            return Err(Error::InvalidArgument { argument: "args", expected }.into());
        }
        for (i, param) in self.params.iter().enumerate().filter(|(_, p)| p.group == id) {
            for (k, slot) in param.slots.iter().enumerate() {
                let compute = spec.compute_dtype(Some(param.dtype));
                let len = param.slot_len(&*spec.rule, k, compute);
                if len == slot.len() {
                    continue;
                }
                if param.is_initialized && !slot.is_empty() {
                    let expected = "arguments that keep every initialized state slot";
                    return Err(Error::InvalidArgument { argument: "args", expected }.into());
                }
                let mut slot = Buffer::new(spec.slot_format(k, &param.shape, param.dtype), len)?;
                if let SlotInit::Constant(x) = spec.rule.slot_init(k) {
                    slot.data_mut().fill(x);
                }
                slots.push((i, k, slot));
            }
        }
        Ok(Changed { spec, slots })
    }

    #[inline]
    fn apply_change(&mut self, id: GroupId, changed: Changed) {
        for (i, k, slot) in changed.slots {
            if let Some(old) = self.params.get_mut(i).and_then(|p| p.slots.get_mut(k)) {
                *old = slot;
            }
        }
        if let Some(group) = self.groups.get_mut(id.0) {
            group.spec = changed.spec;
        }
    }
}

/// Pending changes of a group.
struct Changed {
    spec: OptimizerSpec,
    /// Index of the parameter, index of the slot, and its new buffer.
    slots: Vec<(usize, usize, Buffer)>,
}

const NO_GROUP: Error = Error::InvalidArgument { argument: "group", expected: "the id of a group" };

/// The argument that sets a rule's momentum to m: the first of `betas`, else `momentum`. Other names, such as `beta1`,
/// are not found, as in the reference.
#[inline]
fn momentum(spec: &OptimizerSpec, m: f64) -> Result<Args, ArgError> {
    let mut rule = spec.rule.clone();
    let all = Args::of(rule.hyper_params());
    match (all.get("betas"), all.get("momentum")) {
        (Some(Value::List(betas)), _) if all.get("beta1").is_none() => {
            let mut betas = betas.clone();
            if let Some(first) = betas.first_mut() {
                *first = Value::Float(m);
            }
            Ok(Args::new().with("betas", Value::List(betas)))
        }
        (_, Some(_)) => Ok(Args::new().with("momentum", m)),
        _ => Err(ArgError::Value {
            argument: "cycle_momentum".to_string(),
            value: Value::Bool(true),
            expected: "False, as the rule has neither `betas` nor `momentum`".to_string(),
        }),
    }
}
