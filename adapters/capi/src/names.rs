//! The version, and what there is: optimizers, schedules, and their arguments.

use core::ffi::c_char;

use bitstep::hyper::Args;
use bitstep::{registry, schedule};

use crate::args::name;
use crate::error::{BITSTEP_ARGUMENT, BITSTEP_LENGTH, ErrorMessage, err};
use crate::places::ffi_call;
use crate::text::{Name, fixed, json};

/// The version of the library that runs, such as `0.1.0`, as `BITSTEP_VERSION` is that of the header. It
/// lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn bitstep_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The number of optimizers that are known by a name.
#[unsafe(no_mangle)]
pub extern "C" fn bitstep_optimizer_count() -> usize {
    registry::OPTIMIZERS.len()
}

/// Writes the name of an optimizer, from 0 in alphabetical order, to `name`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_name_at(
    index: usize,
    name: *mut Name,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let out = places.out("name", name)?;
            places.check()?;
            let Some(entry) = registry::OPTIMIZERS.get(index) else {
                return err(BITSTEP_LENGTH, "index: there are fewer optimizers");
            };
            out.set(Name { text: fixed(entry.name) });
            Ok(())
        })
    }
}

/// Writes the arguments of an optimizer with their defaults, as a JSON object in the reference's order, to
/// `text`, which has `size` bytes, and the number of bytes that this takes, a 0 at the end included, to
/// `needed`. With a `size` of 0 only that is written. `text` may be read by `bitstep_optimizer_add_group`.
/// Arguments that change no result, such as `foreach`, are accepted, and not listed.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0, and there are `size` bytes at `text`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_optimizer_defaults(
    name: *const c_char,
    text: *mut c_char,
    size: usize,
    needed: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let name = self::name(places, "name", name)?;
            let out = places.text_out(text, size, needed)?;
            places.check()?;
            let mut spec = registry::optimizer(name, Args::new())?;
            out.set(&json(&Args::of(spec.rule.hyper_params())))
        })
    }
}

/// The number of schedules that are known by a name.
#[unsafe(no_mangle)]
pub extern "C" fn bitstep_schedule_count() -> usize {
    schedule::NAMES.len()
}

/// Writes the name of a schedule, from 0 in alphabetical order, to `name`.
///
/// # Safety
/// Pointers are valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_name_at(
    index: usize,
    name: *mut Name,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let out = places.out("name", name)?;
            places.check()?;
            let Some(name) = schedule::NAMES.get(index) else {
                return err(BITSTEP_LENGTH, "index: there are fewer schedules");
            };
            out.set(Name { text: fixed(name) });
            Ok(())
        })
    }
}

/// Writes the arguments of a schedule with their defaults, `null` for those that must be given, to `text`,
/// as `bitstep_optimizer_defaults` does. Every schedule takes the optimizer's `lr` or `groups` besides.
///
/// # Safety
/// Pointers are valid or NULL, strings end with 0, and there are `size` bytes at `text`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bitstep_schedule_defaults(
    name: *const c_char,
    text: *mut c_char,
    size: usize,
    needed: *mut usize,
    error: *mut ErrorMessage,
) -> i32 {
    // SAFETY: guaranteed by the caller, here and below.
    unsafe {
        ffi_call(error, |places| {
            let name = self::name(places, "name", name)?;
            let out = places.text_out(text, size, needed)?;
            places.check()?;
            match schedule::defaults(name) {
                Some(args) => out.set(&json(&args)),
                // The error of an unknown name, with the nearest one.
                None => match schedule::build(name, &Args::new()) {
                    Err(e) => Err(e.into()),
                    Ok(_) => err(BITSTEP_ARGUMENT, "name: no schedule"),
                },
            }
        })
    }
}
