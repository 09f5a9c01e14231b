//! Arguments as JSON, as text, or as plain numbers.

use alloc::format;
use alloc::vec::Vec;
use core::ffi::c_char;

use bitstep::hyper::{Args, Value};
use serde_json::Value as Json;

use crate::error::{BITSTEP_ARGUMENT, BITSTEP_LENGTH, Fault, fault};
use crate::places::Places;

/// A number with a name: an argument, or what a rule listens to (`train_loss`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NamedNumber {
    /// Its name, at most 64 bytes. As an argument it may come several times: `betas`, `betas`.
    pub name: *const c_char,
    /// Its value; 0 and 1 for false and true.
    pub value: f64,
}

/// All names are shorter.
const LONGEST_NAME: usize = 64;
/// Text is read into values, which take some thirty times the memory.
const LONGEST_TEXT: usize = 1 << 16;
/// More numbers than anything has arguments.
const MOST_NUMBERS: usize = 1024;

/// A name.
///
/// # Safety
/// As [`Places::text`].
pub(crate) unsafe fn name<'a>(
    places: &mut Places,
    what: &str,
    text: *const c_char,
) -> Result<&'a str, Fault> {
    // SAFETY: the caller's promise.
    unsafe { places.text(what, text, LONGEST_NAME) }
}

/// `{"lr": 1e-3}` or `lr=1e-3, eps=1e-6`; NULL or nothing for the defaults.
///
/// # Safety
/// As [`Places::text`].
pub(crate) unsafe fn args(places: &mut Places, pointer: *const c_char) -> Result<Args, Fault> {
    if pointer.is_null() {
        return Ok(Args::new());
    }
    // SAFETY: the caller's promise.
    let text = unsafe { places.text("arguments", pointer, LONGEST_TEXT) }?.trim();
    if !text.starts_with('{') {
        return Ok(Args::parse(text)?);
    }
    // Lists within lists are read to a depth of 128.
    let map: serde_json::Map<_, _> = serde_json::from_str(text)
        .or_else(|e| fault(BITSTEP_ARGUMENT, format!("arguments: {e}")))?;
    Ok(map.into_iter().map(|(name, json)| (name, value(json))).collect())
}

fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(b),
        Json::Number(n) => {
            n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        Json::String(s) => Value::Str(s),
        Json::Array(list) => Value::List(list.into_iter().map(value).collect()),
        Json::Object(map) => Value::Map(map.into_iter().map(|(k, v)| (k, value(v))).collect()),
    }
}

/// Arguments from plain numbers.
///
/// # Safety
/// As [`numbers`].
pub(crate) unsafe fn from_numbers(
    places: &mut Places,
    pointer: *const NamedNumber,
    count: usize,
) -> Result<Args, Fault> {
    let mut all: Vec<(&str, Vec<Value>)> = Vec::new();
    // SAFETY: the caller's promise.
    for (name, x) in unsafe { numbers(places, "arguments", pointer, count) }? {
        // Counts and truth values are whole.
        let whole = x == (x as i64) as f64;
        let value = if whole { Value::Int(x as i64) } else { Value::Float(x) };
        match all.iter_mut().find(|(n, _)| *n == name) {
            Some((_, values)) => values.push(value),
            None => all.push((name, alloc::vec![value])),
        }
    }
    let one = |mut values: Vec<Value>| match values.len() {
        1 => values.remove(0),
        _ => Value::List(values),
    };
    Ok(all.into_iter().map(|(name, values)| (name, one(values))).collect())
}

/// Names with their numbers.
///
/// # Safety
/// As [`Places::list`], and as [`Places::text`] of every name.
unsafe fn numbers<'a>(
    places: &mut Places,
    what: &str,
    pointer: *const NamedNumber,
    count: usize,
) -> Result<Vec<(&'a str, f64)>, Fault> {
    if count > MOST_NUMBERS {
        return fault(BITSTEP_LENGTH, format!("{what}: {count} numbers, at most {MOST_NUMBERS}"));
    }
    // SAFETY: the caller's promise.
    let list = unsafe { places.list(what, pointer, count)? };
    let one = |n: &NamedNumber| {
        // SAFETY: the caller's promise.
        Ok((unsafe { name(places, "a name", n.name) }?, n.value))
    };
    list.iter().map(one).collect()
}

/// Numbers that a rule listens to: those that `known` knows, each once.
///
/// # Safety
/// As [`numbers`].
pub(crate) unsafe fn given<'a>(
    places: &mut Places,
    pointer: *const NamedNumber,
    count: usize,
    known: impl Fn(&str) -> bool,
) -> Result<Vec<(&'a str, f64)>, Fault> {
    // SAFETY: the caller's promise.
    let all: Vec<(&str, f64)> = unsafe { numbers(places, "given", pointer, count)? };
    for (i, (name, _)) in all.iter().enumerate() {
        if !known(name) {
            return fault(BITSTEP_ARGUMENT, format!("given: nothing listens to `{name}`"));
        }
        if all.iter().take(i).any(|(earlier, _)| earlier == name) {
            return fault(BITSTEP_ARGUMENT, format!("given: `{name}` comes twice"));
        }
    }
    Ok(all)
}

/// A rate as every reference's constructor takes it.
pub(crate) fn check_rate(lr: f64) -> Result<(), Fault> {
    if lr >= 0.0 {
        return Ok(());
    }
    let expected = ">= 0";
    Err(bitstep::Error::OutOfRange { argument: "lr", value: lr, expected }.into())
}
