//! The source repository: files in the keys of Mirrorbits, everything else in one hash of ours.
//!
//! A repository may have millions of files, and Redis answers nobody else while it works: everything is read and written in
//! parts of a few milliseconds each.

use redis::{Pipeline, Value};

use super::connection::Session;
use super::failure::Failure;
use super::{file_facts, keys};
use crate::store::{SourceChanges, SourceEntry, SourceEntryKind};

/// Elements asked for by one step of SSCAN and HSCAN.
const SCAN_STEP: usize = 2_000;
/// Files whose facts are read at a time.
const READ_BATCH: usize = 2_000;
/// Entries written by one transaction, of up to four commands each.
const WRITE_BATCH: usize = 500;

/// Values of [`keys::OTHER_ENTRIES`].
const DIRECTORY: &[u8] = b"directory";
const FORBIDDEN: &[u8] = b"forbidden";
const ALIAS_PREFIX: &[u8] = b"alias:";

/// Hands every entry to `visit` by ascending path.
pub(super) fn visit_all(session: &mut Session, visit: &mut dyn FnMut(SourceEntry)) -> Result<(), Failure> {
    let mut paths: Vec<Vec<u8>> = Vec::new();
    session.scan("SSCAN", keys::FILES, SCAN_STEP, &mut |part: Vec<Vec<u8>>| paths.extend(part))?;
    let mut others: Vec<SourceEntry> = Vec::new();
    session.scan("HSCAN", keys::OTHER_ENTRIES, SCAN_STEP, &mut |part: Vec<(Vec<u8>, Vec<u8>)>| {
        others
            .extend(part.into_iter().filter_map(|(path, value)| Some(SourceEntry { path, kind: other_kind(&value)? })));
    })?;
    // The scans of Redis may hand an element over more than once.
    paths.sort_unstable();
    paths.dedup();
    others.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    others.dedup_by(|one, other| one.path == other.path);
    // A Mirrorbits node lists a link as a file, too.
    paths.retain(|path| others.binary_search_by(|other| other.path.cmp(path)).is_err());

    let mut others = others.into_iter().peekable();
    let mut paths = paths.into_iter();
    loop {
        let batch: Vec<Vec<u8>> = paths.by_ref().take(READ_BATCH).collect();
        if batch.is_empty() {
            break;
        }
        let kinds = facts(session, &batch)?;
        for (path, kind) in batch.into_iter().zip(kinds) {
            while let Some(other) = others.next_if(|other| other.path < path) {
                visit(other);
            }
            if let Some(kind) = kind {
                visit(SourceEntry { path, kind });
            }
        }
    }
    others.for_each(visit);
    Ok(())
}

/// Values of the fields of a hash, in the order asked for.
type Fields = Vec<Option<Vec<u8>>>;

/// The facts of files, `None` for those that are gone.
fn facts(session: &mut Session, paths: &[Vec<u8>]) -> Result<Vec<Option<SourceEntryKind>>, Failure> {
    let mut pipeline = redis::pipe();
    for path in paths {
        pipeline.cmd("HMGET").arg(keys::file(path)).arg(&file_facts::FIELDS);
    }
    // A key of another type hurts its file only, which counts as gone until the next source scan writes it anew.
    let rows: Vec<redis::RedisResult<Fields>> = session.query_all(pipeline.ignore_errors())?;
    let read = |(path, row): (&Vec<u8>, redis::RedisResult<Fields>)| match row {
        Ok(row) => <[_; 5]>::try_from(row).ok().and_then(file_facts::read),
        Err(error) => {
            super::warn_once(format!("the key {}: {error}; the file is left out", keys::file(path).escape_ascii()));
            None
        }
    };
    Ok(paths.iter().zip(rows).map(read).collect())
}

fn other_kind(value: &[u8]) -> Option<SourceEntryKind> {
    match value {
        DIRECTORY => Some(SourceEntryKind::Directory),
        FORBIDDEN => Some(SourceEntryKind::Forbidden),
        _ => value.strip_prefix(ALIAS_PREFIX).map(|target| SourceEntryKind::Alias { target: target.to_vec() }),
    }
}

/// Applies a difference, removals first.
pub(super) fn apply(session: &mut Session, changes: &SourceChanges) -> Result<(), Failure> {
    for batch in changes.removals.chunks(WRITE_BATCH) {
        let mut transaction = transaction();
        for path in batch {
            forget_file(&mut transaction, path);
            transaction.cmd("HDEL").arg(keys::OTHER_ENTRIES).arg(path);
        }
        finish(session, transaction, &batch[0])?;
    }
    for batch in changes.upserts.chunks(WRITE_BATCH) {
        let mut transaction = transaction();
        for entry in batch {
            upsert(&mut transaction, entry);
        }
        finish(session, transaction, &batch[0].path)?;
    }
    Ok(())
}

fn transaction() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    pipeline
}

fn finish(session: &mut Session, mut transaction: Pipeline, path: &[u8]) -> Result<(), Failure> {
    transaction.cmd("PUBLISH").arg(keys::FILE_CHANNEL).arg(path);
    session.query_all::<Value>(&transaction)?;
    Ok(())
}

fn upsert(transaction: &mut Pipeline, SourceEntry { path, kind }: &SourceEntry) {
    match kind {
        SourceEntryKind::File { size, modified, hashes } => {
            transaction.cmd("SADD").arg(keys::FILES).arg(path);
            let values = file_facts::write(*size, *modified, hashes);
            // Something of another type in its place would make the transaction fail with each scan.
            transaction.cmd("DEL").arg(keys::file(path));
            transaction.cmd("HSET").arg(keys::file(path));
            for (field, value) in file_facts::FIELDS.iter().zip(&values) {
                transaction.arg(field).arg(value);
            }
            transaction.cmd("HDEL").arg(keys::OTHER_ENTRIES).arg(path);
        }
        SourceEntryKind::Directory => upsert_other(transaction, path, DIRECTORY),
        SourceEntryKind::Forbidden => upsert_other(transaction, path, FORBIDDEN),
        SourceEntryKind::Alias { target } => upsert_other(transaction, path, &[ALIAS_PREFIX, target].concat()),
    }
}

fn upsert_other(transaction: &mut Pipeline, path: &[u8], value: &[u8]) {
    forget_file(transaction, path);
    transaction.cmd("HSET").arg(keys::OTHER_ENTRIES).arg(path).arg(value);
}

fn forget_file(transaction: &mut Pipeline, path: &[u8]) {
    transaction.cmd("SREM").arg(keys::FILES).arg(path);
    transaction.cmd("DEL").arg(keys::file(path));
}
