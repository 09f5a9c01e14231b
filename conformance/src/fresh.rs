//! Cases with new random inputs, with the core as the oracle.
//!
//! A backend could look the committed answers up. It can't look these up: parameters and gradients are drawn
//! from a seed, and the core computes the answers at run time. All else stays as it is in the case: shapes,
//! types, arguments, which gradients are present, the positions of zeros, infinities and NaNs, what the
//! reference drew itself, the state that a run starts from, and the bounds. The core is a valid oracle as far as
//! it passes the case itself.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Map, Value};

use crate::Core;
use crate::backend::{
    Backend, BackendError, Counts, GradientSpec, Inputs, OptimizerSpec, ScheduleSpec,
};
use crate::golden::{Case, Data, GradientCase, OptimizerCase, ParamCase, ScheduleCase};
use crate::tensor::{Dtype, Tensor};

/// The case with other inputs and the core's answers to them.
///
/// # Errors
/// The core refuses the case.
pub fn case(case: &Case, seed: u64) -> Result<Case, BackendError> {
    let mut new = case.clone();
    // Seeded by the case's id, so that the draw does not depend on which other cases are read.
    let own = case.id.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut rng = Rng::with_seed(own);
    match &mut new.data {
        Data::Optimizer(data) => {
            for p in &mut data.params {
                p.init = redrawn(&p.init, &mut rng);
                p.grad = redrawn(&p.grad, &mut rng);
            }
            let answers = optimizer(case, data)?;
            data.params.iter_mut().zip(answers).for_each(|(p, (value, state, eval))| {
                (p.value, p.state, p.eval) = (value, state, eval);
            });
        }
        Data::Schedule(data) => schedule(case, &mut new.hyper, data, &mut rng)?,
        Data::Gradient(data) => gradient(case, data, &mut rng)?,
    }
    Ok(new)
}

/// Every element times a random factor from ½ to 2, with a random sign.
fn redrawn(t: &Tensor, rng: &mut Rng) -> Tensor {
    let mut draw = |x: f64| {
        let sign = if rng.bool() { 1.0 } else { -1.0 };
        x * sign * (1.5 * rng.f64() + 0.5)
    };
    let values: Vec<f64> = t.to_f64s().into_iter().map(&mut draw).collect();
    as_type(&Tensor::f64(&t.shape, &values), t.dtype).unwrap_or_else(|| t.clone())
}

/// The tensor converted to another type.
pub(crate) fn as_type(t: &Tensor, dtype: Dtype) -> Option<Tensor> {
    if t.dtype == dtype {
        return Some(t.clone());
    }
    if let Some(rounded) = Tensor::round(dtype, &t.shape, &t.to_f64s()) {
        return Some(rounded);
    }
    if dtype.float().is_some() {
        return None;
    }
    let bytes = t.to_f64s().into_iter().flat_map(|x| {
        let bits = if x < 0.0 { (x as i64).cast_unsigned() } else { x as u64 };
        bits.to_le_bytes().into_iter().take(dtype.size())
    });
    Some(Tensor { dtype, shape: t.shape.clone(), bytes: bytes.collect() })
}

type Answer = (Tensor, BTreeMap<String, Tensor>, Option<Tensor>);

/// A free run of the core, in the layout of the case's answers.
fn optimizer(case: &Case, data: &OptimizerCase) -> Result<Vec<Answer>, BackendError> {
    let spec = OptimizerSpec::new(case, data);
    let mut run = Core.optimizer(&spec)?;
    for (i, p) in data.params.iter().enumerate().filter(|(_, p)| !p.state0.is_empty()) {
        run.load(i, &p.init, &p.state0, Counts::default())?;
    }
    let count = data.params.len();
    let mut values = vec![Vec::new(); count];
    let mut states = vec![Vec::new(); count];
    for t in 0..case.steps {
        run.step(&Inputs::new(data, t))?;
        for i in 0..count {
            values[i].push(run.value(i));
            states[i].push(run.state(i));
        }
    }
    let answer = |(i, p): (usize, &ParamCase)| {
        let value = stacked(&p.value, |t| values[i].get(t).cloned());
        let state = p.state.iter().filter_map(|(slot, rows)| {
            // A slot that the core does not show is not asked of a backend.
            states[i].iter().any(|s| s.contains_key(slot)).then_some(())?;
            let row = |t: usize| {
                let joined = !p.state0.is_empty() || p.updates_before(t + 1) > 0;
                states[i].get(t)?.get(slot).filter(|_| joined || !rows.row(t).has_nan()).cloned()
            };
            Some((slot.clone(), stacked(rows, row)))
        });
        let eval = p.eval.as_ref().and_then(|_| run.eval(i));
        (value, state.collect(), eval)
    };
    Ok(data.params.iter().enumerate().map(answer).collect())
}

/// Rows in the type and shape of `like`; a row that is missing or of another length becomes NaN, or, in a type
/// without NaN, stays as it is in `like`.
fn stacked(like: &Tensor, row: impl Fn(usize) -> Option<Tensor>) -> Tensor {
    let mut out = Tensor { bytes: Vec::with_capacity(like.bytes.len()), ..like.clone() };
    for t in 0..like.shape.first().copied().unwrap_or(0) {
        let old = like.row(t);
        let new = row(t).filter(|new| new.len() == old.len());
        let new = new.and_then(|new| as_type(&new, like.dtype));
        let nothing = || Tensor::round(like.dtype, &old.shape, &vec![f64::NAN; old.len()]);
        out.bytes.extend(new.or_else(nothing).unwrap_or(old).bytes);
    }
    out
}

/// Redraws a schedule: multiplies the learning rates among the arguments by one random factor, and the metric by
/// another.
fn schedule(
    case: &Case,
    hyper: &mut Map<String, Value>,
    data: &mut ScheduleCase,
    rng: &mut Rng,
) -> Result<(), BackendError> {
    let factor = 1.5 * rng.f64() + 0.5;
    rates(hyper, factor);
    if let Some(metric) = &mut data.metric {
        let factor = 1.5 * rng.f64() + 0.5;
        metric.iter_mut().for_each(|x| *x *= factor);
    }
    let spec = ScheduleSpec { hyper, ..ScheduleSpec::new(case, data) };
    data.lr = Core.schedule(&spec)?;
    Ok(())
}

/// Multiplies the arguments that are learning rates by a factor.
fn rates(hyper: &mut Map<String, Value>, factor: f64) {
    for (key, value) in hyper.iter_mut() {
        match value {
            Value::Number(n) if key == "lr" => {
                if let Some(x) = n.as_f64() {
                    *value = (x * factor).into();
                }
            }
            Value::Array(list) if key == "lr" => {
                let scaled =
                    list.iter().map(|x| x.as_f64().map_or(x.clone(), |x| (x * factor).into()));
                *value = Value::Array(scaled.collect());
            }
            Value::Array(list) if key == "groups" => {
                list.iter_mut().filter_map(Value::as_object_mut).for_each(|g| rates(g, factor));
            }
            _ => {}
        }
    }
}

fn gradient(case: &Case, data: &mut GradientCase, rng: &mut Rng) -> Result<(), BackendError> {
    data.tensors.iter_mut().for_each(|g| g.input = redrawn(&g.input, rng));
    let answer = Core.gradient(&GradientSpec::new(case, data))?;
    data.tensors.iter_mut().zip(answer.outputs).for_each(|(g, out)| g.output = out);
    data.norm = data.norm.and(answer.norm);
    Ok(())
}
