//! Times and sizes of the index itself.

use std::path::Path;
use std::time::Instant;

use mb_core::store::{EmbeddedStore, Store as _};
use mb_index::{Publisher, open_newest_files};
use serde::Serialize;

use crate::BenchError;
use crate::world::World;

/// Bytes of the SHA-256 that each file has.
const HASH_SIZE: usize = 32;

/// What an index costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IndexResult {
    pub(crate) file_bytes: u64,
    /// Without paths and hashes.
    pub(crate) bytes_per_file: f64,
    /// Records to a model in memory.
    pub(crate) assemble_ms: f64,
    /// Model to synced files.
    pub(crate) publish_ms: f64,
    /// Files to a verified mapping.
    pub(crate) open_ms: f64,
}

/// Builds, publishes and opens the index of `world` in a folder of its own.
pub(crate) fn measure(world: &World, folder: &Path) -> Result<IndexResult, BenchError> {
    let folder = folder.join("index-alone");
    let started = Instant::now();
    let model = world.model(0)?;
    let assemble_ms = milliseconds(started);
    let mirrors = EmbeddedStore::open(&world.state_dir())?.mirrors()?;
    let started = Instant::now();
    let current = Publisher::new(&folder).lock()?.publish(Some(&model), &mirrors)?;
    let publish_ms = milliseconds(started);
    drop(model);
    let started = Instant::now();
    let index = open_newest_files(&folder).index.ok_or(BenchError::Refused)?;
    let open_ms = milliseconds(started);
    let path = folder.join(mb_index::file_name(mb_index::Kind::Files, current.files.unwrap_or_default()));
    let file_bytes = std::fs::metadata(&path).map_err(BenchError::at("examine", &path))?.len();
    let (mut files, mut inherent) = (0_usize, 0_usize);
    for file in index.files() {
        files += 1;
        inherent += file.path().len() + HASH_SIZE;
    }
    let bytes_per_file = (file_bytes as f64 - inherent as f64) / files.max(1) as f64;
    Ok(IndexResult { file_bytes, bytes_per_file, assemble_ms, publish_ms, open_ms })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
