//! Scan results: what each mirror has, kept by the indexer in `StateDir/scans.sqlite`, and shared with other nodes ([`shared`]).
//!
//! A mirror's result is a list of blocks ([`block`]), and mirrors share blocks of equal content, so hundreds of complete
//! mirrors take little more room than one. The file can be lost without harm: the next scans fill it again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mb_core::mirror::{MirrorId, ScanProtocol};
use mb_core::store::{ScanBlockKey, ScanGeneration};
use mb_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

pub(crate) use self::block::Block;
pub(crate) use self::shared::{FetchedBlocks, Held, is_block};
use super::listing::Listing;

mod block;
mod shared;

/// Version of the tables and of the block format, kept in SQLite's `user_version`.
const FORMAT: i64 = 2;

/// Level of block compression: higher ones gain a few percent for several times the work.
const COMPRESSION_LEVEL: i32 = 3;

/// No block is larger uncompressed: 8,192 files of 65,535 bytes and 20 more each would be, but paths share their starts.
const LARGEST_BLOCK: usize = 600 << 20;

/// How long a writer waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

const TABLES: &str = "
    CREATE TABLE blocks (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, data BLOB NOT NULL, uses INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE scans (
        mirror INTEGER PRIMARY KEY, started INTEGER NOT NULL, protocol INTEGER NOT NULL, precision_ns INTEGER NOT NULL,
        timezone_offset_ms INTEGER NOT NULL, files INTEGER NOT NULL, blocks BLOB NOT NULL, shared_as INTEGER
    ) STRICT;
";

/// What format 1 lacked.
const ADDED_BY_FORMAT_2: &str = "ALTER TABLE scans ADD COLUMN shared_as INTEGER";

/// What went wrong with the scan results.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultsError {
    /// SQLite failed.
    #[error("scan results {path}: {cause}", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// The file was written by another version, or is damaged.
    #[error(
        "scan results {path}: {what}; stop the indexer and remove the file, the next scans write it again",
        path = path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// What is known about a mirror's scan beside its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanFacts {
    /// The mirror scanned.
    pub(crate) mirror: MirrorId,
    /// When the scan started.
    pub(crate) started: Timestamp,
    /// How the files were listed.
    pub(crate) protocol: ScanProtocol,
    /// Resolution of the file times, in nanoseconds.
    pub(crate) precision_ns: u64,
    /// Correction of the file times, in milliseconds.
    pub(crate) timezone_offset_ms: i64,
}

/// A stored scan: its facts and its blocks in path order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredScan {
    /// The facts.
    pub(crate) facts: ScanFacts,
    /// Number of files.
    pub(crate) files: u64,
    /// Ids of its blocks.
    pub(crate) blocks: Vec<BlockId>,
}

/// Number of a block in the file.
pub(crate) type BlockId = i64;

/// The scan results of a state directory.
#[derive(Debug)]
pub(crate) struct ScanResults {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl ScanResults {
    /// Opens or creates the file.
    pub(crate) fn open(state_dir: &Path) -> Result<ScanResults, ResultsError> {
        let path = state_dir.join("scans.sqlite");
        let connection = connect(&path).map_err(database_error(&path))?;
        let results = ScanResults { path, connection: Mutex::new(connection) };
        results.create_tables()?;
        Ok(results)
    }

    fn create_tables(&self) -> Result<(), ResultsError> {
        let found = self.write(|transaction| {
            let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match found {
                0 => transaction.execute_batch(TABLES)?,
                1 => transaction.execute_batch(ADDED_BY_FORMAT_2)?,
                _ => return Ok(found),
            }
            transaction.pragma_update(None, "user_version", FORMAT)?;
            Ok(FORMAT)
        })?;
        match found {
            FORMAT => Ok(()),
            _ => Err(self.unusable(format!("its format is {found}, this program writes {FORMAT}"))),
        }
    }

    /// Replaces a mirror's result as a whole. `listing` must be sorted. Returns how many files of the earlier result are
    /// gone.
    pub(crate) fn replace(&self, facts: &ScanFacts, listing: &Listing) -> Result<u64, ResultsError> {
        let removed = self.write(|transaction| {
            let old = blocks_of(transaction, facts.mirror)?;
            let new = insert_blocks(transaction, listing)?;
            let kept: HashSet<_> = new.iter().copied().collect();
            let mut gone = Some(0);
            for &id in old.iter().filter(|id| !kept.contains(id)) {
                let count = Block::load(transaction, id)?
                    .map(|block| block.files().filter(|file| !listing.contains(file.path)).count() as u64);
                gone = gone.zip(count).map(|(gone, count)| gone + count);
            }
            release_blocks(transaction, &old)?;
            write_scan(transaction, facts, listing.len() as u64, &new, None)?;
            Ok(gone)
        })?;
        Ok(removed.unwrap_or_else(|| {
            tracing::warn!(path = %self.path.display(), mirror = %facts.mirror, "the earlier scan result was damaged");
            0
        }))
    }

    /// Forgets a mirror's result. Returns whether there was one.
    fn remove(&self, mirror: MirrorId) -> Result<bool, ResultsError> {
        self.write(|transaction| {
            release_blocks(transaction, &blocks_of(transaction, mirror)?)?;
            Ok(transaction.execute("DELETE FROM scans WHERE mirror = ?1", [mirror.0])? > 0)
        })
    }

    /// Forgets the results of mirrors that are no longer among those that `list` gives. Returns how many these were.
    ///
    /// `list` is called after the results were looked at, so that a mirror whose first scan is stored meanwhile is safe.
    pub(crate) fn forget_removed<E: From<ResultsError>>(
        &self,
        list: impl FnOnce() -> Result<Vec<MirrorId>, E>,
    ) -> Result<usize, E> {
        let scanned: Vec<_> = self.snapshot()?.scans()?.into_iter().map(|scan| scan.facts.mirror).collect();
        let kept = list()?;
        let removed: Vec<_> = scanned.into_iter().filter(|id| !kept.contains(id)).collect();
        for &id in &removed {
            self.remove(id)?;
        }
        Ok(removed.len())
    }

    /// A view of all results as they are now, however they change while it is read.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, ResultsError> {
        let open = || {
            let connection = connect(&self.path)?;
            connection.execute_batch("BEGIN")?;
            Ok(connection)
        };
        let connection = open().map_err(database_error(&self.path))?;
        Ok(Snapshot { path: self.path.clone(), connection })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A transaction whose thread panicked was rolled back when it was dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, ResultsError> {
        let mut connection = self.connection();
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(database_error(&self.path))
    }

    fn unusable(&self, what: String) -> ResultsError {
        ResultsError::Unusable { path: self.path.clone(), what }
    }
}

/// See [`ScanResults::snapshot`].
#[derive(Debug)]
pub(crate) struct Snapshot {
    path: PathBuf,
    connection: Connection,
}

impl Snapshot {
    /// All scans by ascending mirror id.
    pub(crate) fn scans(&self) -> Result<Vec<StoredScan>, ResultsError> {
        let read = || {
            let mut statement = self.connection.prepare(
                "SELECT mirror, started, protocol, precision_ns, timezone_offset_ms, files, blocks FROM scans ORDER BY mirror",
            )?;
            let scans = statement.query_map([], |row| {
                let facts = ScanFacts {
                    mirror: MirrorId(row.get(0)?),
                    started: Timestamp(row.get(1)?),
                    protocol: protocol_of(row.get(2)?),
                    precision_ns: row.get(3)?,
                    timezone_offset_ms: row.get(4)?,
                };
                Ok(StoredScan { facts, files: row.get(5)?, blocks: block_ids(row.get_ref(6)?.as_blob()?) })
            })?;
            scans.collect::<rusqlite::Result<Vec<_>>>()
        };
        read().map_err(database_error(&self.path))
    }

    /// The compressed bytes of a block, for [`Block::decompress`], which other threads may do.
    pub(crate) fn block_data(&self, id: BlockId) -> Result<Vec<u8>, ResultsError> {
        let data = self
            .connection
            .prepare_cached("SELECT data FROM blocks WHERE id = ?1")
            .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
            .map_err(database_error(&self.path))?;
        data.ok_or_else(|| damaged(&self.path, id))
    }

    /// The file of the results, for error messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Block {
    /// Reads the compressed bytes of block `id` of the results file `path`.
    pub(crate) fn decompress(data: &[u8], id: BlockId, path: &Path) -> Result<Block, ResultsError> {
        decompress(data).and_then(|encoded| Block::decode(&encoded)).ok_or_else(|| damaged(path, id))
    }

    fn load(connection: &Connection, id: BlockId) -> rusqlite::Result<Option<Block>> {
        let mut statement = connection.prepare_cached("SELECT data FROM blocks WHERE id = ?1")?;
        let data: Option<Vec<u8>> = statement.query_row([id], |row| row.get(0)).optional()?;
        Ok(data.and_then(|data| Block::decode(&decompress(&data)?)))
    }
}

fn decompress(data: &[u8]) -> Option<Vec<u8>> {
    let size = usize::try_from(zstd::zstd_safe::get_frame_content_size(data).ok()??).ok()?;
    if size > LARGEST_BLOCK {
        return None;
    }
    zstd::bulk::decompress(data, size).ok()
}

fn damaged(path: &Path, id: BlockId) -> ResultsError {
    ResultsError::Unusable { path: path.to_owned(), what: format!("block {id} is missing or damaged") }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A power cut may lose the latest scans, never damage the file; they are scanned again.
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(connection)
}

fn database_error(path: &Path) -> impl FnOnce(rusqlite::Error) -> ResultsError + '_ {
    |cause| match cause.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            ResultsError::Unusable { path: path.to_owned(), what: cause.to_string() }
        }
        _ => ResultsError::Database { path: path.to_owned(), cause },
    }
}

fn blocks_of(transaction: &Transaction<'_>, mirror: MirrorId) -> rusqlite::Result<Vec<BlockId>> {
    let blocks: Option<Vec<u8>> =
        transaction.query_row("SELECT blocks FROM scans WHERE mirror = ?1", [mirror.0], |row| row.get(0)).optional()?;
    Ok(block_ids(&blocks.unwrap_or_default()))
}

fn write_scan(
    transaction: &Transaction<'_>,
    facts: &ScanFacts,
    files: u64,
    blocks: &[BlockId],
    shared_as: Option<ScanGeneration>,
) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT OR REPLACE INTO scans VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            facts.mirror.0,
            facts.started.0,
            protocol_number(facts.protocol),
            facts.precision_ns.min(i64::MAX as u64) as i64,
            facts.timezone_offset_ms,
            files.min(i64::MAX as u64) as i64,
            block_list(blocks),
            shared_as.map(|generation| generation.0.cast_signed())
        ],
    )?;
    Ok(())
}

fn insert_blocks(transaction: &Transaction<'_>, listing: &Listing) -> rusqlite::Result<Vec<BlockId>> {
    let mut ids = Vec::new();
    block::for_each_block(listing.iter(), |encoded| {
        let compress = || {
            zstd::bulk::compress(encoded, COMPRESSION_LEVEL)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
        };
        ids.push(use_block(transaction, &block::key(encoded), compress)?);
        Ok::<(), rusqlite::Error>(())
    })?;
    Ok(ids)
}

/// Counts one more use of a block, which `data` gives when it is new.
fn use_block(
    transaction: &Transaction<'_>,
    key: &ScanBlockKey,
    data: impl FnOnce() -> rusqlite::Result<Vec<u8>>,
) -> rusqlite::Result<BlockId> {
    let mut use_again = transaction.prepare_cached("UPDATE blocks SET uses = uses + 1 WHERE key = ?1 RETURNING id")?;
    if let Some(id) = use_again.query_row([key], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    let mut insert =
        transaction.prepare_cached("INSERT INTO blocks (key, data, uses) VALUES (?1, ?2, 1) RETURNING id")?;
    insert.query_row(params![key, data()?], |row| row.get(0))
}

fn release_blocks(transaction: &Transaction<'_>, ids: &[BlockId]) -> rusqlite::Result<()> {
    let mut release = transaction.prepare_cached("UPDATE blocks SET uses = uses - 1 WHERE id = ?1 RETURNING uses")?;
    let mut delete = transaction.prepare_cached("DELETE FROM blocks WHERE id = ?1")?;
    for &id in ids {
        let uses: Option<i64> = release.query_row([id], |row| row.get(0)).optional()?;
        if uses.is_some_and(|uses| uses <= 0) {
            delete.execute([id])?;
        }
    }
    Ok(())
}

/// Block ids as they are stored: 8 bytes each, little-endian.
fn block_list(ids: &[BlockId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn block_ids(list: &[u8]) -> Vec<BlockId> {
    list.as_chunks().0.iter().copied().map(BlockId::from_le_bytes).collect()
}

fn protocol_number(protocol: ScanProtocol) -> i64 {
    match protocol {
        ScanProtocol::Rsync => 0,
        ScanProtocol::Ftp => 1,
        ScanProtocol::Http => 2,
    }
}

fn protocol_of(number: i64) -> ScanProtocol {
    match number {
        1 => ScanProtocol::Ftp,
        2 => ScanProtocol::Http,
        _ => ScanProtocol::Rsync,
    }
}

#[cfg(test)]
mod tests;
