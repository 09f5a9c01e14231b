//! Escapes untrusted text (names, notes, a program's messages) for display.

use std::borrow::Cow;

/// Whether a character may affect a terminal or the surrounding text instead of being shown: control characters,
/// line separators, invisible ones, and those that change the writing direction.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// The text in one line, with such characters escaped, as `\n` or `\u{1b}`.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if acts(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// JSON with such characters escaped as JSON escapes them; its value is unchanged.
pub(crate) fn plain_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if acts(c) {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_is_left_and_json_keeps_its_value() {
        let text = "a\u{1b}[2J\u{9b}1m\r\n\tb\u{202e}c\u{2028}\u{7f}\u{e0041}é";
        let shown = r"a\u{1b}[2J\u{9b}1m\r\n\tb\u{202e}c\u{2028}\u{7f}\u{e0041}é";
        assert_eq!(plain(text), shown);
        assert!(matches!(plain("plain — text"), Cow::Borrowed(_)));
        let json = plain_json(&serde_json::json!(text).to_string());
        assert!(!json.chars().any(acts), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
