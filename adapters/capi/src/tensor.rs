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

/// A 16-bit integer, in entries of state only.
pub const BITSTEP_I16: u32 = 4;
/// An 8-bit integer, in entries of state only.
pub const BITSTEP_I8: u32 = 5;
/// A byte: an 8-bit code, or two of 4 bits; in entries of state only.
pub const BITSTEP_U8: u32 = 6;
/// An 8-bit float with 4 exponent bits, in entries of state only.
pub const BITSTEP_F8E4M3: u32 = 7;

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
        other => {
            let message = format!("dtype: {other} is no BITSTEP_F32, _F64, _BF16 or _F16");
            return err(BITSTEP_ARGUMENT, message);
        }
    })
}

/// Records the memory ranges of the tensors' data and, if `grads`, of their gradients; `what` is the argument's name.
pub(crate) fn note(
    places: &mut Places,
    what: &str,
    tensors: &[Tensor],
    grads: bool,
) -> Result<(), Status> {
    let of = |i: usize, type_name: &str, number: u32| {
        dtype(number).map_err(|Status(status, message)| {
            Status(status, format!("{what}[{i}].{type_name}: {message}"))
        })
    };
    for (i, t) in tensors.iter().enumerate() {
        let data = format_args!("{what}[{i}].data");
        places.numbers(&data, t.data, t.len, of(i, "dtype", t.dtype)?, true)?;
        if grads && !t.grad.is_null() {
            let grad = format_args!("{what}[{i}].grad");
            places.numbers(&grad, t.grad, t.len, of(i, "grad_dtype", t.grad_dtype)?, false)?;
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
    Some(unsafe { data(t.grad, t.len, t.grad_dtype) })
}

/// Numbers to read.
///
/// # Safety
/// They have been [recorded](Places::numbers) in places that were checked; there are `len` of that type, which no one
/// writes to during `'a`.
pub(crate) unsafe fn data<'a>(numbers: *const c_void, len: usize, dtype: u32) -> Data<'a> {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match dtype {
            BITSTEP_F64 => Data::F64(slice(numbers.cast::<f64>(), len)),
            BITSTEP_BF16 => Data::Bf16(slice(numbers.cast::<bf16>(), len)),
            BITSTEP_F16 => Data::F16(slice(numbers.cast::<f16>(), len)),
            _ => Data::F32(slice(numbers.cast::<f32>(), len)),
        }
    }
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
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: guaranteed by the caller.
    unsafe { core::slice::from_raw_parts(pointer, len) }
}
