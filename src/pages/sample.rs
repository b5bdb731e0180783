//! Documents that templates are tried on before they are used.
//!
//! The full ones have every member that there can be, so that a member that is missing is a misspelled one. The bare ones
//! have what is always there.

use std::collections::BTreeMap;

use mb_core::mirror::{AllowRedirects, Health, Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::store::Traffic;
use mb_core::time::Timestamp;
use serde_json::{Map, Value, json};
use time::{Date, Month};

use super::traffic::Counted;
use super::{Page, mirror_statistics};
use crate::http::json::JsonWriter;
use crate::select::MirrorTable;

/// When the samples are made: some time.
const NOW: Timestamp = Timestamp(1_795_305_600);

/// Every member that `page` may have.
pub fn full(page: Page) -> Value {
    let mut document = statistics(Some(&counted()));
    // The mirror that is down has all members.
    let complete = document["MirrorList"][0].clone();
    for mirror in document["MirrorList"].as_array_mut().into_iter().flatten().skip(1) {
        for (name, value) in complete.as_object().into_iter().flatten() {
            if mirror.get(name).is_none() {
                mirror[name] = value.clone();
            }
        }
    }
    match page {
        Page::MirrorStatistics => document,
        Page::MirrorList => {
            let mut mirrors = document["MirrorList"].take();
            for mirror in mirrors.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                let other = ["State", "DownReason", "TimezoneOffset", "Today", "Month", "Total"];
                mirror.retain(|name, _| !other.contains(&name.as_str()));
                let more = json!({"Distance": 12.5, "ComputedScore": 7, "Weight": 62.5, "ExcludeReason": "Down"});
                mirror.extend(more.as_object().cloned().unwrap_or_default());
            }
            list(mirrors.clone(), Some(mirrors))
        }
    }
}

/// What `page` always has.
pub fn bare(page: Page) -> Value {
    match page {
        Page::MirrorStatistics => statistics(None),
        Page::MirrorList => list(json!([]), None),
    }
}

fn list(mirrors: Value, excluded: Option<Value>) -> Value {
    let mut document = json!({
        "FileInfo": {"Path": "/pool/sample.iso", "Size": 1_610_612_736_u64, "ModTime": "2026-11-22T11:30:31.5Z"},
        "IP": "192.0.2.1",
        "ClientInfo": {
            "CountryCode": "FR", "ContinentCode": "EU", "City": "Paris", "Country": "France", "Latitude": 48.9,
            "Longitude": 2.4, "ASName": "Sample", "ASNum": 64496,
        },
        "MirrorList": mirrors,
        "LocalJSPath": "",
        "URLPath": "pool/sample.iso",
        "Time": "2026-11-22T12:00:00Z",
    });
    if let Some(excluded) = excluded {
        document["ExcludedList"] = excluded;
        document["Fallback"] = json!(true);
        for (hash, digits) in [("Sha1", 40), ("Sha256", 64), ("Md5", 32)] {
            document["FileInfo"][hash] = json!("0".repeat(digits));
        }
    }
    document
}

fn statistics(counted: Option<&Counted>) -> Value {
    let mut out = Vec::new();
    let mirrors = MirrorTable::new(mirrors());
    mirror_statistics::write(&mut JsonWriter::new(&mut out, false), &mirrors, counted, NOW, true, "");
    mirror_statistics::context(&out).map_or_else(|_| Value::Object(Map::new()), Value::Object)
}

/// One that is down, one that is up, and one that is disabled.
fn mirrors() -> Vec<Mirror> {
    let mirror = |id, name: &str, enabled, reason: &str| Mirror {
        id: MirrorId(id),
        settings: MirrorSettings {
            name: name.to_owned(),
            http_url: "mirror.example/pub/".to_owned(),
            sponsor_name: "Sponsor".to_owned(),
            sponsor_url: "https://sponsor.example/".to_owned(),
            country_codes: "FR BE".to_owned(),
            allow_redirects: AllowRedirects::Allowed,
            ..MirrorSettings::default()
        },
        state: MirrorState {
            enabled,
            http: Health { up: reason.is_empty(), down_reason: reason.to_owned() },
            https: Health { up: reason.is_empty(), down_reason: reason.to_owned() },
            since: Timestamp(NOW.0 - 7200),
            ..MirrorState::default()
        },
    };
    vec![mirror(1, "a", true, "HTTP status 500"), mirror(2, "b", true, ""), mirror(3, "c", false, "")]
}

fn counted() -> Counted {
    let traffic: BTreeMap<_, _> =
        (1..=3).map(|id| (MirrorId(id), Traffic { requests: u64::from(id), bytes: 4096 })).collect();
    let day = Date::from_calendar_date(2026, Month::November, 22).unwrap_or(Date::MIN);
    Counted { day, today: traffic.clone(), month: traffic.clone(), total: traffic }
}

/// Names of all members of `value` and of what it holds.
#[cfg(test)]
pub fn members(value: &Value) -> std::collections::BTreeSet<String> {
    match value {
        Value::Object(object) => {
            let own = object.keys().cloned();
            own.chain(object.values().flat_map(members)).collect()
        }
        Value::Array(elements) => elements.iter().flat_map(members).collect(),
        _ => std::collections::BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_member() {
        let manual = include_str!("../../docs/templates.md");
        for page in Page::ALL {
            for member in members(&full(page)) {
                assert!(manual.contains(&format!("`{member}`")), "docs/templates.md does not tell of {member}");
            }
        }
    }

    #[test]
    fn bare_documents_lack_what_may_be_missing() {
        for (page, missing) in [(Page::MirrorList, "Fallback"), (Page::MirrorStatistics, "Today")] {
            assert!(members(&full(page)).contains(missing) && !members(&bare(page)).contains(missing), "{missing}");
            assert!(members(&full(page)).is_superset(&members(&bare(page))));
        }
    }
}
