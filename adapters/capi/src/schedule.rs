//! Learning-rate schedules.

use alloc::boxed::Box;
use core::ffi::c_char;

use bitstep::optimizer::GroupId;
use bitstep::schedule::{Scheduler, build};
use bitstep::storage::memory::collected;

use crate::args::{args, name};
use crate::error::{BITSTEP_LENGTH, ErrorMessage, fault};
use crate::optimizer::Optimizer;
use crate::places::answer;
use crate::tensor::slice_mut;

/// A schedule at work for all groups of an optimizer.
pub struct Schedule(Scheduler);

/// Makes the schedule `name`, one of Transformers' `lr_scheduler_type=` strings. `arguments` are
/// the reference's, and of the optimizer `lr`, or `groups` if there are several; at most 65536 bytes.
/// To be freed with `bitstep_schedule_free`.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
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

/// Frees a schedule; NULL is left alone.
///
/// # Safety
/// It is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_free(schedule: *mut Schedule) {
    if !schedule.is_null() {
        // SAFETY: it came out of `Box::into_raw`, and is used no more.
        drop(unsafe { Box::from_raw(schedule) });
    }
}

/// Makes a scheduler step. `given`: the metric for `reduce_lr_on_plateau` and `greedy`, a number
/// for each group for `adafactor_schedule`; for all others none.
///
/// # Safety
/// Pointers are valid or NULL, and there is as much behind them as is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_step(
    schedule: *mut Schedule,
    given: *const f64,
    count: usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle_mut("schedule", schedule)?;
            let given = places.list("given", given, count)?;
            places.check()?;
            schedule.0.step(given)?;
            Ok(())
        })
    }
}

/// Writes the learning rate in force for a group to `lr`.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let lr = places.out("lr", lr)?;
            places.check()?;
            let Some(&rate) = schedule.0.lrs().get(group) else {
                return fault(BITSTEP_LENGTH, "the schedule has fewer groups");
            };
            lr.set(rate);
            Ok(())
        })
    }
}

/// Sets the learning rates of all groups of an optimizer to those in force, whatever they are, as
/// the reference's schedules do, and their momentum if the schedule cycles it: a rule without one is
/// refused then.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_apply(
    schedule: *const Schedule,
    optimizer: *mut Optimizer,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let optimizer = places.handle_mut("optimizer", optimizer)?;
            places.check()?;
            let groups = optimizer.inner.groups().len();
            if groups != schedule.0.lrs().len() {
                let message = "schedule and optimizer differ in the number of groups";
                return fault(BITSTEP_LENGTH, message);
            }
            let all = collected("groups", (0..groups).map(GroupId))?;
            optimizer.inner.follow(&schedule.0, &all)?;
            Ok(())
        })
    }
}

/// Writes to `size` how many bytes `bitstep_schedule_save` needs.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_save_size(
    schedule: *const Schedule,
    size: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(schedule.0.saved_len());
            Ok(())
        })
    }
}

/// Writes where the schedule stands to `memory`, `size` bytes long. As with an optimizer's, later
/// versions read it.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            places.written("memory", memory.cast(), size, 1)?;
            places.check()?;
            Ok(schedule.0.save_into(slice_mut(memory, size))?)
        })
    }
}

/// Goes on from there, in a schedule that was made alike.
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
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle_mut("schedule", schedule)?;
            let bytes = places.list("memory", memory, size)?;
            places.check()?;
            Ok(schedule.0.load(bytes)?)
        })
    }
}
