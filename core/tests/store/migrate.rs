//! `migrate`: everything, both ways, again, interrupted, and never over data that a program has written.

use std::path::Path;

use mb_core::config::{self, Config, DatabaseKind};
use mb_core::mirror::{DownloadProtocol, InvalidMirror, Mirror, MirrorId, MirrorSettings, ScanProtocol};
use mb_core::store::migrate::{MigrateError, Migrated, Part, Progress, migrate};
use mb_core::store::{
    self, EmbeddedStore, LogEntry, LogEvent, SourceChanges, SourceEntry, SourceEntryKind, Store, StoreError, SyncRecord,
};
use mb_core::time::Timestamp;
use tempfile::TempDir;

use crate::redis::server::Server;
use crate::suite::{batch, counts, date, entries, file, settings};

const FILES: u64 = 12_000;

/// An empty state directory and an empty server.
struct Place {
    state_dir: TempDir,
    server: Server,
}

impl Place {
    fn new() -> Place {
        let state_dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        Place { state_dir, server: Server::start(&[]) }
    }

    fn config(&self) -> Config {
        let text = format!("Repository: /srv\nStateDir: {}\n", self.state_dir.path().display());
        let config = config::parse(&text, Path::new("test.conf")).expect("a configuration").config;
        Config { redis: self.server.settings(), ..config }
    }

    fn migrate(&self, from: DatabaseKind, force: bool) -> Result<Migrated, MigrateError> {
        let to = if from == DatabaseKind::Redis { DatabaseKind::Embedded } else { DatabaseKind::Redis };
        migrate(&self.config(), from, to, force, &mut |_| {})
    }

    /// As the programs open it.
    fn open(&self, database: DatabaseKind) -> std::sync::Arc<dyn Store> {
        store::open(&Config { database, ..self.config() }).expect("opened")
    }
}

/// Fills a store with something of everything.
fn fill(store: &dyn Store) {
    let ids = ["one", "two", "three", "removed"].map(|name| store.add_mirror(&settings(name)).expect("added"));
    store.remove_mirror(ids[0]).expect("removed");
    store.remove_mirror(ids[3]).expect("removed");
    store.set_enabled(ids[1], true, Timestamp(1_700_000_000)).expect("set");
    store.set_health(ids[1], DownloadProtocol::Https, Some("Unreachable"), Timestamp(1_700_000_001)).expect("set");
    let sync = SyncRecord {
        started: Timestamp(1_700_000_002),
        protocol: ScanProtocol::Ftp,
        precision_ns: 60_000_000_000,
        timezone_offset_ms: -7_200_000,
        last_mod_time: Some(Timestamp(1_699_999_999)),
    };
    store.record_sync(ids[1], &sync).expect("recorded");
    for at in 0..50 {
        let event = LogEvent::Error(format!("number {at}"));
        store.append_log(&LogEntry { mirror: ids[2], at: Timestamp(at), event }).expect("appended");
    }
    let mut upserts: Vec<SourceEntry> = (0..FILES).map(|number| file(format!("/d/{number:06}"), number)).collect();
    upserts.push(SourceEntry { path: b"/d".to_vec(), kind: SourceEntryKind::Directory });
    upserts.push(SourceEntry { path: b"/l\xff".to_vec(), kind: SourceEntryKind::Alias { target: b"/d".to_vec() } });
    upserts.push(SourceEntry { path: b"/x".to_vec(), kind: SourceEntryKind::Forbidden });
    store.apply_source_changes(&SourceChanges { upserts, removals: Vec::new() }).expect("applied");
    for (sequence, day) in [(1, date(2015, 3, 4)), (2, date(2025, 12, 31)), (3, date(2026, 11, 22))] {
        let counts = counts(&[("/d/000001", 5), ("/long gone", 1)]);
        assert!(store.add_stats(&batch("node", sequence, [(day, counts)])).expect("added"));
    }
}

/// Everything that can be read from a store.
#[derive(Debug, PartialEq)]
struct Content {
    mirrors: Vec<Mirror>,
    logs: Vec<Vec<LogEntry>>,
    entries: Vec<SourceEntry>,
    downloads: String,
}

fn content(store: &dyn Store) -> Content {
    let mirrors = store.mirrors().expect("read");
    let logs = mirrors.iter().map(|mirror| store.mirror_log(mirror.id, usize::MAX).expect("read")).collect();
    let range = Some(store::DateRange { first: date(2015, 3, 4), last: date(2026, 11, 22) });
    let downloads = format!(
        "{:?}",
        (
            store.file_downloads(None, &|_| true).expect("read"),
            store.file_downloads(range, &|_| true).expect("read"),
            store.mirror_traffic(None).expect("read"),
            store.mirror_traffic(range).expect("read"),
            store.downloads_of_file(b"/d/000001", date(2026, 11, 22)).expect("read"),
            store.total_downloads().expect("read"),
            store.last_stats_sequence("node").expect("read"),
        )
    );
    Content { mirrors, logs, entries: entries(store), downloads }
}

fn goes_there_and_back(from: DatabaseKind, to: DatabaseKind) {
    let place = Place::new();
    fill(&*place.open(from));
    let expected = content(&*place.open(from));
    let migrated = Migrated { mirrors: 2, log_entries: 50, source_entries: FILES as usize + 3, downloads: 18 };
    assert_eq!(place.migrate(from, false).expect("migrated"), migrated);
    assert_eq!(place.migrate(from, false).expect("migrated again"), migrated);
    assert!(content(&*place.open(to)) == expected);

    // The target is used: a new id follows the old ones, and a batch that was added before is known.
    let target = place.open(to);
    assert!(!target.add_stats(&batch("node", 3, [])).expect("asked"));
    assert_eq!(target.add_mirror(&settings("new")).expect("added"), MirrorId(5));
    assert!(matches!(place.migrate(from, false), Err(MigrateError::TargetInUse)));
    assert_eq!(target.mirrors().expect("read").len(), 3, "nothing was overwritten");

    // And back, over the source.
    assert!(matches!(place.migrate(to, false), Err(MigrateError::TargetInUse)));
    place.migrate(to, true).expect("migrated back");
    place.migrate(to, false).expect("and again");
    assert!(content(&*place.open(from)) == content(&*target));
}

#[test]
fn from_redis_to_embedded_and_back() {
    goes_there_and_back(DatabaseKind::Redis, DatabaseKind::Embedded);
}

#[test]
fn from_embedded_to_redis_and_back() {
    goes_there_and_back(DatabaseKind::Embedded, DatabaseKind::Redis);
}

/// The old installation keeps running between a first copy and the switch.
#[test]
fn a_second_run_brings_the_copy_up_to_date() {
    let place = Place::new();
    let source = place.open(DatabaseKind::Redis);
    fill(&*source);
    place.migrate(DatabaseKind::Redis, false).expect("migrated");
    source.remove_mirror(MirrorId(2)).expect("removed");
    source.add_mirror(&settings("late")).expect("added");
    let removals = vec![b"/d/000003".to_vec(), b"/x".to_vec()];
    let upserts = vec![file("/d/000002", 77), file("/new", 1)];
    source.apply_source_changes(&SourceChanges { upserts, removals }).expect("applied");
    source.add_stats(&batch("node", 4, [(date(2026, 11, 23), counts(&[("/new", 1)]))])).expect("added");
    // A statistics key that was dropped by hand.
    place.server.command::<()>("DEL STATS_FILE_2015_03_04 STATS_MIRROR_2015_03_04 STATS_MIRROR_BYTES_2015_03_04");

    place.migrate(DatabaseKind::Redis, false).expect("migrated again");
    assert!(content(&*place.open(DatabaseKind::Embedded)) == content(&*source));
}

#[test]
fn progress_leads_from_nothing_to_all_of_each_part() {
    let place = Place::new();
    fill(&*place.open(DatabaseKind::Embedded));
    let mut reports: Vec<Progress> = Vec::new();
    let (from, to) = (DatabaseKind::Embedded, DatabaseKind::Redis);
    migrate(&place.config(), from, to, false, &mut |progress| reports.push(progress)).expect("migrated");
    for part in [Part::Mirrors, Part::Logs, Part::SourceEntries, Part::Statistics] {
        let of_part: Vec<&Progress> = reports.iter().filter(|progress| progress.part == part).collect();
        assert_eq!(of_part[0].done, 0, "{part:?}");
        assert!(of_part.is_sorted_by_key(|progress| progress.done), "{of_part:?}");
        assert_eq!(of_part[of_part.len() - 1].done, of_part[0].all, "{part:?}");
    }
}

#[test]
fn a_half_copy_is_not_used_and_can_be_completed() {
    for from in [DatabaseKind::Embedded, DatabaseKind::Redis] {
        let to = if from == DatabaseKind::Redis { DatabaseKind::Embedded } else { DatabaseKind::Redis };
        let place = Place::new();
        fill(&*place.open(from));
        let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            migrate(&place.config(), from, to, false, &mut |progress| {
                assert!(progress.part != Part::SourceEntries, "interrupted");
            })
        }));
        assert!(interrupted.is_err());
        match store::open(&Config { database: to, ..place.config() }) {
            Err(StoreError::Database(text)) => assert!(text.contains("run it again"), "{text}"),
            Err(other) => panic!("another error: {other}"),
            Ok(_) => panic!("opened"),
        }
        place.migrate(from, false).expect("completed");
        assert!(content(&*place.open(to)) == content(&*place.open(from)));
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_changes() {
    let place = Place::new();
    let config = place.config();
    let same = migrate(&config, DatabaseKind::Redis, DatabaseKind::Redis, true, &mut |_| {});
    assert!(matches!(same, Err(MigrateError::SameDatabase)));
    fill(&*place.open(DatabaseKind::Embedded));
    assert!(matches!(place.migrate(DatabaseKind::Redis, true), Err(MigrateError::EmptySource)));
    assert_eq!(EmbeddedStore::open(place.state_dir.path()).expect("opened").mirrors().expect("read").len(), 2);
    place.server.command::<()>("HSET MIRRORS 1 same 2 same");
    assert!(
        matches!(place.migrate(DatabaseKind::Redis, true), Err(MigrateError::DuplicateName(name)) if name == "same")
    );
    assert_eq!(EmbeddedStore::open(place.state_dir.path()).expect("opened").mirrors().expect("read").len(), 2);
}

/// A source in Redis: three mirrors, and what another program wrote of one of them.
fn with_bad_field(field: &str, value: &str) -> Place {
    let place = Place::new();
    let source = place.open(DatabaseKind::Redis);
    let ids = ["first", "bad", "last"].map(|name| source.add_mirror(&settings(name)).expect("added"));
    for mirror in ids {
        source.append_log(&LogEntry { mirror, at: Timestamp(1), event: LogEvent::Added }).expect("appended");
    }
    place.server.send::<()>(&["HSET", &format!("MIRROR_{}", ids[1]), field, value]);
    place
}

/// The refusal of a source with one bad record, which leaves the target empty.
fn refused_record(place: &Place) -> InvalidMirror {
    for force in [false, true] {
        let refusal = place.migrate(DatabaseKind::Redis, force).expect_err("refused");
        let text = refusal.to_string();
        assert!(text.starts_with("1 mirrors of the source are invalid, first \"bad\": "), "{text}");
        assert!(text.ends_with(": repair or remove them first"), "{text}");
        assert_eq!(EmbeddedStore::open(place.state_dir.path()).expect("opened").mirrors().expect("read"), []);
    }
    match place.migrate(DatabaseKind::Redis, false) {
        Err(MigrateError::InvalidMirrors { count: 1, invalid, .. }) => invalid,
        other => panic!("{other:?}"),
    }
}

/// A copy of an invalid record would be another record, or one that the target refuses.
#[test]
fn an_invalid_record_is_refused_by_its_key_and_without_it_all_others_are_copied() {
    for (field, value, key) in [
        ("http", "http://evil.example/\r\nSet-Cookie: x=y\r\n", "HttpURL"),
        ("rsync", "http://a.example/", "RsyncURL"),
        ("score", "many", "the field `score`"),
        ("latitude", "91", "Latitude"),
        ("countryCodes", "D\u{202e}E", "CountryCodes"),
        ("sponsorName", "\x1b[2J", "SponsorName"),
    ] {
        let place = with_bad_field(field, value);
        let invalid = refused_record(&place);
        assert_eq!(invalid.key, key);
        let source = place.open(DatabaseKind::Redis);
        source.remove_mirror(MirrorId(2)).expect("removed");
        let migrated = Migrated { mirrors: 2, log_entries: 2, ..Migrated::default() };
        assert_eq!(place.migrate(DatabaseKind::Redis, false).expect("migrated"), migrated, "{field}");
        assert!(content(&*place.open(DatabaseKind::Embedded)) == content(&*source), "{field}");
    }
}

/// The one rule that records of Mirrorbits may break as they are, since its scores have no bounds.
#[test]
fn a_score_out_of_range_is_refused_and_copied_once_it_is_repaired() {
    let place = with_bad_field("score", "1000001");
    let invalid = refused_record(&place);
    assert_eq!((invalid.key.as_str(), invalid.reason.as_str()), ("Score", "1000001 must be from -1000000 to 1000000"));
    let source = place.open(DatabaseKind::Redis);
    let mirror = source.mirrors().expect("read").into_iter().find(|mirror| mirror.id == MirrorId(2)).expect("there");
    assert_eq!(mirror.settings, MirrorSettings { score: 1_000_001, ..settings("bad") }, "nothing else is lost");
    source.update_settings(mirror.id, &MirrorSettings { score: 1_000_000, ..mirror.settings }).expect("repaired");
    let migrated = Migrated { mirrors: 3, log_entries: 3, ..Migrated::default() };
    assert_eq!(place.migrate(DatabaseKind::Redis, false).expect("migrated"), migrated);
    assert!(content(&*place.open(DatabaseKind::Embedded)) == content(&*source));
}

/// Beside the records: a line of a log that is none of ours, a key of another type.
#[test]
fn what_else_is_bad_of_one_mirror_hurts_no_other() {
    let place = with_bad_field("comment", "fine");
    place.server.send::<()>(&["RPUSH", "MIRRORLOGS_2", "no line of ours", "\0"]);
    place.migrate(DatabaseKind::Redis, false).expect("migrated");
    assert_eq!(place.open(DatabaseKind::Embedded).mirror_log(MirrorId(2), 9).expect("read").len(), 1);

    let place = with_bad_field("comment", "fine");
    place.server.command::<()>("DEL MIRRORLOGS_2");
    place.server.command::<()>("SET MIRRORLOGS_2 text");
    let text = place.migrate(DatabaseKind::Redis, false).expect_err("refused").to_string();
    assert!(text.contains("MIRRORLOGS_2") && text.contains("rename or remove that key"), "{text}");
    assert!(store::open(&Config { database: DatabaseKind::Embedded, ..place.config() }).is_err(), "half a copy");
    place.server.command::<()>("DEL MIRRORLOGS_2");
    let migrated = Migrated { mirrors: 3, log_entries: 2, ..Migrated::default() };
    assert_eq!(place.migrate(DatabaseKind::Redis, false).expect("completed"), migrated);
    assert!(content(&*place.open(DatabaseKind::Embedded)) == content(&*place.open(DatabaseKind::Redis)));
}
