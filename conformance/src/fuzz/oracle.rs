//! The core as the oracle: fills in the answers of a case that has only inputs.

use std::collections::{BTreeMap, BTreeSet};

use super::template::Slots;
use crate::Core;
use crate::backend::{
    Backend, BackendError, Counts, GradientSpec, Inputs, OptimizerSpec, ScheduleSpec,
};
use crate::golden::{Case, Data, Given, OptimizerCase, ParamCase};
use crate::tensor::{Dtype, Tensor};
use crate::{convert, fresh};

/// `reference` in a case whose answers are the core's.
pub const ORACLE: &str = concat!("bitstep-core ", env!("CARGO_PKG_VERSION"));

/// Whether a slot holds a projection, which no backend can be expected to draw or decompose alike: the case supplies
/// it.
fn is_projection(slot: &str) -> bool {
    slot.starts_with("projector")
}

/// Who says what is right, and which state is shown.
#[derive(Clone, Copy)]
pub(crate) struct Oracle<'a> {
    /// The core, or a program that runs the references.
    pub(crate) by: &'a dyn Backend,
    /// The slots that the suite's cases have, and the types of scalars; all that the oracle shows if `None`.
    pub(crate) slots: Option<&'a Slots>,
}

/// The case with the core's answers to its inputs.
///
/// # Errors
/// The core refuses the case, or has an answer that the format does not have, such as a rate that is NaN.
pub fn answered(case: &Case) -> Result<Case, BackendError> {
    Oracle { by: &Core, slots: None }.answered(case)
}

impl Oracle<'_> {
    /// The case with the oracle's answers to its inputs.
    ///
    /// # Errors
    /// The oracle refuses the case, or has an answer that the format does not have.
    pub(crate) fn answered(&self, case: &Case) -> Result<Case, BackendError> {
        let mut new = case.clone();
        match &mut new.data {
            Data::Optimizer(data) => self.optimizer(case, data)?,
            Data::Schedule(data) => {
                data.lr = self.by.schedule(&ScheduleSpec::new(case, data))?;
                if data.lr.iter().any(|x| x.is_nan()) {
                    return Err(BackendError::Failed("a rate is NaN".to_owned()));
                }
            }
            Data::Gradient(data) => {
                let answer = self.by.gradient(&GradientSpec::new(case, data))?;
                data.tensors.iter_mut().zip(answer.outputs).for_each(|(g, out)| g.output = out);
                data.norm = answer.norm;
            }
        }
        Ok(new)
    }

    fn optimizer(&self, case: &Case, data: &mut OptimizerCase) -> Result<(), BackendError> {
        for p in &mut data.params {
            p.given.retain(|what, _| !is_projection(what));
        }
        let (rows, evals) = run(case, data, self.by)?;
        can_be_shown(data, &rows)?;
        let before = data.clone();
        let shows_eval = data.params.iter().zip(&evals).enumerate().any(|(i, (p, eval))| {
            let last = rows.last().and_then(|row| row.get(i)).map_or(&p.init, |(value, _)| value);
            eval.as_ref().is_some_and(|eval| eval != last)
        });
        for (i, (p, eval)) in data.params.iter_mut().zip(evals).enumerate() {
            let own: Vec<&Shown> = rows.iter().filter_map(|row| row.get(i)).collect();
            let values: Vec<&Tensor> = own.iter().map(|(value, _)| value).collect();
            p.value = stacked(&p.init, &values);
            p.eval = if shows_eval { eval } else { None };
            p.state = state(p, &own);
            if p.init.is_empty() && self.by.name() == Core.name() {
                // The core shows slots without elements whether they are in use or not.
                let used = slots_in_use(case, &before, i).unwrap_or_default();
                p.state.retain(|slot, _| used.contains(slot));
            }
            let projections: Vec<String> =
                p.state.keys().filter(|slot| is_projection(slot)).cloned().collect();
            for slot in projections {
                if let Some(rows) = p.state.remove(&slot) {
                    p.given.insert(slot, Given::Steps(rows));
                }
            }
            if let Some(slots) = self.slots {
                p.state = as_in_the_suite(std::mem::take(&mut p.state), slots, p.init.dtype);
            }
        }
        Ok(())
    }
}

/// Refuses runs whose state between two steps the format can't show, so that no backend could start from it.
fn can_be_shown(data: &OptimizerCase, rows: &[Vec<Shown>]) -> Result<(), BackendError> {
    let no = |why: &str| Err(BackendError::Unsupported(why.to_owned()));
    let starts_later = |p: &ParamCase| p.has_grad.first() == Some(&false);
    if data.params.iter().any(|p| starts_later(p) && !p.state0.is_empty()) {
        return no("a parameter with state from before and no gradient at the first step");
    }
    if !data.params.is_empty() && data.params.iter().all(starts_later) {
        return no(
            "no parameter has a gradient at the first step: what the group counts has no row",
        );
    }
    let is_projected = |i: usize| {
        let last = rows.last().and_then(|row| row.get(i));
        last.is_some_and(|(_, state)| state.keys().any(|slot| is_projection(slot)))
    };
    if data.params.iter().enumerate().any(|(i, p)| starts_later(p) && is_projected(i)) {
        return no("a projected parameter without a gradient at the first step");
    }
    Ok(())
}

/// State in the slots of the suite's cases, scalars in their types: the core has a counter where a reference has none,
/// and keeps in `f64` what a reference keeps in a tensor's type.
fn as_in_the_suite(
    state: BTreeMap<String, Tensor>,
    slots: &Slots,
    param: Dtype,
) -> BTreeMap<String, Tensor> {
    let known = state.into_iter().filter_map(|(slot, t)| {
        let types = slots.get(&slot)?;
        // Codes stay codes, and whole numbers whole: only the type of a number is the suite's.
        let number = |dtype: Dtype| convert::dtype(dtype).is_ok();
        let t = match types.get(&param) {
            Some(&dtype) if number(dtype) && number(t.dtype) => {
                fresh::as_type(&t, dtype).unwrap_or(t)
            }
            _ => t,
        };
        Some((slot, t))
    });
    known.collect()
}

/// A parameter's value and state.
pub(crate) type Shown = (Tensor, BTreeMap<String, Tensor>);

/// For each step, every parameter's value and state; the values for evaluation.
pub(crate) type Shows = (Vec<Vec<Shown>>, Vec<Option<Tensor>>);

/// A free run of a backend.
pub(crate) fn run(
    case: &Case,
    data: &OptimizerCase,
    backend: &dyn Backend,
) -> Result<Shows, BackendError> {
    let spec = OptimizerSpec::new(case, data);
    let mut run = backend.optimizer(&spec)?;
    for (i, p) in data.params.iter().enumerate().filter(|(_, p)| !p.state0.is_empty()) {
        run.load(i, &p.init, &p.state0, Counts::default())?;
    }
    let count = data.params.len();
    let mut rows = Vec::new();
    let inputs: Vec<Inputs> = (0..case.steps).map(|t| Inputs::new(data, t)).collect();
    run.plan(&inputs);
    for inputs in &inputs {
        run.step(inputs)?;
        rows.push((0..count).map(|i| (run.value(i), run.state(i))).collect());
    }
    let evals = (0..count).map(|i| run.eval(i)).collect();
    Ok((rows, evals))
}

/// The slots that an empty parameter would have if it had elements.
fn slots_in_use(case: &Case, data: &OptimizerCase, i: usize) -> Option<BTreeSet<String>> {
    let init = &data.params.get(i)?.init;
    let shape: Vec<usize> = init.shape.iter().map(|&d| d.max(1)).collect();
    let one = Tensor::round(init.dtype, &shape, &vec![0.0; shape.iter().product()])?;
    let mut spec = OptimizerSpec::new(case, data);
    *spec.params.get_mut(i)? = &one;
    Some(Core.optimizer(&spec).ok()?.state(i).into_keys().collect())
}

/// Rows of one type and shape under each other.
fn stacked(like: &Tensor, rows: &[&Tensor]) -> Tensor {
    let shape = [&[rows.len()], &like.shape[..]].concat();
    let bytes = rows.iter().flat_map(|t| t.bytes.iter().copied()).collect();
    Tensor { dtype: like.dtype, shape, bytes }
}

/// The slots of a parameter after each step. As in the suite's cases, a parameter whose first gradient comes later has
/// none: at some step its state does not exist yet.
fn state(p: &ParamCase, rows: &[&Shown]) -> BTreeMap<String, Tensor> {
    let Some((_, first)) = rows.first() else { return BTreeMap::new() };
    if p.state0.is_empty() && p.updates_before(1) == 0 {
        return BTreeMap::new();
    }
    let slot = |(slot, like): (&String, &Tensor)| {
        let same = |t: &&Tensor| t.dtype == like.dtype && t.shape == like.shape;
        let all = rows.iter().map(|(_, state)| state.get(slot).filter(same));
        Some((slot.clone(), stacked(like, &all.collect::<Option<Vec<&Tensor>>>()?)))
    };
    first.iter().filter_map(slot).collect()
}

/// The keys under which references store the number of steps.
pub(crate) const STEP_KEYS: [&str; 3] = ["step", "step_num", "k"];

/// The state that a parameter may start from: what the core shows of it, without projections, in the suite's types, so
/// that it is handed over as exactly as what the run itself shows. A count of steps that the suite does not show is left
/// out: after the next step nobody could say it.
pub(crate) fn start(
    shown: &Shown,
    slots: &Slots,
    counter: Option<f64>,
) -> BTreeMap<String, Tensor> {
    let param = shown.0.dtype;
    let mut state = shown.1.clone();
    state.retain(|slot, _| {
        !is_projection(slot) && (slots.contains_key(slot) || !STEP_KEYS.contains(&slot.as_str()))
    });
    state.extend(as_in_the_suite(state.clone(), slots, param));
    for key in STEP_KEYS {
        if let (Some(step), Some(counter)) = (state.get_mut(key), counter)
            && let Some(late) = fresh::as_type(&Tensor::scalar(counter), step.dtype)
            && step.len() == 1
        {
            *step = Tensor { shape: step.shape.clone(), ..late };
        }
    }
    state
}

/// The largest count of steps up to which the suite's type for it, beside a parameter of this type, holds every whole
/// number; `None` if the suite shows no count.
pub(crate) fn largest_count(slots: &Slots, param: Dtype) -> Option<f64> {
    let types = STEP_KEYS.iter().find_map(|&key| slots.get(key))?;
    let dtype = types.get(&param).copied().unwrap_or(Dtype::F64);
    // A count passes through `f64`, too.
    let bits = match dtype.float() {
        Some((precision, _)) => precision,
        None => (8 * dtype.size() as i32 - 1).min(53),
    };
    Some(2f64.powi(bits))
}
