//! A database file that is not the one from before: it started as a new store, without a word, and all mirrors were gone.

use std::fs;
use std::path::Path;

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
    assert_eq!(store.mirrors().expect("read").len(), 1, "what was stored can be rescued");
    fs::rename(&aside, &file).expect("moved back");
    store.add_mirror(&settings("two")).expect("added");
}
