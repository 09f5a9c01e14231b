//! Tensors at raw pointers.

use alloc::format;
use core::ffi::c_void;

use bitstep::float::Dtype;
use bitstep::storage::{Data, DataMut};
use half::{bf16, f16};

use crate::error::{BITSTEP_ARGUMENT, Status, err};
use crate::places::Places;

/// IEEE binary64: `double`.
pub const BITSTEP_F64: u32 = 0;
/// IEEE binary32: `float`.
pub const BITSTEP_F32: u32 = 1;
/// The upper half of a binary32.
pub const BITSTEP_BF16: u32 = 2;
/// IEEE binary16.
pub const BITSTEP_F16: u32 = 3;

/// A parameter with its gradient. The caller owns both.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tensor {
    /// The elements, contiguous, in native byte order, aligned to their size.
    pub data: *mut c_void,
    /// The number of elements of the parameter, and of the gradient.
    pub len: usize,
    /// The parameter's type: `BITSTEP_F32`, …
    pub dtype: u32,
    /// The gradient's type.
    pub grad_dtype: u32,
    /// The gradient, or NULL: the parameter and its state then stay unchanged.
    pub grad: *const c_void,
}

pub(crate) fn dtype(number: u32) -> Result<Dtype, Status> {
    Ok(match number {
        BITSTEP_F64 => Dtype::F64,
        BITSTEP_F32 => Dtype::F32,
        BITSTEP_BF16 => Dtype::Bf16,
        BITSTEP_F16 => Dtype::F16,
        other => return err(BITSTEP_ARGUMENT, format!("{other} is no BITSTEP_F32, _F64, …")),
    })
}

/// Records the memory ranges of the tensors' data and, if `grads`, of their gradients.
pub(crate) fn note(places: &mut Places, tensors: &[Tensor], grads: bool) -> Result<(), Status> {
    for t in tensors {
        places.numbers("data", t.data, t.len, dtype(t.dtype)?, true)?;
        if grads && !t.grad.is_null() {
            places.numbers("grad", t.grad, t.len, dtype(t.grad_dtype)?, false)?;
        }
    }
    Ok(())
}

/// The elements, mutably.
///
/// # Safety
/// The tensor has been [recorded](note) in places that were checked; there are `len` elements at `data`,
/// which no one else accesses during `'a`.
pub(crate) unsafe fn data_mut<'a>(t: &Tensor) -> DataMut<'a> {
    // SAFETY: guaranteed by the caller; the type is the tensor's.
    unsafe {
        match t.dtype {
            BITSTEP_F64 => DataMut::F64(slice_mut(t.data.cast::<f64>(), t.len)),
            BITSTEP_BF16 => DataMut::Bf16(slice_mut(t.data.cast::<bf16>(), t.len)),
            BITSTEP_F16 => DataMut::F16(slice_mut(t.data.cast::<f16>(), t.len)),
            _ => DataMut::F32(slice_mut(t.data.cast::<f32>(), t.len)),
        }
    }
}

/// The gradient, if there is one.
///
/// # Safety
/// As [`data_mut`], for `grad`.
pub(crate) unsafe fn grad<'a>(t: &Tensor) -> Option<Data<'a>> {
    if t.grad.is_null() {
        return None;
    }
    // SAFETY: guaranteed by the caller; the type is the gradient's.
    Some(unsafe {
        match t.grad_dtype {
            BITSTEP_F64 => Data::F64(slice(t.grad.cast::<f64>(), t.len)),
            BITSTEP_BF16 => Data::Bf16(slice(t.grad.cast::<bf16>(), t.len)),
            BITSTEP_F16 => Data::F16(slice(t.grad.cast::<f16>(), t.len)),
            _ => Data::F32(slice(t.grad.cast::<f32>(), t.len)),
        }
    })
}

/// # Safety
/// `len` elements at `pointer`, or none.
pub(crate) unsafe fn slice_mut<'a, T>(pointer: *mut T, len: usize) -> &'a mut [T] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: guaranteed by the caller.
    unsafe { core::slice::from_raw_parts_mut(pointer, len) }
}

/// # Safety
/// `len` elements at `pointer`, or none.
unsafe fn slice<'a, T>(pointer: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: guaranteed by the caller.
    unsafe { core::slice::from_raw_parts(pointer, len) }
}
