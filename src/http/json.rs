//! JSON text as Go's `encoding/json` writes it, byte for byte: clients of the reference compare and parse it so.

use std::fmt::{self, Display, Write as _};
use std::io::Write as _;

/// Appends one JSON document to a buffer. Members and elements are separated by themselves; the caller opens and closes
/// objects and arrays in pairs.
pub struct JsonWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Spaces per level; `None` for compact text.
    indent: Option<usize>,
    depth: usize,
    /// Whether the current object or array has no member yet.
    empty: bool,
    /// Whether a member's name was just written, so that its value follows on the same line.
    after_name: bool,
}

impl<'a> JsonWriter<'a> {
    /// A writer that appends to `out`, indented by four spaces when `pretty`.
    pub fn new(out: &'a mut Vec<u8>, pretty: bool) -> JsonWriter<'a> {
        JsonWriter { out, indent: pretty.then_some(4), depth: 0, empty: true, after_name: false }
    }

    /// Opens an object.
    pub fn begin_object(&mut self) {
        self.open(b'{');
    }

    /// Closes an object.
    pub fn end_object(&mut self) {
        self.close(b'}');
    }

    /// Opens an array.
    pub fn begin_array(&mut self) {
        self.open(b'[');
    }

    /// Closes an array.
    pub fn end_array(&mut self) {
        self.close(b']');
    }

    /// Writes the name of a member, which needs no escaping; its value comes next.
    pub fn name(&mut self, name: &str) {
        debug_assert!(is_plain(name.as_bytes()));
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'"');
        self.out.extend_from_slice(if self.indent.is_some() { b": " } else { b":" });
        self.after_name = true;
    }

    /// Writes a string; invalid UTF-8 becomes U+FFFD.
    pub fn string(&mut self, value: impl AsRef<[u8]>) {
        self.separate();
        self.quoted(value.as_ref());
    }

    /// Writes the `Display` form of `value` as a string, without a detour over the heap.
    pub fn displayed(&mut self, value: impl Display) {
        self.separate();
        self.out.push(b'"');
        // Writing to a vector cannot fail.
        let _ = write!(Escaping(self), "{value}");
        self.out.push(b'"');
    }

    /// Writes anything whose `Display` form is a JSON value, such as an integer. A float must be finite; `f32` and `f64`
    /// show the shortest decimal that reads back the same.
    pub fn plain(&mut self, value: impl Display) {
        self.separate();
        // Writing to a vector cannot fail.
        let _ = write!(self.out, "{value}");
    }

    /// Writes text that needs no escaping, produced by `append`, between quotes.
    pub fn quoted_by(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        self.separate();
        self.out.push(b'"');
        append(self.out);
        self.out.push(b'"');
    }

    fn open(&mut self, bracket: u8) {
        self.separate();
        self.out.push(bracket);
        self.depth = self.depth.saturating_add(1);
        self.empty = true;
    }

    fn close(&mut self, bracket: u8) {
        self.depth = self.depth.saturating_sub(1);
        if !self.empty {
            self.new_line();
        }
        self.out.push(bracket);
        self.empty = false;
    }

    fn separate(&mut self) {
        if std::mem::take(&mut self.after_name) {
            return;
        }
        if self.depth > 0 {
            if !self.empty {
                self.out.push(b',');
            }
            self.new_line();
        }
        self.empty = false;
    }

    fn new_line(&mut self) {
        if let Some(indent) = self.indent {
            self.out.push(b'\n');
            self.out.resize(self.out.len().saturating_add(indent.saturating_mul(self.depth)), b' ');
        }
    }

    fn quoted(&mut self, text: &[u8]) {
        self.out.push(b'"');
        if is_plain(text) {
            self.out.extend_from_slice(text);
        } else {
            for part in text.utf8_chunks() {
                self.escaped(part.valid());
                if !part.invalid().is_empty() {
                    self.out.extend_from_slice(b"\\ufffd");
                }
            }
        }
        self.out.push(b'"');
    }

    fn escaped(&mut self, text: &str) {
        let mut plain = 0;
        for (place, character) in text.char_indices() {
            let escape: &[u8] = match character {
                '"' => b"\\\"",
                '\\' => b"\\\\",
                '\n' => b"\\n",
                '\r' => b"\\r",
                '\t' => b"\\t",
                '\u{8}' => b"\\b",
                '\u{c}' => b"\\f",
                '<' => b"\\u003c",
                '>' => b"\\u003e",
                '&' => b"\\u0026",
                '\u{2028}' => b"\\u2028",
                '\u{2029}' => b"\\u2029",
                '\0'..'\u{20}' => b"",
                _ => continue,
            };
            self.out.extend_from_slice(text.as_bytes().get(plain..place).unwrap_or_default());
            plain = place.saturating_add(character.len_utf8());
            if escape.is_empty() {
                let _ = write!(self.out, "\\u{:04x}", u32::from(character));
            } else {
                self.out.extend_from_slice(escape);
            }
        }
        self.out.extend_from_slice(text.as_bytes().get(plain..).unwrap_or_default());
    }
}

/// Whether all of `text` is ASCII that stands for itself, as most texts are. Looks at every byte, which is many times faster
/// than stopping at the first that does not.
fn is_plain(text: &[u8]) -> bool {
    let plain = |byte: u8| matches!(byte, 0x20..=0x7F) & !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
    text.iter().fold(true, |all, &byte| all & plain(byte))
}

/// Escapes what is formatted into it.
struct Escaping<'w, 'a>(&'w mut JsonWriter<'a>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.escaped(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(pretty: bool, write: impl FnOnce(&mut JsonWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut JsonWriter::new(&mut out, pretty));
        String::from_utf8(out).unwrap()
    }

    fn sample(json: &mut JsonWriter<'_>) {
        json.begin_object();
        json.name("A");
        json.string("x<&>\u{1}\"");
        json.name("B");
        json.begin_array();
        json.plain(48.5f32);
        json.plain(48f32);
        json.begin_object();
        json.end_object();
        json.end_array();
        json.name("C");
        json.plain(true);
        json.end_object();
    }

    #[test]
    fn compact_and_indented() {
        assert_eq!(written(false, sample), r#"{"A":"x\u003c\u0026\u003e\u0001\"","B":[48.5,48,{}],"C":true}"#);
        let pretty = "{\n    \"A\": \"x\\u003c\\u0026\\u003e\\u0001\\\"\",\n    \"B\": [\n        48.5,\n        48,\n        {}\n    ],\n    \"C\": true\n}";
        assert_eq!(written(true, sample), pretty);
    }

    #[test]
    fn invalid_utf_8_is_replaced() {
        assert_eq!(written(false, |json| json.string(b"a\xffb")), "\"a\\ufffdb\"");
    }

    proptest! {
        #[test]
        fn strings_read_back(text: String) {
            let json = written(false, |json| json.string(&text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn what_is_displayed_is_escaped_as_strings_are(text: String) {
            prop_assert_eq!(written(false, |json| json.displayed(&text)), written(false, |json| json.string(&text)));
        }
    }
}
