//! Tensors at raw pointers.

use alloc::format;
use alloc::vec::Vec;
use core::ffi::c_void;

use bitstep::real::Dtype;
use bitstep::storage::{Data, DataMut};
use half::{bf16, f16};

use crate::error::{BITSTEP_ARGUMENT, BITSTEP_POINTER, Fault, fault};

/// IEEE binary64: `double`.
pub const BITSTEP_F64: u32 = 0;
/// IEEE binary32: `float`.
pub const BITSTEP_F32: u32 = 1;
/// The upper half of a binary32.
pub const BITSTEP_BF16: u32 = 2;
/// IEEE binary16.
pub const BITSTEP_F16: u32 = 3;

/// A parameter with its gradient. The caller owns both.
///
/// What is written to must not overlap anything else that the same call gets: such a call is refused.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tensor {
    /// The numbers, one after the other, in native byte order.
    pub data: *mut c_void,
    /// How many; of the gradient as many.
    pub len: usize,
    /// `BITSTEP_F32`, …
    pub dtype: u32,
    /// The gradient's type.
    pub grad_dtype: u32,
    /// The gradient; NULL for none: the parameter and its state then stay as they are.
    pub grad: *const c_void,
}

pub(crate) fn dtype(number: u32) -> Result<Dtype, Fault> {
    Ok(match number {
        BITSTEP_F64 => Dtype::F64,
        BITSTEP_F32 => Dtype::F32,
        BITSTEP_BF16 => Dtype::Bf16,
        BITSTEP_F16 => Dtype::F16,
        other => return fault(BITSTEP_ARGUMENT, format!("{other} is no BITSTEP_F32, _F64, …")),
    })
}

/// Where numbers lie: `start..end`.
type Range = (usize, usize);

/// Where a tensor lies, as `start..end`, after checks of everything that can be checked.
fn range(what: &str, pointer: *const c_void, len: usize, dtype: Dtype) -> Result<Range, Fault> {
    let (start, size) = (pointer as usize, dtype.size());
    let bytes = len.checked_mul(size).filter(|&b| b <= isize::MAX as usize);
    match bytes.and_then(|b| start.checked_add(b)) {
        Some(end) if len == 0 || !pointer.is_null() && start.is_multiple_of(size) => {
            Ok((start, end))
        }
        _ => fault(BITSTEP_POINTER, format!("{what}: NULL, not aligned, or too long")),
    }
}

/// Refuses what is written to where it overlaps anything.
pub(crate) fn check_overlap(written: &[Range], read: &[Range]) -> Result<(), Fault> {
    let mut all: Vec<_> = written.iter().map(|&(a, b)| (a, b, true)).collect();
    all.extend(read.iter().map(|&(a, b)| (a, b, false)));
    all.retain(|(a, b, _)| a < b);
    all.sort_unstable();
    // The furthest end so far, of all and of what is written.
    let (mut end, mut end_written) = (0, 0);
    for (a, b, is_written) in all {
        if a < end_written || is_written && a < end {
            return fault(BITSTEP_POINTER, "a tensor that is written to overlaps another");
        }
        end = end.max(b);
        if is_written {
            end_written = end_written.max(b);
        }
    }
    Ok(())
}

/// Where the data and the gradients of tensors lie.
pub(crate) fn ranges(tensors: &[Tensor]) -> Result<(Vec<Range>, Vec<Range>), Fault> {
    let data = tensors.iter().map(|t| range("data", t.data, t.len, dtype(t.dtype)?));
    let with_grad = tensors.iter().filter(|t| !t.grad.is_null());
    let grads = with_grad.map(|t| range("grad", t.grad, t.len, dtype(t.grad_dtype)?));
    Ok((data.collect::<Result<_, _>>()?, grads.collect::<Result<_, _>>()?))
}

/// The numbers, to write.
///
/// # Safety
/// The tensor has passed [`ranges`] and [`check_overlap`]; there are `len` numbers at `data`,
/// which nobody else touches as long as the answer lives.
pub(crate) unsafe fn data_mut<'a>(t: &Tensor) -> Result<DataMut<'a>, Fault> {
    // SAFETY: the caller's promise; the type is the tensor's.
    unsafe {
        Ok(match dtype(t.dtype)? {
            Dtype::F64 => DataMut::F64(slice_mut(t.data.cast::<f64>(), t.len)),
            Dtype::F32 => DataMut::F32(slice_mut(t.data.cast::<f32>(), t.len)),
            Dtype::Bf16 => DataMut::Bf16(slice_mut(t.data.cast::<bf16>(), t.len)),
            Dtype::F16 => DataMut::F16(slice_mut(t.data.cast::<f16>(), t.len)),
        })
    }
}

/// The gradient, if there is one.
///
/// # Safety
/// As [`data_mut`], of `grad`.
pub(crate) unsafe fn grad<'a>(t: &Tensor) -> Result<Option<Data<'a>>, Fault> {
    if t.grad.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise; the type is the gradient's.
    unsafe {
        Ok(Some(match dtype(t.grad_dtype)? {
            Dtype::F64 => Data::F64(slice(t.grad.cast::<f64>(), t.len)),
            Dtype::F32 => Data::F32(slice(t.grad.cast::<f32>(), t.len)),
            Dtype::Bf16 => Data::Bf16(slice(t.grad.cast::<bf16>(), t.len)),
            Dtype::F16 => Data::F16(slice(t.grad.cast::<f16>(), t.len)),
        }))
    }
}

/// # Safety
/// `len` elements at `pointer`, or none.
pub(crate) unsafe fn slice_mut<'a, T>(pointer: *mut T, len: usize) -> &'a mut [T] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(pointer, len) }
}

/// # Safety
/// `len` elements at `pointer`, or none.
unsafe fn slice<'a, T>(pointer: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(pointer, len) }
}
