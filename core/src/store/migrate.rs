//! Everything from one backend to the other: `mirrorbits migrate`.
//!
//! The target becomes a copy of the source: mirrors with their ids, logs, source files, statistics. Running it again brings
//! the copy up to date, without doubling or losing anything, until a program has used the target: from then on the target
//! has data of its own, and is not overwritten unless that is forced.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::stats::{Counts, Period};
use super::{EmbeddedStore, LogEntry, RedisStore, SourceChanges, SourceEntry, Store, StoreError};
use crate::config::{Config, DatabaseKind};
use crate::mirror::{InvalidMirror, Mirror, MirrorId};

/// Source entries between two reports of progress.
const SOURCE_BATCH: usize = 5_000;

/// Why nothing, or not everything, was copied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// One of the two stores cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The two are one.
    #[error("source and target are the same database")]
    SameDatabase,
    /// There is nothing to copy.
    #[error("the source has neither mirrors nor files nor statistics: do -from and -to stand the right way round?")]
    EmptySource,
    /// The copy would destroy data.
    #[error("the target has data of its own, which would be replaced as a whole: use -force if that is wanted")]
    TargetInUse,
    /// The source was filled by hand, and the target is stricter.
    #[error("the source has several mirrors of the name {0:?}: rename all but one first")]
    DuplicateName(String),
    /// A record of the source cannot be read as a whole, so that a copy would be another record.
    #[error("{count} mirrors of the source are invalid, first {mirror:?}: {invalid}: repair or remove them first")]
    InvalidMirrors {
        /// How many are.
        count: usize,
        /// The name of the first one.
        mirror: String,
        /// What is wrong with it.
        invalid: InvalidMirror,
    },
}

/// What is being copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Mirror records.
    Mirrors,
    /// Their logs.
    Logs,
    /// Facts of the source repository.
    SourceEntries,
    /// Periods of the statistics.
    Statistics,
}

/// How far the copy is. Each part begins with 0 done and ends with all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being copied.
    pub part: Part,
    /// How many of them are copied.
    pub done: usize,
    /// How many there are.
    pub all: usize,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Mirror records.
    pub mirrors: usize,
    /// Entries of logs.
    pub log_entries: usize,
    /// Paths of the source repository, those included that were already there.
    pub source_entries: usize,
    /// Downloads since ever.
    pub downloads: u64,
}

/// What a store is as a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is in it.
    Empty,
    /// A copy is in it, maybe half of one, and no program has used it.
    Copy,
    /// Data of its own is in it.
    InUse,
}

/// What a backend offers for being copied and copied into, beside [`Store`].
pub(super) trait Transfer: Store {
    fn stage(&self) -> super::Result<Stage>;
    /// Notes that a copy has begun, or that it is complete.
    fn mark_copy(&self, complete: bool) -> super::Result<()>;
    /// The largest mirror id that was ever given out.
    fn last_mirror_id(&self) -> super::Result<u32>;
    /// Removes all mirrors with their logs, and writes these.
    fn replace_mirrors(&self, last_id: u32, mirrors: &[Mirror]) -> super::Result<()>;
    /// Replaces the log of a mirror.
    fn replace_log(&self, mirror: MirrorId, entries: &[LogEntry]) -> super::Result<()>;
    /// All periods with counts.
    fn stats_periods(&self) -> super::Result<BTreeSet<Period>>;
    /// The counts of a period.
    fn counts_of(&self, period: Period) -> super::Result<Counts>;
    /// Replaces the counts of a period.
    fn replace_counts(&self, period: Period, counts: &Counts) -> super::Result<()>;
    /// The last batch of each node.
    fn stats_sequences(&self) -> super::Result<BTreeMap<String, u64>>;
    /// Replaces the count of all downloads and the last batch of each node.
    fn replace_totals(&self, downloads: u64, sequences: &BTreeMap<String, u64>) -> super::Result<()>;
}

/// Copies everything between the two stores that `config` describes; `force` replaces what a program has written into the
/// target.
///
/// # Errors
/// [`MigrateError`]; except for [`MigrateError::Store`], nothing was changed.
pub fn migrate(
    config: &Config,
    from: DatabaseKind,
    to: DatabaseKind,
    force: bool,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Migrated, MigrateError> {
    if from == to {
        return Err(MigrateError::SameDatabase);
    }
    let (source, target) = (open(config, from)?, open(config, to)?);
    Copy { source: &*source, target: &*target, on_progress }.run(force)
}

fn open(config: &Config, kind: DatabaseKind) -> super::Result<Box<dyn Transfer>> {
    Ok(match kind {
        DatabaseKind::Embedded => Box::new(EmbeddedStore::open_to_migrate(&config.state_dir)?),
        DatabaseKind::Redis => Box::new(RedisStore::open_to_migrate(&config.redis)?),
    })
}

struct Copy<'a> {
    source: &'a dyn Transfer,
    target: &'a dyn Transfer,
    on_progress: &'a mut dyn FnMut(Progress),
}

impl Copy<'_> {
    fn run(mut self, force: bool) -> Result<Migrated, MigrateError> {
        if self.source.stage()? == Stage::Empty {
            return Err(MigrateError::EmptySource);
        }
        if self.target.stage()? == Stage::InUse && !force {
            return Err(MigrateError::TargetInUse);
        }
        let mirrors = self.source.mirrors()?;
        check_names(&mirrors)?;
        check_records(&mirrors)?;
        self.target.mark_copy(false)?;
        let migrated = Migrated {
            mirrors: self.copy_mirrors(&mirrors)?,
            log_entries: self.copy_logs(&mirrors)?,
            source_entries: self.copy_source()?,
            downloads: self.copy_stats()?,
        };
        self.target.mark_copy(true)?;
        Ok(migrated)
    }

    fn report(&mut self, part: Part, done: usize, all: usize) {
        (self.on_progress)(Progress { part, done, all });
    }

    fn copy_mirrors(&mut self, mirrors: &[Mirror]) -> super::Result<usize> {
        self.report(Part::Mirrors, 0, mirrors.len());
        let highest = mirrors.iter().map(|mirror| mirror.id.0).max().unwrap_or(0);
        self.target.replace_mirrors(self.source.last_mirror_id()?.max(highest), mirrors)?;
        self.report(Part::Mirrors, mirrors.len(), mirrors.len());
        Ok(mirrors.len())
    }

    fn copy_logs(&mut self, mirrors: &[Mirror]) -> super::Result<usize> {
        self.report(Part::Logs, 0, mirrors.len());
        let mut entries = 0;
        for (mirror, done) in mirrors.iter().zip(1..) {
            let log = self.source.mirror_log(mirror.id, usize::MAX)?;
            self.target.replace_log(mirror.id, &log)?;
            entries += log.len();
            self.report(Part::Logs, done, mirrors.len());
        }
        Ok(entries)
    }

    /// Writes the entries that differ.
    fn copy_source(&mut self) -> super::Result<usize> {
        let mut entries: Vec<SourceEntry> = Vec::new();
        self.source.source_entries(&mut |entry| entries.push(entry))?;
        let all = entries.len();
        let mut same = vec![false; all];
        let mut removals = Vec::new();
        self.target.source_entries(
            &mut |there| match entries.binary_search_by(|entry| entry.path.cmp(&there.path)) {
                Ok(found) => same[found] = entries[found] == there,
                Err(_) => removals.push(there.path),
            },
        )?;
        let mut differing = entries.into_iter().zip(same).filter_map(|(entry, same)| (!same).then_some(entry));
        let mut changes = SourceChanges { upserts: differing.by_ref().take(SOURCE_BATCH).collect(), removals };
        let mut rest: Vec<SourceEntry> = differing.collect();
        let mut done = all - rest.len() - changes.upserts.len();
        loop {
            self.report(Part::SourceEntries, done, all);
            if changes.upserts.is_empty() && changes.removals.is_empty() {
                return Ok(all);
            }
            self.target.apply_source_changes(&changes)?;
            done += changes.upserts.len();
            changes.removals.clear();
            changes.upserts = rest.split_off(rest.len().saturating_sub(SOURCE_BATCH));
        }
    }

    fn copy_stats(&mut self) -> super::Result<u64> {
        let periods = self.source.stats_periods()?;
        let all = periods.len();
        self.report(Part::Statistics, 0, all);
        for period in self.target.stats_periods()?.difference(&periods) {
            self.target.replace_counts(*period, &Counts::default())?;
        }
        for (period, done) in periods.into_iter().zip(1..) {
            self.target.replace_counts(period, &self.source.counts_of(period)?)?;
            self.report(Part::Statistics, done, all);
        }
        let downloads = self.source.total_downloads()?;
        self.target.replace_totals(downloads, &self.source.stats_sequences()?)?;
        Ok(downloads)
    }
}

fn check_names(mirrors: &[Mirror]) -> Result<(), MigrateError> {
    let mut names = HashMap::new();
    match mirrors.iter().find(|mirror| names.insert(&mirror.settings.name, mirror.id).is_some()) {
        Some(mirror) => Err(MigrateError::DuplicateName(mirror.settings.name.clone())),
        None => Ok(()),
    }
}

fn check_records(mirrors: &[Mirror]) -> Result<(), MigrateError> {
    let mut all = mirrors.iter().filter_map(|mirror| mirror.invalid().map(|invalid| (mirror, invalid)));
    match all.next() {
        Some((mirror, invalid)) => {
            let mirror = mirror.settings.name.clone();
            Err(MigrateError::InvalidMirrors { count: 1 + all.count(), mirror, invalid })
        }
        None => Ok(()),
    }
}
