//! Results on their way to other nodes and from them. Blocks travel as they are stored; those that are here already do not.

use std::collections::HashMap;

use mb_core::mirror::MirrorId;
use mb_core::store::{ScanBlockKey, ScanGeneration, SharedScan};
use mb_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    Block, BlockId, ResultsError, ScanFacts, ScanResults, Snapshot, block, blocks_of, damaged, database_error,
    decompress, release_blocks, use_block, write_scan,
};

/// What tells a stored result from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// When its scan started.
    pub(crate) started: Timestamp,
    /// What the nodes call it; `None` when this node scanned and has not shared it yet.
    pub(crate) shared_as: Option<ScanGeneration>,
}

/// Compressed blocks by their keys.
pub(crate) type FetchedBlocks = HashMap<ScanBlockKey, Vec<u8>>;

/// Whether `data` is the block of this key.
pub(crate) fn is_block(data: &[u8], key: ScanBlockKey) -> bool {
    decompress(data).is_some_and(|encoded| block::key(&encoded) == key && Block::decode(&encoded).is_some())
}

impl ScanResults {
    /// The result of each mirror.
    pub(crate) fn held(&self) -> Result<HashMap<MirrorId, Held>, ResultsError> {
        let connection = self.connection();
        let read = || {
            let mut statement = connection.prepare_cached("SELECT started, shared_as, mirror FROM scans")?;
            let held = statement.query_map([], |row| Ok((MirrorId(row.get(2)?), held_in(row)?)))?;
            held.collect::<rusqlite::Result<_>>()
        };
        read().map_err(database_error(&self.path))
    }

    /// Those of `blocks` that are not here.
    pub(crate) fn lacking(&self, blocks: &[ScanBlockKey]) -> Result<Vec<ScanBlockKey>, ResultsError> {
        let connection = self.connection();
        let mut lacking = Vec::new();
        for key in blocks {
            if id_of(&connection, key).map_err(database_error(&self.path))?.is_none() {
                lacking.push(*key);
            }
        }
        Ok(lacking)
    }

    /// Puts another node's result in the place of `held`, with the blocks that were [`ScanResults::lacking`]. Returns whether
    /// it did: not when another result came first, or a block went away meanwhile.
    pub(crate) fn import(
        &self,
        mirror: MirrorId,
        held: Option<Held>,
        scan: &SharedScan,
        fetched: &FetchedBlocks,
    ) -> Result<bool, ResultsError> {
        self.write(|transaction| {
            // Nothing is written before all is known to be there.
            if held_of(transaction, mirror)? != held {
                return Ok(false);
            }
            for key in scan.blocks.iter().filter(|key| !fetched.contains_key(*key)) {
                if id_of(transaction, key)?.is_none() {
                    return Ok(false);
                }
            }
            let blocks = scan
                .blocks
                .iter()
                .map(|key| use_block(transaction, key, || Ok(fetched.get(key).cloned().unwrap_or_default())))
                .collect::<rusqlite::Result<Vec<BlockId>>>()?;
            release_blocks(transaction, &blocks_of(transaction, mirror)?)?;
            let facts = ScanFacts {
                mirror,
                started: scan.started,
                protocol: scan.protocol,
                precision_ns: scan.precision_ns,
                timezone_offset_ms: scan.timezone_offset_ms,
            };
            write_scan(transaction, &facts, scan.files, &blocks, Some(scan.generation()))?;
            Ok(true)
        })
    }

    /// Notes that the result whose scan started then is shared.
    pub(crate) fn mark_shared(&self, mirror: MirrorId, scan: &SharedScan) -> Result<(), ResultsError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE scans SET shared_as = ?3 WHERE mirror = ?1 AND started = ?2",
                params![mirror.0, scan.started.0, scan.generation().0.cast_signed()],
            )
        })?;
        Ok(())
    }
}

impl Snapshot {
    /// The result of a mirror, as other nodes get it.
    pub(crate) fn shared_scan(&self, mirror: MirrorId) -> Result<Option<SharedScan>, ResultsError> {
        let Some(scan) = self.scans()?.into_iter().find(|scan| scan.facts.mirror == mirror) else {
            return Ok(None);
        };
        let ScanFacts { started, protocol, precision_ns, timezone_offset_ms, .. } = scan.facts;
        let mut keys = self.connection.prepare_cached("SELECT key FROM blocks WHERE id = ?1").map_err(self.failed())?;
        let mut blocks = Vec::with_capacity(scan.blocks.len());
        for id in scan.blocks {
            let key = keys.query_row([id], |row| row.get(0)).optional().map_err(self.failed())?;
            blocks.push(key.ok_or_else(|| damaged(&self.path, id))?);
        }
        Ok(Some(SharedScan { started, protocol, precision_ns, timezone_offset_ms, files: scan.files, blocks }))
    }

    /// The compressed bytes of the block of this key.
    pub(crate) fn block_data_by_key(&self, key: &ScanBlockKey) -> Result<Option<Vec<u8>>, ResultsError> {
        let mut data =
            self.connection.prepare_cached("SELECT data FROM blocks WHERE key = ?1").map_err(self.failed())?;
        data.query_row([key], |row| row.get(0)).optional().map_err(self.failed())
    }

    fn failed(&self) -> impl FnOnce(rusqlite::Error) -> ResultsError + '_ {
        database_error(&self.path)
    }
}

fn held_in(row: &Row<'_>) -> rusqlite::Result<Held> {
    let generation: Option<i64> = row.get(1)?;
    let shared_as = generation.map(|number| ScanGeneration(number.cast_unsigned()));
    Ok(Held { started: Timestamp(row.get(0)?), shared_as })
}

fn held_of(connection: &Connection, mirror: MirrorId) -> rusqlite::Result<Option<Held>> {
    let mut statement = connection.prepare_cached("SELECT started, shared_as FROM scans WHERE mirror = ?1")?;
    statement.query_row([mirror.0], held_in).optional()
}

fn id_of(connection: &Connection, key: &ScanBlockKey) -> rusqlite::Result<Option<BlockId>> {
    connection.prepare_cached("SELECT id FROM blocks WHERE key = ?1")?.query_row([key], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{block_count, facts, listing};
    use super::*;

    const ID: MirrorId = MirrorId(1);

    fn results() -> (tempfile::TempDir, ScanResults) {
        let folder = tempfile::tempdir().unwrap();
        let results = ScanResults::open(folder.path()).unwrap();
        (folder, results)
    }

    /// What another node gets: the result, and the blocks that it lacks.
    fn handed_over(from: &ScanResults, to: &ScanResults) -> (SharedScan, FetchedBlocks) {
        let snapshot = from.snapshot().unwrap();
        let scan = snapshot.shared_scan(ID).unwrap().unwrap();
        let lacking = to.lacking(&scan.blocks).unwrap();
        let blocks = lacking.into_iter().map(|key| (key, snapshot.block_data_by_key(&key).unwrap().unwrap()));
        let blocks: FetchedBlocks = blocks.collect();
        assert!(blocks.iter().all(|(key, data)| is_block(data, *key)));
        (scan, blocks)
    }

    #[test]
    fn a_result_of_another_node_equals_one_of_our_own() {
        let ((_a, first), (_b, second)) = (results(), results());
        first.replace(&facts(1), &listing(0..20_000)).unwrap();
        second.replace(&facts(2), &listing(0..20_000)).unwrap();
        second.replace(&facts(1), &listing(500..600)).unwrap();
        let blocks_of_both = block_count(&first);

        let (scan, fetched) = handed_over(&first, &second);
        assert!(fetched.is_empty(), "what another mirror has is here");
        let held = second.held().unwrap().get(&ID).copied();
        assert!(second.import(ID, held, &scan, &fetched).unwrap());
        assert_eq!(second.snapshot().unwrap().shared_scan(ID).unwrap(), Some(scan.clone()));
        assert_eq!(second.held().unwrap()[&ID], Held { started: Timestamp(7), shared_as: Some(scan.generation()) });
        assert_eq!(block_count(&second), blocks_of_both, "what no mirror has any more is gone");
        second.replace(&facts(1), &listing(0..0)).unwrap();
        assert_eq!(second.held().unwrap()[&ID].shared_as, None, "a result of our own is not shared yet");
        assert_eq!(block_count(&second), blocks_of_both);
    }

    #[test]
    fn a_result_is_imported_as_a_whole_or_not_at_all() {
        let ((_a, first), (_b, second)) = (results(), results());
        first.replace(&facts(1), &listing(0..20_000)).unwrap();
        let (scan, mut fetched) = handed_over(&first, &second);
        let last = scan.blocks.last().unwrap();
        let data = fetched.remove(last).unwrap();
        assert!(!second.import(ID, None, &scan, &fetched).unwrap());
        assert_eq!((block_count(&second), second.held().unwrap().len()), (0, 0));
        fetched.insert(*last, data);

        second.replace(&facts(1), &listing(0..10)).unwrap();
        assert!(!second.import(ID, None, &scan, &fetched).unwrap(), "our own scan came first");
        let held = second.held().unwrap().get(&ID).copied();
        assert!(second.import(ID, held, &scan, &fetched).unwrap());
    }

    #[test]
    fn sharing_is_noted_of_the_result_that_was_shared() {
        let (_folder, results) = results();
        results.replace(&facts(1), &listing(0..10)).unwrap();
        let scan = results.snapshot().unwrap().shared_scan(ID).unwrap().unwrap();
        results.mark_shared(ID, &SharedScan { started: Timestamp(6), ..scan.clone() }).unwrap();
        assert_eq!(results.held().unwrap()[&ID].shared_as, None);
        results.mark_shared(ID, &scan).unwrap();
        assert_eq!(results.held().unwrap()[&ID].shared_as, Some(scan.generation()));
    }

    #[test]
    fn data_that_is_not_the_block_is_told() {
        let (_folder, results) = results();
        results.replace(&facts(1), &listing(0..3_000)).unwrap();
        let snapshot = results.snapshot().unwrap();
        let keys = snapshot.shared_scan(ID).unwrap().unwrap().blocks;
        let data = snapshot.block_data_by_key(&keys[0]).unwrap().unwrap();
        assert!(is_block(&data, keys[0]) && !is_block(&data, keys[1]));
        assert!(!is_block(&data[..data.len() - 1], keys[0]) && !is_block(b"", keys[0]));
    }
}
