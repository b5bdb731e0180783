//! Entries of mirror logs as Mirrorbits writes them: JSON objects of one level, told apart by `Type`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::records::{scan_protocol, scan_protocol_number};
use crate::mirror::{DownloadProtocol, MirrorId};
use crate::store::{LogEntry, LogEvent};
use crate::time::Timestamp;

/// Every field that any type of entry has; those of other types are left out.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Line {
    #[serde(rename = "Type")]
    kind: u8,
    #[serde(rename = "MirrorID")]
    mirror: u32,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    err: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_indexed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_indexed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<u64>,
    #[serde(rename = "TZOffset", skip_serializing_if = "Option::is_none")]
    timezone_offset_ms: Option<i64>,
}

/// The text of an entry.
pub(super) fn write(entry: &LogEntry) -> Result<String, String> {
    let timestamp = OffsetDateTime::from_unix_timestamp(entry.at.0)
        .map_err(|cause| cause.to_string())?
        .format(&Rfc3339)
        .map_err(|cause| cause.to_string())?;
    let line = Line { mirror: entry.mirror.0, timestamp, ..Line::default() };
    let line = match &entry.event {
        LogEvent::Error(cause) => Line { kind: 1, err: Some(cause.clone()), ..line },
        LogEvent::Added => Line { kind: 2, ..line },
        LogEvent::Edited => Line { kind: 3, ..line },
        LogEvent::Enabled => Line { kind: 4, ..line },
        LogEvent::Disabled => Line { kind: 5, ..line },
        LogEvent::StateChanged { protocol, up, reason } => {
            let proto = match protocol {
                DownloadProtocol::Http => 1,
                DownloadProtocol::Https => 2,
            };
            Line { kind: 6, proto: Some(proto), up: Some(*up), reason: Some(reason.clone()), ..line }
        }
        LogEvent::ScanStarted(protocol) => Line { kind: 7, typ: Some(scan_protocol_number(*protocol)), ..line },
        LogEvent::ScanCompleted { files_indexed, known_indexed, removed, timezone_offset_ms } => Line {
            kind: 8,
            files_indexed: Some(*files_indexed),
            known_indexed: Some(*known_indexed),
            removed: Some(*removed),
            timezone_offset_ms: Some(*timezone_offset_ms),
            ..line
        },
    };
    serde_json::to_string(&line).map_err(|cause| cause.to_string())
}

/// The entry of a text, in the log of `mirror`; `None` when it is none.
pub(super) fn read(mirror: MirrorId, text: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(text).ok()?;
    let event = match line.kind {
        1 => LogEvent::Error(line.err.unwrap_or_default()),
        2 => LogEvent::Added,
        3 => LogEvent::Edited,
        4 => LogEvent::Enabled,
        5 => LogEvent::Disabled,
        6 => LogEvent::StateChanged {
            protocol: if line.proto == Some(2) { DownloadProtocol::Https } else { DownloadProtocol::Http },
            up: line.up.unwrap_or_default(),
            reason: line.reason.unwrap_or_default(),
        },
        7 => LogEvent::ScanStarted(scan_protocol(line.typ.unwrap_or_default())),
        8 => LogEvent::ScanCompleted {
            files_indexed: line.files_indexed.unwrap_or_default(),
            known_indexed: line.known_indexed.unwrap_or_default(),
            removed: line.removed.unwrap_or_default(),
            timezone_offset_ms: line.timezone_offset_ms.unwrap_or_default(),
        },
        _ => return None,
    };
    let at = OffsetDateTime::parse(&line.timestamp, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp);
    Some(LogEntry { mirror, at: Timestamp(at), event })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::ScanProtocol;

    #[test]
    fn entries_look_as_those_of_mirrorbits() {
        for (event, rest) in [
            (LogEvent::Added, r#""Type":2"#),
            (LogEvent::Error("no \"route\"".into()), r#""Type":1;"Err":"no \"route\"""#),
            (
                LogEvent::StateChanged { protocol: DownloadProtocol::Https, up: false, reason: "Unreachable".into() },
                r#""Type":6;"Proto":2,"Up":false,"Reason":"Unreachable""#,
            ),
            (LogEvent::ScanStarted(ScanProtocol::Ftp), r#""Type":7;"Typ":1"#),
            (
                LogEvent::ScanCompleted { files_indexed: 3, known_indexed: 2, removed: 1, timezone_offset_ms: -5 },
                r#""Type":8;"FilesIndexed":3,"KnownIndexed":2,"Removed":1,"TZOffset":-5"#,
            ),
        ] {
            let entry = LogEntry { mirror: MirrorId(4), at: Timestamp(1_136_214_245), event };
            let common = r#","MirrorID":4,"Timestamp":"2006-01-02T15:04:05Z""#;
            let expected = match rest.split_once(';') {
                Some((kind, own)) => format!("{{{kind}{common},{own}}}"),
                None => format!("{{{rest}{common}}}"),
            };
            let text = write(&entry).unwrap();
            assert_eq!(text, expected);
            assert_eq!(read(MirrorId(4), text.as_bytes()), Some(entry));
        }
    }

    #[test]
    fn times_of_other_zones_and_old_entries_are_understood() {
        let text =
            br#"{"Type":6,"MirrorID":4,"Timestamp":"2006-01-02T16:04:05.123456789+01:00","Up":true,"Reason":""}"#;
        let event = LogEvent::StateChanged { protocol: DownloadProtocol::Http, up: true, reason: String::new() };
        assert_eq!(
            read(MirrorId(4), text),
            Some(LogEntry { mirror: MirrorId(4), at: Timestamp(1_136_214_245), event })
        );
        for other in [&b"{}"[..], b"no JSON", b"{\"Type\":99}", b"[]"] {
            assert_eq!(read(MirrorId(4), other), None);
        }
    }
}
