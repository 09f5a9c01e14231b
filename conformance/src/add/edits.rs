//! A word more in a text: in a sorted list of the sources, or in a table of a page.

/// The text with a line more, before the first of the lines between two marks that comes after it, else after the last
/// of them. `key` says what a line is sorted by, and of which lines.
///
/// `None` if the marks are not there, or no line between them has a key.
pub(super) fn line(
    text: &str,
    [from, to]: [&str; 2],
    new: &str,
    key: impl Fn(&str) -> Option<&str>,
) -> Option<String> {
    let wanted = key(new)?;
    let start = text.find(from)? + from.len();
    let end = start + text.get(start..)?.find(to)?;
    let (mut at, mut place) = (start, None);
    for old in text[start..end].split_inclusive('\n') {
        if let Some(key) = key(old.trim_end()) {
            if key > wanted {
                place = Some(at);
                break;
            }
            place = Some(at + old.len());
        }
        at += old.len();
    }
    let place = place?;
    Some(format!("{}{new}\n{}", &text[..place], &text[place..]))
}

/// The text with a word more in a list between two marks, before the first word that comes after it. `words` splits the
/// list and `join` writes it again.
pub(super) fn word(
    text: &str,
    [from, to]: [&str; 2],
    new: &str,
    split: impl Fn(char) -> bool,
    join: impl Fn(&[&str]) -> String,
) -> Option<String> {
    let start = text.find(from)? + from.len();
    let end = start + text.get(start..)?.find(to)?;
    let mut words: Vec<&str> = text[start..end].split(split).map(str::trim).collect();
    words.retain(|word| !word.is_empty());
    let at = words.iter().position(|word| *word > new).unwrap_or(words.len());
    words.insert(at, new);
    Some(format!("{}{}{}", &text[..start], join(&words), &text[end..]))
}

/// The columns that rustfmt fills with an import.
const WIDTH: usize = 99;

/// Words with commas between them, as rustfmt wraps an import: lines of four spaces, each as full as it can be.
pub(super) fn wrapped(words: &[&str]) -> String {
    let mut lines = vec![String::new()];
    for word in words {
        let last = lines.last().map_or(0, String::len);
        if last > 0 && 4 + last + 1 + word.len() + 1 > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            line.push(',');
        }
    }
    lines.iter().fold("\n".to_owned(), |text, line| format!("{text}    {line}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_goes_before_the_first_that_comes_after_it() {
        fn key(line: &str) -> Option<&str> {
            line.strip_prefix("mod ")?.strip_suffix(';')
        }
        let marks = ["// begin\n", "// end"];
        let text = "// begin\nmod b;\n\nmod d;\n// end\nmod z;\n";
        let with = |new: &str| line(text, marks, new, key);
        assert_eq!(with("mod a;").unwrap(), text.replace("mod b", "mod a;\nmod b"));
        assert_eq!(with("mod c;").unwrap(), text.replace("mod d", "mod c;\nmod d"));
        assert_eq!(with("mod e;").unwrap(), text.replace("// end", "mod e;\n// end"));
        assert_eq!(line(text, ["// start\n", "// end"], "mod a;", key), None);
        assert_eq!(line("// begin\n// end", marks, "mod a;", key), None);
    }

    #[test]
    fn word_goes_where_it_is_sorted() {
        let add = |new| word("{A, C}", ["{", "}"], new, |c| c == ',', |w| w.join(", "));
        assert_eq!(add("B").unwrap(), "{A, B, C}");
        assert_eq!(add("D").unwrap(), "{A, C, D}");
        assert_eq!(word("A", ["{", "}"], "B", |c| c == ',', |w| w.join("")), None);
    }

    #[test]
    fn import_is_wrapped_as_rustfmt_has_it() {
        let list = include_str!("../../../core/src/registry/list.rs");
        let (_, rest) = list.split_once("use crate::optim::{").unwrap();
        let (import, _) = rest.split_once('}').unwrap();
        let words: Vec<&str> = import.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
        assert!(words.len() > 40);
        assert_eq!(wrapped(&words), import);
    }
}
