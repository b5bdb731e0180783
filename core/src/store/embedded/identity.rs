//! Whether the database file is the one that this state directory was used with: an emptied, deleted or exchanged file must not
//! pass for a new store, which would end the redirector's mirrors without a word.
//!
//! The file has a random id, SQLite's `application_id`, and a marker beside it names that id. The marker is written once the
//! id is in the file itself and not only in its `-wal` file, so that the id is compared before SQLite sees the file: SQLite
//! would apply a `-wal` file that was left behind to whatever file is there now.
//!
//! This program opens the file itself only before SQLite does: a process that closes any descriptor
//! of a file loses its POSIX locks on it, SQLite's too, and another process that ends could then
//! delete the `-wal` file that this one uses (<https://www.sqlite.org/howtocorrupt.html>, section
//! 2.2; the bundled version looks at its shared memory as well). Later only the path's status is
//! looked at.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, TransactionBehavior};

use super::failure::Failure;

/// What the name of the marker adds to that of the database.
const MARKER_SUFFIX: &str = ".id";
/// Length of the header of an SQLite file, <https://www.sqlite.org/fileformat.html> section 1.3.
const HEADER_LENGTH: usize = 100;
/// What an SQLite file starts with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where the header has the `application_id`, big-endian.
const ID_OFFSET: usize = 68;

/// Which file a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStatus {
    device: u64,
    inode: u64,
    is_empty: bool,
}

impl FileStatus {
    /// Of the file at `file`; `None` when there is none.
    pub(super) fn of(file: &Path) -> Option<FileStatus> {
        let found = fs::metadata(file).ok()?;
        Some(FileStatus { device: found.dev(), inode: found.ino(), is_empty: found.len() == 0 })
    }
}

/// What happened to the file whose status was `opened` while it was in use; `None` when it is in
/// place.
pub(super) fn disturbance(opened: Option<FileStatus>, file: &Path) -> Option<&'static str> {
    let found = FileStatus::of(file);
    match (opened, found) {
        (_, None) => Some("was deleted or moved away"),
        (Some(opened), Some(found)) if (opened.device, opened.inode) == (found.device, found.inode) => {
            (found.is_empty && !opened.is_empty).then_some("was emptied (0 bytes)")
        }
        (_, Some(_)) => Some("was replaced by another file"),
    }
}

/// Refuses a file that is not the one that the marker names. Does nothing without a marker.
pub(super) fn check(file: &Path) -> Result<(), Failure> {
    let marker = marker(file);
    let Some(expected) = read_marker(&marker)? else { return Ok(()) };
    let found = match header(file)? {
        Header::Missing => "is missing".to_owned(),
        Header::Empty => "is empty (0 bytes)".to_owned(),
        Header::OfAnotherFormat => "is no SQLite database, or its start is damaged".to_owned(),
        Header::Id(id) if id == expected => return Ok(()),
        Header::Id(id) => format!("is another one than before: its id is {id}, and not {expected}"),
    };
    Err(Failure::Unusable(format!(
        "the file {found}. This StateDir was used with a database before, as {} says: restore the file from a backup; or, to start \
         anew or to use this file on purpose, stop both programs, and move away that marker and the -wal and -shm files",
        marker.display()
    )))
}

/// Gives the database an id if it has none yet, and writes the marker if there is none.
pub(super) fn mark(connection: &mut Connection, file: &Path) -> Result<(), Failure> {
    let marker = marker(file);
    if read_marker(&marker)?.is_some() {
        return Ok(());
    }
    if id(connection)? == 0 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done it while this one waited for the lock.
        if id(&transaction)? == 0 {
            let random: i32 = transaction.query_row("SELECT 1 + (random() & 0x3fffffff)", (), |row| row.get(0))?;
            transaction.pragma_update(None, "application_id", random)?;
        }
        transaction.commit()?;
    }
    let id = id(connection)?;
    // A reader may have kept the checkpoint from its end; then the next start writes the marker.
    let is_in_file = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| {
        let (busy, frames, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && frames == copied)
    })?;
    if is_in_file {
        write_marker(&marker, id).map_err(|cause| {
            Failure::Unusable(format!(
                "cannot write the marker {}: {cause}; make that folder writable for this program's user",
                marker.display()
            ))
        })?;
    }
    Ok(())
}

fn id(connection: &Connection) -> Result<i32, Failure> {
    Ok(connection.pragma_query_value(None, "application_id", |row| row.get(0))?)
}

/// The start of a database file.
enum Header {
    Missing,
    Empty,
    OfAnotherFormat,
    Id(i32),
}

fn header(file: &Path) -> Result<Header, Failure> {
    let unreadable = |cause: std::io::Error| Failure::Unusable(format!("the file cannot be read: {cause}"));
    let mut start = Vec::new();
    match File::open(file) {
        Ok(file) => file.take(HEADER_LENGTH as u64).read_to_end(&mut start).map_err(unreadable)?,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Header::Missing),
        Err(cause) => return Err(unreadable(cause)),
    };
    if start.is_empty() {
        return Ok(Header::Empty);
    }
    let id = start.get(ID_OFFSET..ID_OFFSET + 4).and_then(|id| id.try_into().ok()).map(i32::from_be_bytes);
    Ok(match id {
        Some(id) if start.len() == HEADER_LENGTH && start.starts_with(MAGIC) => Header::Id(id),
        _ => Header::OfAnotherFormat,
    })
}

fn marker(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(MARKER_SUFFIX);
    name.into()
}

/// The id that the marker names; `None` without a marker.
fn read_marker(marker: &Path) -> Result<Option<i32>, Failure> {
    let unusable = |cause: String| {
        Failure::Unusable(format!(
            "the marker {} cannot be used: {cause}; restore it, or move it away",
            marker.display()
        ))
    };
    match fs::read_to_string(marker) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| unusable("it holds no id".to_owned())),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(unusable(cause.to_string())),
    }
}

/// Tells files apart that are written by one process at a time.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Two processes that start at once write the same.
fn write_marker(marker: &Path, id: i32) -> std::io::Result<()> {
    let mut name = marker.as_os_str().to_owned();
    name.push(format!(".{}-{}", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let unfinished = PathBuf::from(name);
    let mut file = File::create(&unfinished)?;
    file.write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, marker)
}
