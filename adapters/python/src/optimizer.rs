//! Groups of parameters, their state, and steps over borrowed tensors.

use bitstep::hyper::{ArgError, Args};
use bitstep::optimizer::{Buffer, GroupId, OptimizerSpec, Param, ParamId, ParamState};
use bitstep::registry;
use bitstep::rule::Scope;
use bitstep::rule::mode::Mode;
use bitstep::storage::{
    DynamicQuant8, EncodedBuffer, RawBuffer, RawDtype, RawPart, Storage, StorageFormat,
};
use bitstep_rayon::GRAIN;
use pyo3::exceptions::{PyIndexError, PyKeyError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList};

use crate::args::{arg_error, args, dict, error};
use crate::memory::{Memory, Reader, Refusal, dtype};
use crate::threads::pool;

/// Groups of parameters and their state; the caller keeps the parameters.
#[pyclass(module = "bitstep._bitstep")]
#[derive(Clone, Default)]
pub(crate) struct Optimizer {
    inner: bitstep::optimizer::Optimizer,
}

/// A copy of one part of a parameter's state: slot, key, type, dimensions, elements. The correction beside a 16-bit
/// parameter has no slot.
type Part<'py> = (Option<usize>, String, &'static str, Vec<usize>, Bound<'py, PyByteArray>);

fn spec(name: &str, arguments: &Args, changes: &Args) -> Result<OptimizerSpec, ArgError> {
    let base = registry::optimizer(name, arguments)?;
    match base.with_args(changes) {
        // What is no argument of the rule chooses a storage, and so builds another optimizer.
        Err(ArgError::UnknownArgument { .. }) => {
            let mut all = arguments.clone();
            changes.iter().for_each(|(name, value)| all.set(name, value.clone()));
            registry::optimizer(name, &all)
        }
        changed => changed,
    }
}

fn raw_name(element: RawDtype) -> &'static str {
    match element {
        RawDtype::F64 => "float64",
        RawDtype::F32 => "float32",
        RawDtype::Bf16 => "bfloat16",
        RawDtype::F16 => "float16",
        RawDtype::I16 => "int16",
        RawDtype::I8 => "int8",
        RawDtype::U8 => "uint8",
        RawDtype::F8E4M3 => "float8_e4m3fn",
    }
}

/// The reference's key of the correction that is stored beside a 16-bit parameter.
fn correction_key(correction: &RawBuffer) -> &'static str {
    match correction {
        RawBuffer::I8(_) | RawBuffer::I16(_) => "error_bits",
        _ => "compensation",
    }
}

fn plain_bytes(slot: &Buffer) -> Vec<u8> {
    match slot {
        Buffer::F64(x) => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Buffer::F32(x) => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Buffer::Bf16(x) => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Buffer::F16(x) => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Buffer::Encoded(_) => Vec::new(),
    }
}

fn set_plain(slot: &mut Buffer, bytes: &[u8], key: &str) -> PyResult<()> {
    fn all<T, const N: usize>(to: &mut [T], bytes: &[u8], from: impl Fn([u8; N]) -> T) -> bool {
        let (chunks, rest) = bytes.as_chunks::<N>();
        let fits = rest.is_empty() && chunks.len() == to.len();
        if fits {
            to.iter_mut().zip(chunks).for_each(|(x, bytes)| *x = from(*bytes));
        }
        fits
    }
    let len = slot.len();
    let fits = match slot {
        Buffer::F64(x) => all(x, bytes, f64::from_ne_bytes),
        Buffer::F32(x) => all(x, bytes, f32::from_ne_bytes),
        Buffer::Bf16(x) => all(x, bytes, half::bf16::from_ne_bytes),
        Buffer::F16(x) => all(x, bytes, half::f16::from_ne_bytes),
        Buffer::Encoded(_) => false,
    };
    let message = || format!("`{key}` has {} bytes, but the state {len} elements", bytes.len());
    if fits { Ok(()) } else { Err(PyValueError::new_err(message())) }
}

/// Refuses parameters that share memory with each other or with a gradient: each is written on its own.
fn check_disjoint(memory: &[Option<(Memory, Option<Memory>)>]) -> Result<(), usize> {
    let ranges = memory.iter().enumerate();
    let mut params: Vec<(usize, usize, usize)> = ranges
        .filter_map(|(i, m)| m.as_ref().map(|(p, _)| (p.range(), i)))
        .filter(|((start, end), _)| start < end)
        .map(|((start, end), i)| (start, end, i))
        .collect();
    params.sort_unstable();
    if let Some([_, (_, _, i)]) = params.array_windows().find(|[a, b]| b.0 < a.1) {
        return Err(*i);
    }
    let (first, last) = (params.first().map_or(0, |p| p.0), params.last().map_or(0, |p| p.1));
    for (i, m) in memory.iter().enumerate() {
        let Some((_, Some(grad))) = m else { continue };
        let (start, end) = grad.range();
        if start >= last || end <= first || start == end {
            continue;
        }
        // The last parameter that begins before the gradient ends.
        let at = params.partition_point(|p| p.0 < end);
        if at > 0 && params[at - 1].1 > start {
            return Err(i);
        }
    }
    Ok(())
}

impl Optimizer {
    fn group(&self, group: usize) -> PyResult<&bitstep::optimizer::Group> {
        self.inner.groups().get(group).ok_or_else(|| PyIndexError::new_err("no such group"))
    }

    fn param(&self, i: usize) -> PyResult<&bitstep::optimizer::ParamState> {
        self.inner.params().get(i).ok_or_else(|| PyIndexError::new_err("no such parameter"))
    }

    fn param_mut(&mut self, i: usize) -> PyResult<&mut bitstep::optimizer::ParamState> {
        self.inner.params_mut().get_mut(i).ok_or_else(|| PyIndexError::new_err("no such parameter"))
    }

    fn check_count(&self, what: &str, len: usize) -> PyResult<()> {
        let expected = self.inner.params().len();
        if len != expected {
            let message = format!("{what} has {len} tensors, but there are {expected} parameters");
            return Err(PyValueError::new_err(message));
        }
        Ok(())
    }
}

#[pymethods]
impl Optimizer {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// A copy with its state.
    fn copy(&self) -> Self {
        self.clone()
    }

    /// Adds a group: the reference's constructor arguments, and those that the group overrides.
    #[pyo3(signature = (name, arguments, changes=None))]
    fn add_group(
        &mut self,
        name: &str,
        arguments: &Bound<'_, PyDict>,
        changes: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<usize> {
        let changes = changes.map(args).transpose()?.unwrap_or_default();
        let spec = spec(name, &args(arguments)?, &changes).map_err(arg_error)?;
        Ok(self.inner.add_group(spec).map_err(error)?.0)
    }

    /// Adds a parameter to a group. `plain`: its state is not encoded, whatever its group's is. `part`: only these of its
    /// elements, from the first to that behind the last.
    #[pyo3(signature = (group, shape, dtype, plain=false, part=None))]
    fn add_param(
        &mut self,
        group: usize,
        shape: Vec<usize>,
        dtype: &str,
        plain: bool,
        part: Option<(usize, usize)>,
    ) -> PyResult<usize> {
        let (id, dtype) = (GroupId(group), self::dtype(dtype)?);
        let added = match part {
            Some((start, end)) => self.inner.add_part(id, &shape, dtype, start..end),
            None if plain => self.inner.add_plain_param(id, &shape, dtype),
            None => self.inner.add_param_to(id, &shape, dtype),
        };
        Ok(added.map_err(error)?.0)
    }

    /// The number of elements of which parts of a parameter must be multiples; `None` if it can't be stepped in parts.
    fn part_multiple(
        &self,
        group: usize,
        shape: Vec<usize>,
        dtype: &str,
    ) -> PyResult<Option<usize>> {
        Ok(self.group(group)?.spec.part_multiple(&shape, self::dtype(dtype)?))
    }

    /// For each group the norm over these whole gradients; `None` if its rule needs none.
    fn grad_norms(
        &self,
        py: Python<'_>,
        grads: &Bound<'_, PyList>,
        extra: Vec<(String, f64)>,
    ) -> PyResult<Vec<Option<f64>>> {
        let mut reader = Reader::new(py);
        let mut memory = Vec::with_capacity(grads.len());
        for (i, grad) in grads.iter().enumerate() {
            let shape: Vec<usize> = grad.getattr("shape")?.extract()?;
            let read = reader.memory(&grad, &shape, &|| format!("grads[{i}]"));
            memory.push(read.map_err(|refusal| strided(refusal, i, "grads"))?);
        }
        let extra: Vec<(&str, f64)> = extra.iter().map(|(name, x)| (name.as_str(), *x)).collect();
        // SAFETY: `grads` keeps the tensors, and nobody writes them while the lock is held.
        let grads: Vec<_> = memory.iter().map(|m| unsafe { m.data() }).collect();
        Ok(self.inner.grad_norms(&grads, &extra))
    }

    /// Gives each group the norm over all gradients for its next step.
    fn give_grad_norms(&mut self, norms: Vec<Option<f64>>) {
        for (group, norm) in self.inner.groups_mut().iter_mut().zip(norms) {
            group.given_grad_norm = norm;
        }
    }

    /// Changes arguments of a group.
    fn set_arguments(&mut self, group: usize, arguments: &Bound<'_, PyDict>) -> PyResult<()> {
        self.inner.set_args(GroupId(group), &args(arguments)?).map_err(arg_error)
    }

    /// The arguments of a group's rule.
    fn arguments<'py>(&self, py: Python<'py>, group: usize) -> PyResult<Bound<'py, PyDict>> {
        let mut rule = self.group(group)?.spec.rule.clone();
        dict(py, &Args::of(rule.hyper_params()))
    }

    /// The static properties of a group's rule.
    fn info<'py>(&self, py: Python<'py>, group: usize) -> PyResult<Bound<'py, PyDict>> {
        let info = self.group(group)?.spec.rule.info();
        let all = PyDict::new(py);
        all.set_item("slots", info.slots)?;
        all.set_item("scalars", info.scalar_names)?;
        all.set_item("extra", info.extra_args)?;
        all.set_item("step_key", info.step_key)?;
        all.set_item("steps_by_group", info.step_scope == Scope::Group)?;
        all.set_item("scalars_by_group", info.scalar_scope == Scope::Group)?;
        Ok(all)
    }

    /// Steps and scalars of a group.
    fn group_state(&self, group: usize) -> PyResult<(u64, Vec<f64>)> {
        let group = self.group(group)?;
        let count = group.spec.rule.info().scalar_names.len();
        Ok((group.steps, group.scalars.iter().take(count).copied().collect()))
    }

    /// Restores steps and scalars of a group.
    fn set_group_state(&mut self, group: usize, steps: u64, scalars: Vec<f64>) -> PyResult<()> {
        self.group(group)?;
        let Some(group) = self.inner.groups_mut().get_mut(group) else { return Ok(()) };
        group.steps = steps;
        group.scalars.iter_mut().zip(scalars).for_each(|(to, from)| *to = from);
        Ok(())
    }

    /// Steps and scalars of a parameter, and whether it has been stepped.
    fn param_state(&self, i: usize) -> PyResult<(u64, Vec<f64>, bool)> {
        let param = self.param(i)?;
        let count = self.group(param.group.0)?.spec.rule.info().scalar_names.len();
        let scalars = param.scalars.iter().take(count).copied().collect();
        Ok((param.steps, scalars, param.is_initialized))
    }

    /// Restores steps and scalars of a parameter, and whether it has been stepped.
    fn set_param_state(
        &mut self,
        i: usize,
        steps: u64,
        scalars: Vec<f64>,
        stepped: bool,
    ) -> PyResult<()> {
        let param = self.param_mut(i)?;
        param.steps = steps;
        param.is_initialized = stepped;
        param.scalars.iter_mut().zip(scalars).for_each(|(to, from)| *to = from);
        Ok(())
    }

    /// The slots in use of a parameter, under their keys of the reference: copies of their parts. `rows`: it holds this
    /// many rows of the parameter, and the first dimension of each part is that of its rows.
    #[pyo3(signature = (i, rows=None))]
    fn parts<'py>(
        &self,
        py: Python<'py>,
        i: usize,
        rows: Option<usize>,
    ) -> PyResult<Vec<Part<'py>>> {
        let param = self.param(i)?;
        let spec = &self.group(param.group.0)?.spec;
        let rule = &spec.rule;
        let mut held = param.shape.clone();
        if let (Some(rows), Some(first)) = (rows, held.first_mut()) {
            *first = rows;
        }
        let mut parts: Vec<Part<'py>> = Vec::new();
        for (k, (name, slot)) in rule.info().slots.iter().zip(&param.slots).enumerate() {
            let mut shape = Vec::new();
            rule.slot_shape(k, &held, &mut |d| shape.push(d));
            match slot {
                Buffer::Encoded(encoded) => {
                    let row = param.shape.iter().skip(1).product();
                    let by_row = spec.slot_format(k, &param.shape, param.dtype).layout(row);
                    for (j, part) in encoded.parts(name).into_iter().enumerate() {
                        let bytes = PyByteArray::new(py, &part.bytes);
                        let shape = match (rows, by_row) {
                            (Some(rows), Some(layout)) => vec![rows, layout[j.min(1)].1],
                            _ => vec![part.bytes.len() / part.element.size()],
                        };
                        parts.push((Some(k), part.key, raw_name(part.element), shape, bytes));
                    }
                }
                // Not in use.
                _ if rows.is_some() && spec.slot_len(k, &param.shape, param.dtype) == 0 => {}
                slot if slot.len() != shape.iter().product::<usize>() => {}
                slot => {
                    let element = slot.data().map_or(RawDtype::F32, |data| data.dtype().into());
                    let bytes = PyByteArray::new(py, &plain_bytes(slot));
                    parts.push((Some(k), (*name).to_owned(), raw_name(element), shape, bytes));
                }
            }
        }
        if let Some(correction) = &param.correction {
            let bytes = PyByteArray::new(py, &correction.bytes());
            let (key, element) = (correction_key(correction), raw_name(correction.element()));
            parts.push((None, key.to_owned(), element, held, bytes));
        }
        Ok(parts)
    }

    /// Overwrites a part that `parts` lists.
    fn set_part(
        &mut self,
        i: usize,
        slot: Option<usize>,
        key: &str,
        bytes: &Bound<'_, PyBytes>,
    ) -> PyResult<()> {
        let bytes = bytes.as_bytes();
        let names = self.group(self.param(i)?.group.0)?.spec.rule.info().slots;
        let param = self.param_mut(i)?;
        let Some(k) = slot else {
            let correction = param.correction.as_mut();
            let correction = correction.ok_or_else(|| PyKeyError::new_err(key.to_owned()))?;
            return correction.set_bytes(bytes).map_err(error);
        };
        let (Some(name), Some(slot)) = (names.get(k), param.slots.get_mut(k)) else {
            return Err(PyIndexError::new_err("no such slot"));
        };
        let Buffer::Encoded(encoded) = slot else { return set_plain(slot, bytes, key) };
        let part = encoded.parts(name).into_iter().find(|part| part.key == key);
        let part = part.ok_or_else(|| PyKeyError::new_err(key.to_owned()))?;
        encoded.set_part(name, &RawPart { bytes: bytes.to_vec(), ..part }).map_err(error)
    }

    /// The 16 random bits of each element to round with in the next steps, as bytes of `uint16`; `None`: generated ones.
    fn set_rounding_bits(&mut self, i: usize, bits: Option<Vec<u16>>) -> PyResult<()> {
        self.param_mut(i)?.rounding_bits = bits;
        Ok(())
    }

    /// One step. `grads` are those of `params`; `None`: their attributes `grad`. `dense(tensor)` makes a contiguous copy
    /// of one that has gaps, and `back(tensor, copy)` writes it back. A rate that is `None` stays as it is.
    #[pyo3(signature = (params, grads, lrs, extra, threads, dense, back))]
    #[expect(clippy::too_many_arguments, reason = "called from one place")]
    fn step<'py>(
        &mut self,
        py: Python<'py>,
        params: &Bound<'py, PyList>,
        grads: Option<&Bound<'py, PyList>>,
        lrs: Option<Vec<Option<f64>>>,
        extra: Option<Vec<(String, f64)>>,
        threads: usize,
        dense: &Bound<'py, PyAny>,
        back: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        self.check_count("params", params.len())?;
        if let Some(grads) = grads {
            self.check_count("grads", grads.len())?;
        }
        let mut reader = Reader::new(py);
        let mut memory = Vec::with_capacity(params.len());
        // What has to live, and what has to be written back.
        let mut held: Vec<Bound<'py, PyAny>> = Vec::with_capacity(params.len());
        let mut copies = Vec::new();
        let mut total = 0;
        for (i, (param, state)) in params.iter().zip(self.inner.params()).enumerate() {
            let grad = match grads {
                Some(grads) => grads.get_item(i)?,
                None => param.getattr(intern!(py, "grad"))?,
            };
            let shape = held_shape(state);
            let value = match reader.memory(&param, shape, &|| format!("params[{i}]")) {
                Ok(memory) => memory,
                Err(Refusal::Other(error)) => {
                    if grad.is_none() {
                        memory.push(None);
                        continue;
                    }
                    return Err(error);
                }
                Err(Refusal::Strided) if grad.is_none() => {
                    memory.push(None);
                    continue;
                }
                Err(Refusal::Strided) => {
                    let copy = dense.call1((&param,))?;
                    let read = reader.memory(&copy, shape, &|| format!("params[{i}]"));
                    copies.push((param.clone(), copy.clone()));
                    held.push(copy);
                    read.map_err(|refusal| strided(refusal, i, "params"))?
                }
            };
            let grad = if grad.is_none() {
                None
            } else {
                let what = || format!("grads[{i}]");
                let read = match reader.memory(&grad, shape, &what) {
                    Err(Refusal::Strided) => {
                        let copy = dense.call1((&grad,))?;
                        let read = reader.memory(&copy, shape, &what);
                        held.push(copy);
                        read
                    }
                    read => {
                        held.push(grad);
                        read
                    }
                };
                total += value.len();
                Some(read.map_err(|refusal| strided(refusal, i, "grads"))?)
            };
            memory.push(Some((value, grad)));
        }
        if let Err(i) = check_disjoint(&memory) {
            let message =
                format!("params[{i}] or its gradient shares memory with another parameter");
            return Err(PyValueError::new_err(message));
        }
        for (group, lr) in self.inner.groups_mut().iter_mut().zip(lrs.unwrap_or_default()) {
            group.lr = lr.unwrap_or(group.lr);
        }
        let extra = extra.unwrap_or_default();
        let extra: Vec<(&str, f64)> = extra.iter().map(|(name, x)| (name.as_str(), *x)).collect();
        let inner = &mut self.inner;
        py.detach(|| {
            let complete = memory.iter().all(Option::is_some);
            // SAFETY: `params` and `held` keep the tensors; the caller must not resize, read or write them
            // during the step, as with every optimizer; `check_disjoint` has found that none overlaps another.
            let views = |m: &(Memory, Option<Memory>)| unsafe {
                (m.0.data_mut(), m.1.as_ref().map(|grad| grad.data()))
            };
            if complete {
                let mut params: Vec<Param<'_>> = memory
                    .iter()
                    .flatten()
                    .map(|m| {
                        let (value, grad) = views(m);
                        Param { value, grad }
                    })
                    .collect();
                if threads <= 1 || total / 2 < GRAIN {
                    return inner.step_all(&mut params, &extra).map_err(error);
                }
                return pool(threads)?
                    .install(|| bitstep_rayon::step(inner, &mut params, &extra))
                    .map_err(error);
            }
            let updates = memory.iter().enumerate().filter_map(|(i, m)| {
                let (value, grad) = views(m.as_ref()?);
                Some((ParamId(i), value, grad?))
            });
            inner.step_with(updates, &extra).map_err(error)
        })?;
        for (param, copy) in copies {
            back.call1((param, copy))?;
        }
        Ok(())
    }

    /// One step of one parameter alone, by a rule that needs nothing of other gradients; the other arguments are those
    /// of `step`.
    #[expect(clippy::too_many_arguments, reason = "called from one place")]
    fn step_one<'py>(
        &mut self,
        py: Python<'py>,
        i: usize,
        param: &Bound<'py, PyAny>,
        grad: &Bound<'py, PyAny>,
        lrs: Vec<Option<f64>>,
        threads: usize,
        dense: &Bound<'py, PyAny>,
        back: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let state = self.param(i)?;
        let (shape, dtype) = (held_shape(state), state.dtype);
        let mut reader = Reader::new(py);
        let mut read = |tensor: &Bound<'py, PyAny>, what: &str| -> PyResult<_> {
            let name = || format!("{what}[{i}]");
            match reader.memory(tensor, shape, &name) {
                Err(Refusal::Strided) => {
                    let copy = dense.call1((tensor,))?;
                    let memory = reader.memory(&copy, shape, &name);
                    Ok((memory.map_err(|refusal| strided(refusal, i, what))?, copy))
                }
                memory => {
                    Ok((memory.map_err(|refusal| strided(refusal, i, what))?, tensor.clone()))
                }
            }
        };
        let (value, held) = read(param, "params")?;
        let (grad, _held_grad) = read(grad, "grads")?;
        if check_disjoint(&[Some((value.clone(), Some(grad.clone())))]).is_err() {
            return Err(PyValueError::new_err(format!(
                "params[{i}] shares memory with its gradient"
            )));
        }
        // SAFETY: as in `step`.
        if unsafe { value.data_mut() }.dtype() != Some(dtype) {
            let message = format!("params[{i}] is not of the type that it was added with");
            return Err(PyValueError::new_err(message));
        }
        for (group, lr) in self.inner.groups_mut().iter_mut().zip(lrs) {
            group.lr = lr.unwrap_or(group.lr);
        }
        let inner = &mut self.inner;
        py.detach(|| {
            // SAFETY: as in `step`; `held` and `_held_grad` keep the tensors.
            let (len, value, grad) = unsafe { (value.len(), value.data_mut(), grad.data()) };
            let mut grads = vec![None; inner.params().len()];
            if let Some(own) = grads.get_mut(i) {
                *own = Some(grad);
            }
            inner.begin_step(&grads, &[]).map_err(error)?;
            let task = inner.step_param(ParamId(i), value, grad, 0, &[]).map_err(error)?;
            if threads <= 1 || len / 2 < GRAIN {
                return task.run().map_err(error);
            }
            pool(threads)?.install(|| bitstep_rayon::run(vec![task])).map_err(error)
        })?;
        if !held.is(param) {
            back.call1((param, held))?;
        }
        Ok(())
    }

    /// Converts the parameters to the values to evaluate or to train.
    fn switch<'py>(
        &mut self,
        py: Python<'py>,
        params: &Bound<'py, PyList>,
        train: bool,
    ) -> PyResult<()> {
        self.check_count("params", params.len())?;
        let mut reader = Reader::new(py);
        let mut memory = Vec::with_capacity(params.len());
        for (i, (param, state)) in params.iter().zip(self.inner.params()).enumerate() {
            let read = reader.memory(&param, held_shape(state), &|| format!("params[{i}]"));
            memory.push(Some((read.map_err(|refusal| strided(refusal, i, "params"))?, None)));
        }
        if let Err(i) = check_disjoint(&memory) {
            let message = format!("params[{i}] shares memory with another parameter");
            return Err(PyValueError::new_err(message));
        }
        let inner = &mut self.inner;
        py.detach(|| {
            // SAFETY: as in `step`.
            let values = memory.iter().flatten().map(|(value, _)| unsafe { value.data_mut() });
            let mut values: Vec<_> = values.collect();
            if train { inner.train(&mut values) } else { inner.eval(&mut values) }
        })
        .map_err(error)
    }

    /// Whether parameters hold their training values.
    #[getter]
    fn training(&self) -> bool {
        self.inner.mode() == Mode::Train
    }

    /// Sets which values parameters hold, without converting them.
    #[setter]
    fn set_training(&mut self, train: bool) {
        self.inner.restore_mode(if train { Mode::Train } else { Mode::Eval });
    }

    /// State, counters and arguments as bytes, the same as the core's.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.inner.save().map_err(error)?))
    }

    /// Restores what `save` returned.
    fn load(&mut self, state: &[u8]) -> PyResult<()> {
        self.inner.load(state).map_err(error)
    }
}

/// The dimensions of the tensor that a step takes: one, for a part of a parameter.
fn held_shape(state: &ParamState) -> &[usize] {
    if state.is_part() { std::slice::from_ref(&state.len) } else { &state.shape }
}

fn strided(refusal: Refusal, i: usize, what: &str) -> PyErr {
    match refusal {
        Refusal::Other(error) => error,
        Refusal::Strided => PyValueError::new_err(format!(
            "{what}[{i}]: its elements are not contiguous and aligned, and no copy of it is either"
        )),
    }
}

/// The 256 values of an 8-bit map, from the most negative.
#[pyfunction]
pub(crate) fn quantization_map(signed: bool) -> PyResult<Vec<f32>> {
    let format = StorageFormat::DynamicQuant8(DynamicQuant8 { signed, cpu_grid: false });
    let mut all = EncodedBuffer::zeros(format, 256).map_err(error)?;
    let mut parts = all.parts("");
    for part in &mut parts {
        part.bytes = match part.element {
            RawDtype::U8 => (0..=255).collect(),
            _ => 1f32.to_le_bytes().repeat(part.bytes.len() / 4),
        };
        all.set_part("", part).map_err(error)?;
    }
    let mut values = vec![0f32; 256];
    all.load(0, &mut values);
    Ok(values)
}
