//! Gradient clipping.

use bitstep::gradient::ClipGradNorm;
use bitstep::storage::memory::collected;

use crate::error::ErrorMessage;
use crate::places::ffi_call;
use crate::tensor::{Tensor, data_mut, note};

/// Clips gradients to a total norm of at most `max_norm`, as torch's `clip_grad_norm_` does, and writes
/// the norm before clipping to `norm`. `norm_type` is its order: 2, 1, infinity, … The gradients are the
/// tensors' `data`; their `grad` is ignored.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_clip_grad_norm(
    gradients: *const Tensor,
    count: usize,
    max_norm: f64,
    norm_type: f64,
    norm: *mut f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let norm = places.out("norm", norm)?;
            let gradients = places.list("gradients", gradients, count)?;
            note(places, gradients, false)?;
            places.check()?;
            let mut data = collected("gradients", gradients.iter().map(|t| data_mut(t)))?;
            let clip = ClipGradNorm { max_norm, norm_type, error_if_nonfinite: false };
            norm.set(clip.clip(&mut data)?);
            Ok(())
        })
    }
}
