//! A database file that is not the one from before: it started as a new store, without a word, and all mirrors were gone.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use mb_core::store::{EmbeddedStore, Store};
use rusqlite::Connection;

use crate::suite::settings;

const FILE: &str = "mirrorbits.sqlite";
const MARKER: &str = "mirrorbits.sqlite.id";

/// A state directory whose store holds the mirror "one".
fn used() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a folder");
    open(directory.path()).add_mirror(&settings("one")).expect("added");
    assert!(directory.path().join(MARKER).exists());
    directory
}

fn open(state_dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(state_dir).expect("opened")
}

/// The text of the refusal, which leaves the file as it is.
fn refusal(state_dir: &Path) -> String {
    let before = fs::read(state_dir.join(FILE)).ok();
    let text = EmbeddedStore::open(state_dir).map(drop).expect_err("refused").to_string();
    assert_eq!(fs::read(state_dir.join(FILE)).ok(), before);
    assert!(text.contains(FILE) && text.contains(MARKER) && text.contains("restore the file from a backup"), "{text}");
    text
}

#[test]
fn an_empty_or_missing_file_is_refused_until_its_marker_is_gone() {
    let directory = used();
    fs::write(directory.path().join(FILE), "").expect("emptied");
    assert!(refusal(directory.path()).contains("is empty (0 bytes)"));
    fs::remove_file(directory.path().join(FILE)).expect("removed");
    assert!(refusal(directory.path()).contains("is missing"));
    fs::write(directory.path().join(FILE), "rubbish".repeat(100)).expect("written");
    assert!(refusal(directory.path()).contains("is no SQLite database"));
    fs::remove_file(directory.path().join(FILE)).expect("removed");
    fs::remove_file(directory.path().join(MARKER)).expect("removed");
    assert_eq!(open(directory.path()).mirrors().expect("read"), []);
}

#[test]
fn another_database_is_refused_and_a_backup_is_taken() {
    let (directory, other) = (used(), used());
    let file = directory.path().join(FILE);
    let backup = fs::read(&file).expect("read");
    fs::copy(other.path().join(FILE), &file).expect("copied");
    assert!(refusal(directory.path()).contains("is another one than before: its id is"));
    fs::write(&file, backup).expect("restored");
    assert_eq!(open(directory.path()).mirrors().expect("read").len(), 1);
}

#[test]
fn a_database_of_an_earlier_release_gets_its_marker() {
    let directory = used();
    let connection = Connection::open(directory.path().join(FILE)).expect("opened");
    connection.pragma_update(None, "application_id", 0).expect("set");
    drop(connection);
    fs::remove_file(directory.path().join(MARKER)).expect("removed");
    assert_eq!(open(directory.path()).mirrors().expect("read").len(), 1);
    assert!(directory.path().join(MARKER).exists());
    assert_eq!(open(directory.path()).mirrors().expect("read").len(), 1);
}

/// The start that writes the marker is the one that could lose SQLite's locks: then the next
/// process to end would take itself for the last one and delete the log of changes that this one
/// goes on to write to.
#[test]
fn a_process_that_ends_leaves_the_changes_of_another() {
    let directory = tempfile::tempdir().expect("a folder");
    let store = open(directory.path());
    store.add_mirror(&settings("one")).expect("added");
    let log = directory.path().join("mirrorbits.sqlite-wal");
    let inode = || fs::metadata(&log).map(|found| found.ino()).ok();
    let before = inode();
    assert!(before.is_some());
    let status = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "identity::second_process", "--ignored"])
        .env("MB_TEST_STATE_DIR", directory.path())
        .status();
    assert!(status.expect("started").success());
    assert_eq!(inode(), before, "the log is in use");
    store.add_mirror(&settings("three")).expect("added");
    let status = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "identity::third_process", "--ignored"])
        .env("MB_TEST_STATE_DIR", directory.path())
        .status();
    assert!(status.expect("started").success(), "another process sees all three mirrors");
}

fn given_state_dir() -> std::path::PathBuf {
    env::var_os("MB_TEST_STATE_DIR").expect("set by the first process").into()
}

#[test]
#[ignore = "runs in another process of the test above"]
fn second_process() {
    open(&given_state_dir()).add_mirror(&settings("two")).expect("added");
}

#[test]
#[ignore = "runs in another process of the test above"]
fn third_process() {
    assert_eq!(open(&given_state_dir()).mirrors().expect("read").len(), 3);
}

#[test]
fn a_file_that_is_emptied_in_use_is_told_by_a_check_and_takes_no_changes() {
    let directory = used();
    let file = directory.path().join(FILE);
    let store = open(directory.path());
    store.check().expect("in place");
    fs::File::options().write(true).open(&file).and_then(|file| file.set_len(0)).expect("emptied");
    for refused in [store.check(), store.add_mirror(&settings("two")).map(drop)] {
        let text = refused.expect_err("refused").to_string();
        assert!(text.contains("was emptied (0 bytes)") && text.contains(FILE), "{text}");
    }
}

#[test]
fn nothing_is_written_once_the_file_was_replaced_or_deleted() {
    let directory = used();
    let file = directory.path().join(FILE);
    let store = open(directory.path());
    let aside = directory.path().join("aside");
    fs::rename(&file, &aside).expect("moved");
    let text = store.add_mirror(&settings("two")).expect_err("refused").to_string();
    assert!(text.contains("deleted or moved away") && text.contains(FILE), "{text}");
    fs::copy(&aside, &file).expect("copied");
    let text = store.add_mirror(&settings("two")).expect_err("refused").to_string();
    assert!(text.contains("replaced by another file"), "{text}");
    assert_eq!(store.check().expect_err("refused").to_string(), text.replace("adding a mirror", "checking it"));
    assert_eq!(store.mirrors().expect("read").len(), 1, "what was stored can be rescued");
    fs::rename(&aside, &file).expect("moved back");
    store.add_mirror(&settings("two")).expect("added");
}
