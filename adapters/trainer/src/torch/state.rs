//! Reading the files of an optimizer, a schedule and a loss scale.

use std::collections::BTreeMap;
use std::path::Path;

use bitstep::hyper::{Args, Value as Arg};

use super::{TorchError, Value, read};
use crate::resume::State;

/// Reads a file written by `torch.save(optimizer.state_dict(), …)`.
///
/// # Errors
/// A file that can't be read or has other contents.
pub fn optimizer(path: impl AsRef<Path>) -> Result<State, TorchError> {
    State::try_from(read(path.as_ref())?)
}

/// Reads a file written by `torch.save(scheduler.state_dict(), …)`.
///
/// # Errors
/// A file that can't be read or has other contents.
pub fn scheduler(path: impl AsRef<Path>) -> Result<Args, TorchError> {
    let of = "a schedule";
    arguments(of, entries(of, read(path.as_ref())?, "a state dictionary")?)
}

/// Reads a file written by `torch.save(scaler.state_dict(), …)`.
///
/// # Errors
/// A file that can't be read or has other contents.
pub fn scaler(path: impl AsRef<Path>) -> Result<Args, TorchError> {
    let of = "a loss scale";
    arguments(of, entries(of, read(path.as_ref())?, "a state dictionary")?)
}

const OF: &str = "an optimizer";
/// The key of bitsandbytes' nested state since 0.50.
const NESTED: &str = "__bnb_optimizer_quant_state__";

impl TryFrom<Value> for State {
    type Error = TorchError;

    /// Converts the contents of `optimizer.state_dict()`.
    fn try_from(value: Value) -> Result<State, TorchError> {
        let mut top = entries(OF, value, "a state dictionary")?;
        let (states, groups) = (take(&mut top, "state")?, take(&mut top, "param_groups")?);
        let mut out = State::default();
        let mut numbers = Vec::new();
        for group in items(groups, "a list of groups")? {
            let mut group = entries(OF, group, "a group")?;
            let own = take(&mut group, "params")?;
            let own = items(own, "a list of parameters")?.into_iter().map(whole);
            let own = own.collect::<Result<Vec<_>, _>>()?;
            out.groups.push((own.len(), arguments(OF, group)?));
            numbers.extend(own);
        }
        let mut states = entries(OF, states, "a dictionary of states")?
            .into_iter()
            .map(|(number, state)| Ok((whole(number)?, state)))
            .collect::<Result<BTreeMap<i64, Value>, TorchError>>()?;
        for number in numbers {
            let mut slots = BTreeMap::new();
            let state = states.remove(&number).map(|s| entries(OF, s, "a state")).transpose()?;
            for (key, value) in state.into_iter().flatten() {
                match (text(OF, key)?, value) {
                    (key, Value::Dict(nested)) if key == NESTED => {
                        for (key, value) in nested {
                            slot(&mut slots, text(OF, key)?, &value)?;
                        }
                    }
                    (key, value) => slot(&mut slots, key, &value)?,
                }
            }
            out.params.push(slots);
        }
        match states.keys().next() {
            Some(number) => {
                Err(wrong(OF, format!("a state for parameter {number}, which is in no group")))
            }
            None => Ok(out),
        }
    }
}

fn slot(
    slots: &mut BTreeMap<String, Vec<f64>>,
    key: String,
    value: &Value,
) -> Result<(), TorchError> {
    // An object of unknown content, such as GaLore's projector: Trainer does not load it either.
    if let Value::Opaque(name) = value {
        return Err(wrong(OF, format!("`{name}` as `{key}` of a parameter, which is not read")));
    }
    if let Some(numbers) = numbers(value) {
        slots.insert(key, numbers);
    }
    Ok(())
}

fn wrong(of: &'static str, what: impl Into<String>) -> TorchError {
    TorchError::Content { of, what: what.into() }
}

fn entries(
    of: &'static str,
    value: Value,
    expected: &str,
) -> Result<Vec<(Value, Value)>, TorchError> {
    match value {
        Value::Dict(entries) => Ok(entries),
        other => Err(wrong(of, format!("{}, wanted {expected}", kind(&other)))),
    }
}

/// Removes the entry with that key.
fn take(entries: &mut Vec<(Value, Value)>, key: &str) -> Result<Value, TorchError> {
    let at = entries.iter().rposition(|(k, _)| matches!(k, Value::Str(k) if k == key));
    at.map(|at| entries.remove(at).1).ok_or_else(|| wrong(OF, format!("no `{key}`")))
}

/// The entries that can be arguments.
fn arguments(of: &'static str, entries: Vec<(Value, Value)>) -> Result<Args, TorchError> {
    // Bounded, as each key is compared with all before it.
    const MOST: usize = 1000;
    if entries.len() > MOST {
        return Err(TorchError::Limit { what: "keys of a group", limit: MOST as u64 });
    }
    let mut args = Args::new();
    for (key, value) in entries {
        let key = text(of, key)?;
        if let Some(value) = plain(value) {
            args.set(&key, value);
        }
    }
    Ok(args)
}

fn items(value: Value, expected: &str) -> Result<Vec<Value>, TorchError> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(wrong(OF, format!("{}, wanted {expected}", kind(&other)))),
    }
}

fn text(of: &'static str, value: Value) -> Result<String, TorchError> {
    match value {
        Value::Str(text) => Ok(text),
        other => Err(wrong(of, format!("{} as a key, wanted a string", kind(&other)))),
    }
}

fn whole(value: Value) -> Result<i64, TorchError> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(wrong(OF, format!("{} for a parameter, wanted its number", kind(&other)))),
    }
}

/// The kind of a value, for error messages.
fn kind(value: &Value) -> String {
    let kind = match value {
        Value::None => "None",
        Value::Bool(_) => "a truth value",
        Value::Int(_) | Value::Float(_) => "a number",
        Value::Str(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Dict(_) => "a dictionary",
        Value::Tensor(tensor) => return format!("{tensor:?}"),
        Value::Opaque(name) => return format!("`{name}`"),
    };
    kind.to_owned()
}

/// A value as an argument, where a tensor of one element is a number; `None` if it can't be one.
fn plain(value: Value) -> Option<Arg> {
    Some(match value {
        Value::None => Arg::None,
        Value::Bool(b) => Arg::Bool(b),
        Value::Int(i) => Arg::Int(i),
        Value::Float(x) => Arg::Float(x),
        Value::Str(s) => Arg::Str(s),
        Value::List(items) => Arg::List(items.into_iter().map(plain).collect::<Option<_>>()?),
        Value::Dict(entries) => {
            let text = |key: Value| match key {
                Value::Str(key) => Some(key),
                Value::Int(key) => Some(key.to_string()),
                _ => None,
            };
            let entry = |(key, value)| Some((text(key)?, plain(value)?));
            Arg::Map(entries.into_iter().map(entry).collect::<Option<_>>()?)
        }
        Value::Tensor(tensor) if tensor.numel() == 1 => {
            Arg::Float(tensor.to_f64()?.first().copied()?)
        }
        _ => return None,
    })
}

/// The elements of a tensor in row-major order, or a single number; `None` for anything else.
fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Bool(b) => Some(vec![f64::from(u8::from(*b))]),
        Value::Int(i) => Some(vec![*i as f64]),
        Value::Float(x) => Some(vec![*x]),
        Value::Tensor(tensor) => tensor.to_f64(),
        _ => None,
    }
}
