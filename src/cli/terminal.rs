//! Standard output and standard error as commands write to them: what mirrors, other programs and the daemon wrote is
//! escaped on its way (see [`mb_core::foreign_text`]), since a mirror's text must not move the cursor, colour a line or turn
//! it around. Line feeds and tabs are kept: commands lay their output out by them.

use std::io::{self, Write};

use mb_core::foreign_text::{ForeignText, must_be_escaped};

/// Standard output.
pub(super) fn stdout() -> Escaped<io::Stdout> {
    Escaped(io::stdout())
}

/// Standard error.
pub(super) fn stderr() -> Escaped<io::Stderr> {
    Escaped(io::stderr())
}

/// Escapes all that is written to it. Each write holds whole characters, as those of `write!` do.
#[derive(Debug)]
pub(super) struct Escaped<W>(W);

impl<W: io::IsTerminal> Escaped<W> {
    /// Whether a person reads it.
    pub(super) fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let kept = |character: char| matches!(character, '\n' | '\t');
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(|character| must_be_escaped(character) && !kept(character)) => {
                self.0.write_all(bytes)
            }
            _ => {
                for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\t')) {
                    let (text, end) = match piece.split_last() {
                        Some((b'\n' | b'\t', text)) => (text, piece.get(text.len()..).unwrap_or_default()),
                        _ => (piece, &[][..]),
                    };
                    write!(self.0, "{}", ForeignText::new(text).at_most(usize::MAX))?;
                    self.0.write_all(end)?;
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The comment of a mirror with `\x1b]0;…` changed the title of the operator's terminal.
    #[test]
    fn layout_is_kept_and_everything_else_escaped() {
        let mut out = Escaped(Vec::new());
        let (moved, turned) = ("\x1b[2J\r", "c\u{202e}d");
        write!(out, "a\tb\n{moved}\t{turned}\n").unwrap();
        out.write_all(b"\xff\n").unwrap();
        assert_eq!(String::from_utf8(out.0).unwrap(), "a\tb\n\\x1b[2J\\r\tc\\u{202e}d\n\\xff\n");
    }
}
