//! Copying the embedded store, and into it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::failure::Failure;
use super::{EmbeddedStore, logs, mirrors, stats};
use crate::mirror::{Mirror, MirrorId};
use crate::store::migrate::{Stage, Transfer};
use crate::store::stats::{Counts, Period};
use crate::store::{LogEntry, Result};

/// `stage` of the `migration` table while a copy is being made.
const RUNNING: &str = "running";
/// The same from then on until a program uses the store.
const DONE: &str = "done";

const WRITING: &str = "writing the copy";
const READING: &str = "reading what is to be copied";

/// Makes a complete copy this program's own; an incomplete one is refused.
pub(super) fn adopt_copy(connection: &Connection) -> std::result::Result<(), Failure> {
    match stage_of_copy(connection)?.as_deref() {
        None => Ok(()),
        Some(RUNNING) => Err(Failure::Unusable(
            "`mirrorbits migrate` was interrupted while it filled this database: run it again".into(),
        )),
        Some(_) => {
            connection.execute("DELETE FROM migration", ())?;
            Ok(())
        }
    }
}

/// The mark of a copy that no program has used yet.
pub(super) fn stage_of_copy(connection: &Connection) -> std::result::Result<Option<String>, Failure> {
    Ok(connection.query_row("SELECT stage FROM migration", (), |row| row.get(0)).optional()?)
}

impl Transfer for EmbeddedStore {
    fn stage(&self) -> Result<Stage> {
        self.read(READING, |connection| {
            if stage_of_copy(connection)?.is_some() {
                return Ok(Stage::Copy);
            }
            let sql = "SELECT EXISTS (SELECT 1 FROM mirror) OR EXISTS (SELECT 1 FROM source_entry)
                OR EXISTS (SELECT 1 FROM stats_total) OR EXISTS (SELECT 1 FROM sqlite_sequence)";
            let used: bool = connection.query_row(sql, (), |row| row.get(0))?;
            Ok(if used { Stage::InUse } else { Stage::Empty })
        })
    }

    fn mark_copy(&self, complete: bool) -> Result<()> {
        self.write(WRITING, |transaction| {
            let stage = if complete { DONE } else { RUNNING };
            transaction.execute("INSERT OR REPLACE INTO migration (only_row, stage) VALUES (0, ?)", [stage])?;
            Ok(())
        })
    }

    fn last_mirror_id(&self) -> Result<u32> {
        self.read(READING, |connection| {
            let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'mirror'";
            Ok(connection.query_row(sql, (), |row| row.get(0)).optional()?.unwrap_or(0))
        })
    }

    fn replace_mirrors(&self, last_id: u32, mirrors: &[Mirror]) -> Result<()> {
        self.write(WRITING, |transaction| {
            transaction.execute("DELETE FROM mirror", ())?;
            for mirror in mirrors {
                mirrors::insert(transaction, mirror)?;
            }
            transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'mirror'", ())?;
            transaction.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('mirror', ?)", [last_id])?;
            Ok(())
        })
    }

    fn replace_log(&self, mirror: MirrorId, entries: &[LogEntry]) -> Result<()> {
        self.write(WRITING, |transaction| {
            transaction.execute("DELETE FROM mirror_log WHERE mirror = ?", [mirror])?;
            entries.iter().try_for_each(|entry| logs::append(transaction, entry))
        })
    }

    fn stats_periods(&self) -> Result<BTreeSet<Period>> {
        self.read(READING, stats::all_periods)
    }

    fn counts_of(&self, period: Period) -> Result<Counts> {
        self.read(READING, |connection| stats::counts_of(connection, period))
    }

    fn replace_counts(&self, period: Period, counts: &Counts) -> Result<()> {
        self.write(WRITING, |transaction| stats::replace_counts(transaction, period, counts))
    }

    fn stats_sequences(&self) -> Result<BTreeMap<String, u64>> {
        self.read(READING, stats::sequences)
    }

    fn replace_totals(&self, downloads: u64, sequences: &BTreeMap<String, u64>) -> Result<()> {
        self.write(WRITING, |transaction| {
            stats::set_total(transaction, downloads)?;
            transaction.execute("DELETE FROM stats_sequence", params![])?;
            sequences.iter().try_for_each(|(node, sequence)| stats::set_sequence(transaction, node, *sequence))
        })
    }
}
