//! One line of `rsync`'s file listing.
//!
//! `-rw-r--r--      1,234,567 2026/11/22 11:30:31 path/with spaces`: mode, size (with thousands separators since
//! rsync 3.1), local date and time, one space, path. Control bytes in the path are written `\#ooo` in octal, and so is
//! a backslash in front of what looks like such an escape.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use mb_core::time::FileTime;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// Modification time, read as UTC.
        modified: FileTime,
        /// Relative to what was listed, still escaped.
        escaped_path: &'a [u8],
    },
    /// A directory, symbolic link or special file.
    NoFile,
    /// Not a line of a listing.
    Unparsable,
}

/// Reads a line without its newline.
pub(super) fn parse(line: &[u8]) -> Line<'_> {
    parse_fields(line).unwrap_or(Line::Unparsable)
}

fn parse_fields(line: &[u8]) -> Option<Line<'_>> {
    let (mode, rest) = split_field(line)?;
    if mode.len() < 10 {
        return None;
    }
    let (size, rest) = split_field(rest.trim_ascii_start())?;
    let (date, rest) = split_field(rest)?;
    let (time, path) = split_field(rest)?;
    let (size, modified) = (parse_size(size)?, parse_time(date, time)?);
    match mode.first()? {
        b'-' if !path.is_empty() => Some(Line::File { size, modified, escaped_path: path }),
        b'd' | b'l' | b'b' | b'c' | b'p' | b's' => Some(Line::NoFile),
        _ => None,
    }
}

fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (field, rest) = bytes.split_at_checked(memchr::memchr(b' ', bytes)?)?;
    Some((field, rest.split_first()?.1))
}

fn parse_size(field: &[u8]) -> Option<u64> {
    if !field.first()?.is_ascii_digit() {
        return None;
    }
    field
        .iter()
        .filter(|&&byte| byte != b',')
        .try_fold(0_u64, |size, byte| size.checked_mul(10)?.checked_add(u64::from(digit(*byte)?)))
}

fn parse_time(date: &[u8], time: &[u8]) -> Option<FileTime> {
    let (&[y0, y1, y2, y3, b'/', m0, m1, b'/', d0, d1], &[h0, h1, b':', n0, n1, b':', s0, s1]) = (date, time) else {
        return None;
    };
    let year = number(&[y0, y1, y2, y3])?;
    let (month, day) = (number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !in_range {
        return None;
    }
    let of_day = hour.checked_mul(3_600)?.checked_add(minute.checked_mul(60)?)?.checked_add(second)?;
    let seconds = days_from_civil(year, month, day).checked_mul(86_400)?.checked_add(of_day)?;
    Some(FileTime::from_seconds(seconds))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |value, byte| value.checked_mul(10)?.checked_add(i64::from(digit(*byte)?)))
}

fn digit(byte: u8) -> Option<u8> {
    byte.checked_sub(b'0').filter(|digit| *digit < 10)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`).
#[expect(
    clippy::arithmetic_side_effects,
    reason = "year 0 to 9999, month 1 to 12 and day 1 to 31 stay far from overflow"
)]
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Undoes the escapes of a path into `unescaped`, which is cleared first. False when the result is no clean relative
/// path (empty, with a NUL, or with an empty, `.` or `..` part), which no honest listing holds.
pub(super) fn unescape_path(escaped: &[u8], unescaped: &mut Vec<u8>) -> bool {
    unescaped.clear();
    let mut rest = escaped;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        let (plain, from) = rest.split_at_checked(backslash).unwrap_or((rest, &[]));
        unescaped.extend_from_slice(plain);
        match from {
            [b'\\', b'#', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                unescaped.push((a & 3) << 6 | (b & 7) << 3 | (c & 7));
                rest = after;
            }
            [_, after @ ..] => {
                unescaped.push(b'\\');
                rest = after;
            }
            [] => rest = from,
        }
    }
    unescaped.extend_from_slice(rest);
    !unescaped.contains(&0) && unescaped.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(size: u64, seconds: i64, path: &str) -> Line<'_> {
        Line::File { size, modified: FileTime::from_seconds(seconds), escaped_path: path.as_bytes() }
    }

    #[test]
    fn lines_of_rsync_3_1_and_later() {
        assert_eq!(
            parse(b"-rw-r--r--      1,234,567 2026/11/22 11:30:31 path/with spaces"),
            file(1_234_567, 1_795_347_031, "path/with spaces")
        );
        assert_eq!(
            parse(b"-rw-r--r-- 12,345,678,901,234 2000/02/29 00:00:00  leading space"),
            file(12_345_678_901_234, 951_782_400, " leading space")
        );
        assert_eq!(parse(b"drwxr-xr-x          4,096 2026/11/22 20:18:39 ."), Line::NoFile);
        assert_eq!(parse(b"lrwxrwxrwx              3 2026/11/22 20:18:39 lnk"), Line::NoFile);
    }

    #[test]
    fn lines_of_rsync_3_0() {
        assert_eq!(parse(b"-rw-r--r--     1234567 1969/12/31 23:59:59 a"), file(1_234_567, -1, "a"));
    }

    #[test]
    fn what_is_no_line_of_a_listing() {
        for line in [
            "",
            "rsync: something failed",
            "-rw-r--r--  12 2026/11/22 11:30:31 ",
            "-rw-r--r--  12 2026/13/22 11:30:31 a",
            "-rw-r--r--  12 2026-11-22 11:30:31 a",
            "-rw-r--r--  99999999999999999999 2026/11/22 11:30:31 a",
            "-rw-r--r--  ,1 2026/11/22 11:30:31 a",
            "?rw-r--r--  1 2026/11/22 11:30:31 a",
        ] {
            assert_eq!(parse(line.as_bytes()), Line::Unparsable, "{line}");
        }
    }

    #[test]
    fn escapes_as_rsync_writes_them() {
        let mut path = Vec::new();
        assert!(unescape_path(br"a\#012b\#001\#c\x\#134#012", &mut path));
        assert_eq!(path, b"a\nb\x01\\#c\\x\\#012");
    }

    #[test]
    fn paths_that_would_climb_out_are_refused() {
        for path in ["../a", "a/../b", "/etc/passwd", "a//b", "a/", "./a", "a/."] {
            assert!(!unescape_path(path.as_bytes(), &mut Vec::new()), "{path}");
        }
        assert!(unescape_path(b"..a/.b", &mut Vec::new()));
    }

    /// As rsync writes a name with `-8`: control bytes but the tab, and backslashes before `#` and three digits.
    fn escape(path: &[u8]) -> Vec<u8> {
        let mut escaped = Vec::new();
        for (at, &byte) in path.iter().enumerate() {
            let looks_escaped = byte == b'\\'
                && path.get(at + 1) == Some(&b'#')
                && path.get(at + 2..at + 5).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
            if (byte < 0x20 && byte != b'\t') || byte == 0x7f || looks_escaped {
                escaped.extend_from_slice(format!("\\#{byte:03o}").as_bytes());
            } else {
                escaped.push(byte);
            }
        }
        escaped
    }

    fn grouped(size: u64) -> String {
        let digits = size.to_string();
        let groups: Vec<_> =
            digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(line: Vec<u8>) {
            if let Line::File { escaped_path, .. } = parse(&line) {
                unescape_path(escaped_path, &mut Vec::new());
            }
        }

        #[test]
        fn what_rsync_would_write_is_read_back(
            path in proptest::collection::vec(1_u8.., 1..40),
            name in "[\\\\#0-9a ]{1,12}",
            size: u64,
            day in 1_i64..=28, month in 1_i64..=12, year in 1970_i64..2200, second in 0_i64..86_400,
        ) {
            let path = [path, name.into_bytes()].concat();
            let (hour, minute) = (second / 3600, second / 60 % 60);
            let mut line = format!(
                "-rw-r--r-- {:>14} {year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{:02} ",
                grouped(size), second % 60,
            ).into_bytes();
            line.extend(escape(&path));
            let Line::File { size: read_size, modified, escaped_path } = parse(&line) else {
                panic!("not read: {}", line.escape_ascii());
            };
            prop_assert_eq!(read_size, size);
            prop_assert_eq!(modified.seconds().rem_euclid(86_400), second);
            let mut unescaped = Vec::new();
            unescape_path(escaped_path, &mut unescaped);
            prop_assert_eq!(unescaped, path);
        }
    }
}
