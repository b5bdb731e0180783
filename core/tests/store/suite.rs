//! What every backend must do. Each case gets an empty store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mb_core::config::StatsRetention;
use mb_core::mirror::{
    AllowRedirects, DownloadProtocol, Health, Mirror, MirrorId, MirrorSettings, MirrorState, ScanProtocol,
};
use mb_core::store::{
    Counts, DateRange, FileDownloads, FileHashes, LOG_ENTRIES_KEPT, LeaseName, LogEntry, LogEvent, MirrorEdit, Period,
    SourceChanges, SourceEntry, SourceEntryKind, StatsBatch, Store, StoreError, SyncRecord, Traffic,
};
use mb_core::time::{FileTime, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use time::{Date, Month};

/// Makes a test of each case of the suite; `$with_store` calls its argument with an empty store.
macro_rules! store_suite {
    ($with_store:path) => {
        store_suite!(
            $with_store;
            a_new_store_is_empty,
            a_mirror_is_added_disabled_and_unchecked,
            settings_are_kept_as_they_are,
            names_are_unique,
            a_batch_of_mirrors_is_made_as_a_whole,
            a_batch_with_one_mistake_changes_nothing,
            ids_are_never_given_out_again,
            operations_on_unknown_mirrors_are_refused,
            enabling_is_a_change_once,
            health_changes_with_state_and_reason,
            each_protocol_has_its_own_health,
            scans_are_recorded,
            settings_and_state_do_not_touch_each_other,
            source_entries_of_every_kind_are_kept,
            source_entries_come_in_byte_order,
            source_changes_apply_as_to_a_map,
            logs_are_read_oldest_first,
            logs_keep_their_newest_entries,
            a_log_goes_with_its_mirror,
            old_counts_are_dropped,
            counts_are_added_up_by_day_month_and_year,
            a_batch_of_counts_is_added_once,
            counts_of_removed_mirrors_stay,
            a_lease_has_one_holder,
            a_lease_ends_by_itself
        );
    };
    ($with_store:path; $($case:ident),*) => {
        mod suite {
            $(#[test]
            fn $case() {
                $with_store(crate::suite::$case);
            })*
        }
    };
}

const MORNING: Timestamp = Timestamp(1_700_000_000);
const NOON: Timestamp = Timestamp(1_700_020_000);

pub(crate) fn settings(name: &str) -> MirrorSettings {
    MirrorSettings { name: name.to_owned(), http_url: format!("https://{name}.example/"), ..MirrorSettings::default() }
}

fn add(store: &dyn Store, name: &str) -> MirrorId {
    store.add_mirror(&settings(name)).expect("added")
}

pub(crate) fn mirror(store: &dyn Store, id: MirrorId) -> Mirror {
    store.mirrors().expect("read").into_iter().find(|mirror| mirror.id == id).expect("the mirror exists")
}

pub(crate) fn entries(store: &dyn Store) -> Vec<SourceEntry> {
    let mut entries = Vec::new();
    store.source_entries(&mut |entry| entries.push(entry)).expect("read");
    entries
}

pub(crate) fn file(path: impl Into<Vec<u8>>, size: u64) -> SourceEntry {
    let kind = SourceEntryKind::File {
        size,
        modified: FileTime(1_700_000_000_123_456_789),
        hashes: FileHashes { sha1: None, sha256: Some([size as u8; 32]), md5: None },
    };
    SourceEntry { path: path.into(), kind }
}

fn upsert(store: &dyn Store, upserts: Vec<SourceEntry>) {
    store.apply_source_changes(&SourceChanges { upserts, removals: Vec::new() }).expect("applied");
}

fn is_unknown<T: std::fmt::Debug>(outcome: Result<T, StoreError>, id: MirrorId) -> bool {
    matches!(outcome, Err(StoreError::UnknownMirror(unknown)) if unknown == id)
}

pub(crate) fn a_new_store_is_empty(store: &dyn Store) {
    assert_eq!(store.mirrors().expect("read"), []);
    assert_eq!(entries(store), []);
    assert_eq!(store.mirror_log(MirrorId(1), 10).expect("read"), []);
}

pub(crate) fn a_mirror_is_added_disabled_and_unchecked(store: &dyn Store) {
    let (first, second) = (add(store, "first"), add(store, "second"));
    assert!(first < second && first.0 > 0);
    let mirrors = store.mirrors().expect("read");
    assert_eq!(mirrors.iter().map(|mirror| mirror.id).collect::<Vec<_>>(), [first, second]);
    assert!(mirrors.iter().all(|mirror| mirror.state == MirrorState::default()));
}

pub(crate) fn settings_are_kept_as_they_are(store: &dyn Store) {
    let full = MirrorSettings {
        name: "mirror.example".to_owned(),
        http_url: "mirror.example/pub/".to_owned(),
        rsync_url: "rsync://user:pass@mirror.example/pub/".to_owned(),
        ftp_url: "ftp://mirror.example/pub/".to_owned(),
        sponsor_name: "Café \u{1f600} 'quoted' \"twice\"".to_owned(),
        sponsor_url: "https://sponsor.example/".to_owned(),
        sponsor_logo_url: "https://sponsor.example/logo.png".to_owned(),
        admin_name: "A. Admin".to_owned(),
        admin_email: "admin@mirror.example".to_owned(),
        custom_data: "{\"a\": 1}".to_owned(),
        continent_only: true,
        country_only: true,
        as_only: true,
        score: -100,
        latitude: -33.8688,
        longitude: 151.2093,
        continent_code: "OC".to_owned(),
        country_codes: "AU NZ".to_owned(),
        excluded_country_codes: "FR".to_owned(),
        asn: u32::MAX,
        comment: "two\nlines\n".to_owned(),
        allow_redirects: AllowRedirects::Disallowed,
    };
    let id = store.add_mirror(&full).expect("added");
    assert_eq!(mirror(store, id).settings, full);
    for allow_redirects in [AllowRedirects::Allowed, AllowRedirects::Default] {
        let changed = MirrorSettings { allow_redirects, score: i32::MAX, latitude: 0.1, ..settings("renamed") };
        store.update_settings(id, &changed).expect("updated");
        assert_eq!(mirror(store, id).settings, changed);
    }
}

pub(crate) fn names_are_unique(store: &dyn Store) {
    let id = add(store, "one");
    add(store, "two");
    assert!(matches!(store.add_mirror(&settings("one")), Err(StoreError::NameTaken)));
    assert!(matches!(store.update_settings(id, &settings("two")), Err(StoreError::NameTaken)));
    assert_eq!(mirror(store, id).settings, settings("one"));
    store.update_settings(id, &MirrorSettings { score: 1, ..settings("one") }).expect("a mirror may keep its name");
    store.remove_mirror(id).expect("removed");
    add(store, "one");
}

pub(crate) fn ids_are_never_given_out_again(store: &dyn Store) {
    add(store, "one");
    let second = add(store, "two");
    store.remove_mirror(second).expect("removed");
    let third = add(store, "two");
    assert!(third > second);
    for mirror in store.mirrors().expect("read") {
        store.remove_mirror(mirror.id).expect("removed");
    }
    assert!(add(store, "four") > third);
}

pub(crate) fn operations_on_unknown_mirrors_are_refused(store: &dyn Store) {
    let known = add(store, "known");
    let id = MirrorId(known.0 + 7);
    let sync = SyncRecord {
        started: MORNING,
        protocol: ScanProtocol::Rsync,
        precision_ns: 1,
        timezone_offset_ms: 0,
        last_mod_time: None,
    };
    assert!(is_unknown(store.update_settings(id, &settings("other")), id));
    assert!(is_unknown(store.remove_mirror(id), id));
    assert!(is_unknown(store.set_enabled(id, true, NOON), id));
    assert!(is_unknown(store.set_health(id, DownloadProtocol::Http, None, NOON), id));
    assert!(is_unknown(store.record_sync_attempt(id, NOON), id));
    assert!(is_unknown(store.record_sync(id, &sync), id));
    assert!(is_unknown(store.append_log(&LogEntry { mirror: id, at: NOON, event: LogEvent::Added }), id));
    assert_eq!(mirror(store, known).state, MirrorState::default());
}

pub(crate) fn enabling_is_a_change_once(store: &dyn Store) {
    let id = add(store, "one");
    assert!(store.set_enabled(id, true, MORNING).expect("set"));
    assert!(!store.set_enabled(id, true, NOON).expect("set"));
    assert_eq!(mirror(store, id).state, MirrorState { enabled: true, since: MORNING, ..MirrorState::default() });
    assert!(store.set_enabled(id, false, NOON).expect("set"));
    assert_eq!(mirror(store, id).state, MirrorState { since: NOON, ..MirrorState::default() });
}

pub(crate) fn health_changes_with_state_and_reason(store: &dyn Store) {
    let id = add(store, "one");
    let set = |reason, now| store.set_health(id, DownloadProtocol::Http, reason, now).expect("set");
    let health = || {
        let MirrorState { http, since, .. } = mirror(store, id).state;
        (http, since)
    };
    let down = |reason: &str| Health { up: false, down_reason: reason.to_owned() };

    assert!(set(Some("Unreachable"), MORNING), "a first reason is a change");
    assert_eq!(health(), (down("Unreachable"), MORNING), "a state that was found out has a beginning");
    assert!(set(Some("Got status code 500"), NOON));
    assert_eq!(health().1, MORNING, "and a new reason is none");
    assert!(set(None, MORNING));
    assert_eq!(health(), (Health { up: true, down_reason: String::new() }, MORNING));
    assert!(!set(None, NOON));
    assert_eq!(health().1, MORNING);
    assert!(set(Some("Got status code 500"), NOON));
    assert_eq!(health(), (down("Got status code 500"), NOON));
    assert!(set(Some("Unreachable"), MORNING), "a new reason is a change");
    assert_eq!(health(), (down("Unreachable"), NOON), "but the state is as old as it was");
    assert!(!set(Some("Unreachable"), MORNING));
}

pub(crate) fn each_protocol_has_its_own_health(store: &dyn Store) {
    let id = add(store, "one");
    assert!(store.set_health(id, DownloadProtocol::Https, None, MORNING).expect("set"));
    assert!(store.set_health(id, DownloadProtocol::Http, Some("Unreachable"), NOON).expect("set"));
    let state = mirror(store, id).state;
    assert_eq!(state.https, Health { up: true, down_reason: String::new() });
    assert_eq!(state.http, Health { up: false, down_reason: "Unreachable".to_owned() });
    assert_eq!(state.since, MORNING);
    assert!(store.set_health(id, DownloadProtocol::Https, Some("Unreachable"), NOON).expect("set"));
    assert_eq!(mirror(store, id).state.since, NOON);
}

pub(crate) fn scans_are_recorded(store: &dyn Store) {
    let id = add(store, "one");
    store.record_sync_attempt(id, MORNING).expect("recorded");
    assert_eq!(mirror(store, id).state, MirrorState { last_sync: MORNING, ..MirrorState::default() });

    for (protocol, precision_ns) in
        [(ScanProtocol::Rsync, 1_000_000_000), (ScanProtocol::Http, 60_000_000_000), (ScanProtocol::Ftp, 1_000_000)]
    {
        let last_mod_time = Some(Timestamp(1_699_999_999));
        let sync =
            SyncRecord { started: MORNING, protocol, precision_ns, timezone_offset_ms: -3_600_000, last_mod_time };
        store.record_sync(id, &sync).expect("recorded");
        let expected = MirrorState {
            last_sync: MORNING,
            last_successful_sync: MORNING,
            last_successful_sync_protocol: protocol,
            last_successful_sync_precision_ns: precision_ns,
            timezone_offset_ms: -3_600_000,
            last_mod_time: Timestamp(1_699_999_999),
            ..MirrorState::default()
        };
        assert_eq!(mirror(store, id).state, expected);
    }

    store.record_sync_attempt(id, NOON).expect("recorded");
    let without_trace = SyncRecord {
        started: MORNING,
        protocol: ScanProtocol::Rsync,
        precision_ns: 1,
        timezone_offset_ms: 0,
        last_mod_time: None,
    };
    store.record_sync(id, &without_trace).expect("recorded");
    let state = mirror(store, id).state;
    assert_eq!(state.last_sync, NOON, "an attempt that started later stays the latest");
    assert_eq!(state.last_mod_time, Timestamp(1_699_999_999), "no trace file, no news");
    assert_eq!(state.timezone_offset_ms, 0);
}

pub(crate) fn settings_and_state_do_not_touch_each_other(store: &dyn Store) {
    let id = add(store, "one");
    store.set_enabled(id, true, MORNING).expect("set");
    store.set_health(id, DownloadProtocol::Http, None, MORNING).expect("set");
    let state = mirror(store, id).state;
    let changed = MirrorSettings { score: 5, ..settings("renamed") };
    store.update_settings(id, &changed).expect("updated");
    assert_eq!(mirror(store, id), Mirror { id, settings: changed.clone(), state });
    store.set_health(id, DownloadProtocol::Http, Some("Unreachable"), NOON).expect("set");
    assert_eq!(mirror(store, id).settings, changed);
}

pub(crate) fn source_entries_of_every_kind_are_kept(store: &dyn Store) {
    let all_hashes = FileHashes { sha1: Some([1; 20]), sha256: Some([2; 32]), md5: Some([0; 16]) };
    let file = |size, modified, hashes| SourceEntryKind::File { size, modified: FileTime(modified), hashes };
    let entry = |path: &[u8], kind| SourceEntry { path: path.to_vec(), kind };
    let expected = vec![
        entry(b"/1 empty", file(0, 0, FileHashes::default())),
        entry(b"/2 huge", file(i64::MAX as u64, i64::MAX, all_hashes)),
        entry(b"/3 old", file(1, i64::MIN, FileHashes { md5: Some([3; 16]), ..FileHashes::default() })),
        entry(b"/4 directory", SourceEntryKind::Directory),
        entry(b"/5 link", SourceEntryKind::Alias { target: b"/4 directory/\xff".to_vec() }),
        entry(b"/6 link to the root", SourceEntryKind::Alias { target: b"/".to_vec() }),
        entry(b"/7 forbidden", SourceEntryKind::Forbidden),
        entry(b"/8 not UTF-8 \xc3\x28\x00\n", file(3, 4, FileHashes::default())),
    ];
    upsert(store, expected.clone());
    assert_eq!(entries(store), expected);
}

pub(crate) fn source_entries_come_in_byte_order(store: &dyn Store) {
    let paths: [&[u8]; 6] = [b"/a/b", b"/a", b"/a.b", b"/\xff", b"/Z", b"/\xc3\xa9"];
    upsert(store, paths.iter().map(|path| file(*path, 1)).collect());
    let read: Vec<Vec<u8>> = entries(store).into_iter().map(|entry| entry.path).collect();
    let mut expected: Vec<Vec<u8>> = paths.iter().map(|path| path.to_vec()).collect();
    expected.sort();
    assert_eq!(read, expected);
}

/// Random differences, one after the other, against a map.
pub(crate) fn source_changes_apply_as_to_a_map(store: &dyn Store) {
    let path = || prop::sample::select(vec!["/a", "/a/b", "/a/c", "/b", "/c", "/d e", "/\u{e9}"]);
    let kind = || {
        prop_oneof![
            (0..3_u64).prop_map(|size| file("", size).kind),
            Just(SourceEntryKind::Directory),
            path().prop_map(|target| SourceEntryKind::Alias { target: target.into() }),
            Just(SourceEntryKind::Forbidden),
        ]
    };
    let changes = (prop::collection::btree_map(path(), prop::option::of(kind()), 0..6)).prop_map(|changed| {
        let mut changes = SourceChanges::default();
        for (path, kind) in changed {
            match kind {
                Some(kind) => changes.upserts.push(SourceEntry { path: path.into(), kind }),
                None => changes.removals.push(path.into()),
            }
        }
        changes.upserts.reverse();
        changes
    });
    let model = std::cell::RefCell::new(BTreeMap::new());
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&changes, |changes| {
        store.apply_source_changes(&changes).expect("applied");
        let mut model = model.borrow_mut();
        for path in &changes.removals {
            model.remove(path);
        }
        model.extend(changes.upserts.into_iter().map(|entry| (entry.path, entry.kind)));
        let expected: Vec<SourceEntry> =
            model.iter().map(|(path, kind)| SourceEntry { path: path.clone(), kind: kind.clone() }).collect();
        prop_assert_eq!(entries(store), expected);
        Ok(())
    });
    outcome.expect("the store behaves as a map");
}

pub(crate) fn logs_are_read_oldest_first(store: &dyn Store) {
    let (one, two) = (add(store, "one"), add(store, "two"));
    let events = [
        LogEvent::Added,
        LogEvent::Error("rsync: \"quoted\"\n".to_owned()),
        LogEvent::Edited,
        LogEvent::Enabled,
        LogEvent::Disabled,
        LogEvent::StateChanged { protocol: DownloadProtocol::Https, up: false, reason: "Unreachable".to_owned() },
        LogEvent::ScanStarted(ScanProtocol::Ftp),
        LogEvent::ScanCompleted { files_indexed: u64::MAX, known_indexed: 2, removed: 1, timezone_offset_ms: -5 },
    ];
    let entry = |mirror, event: &LogEvent| LogEntry { mirror, at: NOON, event: event.clone() };
    let expected: Vec<LogEntry> = events.iter().map(|event| entry(one, event)).collect();
    for written in &expected {
        store.append_log(written).expect("appended");
        store.append_log(&entry(two, &LogEvent::Edited)).expect("appended");
    }
    assert_eq!(store.mirror_log(one, LOG_ENTRIES_KEPT).expect("read"), expected);
    assert_eq!(store.mirror_log(one, 3).expect("read"), expected[5..]);
    assert_eq!(store.mirror_log(one, 0).expect("read"), []);
    assert_eq!(store.mirror_log(two, usize::MAX).expect("read").len(), events.len());
}

pub(crate) fn logs_keep_their_newest_entries(store: &dyn Store) {
    let id = add(store, "one");
    let written = LOG_ENTRIES_KEPT as i64 + 3;
    for number in 0..written {
        store.append_log(&LogEntry { mirror: id, at: Timestamp(number), event: LogEvent::Edited }).expect("appended");
    }
    let log = store.mirror_log(id, usize::MAX).expect("read");
    assert_eq!(log.len(), LOG_ENTRIES_KEPT);
    assert_eq!((log[0].at, log[LOG_ENTRIES_KEPT - 1].at), (Timestamp(3), Timestamp(written - 1)));
}

pub(crate) fn a_log_goes_with_its_mirror(store: &dyn Store) {
    let id = add(store, "one");
    store.append_log(&LogEntry { mirror: id, at: NOON, event: LogEvent::Added }).expect("appended");
    store.remove_mirror(id).expect("removed");
    assert_eq!(store.mirror_log(id, 10).expect("read"), []);
}

pub(crate) fn date(year: i32, month: u8, day: u8) -> Date {
    Month::try_from(month).and_then(|month| Date::from_calendar_date(year, month, day)).expect("a date")
}

/// Downloads of files on a day, each from mirror 1, of 10 bytes.
pub(crate) fn counts(files: &[(&str, u64)]) -> Counts {
    let requests = files.iter().map(|(_, requests)| requests).sum();
    Counts {
        files: files.iter().map(|(path, requests)| (path.as_bytes().to_vec(), *requests)).collect(),
        mirrors: BTreeMap::from([(MirrorId(1), Traffic { requests, bytes: 10 * requests })]),
    }
}

pub(crate) fn batch<const DAYS: usize>(node: &str, sequence: u64, days: [(Date, Counts); DAYS]) -> StatsBatch {
    StatsBatch { node: node.to_owned(), sequence, days: BTreeMap::from(days) }
}

fn downloads(store: &dyn Store, range: Option<DateRange>) -> Vec<(String, u64)> {
    let downloads = store.file_downloads(range, &|_| true).expect("read").into_iter();
    downloads.map(|(path, requests)| (String::from_utf8(path).expect("text"), requests)).collect()
}

pub(crate) fn counts_are_added_up_by_day_month_and_year(store: &dyn Store) {
    let days = [
        (date(2024, 12, 31), counts(&[("/a", 1), ("/b", 2)])),
        (date(2025, 1, 1), counts(&[("/a", 10)])),
        (date(2025, 2, 28), counts(&[("/a", 100)])),
        (date(2026, 11, 22), counts(&[("/a", 1_000), ("/c", 3)])),
    ];
    assert!(store.add_stats(&batch("node", 1, days)).expect("added"));
    let in_range = |first, last| downloads(store, Some(DateRange { first, last }));
    let one = |path: &str, requests| vec![(path.to_owned(), requests)];
    assert_eq!(in_range(date(2025, 1, 1), date(2025, 12, 31)), one("/a", 110));
    assert_eq!(in_range(date(2025, 1, 2), date(2025, 2, 28)), one("/a", 100));
    assert_eq!(in_range(date(2025, 1, 2), date(2025, 2, 27)), []);
    assert_eq!(in_range(date(2024, 12, 31), date(2026, 11, 21)), [("/a".to_owned(), 111), ("/b".to_owned(), 2)]);
    assert_eq!(downloads(store, None), [("/a".to_owned(), 1_111), ("/b".to_owned(), 2), ("/c".to_owned(), 3)]);
    let wanted = store.file_downloads(None, &|path| path != b"/a").expect("read");
    assert_eq!(wanted.into_keys().collect::<Vec<_>>(), [b"/b".to_vec(), b"/c".to_vec()]);

    let of_a = |day| store.downloads_of_file(b"/a", day).expect("read");
    let new_year = FileDownloads { day: 10, month: 10, year: 110, all_time: 1_111 };
    assert_eq!(of_a(date(2025, 1, 1)), new_year);
    assert_eq!(of_a(date(2026, 11, 21)), FileDownloads { day: 0, month: 1_000, year: 1_000, all_time: 1_111 });
    assert_eq!(store.downloads_of_file(b"/none", date(2025, 1, 1)).expect("read"), FileDownloads::default());

    let traffic = |range| store.mirror_traffic(range).expect("read");
    let of_mirror = |requests| BTreeMap::from([(MirrorId(1), Traffic { requests, bytes: 10 * requests })]);
    assert_eq!(traffic(None), of_mirror(1_116));
    assert_eq!(traffic(Some(DateRange { first: date(2024, 12, 31), last: date(2025, 1, 31) })), of_mirror(13));
    assert_eq!(traffic(Some(DateRange { first: date(2023, 1, 1), last: date(2023, 12, 31) })), BTreeMap::new());
    assert_eq!(store.total_downloads().expect("read"), 1_116);
}

pub(crate) fn old_counts_are_dropped(store: &dyn Store) {
    let days = [(date(2025, 10, 1), counts(&[("/a", 1)])), (date(2026, 11, 21), counts(&[("/a", 10)]))];
    store.add_stats(&batch("node", 1, days)).expect("added");
    let of_a = |period| store.downloads_in(b"/a", period).expect("read");
    assert_eq!(of_a(Period::Month(2025, Month::October)), 1);
    let today = date(2026, 11, 22);
    assert_eq!(store.prune_stats(StatsRetention::default(), today).expect("pruned"), 0);
    let retention = StatsRetention { days: Some(1), months: Some(12) };
    assert_eq!(store.prune_stats(retention, today).expect("pruned"), 3, "both days and a month");
    assert_eq!(store.prune_stats(retention, today).expect("pruned"), 0);
    let left = [Period::Day(date(2026, 11, 21)), Period::Month(2025, Month::October)].map(of_a);
    assert_eq!(left, [0, 0]);
    let kept = [Period::Month(2026, Month::November), Period::Year(2025), Period::AllTime].map(of_a);
    assert_eq!(kept, [10, 1, 11]);
    assert_eq!(store.total_downloads().expect("read"), 11);
}

/// The answer to a batch was lost, so its node sends it again.
pub(crate) fn a_batch_of_counts_is_added_once(store: &dyn Store) {
    let day = date(2026, 11, 22);
    let of = |node, sequence| batch(node, sequence, [(day, counts(&[("/a", 1)]))]);
    assert_eq!(store.last_stats_sequence("one").expect("read"), 0);
    for (batch, added) in [
        (of("one", 1), true),
        (of("one", 1), false),
        (of("one", 2), true),
        (of("one", 1), false),
        (of("two", 1), true),
        (of("one", 7), true),
        (of("one", 7), false),
    ] {
        assert_eq!(store.add_stats(&batch).expect("added"), added, "{batch:?}");
    }
    assert_eq!(store.last_stats_sequence("one").expect("read"), 7);
    assert_eq!(store.last_stats_sequence("two").expect("read"), 1);
    assert_eq!(store.total_downloads().expect("read"), 4);
    assert_eq!(downloads(store, Some(DateRange { first: day, last: day })), [("/a".to_owned(), 4)]);
}

pub(crate) fn counts_of_removed_mirrors_stay(store: &dyn Store) {
    let id = add(store, "one");
    let traffic = BTreeMap::from([(id, Traffic { requests: 3, bytes: 1 << 52 })]);
    let counts = Counts { mirrors: traffic.clone(), ..Counts::default() };
    store.add_stats(&batch("node", 1, [(date(2026, 11, 22), counts)])).expect("added");
    store.remove_mirror(id).expect("removed");
    assert_eq!(store.mirror_traffic(None).expect("read"), traffic);
}

pub(crate) fn a_lease_has_one_holder(store: &dyn Store) {
    let long = Duration::from_secs(600);
    let take = |name, holder| store.take_lease(name, holder, long).expect("asked");
    let scan = LeaseName::MirrorScan(MirrorId(1));
    assert!(take(scan, "one"));
    assert!(take(scan, "one"), "a holder may extend its lease");
    assert!(!take(scan, "two"));
    assert!(take(LeaseName::MirrorScan(MirrorId(2)), "two"));
    assert!(take(LeaseName::SourceScan, "two"));
    store.give_lease_back(scan, "two").expect("asked");
    assert!(!take(scan, "two"), "only the holder gives a lease back");
    store.give_lease_back(scan, "one").expect("asked");
    assert!(take(scan, "two"));
}

pub(crate) fn a_lease_ends_by_itself(store: &dyn Store) {
    let take = |holder| store.take_lease(LeaseName::SourceScan, holder, Duration::from_millis(50)).expect("asked");
    assert!(take("one"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !take("two") {
        assert!(Instant::now() < deadline, "the lease never ends");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn add_edit(name: &str, enabled: bool) -> MirrorEdit {
    MirrorEdit::Add { settings: settings(name), enabled }
}

fn events(store: &dyn Store, id: MirrorId) -> Vec<LogEvent> {
    store.mirror_log(id, 10).expect("read").into_iter().map(|entry| entry.event).collect()
}

pub(crate) fn a_batch_of_mirrors_is_made_as_a_whole(store: &dyn Store) {
    let kept = store.add_mirror(&settings("kept")).expect("added");
    let gone = store.add_mirror(&settings("gone")).expect("added");
    let same = store.add_mirror(&settings("same")).expect("added");
    let changed = MirrorSettings { score: 77, comment: "\"ä\\\n\0".into(), ..settings("kept") };
    let edits = [
        add_edit("gone", true),
        MirrorEdit::Update { id: kept, settings: changed.clone(), enabled: true },
        MirrorEdit::Remove(gone),
        MirrorEdit::Update { id: same, settings: settings("same"), enabled: false },
        add_edit("new", false),
    ];
    let ids = store.apply_mirrors(&edits, NOON).expect("applied");
    assert_eq!(ids[1..4], [kept, gone, same]);
    let mirrors = store.mirrors().expect("read");
    let told: Vec<_> =
        mirrors.iter().map(|mirror| (mirror.id, mirror.settings.clone(), mirror.state.enabled)).collect();
    let expected = [
        (kept, changed, true),
        (same, settings("same"), false),
        (ids[0], settings("gone"), true),
        (ids[4], settings("new"), false),
    ];
    assert_eq!(told, expected);
    assert!(ids[0] > same, "ids are never given out again");
    assert_eq!(events(store, kept), [LogEvent::Edited, LogEvent::Enabled]);
    assert_eq!(events(store, same), []);
    assert_eq!(events(store, ids[0]), [LogEvent::Added, LogEvent::Enabled]);
    assert_eq!(events(store, ids[4]), [LogEvent::Added]);
    let next = store.add_mirror(&settings("next")).expect("added");
    assert!(next > ids[4]);
}

pub(crate) fn a_batch_with_one_mistake_changes_nothing(store: &dyn Store) {
    let id = store.add_mirror(&settings("one")).expect("added");
    let before = store.mirrors().expect("read");
    let taken = store.apply_mirrors(&[MirrorEdit::Remove(id), add_edit("a", true), add_edit("a", true)], NOON);
    assert_eq!(taken.expect_err("refused").to_string(), "a: name already taken; no mirror was changed");
    let taken = store.apply_mirrors(&[add_edit("b", true), add_edit("one", true)], NOON);
    assert_eq!(taken.expect_err("refused").to_string(), "one: name already taken; no mirror was changed");
    let unknown = store.apply_mirrors(&[add_edit("b", true), MirrorEdit::Remove(MirrorId(99))], NOON);
    assert_eq!(unknown.expect_err("refused").to_string(), "mirror 99: no mirror has the id 99; no mirror was changed");
    assert_eq!(store.mirrors().expect("read"), before);
    assert_eq!(events(store, id), []);
}
