//! The document of all mirrors: their state, their scans, and what they sent.

use std::collections::BTreeMap;
use std::fmt::Display;

use mb_core::mirror::{DownloadProtocol, MirrorId, UrlScheme};
use mb_core::store::Traffic;
use mb_core::time::Timestamp;
use serde_json::{Map, Value};

use super::mirror_list::withhold_unsafe_links;
use super::traffic::Counted;
use crate::handle::document::{number, text, time, write_scans, write_settings, write_state};
use crate::http::json::JsonWriter;
use crate::select::{MirrorTable, Reason, TableMirror};

/// A time over which downloads are counted.
struct Span<'c> {
    /// Its member of the document and of each mirror.
    name: &'static str,
    /// What it is called; empty for all time.
    period: String,
    traffic: &'c BTreeMap<MirrorId, Traffic>,
    /// All mirrors of the document together.
    sum: Traffic,
}

impl<'c> Span<'c> {
    fn all(counted: &'c Counted, mirrors: &MirrorTable) -> [Span<'c>; 3] {
        let day = counted.day;
        let month = format!("{:04}-{:02}", day.year(), u8::from(day.month()));
        [
            ("Today", format!("{month}-{:02}", day.day()), &counted.today),
            ("Month", month, &counted.month),
            ("Total", String::new(), &counted.total),
        ]
        .map(|(name, period, traffic)| {
            let mut sum = Traffic::default();
            mirrors.rows().iter().filter_map(|row| traffic.get(&row.mirror.id)).for_each(|part| sum.add(*part));
            Span { name, period, traffic, sum }
        })
    }
}

/// Writes the document of `mirrors` at the time `now`; without counts when there are none to be had. Private fields are
/// written when `expose_private`.
pub fn write(
    json: &mut JsonWriter<'_>,
    mirrors: &MirrorTable,
    counted: Option<&Counted>,
    now: Timestamp,
    expose_private: bool,
    local_js_path: &str,
) {
    let spans: Vec<_> = counted.into_iter().flat_map(|counted| Span::all(counted, mirrors)).collect();
    json.begin_object();
    time(json, "Time", now);
    for span in &spans {
        json.name(span.name);
        json.begin_object();
        text(json, "Period", &span.period);
        number(json, "Downloads", span.sum.requests);
        number(json, "Bytes", span.sum.bytes);
        json.end_object();
    }
    json.name("MirrorList");
    json.begin_array();
    let mut rows: Vec<_> = mirrors.rows().iter().collect();
    rows.sort_by(|a, b| a.mirror.settings.name.cmp(&b.mirror.settings.name));
    rows.into_iter().for_each(|row| write_mirror(json, row, &spans, expose_private));
    json.end_array();
    text(json, "LocalJSPath", local_js_path);
    json.end_object();
}

fn write_mirror(json: &mut JsonWriter<'_>, row: &TableMirror, spans: &[Span<'_>], expose_private: bool) {
    let (settings, state) = (&row.mirror.settings, &row.mirror.state);
    let up = [DownloadProtocol::Https, DownloadProtocol::Http].into_iter().find(|protocol| row.is_up(*protocol));
    json.begin_object();
    write_settings(json, i64::from(row.mirror.id.0), settings, expose_private);
    text(
        json,
        "State",
        if !state.enabled {
            "disabled"
        } else if up.is_some() {
            "up"
        } else {
            "down"
        },
    );
    if state.enabled && up.is_none() {
        json.name("DownReason");
        let reason = match row.scheme {
            UrlScheme::Both => Reason::AllDown,
            UrlScheme::HttpOnly => Reason::Down(DownloadProtocol::Http),
            UrlScheme::HttpsOnly => Reason::Down(DownloadProtocol::Https),
        };
        json.displayed(reason.describe(row));
    }
    write_state(json, settings, state);
    write_scans(json, state);
    number(json, "TimezoneOffset", state.timezone_offset_ms);
    let offered =
        || if row.scheme.offers(DownloadProtocol::Https) { DownloadProtocol::Https } else { DownloadProtocol::Http };
    text(json, "AbsoluteURL", row.url(up.unwrap_or_else(offered)));
    for span in spans {
        let Traffic { requests, bytes } = span.traffic.get(&row.mirror.id).copied().unwrap_or_default();
        json.name(span.name);
        json.begin_object();
        number(json, "Downloads", requests);
        number(json, "DownloadsShare", percent(requests, span.sum.requests));
        number(json, "Bytes", bytes);
        number(json, "BytesShare", percent(bytes, span.sum.bytes));
        json.end_object();
    }
    json.end_object();
}

/// `part` of `whole` in percent; 0 of nothing.
fn percent(part: u64, whole: u64) -> impl Display {
    if whole == 0 { 0.0 } else { (part as f64 * 100.0 / whole as f64) as f32 }
}

/// What the template gets to see of `document`, which [`write()`] wrote.
///
/// # Errors
/// The document is no JSON object.
pub fn context(document: &[u8]) -> serde_json::Result<Map<String, Value>> {
    let mut members = serde_json::from_slice(document)?;
    withhold_unsafe_links(&mut members);
    Ok(members)
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{Health, Mirror, MirrorSettings, MirrorState};
    use serde_json::json;
    use time::{Date, Month};

    use super::*;

    fn mirror(id: u32, http_url: &str, enabled: bool, up: [bool; 2]) -> Mirror {
        let health = |up, down_reason: &str| Health { up, down_reason: down_reason.to_owned() };
        let settings = MirrorSettings {
            name: format!("m{id}"),
            http_url: http_url.into(),
            admin_email: "secret".into(),
            ..MirrorSettings::default()
        };
        let state = MirrorState {
            enabled,
            http: health(up[0], "HTTP 500"),
            https: health(up[1], ""),
            ..MirrorState::default()
        };
        Mirror { id: MirrorId(id), settings, state }
    }

    fn document(mirrors: Vec<Mirror>, counted: Option<&Counted>, expose_private: bool) -> Value {
        let mut out = Vec::new();
        let mut json = JsonWriter::new(&mut out, false);
        write(&mut json, &MirrorTable::new(mirrors), counted, Timestamp(0), expose_private, "");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn states_are_told_with_their_reasons() {
        let both = "m/";
        let list = vec![
            mirror(5, "https://m/", true, [false, false]),
            mirror(4, both, true, [false, true]),
            mirror(3, both, true, [false, false]),
            mirror(2, "http://m/", true, [true, false]),
            mirror(1, "https://m/", false, [false, false]),
        ];
        let document = document(list, None, false);
        let told = |member: &str| -> Vec<Value> {
            document["MirrorList"].as_array().unwrap().iter().map(|mirror| mirror[member].clone()).collect()
        };
        assert_eq!(told("State"), ["disabled", "up", "down", "up", "down"]);
        assert_eq!(
            told("DownReason"),
            [json!(null), json!(null), json!("HTTP 500 / Down"), json!(null), json!("Down")]
        );
        assert_eq!(told("AbsoluteURL"), ["https://m/", "http://m/", "https://m/", "https://m/", "https://m/"]);
        assert_eq!(told("AdminEmail"), [""; 5]);
        assert_eq!(document["Today"], json!(null), "without counts nothing is said of them");
    }

    #[test]
    fn private_fields_are_shown_on_request() {
        let shown = document(vec![mirror(1, "m/", true, [true; 2])], None, true);
        assert_eq!(shown["MirrorList"][0]["AdminEmail"], "secret");
    }

    #[test]
    fn shares_are_those_of_the_mirrors_shown() {
        let traffic = |parts: [(u32, u64); 3]| {
            parts.map(|(id, requests)| (MirrorId(id), Traffic { requests, bytes: requests * 10 })).into()
        };
        let counted = Counted {
            day: Date::from_calendar_date(2026, Month::March, 7).unwrap(),
            // The third one has been removed.
            today: traffic([(1, 3), (2, 1), (3, 96)]),
            month: traffic([(1, 10), (2, 0), (3, 0)]),
            total: BTreeMap::new(),
        };
        let list = vec![mirror(1, "a/", true, [true; 2]), mirror(2, "b/", true, [true; 2])];
        let document = document(list, Some(&counted), false);
        assert_eq!(document["Today"], json!({"Period": "2026-03-07", "Downloads": 4, "Bytes": 40}));
        assert_eq!(document["Month"]["Period"], "2026-03");
        assert_eq!(
            document["MirrorList"][0]["Today"],
            json!({"Downloads": 3, "DownloadsShare": 75, "Bytes": 30, "BytesShare": 75})
        );
        assert_eq!(document["MirrorList"][1]["Month"]["DownloadsShare"], 0);
        assert_eq!(document["MirrorList"][1]["Total"]["BytesShare"], 0, "of nothing");
    }
}
