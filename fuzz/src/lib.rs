//! Properties that hold for every rule, each written once.
//!
//! A [`Trial`] is a run of one optimizer on arbitrary input: any bit pattern, any
//! length, any options. Each property takes a trial and panics where it does not
//! hold. proptest drives them on stable Rust (`cargo test -p bitstep-fuzz`).

use bitstep::optimizer::{Buffer, Optimizer, Param, Recipe};
use bitstep::real::Dtype;
use bitstep::storage::Data;

/// One optimizer, one parameter, some steps.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What moves the parameter.
    pub recipe: Recipe,
    /// The parameter's number type.
    pub dtype: Dtype,
    /// The parameter's dimensions.
    pub shape: Vec<usize>,
    /// Its bits before the first step.
    pub init: Vec<u64>,
    /// Its gradient's bits at each step; `None`: no gradient.
    pub grads: Vec<Option<Vec<u64>>>,
    /// The learning rate at each step.
    pub lrs: Vec<f64>,
}

/// The shape; one column of as many elements, for a rule that takes matrices only.
///
/// # Panics
/// If the recipe is refused.
#[must_use]
pub fn accepted(recipe: &Recipe, shape: &[usize], dtype: Dtype) -> Vec<usize> {
    let mut optimizer = Optimizer::new();
    let group = optimizer.add_group(recipe.clone()).expect("a valid recipe");
    match optimizer.add_param(group, shape, dtype) {
        Ok(_) => shape.to_vec(),
        Err(_) => vec![shape.iter().product(), 1],
    }
}

/// Numbers from bit patterns, the upper bits cut off.
#[must_use]
pub fn buffer(dtype: Dtype, bits: &[u64]) -> Buffer {
    match dtype {
        Dtype::F64 => Buffer::F64(bits.iter().map(|&b| f64::from_bits(b)).collect()),
        Dtype::F32 => Buffer::F32(bits.iter().map(|&b| f32::from_bits(b as u32)).collect()),
        Dtype::Bf16 => {
            Buffer::Bf16(bits.iter().map(|&b| half::bf16::from_bits(b as u16)).collect())
        }
        Dtype::F16 => Buffer::F16(bits.iter().map(|&b| half::f16::from_bits(b as u16)).collect()),
    }
}

/// The bits of a buffer, every NaN alike.
#[must_use]
pub fn bits(buffer: &Buffer) -> Vec<u64> {
    let Some(data) = buffer.data() else {
        return coded(buffer);
    };
    match data {
        Data::F64(x) => {
            x.iter().map(|x| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() }).collect()
        }
        Data::F32(x) => x
            .iter()
            .map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }.into())
            .collect(),
        Data::Bf16(x) => x
            .iter()
            .map(|x| if x.is_nan() { half::bf16::NAN.to_bits() } else { x.to_bits() }.into())
            .collect(),
        Data::F16(x) => x
            .iter()
            .map(|x| if x.is_nan() { half::f16::NAN.to_bits() } else { x.to_bits() }.into())
            .collect(),
    }
}

/// The raw bytes of a storage's codes and scales.
fn coded(buffer: &Buffer) -> Vec<u64> {
    let Buffer::Coded(coded) = buffer else { unreachable!() };
    coded.parts("").iter().flat_map(|p| p.bytes.iter().map(|&b| b.into())).collect()
}

/// An optimizer in mid-run with its parameter.
#[derive(Clone, Debug)]
pub struct Run {
    optimizer: Optimizer,
    value: Buffer,
}

impl Run {
    /// Before the first step.
    ///
    /// # Panics
    /// If the recipe is refused.
    #[must_use]
    pub fn new(trial: &Trial) -> Run {
        let mut optimizer = Optimizer::new();
        let group = optimizer.add_group(trial.recipe.clone()).expect("a valid recipe");
        optimizer.add_param(group, &trial.shape, trial.dtype).expect("a group that exists");
        Run { optimizer, value: buffer(trial.dtype, &trial.init) }
    }

    /// Makes the steps of the given range.
    ///
    /// # Panics
    /// If a step is refused.
    pub fn steps(&mut self, trial: &Trial, range: std::ops::Range<usize>) {
        for t in range {
            self.optimizer.groups_mut()[0].lr = trial.lrs[t];
            let grad = trial.grads[t].as_ref().map(|g| buffer(trial.dtype, g));
            let param =
                Param { value: self.value.data_mut(), grad: grad.as_ref().and_then(Buffer::data) };
            self.optimizer.step(&mut [param], GIVEN).expect("lengths that fit");
        }
    }

    /// Everything that a step may write: parameter, slots, carried numbers, counters.
    #[must_use]
    pub fn bits(&self) -> Vec<Vec<u64>> {
        let (group, param) = (&self.optimizer.groups()[0], &self.optimizer.params()[0]);
        let canonical = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
        let mut all = vec![bits(&self.value), vec![group.steps, param.steps]];
        all.push(group.scalars.iter().chain(&param.scalars).map(canonical).collect());
        all.extend(param.slots.iter().map(bits));
        let bytes = |raw: &bitstep::storage::Raw| raw.bytes().into_iter().map(u64::from).collect();
        all.extend(param.companion.iter().map(bytes));
        all
    }
}

/// Numbers for the rules that listen to something.
const GIVEN: &[(&str, f64)] = &[("train_loss", 1.5), ("eval_loss", 2.0)];

fn whole(trial: &Trial) -> Run {
    let mut run = Run::new(trial);
    run.steps(trial, 0..trial.grads.len());
    run
}

/// The same input gives the same bits.
///
/// # Panics
/// If it does not.
pub fn deterministic(trial: &Trial) {
    assert_eq!(whole(trial).bits(), whole(trial).bits());
}

/// State saved to its plain parts and restored into a new optimizer continues with the same bits.
///
/// # Panics
/// If it does not.
pub fn restorable(trial: &Trial) {
    let middle = trial.grads.len() / 2;
    let mut first = Run::new(trial);
    first.steps(trial, 0..middle);
    let mut second = Run::new(trial);
    second.value = first.value.clone();
    let (from, to) = (&first.optimizer, &mut second.optimizer);
    to.groups_mut()[0].steps = from.groups()[0].steps;
    to.groups_mut()[0].scalars = from.groups()[0].scalars;
    let (from, to) = (&from.params()[0], &mut to.params_mut()[0]);
    (to.steps, to.scalars, to.started) = (from.steps, from.scalars, from.started);
    for (to, from) in to.slots.iter_mut().zip(&from.slots) {
        match (to, from) {
            (Buffer::Coded(to), Buffer::Coded(from)) => {
                for part in from.parts("slot") {
                    to.set_part("slot", &part).expect("a part of the same storage");
                }
            }
            (to, from) => to.clone_from(from),
        }
    }
    if let (Some(to), Some(from)) = (&mut to.companion, &from.companion) {
        to.set_bytes(&from.bytes()).expect("as many bytes");
    }
    second.steps(trial, middle..trial.grads.len());
    assert_eq!(second.bits(), whole(trial).bits());
}

/// Cutting a tensor in two changes nothing, for rules whose elements move on their own. State that
/// rests in blocks is cut between them.
///
/// # Panics
/// If it does.
pub fn splittable(trial: &Trial, cut: usize) {
    if !trial.recipe.rule.is_elementwise() {
        return;
    }
    let n = trial.init.len();
    let cut = cut.min(n);
    let part = |range: std::ops::Range<usize>| {
        let mut part = trial.clone();
        if range.len() < n {
            part.shape = vec![range.len()]; // a scalar has no parts
        }
        part.init = trial.init[range.clone()].to_vec();
        part.grads =
            trial.grads.iter().map(|g| g.as_ref().map(|g| g[range.clone()].to_vec())).collect();
        bits(&whole(&part).value)
    };
    let joined: Vec<u64> = part(0..cut).into_iter().chain(part(cut..n)).collect();
    assert_eq!(joined, bits(&whole(trial).value));
}

/// A refused step leaves parameter and state exactly as they were.
///
/// # Panics
/// If something was written, or the step was not refused.
pub fn error_leaves_everything_untouched(trial: &Trial) {
    let mut run = whole(trial);
    let before = run.bits();
    let long = buffer(trial.dtype, &vec![0x3c00_3c00_3c00_3c00; trial.init.len() + 1]);
    let param = Param { value: run.value.data_mut(), grad: long.data() };
    assert!(run.optimizer.step(&mut [param], GIVEN).is_err());
    assert_eq!(run.bits(), before);
}
