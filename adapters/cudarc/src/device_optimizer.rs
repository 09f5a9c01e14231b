//! An optimizer with its state in device memory.

use bitstep::float::Dtype;
use bitstep::optimizer::{
    Buffer, Group, GroupId, Optimizer, OptimizerSpec, ParamId, ParamState, PreparedStep,
};
use bitstep::rule::DynRule;
use bitstep::rule::ScalarState;
use bitstep::storage::{
    DataMut, RawBuffer, RawDtype, RawPart as StoragePart, RoundingBits, StorageFormat,
};

use crate::bytes::{apply_grad_scale, bytes, read};
use crate::device_storage::DeviceStorage;
use crate::job::{PERSISTENT_BYTES, ParamJob};
use crate::kernel_spec::{has_kernels, persistent_scalar};
use crate::plan::{LaunchList, Readback, ReadbackKind, Workspace, no_kernel};
use crate::step::plan;
use crate::{Device, Error};

mod state_io;

/// A contiguous parameter in device memory, and its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The parameter's address.
    pub value: u64,
    /// Its number of elements.
    pub len: usize,
    /// The type and address of its gradient; `None` leaves the parameter and its state unchanged.
    pub grad: Option<(Dtype, u64)>,
}

/// The address and size in bytes of a part of the state.
type Part = (u64, usize);

/// The state of one parameter on the device.
struct State {
    dtype: Dtype,
    len: usize,
    /// The format and the parts of each slot; `None` for one that is not in use.
    slots: Vec<Option<(StorageFormat, Vec<Part>)>>,
    /// The correction bits of the parameter: the format that both form, and the bits.
    correction: Option<(StorageFormat, Part)>,
    /// [`ParamJob::persistent`], for rules with per-step scalars.
    persistent: Option<u64>,
    /// The readbacks of those scalars that are still to be made.
    readbacks: Vec<Readback>,
}

/// What a step counts, to undo it.
struct Counters {
    groups: Vec<(u64, ScalarState)>,
    params: Vec<(u64, ScalarState, bool)>,
}

impl Counters {
    fn of(optimizer: &Optimizer) -> Self {
        let params = optimizer.params().iter().map(|p| (p.steps, p.scalars, p.is_initialized));
        Counters {
            groups: optimizer.groups().iter().map(|g| (g.steps, g.scalars)).collect(),
            params: params.collect(),
        }
    }

    fn restore(self, optimizer: &mut Optimizer) {
        for (group, old) in optimizer.groups_mut().iter_mut().zip(self.groups) {
            (group.steps, group.scalars) = old;
        }
        for (param, old) in optimizer.params_mut().iter_mut().zip(self.params) {
            (param.steps, param.scalars, param.is_initialized) = old;
        }
    }
}

/// Groups of parameters, with their state in device memory.
///
/// Learning rates and counters are on the host: [`DeviceOptimizer::groups_mut`]. A step does not wait
/// for the device, and allocates only at first or after a parameter was added. Two kinds of rules do
/// wait: those that need the norm over all gradients, which are read back (prefer to
/// [`clip`](crate::clip) them), and those that refresh projectors from the gradient.
///
/// # CUDA graphs
/// [`DeviceOptimizer::prepare`] is the host's part of a step. [`DeviceOptimizer::launch`] only launches
/// kernels and may be captured. Before each replay, `prepare` the step: as long as it returns `true`,
/// the launches are those that were captured.
pub struct DeviceOptimizer<D: Device> {
    device: D,
    optimizer: Optimizer,
    workspace: Workspace,
    states: Vec<State>,
    launch_list: LaunchList,
    grad_scale: Option<u64>,
}

impl<D: Device> DeviceOptimizer<D> {
    /// An optimizer without groups.
    pub fn new(device: D) -> Self {
        let (optimizer, workspace) = (Optimizer::empty(), Workspace::default());
        DeviceOptimizer {
            device,
            optimizer,
            workspace,
            states: Vec::new(),
            launch_list: LaunchList::default(),
            grad_scale: None,
        }
    }

    /// The device.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// [`Optimizer::add_group`].
    ///
    /// # Errors
    /// An invalid configuration, or a rule without kernels.
    pub fn add_group(&mut self, spec: OptimizerSpec) -> Result<GroupId, Error<D::Error>> {
        if !has_kernels(&*spec.rule) {
            return Err(no_kernel(&*spec.rule));
        }
        Ok(self.optimizer.add_group(spec)?)
    }

    /// [`Optimizer::add_param_to`], with the state in device memory.
    ///
    /// # Errors
    /// Those of `add_param_to`, or an error of the device. Nothing has changed then.
    pub fn add_param(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<ParamId, Error<D::Error>> {
        let index = self.optimizer.add_param_to(group, shape, dtype)?;
        let state = upload(&mut self.device, &mut self.optimizer, index.0);
        if state.is_err() {
            self.optimizer.remove_last_param();
        }
        self.states.push(state.map_err(Error::Device)?);
        Ok(index)
    }

    /// The groups: learning rates and counters.
    pub fn groups(&self) -> &[Group] {
        self.optimizer.groups()
    }

    /// The groups, to set learning rates.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        self.optimizer.groups_mut()
    }

    /// The per-step scalars of a parameter, read from the device where it computes them; `None` if there
    /// is no such parameter.
    ///
    /// # Errors
    /// An error of the device.
    pub fn scalars(&mut self, param: ParamId) -> Result<Option<ScalarState>, Error<D::Error>> {
        let (Some(state), Some(own)) =
            (self.states.get_mut(param.0), self.optimizer.params_mut().get_mut(param.0))
        else {
            return Ok(None);
        };
        for readback in &state.readbacks {
            readback.read_back(&mut self.device, &mut own.scalars).map_err(Error::Device)?;
        }
        state.readbacks.clear();
        Ok(Some(own.scalars))
    }

    /// The type that a parameter was added with.
    #[must_use]
    pub fn dtype(&self, param: ParamId) -> Option<Dtype> {
        self.states.get(param.0).map(|state| state.dtype)
    }

    /// One step of all parameters, in the order in which they were added.
    ///
    /// # Errors
    /// Another number of tensors than parameters, a wrong length, a misaligned address, tensors that
    /// overlap or do not belong to the device, or a storage without kernels, before anything is
    /// launched. Or an error of the device.
    ///
    /// # Safety
    /// Each tensor's memory belongs to the device, has the stated length, and is not used by anything
    /// else until the launches have run.
    pub unsafe fn step(
        &mut self,
        tensors: &[Tensor],
        extra: &[(&str, f64)],
    ) -> Result<(), Error<D::Error>> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            self.prepare(tensors, extra)?;
            self.launch()
        }
    }

    /// Makes steps multiply gradients, as they load them, by the `f64` at a device address, such as the
    /// factor that [`norm`](crate::norm) writes. The gradients in memory are not modified. The bits are
    /// those of [`clip`](crate::clip) and a step, with two passes over the gradients less. `None` stops
    /// it.
    ///
    /// # Safety
    /// The address is valid until the last of those steps has run.
    pub unsafe fn set_grad_scale(&mut self, grad_scale: Option<u64>) {
        self.grad_scale = grad_scale;
    }

    /// The host's part of a step: advances counters, and writes constants and tables. Returns whether
    /// the launches are identical to the previous step's, addresses included.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// # Safety
    /// As [`step`](Self::step), until what [`launch`](Self::launch) launches has run.
    pub unsafe fn prepare(
        &mut self,
        tensors: &[Tensor],
        extra: &[(&str, f64)],
    ) -> Result<bool, Error<D::Error>> {
        check(&mut self.device, &self.states, tensors)?;
        let counters = Counters::of(&self.optimizer);
        let memory: Vec<u64> = self.workspace.memory().collect();
        let launch_list = self.count_and_plan(tensors, extra);
        if launch_list.is_err() {
            counters.restore(&mut self.optimizer);
            if !self.workspace.memory().eq(memory) {
                // What was prepared before has its tables in memory that is freed.
                self.launch_list = LaunchList::default();
            }
        }
        let launch_list = launch_list?;
        let unchanged = self.launch_list == launch_list;
        self.launch_list = launch_list;
        Ok(unchanged)
    }

    /// Counts the step and plans its launches. On an error the step is counted all the same.
    fn count_and_plan(
        &mut self,
        tensors: &[Tensor],
        extra: &[(&str, f64)],
    ) -> Result<LaunchList, Error<D::Error>> {
        let types = self.states.iter().zip(tensors);
        let types: Vec<_> = types.map(|(s, t)| Some([s.dtype, t.grad?.0])).collect();
        let mut grads = Vec::new();
        if self.optimizer.groups().iter().any(|g| g.spec.rule.grad_norm_divisor(extra).is_some()) {
            for (tensor, (dtype, at)) in tensors.iter().filter_map(|t| Some((t, t.grad?))) {
                let mut grad = Buffer::zeros(dtype, tensor.len)?;
                read(&mut self.device, at, &mut grad).map_err(Error::Device)?;
                apply_grad_scale(&mut self.device, self.grad_scale, &mut grad)
                    .map_err(Error::Device)?;
                grads.push(grad);
            }
        }
        let grads: Vec<_> = grads.iter().filter_map(Buffer::data).collect();
        let norm = |rule: &dyn DynRule, scale| rule.grad_norm(&grads, scale);
        let mut prepared = self.optimizer.prepare_all(&types, extra, norm)?;
        let mut jobs = Vec::new();
        for (index, prepared) in &mut prepared {
            let (state, tensor) = (&self.states[index.0], &tensors[index.0]);
            let Some(grad) = tensor.grad else { continue };
            let slot = |slot: &Option<(StorageFormat, Vec<Part>)>| {
                let (format, parts) = slot.as_ref()?;
                let at = |k: usize| parts.get(k).map_or(0, |p| p.0);
                Some(DeviceStorage::At(*format, at(0), at(1)))
            };
            jobs.push(ParamJob {
                param: param_storage(state, tensor.value, prepared)?,
                rule: prepared.rule,
                policy: prepared.policy,
                step: prepared.step,
                scalars: prepared.scalars.get(),
                shape: prepared.shape,
                grad,
                slots: state.slots.iter().map(slot).collect(),
                starts: prepared.step.is_first,
                persistent: state.persistent,
                grad_scale: self.grad_scale,
            });
        }
        let (launch_list, readbacks) = plan(&mut self.device, &mut self.workspace, &mut jobs)?;
        drop(jobs);
        let mut later: Vec<_> = prepared.iter().map(|(index, _)| (*index, Vec::new())).collect();
        for readback in readbacks {
            // Job i belongs to prepared step i.
            let job = readback.index;
            let (Some((_, prepared)), Some((_, later))) =
                (prepared.get_mut(job), later.get_mut(job))
            else {
                continue;
            };
            match readback.what {
                ReadbackKind::HostConstants(..) => readback
                    .read_back(&mut self.device, prepared.scalars.get())
                    .map_err(Error::Device)?,
                _ => later.push(readback),
            }
        }
        for (index, readbacks) in later {
            self.states[index.0].readbacks = readbacks;
        }
        Ok(launch_list)
    }

    /// The device's part of a [prepared](Self::prepare) step: launches only.
    ///
    /// # Errors
    /// An error of the device.
    ///
    /// # Safety
    /// The tensors are still as they were when the step was prepared.
    pub unsafe fn launch(&mut self) -> Result<(), Error<D::Error>> {
        self.launch_list.launch(&mut self.device)
    }
}

impl State {
    /// Moves the state of a parameter to the device; `number` is what a persistent part begins with. On an
    /// error this has what has been allocated.
    fn fill<D: Device>(
        &mut self,
        device: &mut D,
        param: &mut ParamState,
        number: Option<f64>,
    ) -> Result<(), D::Error> {
        for slot in &mut param.slots {
            let slot = std::mem::replace(slot, Buffer::F32(Vec::new()));
            if slot.is_empty() {
                self.slots.push(None);
                continue;
            }
            let (format, parts) = parts_of(&slot);
            self.slots.push(Some((format, Vec::new())));
            for part in parts {
                let part = upload_part(device, &part)?;
                if let Some(Some((_, parts))) = self.slots.last_mut() {
                    parts.push(part);
                }
            }
        }
        if let Some(raw) = param.correction.take() {
            let format = match raw {
                RawBuffer::I8(_) => StorageFormat::SplitFloat(self.dtype, 8),
                RawBuffer::I16(_) => StorageFormat::SplitFloat(self.dtype, 16),
                _ => StorageFormat::KahanPair(self.dtype),
            };
            self.correction = Some((format, upload_part(device, &raw.bytes())?));
        }
        if let Some(number) = number {
            let mut bytes = vec![0; PERSISTENT_BYTES];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            self.persistent = Some(upload_part(device, &bytes)?.0);
        }
        Ok(())
    }

    /// The addresses of all allocations.
    fn memory(&self) -> impl Iterator<Item = u64> {
        let parts = self.slots.iter().flatten().flat_map(|(_, parts)| parts.iter().map(|p| p.0));
        parts.chain(self.correction.map(|(_, part)| part.0)).chain(self.persistent)
    }
}

impl<D: Device> Drop for DeviceOptimizer<D> {
    fn drop(&mut self) {
        for at in self.states.iter().flat_map(State::memory).chain(self.workspace.memory()) {
            // Errors in `Drop` can't be reported.
            let _ = self.device.free(at);
        }
    }
}

/// Moves a parameter's state from the host to the device. On an error it is lost on the host, and nothing is
/// left on the device.
fn upload<D: Device>(
    device: &mut D,
    optimizer: &mut Optimizer,
    index: usize,
) -> Result<State, D::Error> {
    let param = &optimizer.params()[index];
    let rule = &*optimizer.groups()[param.group.0].spec.rule;
    let number = (!rule.info().scalar_names.is_empty()).then(|| {
        persistent_scalar(rule).and_then(|k| param.scalars.get(k)).copied().unwrap_or(0.0)
    });
    let mut state = State {
        dtype: param.dtype,
        len: param.shape.iter().product(),
        slots: Vec::new(),
        correction: None,
        persistent: None,
        readbacks: Vec::new(),
    };
    let filled = state.fill(device, &mut optimizer.params_mut()[index], number);
    if filled.is_err() {
        free(device, &state);
    }
    filled.map(|()| state)
}

/// Frees a state's memory, whatever the device says to it.
fn free<D: Device>(device: &mut D, state: &State) {
    for at in state.memory() {
        let _ = device.free(at);
    }
}

fn upload_part<D: Device>(device: &mut D, bytes: &[u8]) -> Result<Part, D::Error> {
    let at = device.alloc(bytes.len())?;
    let written = device.write(at, bytes);
    if written.is_err() {
        let _ = device.free(at);
    }
    written.map(|()| (at, bytes.len()))
}

/// The format of a slot, and the bytes of its parts.
fn parts_of(slot: &Buffer) -> (StorageFormat, Vec<Vec<u8>>) {
    if let Buffer::Encoded(encoded) = slot {
        return (encoded.format(), encoded.parts("").into_iter().map(|p| p.bytes).collect());
    }
    let dtype = slot.data().map_or(Dtype::F32, |data| data.dtype());
    (StorageFormat::Plain(dtype), vec![bytes(slot)])
}

fn param_storage<E>(
    state: &State,
    at: u64,
    prepared: &PreparedStep<'_>,
) -> Result<DeviceStorage, Error<E>> {
    let dtype = state.dtype;
    if let Some((format, beside)) = state.correction {
        return Ok(DeviceStorage::At(format, at, beside.0));
    }
    Ok(match prepared.rounding_bits {
        Some(RoundingBits::Counter { seed, step, .. })
            if matches!(dtype, Dtype::Bf16 | Dtype::F16) =>
        {
            DeviceStorage::Dithered { dtype, at, bits: 0, counter: [seed, step] }
        }
        Some(RoundingBits::Provided(_)) => {
            return Err(Error::NoKernel("bits drawn by the host".into()));
        }
        _ => DeviceStorage::plain(dtype, at),
    })
}

/// Refuses tensors that kernels would read or write wrongly.
fn check<D: Device>(
    device: &mut D,
    states: &[State],
    tensors: &[Tensor],
) -> Result<(), Error<D::Error>> {
    if states.len() != tensors.len() {
        let (got, expected) = (tensors.len(), states.len());
        return Err(bitstep::Error::LengthMismatch { argument: "tensors", got, expected }.into());
    }
    let mut ranges = Vec::new();
    for (index, (state, tensor)) in states.iter().zip(tensors).enumerate() {
        if tensor.len != state.len {
            let (got, expected) = (tensor.len, state.len);
            return Err(bitstep::Error::LengthMismatch { argument: "param", got, expected }.into());
        }
        let value = Some((state.dtype, tensor.value, true));
        let grad = tensor.grad.map(|(dtype, at)| (dtype, at, false));
        for (dtype, at, written) in [value, grad].into_iter().flatten() {
            if tensor.len == 0 {
                continue;
            }
            let size = dtype.size() as u64;
            if at == 0 || !at.is_multiple_of(size) {
                return Err(Error::Misaligned { tensor: index, address: at, size });
            }
            ranges.push((at, at.saturating_add(tensor.len as u64 * size), written, index));
        }
    }
    ranges.sort_unstable();
    // The furthest end so far, of all ranges and of the written ones.
    let mut ends = [(0, 0); 2];
    for &(at, end, written, index) in &ranges {
        let clash = ends[usize::from(!written)];
        if clash.0 > at {
            return Err(Error::Overlap { tensors: [clash.1, index] });
        }
        ends[0] = ends[0].max((end, index));
        if written {
            ends[1] = ends[1].max((end, index));
        }
    }
    let mut ours = ranges.into_iter();
    ours.try_for_each(|(at, end, ..)| device.check(at, (end - at) as usize)).map_err(Error::Device)
}
