//! Counts on their way: gathered by day, and cut into batches that the store takes as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use mb_core::mirror::MirrorId;
use mb_core::store::{Counts, Traffic};
use mb_index::{Entry, FileIndex};
use time::Date;

use super::row_counts::RowCounts;
use super::tally::{Download, Tally, date_of};

/// Counts by UTC day.
pub type Days = BTreeMap<Date, Counts>;

/// Counts that are gathered until they are delivered.
///
/// Files are counted by row of one generation, the latest that was counted in; see [`RowCounts`]. What is counted for a file
/// that this generation does not have, or before there is one, is kept by path.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What rows are rows of.
    files: Option<Arc<FileIndex>>,
    days: BTreeMap<Date, OfDay>,
    downloads: u64,
}

/// What was counted on a day.
#[derive(Debug, Default)]
pub struct OfDay {
    /// By row of the generation; of no rows until there is one.
    pub rows: RowCounts,
    /// By path.
    pub paths: BTreeMap<Vec<u8>, u64>,
    /// By mirror.
    pub mirrors: BTreeMap<MirrorId, Traffic>,
}

impl Gathered {
    /// Counts all that a shard counted, but for its sightings. Returns the memory of its list, to be used again.
    pub fn add_tally(&mut self, tally: Tally) -> Vec<Download> {
        let (files, mirrors) = (Arc::clone(&tally.files), Arc::clone(&tally.mirrors));
        let day = date_of(tally.day);
        let by_row = self.files.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, &files));
        let mut traffic = vec![Traffic::default(); mirrors.len()];
        let (ours, of_day) = (self.files.as_deref(), of_day(&mut self.days, day, self.files.as_deref()));
        let mut downloads = 0;
        let spare = tally.add_up(|Download { file, mirror, size }, requests| {
            downloads += requests;
            traffic[mirror as usize].add(Traffic { requests, bytes: requests.saturating_mul(size) });
            if by_row {
                of_day.add_row(file, requests, &files);
            } else {
                of_day.add_path(files.file(file).path(), requests, ours);
            }
        });
        for (id, traffic) in mirrors.iter().zip(traffic).filter(|(_, traffic)| traffic.requests > 0) {
            of_day.mirrors.entry(*id).or_default().add(traffic);
        }
        self.downloads += downloads;
        spare
    }

    /// Counts a download of a file of `size` bytes.
    pub fn add(&mut self, day: Date, path: &[u8], size: u64, mirror: MirrorId) {
        let of_day = of_day(&mut self.days, day, self.files.as_deref());
        of_day.add_path(path, 1, self.files.as_deref());
        of_day.mirrors.entry(mirror).or_default().add(Traffic { requests: 1, bytes: size });
        self.downloads += 1;
    }

    /// Counts what was counted already, as what [`Gathered::cut`] gave.
    pub fn add_days(&mut self, days: &Days) {
        for (day, counts) in days {
            let of_day = of_day(&mut self.days, *day, self.files.as_deref());
            for (path, requests) in &counts.files {
                of_day.add_path(path, *requests, self.files.as_deref());
                self.downloads = self.downloads.saturating_add(*requests);
            }
            for (mirror, traffic) in &counts.mirrors {
                of_day.mirrors.entry(*mirror).or_default().add(*traffic);
            }
        }
    }

    /// Counts everything that `other` holds, which is empty then, and follows its generation.
    pub fn absorb(&mut self, other: &mut Gathered) {
        if let Some(files) = &other.files {
            self.follow(files);
        }
        for (day, counted) in &mut other.days {
            let of_day = of_day(&mut self.days, *day, self.files.as_deref());
            if let Some(files) = &other.files {
                counted.rows.drain(|row, requests| of_day.add_row(row, requests.into(), files));
            }
            for (path, requests) in std::mem::take(&mut counted.paths) {
                of_day.add_path(&path, requests, self.files.as_deref());
            }
            for (mirror, traffic) in std::mem::take(&mut counted.mirrors) {
                of_day.mirrors.entry(mirror).or_default().add(traffic);
            }
        }
        self.downloads += std::mem::take(&mut other.downloads);
        other.forget_past_days();
    }

    /// Takes rows as rows of `files` from now on. What is counted is translated by path, so that the generation before is
    /// let go at once. Returns whether `files` are others than before.
    pub fn follow(&mut self, files: &Arc<FileIndex>) -> bool {
        if self.files.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, files)) {
            return false;
        }
        let before = self.files.replace(Arc::clone(files));
        for of_day in self.days.values_mut() {
            let rows = std::mem::replace(&mut of_day.rows, RowCounts::new(files.len()));
            let paths = std::mem::take(&mut of_day.paths);
            if let Some(before) = &before {
                for (path, (_, requests)) in before.paths(rows.rows().iter()).zip(rows.iter()) {
                    of_day.add_path(path, requests.into(), Some(files));
                }
            }
            for (path, requests) in paths {
                of_day.add_path(&path, requests, Some(files));
            }
        }
        true
    }

    /// Lets go of the generation when nothing is gathered.
    pub fn let_go(&mut self) {
        if self.is_empty() {
            *self = Gathered::default();
        }
    }

    /// Takes at most `files` files, with all mirrors of their days; `None` when there is nothing.
    pub fn cut(&mut self, files: usize) -> Option<Days> {
        let mut cut = Days::new();
        let mut left = files;
        for (day, of_day) in self.days.iter_mut().filter(|(_, of_day)| !of_day.is_empty()) {
            if left == 0 {
                break;
            }
            let mut counts = Counts { files: BTreeMap::new(), mirrors: std::mem::take(&mut of_day.mirrors) };
            let mut count = |path: Vec<u8>, requests| *counts.files.entry(path).or_default() += requests;
            // These first: they are few, but for the first moments after a start.
            while left > 0
                && let Some((path, requests)) = of_day.paths.pop_first()
            {
                count(path, requests);
                self.downloads -= requests;
                left -= 1;
            }
            if let Some(files) = &self.files {
                let rows = of_day.rows.cut(left);
                for (path, (_, requests)) in files.paths(rows.iter().map(|(row, _)| *row)).zip(&rows) {
                    count(path.to_vec(), u64::from(*requests));
                    self.downloads -= u64::from(*requests);
                }
                left -= rows.len();
            }
            cut.insert(*day, counts);
        }
        self.forget_past_days();
        (!cut.is_empty()).then_some(cut)
    }

    /// What rows are rows of.
    pub fn files(&self) -> Option<&Arc<FileIndex>> {
        self.files.as_ref()
    }

    /// What is gathered, by day; nothing for some days, perhaps.
    pub fn days(&self) -> &BTreeMap<Date, OfDay> {
        &self.days
    }

    /// How many downloads that is.
    pub fn downloads(&self) -> u64 {
        self.downloads
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.days.values().all(OfDay::is_empty)
    }

    /// Frees the memory of days that nothing is left of, except the last, which is most likely to be counted in again.
    fn forget_past_days(&mut self) {
        let last = self.days.keys().next_back().copied();
        self.days.retain(|day, of_day| Some(*day) == last || !of_day.is_empty());
    }
}

impl OfDay {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.mirrors.is_empty() && self.paths.is_empty() && self.rows.rows().is_empty()
    }

    #[inline]
    fn add_row(&mut self, row: u32, requests: u64, files: &FileIndex) {
        let rest = self.rows.add(row, requests);
        if rest > 0 {
            *self.paths.entry(files.file(row).path().to_vec()).or_default() += rest;
        }
    }

    /// Counts in the row that `files` have for the path, if they do.
    fn add_path(&mut self, path: &[u8], requests: u64, files: Option<&FileIndex>) {
        if let Some(files) = files
            && let Entry::File(file) = files.lookup(path)
        {
            return self.add_row(file.row(), requests, files);
        }
        match self.paths.get_mut(path) {
            Some(count) => *count += requests,
            None => drop(self.paths.insert(path.to_vec(), requests)),
        }
    }
}

/// What was counted on `day`.
fn of_day<'a>(days: &'a mut BTreeMap<Date, OfDay>, day: Date, files: Option<&FileIndex>) -> &'a mut OfDay {
    days.entry(day)
        .or_insert_with(|| OfDay { rows: RowCounts::new(files.map_or(0, FileIndex::len)), ..OfDay::default() })
}

/// All downloads of `days`.
pub fn downloads(days: &Days) -> u64 {
    days.values().flat_map(|counts| counts.files.values()).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;

    use mb_core::store::FileHashes;
    use mb_core::time::FileTime;
    use mb_index::{FileRecord, FilesBuilder, Publisher, open_newest_files};
    use proptest::prelude::*;
    use time::Month;

    use super::*;
    use crate::stats::tally::day_of;

    /// Files of a generation: those whose number is not divided by this.
    const GENERATIONS: [usize; 3] = [2, 3, 5];
    /// Numbers of files.
    const FILES: usize = 40;
    /// Mirrors by row, in two tables.
    const MIRRORS: [[u32; 3]; 2] = [[1, 2, 3], [2, 3, 9]];
    /// 2026-11-01.
    const FIRST_DAY: i64 = 1_793_491_200;

    /// Generations that share some files, in different rows.
    static INDEXES: LazyLock<Vec<Arc<FileIndex>>> = LazyLock::new(|| {
        let files = |divisor| (0..FILES).filter(move |number| number % divisor != 0);
        GENERATIONS.into_iter().map(|divisor| index(files(divisor).map(path))).collect()
    });

    fn path(number: usize) -> Vec<u8> {
        format!("/pool/file{number:02}").into_bytes()
    }

    fn size(path: &[u8]) -> u64 {
        path.iter().map(|byte| u64::from(*byte)).sum()
    }

    fn index(paths: impl Iterator<Item = Vec<u8>>) -> Arc<FileIndex> {
        let mut builder = FilesBuilder::new(&[], false);
        let set = builder.intern_set(&[]);
        for path in paths {
            let (modified, hashes) = (FileTime::from_seconds(0), FileHashes::default());
            let record = FileRecord { path: &path, size: size(&path), modified, hashes, set, exceptions: &[] };
            builder.push_file(record).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        Publisher::new(folder.path()).lock().unwrap().publish(Some(&builder.finish()), &[]).unwrap();
        Arc::new(open_newest_files(folder.path()).index.unwrap())
    }

    /// The generation with this number.
    pub(in crate::stats) fn generation(number: usize) -> &'static Arc<FileIndex> {
        &INDEXES[number % GENERATIONS.len()]
    }

    /// A day of November.
    pub(in crate::stats) fn day(day: u8) -> Date {
        Date::from_calendar_date(2026, Month::November, day).unwrap()
    }

    /// What a shard counted.
    #[derive(Clone, Debug)]
    pub(in crate::stats) struct Counted {
        generation: usize,
        table: usize,
        day: u8,
        /// File and row of the mirror.
        downloads: Vec<(usize, usize)>,
    }

    pub(in crate::stats) fn counted() -> impl Strategy<Value = Counted> {
        let downloads = prop::collection::vec((0..FILES, 0..MIRRORS[0].len()), 1..30);
        (0..GENERATIONS.len(), 0..MIRRORS.len(), 1..4_u8, downloads)
            .prop_map(|(generation, table, day, downloads)| Counted { generation, table, day, downloads })
    }

    impl Counted {
        /// As it is handed over; files that the generation does not have come from the one before.
        pub(in crate::stats) fn tally(&self) -> Tally {
            let files = generation(self.generation);
            let mirrors = MIRRORS[self.table].map(MirrorId).to_vec();
            let day = day_of(FIRST_DAY) + i64::from(self.day) - 1;
            let mut tally = Tally::new(Arc::clone(files), mirrors.into(), day, Vec::new());
            for (file, mirror) in &self.downloads {
                let file = files.file((*file % files.len()) as u32);
                tally.count(Download { file: file.row(), mirror: *mirror as u32, size: file.size() });
            }
            tally
        }

        /// Adds it to a sum, in the simplest way.
        pub(in crate::stats) fn add_to(&self, sum: &mut Days) {
            let files = generation(self.generation);
            for (file, mirror) in &self.downloads {
                let file = files.file((*file % files.len()) as u32);
                let counts = sum.entry(day(self.day)).or_default();
                *counts.files.entry(file.path().to_vec()).or_default() += 1;
                let traffic = counts.mirrors.entry(MirrorId(MIRRORS[self.table][*mirror])).or_default();
                traffic.add(Traffic { requests: 1, bytes: file.size() });
            }
        }
    }

    /// Adds `days` to `sum`.
    pub(in crate::stats) fn add_days(sum: &mut Days, days: &Days) {
        for (day, counts) in days {
            let of_day = sum.entry(*day).or_default();
            for (path, requests) in &counts.files {
                *of_day.files.entry(path.clone()).or_default() += requests;
            }
            for (mirror, traffic) in &counts.mirrors {
                of_day.mirrors.entry(*mirror).or_default().add(*traffic);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Tally(Counted),
        Single(u8, usize),
        Follow(usize),
        Absorb,
        Cut(usize),
        CutAndPutBack(usize),
        LetGo,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => counted().prop_map(Step::Tally),
            1 => (1..4_u8, 0..FILES).prop_map(|(day, file)| Step::Single(day, file)),
            2 => (0..GENERATIONS.len()).prop_map(Step::Follow),
            2 => Just(Step::Absorb),
            2 => (1..20_usize).prop_map(Step::Cut),
            1 => (1..20_usize).prop_map(Step::CutAndPutBack),
            1 => Just(Step::LetGo),
        ]
    }

    proptest! {
        /// Whatever is counted is in the batches, in whatever order generations, days and cuts come.
        #[test]
        fn batches_add_up_to_what_was_counted(steps in prop::collection::vec(step(), 0..40)) {
            let (mut fresh, mut kept) = (Gathered::default(), Gathered::default());
            let (mut expected, mut sum) = (Days::new(), Days::new());
            for step in steps {
                match step {
                    Step::Tally(counted) => {
                        counted.add_to(&mut expected);
                        prop_assert!(fresh.add_tally(counted.tally()).is_empty());
                    }
                    Step::Single(date, file) => {
                        fresh.add(day(date), &path(file), 5, MirrorId(7));
                        let counts = expected.entry(day(date)).or_default();
                        *counts.files.entry(path(file)).or_default() += 1;
                        counts.mirrors.entry(MirrorId(7)).or_default().add(Traffic { requests: 1, bytes: 5 });
                    }
                    Step::Follow(number) => {
                        fresh.follow(generation(number));
                        prop_assert!(!fresh.follow(generation(number)), "followed already");
                    }
                    Step::Absorb => {
                        kept.absorb(&mut fresh);
                        prop_assert!(fresh.is_empty() && fresh.downloads() == 0);
                    }
                    Step::Cut(most) => {
                        for gathered in [&mut kept, &mut fresh] {
                            let cut = gathered.cut(most).unwrap_or_default();
                            prop_assert!(cut.values().map(|counts| counts.files.len()).sum::<usize>() <= most);
                            add_days(&mut sum, &cut);
                        }
                    }
                    Step::CutAndPutBack(most) => {
                        let before = kept.downloads();
                        let cut = kept.cut(most).unwrap_or_default();
                        prop_assert_eq!(kept.downloads() + downloads(&cut), before);
                        kept.add_days(&cut);
                        prop_assert_eq!(kept.downloads(), before);
                    }
                    Step::LetGo => fresh.let_go(),
                }
                prop_assert_eq!(downloads(&sum) + fresh.downloads() + kept.downloads(), downloads(&expected));
            }
            for mut gathered in [fresh, kept] {
                while let Some(cut) = gathered.cut(7) {
                    add_days(&mut sum, &cut);
                }
                prop_assert!(gathered.is_empty() && gathered.downloads() == 0);
            }
            prop_assert_eq!(sum, expected);
        }
    }

    #[test]
    fn a_generation_is_let_go_with_the_next_or_with_the_last_count() {
        let old = index([b"/a".to_vec(), b"/b".to_vec()].into_iter());
        let tally = || {
            let mut tally = Tally::new(Arc::clone(&old), vec![MirrorId(1)].into(), 0, Vec::new());
            tally.count(Download { file: 1, mirror: 0, size: 7 });
            tally
        };
        let mut gathered = Gathered::default();
        gathered.follow(&old);
        gathered.add_tally(tally());
        gathered.let_go();
        assert_eq!(Arc::strong_count(&old), 2, "it is still needed");
        gathered.follow(generation(0));
        assert_eq!(Arc::strong_count(&old), 1);
        gathered.add_tally(tally());
        assert_eq!(Arc::strong_count(&old), 1, "one that comes late is counted by path");
        let cut = gathered.cut(9).unwrap();
        assert_eq!(cut[&date_of(0)].files, BTreeMap::from([(b"/b".to_vec(), 2)]));
        assert!(gathered.files().is_some());
        gathered.let_go();
        assert!(gathered.files().is_none());
    }
}
