//! What is done to gradients before a step.

use alloc::vec::Vec;

use bitstep::gradient::ClipGradNorm;

use crate::args::list;
use crate::error::{Failure, answer};
use crate::optimizer::at;
use crate::tensor::{Tensor, check_overlap, data_mut, ranges};

/// Clips gradients to a norm of that order (2, 1, infinity, …), as torch's `clip_grad_norm_`, and
/// writes the norm before to `norm`. The gradients are the tensors' `data`; their `grad` is ignored.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_clip_grad_norm(
    gradients: *const Tensor,
    count: usize,
    max_norm: f64,
    norm_type: f64,
    norm: *mut f64,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let norm = unsafe { at("norm", norm)? };
        // SAFETY: the caller's promise.
        let gradients = unsafe { list("gradients", gradients, count)? };
        let alone: Vec<_> =
            gradients.iter().map(|t| Tensor { grad: core::ptr::null(), ..*t }).collect();
        let (data, _) = ranges(&alone)?;
        check_overlap(&data, &[])?;
        let data = alone.iter().map(|t| {
            // SAFETY: checked just above; the rest is the caller's promise.
            unsafe { data_mut(t) }
        });
        let mut data = data.collect::<Result<Vec<_>, _>>()?;
        *norm = ClipGradNorm { max_norm, norm_type, error_if_nonfinite: false }.clip(&mut data)?;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}
