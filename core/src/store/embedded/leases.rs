//! Leases: between the two programs, and the one-shot scans beside them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use super::failure::Failure;
use crate::store::LeaseName;

/// Takes or extends a lease unless another holder's still lasts. Returns whether `holder` has it.
pub(super) fn take(
    connection: &Connection,
    name: LeaseName,
    holder: &str,
    duration: Duration,
) -> Result<bool, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sql = "INSERT INTO lease (name, holder, ends_ms) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET holder = ?2, ends_ms = ?3 WHERE holder = ?2 OR ends_ms <= ?4";
    let taken = connection.prepare_cached(sql)?.execute(params![
        name.key(),
        holder,
        milliseconds(now.saturating_add(duration)),
        milliseconds(now)
    ])?;
    Ok(taken > 0)
}

/// Ends a lease that `holder` has.
pub(super) fn give_back(connection: &Connection, name: LeaseName, holder: &str) -> Result<(), Failure> {
    connection
        .prepare_cached("DELETE FROM lease WHERE name = ? AND holder = ?")?
        .execute(params![name.key(), holder])?;
    Ok(())
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
