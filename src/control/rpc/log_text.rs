//! Entries of a mirror's log as people read them.

use jiff::fmt::strtime;
use mb_core::mirror::{DownloadProtocol, ScanProtocol};
use mb_core::store::{LogEntry, LogEvent};

/// `2006-01-02 15:04:05 UTC: <what happened>`.
pub(super) fn line(entry: &LogEntry) -> String {
    format!("{}: {}", date_time(entry.at.0), text(&entry.event))
}

fn date_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .and_then(|time| strtime::format("%Y-%m-%d %H:%M:%S UTC", time))
        .unwrap_or_else(|_| format!("{seconds} seconds after 1970"))
}

fn text(event: &LogEvent) -> String {
    match event {
        LogEvent::Error(message) => format!("Error: {message}"),
        LogEvent::Added => "Mirror added".to_owned(),
        LogEvent::Edited => "Mirror edited".to_owned(),
        LogEvent::Enabled => "Mirror enabled".to_owned(),
        LogEvent::Disabled => "Mirror disabled".to_owned(),
        LogEvent::StateChanged { protocol, up, reason } => {
            let protocol = match protocol {
                DownloadProtocol::Http => "HTTP",
                DownloadProtocol::Https => "HTTPS",
            };
            match (up, reason.as_str()) {
                (true, _) => format!("{protocol} mirror is up"),
                (false, "") => format!("{protocol} mirror is down"),
                (false, reason) => format!("{protocol} mirror is down: {reason}"),
            }
        }
        LogEvent::ScanStarted(protocol) => {
            let protocol = match protocol {
                ScanProtocol::Rsync => "RSYNC",
                ScanProtocol::Ftp => "FTP",
                ScanProtocol::Http => "HTTP",
            };
            format!("{protocol} scan started")
        }
        LogEvent::ScanCompleted { files_indexed, known_indexed, removed, timezone_offset_ms } => {
            let figures = format!("Scan completed: {files_indexed} files ({known_indexed} known), {removed} removed");
            match timezone_offset_ms {
                0 => figures,
                offset => format!("{figures} (corrected timezone offset: {})", go_duration(*offset)),
            }
        }
    }
}

/// A duration as Go writes it: `1h0m0s`, `-30m0s`, `1.5s`, `20ms`.
fn go_duration(milliseconds: i64) -> String {
    let sign = if milliseconds < 0 { "-" } else { "" };
    let total = milliseconds.unsigned_abs();
    if total < 1000 {
        return format!("{sign}{total}ms");
    }
    let (hours, minutes) = (total / 3_600_000, total / 60_000 % 60);
    let thousandths = total % 60_000;
    let seconds = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::MirrorId;
    use mb_core::time::Timestamp;

    use super::*;

    #[test]
    fn every_event_has_its_text() {
        let down = |reason: &str| LogEvent::StateChanged {
            protocol: DownloadProtocol::Https,
            up: false,
            reason: reason.to_owned(),
        };
        let completed = |timezone_offset_ms| LogEvent::ScanCompleted {
            files_indexed: 12,
            known_indexed: 10,
            removed: 1,
            timezone_offset_ms,
        };
        let texts = [
            (LogEvent::Error("no route".into()), "Error: no route"),
            (LogEvent::Added, "Mirror added"),
            (
                LogEvent::StateChanged { protocol: DownloadProtocol::Http, up: true, reason: String::new() },
                "HTTP mirror is up",
            ),
            (down("404"), "HTTPS mirror is down: 404"),
            (down(""), "HTTPS mirror is down"),
            (LogEvent::ScanStarted(ScanProtocol::Rsync), "RSYNC scan started"),
            (completed(0), "Scan completed: 12 files (10 known), 1 removed"),
            (
                completed(3_600_000),
                "Scan completed: 12 files (10 known), 1 removed (corrected timezone offset: 1h0m0s)",
            ),
        ];
        for (event, expected) in texts {
            let entry = LogEntry { mirror: MirrorId(1), at: Timestamp(1_136_214_245), event };
            assert_eq!(line(&entry), format!("2006-01-02 15:04:05 UTC: {expected}"));
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let durations =
            [(20, "20ms"), (1500, "1.5s"), (60_000, "1m0s"), (-1_800_000, "-30m0s"), (36_000_010, "10h0m0.01s")];
        for (milliseconds, expected) in durations {
            assert_eq!(go_duration(milliseconds), expected);
        }
    }

    #[test]
    fn a_time_outside_the_calendar_is_no_panic() {
        assert!(date_time(i64::MAX).contains("seconds after 1970"));
    }
}
