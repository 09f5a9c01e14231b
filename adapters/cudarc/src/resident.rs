//! An optimizer whose state lives on a device.

use bitstep::optimizer::{Buffer, Group, Optimizer, Recipe, Turn};
use bitstep::real::Dtype;
use bitstep::rule::Scalars;
use bitstep::storage::{Format, Noise, Raw};

use crate::bytes::bytes;
use crate::place::Place;
use crate::plan::{Job, Workspace, run};
use crate::{Device, Error};

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
    slots: Vec<Option<(Format, Vec<Part>)>>,
    /// What is kept beside the parameter: its format together with that, and the place.
    companion: Option<(Format, Part)>,
}

/// Groups of parameters, with state in the device's memory.
///
/// Learning rates and counters are the host's, as everywhere: [`Resident::groups_mut`]. A step
/// launches and returns; it waits for nothing, and allocates nothing once the first one is made
/// and no parameter is added, but for rules that carry numbers of a tensor's sums on: what these
/// noted is read back.
pub struct Resident<D: Device> {
    device: D,
    optimizer: Optimizer,
    workspace: Workspace,
    states: Vec<State>,
}

impl<D: Device> Resident<D> {
    /// No groups yet.
    pub fn new(device: D) -> Self {
        let (optimizer, workspace) = (Optimizer::new(), Workspace::default());
        Resident { device, optimizer, workspace, states: Vec::new() }
    }

    /// The device.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// [`Optimizer::add_group`].
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn add_group(&mut self, recipe: Recipe) -> Result<usize, Error<D::Error>> {
        Ok(self.optimizer.add_group(recipe)?)
    }

    /// [`Optimizer::add_param`]; the state is allocated on the device.
    ///
    /// # Errors
    /// Those of `add_param`, or the device's own.
    pub fn add_param(
        &mut self,
        group: usize,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<usize, Error<D::Error>> {
        let index = self.optimizer.add_param(group, shape, dtype)?;
        let param = &mut self.optimizer.params_mut()[index];
        let device = &mut self.device;
        let mut slots = Vec::new();
        for slot in &mut param.slots {
            // The host keeps none of it.
            let slot = std::mem::replace(slot, Buffer::zeros(Dtype::F32, 0));
            slots.push(match slot.is_empty() {
                true => None,
                false => Some(put(device, slot).map_err(Error::Device)?),
            });
        }
        let companion = match param.companion.take() {
            None => None,
            Some(raw) => {
                let format = match raw {
                    Raw::I8(_) => Format::Split(dtype, 8),
                    Raw::I16(_) => Format::Split(dtype, 16),
                    _ => Format::Kahan(dtype),
                };
                Some((format, part(device, &raw.bytes()).map_err(Error::Device)?))
            }
        };
        self.states.push(State { dtype, len: shape.iter().product(), slots, companion });
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

    /// The rule's numbers carried on for a parameter; `None` if there is no such parameter.
    pub fn scalars(&self, param: usize) -> Option<Scalars> {
        self.optimizer.params().get(param).map(|p| p.scalars)
    }

    /// Slot k of a parameter, read from the device as plain numbers or codes and what stands
    /// beside them; nothing if it is not in use.
    ///
    /// # Errors
    /// The device's own.
    pub fn slot(&mut self, param: usize, slot: usize) -> Result<Vec<Vec<u8>>, Error<D::Error>> {
        let found = self.states.get(param).and_then(|s| s.slots.get(slot)).and_then(Option::as_ref);
        let parts = found.map(|(_, parts)| parts.as_slice()).unwrap_or_default();
        let read = |&(at, len): &Part| {
            let mut bytes = vec![0; len];
            self.device.read(at, &mut bytes).map(|()| bytes)
        };
        parts.iter().map(read).collect::<Result<_, _>>().map_err(Error::Device)
    }

    /// One step of all parameters, in the order in which they were added.
    ///
    /// # Errors
    /// Not a tensor for each parameter, a wrong length, an address that is not a multiple of its
    /// type's size, tensors that overlap, or what has no kernels: before anything is launched.
    /// Or the device's own.
    ///
    /// # Safety
    /// Each tensor's memory is the device's, has the length that it says, and is used by nobody
    /// else until what is launched here has run.
    pub unsafe fn step(
        &mut self,
        tensors: &[Tensor],
        given: &[(&str, f64)],
    ) -> Result<(), Error<D::Error>> {
        check(&self.states, tensors)?;
        let types = self.states.iter().zip(tensors);
        let types: Vec<_> = types.map(|(s, t)| Some([s.dtype, t.grad?.0])).collect();
        let norm =
            self.optimizer.groups().iter().any(|g| g.recipe.rule.norm_scale(given).is_some());
        if norm {
            return Err(Error::NoKernel("the norm over all gradients that a rule asks for".into()));
        }
        let mut turns = self.optimizer.turns(&types, given, |_, _| f64::NAN)?;
        let mut jobs = Vec::new();
        for (index, turn) in &mut turns {
            let (state, tensor) = (&self.states[*index], &tensors[*index]);
            let Some(grad) = tensor.grad else { continue };
            let slot = |slot: &Option<(Format, Vec<Part>)>| {
                let (format, parts) = slot.as_ref()?;
                let at = |k: usize| parts.get(k).map_or(0, |p| p.0);
                Some(Place::At(*format, at(0), at(1)))
            };
            jobs.push(Job {
                param: place(state, tensor.value, turn)?,
                rule: turn.rule,
                arithmetic: turn.arithmetic,
                step: turn.step,
                scalars: turn.scalars.get(),
                shape: turn.shape,
                grad,
                slots: state.slots.iter().map(slot).collect(),
                starts: turn.step.first,
                kept: None,
            });
        }
        run(&mut self.device, &mut self.workspace, &mut jobs)
    }
}

impl<D: Device> Drop for Resident<D> {
    fn drop(&mut self) {
        let slots = self.states.iter().flat_map(|s| s.slots.iter().flatten());
        let parts = slots.flat_map(|(_, parts)| parts.iter().map(|p| p.0));
        let companions = self.states.iter().filter_map(|s| s.companion.map(|(_, p)| p.0));
        for at in parts.chain(companions).chain(self.workspace.memory()) {
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

fn put<D: Device>(device: &mut D, slot: Buffer) -> Result<(Format, Vec<Part>), D::Error> {
    if let Buffer::Coded(coded) = &slot {
        let parts = coded.parts("").into_iter().map(|p| part(device, &p.bytes));
        return Ok((coded.format(), parts.collect::<Result<_, _>>()?));
    }
    let dtype = slot.data().map_or(Dtype::F32, |data| data.dtype());
    Ok((Format::Plain(dtype), vec![part(device, &bytes(&slot))?]))
}

fn place<E>(state: &State, at: u64, turn: &Turn<'_>) -> Result<Place, Error<E>> {
    let dtype = state.dtype;
    if let Some((format, beside)) = state.companion {
        return Ok(Place::At(format, at, beside.0));
    }
    Ok(match turn.noise {
        Some(Noise::Counter { seed, step, .. }) if matches!(dtype, Dtype::Bf16 | Dtype::F16) => {
            Place::Dithered { dtype, at, bits: 0, counter: [seed, step] }
        }
        Some(Noise::Given(_)) => return Err(Error::NoKernel("bits drawn by the host".into())),
        _ => Place::plain(dtype, at),
    })
}

/// Refuses what a kernel would take for something else.
fn check<E>(states: &[State], tensors: &[Tensor]) -> Result<(), Error<E>> {
    if states.len() != tensors.len() {
        let (got, wanted) = (tensors.len(), states.len());
        return Err(bitstep::Error::Length { argument: "tensors", got, wanted }.into());
    }
    let mut ranges = Vec::new();
    for (index, (state, tensor)) in states.iter().zip(tensors).enumerate() {
        if tensor.len != state.len {
            let (got, wanted) = (tensor.len, state.len);
            return Err(bitstep::Error::Length { argument: "param", got, wanted }.into());
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
    for (at, end, written, index) in ranges {
        let clash = ends[usize::from(!written)];
        if clash.0 > at {
            return Err(Error::Overlap { tensors: [clash.1, index] });
        }
        ends[0] = ends[0].max((end, index));
        if written {
            ends[1] = ends[1].max((end, index));
        }
    }
    Ok(())
}
