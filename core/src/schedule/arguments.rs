//! Reads the arguments of a schedule, given as Python's dictionaries, JSON or a line of text have them: the groups'
//! rates, values per group, nested schedules.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Error;
use crate::hyper::{ArgError, Args, HyperParams, Value, nearest};

/// The arguments that describe the optimizer and its groups.
pub(super) struct Groups {
    /// The optimizer's `lr`.
    pub(super) default_lr: f64,
    pub(super) lrs: Vec<f64>,
    /// Each group's `initial_lr`, where an earlier schedule has left one.
    pub(super) initial_lrs: Vec<Option<f64>>,
    /// Each group's other arguments.
    pub(super) changes: Vec<Args>,
}

impl Groups {
    /// Takes these arguments out of `args`. `initial_lr` is for groups without one of their own.
    #[inline]
    pub(super) fn take(args: &mut Args, initial_lr: Option<Value>) -> Result<Groups, ArgError> {
        let number = |argument: &str, value: Option<&Value>| match value {
            None | Some(Value::None) => Ok(None),
            Some(v) => v.as_f64().map(Some).ok_or_else(|| bad(argument, v, "a number")),
        };
        let lr = args.take("lr");
        // `lr` may be a list of the groups' rates.
        let list = lr.as_ref().and_then(Value::as_list).map(<[Value]>::to_vec);
        let default_lr = match &list {
            Some(_) => None,
            None => number("lr", lr.as_ref())?,
        };
        let default_lr = default_lr.unwrap_or(1e-3);
        let initial = number("initial_lr", initial_lr.as_ref())?;
        let groups = match (args.take("groups"), list) {
            (None | Some(Value::None), None) => {
                alloc::vec![Value::Map(Vec::new())]
            }
            (None | Some(Value::None), Some(lrs)) => {
                lrs.into_iter().map(|lr| Value::Map(alloc::vec![("lr".to_owned(), lr)])).collect()
            }
            (Some(Value::List(groups)), None) => groups,
            (Some(Value::List(_)), Some(_)) => {
                return Err(Error::InvalidArgument {
                    argument: "lr",
                    expected: "a number, beside groups",
                }
                .into());
            }
            (Some(v), _) => return Err(bad("groups", &v, "a list of dictionaries")),
        };
        let (mut lrs, mut initial_lrs, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for group in &groups {
            let Value::Map(group) = group else {
                return Err(bad("groups", group, "a list of dictionaries"));
            };
            let get = |key: &str| group.iter().find(|(k, _)| k == key).map(|(_, v)| v);
            let lr = number("lr", get("lr"))?.unwrap_or(default_lr);
            lrs.push(lr);
            initial_lrs.push(number("initial_lr", get("initial_lr"))?.or(initial));
            let rest =
                group.iter().filter(|(k, _)| !["params", "lr", "initial_lr"].contains(&&**k));
            changes.push(rest.cloned().collect());
        }
        Ok(Groups { default_lr, lrs, initial_lrs, changes })
    }

    /// Refuses groups with arguments other than rates: most schedules use no other argument of the optimizer.
    #[inline]
    pub(super) fn have_rates_alone(&self) -> Result<(), ArgError> {
        match self.changes.iter().flat_map(Args::iter).next() {
            None => Ok(()),
            Some((argument, value)) => {
                Err(bad(argument, value, "left out of `groups`, where rates are all that counts"))
            }
        }
    }

    /// The arguments as each group sees them.
    #[inline]
    pub(super) fn each(&self, args: &Args) -> Result<Vec<Args>, ArgError> {
        let count = self.lrs.len();
        let values: usize = args.iter().map(|(_, v)| size(v)).fold(0, usize::saturating_add);
        if count.saturating_mul(values) > MAX_VALUES {
            let expected = "at most 1048576 values of arguments, of all groups together";
            return Err(
                Error::OutOfRange { argument: "groups", value: count as f64, expected }.into()
            );
        }
        (0..count).map(|g| for_group(args, g, count)).collect()
    }
}

/// The most values that the arguments of all groups together may consist of.
const MAX_VALUES: usize = 1 << 20;

/// How many values a value consists of; long strings count as several.
#[inline]
fn size(value: &Value) -> usize {
    let list = |sizes: &mut dyn Iterator<Item = usize>| sizes.fold(1, usize::saturating_add);
    match value {
        Value::Str(s) => 1 + s.len() / 16,
        Value::List(l) => list(&mut l.iter().map(size)),
        Value::Map(m) => list(&mut m.iter().map(|(k, v)| size(v).saturating_add(k.len() / 16))),
        _ => 1,
    }
}

/// Arguments that may be a list with one value per group.
const PER_GROUP: &[&str] = &["base_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"];

/// The arguments as one group sees them, including those of nested schedules.
#[inline]
fn for_group(args: &Args, group: usize, groups: usize) -> Result<Args, ArgError> {
    let resolve = |name: &str, value: &Value| match value.as_list() {
        Some(list) if PER_GROUP.contains(&name) => {
            list.get(group).cloned().ok_or(Error::LengthMismatch {
                argument: PER_GROUP.iter().find(|n| **n == name).unwrap_or(&"groups"),
                got: list.len(),
                expected: groups,
            })
        }
        _ => Ok(value.clone()),
    };
    for &name in PER_GROUP {
        if let Some(list) = args.get(name).and_then(Value::as_list)
            && list.len() != groups
        {
            let (argument, got) = (name, list.len());
            return Err(Error::LengthMismatch { argument, got, expected: groups }.into());
        }
    }
    let resolved = args.iter().map(|(n, v)| Ok((n.to_owned(), resolve(n, v)?)));
    let mut resolved: Args = resolved.collect::<Result<Vec<_>, Error>>()?.into_iter().collect();
    if let Some(Value::List(schedulers)) = resolved.get("schedulers") {
        let within = schedulers.iter().map(|s| {
            let (name, args) = name_and_args("schedulers", s)?;
            let args = for_group(&args, group, groups)?;
            let args = args.iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
            Ok(Value::List(alloc::vec![Value::Str(name), Value::Map(args)]))
        });
        resolved.set("schedulers", Value::List(within.collect::<Result<_, ArgError>>()?));
    }
    Ok(resolved)
}

/// Sets the fields of `target`; its `non_fields` are set already.
#[inline]
pub(super) fn apply(
    of: &str,
    args: &Args,
    target: &mut dyn HyperParams,
    non_fields: &[&'static str],
) -> Result<(), ArgError> {
    args.apply(of, target).map_err(|error| suggest(error, non_fields))?;
    match target.required().iter().find(|argument| args.get(argument).is_none()) {
        Some(argument) => Err(missing(of, argument)),
        None => Ok(()),
    }
}

/// Extends the suggestion for an unknown argument to these names, for which there is no field.
#[inline]
pub(super) fn suggest(error: ArgError, non_fields: &[&'static str]) -> ArgError {
    let ArgError::UnknownArgument { of, argument, nearest: field } = error else { return error };
    let nearest = nearest(&argument, field.into_iter().chain(non_fields.iter().copied()));
    ArgError::UnknownArgument { of, argument, nearest }
}

/// Takes a required argument out.
#[inline]
pub(super) fn take(of: &str, argument: &'static str, args: &mut Args) -> Result<Value, ArgError> {
    args.take(argument).ok_or_else(|| missing(of, argument))
}

/// Takes out a required argument that is a list.
pub(super) fn take_list<T>(
    of: &str,
    argument: &'static str,
    args: &mut Args,
    expected: &str,
    item: fn(&Value) -> Option<T>,
) -> Result<Vec<T>, ArgError> {
    let list = take(of, argument, args)?;
    let items = list.as_list().and_then(|l| l.iter().map(item).collect());
    items.ok_or_else(|| bad(argument, &list, expected))
}

/// Takes out a required argument that is a list of step numbers.
#[inline]
pub(super) fn steps(
    of: &str,
    argument: &'static str,
    args: &mut Args,
) -> Result<Vec<u64>, ArgError> {
    take_list(of, argument, args, "a list of whole numbers, at least 0", Value::as_u64)
}

/// A nested schedule: a name, `[name, {…}]`, or a dictionary with its name and arguments.
#[inline]
pub(super) fn name_and_args(
    argument: &'static str,
    value: &Value,
) -> Result<(String, Args), ArgError> {
    const NAME: &[&str] =
        &["name", "class_name", "class", "type", "scheduler", "schedule", "reference", "kind"];
    const ARGS: &[&str] = &["hyper", "config", "kwargs", "args", "arguments"];
    let wrong = || bad(argument, value, "a dictionary with a name and arguments");
    match value {
        Value::Str(name) => Ok((name.clone(), Args::new())),
        Value::List(pair) => match pair.as_slice() {
            [Value::Str(name), Value::Map(args)] => {
                Ok((name.clone(), args.iter().cloned().collect()))
            }
            _ => Err(wrong()),
        },
        Value::Map(entries) => {
            let mut args: Args = entries.iter().cloned().collect();
            let key = NAME.iter().find(|key| args.get(key).is_some_and(|v| v.as_str().is_some()));
            let name = key.and_then(|key| args.take(key)).ok_or_else(wrong)?;
            let name = name.as_str().unwrap_or("").to_string();
            let within = ARGS.iter().find_map(|key| match args.get(key) {
                Some(Value::Map(entries)) => Some(entries.iter().cloned().collect()),
                _ => None,
            });
            // Keras' serialization writes these in addition to name and arguments.
            for other in ["module", "registered_name", "optimizer"] {
                args.take(other);
            }
            Ok((name, within.unwrap_or(args)))
        }
        _ => Err(wrong()),
    }
}

#[inline]
fn missing(of: &str, argument: &'static str) -> ArgError {
    ArgError::Missing { of: of.to_owned(), argument }
}

#[inline]
pub(super) fn bad(argument: &str, value: &Value, expected: &str) -> ArgError {
    let (argument, expected) = (argument.to_owned(), expected.to_owned());
    ArgError::Value { argument, value: value.clone(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_within_is_written_in_four_ways() {
        let gamma = Args::new().with("gamma", 0.5);
        let map = |entries: &[(&str, Value)]| {
            Value::Map(entries.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect())
        };
        let args = map(&[("gamma", 0.5.into())]);
        for value in [
            Value::List(alloc::vec!["S".into(), args.clone()]),
            map(&[("class_name", "S".into()), ("config", args.clone()), ("module", "m".into())]),
            map(&[("name", "S".into()), ("gamma", 0.5.into())]),
        ] {
            assert_eq!(name_and_args("schedulers", &value), Ok(("S".to_owned(), gamma.clone())));
        }
        assert_eq!(name_and_args("schedulers", &"S".into()), Ok(("S".to_owned(), Args::new())));

        for value in [Value::Int(1), args, Value::List(alloc::vec!["S".into()])] {
            match name_and_args("schedulers", &value) {
                Err(ArgError::Value { argument, value: got, .. }) => {
                    assert_eq!((argument.as_str(), &got), ("schedulers", &value));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn list_is_cut_to_the_groups_value_also_within_others() {
        let within = Args::new().with("max_lr", [3.0, 5.0]).with("milestones", [1i64, 2]);
        let within = within.iter().map(|(n, v)| (n.to_owned(), v.clone())).collect();
        let pair = Value::List(alloc::vec!["S".into(), Value::Map(within)]);
        let args = Args::new().with("schedulers", Value::List(alloc::vec![pair]));
        let got = for_group(&args, 1, 2).expect("two values for two groups");
        // A list that is not per group stays whole.
        let want = "[[\"S\", {\"max_lr\": 5.0, \"milestones\": [1, 2]}]]";
        assert_eq!(got.get("schedulers").map(Value::to_string).as_deref(), Some(want));
        let refused = Error::LengthMismatch { argument: "max_lr", got: 2, expected: 3 };
        assert_eq!(for_group(&args, 1, 3), Err(refused.into()));
    }

    #[test]
    fn list_within_another_that_is_too_short_is_named() {
        let within = Value::Map(alloc::vec![("max_lr".to_string(), [3.0].into())]);
        let pair = Value::List(alloc::vec!["S".into(), within]);
        let args = Args::new().with("schedulers", Value::List(alloc::vec![pair]));
        let expected = Error::LengthMismatch { argument: "max_lr", got: 1, expected: 2 };
        assert_eq!(for_group(&args, 1, 2), Err(expected.into()));
    }
}
