//! Blocks of a sorted listing: where a listing is cut, and how a block is written.
//!
//! The cuts depend on the paths alone, so two mirrors with the same files have the same blocks, and one file more or less
//! changes one block.
//!
//! A block, before compression, all integers little-endian:
//!
//! ```text
//! count: u32 │ shared: [u16; count] │ rest: [u16; count] │ size: [u64; count] │ modified: [i64; count] │ bytes
//! ```
//!
//! `shared` is how many bytes a path has in common with the one before (0 for the first), `rest` how many follow in
//! `bytes`. `modified` is in Unix nanoseconds, `i64::MIN` when unknown.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use mb_core::store::ScanBlockKey;
use mb_core::time::FileTime;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::scan::listing::Listed;

/// One path in this many begins a block: about a thousand files a block, a few hundred kilobytes at most.
const PATHS_PER_CUT: u64 = 1_024;

/// A block is cut here at the latest, so that its size is bounded whatever the paths are.
const LONGEST_BLOCK: usize = 8_192;

/// A modification time that is not known.
const UNKNOWN: i64 = i64::MIN;

/// The key of a block's uncompressed bytes.
pub(super) fn key(encoded: &[u8]) -> ScanBlockKey {
    xxh3_128(encoded).to_le_bytes()
}

/// Cuts a sorted listing and hands each block, encoded, to `each`.
pub(super) fn for_each_block<'a, E>(
    files: impl Iterator<Item = Listed<'a>>,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut encoder = Encoder::default();
    for file in files {
        let starts_block = xxh3_64(file.path).is_multiple_of(PATHS_PER_CUT);
        if encoder.count() > 0 && (starts_block || encoder.count() == LONGEST_BLOCK) {
            each(&encoder.take())?;
        }
        encoder.push(file);
    }
    if encoder.count() > 0 {
        each(&encoder.take())?;
    }
    Ok(())
}

#[derive(Default)]
struct Encoder {
    previous: Vec<u8>,
    shared: Vec<u8>,
    rest: Vec<u8>,
    sizes: Vec<u8>,
    modified: Vec<u8>,
    bytes: Vec<u8>,
}

impl Encoder {
    fn count(&self) -> usize {
        self.sizes.as_chunks::<{ size_of::<u64>() }>().0.len()
    }

    fn push(&mut self, file: Listed<'_>) {
        let shared = self.previous.iter().zip(file.path).take_while(|(a, b)| a == b).count();
        let rest = file.path.get(shared..).unwrap_or_default();
        // A listing's paths have at most 65,535 bytes.
        self.shared.extend_from_slice(&(shared as u16).to_le_bytes());
        self.rest.extend_from_slice(&(rest.len() as u16).to_le_bytes());
        self.sizes.extend_from_slice(&file.size.to_le_bytes());
        self.modified.extend_from_slice(&file.modified.map_or(UNKNOWN, |time| time.0).to_le_bytes());
        self.bytes.extend_from_slice(rest);
        self.previous.clear();
        self.previous.extend_from_slice(file.path);
    }

    /// The block so far; the next file starts another.
    fn take(&mut self) -> Vec<u8> {
        let count = self.count() as u32;
        let encoded =
            [&count.to_le_bytes(), &self.shared[..], &self.rest, &self.sizes, &self.modified, &self.bytes].concat();
        for part in
            [&mut self.previous, &mut self.shared, &mut self.rest, &mut self.sizes, &mut self.modified, &mut self.bytes]
        {
            part.clear();
        }
        encoded
    }
}

/// A block as it is read.
#[derive(Debug, Default)]
pub(crate) struct Block {
    paths: Vec<u8>,
    ends: Vec<u32>,
    facts: Vec<(u64, Option<FileTime>)>,
}

impl Block {
    /// Reads a block's uncompressed bytes; `None` when they are not a block.
    pub(super) fn decode(encoded: &[u8]) -> Option<Block> {
        let (count, rest) = encoded.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        if count > LONGEST_BLOCK {
            return None;
        }
        let (shorts, longs) = (count.checked_mul(2)?, count.checked_mul(8)?);
        let (shared, rest) = rest.split_at_checked(shorts)?;
        let (lengths, rest) = rest.split_at_checked(shorts)?;
        let (sizes, rest) = rest.split_at_checked(longs)?;
        let (modified, mut bytes) = rest.split_at_checked(longs)?;

        let mut block = Block::default();
        let mut previous = 0..0_usize;
        for (((shared, length), size), modified) in
            chunks::<2>(shared).zip(chunks::<2>(lengths)).zip(chunks::<8>(sizes)).zip(chunks::<8>(modified))
        {
            let shared = usize::from(u16::from_le_bytes(shared));
            let (suffix, after) = bytes.split_at_checked(usize::from(u16::from_le_bytes(length)))?;
            bytes = after;
            if shared > previous.len() {
                return None;
            }
            let start = block.paths.len();
            // No longer than the path before, which is within the arena.
            block.paths.extend_from_within(previous.start..previous.start.checked_add(shared)?);
            block.paths.extend_from_slice(suffix);
            previous = start..block.paths.len();
            block.ends.push(u32::try_from(block.paths.len()).ok()?);
            let modified = i64::from_le_bytes(modified);
            block.facts.push((u64::from_le_bytes(size), (modified != UNKNOWN).then_some(FileTime(modified))));
        }
        bytes.is_empty().then_some(block)
    }

    /// The files of the block, by ascending path.
    pub(crate) fn files(&self) -> impl Iterator<Item = Listed<'_>> {
        let mut start = 0;
        self.ends.iter().zip(&self.facts).map(move |(&end, &(size, modified))| {
            let path = self.paths.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            Listed { path, size, modified }
        })
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::scan::listing::Listing;

    fn blocks(listing: &Listing) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        let Ok(()) = for_each_block(listing.iter(), |block| {
            blocks.push(block.to_vec());
            Ok::<(), Infallible>(())
        });
        blocks
    }

    fn numbered(numbers: impl Iterator<Item = u32>) -> Listing {
        let mut listing = Listing::default();
        for number in numbers {
            let path = format!("pool/{:03}/package-{number}.deb", number % 100);
            listing.push(path.as_bytes(), u64::from(number), Some(FileTime(i64::from(number)))).unwrap();
        }
        listing.sort();
        listing
    }

    #[test]
    fn one_file_less_changes_one_or_two_blocks() {
        let whole: HashSet<_> = blocks(&numbered(0..50_000)).into_iter().collect();
        let lacking: HashSet<_> = blocks(&numbered((0..50_000).filter(|&n| n != 31_415))).into_iter().collect();
        assert!(whole.len() > 20, "{} blocks", whole.len());
        assert!(lacking.difference(&whole).count() <= 1);
        assert!(whole.difference(&lacking).count() <= 2);
    }

    #[test]
    fn no_block_is_longer_than_the_cap() {
        let mut listing = Listing::default();
        let uncut = (0..).map(|n: u32| format!("f{n:09}"));
        for path in
            uncut.filter(|path| !xxh3_64(format!("/{path}").as_bytes()).is_multiple_of(PATHS_PER_CUT)).take(20_000)
        {
            listing.push(path.as_bytes(), 1, None).unwrap();
        }
        let counts: Vec<_> =
            blocks(&listing).iter().map(|block| Block::decode(block).unwrap().files().count()).collect();
        assert_eq!(counts, [LONGEST_BLOCK, LONGEST_BLOCK, 20_000 - 2 * LONGEST_BLOCK]);
    }

    proptest! {
        #[test]
        fn blocks_read_back_what_was_listed(
            files in proptest::collection::btree_map(
                proptest::collection::vec(any::<u8>(), 1..30), (any::<u64>(), proptest::option::of(0_i64..)), 0..200)
        ) {
            let mut listing = Listing::default();
            for (path, (size, modified)) in &files {
                listing.push(path, *size, modified.map(FileTime)).unwrap();
            }
            listing.sort();
            let decoded: Vec<_> = blocks(&listing).iter().map(|block| Block::decode(block).unwrap()).collect();
            let read: Vec<_> = decoded.iter().flat_map(Block::files).collect();
            prop_assert_eq!(read, listing.iter().collect::<Vec<_>>());
        }

        #[test]
        fn damaged_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(block) = Block::decode(&bytes) {
                block.files().for_each(drop);
            }
        }
    }
}
