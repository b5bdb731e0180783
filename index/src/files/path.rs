//! Which paths an index can hold (`FORMAT.md`, Paths).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

/// Whether a path is absolute, has no empty, `.` or `..` component and no trailing slash (but `/` itself is fine), and
/// no NUL. Such paths are equal exactly when their bytes are.
pub(crate) fn is_canonical(path: &[u8]) -> bool {
    match path {
        b"/" => true,
        [b'/', below @ ..] => {
            !below.contains(&0) && below.split(|&byte| byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_cannot_be_written_otherwise_are_canonical() {
        for path in ["/", "/a", "/a/b", "/...", "/.a/b..", "/a b", "/\u{e9}"] {
            assert!(is_canonical(path.as_bytes()), "{path}");
        }
        for path in ["", "a", "a/b", "//", "/a/", "/a//b", "/.", "/..", "/a/./b", "/a/..", "/a\0b"] {
            assert!(!is_canonical(path.as_bytes()), "{path}");
        }
        assert!(is_canonical(b"/\xff\xfe"));
    }
}
