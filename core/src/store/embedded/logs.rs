//! Mirror logs: numbered per mirror, the event as JSON, since events differ in what they carry.

use rusqlite::{Connection, ErrorCode, params};

use super::failure::Failure;
use crate::mirror::MirrorId;
use crate::store::{LOG_ENTRIES_KEPT, LogEntry, LogEvent};

/// Shown for an entry that is none of ours.
const UNREADABLE: &str = "this entry of the log cannot be read";

/// Appends an entry and drops the one that is now too many.
pub(super) fn append(connection: &Connection, entry: &LogEntry) -> Result<(), Failure> {
    let event = serde_json::to_string(&entry.event).map_err(|cause| Failure::Unusable(cause.to_string()))?;
    let sql = "INSERT INTO mirror_log (mirror, number, at, event)
        SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3 FROM mirror_log WHERE mirror = ?1
        RETURNING number";
    let number: i64 = connection
        .prepare_cached(sql)?
        .query_row(params![entry.mirror, entry.at, event], |row| row.get(0))
        .map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Failure::UnknownMirror(entry.mirror),
            _ => Failure::Sqlite(error),
        })?;
    connection.prepare_cached("DELETE FROM mirror_log WHERE mirror = ? AND number <= ? - ?")?.execute(params![
        entry.mirror,
        number,
        LOG_ENTRIES_KEPT
    ])?;
    Ok(())
}

/// The newest `limit` entries, oldest first.
pub(super) fn newest(connection: &Connection, mirror: MirrorId, limit: usize) -> Result<Vec<LogEntry>, Failure> {
    let sql = "SELECT at, event FROM mirror_log WHERE mirror = ? ORDER BY number DESC LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![mirror, limit.min(LOG_ENTRIES_KEPT)], |row| {
        let event = row.get_ref(1)?.as_str().ok().and_then(|event| serde_json::from_str(event).ok());
        let event = event.unwrap_or_else(|| LogEvent::Error(UNREADABLE.to_owned()));
        Ok(LogEntry { mirror, at: row.get(0)?, event })
    })?;
    let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    entries.reverse();
    Ok(entries)
}
