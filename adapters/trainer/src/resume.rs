//! Resuming a run that was started with the reference in Python.
//!
//! Rules declare their slots under the reference's own state keys, so no table is needed.
//! [`torch`](crate::torch) reads the files.

mod arguments;
mod error;
mod schedule;
mod slots;

use std::collections::BTreeMap;

use bitstep::gradient::LossScale;
use bitstep::hyper::Args;
use bitstep::optimizer::{GroupId, Optimizer};
use bitstep::rule::Scope;
use bitstep::rule::mode::Mode;
use bitstep::schedule::Scheduler;

pub use error::ResumeError;
pub use schedule::scheduler;

/// The state of a reference's optimizer: the contents of `optimizer.state_dict()`.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// For each parameter, numbered group by group as in the reference, the values under each key,
    /// including those of a nested dictionary (bitsandbytes' `__bnb_optimizer_quant_state__`). Empty
    /// for a parameter that has had no gradient.
    pub params: Vec<BTreeMap<String, Vec<f64>>>,
    /// For each group, its number of parameters, and its arguments and counters.
    pub groups: Vec<(usize, Args)>,
}

/// Loads the reference's state into an optimizer with the same groups. `order` is the index here of
/// each of the reference's parameters.
///
/// As with the reference, all hyper-parameters of the groups are loaded too: learning rate, `betas`,
/// `weight_decay` and the rest. As torch does on loading, state is rounded to the type of its
/// parameter if it was stored in a wider one (Adafactor's with 16-bit parameters), except for
/// bitsandbytes, which has its own loader.
///
/// # Errors
/// [`ResumeError`]; nothing has changed then.
pub fn optimizer(to: &mut Optimizer, order: &[usize], from: &State) -> Result<(), ResumeError> {
    let same = |what: &str, saved: usize, here: usize| match saved == here {
        true => Ok(()),
        false => Err(ResumeError::Count { what: what.to_owned(), saved, here }),
    };
    same("groups", from.groups.len(), to.groups().len())?;
    same("parameters", from.params.len(), to.params().len())?;
    same("parameters", order.len(), to.params().len())?;
    let mut next = to.clone();

    for (number, (_, saved)) in from.groups.iter().enumerate() {
        let hyper = arguments::of_group(next.groups_mut()[number].spec.rule.hyper_params(), saved);
        next.set_args(GroupId(number), &hyper)?;
        let missing = || ResumeError::Missing { of: format!("group {number}"), key: "lr".into() };
        let lr = saved.get("lr").and_then(|v| v.as_f64()).ok_or_else(missing)?;
        next.groups_mut()[number].lr = lr;
    }

    let mut first = 0;
    for (number, (count, saved)) in from.groups.iter().enumerate() {
        let members = first..first + count;
        first += count;
        let here = next.params().iter().filter(|p| p.group == GroupId(number)).count();
        same(&format!("parameters of group {number}"), *count, here)?;
        for position in members {
            let (Some(&i), Some(state)) = (order.get(position), from.params.get(position)) else {
                return Err(ResumeError::Count {
                    what: "parameters".to_owned(),
                    saved: position + 1,
                    here: order.len(),
                });
            };
            parameter(&mut next, i, number, state, saved)?;
        }
    }
    // Schedule-free optimizers store whether the parameters are the training or evaluation values.
    let eval = from
        .groups
        .iter()
        .any(|(_, g)| g.get("train_mode").and_then(|v| v.as_bool()) == Some(false));
    next.restore_mode(if eval { Mode::Eval } else { Mode::Train });
    *to = next;
    Ok(())
}

/// Loads an optimizer and the schedule of all its groups, as Trainer does. The learning rates are those
/// of the optimizer's state, except with GreedyLR, which has its own.
///
/// # Errors
/// [`ResumeError`]; nothing has changed then.
pub fn run(
    to: &mut Optimizer,
    order: &[usize],
    from: &State,
    schedule: &mut Scheduler,
    schedule_from: &Args,
) -> Result<(), ResumeError> {
    let mut next = to.clone();
    optimizer(&mut next, order, from)?;
    scheduler(schedule, schedule_from)?;
    if schedule.state().greedy.is_some() {
        next.groups_mut().iter_mut().zip(schedule.lrs()).for_each(|(g, &lr)| g.lr = lr);
    }
    let lrs: Vec<f64> = next.groups().iter().map(|g| g.lr).collect();
    schedule.set_lrs(&lrs)?;
    *to = next;
    Ok(())
}

/// Loads the reference's loss scale (`torch.amp.GradScaler.state_dict()`).
///
/// # Errors
/// [`ResumeError`], also for the empty dictionary of a disabled one; nothing has changed then.
pub fn loss_scale(to: &mut LossScale, from: &Args) -> Result<(), ResumeError> {
    let missing = |key: &str| ResumeError::Missing { of: "loss scale".into(), key: key.into() };
    let number = |key: &str| from.get(key).and_then(|v| v.as_f64()).ok_or_else(|| missing(key));
    let count = |key: &str| from.get(key).and_then(|v| v.as_u64()).ok_or_else(|| missing(key));
    let next = LossScale {
        scale: number("scale")?,
        growth_factor: number("growth_factor")?,
        backoff_factor: number("backoff_factor")?,
        growth_interval: count("growth_interval")?,
        good_steps: count("_growth_tracker")?,
    };
    next.check()?;
    *to = next;
    Ok(())
}

fn parameter(
    next: &mut Optimizer,
    i: usize,
    group: usize,
    state: &BTreeMap<String, Vec<f64>>,
    shared: &Args,
) -> Result<(), ResumeError> {
    let missing =
        |key: &str| ResumeError::Missing { of: format!("parameter {i}"), key: key.to_owned() };
    let here = next.params().get(i).map(|p| p.group);
    if here != Some(GroupId(group)) {
        let what = format!("group of parameter {i}");
        return Err(ResumeError::Count {
            what,
            saved: group,
            here: here.unwrap_or(GroupId(usize::MAX)).0,
        });
    }
    let rule = next.groups()[group].spec.rule.clone();
    // From the parameter, or else from its group.
    let number = |key: &str| {
        let own = state.get(key).and_then(|x| x.first()).copied();
        own.or_else(|| shared.get(key).and_then(|v| v.as_f64()))
    };
    let started = !state.is_empty();
    let steps = number(rule.info().step_key);
    let mut scalars = rule.initial_scalars(0);
    for (name, scalar) in rule.info().scalar_names.iter().zip(&mut scalars) {
        match number(name) {
            Some(x) => *scalar = x,
            None if started => return Err(missing(name)),
            None => {}
        }
    }
    if let Some(steps) = steps.filter(|_| rule.info().step_scope == Scope::Group) {
        next.groups_mut()[group].steps = steps as u64;
    }
    if rule.info().scalar_scope == Scope::Group {
        next.groups_mut()[group].scalars = scalars;
    }
    let param = &mut next.params_mut()[i];
    if rule.info().scalar_scope == Scope::Parameter {
        param.scalars = scalars;
    }
    if !started {
        return Ok(());
    }
    // A rule without a counter (SGD's momentum) has started if it has any state.
    param.steps = steps.unwrap_or(1.0) as u64;
    param.is_initialized = true;
    slots::fill(i, param, rule.info().slots, state)
}
