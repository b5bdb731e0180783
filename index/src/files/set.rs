//! Mirror sets: bitmaps over the ordinals of the mirrors that an index was built for.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use rkyv::rend::u64_le;

/// Number of a mirror set within one files generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub(crate) u32);

impl SetId {
    /// The number, below [`FileIndex::set_count`](crate::FileIndex::set_count).
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Whether a bitmap has the bit of a mirror.
pub(crate) fn contains(mut words: impl Iterator<Item = u64>, ordinal: u32) -> bool {
    words.nth(ordinal as usize / 64).is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
}

/// A set of mirrors of an open files generation.
#[derive(Clone, Copy, Debug)]
pub struct MirrorSet<'a> {
    words: &'a [u64_le],
}

impl<'a> MirrorSet<'a> {
    pub(crate) fn new(words: &'a [u64_le]) -> MirrorSet<'a> {
        MirrorSet { words }
    }

    /// Whether the mirror with this ordinal is in the set.
    pub fn contains(&self, ordinal: u32) -> bool {
        self.words.get(ordinal as usize / 64).is_some_and(|word| word.to_native() >> (ordinal % 64) & 1 == 1)
    }

    /// Whether the set has all mirrors of the bitmap `words`, in which the lowest bit of the first word is ordinal 0.
    #[inline]
    pub fn includes(&self, words: &[u64]) -> bool {
        let lacking = |(place, &word): (usize, &u64)| word & !self.words.get(place).map_or(0, |own| own.to_native());
        words.iter().enumerate().map(lacking).fold(0, |all, lacking| all | lacking) == 0
    }

    /// The ordinals in the set, ascending.
    pub fn ordinals(&self) -> impl Iterator<Item = u32> + use<'a> {
        (0..)
            .step_by(64)
            .zip(self.words)
            .flat_map(|(first, word)| Bits(word.to_native()).map(move |bit| u32::wrapping_add(first, bit)))
    }

    /// Number of mirrors in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.to_native().count_ones() as usize).sum()
    }

    /// Whether no mirror is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| word.to_native() == 0)
    }
}

/// The positions of the bits of a word, ascending.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        Some(bit)
    }
}
