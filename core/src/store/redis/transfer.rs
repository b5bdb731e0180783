//! Copying a Redis database, and into it.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use super::connection::Session;
use super::failure::Failure;
use super::version::{MIGRATION_DONE, MIGRATION_RUNNING};
use super::{RedisStore, keys, logs, records, stats};
use crate::mirror::{Mirror, MirrorId};
use crate::store::migrate::{Stage, Transfer};
use crate::store::stats::{Counts, Period};
use crate::store::{LogEntry, Result};

/// Fields or elements written by one command.
const WRITE_BATCH: usize = 2_000;

const WRITING: &str = "writing the copy";
const READING: &str = "reading what is to be copied";

impl Transfer for RedisStore {
    fn stage(&self) -> Result<Stage> {
        self.with_session(READING, |session| {
            if session.query(redis::cmd("EXISTS").arg(keys::MIGRATION))? {
                return Ok(Stage::Copy);
            }
            let data = [
                keys::MIRRORS,
                keys::LAST_ID,
                keys::FILES,
                keys::OTHER_ENTRIES,
                keys::STATS_TOTAL,
                keys::STATS_FILE,
                keys::STATS_MIRROR,
            ];
            let used: u32 = session.query(redis::cmd("EXISTS").arg(&data))?;
            Ok(if used > 0 { Stage::InUse } else { Stage::Empty })
        })
    }

    fn mark_copy(&self, complete: bool) -> Result<()> {
        let stage = if complete { MIGRATION_DONE } else { MIGRATION_RUNNING };
        self.with_session(WRITING, |session| session.query(redis::cmd("SET").arg(keys::MIGRATION).arg(stage)))
    }

    fn last_mirror_id(&self) -> Result<u32> {
        let id: Option<u32> =
            self.with_session(READING, |session| session.query(redis::cmd("GET").arg(keys::LAST_ID)))?;
        Ok(id.unwrap_or(0))
    }

    fn replace_mirrors(&self, last_id: u32, mirrors: &[Mirror]) -> Result<()> {
        self.with_session(WRITING, |session| {
            let old: Vec<String> = session.query(redis::cmd("HKEYS").arg(keys::MIRRORS))?;
            let mut transaction = redis::pipe();
            transaction.atomic();
            for id in old.iter().filter_map(|id| id.parse().ok()).map(MirrorId) {
                transaction.cmd("UNLINK").arg(&keys::of_removed_mirror(id));
            }
            // Nodes share again what they scanned.
            transaction.cmd("UNLINK").arg(&[keys::MIRRORS, keys::SCAN_BLOCKS, keys::SCAN_USES]);
            for mirror in mirrors {
                write_mirror(&mut transaction, mirror);
            }
            transaction.cmd("SET").arg(keys::LAST_ID).arg(last_id);
            session.query_all::<Value>(&transaction).map(|_| ())
        })
    }

    fn replace_log(&self, mirror: MirrorId, entries: &[LogEntry]) -> Result<()> {
        self.with_session(WRITING, |session| {
            let lines: Vec<String> =
                entries.iter().map(logs::write).collect::<std::result::Result<_, _>>().map_err(Failure::Unusable)?;
            let mut transaction = redis::pipe();
            transaction.atomic().cmd("UNLINK").arg(keys::log(mirror));
            for batch in lines.chunks(WRITE_BATCH) {
                transaction.cmd("RPUSH").arg(keys::log(mirror)).arg(batch);
            }
            session.query_all::<Value>(&transaction).map(|_| ())
        })
    }

    fn stats_periods(&self) -> Result<BTreeSet<Period>> {
        self.with_session(READING, stats::all_periods)
    }

    fn counts_of(&self, period: Period) -> Result<Counts> {
        self.with_session(READING, |session| {
            let files = stats::files_of(session, period, &|_| true)?.into_iter().collect();
            Ok(Counts { files, mirrors: stats::mirrors_of(session, period)? })
        })
    }

    fn replace_counts(&self, period: Period, Counts { files, mirrors }: &Counts) -> Result<()> {
        let files: Vec<(&[u8], u64)> = files.iter().map(|(path, requests)| (path.as_slice(), *requests)).collect();
        let requests: Vec<(u32, u64)> = mirrors.iter().map(|(id, traffic)| (id.0, traffic.requests)).collect();
        let bytes: Vec<(u32, u64)> = mirrors.iter().map(|(id, traffic)| (id.0, traffic.bytes)).collect();
        self.with_session(WRITING, |session| {
            replace_hash(session, &keys::stats(keys::STATS_FILE, period), &files)?;
            replace_hash(session, &keys::stats(keys::STATS_MIRROR, period), &requests)?;
            replace_hash(session, &keys::stats(keys::STATS_MIRROR_BYTES, period), &bytes)
        })
    }

    fn stats_sequences(&self) -> Result<BTreeMap<String, u64>> {
        self.with_session(READING, |session| {
            sequence_nodes(session)?
                .into_iter()
                .map(|node| stats::last_sequence(session, &node).map(|sequence| (node, sequence)))
                .collect()
        })
    }

    fn replace_totals(&self, downloads: u64, sequences: &BTreeMap<String, u64>) -> Result<()> {
        self.with_session(WRITING, |session| {
            let mut transaction = redis::pipe();
            transaction.atomic().cmd("SET").arg(keys::STATS_TOTAL).arg(downloads);
            for node in sequence_nodes(session)? {
                transaction.cmd("DEL").arg(keys::sequence(&node));
            }
            for (node, sequence) in sequences {
                transaction.cmd("SET").arg(keys::sequence(node)).arg(*sequence);
            }
            session.query_all::<Value>(&transaction).map(|_| ())
        })
    }
}

fn write_mirror(transaction: &mut redis::Pipeline, Mirror { id, settings, state }: &Mirror) {
    transaction.cmd("HSET").arg(keys::MIRRORS).arg(id.0).arg(&settings.name);
    transaction.cmd("HSET").arg(keys::mirror(*id)).arg("ID").arg(id.0);
    for (field, value) in records::settings_fields(settings).into_iter().chain(records::state_fields(state)) {
        transaction.arg(field).arg(value);
    }
    transaction.cmd("PUBLISH").arg(keys::MIRROR_CHANNEL).arg(id.0);
}

/// Replaces a hash at once, after its new content was brought in by parts.
fn replace_hash<Field: redis::ToRedisArgs>(
    session: &mut Session,
    key: &str,
    fields: &[(Field, u64)],
) -> std::result::Result<(), Failure> {
    session.query::<()>(redis::cmd("UNLINK").arg(keys::MIGRATION_PART))?;
    for batch in fields.chunks(WRITE_BATCH) {
        let mut write = redis::cmd("HSET");
        write.arg(keys::MIGRATION_PART);
        for (field, count) in batch {
            write.arg(field).arg(*count);
        }
        session.query::<()>(&write)?;
    }
    if fields.is_empty() {
        session.query(redis::cmd("UNLINK").arg(key))
    } else {
        session.query(redis::cmd("RENAME").arg(keys::MIGRATION_PART).arg(key))
    }
}

fn sequence_nodes(session: &mut Session) -> std::result::Result<BTreeSet<String>, Failure> {
    let mut nodes = BTreeSet::new();
    session.scan_keys(&format!("{}*", keys::SEQUENCE_PREFIX), &mut |key| {
        nodes.extend(key.strip_prefix(keys::SEQUENCE_PREFIX).map(str::to_owned));
    })?;
    Ok(nodes)
}
