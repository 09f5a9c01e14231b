//! Conversion between JSON and the core's argument values.

use bitstep::hyper::Value;
use serde_json::Value as Json;

/// Converts JSON to an argument value.
pub(crate) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::Str(s.clone()),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        Json::Object(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), value(v))).collect()),
    }
}

/// Parses JSON as Python writes it, with the literals `NaN`, `Infinity` and `-Infinity`.
pub(crate) fn read(text: &str) -> Result<Value, serde_json::Error> {
    // The literals become strings with a unique prefix: one colon more than any run in the text.
    let longest = text.split(|c| c != ':').map(str::len).max().unwrap_or(0);
    let mark = ":".repeat(longest + 1);
    let json: Json = serde_json::from_str(&quoted(text, &mark))?;
    Ok(unmarked(value(&json), &mark))
}

/// Quotes those literals, with the prefix `mark`.
fn quoted(text: &str, mark: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut within, mut rest) = (false, text);
    while let Some(first) = rest.chars().next() {
        let names = ["NaN", "Infinity", "-Infinity"];
        if let Some(name) = names.into_iter().find(|name| !within && rest.starts_with(name)) {
            out.extend(["\"", mark, name, "\""]);
            rest = &rest[name.len()..];
            continue;
        }
        // An escaped quote does not end a string.
        let len = match first {
            '\\' if within => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            _ => first.len_utf8(),
        };
        within ^= first == '"';
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out
}

fn unmarked(value: Value, mark: &str) -> Value {
    let each = |v| unmarked(v, mark);
    match value {
        Value::Str(s) => match s.strip_prefix(mark) {
            Some(name) => Value::Float(Value::Str(name.to_owned()).as_f64().unwrap_or(f64::NAN)),
            None => Value::Str(s),
        },
        Value::List(list) => Value::List(list.into_iter().map(each).collect()),
        Value::Map(map) => Value::Map(map.into_iter().map(|(k, v)| (k, each(v))).collect()),
        other => other,
    }
}

/// Converts an argument value to JSON. Infinities and NaN become strings.
pub(crate) fn json(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(i) => (*i).into(),
        Value::Float(x) => number(*x),
        Value::Str(s) => s.as_str().into(),
        Value::List(list) => list.iter().map(json).collect(),
        Value::Map(map) => map.iter().map(|(k, v)| (k.clone(), json(v))).collect(),
    }
}

/// A number, or the name of an infinity or NaN. Reading it back gives the same bits, except for the payload
/// of a NaN.
pub(crate) fn number(x: f64) -> Json {
    match serde_json::Number::from_f64(x) {
        Some(x) => Json::Number(x),
        None if x.is_nan() => "NaN".into(),
        None if x > 0.0 => "inf".into(),
        None => "-inf".into(),
    }
}

/// Reads a number written by [`number`].
pub(crate) fn as_f64(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| value(json).as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_are_read_as_python_writes_them() {
        let text =
            r#"{"a": Infinity, "b": [-Infinity,NaN], "c": "NaN, \"Infinity", "d\\": Infinity}"#;
        let Ok(Value::Map(map)) = read(text) else { panic!("{:?}", read(text)) };
        let get = |key: &str| map.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        assert_eq!(get("a"), Some(Value::Float(f64::INFINITY)));
        let Some(Value::List(b)) = get("b") else { panic!("{map:?}") };
        assert_eq!(b[0], Value::Float(f64::NEG_INFINITY));
        assert!(matches!(b[1], Value::Float(x) if x.is_nan()));
        assert_eq!(get("c"), Some(Value::Str("NaN, \"Infinity".into())));
        assert_eq!(get("d\\"), Some(Value::Float(f64::INFINITY)));
        // Strings are not mistaken for such literals.
        let Ok(value) = read(r#"[":NaN", "::NaN", NaN]"#) else { panic!() };
        let Value::List(list) = value else { panic!() };
        assert_eq!(list[..2], [":NaN".into(), "::NaN".into()]);
        assert!(matches!(list[2], Value::Float(_)));
        for text in ["", "Infinit", "xNaN", "1NaN", "--Infinity", "\"\\", "\"NaN"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
