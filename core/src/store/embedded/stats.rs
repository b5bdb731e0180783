//! Statistics: each count by the number of its period, so that a range is read from a few parts of a table.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use time::Date;

use super::failure::Failure;
use crate::mirror::MirrorId;
use crate::store::stats::{Counts, DateRange, FileDownloads, Period, StatsBatch, Traffic, periods};

/// Adds a batch unless it was added before. Returns whether it was added.
pub(super) fn add(connection: &Connection, batch: &StatsBatch) -> Result<bool, Failure> {
    if batch.sequence <= last_sequence(connection, &batch.node)? {
        return Ok(false);
    }
    set_sequence(connection, &batch.node, batch.sequence)?;
    let mut add_file = connection.prepare_cached(
        "INSERT INTO stats_file (period, path, requests) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET requests = requests + ?3",
    )?;
    let mut add_mirror = connection.prepare_cached(
        "INSERT INTO stats_mirror (period, mirror, requests, bytes) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET requests = requests + ?3, bytes = bytes + ?4",
    )?;
    for (day, counts) in &batch.days {
        for period in Period::containing(*day) {
            for (path, requests) in &counts.files {
                add_file.execute(params![period.number(), path, requests])?;
            }
            for (mirror, Traffic { requests, bytes }) in &counts.mirrors {
                add_mirror.execute(params![period.number(), mirror, requests, bytes])?;
            }
        }
    }
    let total = total(connection)?.saturating_add(batch.downloads());
    set_total(connection, total)?;
    Ok(true)
}

/// The last batch of `node`.
pub(super) fn last_sequence(connection: &Connection, node: &str) -> Result<u64, Failure> {
    let mut statement = connection.prepare_cached("SELECT sequence FROM stats_sequence WHERE node = ?")?;
    Ok(statement.query_row([node], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Writes the last batch of `node`.
pub(super) fn set_sequence(connection: &Connection, node: &str, sequence: u64) -> Result<(), Failure> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO stats_sequence (node, sequence) VALUES (?, ?)")?
        .execute(params![node, sequence])?;
    Ok(())
}

/// Downloads of the wanted files.
pub(super) fn file_downloads(
    connection: &Connection,
    range: Option<DateRange>,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<BTreeMap<Vec<u8>, u64>, Failure> {
    let mut downloads = BTreeMap::new();
    for period in periods(range) {
        visit_files(connection, period, &mut |path, requests| {
            if requests > 0 && wanted(path) {
                let sum: &mut u64 = downloads.entry(path.to_vec()).or_default();
                *sum = sum.saturating_add(requests);
            }
        })?;
    }
    Ok(downloads)
}

/// Downloads of one file.
pub(super) fn downloads_of_file(connection: &Connection, path: &[u8], day: Date) -> Result<FileDownloads, Failure> {
    let [day, month, year, all_time] = Period::containing(day);
    Ok(FileDownloads {
        day: downloads_in(connection, path, day)?,
        month: downloads_in(connection, path, month)?,
        year: downloads_in(connection, path, year)?,
        all_time: downloads_in(connection, path, all_time)?,
    })
}

/// Downloads of one file in one period.
pub(super) fn downloads_in(connection: &Connection, path: &[u8], period: Period) -> Result<u64, Failure> {
    let mut statement = connection.prepare_cached("SELECT requests FROM stats_file WHERE period = ? AND path = ?")?;
    Ok(statement.query_row(params![period.number(), path], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Traffic of all mirrors.
pub(super) fn mirror_traffic(
    connection: &Connection,
    range: Option<DateRange>,
) -> Result<BTreeMap<MirrorId, Traffic>, Failure> {
    let mut traffic: BTreeMap<MirrorId, Traffic> = BTreeMap::new();
    for period in periods(range) {
        for (mirror, counted) in mirrors_of(connection, period)? {
            traffic.entry(mirror).or_default().add(counted);
        }
    }
    Ok(traffic)
}

/// All downloads.
pub(super) fn total(connection: &Connection) -> Result<u64, Failure> {
    let mut statement = connection.prepare_cached("SELECT requests FROM stats_total")?;
    Ok(statement.query_row((), |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Writes the count of all downloads.
pub(super) fn set_total(connection: &Connection, requests: u64) -> Result<(), Failure> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO stats_total (only_row, requests) VALUES (0, ?)")?
        .execute([requests])?;
    Ok(())
}

/// Every period that has counts.
pub(super) fn all_periods(connection: &Connection) -> Result<BTreeSet<Period>, Failure> {
    let mut statement =
        connection.prepare("SELECT DISTINCT period FROM stats_file UNION SELECT DISTINCT period FROM stats_mirror")?;
    let numbers = statement.query_map((), |row| row.get::<_, i64>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(numbers.into_iter().filter_map(Period::from_number).collect())
}

/// What was counted in one period.
pub(super) fn counts_of(connection: &Connection, period: Period) -> Result<Counts, Failure> {
    let mut files = BTreeMap::new();
    visit_files(connection, period, &mut |path, requests| {
        files.insert(path.to_vec(), requests);
    })?;
    Ok(Counts { files, mirrors: mirrors_of(connection, period)? })
}

/// Forgets what was counted in one period.
pub(super) fn drop_counts(connection: &Connection, period: Period) -> Result<(), Failure> {
    let number = period.number();
    connection.prepare_cached("DELETE FROM stats_file WHERE period = ?")?.execute([number])?;
    connection.prepare_cached("DELETE FROM stats_mirror WHERE period = ?")?.execute([number])?;
    Ok(())
}

/// Replaces what was counted in one period.
pub(super) fn replace_counts(connection: &Connection, period: Period, counts: &Counts) -> Result<(), Failure> {
    drop_counts(connection, period)?;
    let number = period.number();
    let mut insert = connection.prepare_cached("INSERT INTO stats_file (period, path, requests) VALUES (?, ?, ?)")?;
    for (path, requests) in &counts.files {
        insert.execute(params![number, path, requests])?;
    }
    let mut insert =
        connection.prepare_cached("INSERT INTO stats_mirror (period, mirror, requests, bytes) VALUES (?, ?, ?, ?)")?;
    for (mirror, Traffic { requests, bytes }) in &counts.mirrors {
        insert.execute(params![number, mirror, requests, bytes])?;
    }
    Ok(())
}

/// The last batch of each node.
pub(super) fn sequences(connection: &Connection) -> Result<BTreeMap<String, u64>, Failure> {
    let mut statement = connection.prepare("SELECT node, sequence FROM stats_sequence")?;
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn visit_files(connection: &Connection, period: Period, visit: &mut dyn FnMut(&[u8], u64)) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached("SELECT path, requests FROM stats_file WHERE period = ?")?;
    let mut rows = statement.query([period.number()])?;
    while let Some(row) = rows.next()? {
        visit(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?, row.get(1)?);
    }
    Ok(())
}

fn mirrors_of(connection: &Connection, period: Period) -> Result<BTreeMap<MirrorId, Traffic>, Failure> {
    let sql = "SELECT mirror, requests, bytes FROM stats_mirror WHERE period = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement
        .query_map([period.number()], |row| Ok((row.get(0)?, Traffic { requests: row.get(1)?, bytes: row.get(2)? })))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
