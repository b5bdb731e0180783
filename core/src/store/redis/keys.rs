//! Names of keys and channels: those of Mirrorbits' database format 2, and ours, which begin with `MB_`.

use crate::mirror::MirrorId;
use crate::store::stats::Period;

/// Version of the layout of all other keys.
pub(super) const VERSION: &str = "MIRRORBITS_DB_VERSION";
/// Last mirror id.
pub(super) const LAST_ID: &str = "LAST_MID";
/// Hash: id to name.
pub(super) const MIRRORS: &str = "MIRRORS";
/// Set: paths of the files of the source repository.
pub(super) const FILES: &str = "FILES";
/// Counter: all downloads.
pub(super) const STATS_TOTAL: &str = "STATS_TOTAL";
/// Hash, one per period: path to downloads.
pub(super) const STATS_FILE: &str = "STATS_FILE";
/// Hash, one per period: mirror id to downloads.
pub(super) const STATS_MIRROR: &str = "STATS_MIRROR";
/// Hash, one per period: mirror id to bytes.
pub(super) const STATS_MIRROR_BYTES: &str = "STATS_MIRROR_BYTES";

/// Ours. Hash: path of what is no file of the source repository to what it is, see `source`.
pub(super) const OTHER_ENTRIES: &str = "MB_SOURCE_OTHER";
/// Ours. Hash: key of a block of scan results to its data, compressed.
pub(super) const SCAN_BLOCKS: &str = "MB_SCAN_BLOCKS";
/// Ours. Hash: key of a block to the number of mirrors whose result lists it.
pub(super) const SCAN_USES: &str = "MB_SCAN_USES";
/// Ours. What [`sequence`] keys begin with.
pub(super) const SEQUENCE_PREFIX: &str = "MB_STATS_SEQ_";
/// Ours. String: whether `mirrorbits migrate` filled this database, until a program uses it.
pub(super) const MIGRATION: &str = "MB_MIGRATION";

/// Ours. Hash: statistics of one period while `mirrorbits migrate` brings them in.
pub(super) const MIGRATION_PART: &str = "MB_MIGRATION_PART";

/// Channel: a mirror's id, after it was added, changed or removed.
pub(super) const MIRROR_CHANNEL: &str = "_mirrorbits_mirror_update";
/// Channel: `HELLO<database> <node id>` of every node, each second.
pub(super) const CLUSTER_CHANNEL: &str = "_mirrorbits_cluster";
/// Channel: a path of the source repository, after it was added, changed or removed.
pub(super) const FILE_CHANNEL: &str = "_mirrorbits_file_update";

/// Hash: the record of a mirror.
pub(super) fn mirror(id: MirrorId) -> String {
    format!("MIRROR_{id}")
}

/// List: the log of a mirror, oldest entry first.
pub(super) fn log(id: MirrorId) -> String {
    format!("MIRRORLOGS_{id}")
}

/// Hash: the facts of a file of the source repository. Binary, since paths are.
pub(super) fn file(path: &[u8]) -> Vec<u8> {
    [b"FILE_", path].concat()
}

/// The key of one of the hashes of statistics.
pub(super) fn stats(hash: &str, period: Period) -> String {
    format!("{hash}{}", period.suffix())
}

/// Ours. String: the sequence number of the last batch of statistics of a node.
pub(super) fn sequence(node: &str) -> String {
    format!("{SEQUENCE_PREFIX}{node}")
}

/// Ours. Hash: the latest scan result of a mirror, see `scans`.
pub(super) fn scan(id: MirrorId) -> String {
    format!("MB_SCAN_{id}")
}

/// Ours. String with an expiry: a download under way, see `sightings`.
pub(super) fn sighting(hash: u128) -> String {
    format!("MB_SEEN_{hash:032x}")
}

/// Keys that hold more about a mirror and go with it: the scan results of Mirrorbits and ours, and the lock of its scan.
pub(super) fn of_removed_mirror(id: MirrorId) -> [String; 6] {
    [mirror(id), log(id), format!("MIRRORFILES_{id}"), format!("HANDLEDFILES_{id}"), scan(id), format!("SCANNING_{id}")]
}
