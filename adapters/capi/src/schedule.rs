//! Learning-rate schedules.

use alloc::boxed::Box;
use core::ffi::c_char;

use bitstep::optimizer::GroupId;
use bitstep::schedule::{Scheduler, build};
use bitstep::storage::memory::collected;

use crate::args::{args, name};
use crate::error::{BITSTEP_LENGTH, ErrorMessage, err};
use crate::optimizer::Optimizer;
use crate::places::ffi_call;
use crate::tensor::slice_mut;

/// A schedule with its state, for all groups of an optimizer.
pub struct Schedule(pub(crate) Scheduler);

/// Creates the schedule `name`, one of Transformers' `lr_scheduler_type=` strings. `arguments` are the
/// reference's, and the optimizer's `lr`, or `groups` if there are several; at most 65536 bytes.
/// Free it with `bitstep_schedule_free`.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_new(
    name: *const c_char,
    arguments: *const c_char,
    schedule: *mut *mut Schedule,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let out = places.out("schedule", schedule)?;
            let name = self::name(places, "name", name)?;
            let arguments = args(places, arguments)?;
            places.check()?;
            let built = build(name, &arguments)?;
            out.set(Box::into_raw(Box::new(Schedule(built))));
            Ok(())
        })
    }
}

/// Frees a schedule. NULL is ignored.
///
/// # Safety
/// It is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_free(schedule: *mut Schedule) {
    if !schedule.is_null() {
        // SAFETY: it came from `Box::into_raw` and is not used afterwards.
        drop(unsafe { Box::from_raw(schedule) });
    }
}

/// Makes a scheduler step. `given` is the metric for `reduce_lr_on_plateau` and `greedy`, one value per
/// group for `adafactor_schedule`, and empty for all others.
///
/// # Safety
/// Pointers are valid or NULL and point to as many elements as stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_step(
    schedule: *mut Schedule,
    given: *const f64,
    count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle_mut("schedule", schedule)?;
            let given = places.list("given", given, count)?;
            places.check()?;
            schedule.0.step(given)?;
            Ok(())
        })
    }
}

/// Writes a group's current learning rate to `lr`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_lr(
    schedule: *const Schedule,
    group: usize,
    lr: *mut f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let lr = places.out("lr", lr)?;
            places.check()?;
            let Some(&rate) = schedule.0.lrs().get(group) else {
                return err(BITSTEP_LENGTH, "group: the schedule has fewer groups");
            };
            lr.set(rate);
            Ok(())
        })
    }
}

/// Writes a group's learning rate after `steps` scheduler steps from the start of training to `lr`, whatever
/// steps have been made: update t of a training loop, counted from 1, has that after t - 1. At most 2^20
/// steps; a schedule that is driven by a metric is refused.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_lr_at(
    schedule: *const Schedule,
    group: usize,
    steps: u64,
    lr: *mut f64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let lr = places.out("lr", lr)?;
            places.check()?;
            lr.set(schedule.0.lr_at(group, steps)?);
            Ok(())
        })
    }
}

/// Writes the number of groups that the schedule has rates for to `groups`, and that of the scheduler steps
/// made to `steps`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_sizes(
    schedule: *const Schedule,
    groups: *mut usize,
    steps: *mut u64,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let (groups, steps) = (places.out("groups", groups)?, places.out("steps", steps)?);
            places.check()?;
            groups.set(schedule.0.lrs().len());
            steps.set(schedule.0.state().step);
            Ok(())
        })
    }
}

/// Copies a schedule with its state. Free the copy with `bitstep_schedule_free`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_clone(
    schedule: *const Schedule,
    copy: *mut *mut Schedule,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let copy = places.out("copy", copy)?;
            places.check()?;
            copy.set(Box::into_raw(Box::new(Schedule(schedule.0.clone()))));
            Ok(())
        })
    }
}

/// Sets the learning rates of all groups of an optimizer to the schedule's current ones, without a range
/// check, as the reference's schedules do. A schedule that cycles momentum sets that too; a rule without
/// momentum is refused then.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_apply(
    schedule: *const Schedule,
    optimizer: *mut Optimizer,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            places.check()?;
            let groups = optimizer.inner.groups().len();
            if groups != schedule.0.lrs().len() {
                let message = "schedule and optimizer differ in the number of groups";
                return err(BITSTEP_LENGTH, message);
            }
            let all = collected("groups", (0..groups).map(GroupId))?;
            optimizer.inner.follow(&schedule.0, &all)?;
            Ok(())
        })
    }
}

/// Writes the number of bytes that `bitstep_schedule_save` needs to `size`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_save_size(
    schedule: *const Schedule,
    size: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(schedule.0.saved_len());
            Ok(())
        })
    }
}

/// Saves the schedule's state to `memory`, which is `size` bytes long. As with an optimizer's state,
/// later versions read it.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_save(
    schedule: *const Schedule,
    memory: *mut u8,
    size: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            places.written("memory", memory.cast(), size, 1)?;
            places.check()?;
            Ok(schedule.0.save_into(slice_mut(memory, size))?)
        })
    }
}

/// Loads saved state into a schedule that was created with the same name and arguments.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_load(
    schedule: *mut Schedule,
    memory: *const u8,
    size: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let schedule = places.handle_mut("schedule", schedule)?;
            let bytes = places.list("memory", memory, size)?;
            places.check()?;
            Ok(schedule.0.load(bytes)?)
        })
    }
}
