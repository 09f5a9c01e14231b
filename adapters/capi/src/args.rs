//! Hyper-parameters as JSON, as `key=value` text, or as named numbers.

use alloc::format;
use alloc::vec::Vec;
use core::ffi::c_char;

use bitstep::hyper::{Args, Value};
use bitstep::optimizer::OptimizerSpec;
use serde_json::Value as Json;

use crate::error::{BITSTEP_ARGUMENT, BITSTEP_LENGTH, Status, err};
use crate::places::Places;

/// A named number: a hyper-parameter, or an extra argument of a step (`train_loss`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NamedNumber {
    /// Its name, at most 64 bytes. A hyper-parameter that is a list repeats its name: `betas`, `betas`.
    pub name: *const c_char,
    /// Its value; 0 and 1 stand for false and true.
    pub value: f64,
}

/// Longer than any name of the library.
const LONGEST_NAME: usize = 64;
/// A limit, because the parsed values take about thirty times the memory of the text.
pub(crate) const LONGEST_TEXT: usize = 1 << 16;
/// More than any optimizer or schedule has arguments.
const MOST_NUMBERS: usize = 1024;

/// Reads a name.
///
/// # Safety
/// As [`Places::text`].
pub(crate) unsafe fn name<'a>(
    places: &mut Places,
    what: &str,
    text: *const c_char,
) -> Result<&'a str, Status> {
    // SAFETY: guaranteed by the caller.
    unsafe { places.text(what, text, LONGEST_NAME) }
}

/// Parses `{"lr": 1e-3}` or `lr=1e-3, eps=1e-6`; NULL or an empty string gives the defaults.
///
/// # Safety
/// As [`Places::text`].
pub(crate) unsafe fn args(places: &mut Places, pointer: *const c_char) -> Result<Args, Status> {
    if pointer.is_null() {
        return Ok(Args::new());
    }
    // SAFETY: guaranteed by the caller.
    let text = unsafe { places.text("arguments", pointer, LONGEST_TEXT) }?.trim();
    if !text.starts_with('{') {
        return Ok(Args::parse(text)?);
    }
    // serde_json limits nesting to a depth of 128.
    let map: serde_json::Map<_, _> =
        serde_json::from_str(text).or_else(|e| err(BITSTEP_ARGUMENT, format!("arguments: {e}")))?;
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

/// The spec of an optimizer's name, and of how its state and its weights are stored if the arguments `storage` and
/// `weights` say so.
pub(crate) fn spec(name: &str, args: &Args) -> Result<OptimizerSpec, Status> {
    let mut args = args.clone();
    let (storage, weights) = (args.take("storage"), args.take("weights"));
    let spec = bitstep::registry::optimizer(name, args)?;
    if storage.is_none() && weights.is_none() {
        return Ok(spec);
    }
    Ok(spec.with_storage(&storage.unwrap_or_default(), &weights.unwrap_or_default())?)
}

/// Builds arguments from named numbers.
///
/// # Safety
/// As [`numbers`].
pub(crate) unsafe fn from_numbers(
    places: &mut Places,
    pointer: *const NamedNumber,
    count: usize,
) -> Result<Args, Status> {
    let mut all: Vec<(&str, Vec<Value>)> = Vec::new();
    // SAFETY: guaranteed by the caller.
    for (name, x) in unsafe { numbers(places, "arguments", pointer, count) }? {
        // Integers and booleans arrive as whole numbers.
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

/// Reads a list of named numbers.
///
/// # Safety
/// As [`Places::list`], and [`Places::text`] for every name.
unsafe fn numbers<'a>(
    places: &mut Places,
    what: &str,
    pointer: *const NamedNumber,
    count: usize,
) -> Result<Vec<(&'a str, f64)>, Status> {
    if count > MOST_NUMBERS {
        return err(BITSTEP_LENGTH, format!("{what}: {count} numbers, at most {MOST_NUMBERS}"));
    }
    // SAFETY: guaranteed by the caller.
    let list = unsafe { places.list(what, pointer, count)? };
    let one = |n: &NamedNumber| {
        // SAFETY: guaranteed by the caller.
        Ok((unsafe { name(places, "a name", n.name) }?, n.value))
    };
    list.iter().map(one).collect()
}

/// Reads the extra arguments of a step. Refuses a name that `known` rejects, and one that occurs twice.
///
/// # Safety
/// As [`numbers`].
pub(crate) unsafe fn extra<'a>(
    places: &mut Places,
    pointer: *const NamedNumber,
    count: usize,
    known: impl Fn(&str) -> bool,
) -> Result<Vec<(&'a str, f64)>, Status> {
    // SAFETY: guaranteed by the caller.
    let all: Vec<(&str, f64)> = unsafe { numbers(places, "given", pointer, count)? };
    for (i, (name, _)) in all.iter().enumerate() {
        if !known(name) {
            return err(BITSTEP_ARGUMENT, format!("given: nothing listens to `{name}`"));
        }
        if all.iter().take(i).any(|(earlier, _)| earlier == name) {
            return err(BITSTEP_ARGUMENT, format!("given: `{name}` comes twice"));
        }
    }
    Ok(all)
}

/// Refuses a learning rate that every reference's constructor would refuse: negative or NaN.
pub(crate) fn check_rate(lr: f64) -> Result<(), Status> {
    if lr >= 0.0 {
        return Ok(());
    }
    let expected = ">= 0";
    Err(bitstep::Error::OutOfRange { argument: "lr", value: lr, expected }.into())
}
