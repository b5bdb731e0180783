//! The mirror table: the mirror records of one generation, as the store held them.
//!
//! Readers decode it once per generation, so it is a plain sequence of records, without tables to search in.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

mod record;
mod verify;

#[cfg(test)]
mod tests;

use std::path::Path;

use mb_core::mirror::Mirror;
use mb_core::time::Timestamp;

pub(crate) use record::{ArchivedMirrorsArchive, MirrorRecord, MirrorsArchive};
pub use verify::MirrorsViolation;
pub(crate) use verify::{verify, verify_mirror};

use crate::header::GenerationId;
use crate::mapping::Mapping;
use crate::open::OpenError;

/// An open mirror table.
#[derive(Debug)]
pub struct MirrorIndex {
    mapping: Mapping<ArchivedMirrorsArchive>,
}

impl MirrorIndex {
    /// Opens, checks in full and loads a file of the given generation.
    ///
    /// # Errors
    /// Whatever is wrong with the file; see [`OpenError`].
    pub fn open(path: &Path, expected_generation: u64) -> Result<MirrorIndex, OpenError> {
        Ok(MirrorIndex { mapping: Mapping::open(path, Some(expected_generation))? })
    }

    /// Number of the generation.
    pub fn generation(&self) -> u64 {
        self.mapping.header().generation
    }

    /// Which generation it is.
    pub fn id(&self) -> GenerationId {
        self.mapping.header().id()
    }

    /// When the generation was published.
    pub fn built(&self) -> Timestamp {
        self.mapping.header().built
    }

    /// The mirrors by ascending id.
    pub fn mirrors(&self) -> Vec<Mirror> {
        self.mapping.archive().mirrors.iter().map(Mirror::from).collect()
    }
}
