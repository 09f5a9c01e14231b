//! An optimizer whose state lives on a device.

use bitstep::float::Dtype;
use bitstep::optimizer::{Buffer, Group, GroupId, Optimizer, OptimizerSpec, ParamId, PreparedStep};
use bitstep::rule::DynRule;
use bitstep::rule::ScalarState;
use bitstep::storage::{
    DataMut, RawBuffer, RawDtype, RawPart as StoragePart, RoundingBits, StorageFormat,
};

use crate::bytes::{bytes, multiply, read};
use crate::device_storage::DeviceStorage;
use crate::job::{PERSISTENT_BYTES, ParamJob};
use crate::kernel_spec::{has_kernels, persistent_scalar};
use crate::plan::{LaunchList, Readback, ReadbackKind, Workspace, no_kernel};
use crate::step::plan;
use crate::{Device, Error};

mod state_io;

/// A parameter in the device's memory, and its gradient; the numbers one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Where the parameter is.
    pub value: u64,
    /// How many elements it has.
    pub len: usize,
    /// The type and place of its gradient; `None` leaves the parameter and its state alone.
    pub grad: Option<(Dtype, u64)>,
}

/// Where a part of the state is, and how many bytes it has.
type Part = (u64, usize);

/// What the device holds of one parameter.
struct State {
    dtype: Dtype,
    len: usize,
    /// The format and the parts of each slot; `None` for one that is not in use.
    slots: Vec<Option<(StorageFormat, Vec<Part>)>>,
    /// What is kept beside the parameter: its format together with that, and the place.
    companion: Option<(StorageFormat, Part)>,
    /// [`ParamJob::kept`], for rules that carry numbers on.
    kept: Option<u64>,
    /// What of these numbers is to be read there.
    noted: Vec<Readback>,
}

/// Groups of parameters, with state in the device's memory.
///
/// Learning rates and counters are the host's, as everywhere: [`DeviceOptimizer::groups_mut`]. A step
/// waits for nothing, and allocates nothing once the first one is made and no parameter is added.
/// Only two kinds of rules make it wait: one that asks for a norm over all gradients (they are
/// read back: better [`clip`](crate::clip) them), and one that renews projectors from the gradient.
///
/// # In a CUDA graph
/// [`DeviceOptimizer::prepare`] is all that the host does for a step; [`DeviceOptimizer::launch`] launches
/// kernels and nothing else, and may be captured. Before each replay, `prepare` that step: while it
/// answers `true`, the launches are those that were captured.
pub struct DeviceOptimizer<D: Device> {
    device: D,
    optimizer: Optimizer,
    workspace: Workspace,
    states: Vec<State>,
    ready: LaunchList,
    by: Option<u64>,
}

impl<D: Device> DeviceOptimizer<D> {
    /// No groups yet.
    pub fn new(device: D) -> Self {
        let (optimizer, workspace) = (Optimizer::empty(), Workspace::default());
        DeviceOptimizer {
            device,
            optimizer,
            workspace,
            states: Vec::new(),
            ready: LaunchList::default(),
            by: None,
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
    pub fn add_group(&mut self, recipe: OptimizerSpec) -> Result<GroupId, Error<D::Error>> {
        if !has_kernels(&*recipe.rule) {
            return Err(no_kernel(&*recipe.rule));
        }
        Ok(self.optimizer.add_group(recipe)?)
    }

    /// [`Optimizer::add_param`]; the state is allocated on the device.
    ///
    /// # Errors
    /// Those of `add_param`, or the device's own.
    pub fn add_param(
        &mut self,
        group: GroupId,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<ParamId, Error<D::Error>> {
        let index = self.optimizer.add_param_to(group, shape, dtype)?;
        let state = self.upload(index.0, dtype).map_err(Error::Device)?;
        self.states.push(state);
        Ok(index)
    }

    /// Brings a parameter's state to the device; the host keeps none of it.
    fn upload(&mut self, index: usize, dtype: Dtype) -> Result<State, D::Error> {
        let device = &mut self.device;
        let number = {
            let param = &self.optimizer.params()[index];
            let rule = &*self.optimizer.groups()[param.group.0].spec.rule;
            (!rule.info().scalar_names.is_empty()).then(|| {
                persistent_scalar(rule).and_then(|k| param.scalars.get(k)).copied().unwrap_or(0.0)
            })
        };
        let param = &mut self.optimizer.params_mut()[index];
        let mut slots = Vec::new();
        for slot in &mut param.slots {
            let slot = std::mem::replace(slot, Buffer::F32(Vec::new()));
            slots.push(match slot.is_empty() {
                true => None,
                false => Some(put(device, slot)?),
            });
        }
        let companion = match param.correction.take() {
            None => None,
            Some(raw) => {
                let format = match raw {
                    RawBuffer::I8(_) => StorageFormat::SplitFloat(dtype, 8),
                    RawBuffer::I16(_) => StorageFormat::SplitFloat(dtype, 16),
                    _ => StorageFormat::KahanPair(dtype),
                };
                Some((format, part(device, &raw.bytes())?))
            }
        };
        let kept = match number {
            None => None,
            Some(number) => {
                let mut bytes = vec![0; PERSISTENT_BYTES];
                bytes[..8].copy_from_slice(&number.to_le_bytes());
                Some(part(device, &bytes)?.0)
            }
        };
        let len = param.shape.iter().product();
        Ok(State { dtype, len, slots, companion, kept, noted: Vec::new() })
    }

    /// The groups: learning rates and counters.
    pub fn groups(&self) -> &[Group] {
        self.optimizer.groups()
    }

    /// The groups, to set learning rates.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        self.optimizer.groups_mut()
    }

    /// The rule's numbers carried on for a parameter, read from the device where it found them;
    /// `None` if there is no such parameter.
    ///
    /// # Errors
    /// The device's own.
    pub fn scalars(&mut self, param: ParamId) -> Result<Option<ScalarState>, Error<D::Error>> {
        let (Some(state), Some(own)) =
            (self.states.get_mut(param.0), self.optimizer.params_mut().get_mut(param.0))
        else {
            return Ok(None);
        };
        for record in &state.noted {
            record.read_back(&mut self.device, &mut own.scalars).map_err(Error::Device)?;
        }
        state.noted.clear();
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
    /// Not a tensor for each parameter, a wrong length, an address that is not a multiple of its
    /// type's size, tensors that overlap or are not the device's, or what has no kernels: before
    /// anything is launched. Or the device's own.
    ///
    /// # Safety
    /// Each tensor's memory is the device's, has the length that it says, and is used by nobody
    /// else until what is launched here has run.
    pub unsafe fn step(
        &mut self,
        tensors: &[Tensor],
        given: &[(&str, f64)],
    ) -> Result<(), Error<D::Error>> {
        // SAFETY: as the caller promises.
        unsafe {
            self.prepare(tensors, given)?;
            self.launch()
        }
    }

    /// From now on, steps multiply gradients on their way by a number of type `f64` that the device
    /// has at that address, as [`norm`](crate::norm) leaves one; gradients themselves stay as they
    /// are. The bits are those of [`clip`](crate::clip) and a step, for two passes less. `None`: no
    /// longer.
    ///
    /// # Safety
    /// The number is there until the last of those steps has run.
    pub unsafe fn set_grad_scale(&mut self, by: Option<u64>) {
        self.by = by;
    }

    /// The host's part of a step: counters move on, constants and tables are written. Whether the
    /// launches to come are those of the step before, address for address.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// # Safety
    /// As [`step`](Self::step), until what [`launch`](Self::launch) launches has run.
    pub unsafe fn prepare(
        &mut self,
        tensors: &[Tensor],
        given: &[(&str, f64)],
    ) -> Result<bool, Error<D::Error>> {
        check(&mut self.device, &self.states, tensors)?;
        let types = self.states.iter().zip(tensors);
        let types: Vec<_> = types.map(|(s, t)| Some([s.dtype, t.grad?.0])).collect();
        let mut grads = Vec::new();
        if self.optimizer.groups().iter().any(|g| g.spec.rule.grad_norm_divisor(given).is_some()) {
            for (tensor, (dtype, at)) in tensors.iter().filter_map(|t| Some((t, t.grad?))) {
                let mut grad = Buffer::zeros(dtype, tensor.len)?;
                read(&mut self.device, at, &mut grad).map_err(Error::Device)?;
                multiply(&mut self.device, self.by, &mut grad).map_err(Error::Device)?;
                grads.push(grad);
            }
        }
        let grads: Vec<_> = grads.iter().filter_map(Buffer::data).collect();
        let norm = |rule: &dyn DynRule, scale| rule.grad_norm(&grads, scale);
        let mut turns = self.optimizer.prepare_all(&types, given, norm)?;
        let mut jobs = Vec::new();
        for (index, turn) in &mut turns {
            let (state, tensor) = (&self.states[index.0], &tensors[index.0]);
            let Some(grad) = tensor.grad else { continue };
            let slot = |slot: &Option<(StorageFormat, Vec<Part>)>| {
                let (format, parts) = slot.as_ref()?;
                let at = |k: usize| parts.get(k).map_or(0, |p| p.0);
                Some(DeviceStorage::At(*format, at(0), at(1)))
            };
            jobs.push(ParamJob {
                param: place(state, tensor.value, turn)?,
                rule: turn.rule,
                policy: turn.policy,
                step: turn.step,
                scalars: turn.scalars.get(),
                shape: turn.shape,
                grad,
                slots: state.slots.iter().map(slot).collect(),
                starts: turn.step.is_first,
                persistent: state.kept,
                grad_scale: self.by,
            });
        }
        let (ready, records) = plan(&mut self.device, &mut self.workspace, &mut jobs)?;
        drop(jobs);
        for (index, _) in &turns {
            self.states[index.0].noted.clear();
        }
        for record in records {
            // Jobs are turns.
            let Some((index, turn)) = turns.get_mut(record.index) else { continue };
            match record.what {
                ReadbackKind::Finished(..) => {
                    record.read_back(&mut self.device, turn.scalars.get())
                }
                _ => {
                    self.states[index.0].noted.push(record);
                    Ok(())
                }
            }
            .map_err(Error::Device)?;
        }
        let same = self.ready == ready;
        self.ready = ready;
        Ok(same)
    }

    /// The device's part of a step that has been [prepared](Self::prepare): launches, and nothing
    /// else.
    ///
    /// # Errors
    /// The device's own.
    ///
    /// # Safety
    /// The tensors are still what they were when the step was prepared.
    pub unsafe fn launch(&mut self) -> Result<(), Error<D::Error>> {
        self.ready.launch(&mut self.device)
    }
}

impl State {
    /// What has been allocated.
    fn memory(&self) -> impl Iterator<Item = u64> {
        let parts = self.slots.iter().flatten().flat_map(|(_, parts)| parts.iter().map(|p| p.0));
        parts.chain(self.companion.map(|(_, part)| part.0)).chain(self.kept)
    }
}

impl<D: Device> Drop for DeviceOptimizer<D> {
    fn drop(&mut self) {
        for at in self.states.iter().flat_map(State::memory).chain(self.workspace.memory()) {
            // Nobody is left to hear of an error.
            let _ = self.device.free(at);
        }
    }
}

fn part<D: Device>(device: &mut D, bytes: &[u8]) -> Result<Part, D::Error> {
    let at = device.alloc(bytes.len())?;
    device.write(at, bytes)?;
    Ok((at, bytes.len()))
}

fn put<D: Device>(device: &mut D, slot: Buffer) -> Result<(StorageFormat, Vec<Part>), D::Error> {
    if let Buffer::Encoded(coded) = &slot {
        let parts = coded.parts("").into_iter().map(|p| part(device, &p.bytes));
        return Ok((coded.format(), parts.collect::<Result<_, _>>()?));
    }
    let dtype = slot.data().map_or(Dtype::F32, |data| data.dtype());
    Ok((StorageFormat::Plain(dtype), vec![part(device, &bytes(&slot))?]))
}

fn place<E>(state: &State, at: u64, turn: &PreparedStep<'_>) -> Result<DeviceStorage, Error<E>> {
    let dtype = state.dtype;
    if let Some((format, beside)) = state.companion {
        return Ok(DeviceStorage::At(format, at, beside.0));
    }
    Ok(match turn.rounding_bits {
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

/// Refuses what a kernel would take for something else.
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
    // The furthest that any range, and that any written one, has come so far.
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
