//! What is thrown.

use bitstep::hyper::{ArgError, Short};
use wasm_bindgen::JsValue;

/// An exception on its way to JavaScript.
pub enum Refusal {
    /// A message of the library.
    Message(String),
    /// What JavaScript itself has thrown, in a getter of the caller's.
    Thrown(JsValue),
}

/// The result of whatever may throw.
pub type Result<T> = core::result::Result<T, Refusal>;

impl From<bitstep::Error> for Refusal {
    fn from(error: bitstep::Error) -> Refusal {
        Refusal::Message(error.to_string())
    }
}

impl From<ArgError> for Refusal {
    fn from(error: ArgError) -> Refusal {
        Refusal::Message(error.to_string())
    }
}

impl From<Refusal> for JsValue {
    fn from(refusal: Refusal) -> JsValue {
        match refusal {
            Refusal::Message(text) => js_sys::Error::new(&text).into(),
            Refusal::Thrown(thrown) => thrown,
        }
    }
}

/// A refused argument with its value, in the words of the library.
pub(crate) fn refused(argument: &str, value: &JsValue, expected: &str) -> Refusal {
    let text = match value.as_string() {
        Some(text) => format!("{text:?}"),
        None => match value.as_f64() {
            Some(number) => number.to_string(),
            None => format!("{value:?}"),
        },
    };
    Refusal::Message(format!("`{argument}` is {}, but must be {expected}", Short(text)))
}
