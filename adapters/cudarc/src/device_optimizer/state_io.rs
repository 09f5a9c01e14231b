//! Transfer of the state to the host and back: to save it, to move it, to evaluate.

use bitstep::storage::memory::filled;

use super::*;

impl<D: Device> DeviceOptimizer<D> {
    /// The bytes of slot k of a parameter, read from the device: elements, or codes and scales. Empty if
    /// the slot is not in use.
    ///
    /// # Errors
    /// An error of the device.
    pub fn slot(&mut self, param: ParamId, slot: usize) -> Result<Vec<Vec<u8>>, Error<D::Error>> {
        let found =
            self.states.get(param.0).and_then(|s| s.slots.get(slot)).and_then(Option::as_ref);
        let parts = found.map(|(_, parts)| parts.as_slice()).unwrap_or_default();
        let mut read = |&(at, len): &Part| {
            let mut bytes = filled("state", 0, len)?;
            self.device.read(at, &mut bytes).map_err(Error::Device)?;
            Ok(bytes)
        };
        parts.iter().map(&mut read).collect()
    }

    /// A copy of the optimizer with all state, read from the device: to save it, or to continue elsewhere.
    ///
    /// # Errors
    /// An error of the device.
    pub fn download(&mut self) -> Result<Optimizer, Error<D::Error>> {
        for param in 0..self.states.len() {
            self.scalars(bitstep::optimizer::ParamId(param))?;
        }
        let mut host = self.optimizer.clone();
        for index in 0..self.states.len() {
            for k in 0..self.states[index].slots.len() {
                let parts = self.slot(bitstep::optimizer::ParamId(index), k)?;
                let Some((format, _)) = &self.states[index].slots[k] else { continue };
                let param = &host.params()[index];
                let spec = &host.groups()[param.group.0].spec;
                let len = spec.slot_len(k, &param.shape, self.states[index].dtype);
                let mut slot = Buffer::new(*format, len)?;
                if let Buffer::Encoded(encoded) = &mut slot {
                    for (old, bytes) in encoded.parts("").into_iter().zip(parts) {
                        encoded.set_part("", &StoragePart { bytes, ..old })?;
                    }
                } else if let Some(bytes) = parts.first() {
                    slot.data_mut().set_bytes(bytes).map_err(Error::Core)?;
                }
                host.params_mut()[index].slots[k] = slot;
            }
            if let Some((format, (at, len))) = self.states[index].correction {
                let mut bytes = filled("state", 0, len)?;
                self.device.read(at, &mut bytes).map_err(Error::Device)?;
                let element = match format {
                    StorageFormat::SplitFloat(_, 8) => RawDtype::I8,
                    StorageFormat::SplitFloat(..) => RawDtype::I16,
                    _ => self.states[index].dtype.into(),
                };
                let mut raw = RawBuffer::zeros(element, len / element.size())?;
                raw.set_bytes(&bytes)?;
                host.params_mut()[index].correction = Some(raw);
            }
        }
        Ok(host)
    }

    /// Continues from an optimizer with equal groups and parameters, such as one loaded from a checkpoint.
    ///
    /// # Errors
    /// Another number of parameters, other shapes or types, or an error of the device: nothing has changed then.
    pub fn load(&mut self, host: Optimizer) -> Result<(), Error<D::Error>> {
        let uploaded = self.upload_all(host)?;
        self.replace(uploaded);
        Ok(())
    }

    /// The states of an optimizer as [`load`](Self::load) takes it, moved to the device.
    fn upload_all(
        &mut self,
        mut host: Optimizer,
    ) -> Result<(Optimizer, Vec<State>), Error<D::Error>> {
        let (got, expected) = (host.params().len(), self.states.len());
        if got != expected {
            return Err(bitstep::Error::LengthMismatch { argument: "params", got, expected }.into());
        }
        for (ours, theirs) in self.optimizer.params().iter().zip(host.params()) {
            let is_same = ours.shape == theirs.shape && ours.dtype == theirs.dtype;
            if !is_same || theirs.slots.len() != ours.slots.len() {
                let expected =
                    "parameters of the same shapes and types, and rules with the same slots";
                return Err(bitstep::Error::InvalidArgument { argument: "params", expected }.into());
            }
        }
        let mut states = Vec::new();
        for index in 0..self.states.len() {
            match upload(&mut self.device, &mut host, index) {
                Ok(state) => states.push(state),
                Err(error) => {
                    states.iter().for_each(|state| free(&mut self.device, state));
                    return Err(Error::Device(error));
                }
            }
        }
        Ok((host, states))
    }

    fn replace(&mut self, (optimizer, states): (Optimizer, Vec<State>)) {
        self.optimizer = optimizer;
        for old in std::mem::replace(&mut self.states, states) {
            free(&mut self.device, &old);
        }
    }

    /// [`Optimizer::eval`]. The conversion runs on the host.
    ///
    /// # Errors
    /// Those of `eval`, those of [`step`](Self::step) for its tensors, or an error of the device.
    ///
    /// # Safety
    /// As [`step`](Self::step).
    pub unsafe fn eval(&mut self, tensors: &[Tensor]) -> Result<(), Error<D::Error>> {
        self.switch(tensors, Optimizer::eval)
    }

    /// [`Optimizer::train`]. The conversion runs on the host.
    ///
    /// # Errors
    /// As [`eval`](Self::eval).
    ///
    /// # Safety
    /// As [`step`](Self::step).
    pub unsafe fn train(&mut self, tensors: &[Tensor]) -> Result<(), Error<D::Error>> {
        self.switch(tensors, Optimizer::train)
    }

    fn switch(
        &mut self,
        tensors: &[Tensor],
        to: fn(&mut Optimizer, &mut [DataMut<'_>]) -> Result<(), bitstep::Error>,
    ) -> Result<(), Error<D::Error>> {
        check(&mut self.device, &self.states, tensors)?;
        let mut host = self.download()?;
        let mut values = Vec::new();
        for (state, tensor) in self.states.iter().zip(tensors) {
            let mut value = Buffer::zeros(state.dtype, tensor.len)?;
            read(&mut self.device, tensor.value, &mut value).map_err(Error::Device)?;
            values.push(value);
        }
        let before = values.clone();
        let mut views: Vec<_> = values.iter_mut().map(Buffer::data_mut).collect();
        to(&mut host, &mut views)?;
        drop(views);
        let uploaded = self.upload_all(host)?;
        let changes = before.iter().zip(&values).zip(tensors);
        let changes: Vec<_> =
            changes.map(|((old, new), t)| (t.value, bytes(old), bytes(new))).collect();
        for (index, (at, old, new)) in changes.iter().enumerate() {
            let Err(error) = (if old == new { Ok(()) } else { self.device.write(*at, new) }) else {
                continue;
            };
            uploaded.1.iter().for_each(|state| free(&mut self.device, state));
            for (at, old, _) in changes.iter().take(index + 1).filter(|(_, old, new)| old != new) {
                // As far as the device still writes.
                let _ = self.device.write(*at, old);
            }
            return Err(Error::Device(error));
        }
        self.replace(uploaded);
        Ok(())
    }
}
