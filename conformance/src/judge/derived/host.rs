//! A backend whose steps are made in bounded arithmetic, to derive tolerances.

use std::collections::BTreeMap;

use bitstep::float::{Dtype, StoredFloat};
use bitstep::optimizer::{Buffer, PreparedStep};
use bitstep::rule::{ComputePolicy, ScalarState, SlotInit};
use bitstep::storage::{RawBuffer, RoundingBits, StochasticRound, StochasticRounded, Storage};

use super::encoded;
use super::follow::{Answer, Held, Task};
use super::number::{half_ulp, with_constants_in};
use super::rule;
use crate::backend::host::{HostBackend, HostParams};
use crate::backend::{BackendError, failed};

/// How far apart two correct answers may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tolerances {
    /// By how much, for each element of a tensor.
    numbers: BTreeMap<String, Vec<f64>>,
    /// The first and the last of the codes that an element may have, as raw bits.
    codes: BTreeMap<String, [Vec<u64>; 2]>,
}

impl Tolerances {
    /// Those of a tensor's numbers.
    pub(crate) fn numbers(&self, tensor: &str) -> Option<&[f64]> {
        self.numbers.get(tensor).map(|x| &x[..])
    }

    /// All numbers' tolerances.
    pub(crate) fn into_numbers(self) -> BTreeMap<String, Vec<f64>> {
        self.numbers
    }

    /// Whether a number has no bound.
    pub(crate) fn has_unbounded(&self) -> bool {
        self.numbers.values().flatten().any(|&x| x == f64::INFINITY)
    }

    /// The ends of a tensor's codes.
    pub(crate) fn codes(&self, tensor: &str) -> Option<[&[u64]; 2]> {
        self.codes.get(tensor).map(|[a, b]| [&a[..], &b[..]])
    }

    /// Whether codes of a parameter may have another's value.
    pub(crate) fn has_open_codes(&self, param: usize) -> bool {
        let start = format!("p{param}.");
        self.codes.iter().any(|(tensor, [a, b])| tensor.starts_with(&start) && a != b)
    }
}

/// Parameters in host memory, with their error bounds.
#[derive(Default)]
pub(super) struct Following {
    params: HostParams,
    known: BTreeMap<usize, Known>,
}

/// What is known of a parameter after its latest step.
#[derive(Default)]
struct Known {
    /// How far apart two correct answers may be: of its value, its slots, the parts of encoded ones, ….
    numbers: Vec<(String, Vec<f64>)>,
    codes: Vec<(String, [Vec<u64>; 2])>,
    /// The error bound of each value, as the next step loads it: of the parameter, then of each slot.
    errors: Vec<Vec<f64>>,
    scalar_errors: ScalarState,
    /// Whether there are no bounds after its next step.
    is_untracked: bool,
}

impl Following {
    /// How far apart two correct answers may be after the latest step.
    pub(super) fn tolerances(&self) -> Tolerances {
        let mut all = Tolerances::default();
        for known in self.known.values() {
            // Slots of one name are one tensor of the reference, concatenated.
            for (name, x) in &known.numbers {
                all.numbers.entry(name.clone()).or_default().extend(x);
            }
            for (name, [a, b]) in &known.codes {
                let [first, last] = all.codes.entry(name.clone()).or_default();
                first.extend(a);
                last.extend(b);
            }
        }
        all
    }
}

/// How far apart two correct answers may be once they are stored in this type.
fn stored<T: StoredFloat>(x: Answer) -> f64 {
    if x.tolerance == 0.0 || x.tolerance.is_nan() {
        return x.tolerance;
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

/// Initializes the slots that start as a copy of the parameter.
pub(super) fn start(prepared: &mut PreparedStep<'_>, param: &Buffer) {
    for (k, slot) in prepared.slots.iter_mut().enumerate().filter(|(_, slot)| !slot.is_empty()) {
        if prepared.rule.slot_init(k) == SlotInit::CopyParam {
            slot.data_mut().copy_from_mut(&param.clone().data_mut());
        }
    }
}

/// Writes 16-bit values after a step with stochastic rounding, and returns how far apart two correct ones may be: the
/// same bits round both ends.
fn write_rounded(to: &mut Buffer, bits: RoundingBits<'_>, answers: &[Answer]) -> Vec<f64> {
    fn of<N: StochasticRound>(
        to: &mut [N],
        bits: RoundingBits<'_>,
        answers: &[Answer],
    ) -> Vec<f64> {
        let mut at = |way: f64| -> Vec<f64> {
            let values: Vec<f32> =
                answers.iter().map(|x| (x.value + way * x.tolerance) as f32).collect();
            StochasticRounded::new(to, bits).store(0, &values);
            to.iter().map(|x| StoredFloat::to_f64(*x)).collect()
        };
        let (low, high) = (at(-1.0), at(1.0));
        at(0.0);
        let apart = low.iter().zip(high).map(|(a, b)| (b - a).abs());
        apart.map(|x| if x.is_nan() { 0.0 } else { x }).collect()
    }
    match to {
        Buffer::Bf16(to) => of(to, bits, answers),
        Buffer::F16(to) => of(to, bits, answers),
        _ => Vec::new(),
    }
}

/// Writes plain values after a step, and returns how far apart two correct ones may be.
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
            if known.is_untracked {
                continue;
            }
            let after =
                step(i.0, &mut prepared, &mut values[i.0], (grad, dtype), norm_error, known);
            *known = after.unwrap_or(Known { is_untracked: true, ..Known::default() });
        }
        Ok(())
    }
}

/// One step of a parameter; `None` where it can't be followed.
fn step(
    i: usize,
    prepared: &mut PreparedStep<'_>,
    value: &mut Buffer,
    (grad, dtype): (&Buffer, Dtype),
    norm_error: f64,
    known: &Known,
) -> Option<Known> {
    let mut joined = match &prepared.correction {
        Some(correction) => Some(encoded::joined(value, correction)?),
        None => None,
    };
    let is_rounded = prepared.rounding_bits.is_some();
    let stored = (joined.is_none() && !is_rounded).then_some(dtype);
    let compute = prepared.policy.compute(stored);
    if prepared.step.is_first {
        match &joined {
            Some(joined) => start(prepared, &Buffer::Encoded(joined.clone())),
            None => start(prepared, value),
        }
    }
    // Where state of several types is computed in `f64`, the reference's constants are of fewer bits.
    let dtypes = prepared.slots.iter().filter(|slot| !slot.is_empty()).filter_map(Buffer::data);
    let narrower = dtypes.map(|data| data.dtype()).any(|dtype| dtype != Dtype::F64);
    let is_mixed = prepared.policy == ComputePolicy::Double || compute == Dtype::F64 && narrower;
    let mut scalar_errors = known.scalar_errors;
    let joined_value = joined.as_ref().map(|joined| Buffer::Encoded(joined.clone()));
    let errors = |k: usize| known.errors.get(k).map_or(&[][..], |x| x);
    let held = |(k, values)| Held { values, errors: errors(k) };
    let slots: Vec<_> = (1..).zip(&*prepared.slots).map(held).collect();
    let task = &mut Task {
        compute,
        step: prepared.step,
        scalars: prepared.scalars.get(),
        param: held((0, joined_value.as_ref().unwrap_or(value))),
        grad: Held { values: grad, errors: &[] },
        slots: &slots,
        norm_error,
        scalar_errors: &mut scalar_errors,
        full: None,
    };
    let answers = with_constants_in(if is_mixed { Dtype::F32 } else { Dtype::F64 }, || {
        rule::step(prepared.rule, task)
    })?;
    drop(slots);

    let mut after = Known { scalar_errors, ..Known::default() };
    let named = |key: &str| format!("p{i}.state.{key}");
    let value_name = format!("p{i}.value");
    let of_value = answers.first()?;
    let halves = |tolerances: &[f64]| tolerances.iter().map(|x| x / 2.0).collect::<Vec<_>>();
    if let (Some(joined), Some(correction)) = (&mut joined, &mut prepared.correction) {
        let pair = encoded::store_pair(joined, of_value);
        let [raw_value, raw_correction] = joined.raws();
        set(value, raw_value);
        correction.set_bytes(&raw_correction.bytes()).ok()?;
        let key = match correction {
            RawBuffer::I8(_) | RawBuffer::I16(_) => "error_bits",
            _ => "compensation",
        };
        after.numbers.push((value_name, pair.value));
        match pair.codes {
            Some(codes) => after.codes.push((named(key), codes)),
            None => after.numbers.push((named(key), pair.correction)),
        }
        after.errors.push(pair.errors);
    } else {
        let tolerances = match prepared.rounding_bits {
            Some(bits) => write_rounded(value, bits, of_value),
            None => write(value, of_value),
        };
        after.errors.push(halves(&tolerances));
        after.numbers.push((value_name, tolerances));
    }
    let names = prepared.rule.info().slots;
    for ((name, slot), answers) in names.iter().zip(prepared.slots.iter_mut()).zip(&answers[1..]) {
        if let Buffer::Encoded(slot) = slot {
            if slot.is_empty() || answers.is_empty() {
                after.errors.push(Vec::new());
                continue;
            }
            let stored = encoded::store(slot, answers)?;
            if let [codes, scales] = &slot.parts(name)[..] {
                after.codes.push((named(&codes.key), stored.codes));
                after.numbers.push((named(&scales.key), stored.scales));
            }
            after.errors.push(stored.errors);
        } else {
            let tolerances = write(slot, answers);
            after.errors.push(halves(&tolerances));
            after.numbers.push((named(name), tolerances));
        }
    }
    for (name, error) in prepared.rule.info().scalar_names.iter().zip(scalar_errors) {
        if error > 0.0 {
            after.numbers.push((named(name), vec![2.0 * error]));
        }
    }
    let errors = |k: usize| after.errors.get(k).map_or(&[][..], |x| &x[..]);
    let held = |(k, values)| Held { values, errors: errors(k) };
    let slots: Vec<_> = (1..).zip(&*prepared.slots).map(held).collect();
    if let Some(answers) = rule::evaluate(prepared.rule, compute, held((0, &*value)), &slots) {
        let tolerances = write(&mut value.clone(), &answers);
        after.numbers.push((format!("p{i}.eval"), tolerances));
    }
    Some(after)
}

/// Overwrites 16-bit values.
fn set(to: &mut Buffer, from: &RawBuffer) {
    match (to, from) {
        (Buffer::Bf16(to), RawBuffer::Bf16(from)) => to.clone_from(from),
        (Buffer::F16(to), RawBuffer::F16(from)) => to.clone_from(from),
        _ => {}
    }
}
