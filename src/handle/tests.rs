//! Answers from small indexes that are built, published and opened as the real ones are.

use std::collections::HashSet;
use std::sync::Arc;

use mb_core::config::{self, OutdatedRule};
use mb_core::geo::GeoDatabase;
use mb_core::mirror::{Health, Mirror, MirrorId, MirrorSettings, MirrorState};
use mb_core::store::FileHashes;
use mb_core::time::FileTime;
use mb_index::{Exception, FileRecord, FilesBuilder, Publisher, open_newest_files, open_newest_mirrors};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::http::request::{Parsed, parse};
use crate::pages::{Page, sample};
use crate::select::MirrorTable;

const DATE: &[u8; 29] = b"Sun, 22 Nov 2026 12:00:00 GMT";
const SOURCE_TIME: i64 = 1_700_000_000;

/// A mirror's copy of the one file `/file.iso`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum CopyOf {
    Absent,
    Same,
    OtherSize,
    /// Older by this many minutes.
    Older(u32),
}

fn mirror(id: u32, url: &str) -> Mirror {
    Mirror {
        id: MirrorId(id),
        settings: MirrorSettings {
            name: format!("m{id}"),
            http_url: url.to_owned(),
            country_codes: ["FR", "US", "JP"][id as usize % 3].to_owned(),
            latitude: [48.9, 40.7, 35.7][id as usize % 3],
            longitude: [2.4, -74.0, 139.7][id as usize % 3],
            ..MirrorSettings::default()
        },
        state: MirrorState {
            enabled: true,
            http: Health { up: true, down_reason: String::new() },
            https: Health { up: true, down_reason: String::new() },
            last_successful_sync_precision_ns: 1_000_000_000,
            ..MirrorState::default()
        },
    }
}

fn snapshot(mirrors: &[Mirror], copies: &[CopyOf], settings: Settings) -> Snapshot {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<_> = mirrors.iter().map(|mirror| mirror.id).collect();
    let mut builder = FilesBuilder::new(&ids, false);
    let mut words = vec![0; builder.set_words()];
    let mut exceptions = Vec::new();
    for (ordinal, copy) in copies.iter().enumerate() {
        let at = |minutes: u32| Some(FileTime::from_seconds(SOURCE_TIME - i64::from(minutes) * 60));
        let exception = |size, modified| Exception { mirror: ordinal as u32, size, modified };
        match *copy {
            CopyOf::Absent => {}
            CopyOf::Same => words[ordinal / 64] |= 1 << (ordinal % 64),
            CopyOf::OtherSize => exceptions.push(exception(99, at(0))),
            CopyOf::Older(minutes) => exceptions.push(exception(100, at(minutes))),
        }
    }
    let set = builder.intern_set(&words);
    let hashes = FileHashes { sha256: Some([0xAB; 32]), ..FileHashes::default() };
    let modified = FileTime::from_seconds(SOURCE_TIME);
    builder
        .push_file(FileRecord { path: b"/file.iso", size: 100, modified, hashes, set, exceptions: &exceptions })
        .unwrap();
    builder.push_alias(b"/latest", b"/file.iso").unwrap();
    builder.push_forbidden(b"/outside").unwrap();
    Publisher::new(folder.path()).lock().unwrap().publish(Some(&builder.finish()), mirrors).unwrap();
    let files = open_newest_files(folder.path()).index.unwrap();
    let table = MirrorTable::new(open_newest_mirrors(folder.path()).index.unwrap().mirrors());
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/geo");
    let (geo, _) = GeoDatabase::load(&fixtures);
    Snapshot::new(Arc::new(settings), Some(Arc::new(files)), Arc::new(table), Arc::new(geo))
}

fn settings(text: &str) -> Settings {
    let text = format!("Repository: /srv\n{text}");
    Settings::from(&config::parse(&text, std::path::Path::new("test.conf")).unwrap().config)
}

fn ask(handler: &mut Handler, target: &str, fields: &str) -> String {
    String::from_utf8(ask_bytes(handler, target, fields)).unwrap()
}

fn ask_bytes(handler: &mut Handler, target: &str, fields: &str) -> Vec<u8> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let Parsed::Complete { request, .. } = parse(head.as_bytes()) else { panic!("{head}") };
    let mut out = Vec::new();
    let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: false };
    handler.handle(&request, Peer::Local, envelope, &mut out);
    out
}

/// The document of a mirror list, whose answer must be offloaded.
fn list(handler: &mut Handler, target: &str, fields: &str) -> String {
    assert_eq!(ask(handler, target, fields), "", "its answer is offloaded");
    let document = handler.take_document().expect("a document");
    String::from_utf8(document.write(target.contains("pretty"))).unwrap()
}

fn handler(mirrors: &[Mirror], copies: &[CopyOf], text: &str) -> Handler {
    Handler::new(Arc::new(snapshot(mirrors, copies, settings(text))), 7)
}

fn location(answer: &str) -> Option<&str> {
    answer.lines().find_map(|line| line.strip_prefix("Location: "))
}

const PARIS: &str = "X-Forwarded-For: 192.0.2.1\r\n";
const ACCEPT_JSON: &str = "Accept: application/json\r\n";

#[test]
fn a_redirect_byte_for_byte() {
    let mut handler = handler(&[mirror(3, "https://m3/pub/")], &[CopyOf::Same], "");
    let expected = format!(
        "HTTP/1.1 302 Found\r\nServer: Mirrorbits/{}\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nCache-Control: private, \
         no-cache\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 0\r\nLocation: \
         https://m3/pub/file.iso\r\nLink: <https://m3/pub/file.iso>; rel=duplicate; pri=1; geo=fr\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(ask(&mut handler, "/file.iso", PARIS), expected);
    assert_eq!(ask(&mut handler, "/latest", PARIS), expected, "a link leads to its target");
}

#[test]
fn what_is_not_a_file_is_told_apart() {
    let mut handler = handler(&[mirror(3, "m3/")], &[CopyOf::Same], "");
    let status = |handler: &mut Handler, target: &str| ask(handler, target, "")[9..12].to_owned();
    assert_eq!(status(&mut handler, "/none"), "404");
    assert_eq!(status(&mut handler, "/file.iso/"), "404");
    assert_eq!(status(&mut handler, "/%00"), "404");
    assert_eq!(status(&mut handler, "/%zz"), "400");
    assert_eq!(status(&mut handler, "/"), "503");
    assert_eq!(status(&mut handler, "/outside"), "403");
    assert_eq!(status(&mut handler, "/outside/passwd"), "403");
    assert_eq!(location(&ask(&mut handler, "/a/..//file.iso?md5", "")), Some("/file.iso?md5"));
    assert!(ask(&mut handler, "/file.iso?sha256", "").ends_with(&format!("{}  file.iso", "ab".repeat(32))));
    assert!(ask(&mut handler, "/file.iso?md5", "").contains("404 Not Found"));
}

/// The outcome of `METHOD /target` with more header fields, and the path that it led to.
fn outcome(handler: &mut Handler, method: &str, target: &str, fields: &str) -> (Outcome, String) {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{PARIS}{fields}\r\n");
    let Parsed::Complete { request, .. } = parse(head.as_bytes()) else { panic!("{head}") };
    let envelope = Envelope { date: DATE, persistence: request.persistence, head_only: method == "HEAD" };
    let outcome = handler.handle(&request, Peer::Local, envelope, &mut Vec::new());
    let path = String::from_utf8_lossy(handler.path(&outcome)).into_owned();
    (outcome, path)
}

#[test]
fn outcomes_tell_what_was_answered() {
    let mut handler = handler(&[mirror(3, "https://m3/")], &[CopyOf::Same], "");
    let (redirect, path) = outcome(&mut handler, "GET", "/latest", "");
    assert_eq!((redirect.kind, redirect.status.code(), path.as_str()), (Kind::Redirect, 302, "/file.iso"));
    assert_eq!(redirect.download(), Some((File { row: 0, size: 100 }, 0)));
    assert!(matches!(redirect.chosen, Chosen::Mirror { row: 0, distance } if distance < 10.0), "{redirect:?}");
    assert_eq!(redirect.client.map(|client| client.address.to_string()), Some("192.0.2.1".to_owned()));

    let since = "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT\r\n";
    for (method, target, fields, kind, status) in [
        ("HEAD", "/file.iso", "", Kind::Redirect, 302),
        ("GET", "/file.iso", "Accept: application/json\r\n", Kind::Json, 200),
        ("GET", "/file.iso?mirrorlist", "Accept: application/json\r\n", Kind::MirrorList, 200),
        ("GET", "/file.iso?mirrorlist", "", Kind::MirrorListPage, 200),
        ("GET", "/none?mirrorlist", "", Kind::Refusal, 404),
        ("GET", "/any?mirrorstats", "", Kind::MirrorStatistics, 200),
        ("GET", "/file.iso", since, Kind::NotModified, 304),
        ("GET", "/file.iso?sha256", "", Kind::Checksum, 200),
        ("GET", "/file.iso?md5", "", Kind::Refusal, 404),
        ("GET", "/file.iso?stats=2026-11", "", Kind::FileStatistics, 200),
        ("GET", "/file.iso?stats=today", "", Kind::Refusal, 400),
        ("GET", "/?stats", "", Kind::Refusal, 404),
        ("GET", "/x/../file.iso", "", Kind::CleanPath, 301),
        ("OPTIONS", "/", "", Kind::Options, 204),
        ("POST", "/file.iso", "", Kind::Refusal, 405),
        ("GET", "/", "", Kind::Refusal, 503),
        ("GET", "/none", "", Kind::Refusal, 404),
    ] {
        let (outcome, _) = outcome(&mut handler, method, target, fields);
        assert_eq!((outcome.kind, outcome.status.code()), (kind, status), "{method} {target}");
        assert_eq!(outcome.download(), None, "{method} {target}");
    }
}

#[test]
fn a_fallback_is_no_download() {
    let fallbacks = "Fallbacks:\n - URL: https://far/\n   CountryCode: JP\n - URL: https://near/\n   CountryCode: FR\n";
    let mut handler = handler(&[mirror(3, "m3/")], &[CopyOf::OtherSize], fallbacks);
    for (target, path) in [("/latest", "/file.iso"), ("/", "/")] {
        let (outcome, reported) = outcome(&mut handler, "GET", target, "");
        assert_eq!((outcome.kind, outcome.chosen), (Kind::Redirect, Chosen::Fallback(1)), "{target}");
        assert_eq!((outcome.download(), reported.as_str()), (None, path));
    }
}

#[test]
fn an_unmodified_file_is_a_304() {
    let mut handler = handler(&[mirror(3, "m3/")], &[CopyOf::Same], "");
    let since = |seconds: i64| {
        let date = http_date(seconds);
        format!("If-Modified-Since: {}\r\n", String::from_utf8_lossy(&date))
    };
    let answer = ask(&mut handler, "/file.iso", &since(SOURCE_TIME));
    assert!(answer.starts_with("HTTP/1.1 304") && answer.contains("Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT"));
    assert!(ask(&mut handler, "/file.iso", &since(SOURCE_TIME - 1)).starts_with("HTTP/1.1 302"));
    assert!(ask(&mut handler, "/file.iso", "If-Modified-Since: soon\r\n").starts_with("HTTP/1.1 302"));
}

#[test]
fn a_swapped_snapshot_changes_the_answer_although_the_caches_were_warm() {
    let mut mirrors = [mirror(3, "https://m3/"), mirror(4, "https://m4/")];
    let mut handler = handler(&mirrors, &[CopyOf::Same; 2], "");
    assert_eq!(location(&ask(&mut handler, "/file.iso", PARIS)), Some("https://m3/file.iso"));
    mirrors[0].state.enabled = false;
    handler.adopt(Arc::new(snapshot(&mirrors, &[CopyOf::Same; 2], settings(""))));
    assert_eq!(location(&ask(&mut handler, "/file.iso", PARIS)), Some("https://m4/file.iso"));
}

#[test]
fn private_fields_are_shown_on_request_only() {
    let mut secret = mirror(3, "https://m3/");
    secret.settings.rsync_url = "rsync://user:secret@m3/".to_owned();
    secret.settings.comment = "secret".to_owned();
    let json =
        |text: &str| list(&mut handler(&[secret.clone()], &[CopyOf::Same], text), "/file.iso?mirrorlist", ACCEPT_JSON);
    assert!(!json("").contains("secret"));
    // A login is for the indexer alone.
    assert!(
        json("ExposePrivateFields: true").contains("\"rsync://m3/\"")
            && !json("ExposePrivateFields: true").contains(":secret@")
    );
}

/// A page is made of the very document that a client of JSON gets, and of nothing that its sample lacks.
#[test]
fn a_page_gets_the_document_of_the_list() {
    let fallbacks = "Fallbacks:\n - URL: https://far/\n";
    for (copies, config) in [([CopyOf::Same, CopyOf::OtherSize], ""), ([CopyOf::OtherSize; 2], fallbacks)] {
        let mut handler = handler(&[mirror(3, "m3/"), mirror(4, "m4/")], &copies, config);
        let document = list(&mut handler, "/file.iso?mirrorlist", PARIS);
        let json = list(&mut handler, "/file.iso?mirrorlist", &format!("{PARIS}{ACCEPT_JSON}"));
        assert_eq!(json, document);
        let document = serde_json::from_str(&document).unwrap();
        let known = sample::members(&sample::full(Page::MirrorList));
        assert!(sample::members(&document).is_subset(&known), "{document}");
    }
}

#[test]
fn documents_are_compressed_where_both_sides_agree() {
    let mut handler = handler(&[mirror(3, "m3/")], &[CopyOf::Same], "Gzip: true");
    let plain = ask(&mut handler, "/file.iso", ACCEPT_JSON);
    let packed = ask_bytes(&mut handler, "/file.iso", &format!("{ACCEPT_JSON}Accept-Encoding: gzip\r\n"));
    let end = memchr::memmem::find(&packed, b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&packed[..end]).into_owned();
    assert!(
        head.contains("Content-Encoding: gzip") && head.contains(&format!("Content-Length: {}", packed.len() - end))
    );
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[end..]), &mut unpacked).unwrap();
    assert_eq!(Some(unpacked.as_str()), plain.split("\r\n\r\n").nth(1));
}

/// A document that the shard does not write itself is the one that it would write.
#[test]
fn long_documents_are_offloaded_and_tell_the_same() {
    let mirrors: Vec<_> = (1..=200).map(|id| mirror(id, &format!("https://m{id}/"))).collect();
    // Those that have another file are listed with the reason.
    let copies: Vec<_> = (1..=200).map(|id| if id <= 5 { CopyOf::Same } else { CopyOf::OtherSize }).collect();
    let (mut short, mut long) = (handler(&mirrors[..8], &copies[..8], ""), handler(&mirrors, &copies, ""));
    let fields = format!("{PARIS}{ACCEPT_JSON}");
    let answer = ask(&mut short, "/file.iso", &fields);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for target in ["/file.iso", "/file.iso?pretty"] {
        let (outcome, _) = outcome(&mut long, "GET", target, ACCEPT_JSON);
        assert_eq!((outcome.kind, outcome.status, outcome.is_offloaded), (Kind::Json, Status::Ok, true));
        assert!(matches!(outcome.chosen, Chosen::Mirror { row: 0..5, .. }), "{outcome:?}");
        let document: Value = serde_json::from_str(&list(&mut long, target, &fields)).unwrap();
        let (listed, excluded) = (&document["MirrorList"], document["ExcludedList"].as_array().unwrap());
        assert_eq!((excluded.len(), &excluded[194]["ID"]), (195, &Value::from(200)));
        assert_eq!(excluded[0]["ExcludeReason"], "File size mismatch");
        // The first of them is who was chosen and is logged; whom the draw takes first differs.
        assert!(listed[0]["ID"].as_u64().is_some_and(|id| id <= 5), "{listed}");
        assert_eq!(document["IP"], "192.0.2.1");
    }
    let short: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let long: Value = serde_json::from_str(&list(&mut long, "/file.iso", &fields)).unwrap();
    for part in ["FileInfo", "ClientInfo", "LocalJSPath"] {
        assert_eq!(short[part], long[part]);
    }
    assert_eq!(short["ExcludedList"][0], long["ExcludedList"][0]);
}

/// What waits to be written keeps its snapshot, and no longer.
#[test]
fn a_written_list_leaves_its_snapshot_to_others() {
    let mut handler = handler(&[mirror(3, "https://m3/")], &[CopyOf::Same], "");
    let old = Arc::downgrade(handler.snapshot());
    assert_eq!(ask(&mut handler, "/file.iso?mirrorlist", ACCEPT_JSON), "");
    let document = handler.take_document().unwrap();
    handler.adopt(Arc::new(snapshot(&[], &[], settings(""))));
    assert_eq!(old.strong_count(), 1, "the list speaks of it");
    assert!(String::from_utf8(document.write(false)).unwrap().contains("https://m3/"));
    assert_eq!(old.strong_count(), 0);
}

#[test]
fn fallbacks_answer_when_nobody_may() {
    let text = "Fallbacks:\n - URL: https://far/\n   CountryCode: JP\n - URL: near/\n   CountryCode: FR\n";
    let mut handler = handler(&[mirror(3, "m3/")], &[CopyOf::OtherSize], text);
    for target in ["/file.iso", "/"] {
        let answer = ask(&mut handler, target, PARIS);
        assert!(location(&answer).unwrap().starts_with("https://near/"), "{answer}");
    }
    let answer = ask(&mut handler, "/file.iso", &format!("{PARIS}Accept: application/json\r\n"));
    let document: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(document["Fallback"], true);
    assert_eq!(document["MirrorList"][0]["Name"], "fallback1");
    assert_eq!(document["MirrorList"][0]["ID"], -1);
    let elsewhere = list(&mut handler, "/file.iso?mirrorlist&fromip=192.0.2.161", &format!("{PARIS}{ACCEPT_JSON}"));
    let document: Value = serde_json::from_str(&elsewhere).unwrap();
    assert_eq!((&document["IP"], &document["MirrorList"][0]["Name"]), (&"192.0.2.161".into(), &"fallback0".into()));
    assert!(ask(&mut handler, "/?mirrorlist&fromip=nowhere", PARIS).starts_with("HTTP/1.1 400 "));
}

fn any_copy() -> impl Strategy<Value = CopyOf> {
    prop_oneof![Just(CopyOf::Absent), Just(CopyOf::Same), Just(CopyOf::OtherSize), (1u32..200).prop_map(CopyOf::Older)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The promise of the whole program, on the level of one request: whoever asks and whatever is cached, only a
    /// mirror that has this very file, or an older one that a rule allows, is named.
    #[test]
    fn only_mirrors_that_have_the_file_are_named(
        copies in prop::collection::vec(any_copy(), 1..80), outdated in prop::option::of(0u32..200), seed: u64
    ) {
        let mirrors: Vec<_> = (1..=copies.len() as u32).map(|id| mirror(id, &format!("https://m{id}/"))).collect();
        let mut settings = settings("");
        if let Some(minutes) = outdated {
            settings.rules.allow_outdated_files.push(OutdatedRule { prefix: "/file".to_owned(), minutes });
        }
        let right: HashSet<String> = mirrors
            .iter()
            .zip(&copies)
            .filter(|(_, copy)| match (copy, outdated) {
                (CopyOf::Same, _) => true,
                (CopyOf::OtherSize, Some(_)) => true,
                (CopyOf::Older(age), Some(minutes)) => *age <= minutes,
                _ => false,
            })
            .map(|(mirror, _)| format!("{}file.iso", mirror.settings.http_url))
            .collect();
        let mut handler = Handler::new(Arc::new(snapshot(&mirrors, &copies, settings)), seed);
        for client in ["192.0.2.1", "192.0.2.97", "192.0.2.161", "203.0.113.40", "10.0.0.1"] {
            for _ in 0..8 {
                let answer = ask(&mut handler, "/file.iso", &format!("X-Forwarded-For: {client}\r\n"));
                let named: HashSet<String> = answer
                    .lines()
                    .filter_map(|line| line.strip_prefix("Location: ").or_else(|| {
                        line.strip_prefix("Link: <").and_then(|link| link.split('>').next())
                    }))
                    .map(str::to_owned)
                    .collect();
                prop_assert!(named.is_subset(&right), "{answer}");
                prop_assert_eq!(named.is_empty(), right.is_empty(), "{}", answer);
            }
        }
    }

    /// A list of fallbacks takes the place of one of mirrors just when none of these may answer: the shard decides that by a
    /// draw, and another thread evaluates all mirrors.
    #[test]
    fn fallbacks_are_listed_just_when_no_mirror_may_answer(
        copies in prop::collection::vec(any_copy(), 1..40), outdated in prop::option::of(0u32..200), http: bool
    ) {
        let mirrors: Vec<_> = (1..=copies.len() as u32).map(|id| mirror(id, &format!("https://m{id}/"))).collect();
        let mut settings = settings("Fallbacks: [{URL: 'https://last/'}, {URL: 'http://last/'}]");
        if let Some(minutes) = outdated {
            settings.rules.allow_outdated_files.push(OutdatedRule { prefix: "/file".to_owned(), minutes });
        }
        let without = Settings { fallbacks: Vec::new(), ..settings.clone() };
        let mut handlers = [settings, without].map(|settings| {
            Handler::new(Arc::new(snapshot(&mirrors, &copies, settings)), 1)
        });
        for client in ["192.0.2.1", "192.0.2.161", "203.0.113.40", "10.0.0.1"] {
            for target in ["/file.iso?mirrorlist", "/file.iso?mirrorlist&fromip=192.0.2.97"] {
                let proto = if http { "X-Forwarded-Proto: http\r\n" } else { "" };
                let fields = format!("X-Forwarded-For: {client}\r\n{ACCEPT_JSON}{proto}");
                let [listed, evaluated] = handlers.each_mut().map(|handler| list(handler, target, &fields));
                let evaluated: Value = serde_json::from_str(&evaluated).unwrap();
                let is_empty = evaluated["MirrorList"].as_array().unwrap().is_empty();
                let listed: Value = serde_json::from_str(&listed).unwrap();
                prop_assert_eq!(listed["Fallback"].as_bool(), is_empty.then_some(true), "{}", listed);
                if !is_empty {
                    prop_assert_eq!(listed, evaluated);
                }
            }
        }
    }

    #[test]
    fn no_target_makes_it_panic(target in "[/a-z.%?=&0-9]{1,40}") {
        let mut handler = handler(&[mirror(3, "m3/")], &[CopyOf::Same], "");
        ask(&mut handler, &format!("/{target}"), "");
    }
}
