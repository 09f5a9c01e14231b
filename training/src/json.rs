//! Between JSON and the core's values.

use bitstep::args::Value;
use serde_json::Value as Json;

/// JSON as the core's arguments have it.
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

/// The other way round. JSON has no infinity or NaN: their names stand for them.
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

/// A number, or its name; reading it back gives the same bits, but for the payload of a NaN.
pub(crate) fn number(x: f64) -> Json {
    match serde_json::Number::from_f64(x) {
        Some(x) => Json::Number(x),
        None if x.is_nan() => "NaN".into(),
        None if x > 0.0 => "inf".into(),
        None => "-inf".into(),
    }
}

/// Reads such a number.
pub(crate) fn as_f64(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| value(json).as_f64())
}
