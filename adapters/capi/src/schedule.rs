//! Learning-rate schedules.

use alloc::boxed::Box;
use core::ffi::c_char;

use bitstep::schedule::{Scheduler, build};

use crate::args::{args, list, text};
use crate::error::{BITSTEP_LENGTH, Failure, answer, fault};
use crate::optimizer::{Optimizer, at};

/// A schedule at work for all groups of an optimizer.
pub struct Schedule(Scheduler);

/// Makes the schedule `name`, one of Transformers' `lr_scheduler_type=` strings. `arguments` are
/// the reference's, and of the optimizer `lr`, or `groups` if there are several. To be freed with
/// `bitstep_schedule_free`.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_new(
    name: *const c_char,
    arguments: *const c_char,
    schedule: *mut *mut Schedule,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (out, name) = unsafe { (at("schedule", schedule)?, text("name", name)?) };
        // SAFETY: the caller's promise.
        let built = build(name, &unsafe { args(arguments)? })?;
        *out = Box::into_raw(Box::new(Schedule(built)));
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
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
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let schedule = unsafe { at("schedule", schedule)? };
        // SAFETY: the caller's promise.
        schedule.0.step(unsafe { list("given", given, count)? })?;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Writes the learning rate in force for a group to `lr`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_lr(
    schedule: *mut Schedule,
    group: usize,
    lr: *mut f64,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (schedule, lr) = unsafe { (at("schedule", schedule)?, at("lr", lr)?) };
        let Some(&rate) = schedule.0.lrs().get(group) else {
            return fault(BITSTEP_LENGTH, "the schedule has fewer groups");
        };
        *lr = rate;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Sets the learning rates of all groups of an optimizer to those in force.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_apply(
    schedule: *mut Schedule,
    optimizer: *mut Optimizer,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (schedule, optimizer) =
            unsafe { (at("schedule", schedule)?, at("optimizer", optimizer)?) };
        let groups = optimizer.0.groups_mut();
        if groups.len() != schedule.0.lrs().len() {
            return fault(BITSTEP_LENGTH, "schedule and optimizer differ in the number of groups");
        }
        groups.iter_mut().zip(schedule.0.lrs()).for_each(|(group, &lr)| group.lr = lr);
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}
