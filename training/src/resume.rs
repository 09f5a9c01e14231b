//! Going on from a run that was begun with the reference.
//!
//! The reference keeps optimizer state under its own keys; rules declare their slots under the
//! same ones, so no table is needed. How the numbers are read from a file is not known here.

use std::collections::BTreeMap;

use bitstep::args::{ArgError, Args, names};
use bitstep::mode::Mode;
use bitstep::optimizer::{Buffer, Optimizer};
use bitstep::real::Number;
use bitstep::rule::Counter;
use bitstep::schedule::{PlateauState, Scheduler};
use bitstep::storage::DataMut;
use thiserror::Error;

/// Why a reference's run can't be gone on with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// Not the same number of something.
    #[error("{what}: {saved} in the checkpoint, {here} here")]
    Count {
        /// What is counted.
        what: String,
        /// In the checkpoint.
        saved: usize,
        /// Here.
        here: usize,
    },
    /// Something that the next step depends on is missing.
    #[error("{of}: no `{key}` in the checkpoint")]
    Missing {
        /// Whose it is.
        of: String,
        /// Its key.
        key: String,
    },
    /// State that does not rest in memory as plain numbers.
    #[error("parameter {0}: its state is not plain numbers, which can't be taken over")]
    Coded(usize),
    /// A hyper-parameter that is refused.
    #[error(transparent)]
    Argument(#[from] ArgError),
    /// A state that is refused.
    #[error(transparent)]
    Core(#[from] bitstep::Error),
}

/// A reference's optimizer: what `optimizer.state_dict()` holds.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// For each parameter, numbered group by group as the reference does it, the numbers under
    /// each key; nothing for one that has had no gradient.
    pub params: Vec<BTreeMap<String, Vec<f64>>>,
    /// For each group, how many parameters it has, and its arguments and counters.
    pub groups: Vec<(usize, Args)>,
}

/// Puts the reference's state into an optimizer with the same groups. `order` says which
/// parameter here each of the reference's is. Hyper-parameters are the checkpoint's then, as
/// with the reference.
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

    for (number, ((_, saved), group)) in from.groups.iter().zip(next.groups_mut()).enumerate() {
        let known = names(group.recipe.rule.hyper());
        let hyper = saved.iter().filter(|(name, _)| *name != "lr" && known.contains(name));
        let hyper = hyper.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        group.recipe = group.recipe.with(&hyper)?;
        let missing = || ResumeError::Missing { of: format!("group {number}"), key: "lr".into() };
        group.lr = saved.get("lr").and_then(|v| v.as_f64()).ok_or_else(missing)?;
    }

    let mut first = 0;
    for (number, (count, saved)) in from.groups.iter().enumerate() {
        let members = first..first + count;
        first += count;
        let here = next.params().iter().filter(|p| p.group == number).count();
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
    // Schedule-free says which of its two faces the parameters show.
    let eval = from
        .groups
        .iter()
        .any(|(_, g)| g.get("train_mode").and_then(|v| v.as_bool()) == Some(false));
    next.restore_mode(if eval { Mode::Eval } else { Mode::Train });
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
    let of = || format!("parameter {i}");
    let missing = |key: &str| ResumeError::Missing { of: of(), key: key.to_owned() };
    let here = next.params().get(i).map(|p| p.group);
    if here != Some(group) {
        let what = format!("group of parameter {i}");
        return Err(ResumeError::Count { what, saved: group, here: here.unwrap_or(usize::MAX) });
    }
    let rule = next.groups()[group].recipe.rule.clone();
    // Of the parameter, or of its whole group.
    let number = |key: &str| {
        let own = state.get(key).and_then(|x| x.first()).copied();
        own.or_else(|| shared.get(key).and_then(|v| v.as_f64()))
    };
    let started = !state.is_empty();
    let steps = number(rule.step_key());
    let mut scalars = rule.scalars();
    for (name, scalar) in rule.scalar_names().iter().zip(&mut scalars) {
        match number(name) {
            Some(x) => *scalar = x,
            None if started => return Err(missing(name)),
            None => {}
        }
    }
    if let Some(steps) = steps.filter(|_| rule.counter() == Counter::Group) {
        next.groups_mut()[group].steps = steps as u64;
    }
    if rule.scalar_owner() == Counter::Group {
        next.groups_mut()[group].scalars = scalars;
    }
    let param = &mut next.params_mut()[i];
    if rule.scalar_owner() == Counter::Parameter {
        param.scalars = scalars;
    }
    if param.companion.is_some() || param.slots.iter().any(|s| matches!(s, Buffer::Coded(_))) {
        return Err(ResumeError::Coded(i));
    }
    if !started {
        return Ok(());
    }
    // A rule without a counter of its own (plain momentum) has begun if it has any state.
    param.steps = steps.unwrap_or(1.0) as u64;
    param.started = true;
    for (name, slot) in rule.slot_names().iter().zip(&mut param.slots) {
        if slot.is_empty() {
            continue;
        }
        let numbers = state.get(*name).ok_or_else(|| missing(name))?;
        if numbers.len() != slot.len() {
            let what = format!("numbers in `{name}` of parameter {i}");
            return Err(ResumeError::Count { what, saved: numbers.len(), here: slot.len() });
        }
        write(&mut slot.data_mut(), numbers);
    }
    Ok(())
}

fn write(to: &mut DataMut<'_>, numbers: &[f64]) {
    fn all<T: Number>(to: &mut [T], numbers: &[f64]) {
        to.iter_mut().zip(numbers).for_each(|(x, &n)| *x = T::from_f64(n));
    }
    match to {
        DataMut::F64(x) => all(x, numbers),
        DataMut::F32(x) => all(x, numbers),
        DataMut::Bf16(x) => all(x, numbers),
        DataMut::F16(x) => all(x, numbers),
        DataMut::Coded(_) => {}
    }
}

/// Puts the reference's schedule into a scheduler of the same kind: what
/// `scheduler.state_dict()` holds.
///
/// # Errors
/// [`ResumeError`]; nothing has changed then.
pub fn scheduler(to: &mut Scheduler, from: &Args) -> Result<(), ResumeError> {
    let missing = |key: &str| ResumeError::Missing { of: "schedule".into(), key: key.into() };
    let count = |key: &str| from.get(key).and_then(|v| v.as_u64()).ok_or_else(|| missing(key));
    let mut state = to.state().clone();
    state.step = count("last_epoch")?;
    let lrs = from.get("_last_lr").and_then(|v| v.as_list()).ok_or_else(|| missing("_last_lr"))?;
    let lrs = lrs.iter().map(|v| v.as_f64()).collect::<Option<Vec<_>>>();
    state.lrs = lrs.ok_or_else(|| missing("_last_lr"))?;
    if state.plateau.is_some() {
        let best = from.get("best").and_then(|v| v.as_f64()).ok_or_else(|| missing("best"))?;
        state.plateau = Some(PlateauState {
            best,
            num_bad_epochs: count("num_bad_epochs")?,
            cooldown_counter: count("cooldown_counter")?,
        });
    }
    if state.greedy.is_some() {
        return Err(missing("a state of this schedule that can be taken over"));
    }
    to.restore(state)?;
    Ok(())
}
