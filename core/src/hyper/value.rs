//! [`Value`]: the value of an argument.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A value as JSON or Python writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `None`, `null`.
    #[default]
    None,
    /// `True`, `true`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Str(String),
    /// A list or tuple.
    List(Vec<Value>),
    /// A dictionary, in its order.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Parses one word: `None`, `True` or `False` (or JSON's spelling), a number, or else a string.
    #[must_use]
    pub fn parse(word: &str) -> Value {
        match word {
            "None" | "null" => return Value::None,
            "True" | "true" => return Value::Bool(true),
            "False" | "false" => return Value::Bool(false),
            _ => {}
        }
        if let Ok(i) = word.parse() {
            Value::Int(i)
        } else if let Ok(x) = word.parse() {
            Value::Float(x)
        } else {
            Value::Str(word.to_owned())
        }
    }

    /// [`Value::parse`] of a word, or of each in `[a, b]` or `(a, b)`.
    pub(super) fn parse_list(text: &str) -> Value {
        let inner = |ends: [char; 2]| text.strip_prefix(ends[0])?.strip_suffix(ends[1]);
        match inner(['[', ']']).or_else(|| inner(['(', ')'])) {
            None => Value::parse(text),
            Some(list) => {
                let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
                Value::List(words.map(Value::parse).collect())
            }
        }
    }

    /// The value as a float, if it is a number, or the name of an infinity or NaN, for which JSON has no numbers.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::Float(x) => Some(*x),
            Value::Str(s) => match s.as_str() {
                "inf" | "Infinity" => Some(f64::INFINITY),
                "-inf" | "-Infinity" => Some(f64::NEG_INFINITY),
                "nan" | "NaN" => Some(f64::NAN),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value as an integer, if it is one, or a float with an integer value below 9·10¹⁵.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            Value::Float(x) if *x == (*x as i64) as f64 && x.abs() < 9e15 => Some(*x as i64),
            _ => None,
        }
    }

    /// The value as an integer, if it is one that is at least 0.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.as_i64().and_then(|i| u64::try_from(i).ok())
    }

    /// The value as a boolean, if it is one, 0 or 1.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            Value::Int(0) => Some(false),
            Value::Int(1) => Some(true),
            _ => None,
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(l) => Some(l),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(b) => f.write_str(if *b { "True" } else { "False" }),
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(x) => write!(f, "{x:?}"),
            Value::Str(s) => write!(f, "{s:?}"),
            Value::List(l) => {
                f.write_str("[")?;
                for (i, v) in l.iter().enumerate() {
                    write!(f, "{}{v}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Map(m) => {
                f.write_str("{")?;
                for (i, (k, v)) in m.iter().enumerate() {
                    write!(f, "{}{k:?}: {v}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Value {
        Value::Int(i)
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Value {
        Value::Float(x)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value::Str(s.to_owned())
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(l: Vec<T>) -> Value {
        Value::List(l.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(l: [T; N]) -> Value {
        Value::List(l.into_iter().map(Into::into).collect())
    }
}
