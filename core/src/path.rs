//! Repository paths: decoding, cleaning, encoding.
//!
//! A repository path is a sequence of bytes, since file names need not be UTF-8; it starts with a slash. Decoding and
//! encoding append to a buffer of the caller, so that a request reuses one buffer and allocates nothing.

/// A `%` that two hexadecimal digits do not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid percent escape at byte {offset}")]
pub struct InvalidEscape {
    /// Where the `%` is in the input, counted from 0.
    pub offset: usize,
}

/// Appends `input` to `output` with every `%XX` replaced by its byte, once: `%2541` becomes `%41`.
///
/// # Errors
/// [`InvalidEscape`]; `output` then holds what was decoded up to it.
pub fn percent_decode(input: &[u8], output: &mut Vec<u8>) -> Result<(), InvalidEscape> {
    let mut plain_from = 0;
    while let Some(distance) = input[plain_from..].iter().position(|&byte| byte == b'%') {
        let offset = plain_from + distance;
        output.extend_from_slice(&input[plain_from..offset]);
        let escaped = match input.get(offset + 1..offset + 3) {
            Some(&[high, low]) => hex_value(high).zip(hex_value(low)),
            _ => None,
        };
        let (high, low) = escaped.ok_or(InvalidEscape { offset })?;
        output.push(high << 4 | low);
        plain_from = offset + 3;
    }
    output.extend_from_slice(&input[plain_from..]);
    Ok(())
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Appends `path` to `output` with every byte that may not stand in a URL's path written as `%XX`.
///
/// What stays is `/` and RFC 3986's `pchar` (section 3.3): unreserved characters, sub-delimiters, `:` and `@`.
pub fn percent_encode(path: &[u8], output: &mut Vec<u8>) {
    let mut rest = path;
    while let Some(plain) = rest.iter().position(|&byte| !STAYS[usize::from(byte)]) {
        output.extend_from_slice(&rest[..plain]);
        let byte = rest[plain];
        output.extend_from_slice(&[b'%', HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
        rest = &rest[plain + 1..];
    }
    output.extend_from_slice(rest);
}

const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Which bytes [`percent_encode`] leaves as they are.
const STAYS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let punctuation = b"-._~!$&'()*+,;=:@/";
    let mut place = 0;
    while place < punctuation.len() {
        table[punctuation[place] as usize] = true;
        place += 1;
    }
    table
};

/// Whether [`clean`] would leave `path` as it is: it starts with a slash and has no empty, `.` or `..` segment. One slash
/// at the end is clean.
pub fn is_clean(path: &[u8]) -> bool {
    let Some((b'/', below)) = path.split_first() else { return false };
    let mut segments = below.split(|&byte| byte == b'/');
    let last = segments.next_back().unwrap_or_default();
    !is_dots(last) && segments.all(|segment| !segment.is_empty() && !is_dots(segment))
}

/// The shortest absolute path that names the same thing as `path`: empty and `.` segments are dropped, `..` drops the
/// segment before it, and nothing leads above the root. A slash at the end is kept.
///
/// As Go's `path.Clean` on a rooted path, which drops the slash at the end.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut cleaned = Vec::with_capacity(path.len() + 1);
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = cleaned.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                cleaned.truncate(parent);
            }
            name => {
                cleaned.push(b'/');
                cleaned.extend_from_slice(name);
            }
        }
    }
    if cleaned.is_empty() || path.ends_with(b"/") {
        cleaned.push(b'/');
    }
    cleaned
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, InvalidEscape> {
        let mut output = Vec::new();
        percent_decode(input, &mut output).map(|()| output)
    }

    fn encoded(path: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        percent_encode(path, &mut output);
        output
    }

    #[test]
    fn decoding_happens_once() {
        assert_eq!(decoded(b"/a%20b%2Fc%2f").as_deref(), Ok(b"/a b/c/".as_slice()));
        assert_eq!(decoded(b"/%2541").as_deref(), Ok(b"/%41".as_slice()));
        assert_eq!(decoded(b"/a+b%00").as_deref(), Ok(b"/a+b\0".as_slice()));
    }

    #[test]
    fn bad_escapes_are_refused_where_they_are() {
        for (input, offset) in [("/a%", 2), ("/%4", 1), ("/%41%4g", 4), ("/%g1", 1), ("/%%41", 1), ("/%+1", 1)] {
            assert_eq!(decoded(input.as_bytes()), Err(InvalidEscape { offset }), "{input}");
        }
    }

    #[test]
    fn path_characters_of_rfc_3986_stay() {
        let stays = b"/AZaz09-._~!$&'()*+,;=:@";
        assert_eq!(encoded(stays), stays);
        assert_eq!(
            encoded("/ %#?\"<>[]\\^`{|}\u{e9}\n".as_bytes()),
            b"/%20%25%23%3F%22%3C%3E%5B%5D%5C%5E%60%7B%7C%7D%C3%A9%0A"
        );
    }

    #[test]
    fn paths_are_cleaned_as_by_go() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("/a/./b/.", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/a/b/../", "/a/"),
            ("/a/", "/a/"),
            ("/a//", "/a/"),
            ("/..a/...", "/..a/..."),
        ] {
            assert_eq!(clean(path.as_bytes()), expected.as_bytes(), "{path}");
            assert_eq!(is_clean(path.as_bytes()), path == expected, "{path}");
        }
    }

    /// Paths made of the segments and slashes that cleaning is about.
    fn awkward_path() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop::sample::select(vec!["/", "//", ".", "..", "...", "a", "bc", ".d", "\u{e9}", "\0"]),
            0..12,
        )
        .prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(path in prop::collection::vec(any::<u8>(), 0..64)) {
            let encoded = encoded(&path);
            prop_assert!(encoded.iter().all(|&byte| STAYS[usize::from(byte)] || byte == b'%'));
            prop_assert_eq!(decoded(&encoded), Ok(path));
        }

        #[test]
        fn decoding_takes_any_bytes(input in prop::collection::vec(any::<u8>(), 0..64)) {
            match decoded(&input) {
                Ok(output) => prop_assert!(output.len() <= input.len()),
                Err(InvalidEscape { offset }) => prop_assert_eq!(input[offset], b'%'),
            }
        }

        #[test]
        fn cleaning_is_idempotent_and_stays_inside(path in awkward_path()) {
            let cleaned = clean(&path);
            prop_assert!(is_clean(&cleaned));
            prop_assert_eq!(is_clean(&path), cleaned == path);
            prop_assert_eq!(clean(&cleaned), cleaned.clone());
            prop_assert!(cleaned.starts_with(b"/"));
            prop_assert!(cleaned.split(|&byte| byte == b'/').all(|segment| segment != b".."));
        }
    }
}
