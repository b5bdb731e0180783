//! Counts on disk while the store is away: an SQLite file in the state directory, with one owner at a time.
//!
//! It holds *batches*, which were sent and whose fate is not known, each under the name and number by which the store knows
//! whether it has them; and *loose* counts, which were never sent. Loose counts become a batch in one transaction before
//! they are sent, so that a process that dies at any moment leaves nothing that could be counted twice.
//!
//! What is committed survives the death of the process. A power cut may take the last seconds: waiting for the disk twice a
//! second would hold up whoever shares it.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mb_core::mirror::MirrorId;
use mb_core::store::{StatsBatch, Traffic};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use time::Date;

use super::delivery::{Days, downloads};

/// Name of the spool; SQLite puts `-wal` and `-shm` files beside it.
const FILE_NAME: &str = "statistics-spool.sqlite";
/// Held by the owner.
const LOCK_NAME: &str = "statistics-spool.lock";
/// As the store creates the state directory.
const STATE_DIR_MODE: u32 = 0o750;
/// Format of the file.
const VERSION: i64 = 1;
/// What stands for a batch where there is none.
const LOOSE: i64 = 0;

const TABLES: &str = "
    CREATE TABLE batch (
        id INTEGER PRIMARY KEY NOT NULL CHECK (id > 0),
        node TEXT NOT NULL,
        sequence INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE file_count (
        batch INTEGER NOT NULL,
        day INTEGER NOT NULL,
        path BLOB NOT NULL,
        requests INTEGER NOT NULL,
        PRIMARY KEY (batch, day, path)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE mirror_count (
        batch INTEGER NOT NULL,
        day INTEGER NOT NULL,
        mirror INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (batch, day, mirror)
    ) STRICT, WITHOUT ROWID;
";

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The state directory or the lock file.
    #[error("{path}: {step}: {cause}; make the state directory writable for this program's user")]
    Folder {
        /// What was touched.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The database.
    #[error("{file}: {step}: {cause}; make room on that disk, or move the file away when it is damaged")]
    Database {
        /// The spool.
        file: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// The file is of another program.
    #[error(
        "{file}: its format version {version} is not this program's {VERSION}; start the program that wrote it once, or move it away"
    )]
    Version {
        /// The spool.
        file: PathBuf,
        /// What it says.
        version: i64,
    },
}

/// Names a batch of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(i64);

/// The spool, owned.
pub struct Spool {
    file: PathBuf,
    connection: Connection,
    downloads: u64,
    /// Released by the system when this process ends, however it does.
    _lock: File,
}

impl Spool {
    /// Opens the spool of a state directory, and creates it where there is none; `None` while another process owns it.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(state_dir: &Path) -> Result<Option<Spool>, SpoolError> {
        DirBuilder::new()
            .recursive(true)
            .mode(STATE_DIR_MODE)
            .create(state_dir)
            .map_err(folder_error(state_dir, "creating it"))?;
        let lock_file = state_dir.join(LOCK_NAME);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_file);
        let lock = lock.map_err(folder_error(&lock_file, "opening it"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(folder_error(&lock_file, "locking it")(cause)),
        }
        let file = state_dir.join(FILE_NAME);
        let failed = |cause| SpoolError::Database { file: file.clone(), step: "opening it", cause };
        let mut connection = Connection::open(&file).map_err(failed)?;
        let version = set_up(&mut connection).map_err(failed)?;
        if version != VERSION {
            return Err(SpoolError::Version { file, version });
        }
        let sum = "SELECT coalesce(sum(requests), 0) FROM file_count";
        let downloads = connection.query_row(sum, (), |row| row.get(0)).map_err(failed)?;
        Ok(Some(Spool { file, connection, downloads, _lock: lock }))
    }

    /// How many downloads it holds.
    pub fn downloads(&self) -> u64 {
        self.downloads
    }

    /// Keeps counts that were never sent.
    ///
    /// # Errors
    /// [`SpoolError::Database`]; nothing is kept then.
    pub fn add(&mut self, days: &Days) -> Result<(), SpoolError> {
        self.write("adding counts", |transaction| insert(transaction, LOOSE, days))?;
        self.downloads += downloads(days);
        Ok(())
    }

    /// Keeps a batch that was sent and not answered.
    ///
    /// # Errors
    /// [`SpoolError::Database`]; nothing is kept then.
    pub fn add_batch(&mut self, batch: &StatsBatch) -> Result<BatchId, SpoolError> {
        let id = self.write("adding a batch", |transaction| {
            let id = new_batch(transaction, &batch.node, batch.sequence)?;
            insert(transaction, id, &batch.days)?;
            Ok(id)
        })?;
        self.downloads += batch.downloads();
        Ok(BatchId(id))
    }

    /// The batch to send next: the oldest of those whose fate is not known, else at most `files` files of what was never
    /// sent, from now on under this name and number. `None` when the spool is empty.
    ///
    /// # Errors
    /// [`SpoolError::Database`].
    pub fn next_batch(
        &mut self,
        node: &str,
        sequence: u64,
        files: usize,
    ) -> Result<Option<(BatchId, StatsBatch)>, SpoolError> {
        if self.downloads == 0 {
            return Ok(None);
        }
        self.write("taking a batch", |transaction| {
            let oldest = "SELECT id FROM batch ORDER BY id LIMIT 1";
            let id = match transaction.query_row(oldest, (), |row| row.get(0)).optional()? {
                Some(id) => id,
                None => match cut(transaction, node, sequence, files)? {
                    Some(id) => id,
                    None => return Ok(None),
                },
            };
            Ok(Some((BatchId(id), read(transaction, id)?)))
        })
    }

    /// Forgets a batch that the store has.
    ///
    /// # Errors
    /// [`SpoolError::Database`]; the batch stays, and the store will know that it has it.
    pub fn remove(&mut self, id: BatchId) -> Result<(), SpoolError> {
        let removed: u64 = self.write("removing a batch", |transaction| {
            let sum = "SELECT coalesce(sum(requests), 0) FROM file_count WHERE batch = ?";
            let removed = transaction.query_row(sum, [id.0], |row| row.get(0))?;
            for table in ["file_count WHERE batch", "mirror_count WHERE batch", "batch WHERE id"] {
                transaction.execute(&format!("DELETE FROM {table} = ?"), [id.0])?;
            }
            Ok(removed)
        })?;
        self.downloads -= removed;
        Ok(())
    }

    fn write<T>(
        &mut self,
        step: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, SpoolError> {
        let run = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let outcome = change(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        };
        run().map_err(|cause| SpoolError::Database { file: self.file.clone(), step, cause })
    }
}

fn folder_error(path: &Path, step: &'static str) -> impl Fn(std::io::Error) -> SpoolError {
    move |cause| SpoolError::Folder { path: path.to_owned(), step, cause }
}

/// Creates the tables of a new file. Returns the version of the file.
fn set_up(connection: &mut Connection) -> rusqlite::Result<i64> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != 0 {
        return Ok(version);
    }
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(VERSION)
}

fn new_batch(transaction: &Transaction<'_>, node: &str, sequence: u64) -> rusqlite::Result<i64> {
    transaction.execute("INSERT INTO batch (node, sequence) VALUES (?, ?)", params![node, sequence])?;
    Ok(transaction.last_insert_rowid())
}

fn insert(transaction: &Transaction<'_>, batch: i64, days: &Days) -> rusqlite::Result<()> {
    let mut add_file = transaction.prepare_cached(
        "INSERT INTO file_count (batch, day, path, requests) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET requests = requests + ?4",
    )?;
    let mut add_mirror = transaction.prepare_cached(
        "INSERT INTO mirror_count (batch, day, mirror, requests, bytes) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT DO UPDATE SET requests = requests + ?4, bytes = bytes + ?5",
    )?;
    for (day, counts) in days {
        let day = day.to_julian_day();
        for (path, requests) in &counts.files {
            add_file.execute(params![batch, day, path, requests])?;
        }
        for (mirror, Traffic { requests, bytes }) in &counts.mirrors {
            add_mirror.execute(params![batch, day, mirror.0, requests, bytes])?;
        }
    }
    Ok(())
}

/// Makes a batch of some of the loose counts; `None` when there are none.
fn cut(transaction: &Transaction<'_>, node: &str, sequence: u64, files: usize) -> rusqlite::Result<Option<i64>> {
    let id = new_batch(transaction, node, sequence)?;
    let moved_files = transaction.execute(
        "UPDATE file_count SET batch = ?1 WHERE (batch, day, path) IN
        (SELECT batch, day, path FROM file_count WHERE batch = ?2 ORDER BY day, path LIMIT ?3)",
        params![id, LOOSE, files],
    )?;
    let moved_mirrors =
        transaction.execute("UPDATE mirror_count SET batch = ?1 WHERE batch = ?2", params![id, LOOSE])?;
    if moved_files + moved_mirrors == 0 {
        transaction.execute("DELETE FROM batch WHERE id = ?", [id])?;
        return Ok(None);
    }
    Ok(Some(id))
}

fn read(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<StatsBatch> {
    let head = "SELECT node, sequence FROM batch WHERE id = ?";
    let (node, sequence) = transaction.query_row(head, [id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut days = Days::new();
    let mut files = transaction.prepare_cached("SELECT day, path, requests FROM file_count WHERE batch = ?")?;
    let mut rows = files.query([id])?;
    while let Some(row) = rows.next()? {
        days.entry(date(row.get(0)?)).or_default().files.insert(row.get(1)?, row.get(2)?);
    }
    let mut mirrors =
        transaction.prepare_cached("SELECT day, mirror, requests, bytes FROM mirror_count WHERE batch = ?")?;
    let mut rows = mirrors.query([id])?;
    while let Some(row) = rows.next()? {
        let traffic = Traffic { requests: row.get(2)?, bytes: row.get(3)? };
        days.entry(date(row.get(0)?)).or_default().mirrors.insert(MirrorId(row.get(1)?), traffic);
    }
    Ok(StatsBatch { node, sequence, days })
}

/// The day of a number that [`insert`] wrote.
fn date(julian_day: i32) -> Date {
    Date::from_julian_day(julian_day).unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::delivery::Gathered;
    use super::*;

    fn days(downloads: &[(&str, u32, u64)]) -> Days {
        let mut gathered = Gathered::default();
        for (path, mirror, requests) in downloads {
            let day = Date::from_ordinal_date(2026, 300).unwrap();
            gathered.add(day, path.as_bytes(), 7, MirrorId(*mirror), *requests);
        }
        gathered.days().clone()
    }

    fn open(folder: &Path) -> Spool {
        Spool::open(folder).unwrap().unwrap()
    }

    #[test]
    fn it_has_one_owner_and_keeps_what_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        assert!(Spool::open(folder.path()).unwrap().is_none(), "owned already");
        spool.add(&days(&[("/a", 1, 2), ("/b", 2, 1)])).unwrap();
        spool.add(&days(&[("/a", 1, 3)])).unwrap();
        drop(spool);
        let mut spool = open(folder.path());
        assert_eq!(spool.downloads(), 6);
        let (id, batch) = spool.next_batch("n", 1, 10).unwrap().unwrap();
        assert_eq!((batch.node.as_str(), batch.sequence), ("n", 1));
        assert_eq!(batch.days, days(&[("/a", 1, 5), ("/b", 2, 1)]));
        spool.remove(id).unwrap();
        assert_eq!(spool.downloads(), 0);
        assert!(spool.next_batch("n", 2, 10).unwrap().is_none());
    }

    /// The heart of "never twice": a batch whose fate is not known comes again as it was, under its first name.
    #[test]
    fn a_batch_of_unknown_fate_comes_first_and_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        let sent = StatsBatch { node: "first".into(), sequence: 9, days: days(&[("/a", 1, 1)]) };
        spool.add_batch(&sent).unwrap();
        spool.add(&days(&[("/a", 1, 4)])).unwrap();
        drop(spool);
        let mut spool = open(folder.path());
        let (id, batch) = spool.next_batch("second", 1, 10).unwrap().unwrap();
        assert_eq!(batch, sent);
        assert_eq!(spool.next_batch("second", 1, 10).unwrap(), Some((id, sent)), "until it is removed");
        spool.remove(id).unwrap();
        let (_, batch) = spool.next_batch("second", 1, 10).unwrap().unwrap();
        assert_eq!((batch.node.as_str(), batch.downloads()), ("second", 4));
    }

    #[test]
    fn a_large_spool_is_taken_by_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        let paths: Vec<String> = (0..25).map(|number| format!("/{number}")).collect();
        spool.add(&days(&paths.iter().map(|path| (path.as_str(), 1, 2)).collect::<Vec<_>>())).unwrap();
        let (mut taken, mut bytes, mut sequence) = (0, 0, 0);
        while let Some((id, batch)) = spool.next_batch("n", sequence + 1, 10).unwrap() {
            sequence = batch.sequence;
            taken += batch.downloads();
            let mirrors = batch.days.values().flat_map(|counts| counts.mirrors.values());
            bytes += mirrors.map(|traffic| traffic.bytes).sum::<u64>();
            spool.remove(id).unwrap();
        }
        assert_eq!((sequence, taken, bytes), (3, 50, 350));
    }
}
