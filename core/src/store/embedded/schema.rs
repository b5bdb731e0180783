//! The tables and their version, and how connections are set up.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::failure::Failure;

/// Version of the tables, in the file's `user_version`. A change of a table raises it.
const VERSION: i64 = 2;

/// How long a writer waits for another: the longest transaction, storing a first source scan, takes seconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// Between two attempts to set a new file up; SQLite does not wait by itself when two processes switch to WAL at once.
const SETUP_RETRY: Duration = Duration::from_millis(20);

/// To what size the WAL file is cut back after it grew by a large transaction.
const WAL_SIZE_KEPT: i64 = 64 << 20;

/// What leads from each version to the next; the first starts from an empty file.
const STEPS: [&str; VERSION as usize] = [MIRRORS_SOURCE_LOGS, STATISTICS_LEASES];

/// Version 1. Ids come from AUTOINCREMENT, which never gives one out again. Settings and state of a mirror share a row, but
/// no statement writes columns of both.
const MIRRORS_SOURCE_LOGS: &str = "
    CREATE TABLE mirror (
        id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),

        name TEXT NOT NULL UNIQUE,
        http_url TEXT NOT NULL,
        rsync_url TEXT NOT NULL,
        ftp_url TEXT NOT NULL,
        sponsor_name TEXT NOT NULL,
        sponsor_url TEXT NOT NULL,
        sponsor_logo_url TEXT NOT NULL,
        admin_name TEXT NOT NULL,
        admin_email TEXT NOT NULL,
        custom_data TEXT NOT NULL,
        continent_only INTEGER NOT NULL CHECK (continent_only IN (0, 1)),
        country_only INTEGER NOT NULL CHECK (country_only IN (0, 1)),
        as_only INTEGER NOT NULL CHECK (as_only IN (0, 1)),
        score INTEGER NOT NULL,
        latitude REAL NOT NULL,
        longitude REAL NOT NULL,
        continent_code TEXT NOT NULL,
        country_codes TEXT NOT NULL,
        excluded_country_codes TEXT NOT NULL,
        asn INTEGER NOT NULL CHECK (asn BETWEEN 0 AND 4294967295),
        comment TEXT NOT NULL,
        allow_redirects INTEGER NOT NULL CHECK (allow_redirects IN (0, 1, 2)),

        enabled INTEGER NOT NULL DEFAULT 0 CHECK (enabled IN (0, 1)),
        http_up INTEGER NOT NULL DEFAULT 0 CHECK (http_up IN (0, 1)),
        http_down_reason TEXT NOT NULL DEFAULT '',
        https_up INTEGER NOT NULL DEFAULT 0 CHECK (https_up IN (0, 1)),
        https_down_reason TEXT NOT NULL DEFAULT '',
        since INTEGER NOT NULL DEFAULT 0,
        timezone_offset_ms INTEGER NOT NULL DEFAULT 0,
        last_sync INTEGER NOT NULL DEFAULT 0,
        last_successful_sync INTEGER NOT NULL DEFAULT 0,
        last_successful_sync_protocol INTEGER NOT NULL DEFAULT 0 CHECK (last_successful_sync_protocol IN (0, 1, 2)),
        last_successful_sync_precision_ns INTEGER NOT NULL DEFAULT 0 CHECK (last_successful_sync_precision_ns >= 0),
        last_mod_time INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE source_entry (
        path BLOB PRIMARY KEY NOT NULL,
        kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 3),
        size INTEGER CHECK (size >= 0),
        modified_ns INTEGER,
        sha1 BLOB CHECK (length(sha1) = 20),
        sha256 BLOB CHECK (length(sha256) = 32),
        md5 BLOB CHECK (length(md5) = 16),
        alias_target BLOB,
        CHECK ((kind = 0) = (size IS NOT NULL AND modified_ns IS NOT NULL)),
        CHECK ((kind = 2) = (alias_target IS NOT NULL))
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE mirror_log (
        mirror INTEGER NOT NULL REFERENCES mirror (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        at INTEGER NOT NULL,
        event TEXT NOT NULL,
        PRIMARY KEY (mirror, number)
    ) STRICT, WITHOUT ROWID;
";

/// Version 2. Counts stay when their mirror goes. A period is 0 (all time), 2026, 202611 or 20261122.
const STATISTICS_LEASES: &str = "
    CREATE TABLE stats_file (
        period INTEGER NOT NULL,
        path BLOB NOT NULL,
        requests INTEGER NOT NULL,
        PRIMARY KEY (period, path)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE stats_mirror (
        period INTEGER NOT NULL,
        mirror INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (period, mirror)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE stats_total (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
        requests INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE stats_sequence (
        node TEXT PRIMARY KEY NOT NULL,
        sequence INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE lease (
        name TEXT PRIMARY KEY NOT NULL,
        holder TEXT NOT NULL,
        ends_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE migration (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
        stage TEXT NOT NULL
    ) STRICT;
";

/// Opens a connection for writes after it made sure that the tables are there and of our version.
pub(super) fn create_or_check(file: &Path) -> Result<Connection, Failure> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let attempt = open(file, OpenFlags::SQLITE_OPEN_CREATE).and_then(|mut connection| {
            set_up_tables(&mut connection)?;
            Ok(connection)
        });
        match attempt {
            Err(Failure::Sqlite(error))
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline =>
            {
                std::thread::sleep(SETUP_RETRY);
            }
            outcome => return outcome,
        }
    }
}

/// Opens a further connection to a file that [`create_or_check`] accepted.
pub(super) fn connect(file: &Path) -> Result<Connection, Failure> {
    open(file, OpenFlags::empty())
}

fn open(file: &Path, flags: OpenFlags) -> Result<Connection, Failure> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(LOCK_PATIENCE)?;
    // FULL: what was acknowledged survives a power cut. Writes are rare, so their fsync costs nothing that matters.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", WAL_SIZE_KEPT)?;
    Ok(connection)
}

/// Creates the tables of a new file, or brings those of an older version up to date.
fn set_up_tables(connection: &mut Connection) -> Result<(), Failure> {
    match user_version(connection)? {
        VERSION => return Ok(()),
        0..VERSION => {}
        version => return Err(wrong_version(version)),
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited for the lock.
    let version = user_version(&transaction)?;
    if !(0..=VERSION).contains(&version) {
        return Err(wrong_version(version));
    }
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if version == 0 && tables > 0 {
        return Err(Failure::Unusable(
            "it is the database of another program: move it away, or set another StateDir".into(),
        ));
    }
    for step in STEPS.iter().skip(version as usize) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

fn user_version(connection: &Connection) -> Result<i64, Failure> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn wrong_version(version: i64) -> Failure {
    Failure::Unusable(if version > VERSION {
        format!(
            "its format version {version} is newer than this program's {VERSION}: use the newer program that wrote it, or \
             restore a backup from before"
        )
    } else {
        format!("its format version {version} was never one of ours (this program's is {VERSION}): move the file away")
    })
}
