//! The embedded backend: the suite, two processes on one file, and files that are not what they should be.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mb_core::mirror::{DownloadProtocol, MirrorId, MirrorSettings, ScanProtocol};
use mb_core::store::{EmbeddedStore, LogEntry, LogEvent, SharedScan, SourceChanges, Store, StoreError};
use mb_core::time::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::suite::{entries, file, mirror, settings};

store_suite!(crate::embedded::with_empty_store);

const FILE: &str = "mirrorbits.sqlite";

/// In memory where that is to be had: a case may write ten thousand times, and each write waits for its disk.
fn with_empty_store(case: impl FnOnce(&dyn Store)) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| state_dir());
    case(&open(directory.path()));
}

fn state_dir() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn open(state_dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(state_dir).expect("opened")
}

/// The text of the error that opening causes.
fn refusal(state_dir: &Path) -> String {
    match EmbeddedStore::open(state_dir) {
        Err(StoreError::Database(text)) => text,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn what_is_stored_is_there_when_opened_again() {
    let directory = state_dir();
    let id = open(directory.path()).add_mirror(&settings("one")).expect("added");
    let store = open(directory.path());
    assert_eq!(mirror(&store, id).settings, settings("one"));
}

/// The one node of this store has its scan results already.
#[test]
fn scan_results_are_not_kept_for_other_nodes() {
    let directory = state_dir();
    let store = open(directory.path());
    let id = store.add_mirror(&settings("one")).expect("added");
    let scan = SharedScan {
        started: Timestamp(1),
        protocol: ScanProtocol::Rsync,
        precision_ns: 1,
        timezone_offset_ms: 0,
        files: 1,
        blocks: vec![[1; 16]],
    };
    assert!(store.share_scan(id, &scan).expect("taken").is_empty());
    assert_eq!(store.shared_scans(&[id]).expect("read"), [None]);
    assert_eq!(store.shared_scan(id).expect("read"), None);
    store.scan_blocks(&scan.blocks, &mut |_, _| panic!("a block was kept")).expect("read");
}

#[test]
fn the_state_directory_is_made_for_this_service_only() {
    let directory = state_dir();
    let nested = directory.path().join("lib/mirrorbits");
    open(&nested);
    let mode = fs::metadata(&nested).expect("made").permissions().mode();
    assert_eq!(mode & 0o777 & !0o750, 0, "{mode:o}");
}

#[test]
fn one_store_may_be_used_while_its_source_entries_are_visited() {
    let directory = state_dir();
    let store = open(directory.path());
    let upserts = vec![file("/a", 1), file("/b", 2)];
    store.apply_source_changes(&SourceChanges { upserts, removals: Vec::new() }).expect("applied");
    let mut visited = 0;
    let mut visit = |_| {
        visited += 1;
        let removals = vec![b"/b".to_vec()];
        store.apply_source_changes(&SourceChanges { upserts: Vec::new(), removals }).expect("applied");
        assert_eq!(store.mirrors().expect("read"), []);
    };
    store.source_entries(&mut visit).expect("read");
    assert_eq!(visited, 2, "a visit sees one snapshot");
    assert_eq!(entries(&store).len(), 1);
}

#[test]
fn many_may_open_a_new_store_at_once() {
    let directory = state_dir();
    thread::scope(|scope| {
        for number in 0..8 {
            let path = directory.path();
            scope.spawn(move || open(path).add_mirror(&settings(&format!("mirror{number}"))).expect("added"));
        }
    });
    assert_eq!(open(directory.path()).mirrors().expect("read").len(), 8);
}

/// The daemon writes settings while the indexer writes health, each in its own process.
#[test]
fn two_processes_lose_nothing_of_each_other() {
    const ROUNDS: i32 = 100;
    let directory = state_dir();
    let store = open(directory.path());
    let id = store.add_mirror(&settings("one")).expect("added");
    let child = spawn("health", directory.path());
    let mut last = settings("one");
    for score in 1..=ROUNDS {
        last = MirrorSettings { score, comment: format!("edit {score}"), ..settings("one") };
        store.update_settings(id, &last).expect("updated");
        store.append_log(&LogEntry { mirror: id, at: Timestamp::now(), event: LogEvent::Edited }).expect("appended");
        assert_eq!(mirror(&store, id).settings, last, "the other process never brings old settings back");
    }
    assert!(finish(child).contains("health is written"));
    let mirror = mirror(&store, id);
    assert_eq!(mirror.settings, last);
    assert_eq!(mirror.state.https.down_reason, format!("check {}", HEALTH_ROUNDS));
    assert_eq!(mirror.state.last_sync, Timestamp(HEALTH_ROUNDS));
    let log = store.mirror_log(id, usize::MAX).expect("read");
    let (edits, errors): (Vec<_>, Vec<_>) = log.iter().partition(|entry| entry.event == LogEvent::Edited);
    assert_eq!((edits.len(), errors.len()), (ROUNDS as usize, HEALTH_ROUNDS as usize));
}

const HEALTH_ROUNDS: i64 = 100;

fn write_health(state_dir: &Path) {
    let store = open(state_dir);
    let id = MirrorId(1);
    for round in 1..=HEALTH_ROUNDS {
        let reason = format!("check {round}");
        store.set_health(id, DownloadProtocol::Https, Some(&reason), Timestamp(round)).expect("set");
        store.record_sync_attempt(id, Timestamp(round)).expect("recorded");
        store
            .append_log(&LogEntry { mirror: id, at: Timestamp(round), event: LogEvent::Error(reason) })
            .expect("appended");
    }
    println!("health is written");
}

/// A scan of a large repository is being stored when the machine kills the indexer. What was stored before must still be
/// there as a whole, without a trace of the scan, and the next scan must be stored as usual.
#[test]
fn a_kill_while_a_scan_is_stored_leaves_the_state_before() {
    let directory = state_dir();
    let store = open(directory.path());
    let before = old_entries();
    store.apply_source_changes(&SourceChanges { upserts: before.clone(), removals: Vec::new() }).expect("applied");
    drop(store);

    let mut child = spawn("apply", directory.path());
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    wait_for_line(&mut output, "applying");
    let wal = directory.path().join(format!("{FILE}-wal"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&wal).map_or(0, |wal| wal.len()) < 1 << 20 {
        assert!(Instant::now() < deadline, "the transaction never reached the disk");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("killed");
    let status = child.wait().expect("reaped");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("read");
    assert_eq!(status.signal(), Some(9));
    assert!(!rest.contains("applied"), "the scan was stored before the kill: make it larger");

    let store = open(directory.path());
    assert!(entries(&store) == before);
    let next = SourceChanges { upserts: vec![file("/new", 1)], removals: vec![before[0].path.clone()] };
    store.apply_source_changes(&next).expect("applied");
    assert_eq!(entries(&store).len(), before.len());
}

fn old_entries() -> Vec<mb_core::store::SourceEntry> {
    (0..2_000).map(|number| file(format!("/old/{number:05}"), 1)).collect()
}

fn apply_large_scan(state_dir: &Path) {
    let store = open(state_dir);
    let upserts = (0..300_000).map(|number| file(format!("/new/folder/{number:07}.iso"), 2)).collect();
    let removals = old_entries().into_iter().map(|entry| entry.path).collect();
    println!("applying");
    store.apply_source_changes(&SourceChanges { upserts, removals }).expect("applied");
    println!("applied");
}

/// What the tests above run in a second process, which is this program again.
#[test]
#[ignore = "runs in the second process of other tests"]
fn second_process() {
    let state_dir = env::var_os("MB_TEST_STATE_DIR").expect("set by the first process");
    match env::var("MB_TEST_TASK").as_deref() {
        Ok("health") => write_health(Path::new(&state_dir)),
        Ok("apply") => apply_large_scan(Path::new(&state_dir)),
        other => panic!("no such task: {other:?}"),
    }
}

fn spawn(task: &str, state_dir: &Path) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "embedded::second_process", "--ignored", "--nocapture"])
        .env("MB_TEST_TASK", task)
        .env("MB_TEST_STATE_DIR", state_dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

/// Waits for the end of a second process, which must be a good one, and gives its output.
fn finish(child: Child) -> String {
    let output = child.wait_with_output().expect("reaped");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

fn wait_for_line(output: &mut impl BufRead, expected: &str) {
    let mut line = String::new();
    while !line.contains(expected) {
        line.clear();
        assert!(output.read_line(&mut line).expect("read") > 0, "the second process ended early");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = state_dir();
    let path = directory.path().join(FILE);
    let content = "this is not a database, whatever its name says\n".repeat(100);
    fs::write(&path, &content).expect("written");
    let text = refusal(directory.path());
    assert!(text.contains(path.to_str().expect("text")) && text.contains("move it away"), "{text}");
    assert_eq!(fs::read_to_string(&path).expect("read"), content);
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let directory = state_dir();
    let path = directory.path().join(FILE);
    Connection::open(&path).expect("opened").execute_batch("CREATE TABLE theirs (a)").expect("created");
    let text = refusal(directory.path());
    assert!(text.contains("another program"), "{text}");
    let tables: i64 = Connection::open(&path)
        .expect("opened")
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .expect("counted");
    assert_eq!(tables, 1);
}

#[test]
fn other_versions_are_refused() {
    let directory = state_dir();
    drop(open(directory.path()));
    let set_version = |version: i64| {
        let connection = Connection::open(directory.path().join(FILE)).expect("opened");
        connection.pragma_update(None, "user_version", version).expect("set");
    };
    set_version(1_000_000);
    let text = refusal(directory.path());
    assert!(text.contains("1000000 is newer") && text.contains(FILE), "{text}");
    set_version(-1);
    assert!(refusal(directory.path()).contains("was never one of ours"));
}

/// A state directory of the first version, which had no statistics.
#[test]
fn a_database_of_version_1_is_brought_up_to_date() {
    let directory = state_dir();
    let id = open(directory.path()).add_mirror(&settings("one")).expect("added");
    let connection = Connection::open(directory.path().join(FILE)).expect("opened");
    connection
        .execute_batch(
            "DROP TABLE stats_file; DROP TABLE stats_mirror; DROP TABLE stats_total; DROP TABLE stats_sequence;
            DROP TABLE lease; DROP TABLE migration; PRAGMA user_version = 1;",
        )
        .expect("taken back");
    drop(connection);
    let store = open(directory.path());
    assert_eq!(mirror(&store, id).settings, settings("one"));
    assert_eq!(store.total_downloads().expect("read"), 0);
}

#[test]
fn damage_is_reported_with_a_remedy() {
    let directory = state_dir();
    let upserts = (0..2_000).map(|number| file(format!("/file{number}"), 1)).collect();
    open(directory.path()).apply_source_changes(&SourceChanges { upserts, removals: Vec::new() }).expect("applied");
    let path = directory.path().join(FILE);
    let mut content = fs::read(&path).expect("read");
    let start = content.len() / 4;
    content[start..].fill(0xa5);
    fs::write(&path, content).expect("written");
    let outcome = EmbeddedStore::open(directory.path()).and_then(|store| store.source_entries(&mut |_| {}));
    let text = outcome.expect_err("the damage is noticed").to_string();
    assert!(text.contains(FILE) && text.contains("restore it from a backup"), "{text}");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named() {
    let directory = state_dir();
    let in_the_way = directory.path().join("file");
    fs::write(&in_the_way, "").expect("written");
    let text = refusal(&in_the_way.join("state"));
    assert!(text.contains("cannot create the state directory") && text.contains("StateDir"), "{text}");
}

#[test]
fn an_unusable_file_names_the_way_out() {
    let directory = state_dir();
    fs::create_dir(directory.path().join(FILE)).expect("made");
    let text = refusal(directory.path());
    assert!(text.contains(FILE) && text.contains("writable for this program's user"), "{text}");
}
