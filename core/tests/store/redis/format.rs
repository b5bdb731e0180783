//! The keys: written as Mirrorbits writes them, read as outside tools read them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mb_core::mirror::{DownloadProtocol, Health, MirrorId, MirrorSettings, ScanProtocol};
use mb_core::store::{
    Change, DateRange, FileHashes, LogEntry, LogEvent, SourceChanges, SourceEntry, SourceEntryKind, Store, StoreError,
    SyncRecord, Traffic,
};
use mb_core::time::{FileTime, Timestamp};

use super::server::Server;
use crate::suite::{batch, counts, date, entries, file, mirror, settings};

/// An installation that has run for years hands its database over.
#[test]
fn a_database_of_mirrorbits_is_read() {
    let server = Server::start(&[]);
    for line in [
        "SET MIRRORBITS_DB_VERSION 2",
        "SET LAST_MID 7",
        "HSET MIRRORS 2 old.example 5 full.example 7 bare.example nonsense x",
        "HSET MIRROR_2 ID 2 name old.example http old.example/pub enabled true httpUp true httpsUp 0 score -5 \
         stateSince 1500000000 lastSync 1700000000 countryCodes FR tzoffset 3600000 lastSuccessfulSyncPrecision 1000000000",
        "HSET MIRROR_5 ID 5 name full.example http https://full.example/ enabled 1 httpUp 0 httpsUp 1 allowredirects 2 \
         lastSuccessfulSync 1700000000 lastSuccessfulSyncProtocol 1 latitude 48.8582 longitude 2.3387 asnum 64496 \
         someFieldOfTheFuture 1",
        "SADD FILES /with /without /gone /local",
        "HSET FILE_/with size 10 sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709 md5 d41d8cd98f00b204e9800998ecf8427e sha256 0",
        "HSET FILE_/without size 20",
        "RPUSH MIRRORLOGS_5 {\"Type\":2,\"MirrorID\":5,\"Timestamp\":\"2020-01-02T03:04:05.6+01:00\"} broken \
         {\"Type\":7,\"MirrorID\":5,\"Timestamp\":\"2020-01-02T03:04:06Z\",\"Typ\":1}",
        "SET STATS_TOTAL 1000",
    ] {
        server.command::<redis::Value>(line);
    }
    server.send::<()>(&["HSET", "FILE_/with", "modTime", "2020-01-02 03:04:05.5 +0000 UTC"]);
    server.send::<()>(&["HSET", "FILE_/local", "size", "1", "modTime", "2020-01-02 04:04:05 +0100 CET"]);
    for year in 2015..2025 {
        for suffix in [format!("{year}"), format!("{year}_12"), format!("{year}_12_31")] {
            server.command::<()>(&format!("HSET STATS_FILE_{suffix} /with 1"));
            server.command::<()>(&format!("HSET STATS_MIRROR_{suffix} 5 1"));
            server.command::<()>(&format!("HSET STATS_MIRROR_BYTES_{suffix} 5 10"));
        }
    }
    server.command::<()>("HSET STATS_FILE /with 10 /removed 990");

    let store = server.store();
    let mirrors = store.mirrors().expect("read");
    assert_eq!(mirrors.iter().map(|mirror| mirror.id.0).collect::<Vec<_>>(), [2, 5, 7]);
    let [old, full, bare] = &mirrors[..] else { panic!("three mirrors") };
    assert_eq!((old.settings.http_url.as_str(), old.settings.score), ("old.example/pub/", -5));
    assert_eq!((old.state.enabled, old.state.http.up, old.state.https.up), (true, true, false));
    assert_eq!((old.state.timezone_offset_ms, old.state.since), (3_600_000, Timestamp(1_500_000_000)));
    assert_eq!((full.settings.latitude, full.settings.asn), (48.8582, 64496));
    assert_eq!(full.state.last_successful_sync_protocol, ScanProtocol::Ftp);
    assert_eq!(bare.settings, MirrorSettings { name: "bare.example".into(), ..MirrorSettings::default() });

    let stored = |path: &str, size, modified, hashes| SourceEntry {
        path: path.into(),
        kind: SourceEntryKind::File { size, modified: FileTime(modified), hashes },
    };
    let hashes = FileHashes {
        sha1: Some(*b"\xda\x39\xa3\xee\x5e\x6b\x4b\x0d\x32\x55\xbf\xef\x95\x60\x18\x90\xaf\xd8\x07\x09"),
        sha256: None,
        md5: Some(*b"\xd4\x1d\x8c\xd9\x8f\x00\xb2\x04\xe9\x80\x09\x98\xec\xf8\x42\x7e"),
    };
    let expected = [
        stored("/local", 1, 1_577_934_245_000_000_000, FileHashes::default()),
        stored("/with", 10, 1_577_934_245_500_000_000, hashes),
        stored("/without", 20, 0, FileHashes::default()),
    ];
    assert_eq!(entries(&store), expected);

    let log = store.mirror_log(MirrorId(5), 10).expect("read");
    let texts: Vec<String> = log.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["2020-01-02 02:04:05 UTC: Mirror added", "2020-01-02 03:04:06 UTC: FTP scan started"]);

    let range = Some(DateRange { first: date(2015, 1, 1), last: date(2023, 12, 31) });
    assert_eq!(store.file_downloads(range, &|_| true).expect("read"), BTreeMap::from([(b"/with".to_vec(), 9)]));
    let last_day = Some(DateRange { first: date(2024, 12, 31), last: date(2024, 12, 31) });
    let one = BTreeMap::from([(MirrorId(5), Traffic { requests: 1, bytes: 10 })]);
    assert_eq!(store.mirror_traffic(last_day).expect("read"), one);
    assert_eq!(store.downloads_of_file(b"/with", date(2024, 12, 31)).expect("read").all_time, 10);
    assert_eq!(store.total_downloads().expect("read"), 1000);

    assert!(matches!(store.add_mirror(&settings("full.example")), Err(StoreError::NameTaken)));
    assert_eq!(store.add_mirror(&settings("new.example")).expect("added"), MirrorId(8));
    assert!(!store.set_enabled(MirrorId(2), true, Timestamp(1)).expect("set"), "`true` is enabled");
    store.set_health(MirrorId(5), DownloadProtocol::Http, None, Timestamp(1)).expect("set");
    assert_eq!(server.command::<String>("HGET MIRROR_5 someFieldOfTheFuture"), "1");
}

/// A counter that was lost must not lead to ids that are in use.
#[test]
fn ids_follow_the_mirrors_when_the_counter_is_behind() {
    let server = Server::start(&[]);
    server.command::<()>("SET MIRRORBITS_DB_VERSION 2");
    server.command::<()>("HSET MIRRORS 41 one");
    assert_eq!(server.store().add_mirror(&settings("two")).expect("added"), MirrorId(42));
    assert_eq!(server.command::<u32>("GET LAST_MID"), 42);
}

#[test]
fn mirrors_are_written_as_mirrorbits_writes_them() {
    let server = Server::start(&[]);
    let store = server.store();
    assert_eq!(server.command::<String>("GET MIRRORBITS_DB_VERSION"), "2");
    let id = store.add_mirror(&MirrorSettings { as_only: true, latitude: 48.8582, ..settings("one") }).expect("added");
    let hash = |key: &str| server.send::<HashMap<String, String>>(&["HGETALL", key]);
    assert_eq!(hash("MIRRORS"), HashMap::from([("1".to_owned(), "one".to_owned())]));
    assert_eq!(server.command::<String>("GET LAST_MID"), "1");
    let fields: BTreeSet<String> = hash("MIRROR_1").into_keys().collect();
    let expected = "ID name http rsync ftp sponsorName sponsorURL sponsorLogo adminName adminEmail customData continentOnly \
        countryOnly asOnly score latitude longitude continentCode countryCodes excludedCountryCodes asnum comment enabled \
        httpUp httpsUp httpDownReason httpsDownReason stateSince allowredirects tzoffset lastSync lastSuccessfulSync \
        lastSuccessfulSyncProtocol lastSuccessfulSyncPrecision lastModTime";
    assert_eq!(fields, expected.split_whitespace().map(str::to_owned).collect());

    store.set_enabled(id, true, Timestamp(1_700_000_000)).expect("set");
    store.set_health(id, DownloadProtocol::Https, Some("Unreachable"), Timestamp(1_700_000_001)).expect("set");
    let sync = SyncRecord {
        started: Timestamp(1_700_000_002),
        protocol: ScanProtocol::Http,
        precision_ns: 1_000_000_000,
        timezone_offset_ms: -3_600_000,
        last_mod_time: Some(Timestamp(1_699_999_999)),
    };
    store.record_sync(id, &sync).expect("recorded");
    let written = hash("MIRROR_1");
    for (field, value) in [
        ("ID", "1"),
        ("http", "https://one.example/"),
        ("asOnly", "1"),
        ("countryOnly", "0"),
        ("latitude", "48.8582"),
        ("enabled", "1"),
        ("stateSince", "1700000000"),
        ("httpsUp", "0"),
        ("httpsDownReason", "Unreachable"),
        ("lastSync", "1700000002"),
        ("lastSuccessfulSync", "1700000002"),
        ("lastSuccessfulSyncProtocol", "2"),
        ("lastSuccessfulSyncPrecision", "1000000000"),
        ("tzoffset", "-3600000"),
        ("lastModTime", "1699999999"),
    ] {
        assert_eq!(written[field], value, "{field}");
    }
    assert_eq!(mirror(&store, id).state.https, Health { up: false, down_reason: "Unreachable".into() });

    store.update_settings(id, &settings("renamed")).expect("updated");
    assert_eq!(server.command::<String>("HGET MIRRORS 1"), "renamed");
    store
        .append_log(&LogEntry { mirror: id, at: Timestamp(1_136_214_245), event: LogEvent::Enabled })
        .expect("appended");
    assert_eq!(
        server.command::<Vec<String>>("LRANGE MIRRORLOGS_1 0 -1"),
        [r#"{"Type":4,"MirrorID":1,"Timestamp":"2006-01-02T15:04:05Z"}"#]
    );
    server.command::<()>("SADD MIRRORFILES_1 /left-by-mirrorbits");
    store.remove_mirror(id).expect("removed");
    let keys: BTreeSet<String> = server.command("KEYS *");
    assert_eq!(keys, BTreeSet::from(["LAST_MID", "MIRRORBITS_DB_VERSION"].map(str::to_owned)));
}

#[test]
fn files_and_counts_are_written_as_mirrorbits_writes_them() {
    let server = Server::start(&[]);
    let store = server.store();
    let directory = SourceEntry { path: b"/d".to_vec(), kind: SourceEntryKind::Directory };
    let upserts = vec![file("/d/a", 7), directory.clone(), file("/removed", 1)];
    store.apply_source_changes(&SourceChanges { upserts, removals: Vec::new() }).expect("applied");
    let removals = vec![b"/removed".to_vec()];
    store.apply_source_changes(&SourceChanges { upserts: Vec::new(), removals }).expect("applied");
    assert_eq!(server.command::<Vec<String>>("SMEMBERS FILES"), ["/d/a"]);
    let facts: HashMap<String, String> = server.command("HGETALL FILE_/d/a");
    assert_eq!(facts["size"], "7");
    assert_eq!(facts["modTime"], "2023-11-14 22:13:20.123456789 +0000 UTC");
    assert_eq!(facts["sha256"], "07".repeat(32));
    assert_eq!((facts["sha1"].as_str(), facts["md5"].as_str()), ("", ""));
    assert_eq!(server.command::<u32>("EXISTS FILE_/removed FILE_/d"), 0);

    store.add_stats(&batch("node", 9, [(date(2026, 1, 2), counts(&[("/d/a", 3)]))])).expect("added");
    for suffix in ["", "_2026", "_2026_01", "_2026_01_02"] {
        assert_eq!(server.command::<u64>(&format!("HGET STATS_FILE{suffix} /d/a")), 3);
        assert_eq!(server.command::<u64>(&format!("HGET STATS_MIRROR{suffix} 1")), 3);
        assert_eq!(server.command::<u64>(&format!("HGET STATS_MIRROR_BYTES{suffix} 1")), 30);
    }
    assert_eq!(server.command::<u64>("GET STATS_TOTAL"), 3);
    assert_eq!(server.command::<u64>("GET MB_STATS_SEQ_node"), 9);
    assert!(server.command::<u64>("TTL MB_STATS_SEQ_node") > 80 * 86_400, "a name is that of one process");
    // A Mirrorbits node beside us lists a link to a file as a file.
    server.command::<()>("SADD FILES /d");
    server.command::<()>("HSET FILE_/d size 1");
    assert_eq!(entries(&store), [directory, file("/d/a", 7)]);
}

#[test]
fn a_large_repository_is_read_as_it_was_written() {
    let server = Server::start(&[]);
    let store = server.store();
    let files: Vec<SourceEntry> = (0..20_000_u64).map(|number| file(format!("/folder/{number:06}"), number)).collect();
    store.apply_source_changes(&SourceChanges { upserts: files.clone(), removals: Vec::new() }).expect("applied");
    assert!(entries(&store) == files);
    let removals = files.iter().step_by(2).map(|file| file.path.clone()).collect();
    store.apply_source_changes(&SourceChanges { upserts: Vec::new(), removals }).expect("applied");
    assert_eq!(entries(&store).len(), 10_000);
    assert_eq!(server.command::<usize>("DBSIZE"), 10_000 + 2);
}

#[test]
fn every_change_of_a_mirror_is_published_and_seen() {
    let server = Server::start(&[]);
    let (store, watcher) = (server.store(), server.store());
    let (sender, changes) = std::sync::mpsc::channel();
    let watch = watcher.watch_changes(Box::new(move |change| sender.send(change).unwrap_or_default()));
    let next = || changes.recv_timeout(std::time::Duration::from_secs(30)).expect("a change");
    assert_eq!(next(), Change::Everything);

    let id = store.add_mirror(&settings("one")).expect("added");
    assert_eq!(next(), Change::Mirror(id));
    store.update_settings(id, &settings("two")).expect("updated");
    assert_eq!(next(), Change::Mirror(id));
    store.set_enabled(id, true, Timestamp(1)).expect("set");
    store.set_enabled(id, true, Timestamp(1)).expect("set");
    assert_eq!(next(), Change::Mirror(id));
    store.set_health(id, DownloadProtocol::Http, None, Timestamp(1)).expect("set");
    assert_eq!(next(), Change::Mirror(id));
    store.record_sync_attempt(id, Timestamp(1)).expect("recorded");
    assert_eq!(next(), Change::Mirror(id));
    server.command::<()>("PUBLISH _mirrorbits_mirror_update 77");
    assert_eq!(next(), Change::Mirror(MirrorId(77)), "enabling what is enabled was no change");
    server.command::<()>("PUBLISH _mirrorbits_mirror_update all");
    assert_eq!(next(), Change::Everything);
    store.remove_mirror(id).expect("removed");
    assert_eq!(next(), Change::Mirror(id));
    drop(watch);
    assert_eq!(changes.recv_timeout(std::time::Duration::from_secs(30)).ok(), None, "the watch has ended");
}
