//! `stats`: downloads of files, and of a mirror.

use std::collections::HashMap;
use std::io::Write as _;

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use prost_types::Timestamp;

use super::connection::Daemon;
use super::error::CommandError;
use super::list::state;
use super::table::aligned;
use crate::control::rpc::proto::{StatsFileRequest, StatsMirrorReply, StatsMirrorRequest};
use crate::control::rpc::wire;

/// Options of `stats`.
#[derive(Args, Debug)]
pub(super) struct Stats {
    /// First UTC day; today without it
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    start_date: Option<Date>,
    /// UTC day before which the range ends, or the first day again for that day alone; without it, the range ends now
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    end_date: Option<Date>,
    /// Print sizes in units that people read
    #[arg(short = 'h', default_value_t = true)]
    human: bool,
    /// Downloads of what, or `prune`
    kind: Kind,
    /// Regular expression that the path of a file has to match, or name of the mirror
    #[arg(value_name = "REGEX|IDENTIFIER", required_if_eq_any([("kind", "file"), ("kind", "mirror")]))]
    subject: Option<String>,
}

/// Downloads of what.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Of each file whose path matches
    File,
    /// Of all files from one mirror
    Mirror,
    /// Drop the statistics that StatsRetention does not keep
    Prune,
}

impl Stats {
    /// Prints the counts.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        if let (Some(start), Some(end)) = (self.start_date, self.end_date)
            && end < start
        {
            return Err(CommandError::Usage("-end-date is before -start-date"));
        }
        // Mirrorbits takes a missing time for an error.
        let now = Timestamp { seconds: jiff::Timestamp::now().as_second(), nanos: 0 };
        let (date_start, date_end) = (self.start_date.map_or(now, midnight), self.end_date.map_or(now, midnight));
        let subject = self.subject.unwrap_or_default();
        let text = match self.kind {
            Kind::File => {
                let request =
                    StatsFileRequest { pattern: subject, date_start: Some(date_start), date_end: Some(date_end) };
                of_files(&daemon.rpc.stats_file(request).await?.into_inner().files)
            }
            Kind::Mirror => {
                let mirror = daemon.find(&subject).await?;
                let request =
                    StatsMirrorRequest { id: mirror.id, date_start: Some(date_start), date_end: Some(date_end) };
                of_mirror(&mirror.name, daemon.rpc.stats_mirror(request).await?.into_inner(), self.human)?
            }
            Kind::Prune => match daemon.rpc.prune_stats(()).await?.into_inner().dropped {
                1 => "Dropped the statistics of 1 day or month\n".to_owned(),
                dropped => format!("Dropped the statistics of {dropped} days and months\n"),
            },
        };
        write!(super::terminal::stdout(), "{text}")?;
        Ok(())
    }
}

/// A date as Mirrorbits reads it: months and days may have one digit.
fn date(text: &str) -> Result<Date, String> {
    let mut parts = text.splitn(3, '-');
    let mut part = || parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let date = (|| Date::new(part()?.parse().ok()?, part()?.parse().ok()?, part()?.parse().ok()?).ok())();
    date.filter(|date| date.year() > 0).ok_or_else(|| "no date: write it as 2026-11-22".to_owned())
}

fn midnight(day: Date) -> Timestamp {
    // Every civil day of these years has a UTC midnight.
    let seconds = day.to_zoned(TimeZone::UTC).map_or(0, |zoned| zoned.timestamp().as_second());
    Timestamp { seconds, nanos: 0 }
}

fn of_files(files: &HashMap<String, i64>) -> String {
    let mut rows: Vec<Vec<String>> =
        files.iter().map(|(path, requests)| vec![format!("{path}:"), requests.to_string()]).collect();
    rows.sort();
    if !rows.is_empty() {
        rows.push(vec![String::new(), String::new()]);
    }
    let total = files.values().fold(0, |sum: i64, requests| sum.saturating_add(*requests));
    rows.push(vec!["Total download requests: ".to_owned(), total.to_string()]);
    aligned(&rows)
}

fn of_mirror(name: &str, reply: StatsMirrorReply, human: bool) -> Result<String, CommandError> {
    let mirror = reply.mirror.and_then(wire::mirror_from_wire);
    let mirror = mirror.ok_or_else(|| CommandError::Answer("no mirror came with its statistics".to_owned()))?;
    let bytes = if human { readable_size(reply.bytes) } else { reply.bytes.to_string() };
    let rows = [
        ("Identifier:", name.to_owned()),
        ("Status:", state(&mirror)),
        ("Download requests:", reply.requests.to_string()),
        ("Bytes transferred:", bytes),
    ];
    Ok(aligned(&rows.map(|(title, value)| vec![title.to_owned(), value])))
}

/// A number of bytes as Mirrorbits prints it: in units of 1024, with one decimal.
fn readable_size(bytes: i64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KB", "MB", "GB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::rpc::proto::Mirror;

    #[test]
    fn files_are_listed_by_path_with_their_sum() {
        let files = HashMap::from([("/b.iso".to_owned(), 3), ("/a.iso".to_owned(), 20)]);
        assert_eq!(of_files(&files), "/a.iso:\t\t\t\t20\n/b.iso:\t\t\t\t3\n\t\t\t\t\nTotal download requests: \t23\n");
        assert_eq!(of_files(&HashMap::new()), "Total download requests: \t0\n");
    }

    #[test]
    fn a_mirror_is_told_with_its_state() {
        let mirror = Mirror { id: 1, http_url: "http://a/".into(), enabled: true, http_up: true, ..Mirror::default() };
        let reply = StatsMirrorReply { mirror: Some(mirror), requests: 7, bytes: 1536 };
        assert_eq!(
            of_mirror("paris", reply.clone(), true).unwrap(),
            "Identifier:\t\tparis\nStatus:\t\t\tup\nDownload requests:\t7\nBytes transferred:\t1.5 KB\n"
        );
        assert!(of_mirror("paris", reply, false).unwrap().ends_with("Bytes transferred:\t1536\n"));
        assert!(of_mirror("paris", StatsMirrorReply::default(), true).is_err());
    }

    #[test]
    fn sizes_have_one_decimal() {
        let sizes = [
            (0, "0.0 bytes"),
            (1023, "1023.0 bytes"),
            (1024, "1.0 KB"),
            (3 << 29, "1.5 GB"),
            (1 << 60, "1048576.0 TB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(readable_size(bytes), text);
        }
    }

    #[test]
    fn dates_are_those_of_mirrorbits() {
        assert_eq!(midnight(date("2026-11-22").unwrap()).seconds, 1_795_305_600);
        assert_eq!(date("2026-1-2"), date("2026-01-02"));
        for wrong in ["", "2026", "2026-11", "2026-13-01", "2026-02-30", "22.11.2026", "2026-11-22x", "--1", "0-1-1"] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }
}
