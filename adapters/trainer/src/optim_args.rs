//! `optim_args`, parsed as by Trainer: into strings first, which each optimizer converts.

use bitstep::hyper::{ArgError, Value};

/// The values of `optim_args` as strings, by name.
pub(crate) struct Words(Vec<(String, String)>);

/// How Trainer converts a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Python's `float`.
    Float,
    /// Python's `int`.
    Int,
    /// A boolean: `y`, `yes`, `t`, `true`, `on`, `1` or their opposites.
    Truth,
    /// A boolean: `true`, `1` and `yes` are true, anything else is false.
    Yes,
    /// Python's `bool` of a string: false only if it is empty.
    Any,
    /// The string itself.
    Text,
    /// The string itself, for an argument that must be a number: the optimizer refuses it.
    Refused,
    /// Ignored, as other versions of Trainer use the name.
    Unread,
}

impl Words {
    /// # Errors
    /// A part that is not `name=value`.
    pub(crate) fn parse(text: &str) -> Result<Words, ArgError> {
        let mut words = Words(Vec::new());
        if text.is_empty() {
            return Ok(words);
        }
        for piece in text.replace(' ', "").split(',') {
            let pair = piece.split_once('=').filter(|(_, value)| !value.contains('='));
            let Some((name, value)) = pair else {
                return Err(ArgError::Value {
                    argument: "optim_args".to_owned(),
                    value: Value::Str(piece.to_owned()),
                    expected:
                        "name=value, pieces being parted by commas; a value has no comma and \
                             no `=` (betas are `adam_beta1` and `adam_beta2` of the training \
                             arguments)"
                            .to_owned(),
                });
            };
            words.0.push((name.to_owned(), value.to_owned()));
        }
        Ok(words)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The value of a name, if it is present.
    ///
    /// # Errors
    /// A value that Trainer can't convert.
    pub(crate) fn get(&self, name: &str, kind: Kind) -> Result<Option<Value>, ArgError> {
        // The last one counts.
        let last = self.0.iter().rev().find(|(n, _)| n == name);
        let Some((_, word)) = last else { return Ok(None) };
        let lower = || word.to_lowercase();
        let value = match kind {
            Kind::Float => float(word).map(Value::Float),
            Kind::Int => int(word).map(Value::Int),
            Kind::Truth => match lower().as_str() {
                "y" | "yes" | "t" | "true" | "on" | "1" => Some(Value::Bool(true)),
                "n" | "no" | "f" | "false" | "off" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            Kind::Yes => Some(Value::Bool(matches!(lower().as_str(), "true" | "1" | "yes"))),
            Kind::Any => Some(Value::Bool(!word.is_empty())),
            Kind::Text => Some(Value::Str(word.clone())),
            Kind::Refused => None,
            Kind::Unread => return Ok(None),
        };
        let expected = match kind {
            Kind::Float => "a number",
            Kind::Int => "a whole number, without a point",
            Kind::Truth => "one of y, yes, t, true, on, 1, n, no, f, false, off, 0",
            _ => "left out: the optimizer gets it as text and refuses it",
        };
        value.map(Some).ok_or_else(|| ArgError::Value {
            argument: name.to_owned(),
            value: Value::Str(word.clone()),
            expected: expected.to_owned(),
        })
    }
}

/// Strips what Python's `float` and `int` accept in a number: surrounding spaces, and `_` between digits.
fn digits(word: &str) -> Option<String> {
    let word = word.trim();
    let bytes = word.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let between = |(at, b): (usize, &u8)| {
        *b != b'_' || (digit(at.checked_sub(1)) && digit(at.checked_add(1)))
    };
    bytes.iter().enumerate().all(between).then(|| word.replace('_', ""))
}

fn float(word: &str) -> Option<f64> {
    digits(word)?.parse().ok()
}

fn int(word: &str) -> Option<i64> {
    digits(word)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, name: &str, kind: Kind) -> Option<Value> {
        Words::parse(text).and_then(|words| words.get(name, kind)).ok().flatten()
    }

    #[test]
    fn numbers_are_pythons() {
        for (word, want) in [
            ("0.5", 0.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("+5e-1", 0.5),
            ("1_0", 10.0),
            ("Infinity", f64::INFINITY),
            ("\t1", 1.0),
        ] {
            assert_eq!(float(word), Some(want), "{word}");
        }
        for word in ["", "_1", "1_", "1__0", "1_.5", "0x1", "1e", "None", "True"] {
            assert_eq!(float(word), None, "{word}");
        }
        assert_eq!((int("1_0"), int("+4"), int("-1")), (Some(10), Some(4), Some(-1)));
        assert_eq!((int("4.0"), int("")), (None, None));
    }

    #[test]
    fn space_is_dropped_and_the_last_of_two_counts() {
        assert_eq!(get(" a = 0 .5 ", "a", Kind::Float), Some(Value::Float(0.5)));
        assert_eq!(get("a=1,b=2,a=3", "a", Kind::Int), Some(Value::Int(3)));
        for text in ["a", "a=1,", "a==1", " ", "betas=(0.9,0.95)"] {
            assert!(Words::parse(text).is_err(), "{text}");
        }
        assert!(Words::parse("").is_ok_and(|words| words.names().next().is_none()));
    }

    #[test]
    fn truth_depends_on_who_asks() {
        let of = |word: &str, kind| get(&format!("a={word}"), "a", kind);
        let truth = |b| Some(Value::Bool(b));
        assert_eq!((of("YES", Kind::Truth), of("off", Kind::Truth)), (truth(true), truth(false)));
        assert_eq!((of("y", Kind::Yes), of("TRUE", Kind::Yes)), (truth(false), truth(true)));
        assert_eq!((of("False", Kind::Any), of("", Kind::Any)), (truth(true), truth(false)));
        assert_eq!(of("", Kind::Truth), None);
    }
}
