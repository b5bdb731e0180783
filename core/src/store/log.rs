//! Entries of a mirror's log, and how people read them.

use std::fmt;

use serde::{Deserialize, Serialize};

use time::OffsetDateTime;

use crate::foreign_text::ForeignText;
use crate::mirror::{DownloadProtocol, MirrorId, ScanProtocol};
use crate::time::Timestamp;

/// One entry of a mirror's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The mirror concerned.
    pub mirror: MirrorId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub event: LogEvent,
}

/// What happened to a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogEvent {
    /// A scan or check failed.
    Error(String),
    /// The mirror was added.
    Added,
    /// Its settings were changed.
    Edited,
    /// It was enabled.
    Enabled,
    /// It was disabled.
    Disabled,
    /// It went up or down over one protocol.
    StateChanged {
        /// Over which protocol.
        protocol: DownloadProtocol,
        /// Whether it is up now.
        up: bool,
        /// Why it is down.
        reason: String,
    },
    /// A scan started.
    ScanStarted(ScanProtocol),
    /// A scan was completed.
    ScanCompleted {
        /// Files found on the mirror.
        files_indexed: u64,
        /// Of these, files that the source has, too.
        known_indexed: u64,
        /// Files gone since the last scan.
        removed: u64,
        /// Correction of the mirror's file times, in milliseconds.
        timezone_offset_ms: i64,
    },
}

/// `2006-01-02 15:04:05 UTC: <what happened>`, as Mirrorbits prints it.
impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogEntry { at: Timestamp(seconds), event, .. } = self;
        let Ok(at) = OffsetDateTime::from_unix_timestamp(*seconds) else {
            return write!(f, "Unix time {seconds}: {event}");
        };
        let (date, month) = (at.date(), u8::from(at.month()));
        write!(f, "{:04}-{month:02}-{:02} ", date.year(), date.day())?;
        write!(f, "{:02}:{:02}:{:02} UTC: {event}", at.hour(), at.minute(), at.second())
    }
}

/// The texts of Mirrorbits, which scripts may look for. Causes and reasons are escaped: mirrors decide them, and other
/// programs write them, too.
impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogEvent::Error(cause) => write!(f, "Error: {}", ForeignText::new(cause)),
            LogEvent::Added => f.write_str("Mirror added"),
            LogEvent::Edited => f.write_str("Mirror edited"),
            LogEvent::Enabled => f.write_str("Mirror enabled"),
            LogEvent::Disabled => f.write_str("Mirror disabled"),
            LogEvent::StateChanged { protocol, up, reason } => {
                let protocol = match protocol {
                    DownloadProtocol::Http => "HTTP",
                    DownloadProtocol::Https => "HTTPS",
                };
                match (up, reason.as_str()) {
                    (true, _) => write!(f, "{protocol} mirror is up"),
                    (false, "") => write!(f, "{protocol} mirror is down"),
                    (false, reason) => write!(f, "{protocol} mirror is down: {}", ForeignText::new(reason)),
                }
            }
            LogEvent::ScanStarted(protocol) => {
                let protocol = match protocol {
                    ScanProtocol::Rsync => "RSYNC",
                    ScanProtocol::Ftp => "FTP",
                    ScanProtocol::Http => "HTTP",
                };
                write!(f, "{protocol} scan started")
            }
            LogEvent::ScanCompleted { files_indexed, known_indexed, removed, timezone_offset_ms } => {
                write!(f, "Scan completed: {files_indexed} files ({known_indexed} known), {removed} removed")?;
                match timezone_offset_ms {
                    0 => Ok(()),
                    offset => write!(f, " (corrected timezone offset: {})", GoDuration(*offset)),
                }
            }
        }
    }
}

/// Milliseconds as Go's `time.Duration` prints them: `1h0m0s`, `-30m0s`, `1.5s`, `250ms`.
struct GoDuration(i64);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let milliseconds = self.0.unsigned_abs();
        let (seconds, fraction) = (milliseconds / 1000, milliseconds % 1000);
        match (seconds, fraction) {
            (0, 0) => return f.write_str("0s"),
            (0, _) => return write!(f, "{fraction}ms"),
            _ => {}
        }
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}", seconds % 60)?;
        if fraction > 0 {
            f.write_str(format!(".{fraction:03}").trim_end_matches('0'))?;
        }
        f.write_str("s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(timezone_offset_ms: i64) -> LogEvent {
        LogEvent::ScanCompleted { files_indexed: 12, known_indexed: 10, removed: 2, timezone_offset_ms }
    }

    #[test]
    fn entries_read_as_those_of_mirrorbits() {
        let entry = LogEntry { mirror: MirrorId(3), at: Timestamp(1_136_214_245), event: LogEvent::Added };
        assert_eq!(entry.to_string(), "2006-01-02 15:04:05 UTC: Mirror added");
    }

    #[test]
    fn every_event_has_its_text() {
        let changed = |protocol, up, reason: &str| LogEvent::StateChanged { protocol, up, reason: reason.to_owned() };
        for (event, text) in [
            (LogEvent::Error("rsync: no route".to_owned()), "Error: rsync: no route"),
            (LogEvent::Edited, "Mirror edited"),
            (LogEvent::Enabled, "Mirror enabled"),
            (LogEvent::Disabled, "Mirror disabled"),
            (changed(DownloadProtocol::Http, true, ""), "HTTP mirror is up"),
            (changed(DownloadProtocol::Https, false, "Unreachable"), "HTTPS mirror is down: Unreachable"),
            (changed(DownloadProtocol::Https, false, ""), "HTTPS mirror is down"),
            (changed(DownloadProtocol::Http, false, "\x1b[2J"), "HTTP mirror is down: \\x1b[2J"),
            (LogEvent::Error("a\nb".to_owned()), "Error: a\\nb"),
            (LogEvent::ScanStarted(ScanProtocol::Rsync), "RSYNC scan started"),
            (LogEvent::ScanStarted(ScanProtocol::Ftp), "FTP scan started"),
            (LogEvent::ScanStarted(ScanProtocol::Http), "HTTP scan started"),
            (completed(0), "Scan completed: 12 files (10 known), 2 removed"),
            (
                completed(3_600_000),
                "Scan completed: 12 files (10 known), 2 removed (corrected timezone offset: 1h0m0s)",
            ),
        ] {
            assert_eq!(event.to_string(), text);
        }
    }

    #[test]
    fn durations_look_as_in_go() {
        for (milliseconds, text) in
            [(0, "0s"), (250, "250ms"), (1500, "1.5s"), (-1_800_000, "-30m0s"), (5_400_000, "1h30m0s"), (-7, "-7ms")]
        {
            assert_eq!(GoDuration(milliseconds).to_string(), text);
        }
    }
}
