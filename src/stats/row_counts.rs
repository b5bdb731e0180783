//! Counts by row of one generation of the files: one number per file, whether it is counted or not.
//!
//! To count is then one addition in memory that needs no search. Rows are numbered by path, so whoever walks them gets the
//! paths in order without sorting, and neighbours in the store's tables come together.

/// Rows in a word of a set.
const WORD: usize = u64::BITS as usize;

/// A set of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet(Vec<u64>);

impl RowSet {
    /// An empty set of rows below `rows`.
    pub fn new(rows: usize) -> RowSet {
        RowSet(vec![0; rows.div_ceil(WORD)])
    }

    /// Adds every row of `other`.
    pub fn unite(&mut self, other: &RowSet) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, others) in self.0.iter_mut().zip(&other.0) {
            *word |= others;
        }
    }

    /// Takes every row of `other` out.
    pub fn subtract(&mut self, other: &RowSet) {
        for (word, others) in self.0.iter_mut().zip(&other.0) {
            *word &= !others;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + Clone + '_ {
        self.starting_at(0)
    }

    /// Those from `first` on, ascending.
    fn starting_at(&self, first: u32) -> impl Iterator<Item = u32> + Clone + '_ {
        let (start, skipped) = (first as usize / WORD, first as usize % WORD);
        let words = self.0.iter().enumerate().skip(start);
        words.flat_map(move |(place, word)| {
            let mut left = if place == start { word & (u64::MAX << skipped) } else { *word };
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                // The lowest bit that is set goes; of 0 there is none.
                left &= left.checked_sub(1)?;
                Some((place * WORD) as u32 + bit)
            })
        })
    }

    fn insert(&mut self, row: u32) {
        self.0[row as usize / WORD] |= 1 << (row as usize % WORD);
    }

    fn remove(&mut self, row: u32) {
        self.0[row as usize / WORD] &= !(1 << (row as usize % WORD));
    }
}

/// Counts by row.
#[derive(Debug, Default)]
pub struct RowCounts {
    /// By row; no memory of the system is used for what was never touched.
    counts: Vec<u32>,
    /// The rows whose count is not 0.
    counted: RowSet,
    /// Where the next cut begins, so that the last rows get their turn, however much comes for the first.
    next: u32,
}

impl RowCounts {
    /// None, of `rows` rows.
    pub fn new(rows: usize) -> RowCounts {
        RowCounts { counts: vec![0; rows], counted: RowSet::new(rows), next: 0 }
    }

    /// Adds to the count of `row`. Returns what its 32 bits have no room for.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline]
    #[must_use]
    pub fn add(&mut self, row: u32, requests: u64) -> u64 {
        let count = &mut self.counts[row as usize];
        let room = u64::from(u32::MAX - *count);
        let added = requests.min(room);
        // At most the room that there is.
        *count += added as u32;
        if added > 0 {
            self.counted.insert(row);
        }
        requests - added
    }

    /// The rows whose count is not 0.
    pub fn rows(&self) -> &RowSet {
        &self.counted
    }

    /// Rows and counts, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.counted.iter().map(|row| (row, self.counts[row as usize]))
    }

    /// Takes the counts of at most `most` rows, going on behind those taken last and then from the start.
    pub fn cut(&mut self, most: usize) -> Vec<(u32, u32)> {
        let first = self.next;
        let behind = self.counted.starting_at(first);
        let before = self.counted.iter().take_while(|row| *row < first);
        let mut rows: Vec<(u32, u32)> = behind.chain(before).take(most).map(|row| (row, 0)).collect();
        for (row, requests) in &mut rows {
            *requests = std::mem::take(&mut self.counts[*row as usize]);
            self.counted.remove(*row);
        }
        if let Some((last, _)) = rows.last() {
            self.next = last + 1;
        }
        rows
    }

    /// Takes all counts; hands each to `take`, ascending.
    pub fn drain(&mut self, mut take: impl FnMut(u32, u32)) {
        let counted = RowSet::new(self.counts.len());
        for row in std::mem::replace(&mut self.counted, counted).iter() {
            take(row, std::mem::take(&mut self.counts[row as usize]));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ROWS: usize = 200;

    fn counts(added: &[(u32, u64)]) -> RowCounts {
        let mut counts = RowCounts::new(ROWS);
        for (row, requests) in added {
            assert_eq!(counts.add(*row, *requests), 0);
        }
        counts
    }

    #[test]
    fn what_a_count_has_no_room_for_is_given_back() {
        let mut counts = counts(&[(3, u64::from(u32::MAX) - 1)]);
        assert_eq!(counts.add(3, 5), 4);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(3, u32::MAX)]);
        assert_eq!(counts.add(3, 5), 5);
    }

    #[test]
    fn a_row_that_is_always_counted_holds_up_no_other() {
        let mut counts = counts(&(0..ROWS as u32).map(|row| (row, 1)).collect::<Vec<_>>());
        let mut taken = RowSet::new(ROWS);
        for _ in 0..ROWS / 10 + 1 {
            counts.cut(10).into_iter().for_each(|(row, _)| taken.insert(row));
            assert_eq!(counts.add(0, 1), 0);
            assert_eq!(counts.add(1, 1), 0);
        }
        assert_eq!(taken.len(), ROWS);
    }

    proptest! {
        #[test]
        fn they_are_those_of_a_map(
            added in prop::collection::vec((0..ROWS as u32, 0..5_u64), 0..300),
            cuts in prop::collection::vec(0..60_usize, 0..6),
        ) {
            let mut counts = counts(&added);
            let mut expected: BTreeMap<u32, u32> = BTreeMap::new();
            for (row, requests) in added.iter().filter(|(_, requests)| *requests > 0) {
                *expected.entry(*row).or_default() += *requests as u32;
            }
            prop_assert_eq!(counts.iter().collect::<BTreeMap<_, _>>(), expected.clone());
            prop_assert_eq!(counts.rows().len(), expected.len());
            for most in cuts {
                let cut = counts.cut(most);
                prop_assert_eq!(cut.len(), most.min(expected.len()));
                for (row, requests) in cut {
                    prop_assert_eq!(expected.remove(&row), Some(requests));
                }
            }
            let mut rest = Vec::new();
            counts.drain(|row, requests| rest.push((row, requests)));
            prop_assert!(rest.is_sorted());
            prop_assert_eq!(rest.into_iter().collect::<BTreeMap<_, _>>(), expected);
            prop_assert!(counts.rows().is_empty());
        }

        #[test]
        fn sets_are_those_of_the_standard_library(
            one in prop::collection::btree_set(0..ROWS as u32, 0..50), other in prop::collection::btree_set(0..ROWS as u32, 0..50)
        ) {
            let set = |rows: &std::collections::BTreeSet<u32>| {
                let mut set = RowSet::default();
                let mut wide = RowSet::new(ROWS);
                rows.iter().for_each(|row| wide.insert(*row));
                set.unite(&wide);
                set
            };
            let mut both = set(&one);
            both.unite(&set(&other));
            prop_assert!(both.iter().eq(one.union(&other).copied()));
            both.subtract(&set(&other));
            prop_assert!(both.iter().eq(one.difference(&other).copied()));
            prop_assert_eq!(both.len(), both.iter().count());
            prop_assert_eq!(both.is_empty(), both.iter().next().is_none());
        }
    }
}
