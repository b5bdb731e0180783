//! The hash of a source file, as Mirrorbits writes it: all five fields, hashes in hexadecimal digits or empty.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::store::{FileHashes, SourceEntryKind};
use crate::time::FileTime;

/// The fields, in the order of [`read`].
pub(super) const FIELDS: [&str; 5] = ["size", "modTime", "sha1", "sha256", "md5"];

/// The values of the fields of a file.
pub(super) fn write(size: u64, modified: FileTime, hashes: &FileHashes) -> [String; 5] {
    [
        size.to_string(),
        time_text(modified),
        digits(hashes.sha1.as_ref().map(<[u8; 20]>::as_slice)),
        digits(hashes.sha256.as_ref().map(<[u8; 32]>::as_slice)),
        digits(hashes.md5.as_ref().map(<[u8; 16]>::as_slice)),
    ]
}

/// The file of these values; `None` when the key of the file is gone. What is missing or unreadable is zero or not computed,
/// so that the next source scan finds a difference and writes it anew.
pub(super) fn read(values: [Option<Vec<u8>>; 5]) -> Option<SourceEntryKind> {
    if values.iter().all(Option::is_none) {
        return None;
    }
    let [size, modified, sha1, sha256, md5] =
        values.map(|value| String::from_utf8(value.unwrap_or_default()).unwrap_or_default());
    Some(SourceEntryKind::File {
        size: size.parse().unwrap_or_default(),
        modified: time_of(&modified).unwrap_or_default(),
        hashes: FileHashes { sha1: bytes(&sha1), sha256: bytes(&sha256), md5: bytes(&md5) },
    })
}

/// `2006-01-02 15:04:05.999999999 +0000 UTC`: what Go's `time.Time.String` makes of a UTC time.
fn time_text(time: FileTime) -> String {
    // Nanoseconds in an i64 are never out of the range of a date.
    let utc = OffsetDateTime::from_unix_timestamp_nanos(time.0.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, month) = (utc.date(), u8::from(utc.month()));
    let mut text = format!("{:04}-{month:02}-{:02} ", date.year(), date.day());
    // Writing to a String cannot fail.
    let _ = write!(text, "{:02}:{:02}:{:02}", utc.hour(), utc.minute(), utc.second());
    if utc.nanosecond() > 0 {
        text.push_str(format!(".{:09}", utc.nanosecond()).trim_end_matches('0'));
    }
    text.push_str(" +0000 UTC");
    text
}

/// Reads that text, with any offset (local times of older versions); the name of the zone says nothing more.
fn time_of(text: &str) -> Option<FileTime> {
    let mut parts = text.split_ascii_whitespace();
    let (date, time, offset) = (parts.next()?, parts.next()?, parts.next()?);
    let (hours, minutes) = offset.split_at_checked(3)?;
    let time = OffsetDateTime::parse(&format!("{date}T{time}{hours}:{minutes}"), &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos()).ok().map(FileTime)
}

fn digits(bytes: Option<&[u8]>) -> String {
    bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const LENGTH: usize>(digits: &str) -> Option<[u8; LENGTH]> {
    if digits.len() != 2 * LENGTH || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; LENGTH];
    for (byte, start) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[start..start + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_look_as_in_go() {
        for (time, text) in [
            (FileTime(1_136_214_245_000_000_000), "2006-01-02 15:04:05 +0000 UTC"),
            (FileTime(1_136_214_245_120_000_000), "2006-01-02 15:04:05.12 +0000 UTC"),
            (FileTime(-1), "1969-12-31 23:59:59.999999999 +0000 UTC"),
        ] {
            assert_eq!(time_text(time), text);
            assert_eq!(time_of(text), Some(time));
        }
    }

    #[test]
    fn local_times_are_understood() {
        let expected = Some(FileTime(1_136_214_245_000_000_000));
        assert_eq!(time_of("2006-01-02 16:04:05 +0100 CET"), expected);
        assert_eq!(time_of("2006-01-02 09:34:05 -0530 -0530 m=+0.1"), expected);
        for other in
            ["", "2006-01-02", "2006-01-02 15:04:05", "2006-01-02 15:04:05 UTC", "a b c", "2006-01-02 15:04:05 é0 x"]
        {
            assert_eq!(time_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_key_that_is_gone_is_no_file() {
        assert_eq!(read([None, None, None, None, None]), None);
        let empty = SourceEntryKind::File { size: 0, modified: FileTime(0), hashes: FileHashes::default() };
        assert_eq!(read([Some(b"x".to_vec()), None, Some(b"+f".repeat(20)), Some(vec![0xff; 64]), None]), Some(empty));
    }

    proptest! {
        #[test]
        fn facts_are_read_as_written(
            size: u64,
            modified: i64,
            sha1: Option<[u8; 20]>,
            sha256: Option<[u8; 32]>,
            md5: Option<[u8; 16]>,
        ) {
            let (modified, hashes) = (FileTime(modified), FileHashes { sha1, sha256, md5 });
            let values = write(size, modified, &hashes).map(|value| Some(value.into_bytes()));
            prop_assert_eq!(read(values), Some(SourceEntryKind::File { size, modified, hashes }));
        }
    }
}
