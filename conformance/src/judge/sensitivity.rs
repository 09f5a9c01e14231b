//! The sensitivity of an answer to the last bits of its inputs.
//!
//! Where a rule subtracts values that nearly cancel (g + weight_decay · p, or a mean of squares less a squared
//! mean), one rounding more or less in the reference changes the result by many ULP of the small difference. All
//! that a correct implementation can promise there is the answer for inputs that are a few ULP off. This module
//! measures that: it perturbs every input in turn by one ULP, away from zero, and has the core compute again. It
//! is always the core: no tolerance depends on the backend under test. An optimizer that the core lacks gets no
//! such allowance.

use std::collections::BTreeMap;

use crate::Core;
use crate::backend::{Backend, BackendError, Counts, Inputs, OptimizerSpec, Run};
use crate::golden::{Case, OptimizerCase};
use crate::tensor::Tensor;

/// For each tensor, the value of each element.
type TensorValues = BTreeMap<String, Vec<f64>>;

/// For each tensor, the sensitivity of each element.
pub(crate) type Sensitivity = TensorValues;

/// The input that is perturbed by one ULP.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Perturbed {
    Nothing,
    Value,
    Grad,
    Slot(String),
}

/// The sensitivities of one step from the reference's own state.
pub(crate) fn of_step(case: &Case, data: &OptimizerCase, t: usize) -> Sensitivity {
    let answer = |perturbed: &Perturbed| -> Result<TensorValues, BackendError> {
        let mut run = start(case, data, t, perturbed)?;
        run.step(&inputs(data, t, perturbed))?;
        Ok(answers(&*run, data.params.len()))
    };
    let slots = data.params.iter().flat_map(|p| p.state_before(t).into_keys());
    let [mut sum] = differences(&variants(slots), |perturbed| Ok([answer(perturbed)?]));
    sum.retain(|_, x| x.iter().any(|&x| x > 0.0));
    sum
}

/// The sensitivities of a free run, after each step.
pub(crate) fn of_run(case: &Case, data: &OptimizerCase) -> Vec<Sensitivity> {
    let answer = |perturbed: &Perturbed| -> Result<Vec<TensorValues>, BackendError> {
        let mut run = start(case, data, 0, perturbed)?;
        let step = |t| {
            run.step(&inputs(data, t, perturbed))?;
            Ok(answers(&*run, data.params.len()))
        };
        (0..case.steps).map(step).collect()
    };
    let slots = data.params.iter().flat_map(|p| p.state0.keys().cloned());
    differences(&variants(slots), answer)
}

fn variants(slots: impl Iterator<Item = String>) -> Vec<Perturbed> {
    let slots: std::collections::BTreeSet<String> = slots.collect();
    [Perturbed::Value, Perturbed::Grad]
        .into_iter()
        .chain(slots.into_iter().map(Perturbed::Slot))
        .collect()
}

/// Σ |perturbed − unperturbed| over the variants; empty where the core gives no answer.
fn differences<C>(
    variants: &[Perturbed],
    answer: impl Fn(&Perturbed) -> Result<C, BackendError>,
) -> C
where
    C: Default + AsMut<[TensorValues]>,
{
    let Ok(mut base) = answer(&Perturbed::Nothing) else { return C::default() };
    let mut sums: Vec<Sensitivity> = Vec::new();
    for perturbed in variants {
        let Ok(mut other) = answer(perturbed) else { continue };
        sums.resize(other.as_mut().len(), Sensitivity::new());
        for ((sum, a), b) in sums.iter_mut().zip(base.as_mut()).zip(other.as_mut()) {
            for (tensor, b) in b.iter() {
                let Some(a) = a.get(tensor) else { continue };
                let sum = sum.entry(tensor.clone()).or_insert_with(|| vec![0.0; b.len()]);
                for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
                    let d = (a - b).abs();
                    *sum += if d.is_finite() { d } else { 0.0 };
                }
            }
        }
    }
    for (slot, sum) in base.as_mut().iter_mut().zip(sums) {
        *slot = sum;
    }
    base
}

/// A run before step `t`, in the reference's own state except for the perturbed input.
fn start(
    case: &Case,
    data: &OptimizerCase,
    t: usize,
    perturbed: &Perturbed,
) -> Result<Box<dyn Run>, BackendError> {
    let shift = |x: Tensor, this: bool| if this { away_from_zero(&x) } else { x };
    let values =
        data.params.iter().map(|p| shift(p.value_before(t), *perturbed == Perturbed::Value));
    let values: Vec<Tensor> = values.collect();
    let mut spec = OptimizerSpec::new(case, data);
    if t == 0 {
        spec.params = values.iter().collect();
    }
    let core: &'static Core = &Core;
    let mut run = core.optimizer(&spec)?;
    for (i, p) in data.params.iter().enumerate() {
        let state = p.state_before(t).into_iter();
        let state: BTreeMap<_, _> = state
            .map(|(slot, x)| {
                let this = matches!(perturbed, Perturbed::Slot(s) if *s == slot);
                (slot, shift(x, this))
            })
            .collect();
        if t == 0 && state.is_empty() {
            continue;
        }
        let counts = Counts { updates: p.updates_before(t) as u64, steps: t as u64 };
        match run.load(i, &values[i], &state, counts) {
            Err(BackendError::NeedsState(_)) => {}
            other => other?,
        }
    }
    Ok(run)
}

fn inputs(data: &OptimizerCase, t: usize, perturbed: &Perturbed) -> Inputs {
    let mut inputs = Inputs::new(data, t);
    if *perturbed == Perturbed::Grad {
        inputs.grads.iter_mut().flatten().for_each(|g| *g = away_from_zero(g));
    }
    inputs
}

fn answers(run: &dyn Run, params: usize) -> TensorValues {
    let mut out = TensorValues::new();
    for i in 0..params {
        out.insert(format!("p{i}.value"), run.value(i).to_f64s());
        out.extend(run.eval(i).map(|x| (format!("p{i}.eval"), x.to_f64s())));
        let state = run.state(i).into_iter();
        out.extend(state.map(|(slot, x)| (format!("p{i}.state.{slot}"), x.to_f64s())));
    }
    out
}

/// Every element one ULP further from zero, except zeros, the largest finite values and the non-finite.
fn away_from_zero(x: &Tensor) -> Tensor {
    let mut out = x.clone();
    if x.dtype.float().is_none() {
        return out;
    }
    let size = x.dtype.size();
    for i in 0..x.len() {
        let next = (x.bits(i) + 1).to_le_bytes();
        let old = x.bytes[i * size..(i + 1) * size].to_vec();
        out.bytes[i * size..(i + 1) * size].copy_from_slice(&next[..size]);
        if x.get(i) == 0.0 || !x.get(i).is_finite() || !out.get(i).is_finite() {
            out.bytes[i * size..(i + 1) * size].copy_from_slice(&old);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    #[test]
    fn away_moves_by_one_ulp_and_leaves_the_special() {
        let x = [1.0, -1.0, 0.0, f64::NAN, f64::INFINITY, f64::from(f32::MAX)];
        let moved = away_from_zero(&Tensor::round(Dtype::F32, &[6], &x).unwrap()).to_f64s();
        assert_eq!(moved[0], f64::from(1f32.next_up()));
        assert_eq!(moved[1], -moved[0]);
        assert_eq!(moved[2], 0.0);
        assert!(moved[3].is_nan());
        assert_eq!(moved[4..], x[4..]);
    }
}
