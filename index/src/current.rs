//! `CURRENT`: the small text file that says which generations are current.
//!
//! ```text
//! mb-index 1
//! files 7
//! mirrors 12
//! checksum 0123456789abcdef
//! ```
//!
//! A kind that was never published has `-` for its number. The checksum is XXH3 (64 bits, hexadecimal) of the lines
//! before it, so that a torn or edited file is recognised.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::folder::CURRENT_NAME;
use crate::header::Kind;

/// Which generations are current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Generation of the files; `None` before the first scan was published.
    pub files: Option<u64>,
    /// Generation of the mirror table.
    pub mirrors: Option<u64>,
}

impl Current {
    /// The generation of a kind.
    pub fn generation(&self, kind: Kind) -> Option<u64> {
        match kind {
            Kind::Files => self.files,
            Kind::Mirrors => self.mirrors,
        }
    }
}

/// Why `CURRENT` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CurrentError {
    /// It cannot be read.
    #[error("index: cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not what a publisher wrote.
    #[error("index: {} is damaged; the next publication replaces it (`mb-indexer build`)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// What `CURRENT` in an index folder names; `None` when it does not exist, as before the first publication.
///
/// # Errors
/// [`CurrentError`].
pub fn read_current(dir: &Path) -> Result<Option<Current>, CurrentError> {
    let path = dir.join(CURRENT_NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CurrentError::Io { path, source }),
    };
    let current = std::str::from_utf8(&bytes).ok().and_then(parse);
    current.map(Some).ok_or(CurrentError::Damaged { path })
}

/// The content of `CURRENT`.
pub(crate) fn render(current: Current) -> String {
    let number = |generation: Option<u64>| generation.map_or("-".to_owned(), |generation| generation.to_string());
    let lines = format!("mb-index 1\nfiles {}\nmirrors {}\n", number(current.files), number(current.mirrors));
    let checksum = xxh3_64(lines.as_bytes());
    format!("{lines}checksum {checksum:016x}\n")
}

/// Accepts exactly what [`render`] writes.
fn parse(text: &str) -> Option<Current> {
    let mut lines = text.lines().skip(1);
    let mut number = |key: &str| match lines.next()?.strip_prefix(key)? {
        "-" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    let current = Current { files: number("files ")?, mirrors: number("mirrors ")? };
    (render(current) == text).then_some(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rendered_is_parsed() {
        for files in [None, Some(0), Some(7), Some(u64::MAX)] {
            for mirrors in [None, Some(12)] {
                let current = Current { files, mirrors };
                assert_eq!(parse(&render(current)), Some(current));
            }
        }
    }

    #[test]
    fn torn_and_edited_texts_are_refused() {
        let text = render(Current { files: Some(7), mirrors: Some(12) });
        for length in 0..text.len() {
            assert_eq!(parse(&text[..length]), None, "{length} bytes");
        }
        assert_eq!(parse(&text.replace("files 7", "files 8")), None);
        assert_eq!(parse(&format!("{text}\n")), None);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(std::str::from_utf8(&bytes).ok().and_then(parse), None, "byte {at}");
        }
    }
}
