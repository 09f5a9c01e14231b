//! Arguments as JSON, as text, or as plain numbers.

use alloc::vec::Vec;
use core::ffi::{CStr, c_char};

use bitstep::args::{Args, Value};
use serde_json::Value as Json;

use crate::error::{BITSTEP_ARGUMENT, BITSTEP_POINTER, Fault, fault};

/// A number with a name: an argument, or what a rule listens to (`train_loss`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Number {
    /// Its name. As an argument it may come several times: `betas`, `betas`.
    pub name: *const c_char,
    /// Its value; 0 and 1 for false and true.
    pub value: f64,
}

/// A string of the caller's.
///
/// # Safety
/// `text` is NULL or a string ended by 0, which lives as long as the answer.
pub(crate) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str, Fault> {
    if text.is_null() {
        return fault(BITSTEP_POINTER, alloc::format!("{what} is NULL"));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().or_else(|_| fault(BITSTEP_ARGUMENT, alloc::format!("{what} is not UTF-8")))
}

/// `count` elements at `pointer`, which may be NULL if there are none.
///
/// # Safety
/// There are that many, and they live and stay as they are as long as the answer.
pub(crate) unsafe fn list<'a, T>(
    what: &str,
    pointer: *const T,
    count: usize,
) -> Result<&'a [T], Fault> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() || !pointer.is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        return fault(BITSTEP_POINTER, alloc::format!("{what}: NULL, not aligned, or too many"));
    }
    // SAFETY: not NULL, aligned, no larger than an object may be; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// `{"lr": 1e-3}` or `lr=1e-3, eps=1e-6`; NULL or nothing for the defaults.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn args(pointer: *const c_char) -> Result<Args, Fault> {
    if pointer.is_null() {
        return Ok(Args::new());
    }
    // SAFETY: the caller's promise.
    let text = unsafe { text("arguments", pointer) }?.trim();
    if !text.starts_with('{') {
        return Ok(Args::parse(text)?);
    }
    let map: serde_json::Map<_, _> = serde_json::from_str(text)
        .or_else(|e| fault(BITSTEP_ARGUMENT, alloc::format!("arguments: {e}")))?;
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
/// As [`text`], of every name.
pub(crate) unsafe fn from_numbers(numbers: &[Number]) -> Result<Args, Fault> {
    let mut all: Vec<(&str, Vec<Value>)> = Vec::new();
    // SAFETY: the caller's promise.
    for (name, x) in unsafe { given(numbers) }? {
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
/// As [`text`], of every name.
pub(crate) unsafe fn given<'a>(numbers: &[Number]) -> Result<Vec<(&'a str, f64)>, Fault> {
    let one = |n: &Number| {
        // SAFETY: the caller's promise.
        Ok((unsafe { text("a name", n.name) }?, n.value))
    };
    numbers.iter().map(one).collect()
}
