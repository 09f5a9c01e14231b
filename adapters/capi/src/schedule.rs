//! Learning-rate schedules.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_char;

use bitstep::schedule::{Scheduler, SchedulerState, build};

use crate::args::{args, list, text};
use crate::bytes::{Reader, Writer};
use crate::error::{BITSTEP_LENGTH, BITSTEP_STATE, Failure, Fault, answer, fault};
use crate::optimizer::{Optimizer, at, copy_out};

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

/// The first number of saved state: "bitsteps".
const MAGIC: u64 = u64::from_le_bytes(*b"bitsteps");

/// A number for each field of the state, in the order of the fields. What the schedule does not have
/// is left out: `loaded` knows from the schedule at hand.
fn saved(schedule: &Schedule) -> Vec<u8> {
    let state = schedule.0.state();
    let mut to = Writer::default();
    to.number(MAGIC);
    to.number(state.lrs.len() as u64);
    to.number(state.step);
    to.floats(&state.lrs);
    if let Some(p) = &state.plateau {
        to.floats(&[p.best]);
        to.number(p.num_bad_epochs);
        to.number(p.cooldown_counter);
    }
    if let Some((g, window)) = &state.greedy {
        to.floats(&[g.best, g.sum]);
        for n in [g.num_bad_epochs, g.num_good_epochs, g.cooldown_counter, g.warmup_counter] {
            to.number(n);
        }
        to.number(g.reset_start as u64);
        to.number(g.len as u64);
        to.number(g.at as u64);
        to.number(window.len() as u64);
        to.floats(window);
    }
    for a in &state.adafactor {
        to.floats(&[a.lr]);
        to.number(a.step);
        to.number(u64::from(a.f32));
    }
    to.0
}

fn loaded(schedule: &Schedule, bytes: &[u8]) -> Result<SchedulerState, Fault> {
    let mut state = schedule.0.state().clone();
    let mut from = Reader(bytes);
    let one = |from: &mut Reader<'_>| from.floats::<1>().map(|[x]| x);
    from.expect("its beginning", MAGIC)?;
    from.expect("the number of groups", state.lrs.len() as u64)?;
    state.step = from.number()?;
    for lr in &mut state.lrs {
        *lr = one(&mut from)?;
    }
    if let Some(p) = &mut state.plateau {
        p.best = one(&mut from)?;
        p.num_bad_epochs = from.number()?;
        p.cooldown_counter = from.number()?;
    }
    if let Some((g, window)) = &mut state.greedy {
        [g.best, g.sum] = from.floats()?;
        for n in [
            &mut g.num_bad_epochs,
            &mut g.num_good_epochs,
            &mut g.cooldown_counter,
            &mut g.warmup_counter,
        ] {
            *n = from.number()?;
        }
        g.reset_start = from.number()? as i64;
        // What does not fit into the window is refused below.
        g.len = usize::try_from(from.number()?).unwrap_or(usize::MAX);
        g.at = usize::try_from(from.number()?).unwrap_or(usize::MAX);
        from.expect("the window", window.len() as u64)?;
        for x in window {
            *x = one(&mut from)?;
        }
    }
    for a in &mut state.adafactor {
        a.lr = one(&mut from)?;
        a.step = from.number()?;
        a.f32 = from.number()? != 0;
    }
    if !from.0.is_empty() {
        return fault(BITSTEP_STATE, "saved state: goes on after its end");
    }
    let of_this = schedule.0.check_state(&state);
    of_this.map_err(|e| Fault(BITSTEP_STATE, alloc::format!("saved state: {e}")))?;
    Ok(state)
}

/// Writes to `size` how many bytes `bitstep_schedule_save` needs.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_save_size(
    schedule: *mut Schedule,
    size: *mut usize,
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let (schedule, size) = unsafe { (at("schedule", schedule)?, at("size", size)?) };
        *size = saved(schedule).len();
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}

/// Writes where the schedule stands to `memory`, `size` bytes long.
///
/// # Safety
/// Pointers are valid or NULL, and there are `size` bytes at `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_save(
    schedule: *mut Schedule,
    memory: *mut u8,
    size: usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { answer(error, || copy_out(&saved(at("schedule", schedule)?), memory, size)) }
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
    error: *mut Failure,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise.
        let schedule = unsafe { at("schedule", schedule)? };
        // SAFETY: the caller's promise.
        let state = loaded(schedule, unsafe { list("memory", memory, size)? })?;
        Ok(schedule.0.restore(state)?)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, body) }
}
