//! What is done to gradients before a step: clipping, accumulation, loss scale; and NEFTune's noise.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use bitstep::gradient::{
    ClipByGlobalNorm, ClipGradNorm, GradientAccumulator, LossScale, Neftune, clip_grad_value,
    is_finite, total_norm,
};
use bitstep::storage::memory::collected;
use bitstep::storage::{Data, DataMut};

use crate::error::{BITSTEP_ARGUMENT, BITSTEP_POINTER, ErrorMessage, Status, err};
use crate::places::{Places, ffi_call};
use crate::tensor::{Tensor, data, data_mut, grad, note};

/// The gradients to write to: the tensors' `data`.
///
/// # Safety
/// As [`Places::list`], and [`data_mut`] for each.
unsafe fn gradients_mut<'a>(
    places: &mut Places,
    gradients: *const Tensor,
    count: usize,
) -> Result<Vec<DataMut<'a>>, Status> {
    // SAFETY: guaranteed by the caller, here and below.
    let gradients = unsafe { places.list("gradients", gradients, count)? };
    note(places, "gradients", gradients, false)?;
    places.check()?;
    let data = gradients.iter().map(|t| {
        // SAFETY: as above; they have been recorded and checked.
        unsafe { data_mut(t) }
    });
    Ok(collected("gradients", data)?)
}

/// The gradients to read: the tensors' `data`.
///
/// # Safety
/// As [`gradients_mut`].
unsafe fn gradients<'a>(
    places: &mut Places,
    gradients: *const Tensor,
    count: usize,
) -> Result<Vec<Data<'a>>, Status> {
    // SAFETY: guaranteed by the caller, here and below.
    let gradients = unsafe { places.list("gradients", gradients, count)? };
    for (i, t) in gradients.iter().enumerate() {
        let dtype = crate::tensor::dtype(t.dtype)?;
        places.numbers(&format_args!("gradients[{i}].data"), t.data, t.len, dtype, false)?;
    }
    places.check()?;
    let data = gradients.iter().map(|t| {
        // SAFETY: as above; they have been recorded and checked.
        unsafe { data(t.data, t.len, t.dtype) }
    });
    Ok(collected("gradients", data)?)
}

/// Clips gradients to a total norm of at most `max_norm`, as torch's `clip_grad_norm_` does, and writes
/// the norm before clipping to `norm`. `norm_type` is its order: 2, 1, infinity, … Unless
/// `error_if_nonfinite` is 0, a norm that is not finite is refused. The gradients are the tensors' `data`;
/// their `grad` is ignored.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_clip_grad_norm(
    gradients: *const Tensor,
    count: usize,
    max_norm: f64,
    norm_type: f64,
    error_if_nonfinite: i32,
    norm: *mut f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let norm = places.out("norm", norm)?;
            let mut data = gradients_mut(places, gradients, count)?;
            let error_if_nonfinite = error_if_nonfinite != 0;
            let clip = ClipGradNorm { max_norm, norm_type, error_if_nonfinite };
            norm.set(clip.clip(&mut data)?);
            Ok(())
        })
    }
}

/// Limits each number of the gradients to `clip_value` and its negative, as torch's `clip_grad_value_` does.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_clip_grad_value(
    gradients: *const Tensor,
    count: usize,
    clip_value: f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let mut data = gradients_mut(places, gradients, count)?;
            Ok(clip_grad_value(&mut data, clip_value)?)
        })
    }
}

/// Clips gradients to a total norm of at most `clip_norm`, as TensorFlow's `clip_by_global_norm` does, and
/// writes the norm before clipping to `norm`.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_clip_by_global_norm(
    gradients: *const Tensor,
    count: usize,
    clip_norm: f64,
    norm: *mut f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let norm = places.out("norm", norm)?;
            let mut data = gradients_mut(places, gradients, count)?;
            norm.set(ClipByGlobalNorm { clip_norm }.clip(&mut data)?);
            Ok(())
        })
    }
}

/// Writes the norm of order `norm_type` over all gradients, as torch's `get_total_norm` gives it, to `norm`.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_total_norm(
    gradients: *const Tensor,
    count: usize,
    norm_type: f64,
    norm: *mut f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let norm = places.out("norm", norm)?;
            let data = self::gradients(places, gradients, count)?;
            norm.set(total_norm(&data, norm_type).0);
            Ok(())
        })
    }
}

/// Writes 1 to `finite` if no gradient holds an infinity or NaN, else 0.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_is_finite(
    gradients: *const Tensor,
    count: usize,
    finite: *mut i32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let finite = places.out("finite", finite)?;
            let data = self::gradients(places, gradients, count)?;
            finite.set(data.iter().all(|&data| is_finite(data)).into());
            Ok(())
        })
    }
}

/// A dynamic loss scale, as `torch.amp.GradScaler` keeps it. The caller may read and set its fields.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LossScaleState {
    /// The current factor of the loss.
    pub scale: f64,
    /// The factor by which it grows, above 1.
    pub growth_factor: f64,
    /// The factor by which it shrinks, below 1.
    pub backoff_factor: f64,
    /// Good steps in a row after which it grows.
    pub growth_interval: u64,
    /// Good steps since it last changed.
    pub good_steps: u64,
}

impl From<LossScale> for LossScaleState {
    fn from(s: LossScale) -> Self {
        LossScaleState {
            scale: s.scale,
            growth_factor: s.growth_factor,
            backoff_factor: s.backoff_factor,
            growth_interval: s.growth_interval,
            good_steps: s.good_steps,
        }
    }
}

impl From<LossScaleState> for LossScale {
    fn from(s: LossScaleState) -> Self {
        LossScale {
            scale: s.scale,
            growth_factor: s.growth_factor,
            backoff_factor: s.backoff_factor,
            growth_interval: s.growth_interval,
            good_steps: s.good_steps,
        }
    }
}

/// Writes the reference's defaults to `scale`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_loss_scale_default(
    scale: *mut LossScaleState,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            places.out("scale", scale)?.set(LossScale::default().into());
            Ok(())
        })
    }
}

/// Divides all gradients by the scale, and writes 1 to `finite` if they held no infinity or NaN before, else
/// 0: then the step is to be left out.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_unscale(
    scale: *const LossScaleState,
    gradients: *const Tensor,
    count: usize,
    finite: *mut i32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let scale = *places.handle("scale", scale)?;
            let finite = places.out("finite", finite)?;
            let mut data = gradients_mut(places, gradients, count)?;
            finite.set(LossScale::from(scale).unscale(&mut data)?.into());
            Ok(())
        })
    }
}

/// Grows or shrinks the scale after a step that was made, or left out because its gradients were not finite.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_loss_scale_update(
    scale: *mut LossScaleState,
    finite: i32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let scale = places.handle_mut("scale", scale)?;
            let mut next = LossScale::from(*scale);
            next.check()?;
            if next.good_steps == u64::MAX {
                return err(BITSTEP_ARGUMENT, "good_steps: one more can't be counted");
            }
            next.update(finite != 0);
            *scale = next.into();
            Ok(())
        })
    }
}

/// The sum or mean of gradients over windows of micro-batches.
pub struct Accumulator(GradientAccumulator);

/// Creates an accumulator of windows of so many micro-batches: their sum, or their mean unless `mean` is 0.
/// Free it with `bitstep_accumulator_free`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_accumulator_new(
    window: u64,
    mean: i32,
    accumulator: *mut *mut Accumulator,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let out = places.out("accumulator", accumulator)?;
            let made = match mean {
                0 => GradientAccumulator::sum(window)?,
                _ => GradientAccumulator::mean(window)?,
            };
            out.set(Box::into_raw(Box::new(Accumulator(made))));
            Ok(())
        })
    }
}

/// Frees an accumulator. NULL is ignored.
///
/// # Safety
/// It is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_accumulator_free(accumulator: *mut Accumulator) {
    if !accumulator.is_null() {
        // SAFETY: it came from `Box::into_raw` and is not used afterwards.
        drop(unsafe { Box::from_raw(accumulator) });
    }
}

/// Adds a micro-batch: the `grad` of each tensor to its `data`, which the first of a window replaces. Both
/// have one type, and no `grad` is NULL. Writes 1 to `complete` if the window is full, so that it is time for
/// a step, else 0.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_accumulator_add(
    accumulator: *mut Accumulator,
    totals: *const Tensor,
    count: usize,
    complete: *mut i32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe { ffi_call(error, |places| add(places, accumulator, totals, count, None, complete)) }
}

/// Adds a micro-batch as `bitstep_accumulator_add` does, with a weight of its own, such as its share of the
/// window's labels.
///
/// # Safety
/// As `bitstep_accumulator_add`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_accumulator_add_weighted(
    accumulator: *mut Accumulator,
    totals: *const Tensor,
    count: usize,
    weight: f64,
    complete: *mut i32,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| add(places, accumulator, totals, count, Some(weight), complete))
    }
}

/// # Safety
/// As [`bitstep_accumulator_add`].
unsafe fn add(
    places: &mut Places,
    accumulator: *mut Accumulator,
    totals: *const Tensor,
    count: usize,
    weight: Option<f64>,
    complete: *mut i32,
) -> Result<(), Status> {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        let Accumulator(accumulator) = places.handle_mut("accumulator", accumulator)?;
        let complete = places.out("complete", complete)?;
        let totals = places.list("totals", totals, count)?;
        note(places, "totals", totals, true)?;
        places.check()?;
        for (i, t) in totals.iter().enumerate() {
            if t.grad.is_null() && t.len > 0 {
                return err(BITSTEP_POINTER, format!("totals[{i}].grad is NULL"));
            }
            if t.dtype != t.grad_dtype {
                let message = format!("totals[{i}]: a gradient of another type than its total");
                return err(BITSTEP_ARGUMENT, message);
            }
        }
        let weight = weight.unwrap_or_else(|| accumulator.weight());
        for t in totals {
            // Lengths and types are equal: this can't fail.
            if let Some(grad) = grad(t) {
                accumulator.add_weighted(data_mut(t), grad, weight)?;
            }
        }
        accumulator.advance();
        complete.set(accumulator.is_complete().into());
        Ok(())
    }
}

/// Sets the number of micro-batches of the window about to begin, such as the last of an epoch.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_accumulator_window(
    accumulator: *mut Accumulator,
    window: u64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            Ok(places.handle_mut("accumulator", accumulator)?.0.window(window)?)
        })
    }
}

/// Drops the micro-batches of an incomplete window.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_accumulator_restart(
    accumulator: *mut Accumulator,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            places.handle_mut("accumulator", accumulator)?.0.restart();
            Ok(())
        })
    }
}

/// Adds NEFTune's noise to the output of an embedding, the `data` of `output`: sequences of `length` tokens of
/// `width` numbers. `seed` and `step` choose the noise, which is the same on every machine. If `output` has a
/// `grad`, it holds uniform samples in [0, 1) to be used instead.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_neftune(
    output: *const Tensor,
    alpha: f64,
    length: u64,
    width: u64,
    seed: u64,
    step: u64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let outputs = places.list("output", output, 1)?;
            note(places, "output", outputs, true)?;
            places.check()?;
            let [output] = outputs else { return Ok(()) };
            let neftune = Neftune { alpha };
            match grad(output) {
                Some(unit) => neftune.add_from_uniform(data_mut(output), unit, length, width)?,
                None => neftune.add(data_mut(output), length, width, seed, step)?,
            }
            Ok(())
        })
    }
}
