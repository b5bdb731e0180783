//! The line of an answer, as Mirrorbits writes it or in JSON. One thread writes those of all shards, so it works the time
//! of day out once a second only.

use std::io::Write;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mb_core::config::LogFormat;

use crate::handle::outcome::{Chosen, Kind, Outcome};
use crate::http::json::JsonWriter;
use crate::http::request::Method;
use crate::snapshot::Snapshot;

/// Writes lines, with what was worked out for the current second.
pub(super) struct LineFormat {
    zone: TimeZone,
    /// What the following is worked out for.
    format: LogFormat,
    second: i64,
    /// What precedes the fraction of the second.
    date_and_time: String,
    /// What follows it: the zone, in JSON.
    offset: String,
}

/// Who was chosen, in the words of a line.
struct Server<'a> {
    name: &'a str,
    asn: u32,
    distance: f32,
    countries: &'a str,
    fallback: bool,
}

impl LineFormat {
    /// Lines with the local time of `zone`.
    pub(super) fn new(zone: TimeZone) -> LineFormat {
        LineFormat {
            zone,
            format: LogFormat::Text,
            second: i64::MIN,
            date_and_time: String::new(),
            offset: String::new(),
        }
    }

    /// Appends the line of an outcome that led to `path` and was drawn from `snapshot`, in the format that it asks for. `at` is
    /// the Unix time in microseconds. Returns whether there is a line.
    pub(super) fn append(
        &mut self,
        out: &mut Vec<u8>,
        at: i64,
        outcome: &Outcome,
        path: &[u8],
        snapshot: &Snapshot,
    ) -> bool {
        let (Some(format), Some(server)) = (snapshot.settings.download_log, server(outcome.chosen, snapshot)) else {
            return false;
        };
        if self.format != format {
            (self.format, self.second) = (format, i64::MIN);
        }
        let microsecond = self.look_at(at);
        match self.format {
            LogFormat::Text => self.text(out, microsecond, outcome, path, &server),
            LogFormat::Json => self.json(out, microsecond, outcome, path, &server),
        }
        out.push(b'\n');
        true
    }

    /// Works the parts of the current second out, if it is a new one. Returns the microsecond within it.
    fn look_at(&mut self, at: i64) -> u32 {
        let second = at.div_euclid(1_000_000);
        if second != self.second {
            self.second = second;
            // A time that the calendar does not have stands for its start.
            let now = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            let (time, offset) = {
                let info = self.zone.to_offset(now);
                (info.to_datetime(now), info.seconds())
            };
            let (date_mark, between) = match self.format {
                LogFormat::Text => ('/', ' '),
                LogFormat::Json => ('-', 'T'),
            };
            self.date_and_time.clear();
            self.offset.clear();
            let (date, clock) = (time.date(), time.time());
            // Writing to a string cannot fail.
            let _ = std::fmt::Write::write_fmt(
                &mut self.date_and_time,
                format_args!(
                    "{:04}{date_mark}{:02}{date_mark}{:02}{between}{:02}:{:02}:{:02}.",
                    date.year(),
                    date.month(),
                    date.day(),
                    clock.hour(),
                    clock.minute(),
                    clock.second()
                ),
            );
            let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
            let zone = format_args!("{sign}{:02}:{:02}", minutes / 60, minutes % 60);
            let _ = std::fmt::Write::write_fmt(&mut self.offset, zone);
        }
        // In range by the remainder.
        at.rem_euclid(1_000_000) as u32
    }

    fn text(&self, out: &mut Vec<u8>, microsecond: u32, outcome: &Outcome, path: &[u8], server: &Server<'_>) {
        out.extend_from_slice(self.date_and_time.as_bytes());
        append_digits(out, microsecond.into(), 6);
        out.push(b' ');
        out.extend_from_slice(word(outcome.kind).as_bytes());
        out.push(b' ');
        append_digits(out, outcome.status.code().into(), 3);
        out.push(b' ');
        out.extend_from_slice(method(outcome.method).as_bytes());
        out.extend_from_slice(b" \"");
        append_escaped(out, path);
        out.extend_from_slice(b"\" ip:");
        if let Some(client) = outcome.client {
            append_address(out, client.address);
        }
        out.extend_from_slice(b" mirror:");
        append_escaped(out, server.name.as_bytes());
        if server.fallback {
            out.extend_from_slice(b" fallback:true");
        }
        out.extend_from_slice(if is_same_network(outcome, server) { b" sameasn:" } else { b" asn:" });
        append_digits(out, server.asn.into(), 1);
        out.extend_from_slice(b" distance:");
        // A 32-bit float times 100 is exact in 64 bits, so that this rounds as printing two decimals does.
        let hundredths = (f64::from(server.distance) * 100.0).round_ties_even() as u64;
        append_digits(out, hundredths / 100, 1);
        out.push(b'.');
        append_digits(out, hundredths % 100, 2);
        out.extend_from_slice(b"km countries:");
        let start = out.len();
        append_escaped(out, server.countries.as_bytes());
        out[start..].iter_mut().filter(|byte| **byte == b' ').for_each(|byte| *byte = b',');
    }

    fn json(&self, out: &mut Vec<u8>, microsecond: u32, outcome: &Outcome, path: &[u8], server: &Server<'_>) {
        let mut json = JsonWriter::new(out, false);
        json.begin_object();
        json.name("time");
        json.quoted_by(|out| {
            out.extend_from_slice(self.date_and_time.as_bytes());
            append_digits(out, microsecond.into(), 6);
            out.extend_from_slice(self.offset.as_bytes());
        });
        json.name("type");
        json.string(word(outcome.kind));
        json.name("status");
        json.plain(outcome.status.code());
        json.name("method");
        json.string(method(outcome.method));
        json.name("path");
        json.string(path);
        if let Some(client) = outcome.client {
            json.name("ip");
            json.quoted_by(|out| append_address(out, client.address));
        }
        json.name("mirror");
        json.string(server.name);
        json.name("fallback");
        json.plain(server.fallback);
        json.name("asn");
        json.plain(server.asn);
        json.name("sameasn");
        json.plain(is_same_network(outcome, server));
        json.name("distance");
        json.plain(server.distance);
        json.name("countries");
        json.begin_array();
        server.countries.split_ascii_whitespace().for_each(|country| json.string(country));
        json.end_array();
        json.end_object();
    }
}

/// Who was chosen; nobody was where nothing is logged.
fn server(chosen: Chosen, snapshot: &Snapshot) -> Option<Server<'_>> {
    match chosen {
        Chosen::Nobody => None,
        Chosen::Mirror { row, distance } => {
            let settings = &snapshot.mirrors.row(row).mirror.settings;
            let (name, countries) = (settings.name.as_str(), settings.country_codes.as_str());
            Some(Server { name, asn: settings.asn, distance, countries, fallback: false })
        }
        Chosen::Fallback(place) => {
            let settings = &snapshot.settings.fallbacks.get(place)?.settings;
            let (name, countries) = (settings.name.as_str(), settings.country_codes.as_str());
            Some(Server { name, asn: 0, distance: 0.0, countries, fallback: true })
        }
    }
}

fn is_same_network(outcome: &Outcome, server: &Server<'_>) -> bool {
    server.asn != 0 && outcome.client.is_some_and(|client| client.asn == server.asn)
}

fn word(kind: Kind) -> &'static str {
    if kind == Kind::Json { "JSON" } else { "REDIRECT" }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        // Neither is ever answered by a redirect or a document.
        Method::Options => "OPTIONS",
        Method::Other => "OTHER",
    }
}

/// Appends a number with at least `width` digits.
fn append_digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while number > 0 || digits.len() - start < width {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

fn append_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                append_digits(out, octet.into(), 1);
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Appends text in which quotes, backslashes and control bytes are escaped, so that a line stays one and its fields stay
/// apart.
fn append_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\' && *byte != 0x7F;
    // Looking at every byte is many times faster than stopping at the first that is not plain: most texts are plain.
    if text.iter().fold(true, |plain, byte| plain & is_plain(byte)) {
        return out.extend_from_slice(text);
    }
    for byte in text {
        if is_plain(byte) {
            out.push(*byte);
        } else {
            out.extend(std::ascii::escape_default(*byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz;
    use mb_core::config;
    use mb_core::geo::GeoDatabase;
    use mb_core::mirror::{Mirror, MirrorId, MirrorSettings, MirrorState};
    use std::sync::Arc;

    use super::*;
    use crate::handle::Settings;
    use crate::handle::outcome::Client;
    use crate::http::response::Status;
    use crate::select::MirrorTable;

    fn snapshot(format: LogFormat) -> Snapshot {
        let text = "Repository: /srv\nLogDir: /log\nFallbacks:\n - URL: https://far/\n   CountryCode: FR\n";
        let config = config::parse(text, std::path::Path::new("test.conf")).unwrap().config;
        let settings = MirrorSettings {
            name: "m1".to_owned(),
            country_codes: "FR DE".to_owned(),
            asn: 64496,
            ..MirrorSettings::default()
        };
        let mirror = Mirror { id: MirrorId(1), settings, state: MirrorState::default() };
        let (geo, _) = GeoDatabase::load(std::path::Path::new("/nowhere"));
        let settings = Settings { download_log: Some(format), ..Settings::from(&config) };
        Snapshot::new(Arc::new(settings), None, Arc::new(MirrorTable::new(vec![mirror])), Arc::new(geo))
    }

    fn outcome(kind: Kind, status: Status, chosen: Chosen, asn: u32) -> Outcome {
        let client = Some(Client { address: "192.0.2.5".parse().unwrap(), asn });
        Outcome { kind, chosen, client, ..Outcome::refused(Method::Get, status) }
    }

    fn line(format: LogFormat, outcome: &Outcome, path: &[u8]) -> String {
        // 2026-11-22 10:30:31.145362 UTC, an hour later in the zone.
        let at = 1_795_343_431_145_362;
        let mut out = Vec::new();
        let mut lines = LineFormat::new(TimeZone::fixed(tz::offset(1)));
        assert!(lines.append(&mut out, at, outcome, path, &snapshot(format)));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_those_of_mirrorbits() {
        let near = Chosen::Mirror { row: 0, distance: 0.75 };
        let redirect = outcome(Kind::Redirect, Status::Found, near, 64496);
        assert_eq!(
            line(LogFormat::Text, &redirect, b"/a.iso"),
            "2026/11/22 11:30:31.145362 REDIRECT 302 GET \"/a.iso\" ip:192.0.2.5 mirror:m1 sameasn:64496 \
             distance:0.75km countries:FR,DE\n"
        );
        let fallback = outcome(Kind::Json, Status::Ok, Chosen::Fallback(0), 64496);
        assert_eq!(
            line(LogFormat::Text, &fallback, b"/a.iso"),
            "2026/11/22 11:30:31.145362 JSON 200 GET \"/a.iso\" ip:192.0.2.5 mirror:fallback0 fallback:true asn:0 \
             distance:0.00km countries:FR\n"
        );
        let far = Chosen::Mirror { row: 0, distance: 12345.678 };
        let other = outcome(Kind::Redirect, Status::Found, far, 1);
        assert!(line(LogFormat::Text, &other, b"/a").contains(" asn:64496 distance:12345.68km "));
    }

    #[test]
    fn no_path_makes_a_second_line_or_field() {
        let redirect = outcome(Kind::Redirect, Status::Found, Chosen::Fallback(0), 0);
        let text = line(LogFormat::Text, &redirect, b"/a\" ip:1\\\n\r\x7F\xC3\xA9");
        assert!(text.contains(r#"GET "/a\" ip:1\\\n\r\x7fé" ip:192.0.2.5"#), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn json_has_the_same_facts() {
        let near = Chosen::Mirror { row: 0, distance: 0.75 };
        let text = line(LogFormat::Json, &outcome(Kind::Redirect, Status::Found, near, 64496), b"/a\n\"");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-22T11:30:31.145362+01:00", "type": "REDIRECT", "status": 302, "method": "GET",
            "path": "/a\n\"", "ip": "192.0.2.5", "mirror": "m1", "fallback": false, "asn": 64496, "sameasn": true,
            "distance": 0.75, "countries": ["FR", "DE"],
        });
        assert_eq!(value, expected);
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
    }

    #[test]
    fn distances_are_rounded_as_go_rounds_them() {
        for distance in [0.0_f32, 0.005, 0.015, 0.125, 0.375, 2.675, 1234.565, 19999.995] {
            let chosen = Chosen::Mirror { row: 0, distance };
            let text = line(LogFormat::Text, &outcome(Kind::Redirect, Status::Found, chosen, 0), b"/");
            let expected = format!(" distance:{:.2}km ", f64::from(distance));
            assert!(text.contains(&expected), "{expected} is not in {text}");
        }
    }
}
