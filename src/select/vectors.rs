//! The recorded answers of Mirrorbits 0.6.1, all of them.
//!
//! The reference gives the bonus for a shared autonomous system also when both numbers are 0, that is unknown; we do not.
//! To compare the scores all the same, the number 0 is replaced on both sides by one that nobody has: mirror and client
//! then share it as they do in the reference.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use mb_core::config::OutdatedRule;
use mb_core::geo::GeoDatabase;
use mb_core::mirror::{Health, Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::time::FileTime;
use serde::Deserialize;
use serde_json::Value;

use super::distance::{Point, Position, kilometres};
use super::filter::{FileCopy, Source, Wanted};
use super::score::Query;
use super::{Client, Code, Evaluation, MirrorTable, Rules};

const NOBODY_S_ASN: u32 = u32::MAX;

#[derive(Deserialize)]
struct Group {
    config: Value,
    scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    id: u32,
    path: String,
    size: u64,
    mtime: i64,
    mirrors: Vec<Recorded>,
    queries: Vec<RecordedQuery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Recorded {
    #[serde(rename = "ID")]
    id: u32,
    name: String,
    #[serde(rename = "HttpURL")]
    http_url: String,
    score: i32,
    latitude: f32,
    longitude: f32,
    continent_code: String,
    country_codes: String,
    excluded_country_codes: String,
    asnum: u32,
    enabled: bool,
    http_up: bool,
    https_up: bool,
    http_down_reason: String,
    https_down_reason: String,
    continent_only: bool,
    country_only: bool,
    #[serde(rename = "ASOnly")]
    as_only: bool,
    #[serde(rename = "TZOffsetMs")]
    tz_offset_ms: i64,
    precision_ns: u64,
    copy: RecordedCopy,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RecordedCopy {
    size: u64,
    mod_time: Option<i64>,
}

#[derive(Deserialize)]
struct RecordedQuery {
    fromip: String,
    https: Option<String>,
    #[serde(default)]
    xfp: Option<String>,
    expect: Value,
}

impl Recorded {
    fn mirror(&self) -> Mirror {
        Mirror {
            id: MirrorId(self.id),
            settings: MirrorSettings {
                name: self.name.clone(),
                http_url: self.http_url.clone(),
                score: self.score,
                latitude: self.latitude,
                longitude: self.longitude,
                continent_code: self.continent_code.clone(),
                country_codes: self.country_codes.clone(),
                excluded_country_codes: self.excluded_country_codes.clone(),
                asn: if self.asnum == 0 { NOBODY_S_ASN } else { self.asnum },
                continent_only: self.continent_only,
                country_only: self.country_only,
                as_only: self.as_only,
                ..MirrorSettings::default()
            },
            state: MirrorState {
                enabled: self.enabled,
                http: Health { up: self.http_up, down_reason: self.http_down_reason.clone() },
                https: Health { up: self.https_up, down_reason: self.https_down_reason.clone() },
                timezone_offset_ms: self.tz_offset_ms,
                last_successful_sync_precision_ns: self.precision_ns,
                ..MirrorState::default()
            },
        }
    }
}

fn rules(config: &Value) -> (Rules, bool) {
    let outdated = config["AllowOutdatedFiles"].as_array().cloned().unwrap_or_default();
    let rules = Rules {
        weight_distribution_range: config["WeightDistributionRange"].as_f64().unwrap_or(1.5) as f32,
        fix_timezone_offsets: config["FixTimezoneOffsets"].as_bool().unwrap_or(false),
        allow_outdated_files: outdated
            .iter()
            .map(|rule| OutdatedRule {
                prefix: rule["Prefix"].as_str().unwrap().to_owned(),
                minutes: rule["Minutes"].as_u64().unwrap() as u32,
            })
            .collect(),
    };
    (rules, config["AllowHTTPToHTTPSRedirects"].as_bool().unwrap_or(true))
}

fn check(group: &Group, scenario: &Scenario, query: &RecordedQuery, geo: &GeoDatabase) {
    let (rules, allow_http_to_https) = rules(&group.config);
    let table = MirrorTable::new(scenario.mirrors.iter().map(Recorded::mirror).collect());
    let located = geo.locate(query.fromip.parse().unwrap());
    let (place, asn) = (located.place(), located.autonomous_system().number);
    let client = Client {
        country: Code::of(&place.country_code),
        continent: Code::of(&place.continent_code),
        asn: if asn == 0 { NOBODY_S_ASN } else { asn },
    };
    let here = Position::from(Point { latitude: place.latitude, longitude: place.longitude });
    let distances: Vec<f32> = table.rows().iter().map(|row| kilometres(&here, &row.position)).collect();
    let wanted = match (query.https.as_deref(), query.xfp.as_deref()) {
        (Some("1"), _) | (None, Some("https")) => Wanted::Https,
        (Some("0"), _) => Wanted::Http,
        (None, Some("http")) if !allow_http_to_https => Wanted::Http,
        _ => Wanted::Any,
    };
    let source = Source {
        size: scenario.size,
        modified: FileTime::from_seconds(scenario.mtime),
        outdated_minutes: rules.outdated_minutes(scenario.path.as_bytes()),
        fix_timezone_offsets: rules.fix_timezone_offsets,
    };
    let copies: HashMap<u32, FileCopy> = scenario
        .mirrors
        .iter()
        .map(|mirror| {
            let modified = mirror.copy.mod_time.map(FileTime::from_seconds);
            (mirror.id, FileCopy::Differs { size: mirror.copy.size, modified })
        })
        .collect();
    let candidates = table.rows().iter().enumerate().map(|(row, mirror)| (row as u32, copies[&mirror.mirror.id.0]));
    let mut evaluation = Evaluation::default();
    let range = rules.weight_distribution_range;
    let engine_query = Query { source, client, distances: &distances, wanted, weight_distribution_range: range };
    evaluation.evaluate(&table, &engine_query, candidates);
    compare(&format!("scenario {} from {}", scenario.id, query.fromip), &query.expect, &table, &evaluation);
}

fn compare(story: &str, expect: &Value, table: &MirrorTable, evaluation: &Evaluation) {
    let id = |row: u32| u64::from(table.row(row).mirror.id.0);
    if expect["status"] == 503 {
        assert!(evaluation.accepted.is_empty(), "{story}: nobody was to be accepted");
        return;
    }
    let expected = expect["accepted"].as_array().unwrap();
    let accepted = &evaluation.accepted;
    assert_eq!(expected.len(), accepted.len(), "{story}: accepted");
    if evaluation.located {
        let scores: Vec<_> = expected.iter().map(|mirror| mirror["ComputedScore"].as_i64().unwrap()).collect();
        assert_eq!(scores, accepted.iter().map(|accepted| accepted.score).collect::<Vec<_>>(), "{story}");
    }
    let by_id: HashMap<u64, &Value> = expected.iter().map(|mirror| (mirror["ID"].as_u64().unwrap(), mirror)).collect();
    for (place, accepted) in accepted.iter().enumerate() {
        let mirror = id(accepted.row);
        let expected = by_id.get(&mirror).unwrap_or_else(|| panic!("{story}: {mirror} was not to be accepted"));
        assert_eq!(expected["ComputedScore"].as_i64().unwrap(), accepted.score, "{story}: score of {mirror}");
        let url = table.row(accepted.row).url(accepted.protocol);
        assert_eq!(expected["AbsoluteURL"].as_str().unwrap(), url, "{story}: URL of {mirror}");
        let distance = expected["Distance"].as_f64().unwrap();
        let difference = (distance - f64::from(accepted.distance)).abs();
        assert!(difference <= distance * 1e-5, "{story}: distance of {mirror}: {distance} {}", accepted.distance);
        let weight = expected["Weight"].as_f64().unwrap();
        let ours = f64::from(evaluation.weight_percent(place));
        // The first of several mirrors may be another one of equal score, which then shows its weight.
        if evaluation.weighted > 1 || place == 0 {
            assert!((weight - ours).abs() <= 1e-3, "{story}: weight of {mirror}: {weight} {ours}");
        }
    }
    let reasons: HashSet<(u64, String)> = expect["excluded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mirror| (mirror["ID"].as_u64().unwrap(), mirror["ExcludeReason"].as_str().unwrap().to_owned()))
        .collect();
    let ours = evaluation.excluded.iter().map(|&(row, reason)| (id(row), reason.describe(table.row(row)).to_string()));
    assert_eq!(reasons, ours.collect::<HashSet<_>>(), "{story}: excluded");
}

#[test]
fn every_recorded_answer_is_reproduced() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (geo, errors) = GeoDatabase::load(&fixtures.join("geo"));
    assert!(errors.is_empty());
    let text = std::fs::read(fixtures.join("vectors/selection.json")).unwrap();
    let groups: Vec<Group> = serde_json::from_slice(&text).unwrap();
    let mut compared = 0;
    for group in &groups {
        for scenario in &group.scenarios {
            for query in &scenario.queries {
                check(group, scenario, query, &geo);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 360);
}
