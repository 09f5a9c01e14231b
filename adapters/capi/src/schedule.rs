//! Learning-rate schedules.

use alloc::boxed::Box;
use core::ffi::c_char;

use bitstep::memory::{collected, filled};
use bitstep::schedule::{Scheduler, SchedulerState, build};

use crate::args::{args, name};
use crate::bytes::{Reader, Writer, copy_out, size};
use crate::error::{BITSTEP_LENGTH, BITSTEP_STATE, Failure, Fault, fault};
use crate::optimizer::Optimizer;
use crate::places::answer;

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
    error: *mut Failure,
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
    error: *mut Failure,
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
    error: *mut Failure,
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
    error: *mut Failure,
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
            let all = collected("groups", 0..groups)?;
            optimizer.inner.follow(&schedule.0, &all)?;
            Ok(())
        })
    }
}

/// What saved state begins with.
const MAGIC: &[u8; 7] = b"bitstes";

/// A number for each field of the state, in the order of the fields. What the schedule does not have
/// is left out: `loaded` knows from the schedule at hand.
fn save(schedule: &Schedule, to: &mut Writer<'_>) {
    let state = schedule.0.state();
    to.beginning(MAGIC);
    to.bytes(schedule.0.name().as_bytes());
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
}

fn loaded(schedule: &Schedule, bytes: &[u8]) -> Result<SchedulerState, Fault> {
    let mut state = schedule.0.state().clone();
    let mut from = Reader::new(bytes, true);
    let one = |from: &mut Reader<'_>| from.floats::<1>().map(|[x]| x);
    // What is no count at all is refused below.
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    from.beginning(MAGIC)?;
    if from.bytes()? != schedule.0.name().as_bytes() {
        let message = alloc::format!("saved state: not of `{}`", schedule.0.name());
        return fault(BITSTEP_STATE, message);
    }
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
        (g.len, g.at) = (count(from.number()?), count(from.number()?));
        let len = count(from.number()?);
        if len > from.rest.len() / 8 {
            return fault(BITSTEP_STATE, "saved state: ends within the window");
        }
        *window = filled("window", 0.0, len)?;
        for x in window {
            *x = one(&mut from)?;
        }
    }
    for a in &mut state.adafactor {
        a.lr = one(&mut from)?;
        a.step = from.number()?;
        a.f32 = from.truth("whether a rate is an f32")?;
    }
    from.end()?;
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
    schedule: *const Schedule,
    size: *mut usize,
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            let size = places.out("size", size)?;
            places.check()?;
            size.set(self::size(|to| save(schedule, to)));
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
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle("schedule", schedule)?;
            places.written("memory", memory.cast(), size, 1)?;
            places.check()?;
            copy_out(|to| save(schedule, to), memory, size)
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
    error: *mut Failure,
) -> i32 {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        answer(error, |places| {
            let schedule = places.handle_mut("schedule", schedule)?;
            let bytes = places.list("memory", memory, size)?;
            places.check()?;
            let state = loaded(schedule, bytes)?;
            Ok(schedule.0.restore(state)?)
        })
    }
}
