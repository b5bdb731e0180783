use std::collections::BTreeMap;
use std::fs;

use mb_core::mirror::MirrorId;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::format::HEADER_LENGTH;
use super::recovery::Recovered;
use super::*;
use crate::stats::delivery::tests::{Counted, add_days, counted, day, generation};
use crate::stats::delivery::{Days, downloads};

fn gathered(counts: &[(&str, u32, u64)]) -> Gathered {
    let mut gathered = Gathered::default();
    for (path, mirror, requests) in counts {
        for _ in 0..*requests {
            gathered.add(day(1), path.as_bytes(), 7, MirrorId(*mirror));
        }
    }
    gathered
}

fn days(counts: &[(&str, u32, u64)]) -> Days {
    gathered(counts).cut(usize::MAX).unwrap_or_default()
}

fn batch(node: &str, sequence: u64, counts: &[(&str, u32, u64)]) -> Arc<StatsBatch> {
    Arc::new(StatsBatch { node: node.to_owned(), sequence, days: days(counts) })
}

fn open(folder: &Path) -> Spool {
    Spool::open(folder).unwrap().unwrap()
}

fn journal_of(folder: &Path) -> Vec<u8> {
    fs::read(folder.join(FILE_NAME)).unwrap()
}

#[test]
fn it_has_one_owner_and_keeps_what_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    assert!(Spool::open(folder.path()).unwrap().is_none(), "owned already");
    spool.add(&mut gathered(&[("/a", 1, 2), ("/b", 2, 1)])).unwrap();
    spool.add(&mut gathered(&[("/a", 1, 3)])).unwrap();
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!(spool.downloads(), 6);
    let (id, batch) = spool.next_batch("n", 1, 10).unwrap().unwrap();
    assert_eq!((batch.node.as_str(), batch.sequence), ("n", 1));
    assert_eq!(batch.days, days(&[("/a", 1, 5), ("/b", 2, 1)]));
    spool.remove(id);
    assert_eq!(spool.downloads(), 0);
    assert!(spool.next_batch("n", 2, 10).unwrap().is_none());
    spool.tidy().unwrap();
    assert_eq!(journal_of(folder.path()).len(), HEADER_LENGTH);
}

/// The heart of "never twice": a batch whose fate is not known comes again as it was, under its first name.
#[test]
fn a_batch_of_unknown_fate_comes_first_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let sent = batch("first", 9, &[("/a", 1, 1)]);
    spool.add_batch(&sent).unwrap();
    spool.add(&mut gathered(&[("/a", 1, 4)])).unwrap();
    drop(spool);
    let mut spool = open(folder.path());
    let (id, batch) = spool.next_batch("second", 1, 10).unwrap().unwrap();
    assert_eq!(batch, sent);
    assert_eq!(spool.next_batch("second", 1, 10).unwrap(), Some((id, sent)), "until it is removed");
    spool.remove(id);
    let (_, batch) = spool.next_batch("second", 1, 10).unwrap().unwrap();
    assert_eq!((batch.node.as_str(), batch.downloads()), ("second", 4));
}

#[test]
fn a_large_spool_is_taken_by_parts() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let paths: Vec<String> = (0..25).map(|number| format!("/{number}")).collect();
    spool.add(&mut gathered(&paths.iter().map(|path| (path.as_str(), 1, 2)).collect::<Vec<_>>())).unwrap();
    let (mut taken, mut bytes, mut sequence) = (0, 0, 0);
    while let Some((id, batch)) = spool.next_batch("n", sequence + 1, 10).unwrap() {
        sequence = batch.sequence;
        taken += batch.downloads();
        let mirrors = batch.days.values().flat_map(|counts| counts.mirrors.values());
        bytes += mirrors.map(|traffic| traffic.bytes).sum::<u64>();
        spool.remove(id);
    }
    assert_eq!((sequence, taken, bytes), (3, 50, 350));
}

#[test]
fn a_path_is_written_once_however_often_it_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let add = |spool: &mut Spool| {
        let before = journal_of(folder.path()).len();
        let mut fresh = Gathered::default();
        fresh.follow(generation(0));
        generation(0).files().for_each(|file| fresh.add(day(1), file.path(), 1, MirrorId(1)));
        spool.add(&mut fresh).unwrap();
        journal_of(folder.path()).len() - before
    };
    let (first, second) = (add(&mut spool), add(&mut spool));
    assert!(second < 4 * generation(0).len() && first > second + 4 * generation(0).len(), "{first} and {second} bytes");
    spool.follow(generation(1));
    spool.follow(generation(0));
    assert_eq!(add(&mut spool), first, "the rows are of another numbering");
    spool.rewritten_from = 0;
    spool.tidy().unwrap();
    assert_eq!(add(&mut spool), second, "a new journal has the paths of all rows that are loose");
    let expected = spool.loose.cut(usize::MAX).unwrap();
    drop(spool);
    assert_eq!(open(folder.path()).loose.cut(usize::MAX).unwrap(), expected);
}

#[test]
fn what_is_no_spool_is_left_alone_and_an_older_one_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("statistics-spool.sqlite"), "SQLite format 3").unwrap();
    drop(open(folder.path()));
    let file = folder.path().join(FILE_NAME);
    let refused = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        let error = Spool::open(folder.path()).err().unwrap();
        assert_eq!(fs::read(&file).unwrap(), content);
        error
    };
    assert!(matches!(refused(b"something else"), SpoolError::Foreign { .. }));
    assert!(matches!(refused(b"something else of some length"), SpoolError::Foreign { .. }));
    let mut header = format::header();
    header[8] = 9;
    assert!(matches!(refused(&header), SpoolError::Version { version: 9, .. }));
    for length in 0..HEADER_LENGTH {
        fs::write(&file, &format::header()[..length]).unwrap();
        open(folder.path()).add(&mut gathered(&[("/a", 1, 1)])).unwrap();
        assert_eq!(open(folder.path()).downloads(), 1, "the writer died after {length} bytes of the header");
    }
}

/// A disk that takes the first bytes of a record and no more, as one does that is nearly full: a file that is sealed at its
/// length is written to up to its end.
#[test]
fn a_full_disk_costs_nothing_that_was_kept_and_leaves_no_half_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    spool.add(&mut gathered(&[("/a", 1, 2), ("/b", 1, 1)])).unwrap();
    let kept = journal_of(folder.path());

    let full = || {
        let sealed = memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::pwrite(&sealed, &kept, 0).unwrap();
        rustix::fs::ftruncate(&sealed, kept.len() as u64 + 5).unwrap();
        fcntl_add_seals(&sealed, SealFlags::GROW).unwrap();
        File::from(sealed)
    };
    let length = |spool: &Spool| spool.journal.file().metadata().unwrap().len();
    let disk = spool.journal.exchange(full());
    let mut fresh = gathered(&[("/c", 1, 5)]);
    assert!(spool.add(&mut fresh).is_err());
    assert_eq!((fresh.downloads(), spool.downloads(), length(&spool)), (5, 3, kept.len() as u64));
    spool.journal.exchange(full());
    assert!(spool.next_batch("n", 1, 10).is_err());
    assert_eq!((spool.downloads(), length(&spool)), (3, kept.len() as u64), "what could not be cut is loose");
    spool.journal.exchange(full());
    assert!(spool.add_batch(&batch("n", 1, &[("/d", 1, 9)])).is_err());
    assert_eq!((spool.downloads(), length(&spool)), (3, kept.len() as u64));

    assert!(spool.find_room().is_err());

    spool.journal.exchange(disk);
    spool.find_room().unwrap();
    assert_eq!(journal_of(folder.path()), kept);
    spool.add(&mut fresh).unwrap();
    drop(spool);
    assert_eq!(open(folder.path()).loose.cut(9).unwrap(), days(&[("/a", 1, 2), ("/b", 1, 1), ("/c", 1, 5)]));
}

/// What the store was given, as it keeps it: each batch once.
#[derive(Clone, Default)]
struct Model {
    taken: BTreeMap<(String, u64), Days>,
    /// All that the spool said it keeps.
    acknowledged: Days,
}

impl Model {
    /// Whether what a new process would find in the spool, and deliver, makes the counts in the store exact.
    fn is_made_whole_by(&self, recovered: &Recovered) -> bool {
        let mut store = self.taken.clone();
        for batch in &recovered.batches {
            store.entry((batch.node.clone(), batch.sequence)).or_insert_with(|| batch.days.clone());
        }
        let mut sum = recovered.loose.clone();
        store.values().for_each(|days| add_days(&mut sum, days));
        sum == self.acknowledged
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<Counted>),
    /// A batch that was sent, and is kept since it was not answered.
    Batch(Counted),
    /// Takes the next batch to send.
    Next(usize),
    /// The store takes the batch that was sent, and nothing is heard of it.
    Take,
    /// It does, and says so.
    Answer,
    Follow(usize),
    Tidy,
    Rewrite,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(counted(), 1..3).prop_map(Step::Add),
        1 => counted().prop_map(Step::Batch),
        4 => (1..20_usize).prop_map(Step::Next),
        1 => Just(Step::Take),
        3 => Just(Step::Answer),
        1 => (0..3_usize).prop_map(Step::Follow),
        1 => Just(Step::Tidy),
        1 => Just(Step::Rewrite),
        1 => Just(Step::Reopen),
    ]
}

/// A spool at work, with a store that takes each batch once.
struct Scene {
    folder: tempfile::TempDir,
    spool: Option<Spool>,
    model: Model,
    on_its_way: Option<(BatchId, Arc<StatsBatch>)>,
    sequence: u64,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let spool = Some(open(folder.path()));
        Scene { folder, spool, model: Model::default(), on_its_way: None, sequence: 0 }
    }

    fn step(&mut self, step: &Step) {
        let spool = self.spool.as_mut().unwrap();
        match step {
            Step::Add(counted) => {
                let mut fresh = Gathered::default();
                fresh.follow(&counted[0].tally().files);
                for counted in counted {
                    fresh.add_tally(counted.tally());
                    counted.add_to(&mut self.model.acknowledged);
                }
                spool.add(&mut fresh).unwrap();
                assert!(fresh.is_empty());
            }
            Step::Batch(counted) if self.on_its_way.is_none() && spool.live.is_empty() => {
                self.sequence += 1;
                let mut sent = Days::new();
                counted.add_to(&mut sent);
                add_days(&mut self.model.acknowledged, &sent);
                let batch = StatsBatch { node: "node".to_owned(), sequence: self.sequence, days: sent };
                let batch = Arc::new(batch);
                self.on_its_way = Some((spool.add_batch(&batch).unwrap(), batch));
            }
            Step::Next(files) if self.on_its_way.is_none() => {
                self.on_its_way = spool.next_batch("node", self.sequence + 1, *files).unwrap();
                if let Some((_, batch)) = &self.on_its_way {
                    self.sequence = self.sequence.max(batch.sequence);
                }
            }
            Step::Take | Step::Answer => {
                let Some((id, batch)) = &self.on_its_way else { return };
                let key = (batch.node.clone(), batch.sequence);
                self.model.taken.entry(key).or_insert_with(|| batch.days.clone());
                if matches!(step, Step::Answer) {
                    spool.remove(*id);
                    self.on_its_way = None;
                }
            }
            Step::Follow(number) => spool.follow(generation(*number)),
            Step::Tidy => spool.tidy().unwrap(),
            Step::Rewrite => {
                spool.rewritten_from = 0;
                spool.tidy().unwrap();
            }
            Step::Reopen => {
                self.spool = None;
                self.on_its_way = None;
                self.spool = Some(open(self.folder.path()));
            }
            Step::Batch(_) | Step::Next(_) => {}
        }
    }

    fn records(&self) -> Vec<u8> {
        journal_of(self.folder.path()).split_off(HEADER_LENGTH)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A kill between two steps, or after any byte of what a step appends: what the next process finds, together with what
    /// the store has, is all that was acknowledged, once.
    #[test]
    fn a_kill_at_any_byte_loses_and_doubles_nothing(steps in prop::collection::vec(step(), 1..25)) {
        let mut scene = Scene::new();
        for step in &steps {
            let (before, model) = (scene.records(), scene.model.clone());
            scene.step(step);
            let after = scene.records();
            if after.starts_with(&before) {
                for length in before.len()..after.len() {
                    let recovered = recovery::recover(&after[..length]);
                    prop_assert_eq!(recovered.tail == Tail::Whole, recovered.length == length);
                    prop_assert!(recovered.tail != Tail::Damaged);
                    prop_assert!(model.is_made_whole_by(&recovered), "killed {} bytes before the end of {:?}", after.len() - length, step);
                }
            }
            let recovered = recovery::recover(&after);
            prop_assert_eq!(recovered.tail, Tail::Whole);
            prop_assert!(scene.model.is_made_whole_by(&recovered), "after {:?}", step);
            let held = scene.spool.as_ref().unwrap().downloads();
            let taken: u64 = scene.model.taken.values().map(downloads).sum();
            let again: u64 = scene.spool.as_ref().unwrap().live.iter()
                .filter(|(_, batch)| scene.model.taken.contains_key(&(batch.node.clone(), batch.sequence)))
                .map(|(_, batch)| batch.downloads()).sum();
            prop_assert_eq!(held + taken - again, downloads(&scene.model.acknowledged));
        }
    }

    /// A byte that is not as it was written ends the records before it, and is told apart from a torn end.
    #[test]
    fn a_damaged_byte_costs_what_is_behind_it(
        steps in prop::collection::vec(step(), 1..12), at in any::<prop::sample::Index>(), change in 1..=255_u8
    ) {
        let mut scene = Scene::new();
        steps.iter().for_each(|step| scene.step(step));
        let mut records = scene.records();
        prop_assume!(!records.is_empty());
        let at = at.index(records.len());
        records[at] ^= change;
        let recovered = recovery::recover(&records);
        prop_assert_eq!(recovered.tail, Tail::Damaged);
        prop_assert!(recovered.length <= at);
        let whole = recovery::recover(&records[..recovered.length]);
        prop_assert_eq!(&whole, &Recovered { tail: Tail::Whole, ..recovered });
    }

    /// Neither bytes nor records with right checksums, whatever they hold, bring the program down.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..6_u8) {
        recovery::recover(&bytes);
        let mut records = Vec::new();
        format::put_record(&mut records, kind, |out| out.extend_from_slice(&bytes));
        let recovered = recovery::recover(&records);
        prop_assert!(recovered.tail == Tail::Damaged || recovered.length == records.len());
    }
}
