//! A backend whose steps are made in bounded arithmetic, to derive tolerances.

use std::collections::BTreeMap;

use bitstep::float::{Dtype, StoredFloat};
use bitstep::optimizer::{Buffer, PreparedStep};
use bitstep::rule::ComputePolicy;
use bitstep::rule::SlotInit;

use super::follow::{Answer, Held, Task};
use super::number::half_ulp;
use super::rule;
use crate::backend::host::{HostBackend, HostParams};
use crate::backend::{BackendError, failed};

/// For each tensor, how far apart two correct answers may be in each element.
pub(crate) type Tolerances = BTreeMap<String, Vec<f64>>;

/// Parameters in host memory, with their error bounds.
#[derive(Default)]
pub(super) struct Following {
    params: HostParams,
    known: BTreeMap<usize, Known>,
}

/// The error bounds of a parameter after its latest step: of its value, then of each slot.
#[derive(Default)]
struct Known {
    names: Vec<String>,
    /// How far apart two correct values may be.
    tolerances: Vec<Vec<f64>>,
    /// The error bound of each value: half its tolerance.
    errors: Vec<Vec<f64>>,
    /// Whether there are no bounds after its next step.
    is_untracked: bool,
}

impl Following {
    /// How far apart two correct answers may be after the latest step.
    pub(super) fn tolerances(&self) -> Tolerances {
        let mut all = Tolerances::new();
        for known in self.known.values() {
            for (name, x) in known.names.iter().zip(&known.tolerances) {
                // Slots of one name are one tensor of the reference, concatenated.
                all.entry(name.clone()).or_default().extend(x);
            }
        }
        all
    }
}

/// How far apart two correct answers may be once they are stored in this type.
fn stored<T: StoredFloat>(x: Answer) -> f64 {
    if x.tolerance == 0.0 {
        return 0.0;
    }
    let [low, high] = [-1.0, 1.0].map(|way| T::from_f64(x.value + way * x.tolerance).to_f64());
    let widest = x.tolerance + 2.0 * half_ulp(T::DTYPE, x.value.abs() + x.tolerance);
    if (high - low).is_nan() { widest } else { widest.min(high - low) }
}

/// How much two correct norms over all gradients may differ, relative to the norm: the squares may be summed in any
/// order in `f32` (the root halves a sum's relative error), and each tensor's own norm is rounded to its type.
fn norm_error(grads: &[Option<Buffer>]) -> f64 {
    let all = || grads.iter().flatten();
    let n = all().map(Buffer::len).sum::<usize>() + all().count();
    let narrow = all().filter_map(|grad| grad.data()).map(|data| half_ulp(data.dtype(), 1.0));
    let narrow = narrow.filter(|&ulp| ulp > half_ulp(Dtype::F32, 1.0)).fold(0.0, f64::max);
    (n as f64 + 6.0) * half_ulp(Dtype::F32, 1.0) + 2.0 * narrow
}

/// Whether a parameter's step can be tracked. A correction beside a 16-bit parameter and stochastic rounding are
/// outside the rule. Where state of several types is computed in `f64`, the constants have fewer bits.
fn can_be_followed(prepared: &PreparedStep<'_>, compute: Dtype) -> bool {
    let dtypes = prepared.slots.iter().filter(|slot| !slot.is_empty()).filter_map(Buffer::data);
    let narrower = || dtypes.map(|data| data.dtype()).any(|dtype| dtype != Dtype::F64);
    let is_mixed = prepared.policy == ComputePolicy::Double || compute == Dtype::F64 && narrower();
    prepared.correction.is_none() && prepared.rounding_bits.is_none() && !is_mixed
}

/// Initializes the slots that start as a copy of the parameter.
pub(super) fn start(prepared: &mut PreparedStep<'_>, param: &Buffer) {
    for (k, slot) in prepared.slots.iter_mut().enumerate().filter(|(_, slot)| !slot.is_empty()) {
        if prepared.rule.slot_init(k) == SlotInit::CopyParam {
            slot.data_mut().copy_from_mut(&param.clone().data_mut());
        }
    }
}

/// Writes the values after a step, and returns how far apart two correct ones may be. Codes are not written.
fn write(to: &mut Buffer, answers: &[Answer]) -> Vec<f64> {
    fn plain<T: StoredFloat>(to: &mut [T], answers: &[Answer]) -> Vec<f64> {
        to.iter_mut().zip(answers).for_each(|(to, x)| *to = T::from_f64(x.value));
        answers.iter().map(|&x| stored::<T>(x)).collect()
    }
    match to {
        Buffer::F64(to) => plain(to, answers),
        Buffer::F32(to) => plain(to, answers),
        Buffer::Bf16(to) => plain(to, answers),
        Buffer::F16(to) => plain(to, answers),
        Buffer::Encoded(_) => Vec::new(),
    }
}

impl HostBackend for Following {
    fn params(&self) -> &HostParams {
        &self.params
    }

    fn params_mut(&mut self) -> &mut HostParams {
        &mut self.params
    }

    fn step(
        &mut self,
        grads: &[Option<Buffer>],
        extra: &[(&str, f64)],
    ) -> Result<(), BackendError> {
        let HostParams { optimizer, values } = &mut self.params;
        let dtype = |buffer: &Buffer| buffer.data().map(|data| data.dtype());
        let types = values
            .iter()
            .zip(grads)
            .map(|(value, grad)| Some([dtype(value)?, dtype(grad.as_ref()?)?]));
        let types: Vec<_> = types.collect();
        let grad_data: Vec<_> = grads.iter().flatten().filter_map(Buffer::data).collect();
        let norm_error = norm_error(grads);
        let prepared_steps =
            optimizer.prepare_all(&types, extra, |rule, scale| rule.grad_norm(&grad_data, scale));
        for (i, mut prepared) in prepared_steps.map_err(failed)? {
            let (Some(grad), Some([dtype, _])) = (&grads[i.0], types[i.0]) else { continue };
            let known = self.known.entry(i.0).or_default();
            let compute = prepared.policy.compute(Some(dtype));
            if known.is_untracked || !can_be_followed(&prepared, compute) {
                *known = Known { is_untracked: true, ..Known::default() };
                continue;
            }
            if prepared.step.is_first {
                start(&mut prepared, &values[i.0]);
            }
            let errors = |k: usize| known.errors.get(k).map_or(&[][..], |x| x);
            let held = |(k, values)| Held { values, errors: errors(k) };
            let slots: Vec<_> = (1..).zip(&*prepared.slots).map(held).collect();
            let task = &mut Task {
                compute,
                step: prepared.step,
                scalars: prepared.scalars.get(),
                param: held((0, &values[i.0])),
                grad: Held { values: grad, errors: &[] },
                slots: &slots,
                norm_error,
            };
            let Some(answers) = rule::step(prepared.rule, task) else {
                *known = Known { is_untracked: true, ..Known::default() };
                continue;
            };
            let all = std::iter::once(&mut values[i.0]).chain(prepared.slots.iter_mut());
            let tolerances: Vec<_> = all.zip(&answers).map(|(to, x)| write(to, x)).collect();
            known.names = std::iter::once(format!("p{}.value", i.0))
                .chain(
                    prepared.rule.info().slots.iter().map(|name| format!("p{}.state.{name}", i.0)),
                )
                .collect();
            // Codes may differ from the reference's from here on: nothing can be derived.
            known.is_untracked = prepared
                .slots
                .iter()
                .any(|slot| matches!(slot, Buffer::Encoded(_)) && !slot.is_empty());
            known.errors = tolerances.iter().map(|x| x.iter().map(|x| x / 2.0).collect()).collect();
            known.tolerances = tolerances;
        }
        Ok(())
    }
}
