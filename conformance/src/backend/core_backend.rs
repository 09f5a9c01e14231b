//! The backend `core`: the rules of the `bitstep` crate, built from a case's name and arguments.

use std::collections::BTreeMap;

use bitstep::hyper::{ArgError, Args, names};
use bitstep::optimizer::{self, Buffer, GroupId};
use bitstep::rule::Scope;
use bitstep::storage::{RawBuffer, RawDtype, RawPart};
use serde_json::{Map, Value as Json};

use crate::backend::host::{ParamStore, Slices};
use crate::backend::{
    Backend, BackendError, Counts, GradientAnswer, GradientSpec, Inputs, OptimizerSpec, Run,
    ScheduleSpec, failed,
};
use crate::convert::{self, args, value};
use crate::tensor::{Dtype, Tensor};

/// The `bitstep` crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Core;

impl Backend for Core {
    fn name(&self) -> &str {
        "core"
    }

    fn optimizer(&self, spec: &OptimizerSpec<'_>) -> Result<Box<dyn Run + '_>, BackendError> {
        Ok(Box::new(CoreRun::new(spec, Slices::default())?))
    }

    fn schedule(&self, spec: &ScheduleSpec<'_>) -> Result<Vec<f64>, BackendError> {
        crate::backend::core_schedule::answer(spec)
    }

    fn gradient(&self, spec: &GradientSpec<'_>) -> Result<GradientAnswer, BackendError> {
        crate::backend::core_gradient::answer(spec)
    }
}

fn core_spec(name: &str, args: &Args) -> Result<optimizer::OptimizerSpec, BackendError> {
    bitstep::registry::optimizer(name, args).map_err(|e| match e {
        ArgError::UnknownName { name, .. } => {
            BackendError::Unsupported(format!("core has no optimizer `{name}` yet"))
        }
        other => failed(other),
    })
}

/// The start of `reference` in a case whose answers are the core's.
pub(crate) const OWN_ORACLE: &str = "bitstep-core";

/// The arguments of a group, with those added that tell the core which reference to follow.
pub(crate) fn completed(spec: &OptimizerSpec<'_>, hyper: &Map<String, Json>) -> Map<String, Json> {
    let mut hyper = hyper.clone();
    if spec.reference.starts_with(OWN_ORACLE) {
        return hyper; // made by the core, with all of these
    }
    let eight_bit = ["bitsandbytes.optim.", "galore_torch.GaLoreAdamW8bit"];
    if eight_bit.iter().any(|r| spec.reference.starts_with(r)) && !hyper.contains_key("quantizer") {
        // The goldens come from bitsandbytes' CPU kernels, which encode 8-bit state in their own way.
        hyper.insert("quantizer".to_owned(), "cpu".into());
    }
    // Some rules follow one of several implementations, and take its import path as an argument.
    if let Ok(mut built) = bitstep::registry::optimizer(spec.name, args(&hyper))
        && names(built.rule.hyper_params()).contains(&"reference")
    {
        hyper.insert("reference".to_owned(), spec.reference.into());
    }
    hyper
}

/// Applies a group's overrides to what the constructor made of its arguments. An override that is not an argument of
/// the rule (a storage, a projection) builds another optimizer.
fn core_spec_of(
    spec: &OptimizerSpec<'_>,
    hyper: &Map<String, Json>,
) -> Result<optimizer::OptimizerSpec, BackendError> {
    let build = |hyper| core_spec(spec.name, &args(&completed(spec, hyper)));
    let base = build(spec.hyper)?;
    let changes = hyper.iter().filter(|(key, x)| spec.hyper.get(*key) != Some(x));
    let changes: Args = changes.map(|(key, x)| (key.clone(), value(x))).collect();
    match base.with_args(&changes) {
        Ok(changed) => Ok(changed),
        Err(ArgError::UnknownArgument { .. }) => build(hyper),
        Err(other) => Err(failed(other)),
    }
}

/// A run of the core's rules over any storage of the parameters.
pub(crate) struct CoreRun<S> {
    store: S,
    shapes: Vec<Vec<usize>>,
    /// For each parameter, the slots whose contents the case supplies at each step.
    provided: Vec<Vec<(usize, &'static str)>>,
}

impl<S: ParamStore> CoreRun<S> {
    pub(crate) fn new(spec: &OptimizerSpec<'_>, mut store: S) -> Result<Self, BackendError> {
        let mut group_of = vec![GroupId(0); spec.params.len()];
        for group in spec.groups {
            let core_spec = core_spec_of(spec, &group.hyper)?;
            let id = store.optimizer_mut().add_group(core_spec).map_err(failed)?;
            group.params.iter().for_each(|&i| group_of[i] = id);
        }
        for (init, group) in spec.params.iter().zip(group_of) {
            store.add(group.0, &init.shape, convert::buffer(init)?)?;
        }
        let shapes = spec.params.iter().map(|init| init.shape.clone()).collect();
        let optimizer = store.optimizer_mut();
        // References number parameters group by group.
        let by_group = spec.groups.iter().flat_map(|group| &group.params);
        for (position, &i) in by_group.enumerate() {
            let id = optimizer.params()[i].group;
            let rule = optimizer.groups()[id.0].spec.rule.clone();
            optimizer.params_mut()[i].scalars = rule.initial_scalars(position);
        }
        let provided = optimizer.params().iter().zip(&spec.given).map(|(param, given)| {
            let names = optimizer.groups()[param.group.0].spec.rule.info().slots;
            names.iter().copied().enumerate().filter(|(_, name)| given.contains(name)).collect()
        });
        let provided = provided.collect();
        Ok(CoreRun { store, shapes, provided })
    }

    /// The storage of the parameters.
    pub(crate) fn store(&self) -> &S {
        &self.store
    }
}

impl<S: ParamStore> Run for CoreRun<S> {
    fn load(
        &mut self,
        i: usize,
        value: &Tensor,
        state: &BTreeMap<String, Tensor>,
        counts: Counts,
    ) -> Result<(), BackendError> {
        self.store.set(i, convert::buffer(value)?)?;
        let optimizer = self.store.optimizer_mut();
        let id = optimizer.params()[i].group;
        let rule = optimizer.groups()[id.0].spec.rule.clone();
        let step = state.get(rule.info().step_key).map(|s| s.get(0) as u64);
        let late = counts.steps == 0 && !state.is_empty();
        let started = counts.updates > 0 || late || step.is_some_and(|s| s > 0);

        let group = &mut optimizer.groups_mut()[id.0];
        let own = rule.info().step_scope == Scope::Parameter;
        group.steps = step.filter(|_| !own).unwrap_or(counts.steps).max(group.steps);
        let group_scalars =
            (rule.info().scalar_scope == Scope::Group).then_some(&mut group.scalars);
        let wants = |name: &str| Err(BackendError::NeedsState(name.to_owned()));
        let mut scalars = rule.initial_scalars(0);
        for (name, scalar) in rule.info().scalar_names.iter().zip(&mut scalars) {
            match state.get(*name) {
                Some(x) => *scalar = x.get(0),
                None if started => return wants(name),
                None => {}
            }
        }
        match group_scalars {
            Some(group) if started || !state.is_empty() => *group = scalars,
            _ => optimizer.params_mut()[i].scalars = scalars,
        }

        let param = &mut optimizer.params_mut()[i];
        param.steps = step.filter(|_| own).unwrap_or(counts.updates);
        param.is_initialized = started;
        let mut stacked = Stacked::default();
        for (k, (name, slot)) in rule.info().slots.iter().zip(&mut param.slots).enumerate() {
            let all = rule.info().slots.iter().filter(|n| *n == name).count();
            if self.provided[i].contains(&(k, name)) {
                continue;
            }
            let unused = slot.is_empty();
            if let Buffer::Encoded(encoded) = slot {
                if unused {
                    continue;
                }
                for part in encoded.parts(name) {
                    match stacked.next(state, &part.key, all) {
                        Some(t) => {
                            let part = RawPart { bytes: t.bytes, ..part };
                            encoded.set_part(name, &part).map_err(failed)?;
                        }
                        None if started => return wants(&part.key),
                        None => {}
                    }
                }
                continue;
            }
            match stacked.next(state, name, all) {
                _ if slot.is_empty() => {}
                Some(t) if t.len() == slot.len() => convert::write(&mut slot.data_mut(), &t),
                Some(t) => {
                    let (got, want) = (t.len(), slot.len());
                    return Err(failed(format!("`{name}` has {got} elements, core wants {want}")));
                }
                None if started => return wants(name),
                None => {}
            }
        }
        if let Some(correction) = &mut param.correction {
            let key = correction_key(correction);
            match state.get(key) {
                Some(t) => correction.set_bytes(&t.bytes).map_err(failed)?,
                None if started => return wants(key),
                None => {}
            }
        }
        Ok(())
    }

    fn step(&mut self, inputs: &Inputs) -> Result<(), BackendError> {
        let optimizer = self.store.optimizer_mut();
        for (param, given) in optimizer.params_mut().iter_mut().zip(&inputs.tensors) {
            let bits = |t: &Tensor| (0..t.len()).map(|i| t.get(i) as u16).collect();
            param.rounding_bits = given.get("rand16").map(|(t, _)| bits(t));
        }
        if let Some(lr) = inputs.lr {
            optimizer.groups_mut().iter_mut().for_each(|g| g.lr = lr);
        }
        let mut extra: Vec<(&str, f64)> =
            inputs.given.iter().map(|(k, &v)| (k.as_str(), v)).collect();
        for ((slots, tensors), param) in
            self.provided.iter().zip(&inputs.tensors).zip(optimizer.params_mut())
        {
            for &(k, name) in slots {
                if let (Some((t, _)), Some(slot)) = (tensors.get(name), param.slots.get_mut(k)) {
                    if t.len() != slot.len() {
                        let (got, want) = (t.len(), slot.len());
                        return Err(failed(format!(
                            "`{name}` has {got} elements, core wants {want}"
                        )));
                    }
                    convert::write(&mut slot.data_mut(), t);
                    extra.push((name, 1.0));
                }
            }
        }
        let grads = inputs.grads.iter().map(|g| g.as_ref().map(convert::buffer).transpose());
        self.store.step(&grads.collect::<Result<Vec<_>, BackendError>>()?, &extra)
    }

    fn value(&self, i: usize) -> Tensor {
        convert::tensor(&self.store.value(i), &self.shapes[i])
    }

    fn eval(&self, i: usize) -> Option<Tensor> {
        let mut other = self.store.optimizer().clone();
        let mut values: Vec<Buffer> = (0..self.shapes.len()).map(|i| self.store.value(i)).collect();
        let mut params: Vec<_> = values.iter_mut().map(Buffer::data_mut).collect();
        // Without an evaluation value the check reports the missing answer.
        other.eval(&mut params).ok()?;
        drop(params);
        Some(convert::tensor(&values[i], &self.shapes[i]))
    }

    fn state(&self, i: usize) -> BTreeMap<String, Tensor> {
        let param = &self.store.optimizer().params()[i];
        let group = &self.store.optimizer().groups()[param.group.0];
        let rule = &*group.spec.rule;
        let mut parts = Vec::new();
        for (k, (name, slot)) in rule.info().slots.iter().zip(&param.slots).enumerate() {
            let mut shape = Vec::new();
            rule.slot_shape(k, &param.shape, &mut |d| shape.push(d));
            match slot {
                Buffer::Encoded(encoded) => {
                    parts.extend(encoded.parts(name).into_iter().map(|p| {
                        let shape = vec![p.bytes.len() / p.element.size()];
                        (p.key, Tensor { dtype: dtype_of(p.element), shape, bytes: p.bytes })
                    }))
                }
                // An unused slot.
                slot if slot.len() != shape.iter().product::<usize>() => {}
                slot => parts.push(((*name).to_owned(), convert::tensor(slot, &shape))),
            }
        }
        let mut out = stack(parts);
        if let Some(correction) = &param.correction {
            let dtype = dtype_of(correction.element());
            let t = Tensor { dtype, shape: param.shape.clone(), bytes: correction.bytes() };
            out.insert(correction_key(correction).to_owned(), t);
        }
        let own = rule.info().scalar_scope == Scope::Parameter;
        let scalars = if own { &param.scalars } else { &group.scalars };
        for (name, x) in rule.info().scalar_names.iter().zip(scalars) {
            out.insert((*name).to_owned(), Tensor::scalar(*x));
        }
        let own = rule.info().step_scope == Scope::Parameter;
        let steps = if own { param.steps } else { group.steps };
        out.insert(rule.info().step_key.to_owned(), Tensor::scalar(steps as f64));
        out
    }
}

/// Splits a tensor of the reference over the slots of that name, one row each.
#[derive(Default)]
struct Stacked(BTreeMap<String, usize>);

impl Stacked {
    /// The next row of a tensor of `all` rows; the tensor itself if `all` is 1.
    fn next(&mut self, state: &BTreeMap<String, Tensor>, key: &str, all: usize) -> Option<Tensor> {
        let row = self.0.entry(key.to_owned()).or_default();
        *row += 1;
        let t = state.get(key)?;
        Some(if all > 1 { t.row(*row - 1) } else { t.clone() })
    }
}

/// The inverse of [`Stacked`]: slots of one name become the rows of one tensor.
fn stack(parts: Vec<(String, Tensor)>) -> BTreeMap<String, Tensor> {
    let mut rows = BTreeMap::<String, Vec<Tensor>>::new();
    parts.into_iter().for_each(|(key, t)| rows.entry(key).or_default().push(t));
    let join = |(key, mut rows): (String, Vec<Tensor>)| match &rows[..] {
        [_] => rows.pop().map(|t| (key, t)),
        [first, ..] => {
            let shape = [&[rows.len()], &first.shape[..]].concat();
            let bytes = rows.iter().flat_map(|t| t.bytes.clone()).collect();
            Some((key, Tensor { dtype: first.dtype, shape, bytes }))
        }
        [] => None,
    };
    rows.into_iter().filter_map(join).collect()
}

/// The reference's key of the correction stored beside a 16-bit parameter.
fn correction_key(correction: &RawBuffer) -> &'static str {
    match correction {
        RawBuffer::I8(_) | RawBuffer::I16(_) => "error_bits",
        _ => "compensation",
    }
}

fn dtype_of(raw: RawDtype) -> Dtype {
    match raw {
        RawDtype::F64 => Dtype::F64,
        RawDtype::F32 => Dtype::F32,
        RawDtype::Bf16 => Dtype::Bf16,
        RawDtype::F16 => Dtype::F16,
        RawDtype::I16 => Dtype::I16,
        RawDtype::I8 => Dtype::I8,
        RawDtype::U8 => Dtype::U8,
        RawDtype::F8E4M3 => Dtype::F8E4M3,
    }
}
