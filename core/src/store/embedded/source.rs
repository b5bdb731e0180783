//! Source files. Both operations go through the table in the order of its key, which is the order of paths.

use rusqlite::{Connection, Params, Row, params};

use super::failure::Failure;
use crate::store::{FileHashes, SourceChanges, SourceEntry, SourceEntryKind};

/// The `kind` column.
const FILE: i64 = 0;
const DIRECTORY: i64 = 1;
const ALIAS: i64 = 2;
const FORBIDDEN: i64 = 3;

/// Hands every entry to `visit` by ascending path; one statement sees one state.
pub(super) fn visit_all(connection: &Connection, visit: &mut dyn FnMut(SourceEntry)) -> Result<(), Failure> {
    let sql = "SELECT path, kind, size, modified_ns, sha1, sha256, md5, alias_target FROM source_entry ORDER BY path";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        visit(entry_of(row)?);
    }
    Ok(())
}

/// Applies a difference. Sorted first, so that each page of the table is visited once.
pub(super) fn apply(connection: &Connection, changes: &SourceChanges) -> Result<(), Failure> {
    let mut removals: Vec<&[u8]> = changes.removals.iter().map(Vec::as_slice).collect();
    removals.sort_unstable();
    let mut delete = connection.prepare_cached("DELETE FROM source_entry WHERE path = ?")?;
    for path in removals {
        delete.execute([path])?;
    }

    let mut upserts: Vec<&SourceEntry> = changes.upserts.iter().collect();
    upserts.sort_by(|one, other| one.path.cmp(&other.path));
    let sql = "INSERT OR REPLACE INTO source_entry (path, kind, size, modified_ns, sha1, sha256, md5, alias_target)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let mut upsert = connection.prepare_cached(sql)?;
    for SourceEntry { path, kind } in upserts {
        match kind {
            SourceEntryKind::File { size, modified, hashes: FileHashes { sha1, sha256, md5 } } => {
                upsert.execute(params![path, FILE, size, modified, sha1, sha256, md5, None::<&[u8]>])?
            }
            SourceEntryKind::Directory => upsert.execute(without_file(path, DIRECTORY, None))?,
            SourceEntryKind::Alias { target } => upsert.execute(without_file(path, ALIAS, Some(target)))?,
            SourceEntryKind::Forbidden => upsert.execute(without_file(path, FORBIDDEN, None))?,
        };
    }
    Ok(())
}

/// The columns of an entry that is no file; the facts of files stay NULL.
fn without_file<'a>(path: &'a [u8], kind: i64, alias_target: Option<&'a Vec<u8>>) -> impl Params + 'a {
    let unset = None::<&[u8]>;
    (path, kind, unset, unset, unset, unset, unset, alias_target)
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<SourceEntry> {
    let kind = match row.get(1)? {
        FILE => SourceEntryKind::File {
            size: row.get(2)?,
            modified: row.get(3)?,
            hashes: FileHashes { sha1: row.get(4)?, sha256: row.get(5)?, md5: row.get(6)? },
        },
        DIRECTORY => SourceEntryKind::Directory,
        ALIAS => SourceEntryKind::Alias { target: row.get(7)? },
        FORBIDDEN => SourceEntryKind::Forbidden,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    };
    Ok(SourceEntry { path: row.get(0)?, kind })
}
