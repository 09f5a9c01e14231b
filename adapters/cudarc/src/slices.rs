//! Safe steps over `CudaSlice`s, which know their length and type.

use bitstep::float::Dtype;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use half::{bf16, f16};

use crate::{Cuda, CudaError, DeviceOptimizer, Error, Tensor};

/// A parameter of any type.
pub enum SliceMut<'a> {
    /// IEEE binary64.
    F64(&'a mut CudaSlice<f64>),
    /// IEEE binary32.
    F32(&'a mut CudaSlice<f32>),
    /// The upper half of a binary32.
    Bf16(&'a mut CudaSlice<bf16>),
    /// IEEE binary16.
    F16(&'a mut CudaSlice<f16>),
}

/// A gradient of any type.
#[derive(Clone, Copy)]
pub enum Slice<'a> {
    /// IEEE binary64.
    F64(&'a CudaSlice<f64>),
    /// IEEE binary32.
    F32(&'a CudaSlice<f32>),
    /// The upper half of a binary32.
    Bf16(&'a CudaSlice<bf16>),
    /// IEEE binary16.
    F16(&'a CudaSlice<f16>),
}

/// A parameter and its gradient; `None` leaves the parameter and its state unchanged.
pub type Pair<'a> = (SliceMut<'a>, Option<Slice<'a>>);

impl DeviceOptimizer<Cuda> {
    /// [`DeviceOptimizer::step`] on slices, in the order in which parameters were added. Where cudarc
    /// tracks the slices with events, it synchronizes other streams with this step.
    ///
    /// # Errors
    /// Those of [`step`](DeviceOptimizer::step); a slice of another context, a parameter of another
    /// type than it was added with, or a gradient of another length, before anything is launched.
    pub fn step_slices(
        &mut self,
        pairs: &mut [Pair<'_>],
        extra: &[(&str, f64)],
    ) -> Result<(), Error<CudaError>> {
        let stream = self.device().stream().clone();
        let mut guards = Vec::new();
        let mut tensors = Vec::new();
        for (index, (value, grad)) in pairs.iter_mut().enumerate() {
            let (dtype, value, len) = value.place(&stream, &mut guards).map_err(Error::Device)?;
            if let Some(expected) =
                self.dtype(bitstep::optimizer::ParamId(index)).filter(|&own| own != dtype)
            {
                return Err(Error::Type { tensor: index, got: dtype, expected });
            }
            let grad = match grad {
                None => None,
                Some(grad) => {
                    let (dtype, at, got) =
                        grad.place(&stream, &mut guards).map_err(Error::Device)?;
                    if got != len {
                        let argument = "grad";
                        return Err(bitstep::Error::LengthMismatch {
                            argument,
                            got,
                            expected: len,
                        }
                        .into());
                    }
                    Some((dtype, at))
                }
            };
            tensors.push(Tensor { value, len, grad });
        }
        // SAFETY: the slices belong to the device and have their length. They are borrowed, the
        // parameters exclusively, and the stream, or an event of the guards, orders later uses.
        unsafe { self.step(&tensors, extra) }
    }
}

type Guards<'a> = Vec<SyncOnDrop<'a>>;

impl SliceMut<'_> {
    fn place<'b>(
        &'b mut self,
        stream: &'b CudaStream,
        guards: &mut Guards<'b>,
    ) -> Result<(Dtype, u64, usize), CudaError> {
        fn of<'b, T>(
            x: &'b mut CudaSlice<T>,
            stream: &'b CudaStream,
            guards: &mut Guards<'b>,
        ) -> Result<(u64, usize), CudaError> {
            let (len, own) = (x.len(), x.context() == stream.context());
            let (at, guard) = x.device_ptr_mut(stream);
            guards.push(guard);
            if own { Ok((at, len)) } else { Err(CudaError::WrongContext(at)) }
        }
        let (dtype, (at, len)) = match self {
            SliceMut::F64(x) => (Dtype::F64, of(x, stream, guards)?),
            SliceMut::F32(x) => (Dtype::F32, of(x, stream, guards)?),
            SliceMut::Bf16(x) => (Dtype::Bf16, of(x, stream, guards)?),
            SliceMut::F16(x) => (Dtype::F16, of(x, stream, guards)?),
        };
        Ok((dtype, at, len))
    }
}

impl<'a> Slice<'a> {
    fn place(
        self,
        stream: &'a CudaStream,
        guards: &mut Guards<'a>,
    ) -> Result<(Dtype, u64, usize), CudaError> {
        fn of<'b, T>(
            x: &'b CudaSlice<T>,
            stream: &'b CudaStream,
            guards: &mut Guards<'b>,
        ) -> Result<(u64, usize), CudaError> {
            let (at, guard) = x.device_ptr(stream);
            guards.push(guard);
            let own = x.context() == stream.context();
            if own { Ok((at, x.len())) } else { Err(CudaError::WrongContext(at)) }
        }
        let (dtype, (at, len)) = match self {
            Slice::F64(x) => (Dtype::F64, of(x, stream, guards)?),
            Slice::F32(x) => (Dtype::F32, of(x, stream, guards)?),
            Slice::Bf16(x) => (Dtype::Bf16, of(x, stream, guards)?),
            Slice::F16(x) => (Dtype::F16, of(x, stream, guards)?),
        };
        Ok((dtype, at, len))
    }
}
