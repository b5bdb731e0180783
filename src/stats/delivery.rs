//! Counts on their way: gathered by day, and cut into batches that the store takes as a whole.

use std::collections::BTreeMap;

use mb_core::mirror::MirrorId;
use mb_core::store::{Counts, Traffic};
use time::Date;

/// Counts by UTC day.
pub type Days = BTreeMap<Date, Counts>;

/// Counts that are in memory alone.
#[derive(Debug, Default)]
pub struct Gathered {
    days: Days,
    downloads: u64,
}

impl Gathered {
    /// Counts `requests` downloads of a file of `size` bytes.
    pub fn add(&mut self, day: Date, path: &[u8], size: u64, mirror: MirrorId, requests: u64) {
        let counts = self.days.entry(day).or_default();
        match counts.files.get_mut(path) {
            Some(count) => *count += requests,
            None => drop(counts.files.insert(path.to_vec(), requests)),
        }
        counts.mirrors.entry(mirror).or_default().add(Traffic { requests, bytes: requests.saturating_mul(size) });
        self.downloads += requests;
    }

    /// Takes at most `files` files, with all mirrors of their days; `None` when there is nothing.
    pub fn cut(&mut self, files: usize) -> Option<Days> {
        let mut cut = Days::new();
        let mut left = files;
        while left > 0
            && let Some(mut day) = self.days.first_entry()
        {
            let counts = day.get_mut();
            let rest = match counts.files.keys().nth(left).cloned() {
                Some(first_left) => counts.files.split_off(&first_left),
                None => BTreeMap::new(),
            };
            let taken = std::mem::replace(counts, Counts { files: rest, mirrors: BTreeMap::new() });
            left -= taken.files.len();
            cut.insert(*day.key(), taken);
            if day.get().files.is_empty() {
                day.remove();
            }
        }
        self.downloads -= downloads(&cut);
        (!cut.is_empty()).then_some(cut)
    }

    /// What is gathered.
    pub fn days(&self) -> &Days {
        &self.days
    }

    /// How many downloads that is.
    pub fn downloads(&self) -> u64 {
        self.downloads
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// Forgets everything: it is kept elsewhere.
    pub fn clear(&mut self) {
        *self = Gathered::default();
    }
}

/// All downloads of `days`.
pub fn downloads(days: &Days) -> u64 {
    days.values().flat_map(|counts| counts.files.values()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Month;

    use super::*;

    fn day(day: u8) -> Date {
        Date::from_calendar_date(2026, Month::November, day).unwrap()
    }

    proptest! {
        /// Whatever is counted is in exactly one of the batches.
        #[test]
        fn batches_add_up_to_what_was_gathered(
            counted in prop::collection::vec((1..4_u8, 0..30_u8, 1..5_u32, 1..9_u64), 0..80), limit in 1..20_usize
        ) {
            let mut gathered = Gathered::default();
            let mut expected = Days::new();
            for (date, file, mirror, requests) in counted {
                let path = format!("/{file}").into_bytes();
                gathered.add(day(date), &path, 10, MirrorId(mirror), requests);
                let counts = expected.entry(day(date)).or_default();
                *counts.files.entry(path).or_default() += requests;
                let traffic = counts.mirrors.entry(MirrorId(mirror)).or_default();
                traffic.add(Traffic { requests, bytes: 10 * requests });
            }
            prop_assert_eq!(gathered.downloads(), downloads(&expected));
            let mut sum = Days::new();
            while let Some(batch) = gathered.cut(limit) {
                prop_assert!(batch.values().map(|counts| counts.files.len()).sum::<usize>() <= limit);
                for (day, counts) in batch {
                    let of_day = sum.entry(day).or_default();
                    for (path, requests) in counts.files {
                        prop_assert_eq!(of_day.files.insert(path, requests), None);
                    }
                    for (mirror, traffic) in counts.mirrors {
                        of_day.mirrors.entry(mirror).or_default().add(traffic);
                    }
                }
            }
            prop_assert_eq!(sum, expected);
            prop_assert!(gathered.is_empty() && gathered.downloads() == 0);
        }
    }
}
