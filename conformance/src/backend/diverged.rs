//! The expected step after codes have diverged: one step of the core from the backend's own state.

use std::collections::BTreeMap;

use crate::backend::core_backend::CoreRun;
use crate::backend::host::{ParamStore, Slices};
use crate::backend::{Counts, Inputs, OptimizerSpec, Run};
use crate::golden::OptimizerCase;
use crate::judge::compare;
use crate::tensor::Tensor;

/// A parameter's value and state.
pub(crate) type Shown = (Tensor, BTreeMap<String, Tensor>);

/// Value and state of every parameter.
pub(crate) fn shown(run: &dyn Run, params: usize) -> Vec<Shown> {
    (0..params).map(|i| (run.value(i), run.state(i))).collect()
}

/// The core after step `t` from these values and states; `None` where it can't be loaded with them.
pub(crate) fn step(
    spec: &OptimizerSpec<'_>,
    data: &OptimizerCase,
    before: &[Shown],
    t: usize,
) -> Option<Box<dyn Run>> {
    Some(Box::new(step_in(spec, data, before, t, Slices::default())?))
}

/// [`step`] with parameters in a store.
pub(crate) fn step_in<S: ParamStore>(
    spec: &OptimizerSpec<'_>,
    data: &OptimizerCase,
    before: &[Shown],
    t: usize,
    store: S,
) -> Option<CoreRun<S>> {
    let mut run = CoreRun::new(spec, store).ok()?;
    for (i, ((value, state), p)) in before.iter().zip(&data.params).enumerate() {
        let counts = Counts { updates: p.updates_before(t) as u64, steps: t as u64 };
        let state =
            state.iter().map(|(slot, x)| Some((slot.clone(), as_in(x, p.state.get(slot))?)));
        let state: BTreeMap<_, _> = state.collect::<Option<_>>()?;
        run.load(i, value, &state, counts).ok()?;
    }
    run.step(&Inputs::new(data, t)).ok()?;
    Some(run)
}

/// Codes converted to the type in which the reference stores them.
fn as_in(x: &Tensor, rows: Option<&Tensor>) -> Option<Tensor> {
    let Some(rows) = rows.filter(|rows| compare::is_code(rows.dtype) && rows.dtype != x.dtype)
    else {
        return Some(x.clone());
    };
    let grid = compare::code_grid(rows.dtype);
    let codes = x.to_f64s().into_iter().map(|x| Some(compare::code(&grid, x)? as u8));
    let bytes = codes.collect::<Option<_>>()?;
    Some(Tensor { dtype: rows.dtype, shape: x.shape.clone(), bytes })
}
