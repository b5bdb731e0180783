//! Text of foreign origin, as it is shown: what a mirror, another program or another node wrote reaches a terminal, a log or
//! an error message through [`ForeignText`] alone.
//!
//! Escaped are the characters that change what a reader sees: control characters (C0, DEL, C1), bidirectional controls,
//! line and paragraph separators, zero-width characters, and bytes that are no UTF-8. A backslash is not escaped, so that
//! text which was escaped when it was stored looks the same when it is shown and escaped again.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Longest text that is shown, in characters before escaping: a guess at five long lines of an rsync error.
pub const LONGEST_SHOWN: usize = 2_000;

/// Text to show; `Display` escapes it and cuts it at a bound.
#[derive(Clone, Copy, Debug)]
pub struct ForeignText<'a> {
    bytes: &'a [u8],
    longest: usize,
    lines: bool,
}

impl<'a> ForeignText<'a> {
    /// Of at most [`LONGEST_SHOWN`] characters.
    pub fn new(text: &'a (impl AsRef<[u8]> + ?Sized)) -> ForeignText<'a> {
        ForeignText { bytes: text.as_ref(), longest: LONGEST_SHOWN, lines: false }
    }

    /// Of at most `longest` characters.
    pub fn at_most(self, longest: usize) -> ForeignText<'a> {
        ForeignText { longest, ..self }
    }

    /// Keeps line feeds: for text of several lines on a terminal, never for a log.
    pub fn with_lines(self) -> ForeignText<'a> {
        ForeignText { lines: true, ..self }
    }

    /// The text as it is shown; borrowed when nothing is to be escaped or cut.
    pub fn shown(self) -> Cow<'a, str> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) if text.len() <= self.longest && !text.chars().any(|character| self.is_escaped(character)) => {
                Cow::Borrowed(text)
            }
            _ => Cow::Owned(self.to_string()),
        }
    }

    fn is_escaped(&self, character: char) -> bool {
        must_be_escaped(character) && !(self.lines && character == '\n')
    }
}

impl fmt::Display for ForeignText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.longest;
        let mut shown = 0_usize;
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if left == 0 {
                    return cut(f, self.bytes.len().saturating_sub(shown));
                }
                left -= 1;
                shown += character.len_utf8();
                if self.is_escaped(character) { escape(f, character)? } else { f.write_char(character)? }
            }
            for byte in chunk.invalid() {
                if left == 0 {
                    return cut(f, self.bytes.len().saturating_sub(shown));
                }
                left -= 1;
                shown += 1;
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn cut(f: &mut fmt::Formatter<'_>, bytes: usize) -> fmt::Result {
    write!(f, "… ({bytes} more bytes)")
}

/// Whether a character is shown as an escape.
pub fn must_be_escaped(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

fn escape(out: &mut impl Write, character: char) -> fmt::Result {
    match character {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        _ if u32::from(character) < 0x80 => write!(out, "\\x{:02x}", u32::from(character)),
        _ => write!(out, "\\u{{{:x}}}", u32::from(character)),
    }
}

/// A writer that escapes all that is written through it: for log fields, whose values are formatted elsewhere. Escaped
/// text is at most [`Escaping::LONGEST`] characters before escaping.
#[derive(Debug)]
pub struct Escaping<W> {
    inner: W,
    left: usize,
}

impl<W: Write> Escaping<W> {
    /// Longest log field, in characters: beyond it the rest is dropped.
    pub const LONGEST: usize = 16 << 10;

    /// Writes to `inner`.
    pub fn new(inner: W) -> Escaping<W> {
        Escaping { inner, left: Self::LONGEST }
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // In runs, since most text needs nothing.
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|(_, character)| must_be_escaped(*character)) {
            let (plain, from) = rest.split_at(at);
            self.write_plain(plain)?;
            if self.left > 0 {
                self.left -= 1;
                escape(&mut self.inner, character)?;
            }
            rest = from.get(character.len_utf8()..).unwrap_or_default();
        }
        self.write_plain(rest)
    }
}

impl<W: Write> Escaping<W> {
    fn write_plain(&mut self, text: &str) -> fmt::Result {
        if self.left == 0 || text.is_empty() {
            return Ok(());
        }
        if text.len() <= self.left {
            self.left -= text.len();
            return self.inner.write_str(text);
        }
        let mut end = self.left;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.left = 0;
        self.inner.write_str(text.get(..end).unwrap_or_default())?;
        self.inner.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A mirror's rsync message with `\x1b]0;…\x07` set the title of the operator's terminal.
    #[test]
    fn what_changes_a_terminal_or_a_line_is_escaped() {
        for (text, shown) in [
            (&b"plain text, \xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac"[..], "plain text, é 日本"),
            (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            (b"a\nb\rc\td\0", "a\\nb\\rc\\td\\x00"),
            (b"\x7f \xc2\x9b31m", "\\x7f \\u{9b}31m"),
            ("a\u{202e}b\u{2066}c\u{200f}d\u{61c}e".as_bytes(), "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{61c}e"),
            ("a\u{2028}b\u{2029}c\u{200b}d\u{feff}".as_bytes(), "a\\u{2028}b\\u{2029}c\\u{200b}d\\u{feff}"),
            (b"\xff\xfea", "\\xff\\xfea"),
            (b"back\\slash", "back\\slash"),
        ] {
            assert_eq!(ForeignText::new(text).to_string(), shown);
            assert_eq!(ForeignText::new(text).shown(), shown);
        }
        assert_eq!(ForeignText::new("a\nb\x1b").with_lines().to_string(), "a\nb\\x1b");
    }

    #[test]
    fn the_length_is_bounded() {
        assert_eq!(ForeignText::new("abcdef").at_most(6).to_string(), "abcdef");
        assert_eq!(ForeignText::new("abcdef").at_most(5).to_string(), "abcde… (1 more bytes)");
        let long = "x".repeat(10 * LONGEST_SHOWN);
        assert!(ForeignText::new(&long).shown().len() < LONGEST_SHOWN + 40);
    }

    proptest! {
        #[test]
        fn nothing_shown_needs_escaping_and_showing_it_again_changes_nothing(bytes: Vec<u8>) {
            let shown = ForeignText::new(&bytes).to_string();
            prop_assert!(!shown.chars().any(must_be_escaped), "{shown:?}");
            prop_assert_eq!(ForeignText::new(&shown).at_most(usize::MAX).to_string(), shown.as_str());
        }

        #[test]
        fn the_writer_escapes_as_the_type_does(text: String, cut in 0_usize..40) {
            let mut written = String::new();
            let mut out = Escaping::new(&mut written);
            let cut = (0..=cut.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            out.write_str(&text[..cut]).unwrap();
            out.write_str(&text[cut..]).unwrap();
            prop_assert_eq!(written, ForeignText::new(&text).to_string());
        }
    }
}
