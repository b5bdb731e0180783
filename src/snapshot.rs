//! What requests are answered from, and how it changes while they are.
//!
//! A [`Snapshot`] is complete and never changes. The control thread makes a new one for each new generation of the index,
//! the mirrors, the geo databases or the configuration and puts it into the [`Publication`]; each shard takes it over
//! between two requests. A snapshot holds memory maps, whose release can take long: the last reference to one is always
//! dropped by the thread that follows the index, in [`Publication::release_retired`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use mb_core::geo::GeoDatabase;
use mb_index::FileIndex;

use crate::handle::Settings;
use crate::select::MirrorTable;

/// Everything that answers depend on.
pub struct Snapshot {
    /// The configuration's part.
    pub settings: Arc<Settings>,
    /// The files; `None` before the first scan of the source.
    pub files: Option<Arc<FileIndex>>,
    /// The mirrors.
    pub mirrors: Arc<MirrorTable>,
    /// The geo databases.
    pub geo: Arc<GeoDatabase>,
    /// By mirror ordinal of `files`: the row in `mirrors`, or [`NO_ROW`] for a mirror that is gone.
    rows: Vec<u32>,
}

/// Stands for a mirror that the index knows and the mirror table does not.
const NO_ROW: u32 = u32::MAX;

impl Snapshot {
    /// Puts a snapshot together.
    pub fn new(
        settings: Arc<Settings>,
        files: Option<Arc<FileIndex>>,
        mirrors: Arc<MirrorTable>,
        geo: Arc<GeoDatabase>,
    ) -> Snapshot {
        let rows =
            files.iter().flat_map(|files| files.mirror_ids()).map(|id| mirrors.find(id).unwrap_or(NO_ROW)).collect();
        Snapshot { settings, files, mirrors, geo, rows }
    }

    /// The index's mirrors that have not been removed, as ordinals and rows in the mirror table.
    pub fn mirrors_by_ordinal(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(self.rows.iter().copied()).filter(|&(_, row)| row != NO_ROW)
    }

    /// The row in the mirror table of the index's mirror `ordinal`; `None` when it has been removed.
    pub fn row(&self, ordinal: u32) -> Option<u32> {
        self.rows.get(ordinal as usize).copied().filter(|&row| row != NO_ROW)
    }
}

/// The current snapshot, shared by the control thread, which replaces it, and the shards, which follow.
pub struct Publication {
    current: ArcSwap<Snapshot>,
    /// Counts the replacements, so that a shard sees by one load whether there was one. On a cache line of its own, which
    /// stays in every core's cache until there is one.
    epoch: CachePadded<AtomicU64>,
    /// Held by whoever replaces the snapshot.
    turn: Mutex<()>,
    retired: Mutex<Vec<Arc<Snapshot>>>,
}

impl Publication {
    /// Starts with `snapshot`.
    pub fn new(snapshot: Snapshot) -> Publication {
        Publication {
            current: ArcSwap::from_pointee(snapshot),
            epoch: CachePadded::new(AtomicU64::new(0)),
            turn: Mutex::default(),
            retired: Mutex::new(Vec::new()),
        }
    }

    /// How often the snapshot was replaced.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The current snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the snapshot by what `next` makes of it. Shards take the new one over when they next wake up. Replacements
    /// from several threads follow one another.
    pub fn update(&self, next: impl FnOnce(&Snapshot) -> Snapshot) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current.load_full();
        self.current.store(Arc::new(next(&old)));
        drop(turn);
        self.epoch.fetch_add(1, Ordering::Release);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(old);
    }

    /// Drops replaced snapshots that no shard holds any more. To be called now and then by a thread that may take its time.
    pub fn release_retired(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let (free, held): (Vec<_>, Vec<_>) = retired.drain(..).partition(|snapshot| Arc::strong_count(snapshot) == 1);
        *retired = held;
        drop(retired);
        drop(free);
    }
}
