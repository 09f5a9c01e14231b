//! Values of JavaScript as arguments, and back.

use bitstep::hyper::{Args, Value};
use js_sys::{Array, JsString, Object, Reflect};
use wasm_bindgen::{JsCast, JsValue};

use crate::error::{Refusal, Result, refused};

/// Longer than any name of the library.
const LONGEST_NAME: u32 = 64;
/// The most that arguments may consist of: bytes of text, values.
const MOST: usize = 1 << 16;
/// The deepest nesting: a schedule within a schedule takes four levels.
const DEEPEST: usize = 32;

/// A string of at most so many UTF-16 units: a longer one is refused before it takes memory.
fn text(argument: &str, value: &JsValue, longest: u32) -> Result<String> {
    let of = |s: &JsString| (s.length() <= longest).then(|| String::from(s));
    let text = value.dyn_ref::<JsString>().and_then(of);
    text.ok_or_else(|| match value.is_string() {
        true => Refusal::Message(format!("`{argument}` is longer than {longest} characters")),
        false => refused(argument, value, "a string"),
    })
}

/// A name.
pub(crate) fn name(argument: &str, value: &JsValue) -> Result<String> {
    text(argument, value, LONGEST_NAME)
}

/// Arguments: an object, `name=value` text, JSON, or nothing.
pub(crate) fn args(value: &JsValue) -> Result<Args> {
    const WHAT: &str = "arguments";
    if value.is_undefined() || value.is_null() {
        return Ok(Args::new());
    }
    let mut room = MOST;
    if value.is_string() {
        let text = text(WHAT, value, MOST as u32)?;
        if !text.trim_start().starts_with('{') {
            return Ok(Args::parse(&text)?);
        }
        let parsed = js_sys::JSON::parse(&text).map_err(Refusal::Thrown)?;
        return Ok(entries(&parsed, WHAT, 0, &mut room)?.into_iter().collect());
    }
    if !value.is_object() || Array::is_array(value) {
        return Err(refused(WHAT, value, "an object or text"));
    }
    Ok(entries(value, WHAT, 0, &mut room)?.into_iter().collect())
}

fn entries(
    object: &JsValue,
    of: &str,
    depth: usize,
    room: &mut usize,
) -> Result<Vec<(String, Value)>> {
    let object: &Object = object.dyn_ref().ok_or_else(|| refused(of, object, "an object"))?;
    let keys = Reflect::own_keys(object).map_err(Refusal::Thrown)?;
    let mut all = Vec::new();
    for key in keys.iter().filter(JsValue::is_string) {
        let own = Reflect::get(object, &key).map_err(Refusal::Thrown)?;
        let name = name("an argument's name", &key)?;
        // An argument that is left undefined is left out, as everywhere in JavaScript.
        if !own.is_undefined() {
            let value = value(&own, &name, depth + 1, room)?;
            all.push((name, value));
        }
    }
    Ok(all)
}

fn value(given: &JsValue, of: &str, depth: usize, room: &mut usize) -> Result<Value> {
    *room = match room.checked_sub(1) {
        Some(left) if depth <= DEEPEST => left,
        _ => {
            let most = format!("{MOST} values, {DEEPEST} levels deep");
            return Err(Refusal::Message(format!("`{of}` has more than {most}")));
        }
    };
    if given.is_null() || given.is_undefined() {
        return Ok(Value::None);
    }
    if let Some(truth) = given.as_bool() {
        return Ok(Value::Bool(truth));
    }
    if let Some(x) = given.as_f64() {
        // Whole numbers are integers, as far as floats count them; −0 is none.
        let whole = x == (x as i64) as f64 && x.abs() < 9e15 && !(x == 0.0 && x.is_sign_negative());
        return Ok(if whole { Value::Int(x as i64) } else { Value::Float(x) });
    }
    if given.is_string() {
        let text = text(of, given, MOST as u32)?;
        *room = room.saturating_sub(text.len() / 16);
        return Ok(Value::Str(text));
    }
    if given.is_object() && ArrayBufferView::is(given) || Array::is_array(given) {
        let len = Reflect::get(given, &"length".into()).map_err(Refusal::Thrown)?;
        let len = len.as_f64().ok_or_else(|| refused(of, given, "a list"))?;
        let items = (0..len as u32).map(|i| {
            let item = Reflect::get_u32(given, i).map_err(Refusal::Thrown)?;
            value(&item, of, depth + 1, room)
        });
        return Ok(Value::List(items.collect::<Result<_>>()?));
    }
    if given.is_object() {
        return Ok(Value::Map(entries(given, of, depth, room)?));
    }
    Err(refused(of, given, "a number, a boolean, a string, null, a list or an object"))
}

/// Typed arrays other than a `DataView`.
struct ArrayBufferView;

impl ArrayBufferView {
    fn is(value: &JsValue) -> bool {
        js_sys::ArrayBuffer::is_view(value) && !value.is_instance_of::<js_sys::DataView>()
    }
}

/// A value for JavaScript.
pub(crate) fn to_js(value: &Value) -> JsValue {
    match value {
        Value::None => JsValue::NULL,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(n) => (*n as f64).into(),
        Value::Float(x) => (*x).into(),
        Value::Str(text) => text.as_str().into(),
        Value::List(list) => list.iter().map(to_js).collect::<Array>().into(),
        Value::Map(map) => object(map.iter().map(|(name, value)| (name.as_str(), to_js(value)))),
    }
}

/// Arguments as an object.
pub(crate) fn args_to_js(args: &Args) -> JsValue {
    object(args.iter().map(|(name, value)| (name, to_js(value))))
}

/// An object of these properties.
pub(crate) fn object<'a>(properties: impl IntoIterator<Item = (&'a str, JsValue)>) -> JsValue {
    let object = Object::new();
    for (name, value) in properties {
        // Fails on frozen objects only.
        _ = Reflect::set(&object, &name.into(), &value);
    }
    object.into()
}

/// A whole number from 0, such as a length or the index of a parameter.
pub(crate) fn whole(argument: &str, value: &JsValue) -> Result<usize> {
    match value.as_f64() {
        Some(x) if x >= 0.0 && x <= f64::from(u32::MAX) && x.fract() == 0.0 => Ok(x as usize),
        _ => Err(refused(argument, value, "a whole number from 0")),
    }
}

/// A number.
pub(crate) fn number(argument: &str, value: &JsValue) -> Result<f64> {
    value.as_f64().ok_or_else(|| refused(argument, value, "a number"))
}

/// The elements of an array.
pub(crate) fn list(argument: &str, value: &JsValue) -> Result<Array> {
    match value.dyn_ref::<Array>() {
        Some(list) => Ok(list.clone()),
        None => Err(refused(argument, value, "an array")),
    }
}

/// The dimensions of a shape: a whole number or a list of them.
pub(crate) fn shape(value: &JsValue) -> Result<Vec<usize>> {
    const WHAT: &str = "shape";
    if value.as_f64().is_some() {
        return Ok(vec![whole(WHAT, value)?]);
    }
    let list = list(WHAT, value)?;
    if list.length() > 64 {
        return Err(Refusal::Message(format!(
            "`{WHAT}` has {} dimensions, at most 64",
            list.length()
        )));
    }
    list.iter().map(|n| whole(WHAT, &n)).collect()
}

/// Named numbers: the extra arguments of a step.
pub(crate) fn numbers(argument: &str, value: &JsValue) -> Result<Vec<(String, f64)>> {
    if value.is_undefined() || value.is_null() {
        return Ok(Vec::new());
    }
    let named = entries(value, argument, 0, &mut 1024)?;
    let number = |(name, value): (String, Value)| match value.as_f64() {
        Some(x) => Ok((name, x)),
        None => Err(Refusal::Message(format!("`{name}` is {value}, but must be a number"))),
    };
    named.into_iter().map(number).collect()
}
