//! Text for the caller: names of fixed length, JSON into the caller's memory.

use alloc::format;
use alloc::string::String;
use core::ffi::c_char;
use core::fmt::Write;

use bitstep::hyper::{Args, Value};

use crate::error::{BITSTEP_LENGTH, Status, err};
use crate::places::{Out, Places};

/// The name of an optimizer, a schedule or a slot, NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Name {
    /// At most 63 bytes, and zeros.
    pub text: [c_char; 64],
}

/// Copies a name; one that is too long, which the library has none of, would be cut.
pub(crate) fn fixed(name: &str) -> [c_char; 64] {
    let mut text = [0; 64];
    for (to, byte) in text.iter_mut().zip(name.bytes().take(63)) {
        *to = byte as c_char;
    }
    text
}

/// The caller's memory for a text, and for the number of bytes that it takes.
pub(crate) struct TextOut {
    text: *mut c_char,
    size: usize,
    needed: Out<usize>,
}

impl Places {
    /// Memory for a text of `size` bytes, which may be 0 to ask for the size alone.
    ///
    /// # Safety
    /// Pointers are NULL or valid for writing as many elements as stated.
    pub(crate) unsafe fn text_out(
        &mut self,
        text: *mut c_char,
        size: usize,
        needed: *mut usize,
    ) -> Result<TextOut, Status> {
        // SAFETY: guaranteed by the caller.
        let needed = unsafe { self.out("needed", needed)? };
        self.written("text", text.cast(), size, 1)?;
        Ok(TextOut { text, size, needed })
    }
}

impl TextOut {
    /// Writes the text with a 0 at its end, and how many bytes both take.
    pub(crate) fn set(self, text: &str) -> Result<(), Status> {
        let needed = text.len() + 1;
        if self.size > 0 {
            if needed > self.size {
                let message = format!("text has {} bytes, {needed} are needed", self.size);
                return err(BITSTEP_LENGTH, message);
            }
            // SAFETY: `Places::text_out` has recorded so many bytes, apart from everything else.
            unsafe {
                self.text.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
                self.text.add(text.len()).write(0);
            }
        }
        self.needed.set(needed);
        Ok(())
    }
}

/// Arguments as a JSON object, in their order. Numbers that JSON lacks are `"NaN"`, `"Infinity"`, `"-Infinity"`.
pub(crate) fn json(args: &Args) -> String {
    let mut text = String::new();
    object(args.iter(), &mut text);
    text
}

fn object<'a>(entries: impl Iterator<Item = (&'a str, &'a Value)>, to: &mut String) {
    to.push('{');
    for (i, (name, value)) in entries.enumerate() {
        to.push_str(if i > 0 { ", " } else { "" });
        string(name, to);
        to.push_str(": ");
        write_json(value, to);
    }
    to.push('}');
}

fn string(text: &str, to: &mut String) {
    // Writing to a string does not fail.
    _ = write!(to, "{}", serde_json::Value::from(text));
}

fn write_json(value: &Value, to: &mut String) {
    match value {
        Value::None => to.push_str("null"),
        Value::Bool(b) => to.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => _ = write!(to, "{i}"),
        Value::Float(x) if x.is_nan() => to.push_str("\"NaN\""),
        Value::Float(x) if x.is_infinite() => {
            to.push_str(if *x > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
        }
        Value::Float(x) => _ = write!(to, "{}", serde_json::Value::from(*x)),
        Value::Str(text) => string(text, to),
        Value::List(list) => {
            to.push('[');
            for (i, value) in list.iter().enumerate() {
                to.push_str(if i > 0 { ", " } else { "" });
                write_json(value, to);
            }
            to.push(']');
        }
        Value::Map(map) => object(map.iter().map(|(name, value)| (name.as_str(), value)), to),
    }
}
