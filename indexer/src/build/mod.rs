//! Building the index: the source joined with what every mirror has.
//!
//! Each distinct block of the scan results is decoded and merged with the source once, whatever number of mirrors share
//! it, so the work grows with what is different among the mirrors.

use std::collections::{BTreeMap, HashMap};

use mb_core::config::Config;
use mb_core::mirror::{Mirror, MirrorId};
use mb_core::store::{Store, StoreError};
use mb_index::{Exception, FilesBuilder, FilesModel};
use rayon::prelude::*;

use self::compare::TimeReading;
use self::join::{Class, Differing, DifferingCopy, Joined, join};
use self::rows::{SourceRows, load_source};
use crate::scan::results::{Block, BlockId, ResultsError, Snapshot, StoredScan};

pub(crate) mod compare;
mod join;
pub(crate) mod publication;
mod rows;

/// Blocks joined at once: enough to keep the cores busy, few enough that what they contribute stays small.
const BLOCKS_AT_ONCE: usize = 64;

/// Copies of a mirror that are kept as exceptions though no rule for outdated files may accept them, so that `explain` and
/// `?mirrorlist` can tell in what they differ. A guess: enough to see what is wrong with a mirror, and 240 KB at most.
const EXPLAINED_EXCEPTIONS: u64 = 10_000;

/// What of the configuration an index depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BuildSettings {
    /// Whether the mirrors' time zones are corrected.
    pub(crate) fix_timezone_offsets: bool,
    /// Paths below which a rule of `AllowOutdatedFiles` may accept copies that differ, so that all of them are kept.
    pub(crate) outdated_prefixes: Vec<String>,
    /// Of the copies elsewhere, how many are kept of each mirror. A mirror whose times are all off differs in every file: what
    /// is kept of it is memory that the mirror decides.
    pub(crate) explained_exceptions: u64,
}

impl BuildSettings {
    /// Those of a configuration.
    pub(crate) fn of(config: &Config) -> BuildSettings {
        let prefixes = config.allow_outdated_files.iter().map(|rule| rule.prefix.clone());
        BuildSettings::new(config.fix_timezone_offsets, prefixes.collect())
    }

    /// With the usual number of exceptions that are kept to be explained.
    pub(crate) fn new(fix_timezone_offsets: bool, outdated_prefixes: Vec<String>) -> BuildSettings {
        BuildSettings { fix_timezone_offsets, outdated_prefixes, explained_exceptions: EXPLAINED_EXCEPTIONS }
    }

    /// Whether a rule may accept an outdated copy of a file.
    fn has_rule_for(&self, path: &[u8]) -> bool {
        self.outdated_prefixes.iter().any(|prefix| path.starts_with(prefix.as_bytes()))
    }
}

/// Why an index could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The store failed.
    #[error("building the index: {0}")]
    Store(#[from] StoreError),
    /// The scan results cannot be read.
    #[error("building the index: {0}")]
    Results(#[from] ResultsError),
    /// The index does not take an entry.
    #[error("building the {0}")]
    Entry(#[from] mb_index::BuildError),
}

/// Builds the files of the index from the stored source and the stored scans of `mirrors`. Blocks.
pub(crate) fn build_files(
    store: &dyn Store,
    snapshot: &Snapshot,
    mirrors: &[Mirror],
    settings: &BuildSettings,
) -> Result<FilesModel, BuildError> {
    let mut scans = snapshot.scans()?;
    scans.retain(|scan| mirrors.iter().any(|mirror| mirror.id == scan.facts.mirror));
    let mirror_ids: Vec<MirrorId> = scans.iter().map(|scan| scan.facts.mirror).collect();

    let mut builder = FilesBuilder::new(&mirror_ids, settings.fix_timezone_offsets);
    let nobody = builder.intern_set(&vec![0; builder.set_words()]);
    load_source(store, &mut builder, nobody)?;
    let rows = SourceRows(&builder);
    let mut copies = Copies::new(rows.len(), mirror_ids.len(), builder.set_words());
    let blocks: Vec<(BlockId, Vec<Class>)> =
        classes_by_block(&scans, settings.fix_timezone_offsets).into_iter().collect();
    for blocks in blocks.chunks(BLOCKS_AT_ONCE) {
        let compressed: Vec<_> = blocks.iter().map(|(id, _)| snapshot.block_data(*id)).collect::<Result<_, _>>()?;
        let path = snapshot.path();
        let joined: Vec<Joined> = blocks
            .par_iter()
            .zip(&compressed)
            .map(|((id, classes), data)| Ok(join(rows, &Block::decompress(data, *id, path)?, classes, settings)))
            .collect::<Result<_, ResultsError>>()?;
        for ((_, classes), joined) in blocks.iter().zip(joined) {
            copies.add(classes, joined, rows, settings);
        }
    }
    for (mirror, differing) in mirror_ids.iter().zip(&copies.differing) {
        if let Differing { count, example: Some(row) } = *differing
            && count > settings.explained_exceptions
        {
            tracing::warn!(
                %mirror,
                files = count,
                example = %rows.path(row as usize).escape_ascii(),
                "the mirror has other versions of so many files that not all of them can be explained"
            );
        }
    }
    copies.place(&mut builder)?;
    Ok(builder.finish())
}

/// For each block, the mirrors that have it, grouped by how their file times are read.
fn classes_by_block(scans: &[StoredScan], fix_timezone_offsets: bool) -> BTreeMap<BlockId, Vec<Class>> {
    let mut groups: HashMap<(BlockId, TimeReading), Vec<u32>> = HashMap::new();
    for (ordinal, scan) in (0..).zip(scans) {
        let offset_ms = if fix_timezone_offsets { scan.facts.timezone_offset_ms } else { 0 };
        let reading = TimeReading { precision_ns: scan.facts.precision_ns, offset_ms };
        for &block in &scan.blocks {
            groups.entry((block, reading)).or_default().push(ordinal);
        }
    }
    let mut classes: BTreeMap<BlockId, Vec<Class>> = BTreeMap::new();
    for ((block, reading), mirrors) in groups {
        classes.entry(block).or_default().push(Class { reading, mirrors });
    }
    classes
}

/// Which mirrors have which file: a set of mirrors for each row, and the copies that differ.
struct Copies {
    words: usize,
    sets: Vec<u64>,
    exceptions: Vec<(u32, Exception)>,
    /// By ordinal of the mirror, exceptions that no rule needs.
    explained: Vec<u64>,
    /// By ordinal of the mirror, all copies that differ.
    differing: Vec<Differing>,
}

impl Copies {
    fn new(rows: usize, mirrors: usize, words: usize) -> Copies {
        Copies {
            words,
            sets: vec![0; rows * words],
            exceptions: Vec::new(),
            explained: vec![0; mirrors],
            differing: vec![Differing::default(); mirrors],
        }
    }

    fn add(&mut self, classes: &[Class], joined: Joined, rows: SourceRows<'_>, settings: &BuildSettings) {
        for DifferingCopy { row, class, size, modified } in joined.copies {
            let has_rule = settings.has_rule_for(rows.path(row as usize));
            for &mirror in &classes[class].mirrors {
                let explained = &mut self.explained[mirror as usize];
                if has_rule || *explained < settings.explained_exceptions {
                    *explained += u64::from(!has_rule);
                    self.exceptions.push((row, Exception { mirror, size, modified }));
                }
            }
        }
        for (class, differing) in classes.iter().zip(joined.differing) {
            for &mirror in &class.mirrors {
                let of_mirror = &mut self.differing[mirror as usize];
                of_mirror.count += differing.count;
                of_mirror.example = of_mirror.example.or(differing.example);
            }
        }
        for (class, rows) in classes.iter().zip(joined.matches) {
            let mut mirrors = vec![0_u64; self.words];
            for &mirror in &class.mirrors {
                mirrors[mirror as usize / 64] |= 1 << (mirror % 64);
            }
            for row in rows {
                for (word, bits) in self.set_mut(row).iter_mut().zip(&mirrors) {
                    *word |= bits;
                }
            }
        }
    }

    /// Hands everything over to `builder`, which has the files.
    fn place(mut self, builder: &mut FilesBuilder) -> Result<(), mb_index::BuildError> {
        self.exceptions.par_sort_unstable_by_key(|(row, exception)| (*row, exception.mirror));
        let mut remaining = &self.exceptions[..];
        builder.place_copies(|row, exceptions| {
            let own = remaining.iter().take_while(|(of, _)| *of as usize == row).count();
            exceptions.extend(remaining[..own].iter().map(|(_, exception)| *exception));
            remaining = &remaining[own..];
            &self.sets[row * self.words..][..self.words]
        })
    }

    fn set_mut(&mut self, row: u32) -> &mut [u64] {
        let start = row as usize * self.words;
        &mut self.sets[start..start + self.words]
    }
}

#[cfg(test)]
mod tests;
