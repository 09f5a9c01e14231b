//! A place for parameters whose step is made in numbers that know how far off they may be.

use std::collections::BTreeMap;

use bitstep::optimizer::{Buffer, Turn};
use bitstep::real::{Dtype, Number};
use bitstep::rule::Start;
use half::{bf16, f16};

use super::number::half_ulp;
use super::rule::{self, Answer, Answers, Task};
use super::Tolerances;
use crate::backend::{Refused, failed};
use crate::host::{AtHome, Home};

/// Parameters in the host's own memory, and what is known of their latest step.
#[derive(Default)]
pub(super) struct Following {
    home: Home,
    tolerances: Tolerances,
}

impl Following {
    pub(super) fn tolerances(&self) -> Tolerances {
        self.tolerances.clone()
    }
}

/// How far apart two correct answers may be once they are stored in this type.
fn stored(dtype: Dtype, x: Answer) -> f64 {
    fn on_grid<T: Number>(x: Answer) -> f64 {
        let [low, high] = [-1.0, 1.0].map(|way| T::from_f64(x.value + way * x.tolerance).to_f64());
        let most = x.tolerance + 2.0 * half_ulp(T::DTYPE, x.value.abs() + x.tolerance);
        if (high - low).is_nan() { most } else { most.min(high - low) }
    }
    match dtype {
        _ if x.tolerance == 0.0 => 0.0,
        Dtype::F64 => on_grid::<f64>(x),
        Dtype::F32 => on_grid::<f32>(x),
        Dtype::Bf16 => on_grid::<bf16>(x),
        Dtype::F16 => on_grid::<f16>(x),
    }
}

/// How much two correct norms over all gradients may differ, as a part of them: two that are added up in any order
/// in `f32`, the squares half as far off as their sum; and each tensor's own norm rounded to its type.
fn norm_error(grads: &[Option<Buffer>]) -> f64 {
    let all = || grads.iter().flatten();
    let n = all().map(Buffer::len).sum::<usize>() + all().count();
    let narrow = all().filter_map(|grad| grad.data()).map(|data| half_ulp(data.dtype(), 1.0));
    let narrow = narrow.filter(|&ulp| ulp > half_ulp(Dtype::F32, 1.0)).fold(0.0, f64::max);
    (n as f64 + 6.0) * half_ulp(Dtype::F32, 1.0) + 2.0 * narrow
}

fn follow(turn: &mut Turn<'_>, param: &Buffer, grad: &Buffer, norm_error: f64) -> Option<Answers> {
    if turn.companion.is_some() || turn.noise.is_some() {
        return None;
    }
    let dtype = param.data()?.dtype();
    let rule = turn.rule;
    if turn.step.first {
        for (k, slot) in turn.slots.iter_mut().enumerate().filter(|(_, slot)| !slot.is_empty()) {
            if rule.slot_start(k) == Start::Parameter {
                let mut param = param.clone();
                slot.data_mut().copy_from_mut(&param.data_mut());
            }
        }
    }
    let mut task = Task {
        compute: turn.arithmetic.compute(Some(dtype)),
        step: turn.step,
        scalars: turn.scalars.get(),
        param,
        grad,
        slots: turn.slots,
        norm_error,
    };
    rule::step(rule, &mut task)
}

impl AtHome for Following {
    fn home(&self) -> &Home {
        &self.home
    }

    fn home_mut(&mut self) -> &mut Home {
        &mut self.home
    }

    fn step(&mut self, grads: &[Option<Buffer>], given: &[(&str, f64)]) -> Result<(), Refused> {
        let Home { optimizer, values } = &mut self.home;
        let dtype = |buffer: &Buffer| buffer.data().map(|data| data.dtype());
        let types = values.iter().zip(grads).map(|(value, grad)| {
            Some([dtype(value)?, dtype(grad.as_ref()?)?])
        });
        let types: Vec<_> = types.collect();
        let datas: Vec<_> = grads.iter().flatten().filter_map(Buffer::data).collect();
        let error = norm_error(grads);
        let turns = optimizer.turns(&types, given, |rule, scale| rule.grad_norm(&datas, scale));
        self.tolerances.clear();
        for (i, mut turn) in turns.map_err(failed)? {
            let Some(grad) = &grads[i] else { continue };
            let Some(answers) = follow(&mut turn, &values[i], grad, error) else { continue };
            let mut rows = BTreeMap::<String, Vec<f64>>::new();
            let slots = turn.rule.info().slots.iter().zip(&*turn.slots);
            let slots = slots.map(|(name, slot)| (format!("p{i}.state.{name}"), slot));
            let all = std::iter::once((format!("p{i}.value"), &values[i])).chain(slots);
            for ((name, buffer), answers) in all.zip(&answers) {
                let Some(dtype) = dtype(buffer) else { continue };
                let tolerances = answers.iter().map(|&x| stored(dtype, x));
                rows.entry(name).or_default().extend(tolerances);
            }
            self.tolerances.append(&mut rows);
        }
        Ok(())
    }
}
