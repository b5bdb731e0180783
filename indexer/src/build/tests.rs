//! The built index against a naive oracle: each mirror's list looked up file by file, with the redirector's rules.

use std::collections::{BTreeMap, BTreeSet};

use mb_core::mirror::{MirrorSettings, ScanProtocol};
use mb_core::store::{EmbeddedStore, FileHashes, SourceChanges, SourceEntry, SourceEntryKind};
use mb_core::time::{FileTime, Timestamp};
use mb_index::{Publisher, open_newest_files};
use proptest::prelude::*;

use super::*;
use crate::scan::listing::Listing;
use crate::scan::results::{ScanFacts, ScanResults};

const SECOND: i64 = 1_000_000_000;

type Files = BTreeMap<u16, (u64, i64)>;

#[derive(Clone, Debug)]
struct Scanned {
    files: BTreeMap<u16, (u64, Option<i64>)>,
    precision_ns: u64,
    offset_ms: i64,
    in_store: bool,
}

fn path(number: u16) -> String {
    format!("/d{}/f{number}", number % 7)
}

/// Sizes and times from few values, so that copies often agree with the source and often do not.
fn facts() -> impl Strategy<Value = (u64, i64)> {
    (1_u64..4, prop_oneof![Just(0_i64), Just(SECOND), Just(SECOND + 5), Just(3_600 * SECOND + 7), Just(-3)])
}

fn scanned() -> impl Strategy<Value = Scanned> {
    let copy = (facts(), proptest::bool::weighted(0.9)).prop_map(|((size, time), known)| (size, known.then_some(time)));
    (
        proptest::collection::btree_map(0_u16..400, copy, 0..300),
        prop_oneof![Just(0_u64), Just(1_000_000), Just(1_000_000_000)],
        prop_oneof![Just(0_i64), Just(3_600_000), Just(-3_600_000)],
        proptest::bool::weighted(0.9),
    )
        .prop_map(|(files, precision_ns, offset_ms, in_store)| Scanned {
            files,
            precision_ns,
            offset_ms,
            in_store,
        })
}

/// Selection rules 3 and 4 without any AllowOutdatedFiles, for one copy.
fn oracle(source: (u64, i64), copy: (u64, Option<i64>), scan: &Scanned, fix: bool) -> bool {
    let floor = |time: i64| if scan.precision_ns == 0 { time } else { time.div_euclid(scan.precision_ns as i64) };
    let offset = if fix { scan.offset_ms * 1_000_000 } else { 0 };
    source.0 == copy.0 && copy.1.is_none_or(|time| floor(source.1) == floor(time + offset))
}

fn store_source(store: &dyn Store, source: &Files) {
    let file = |(&number, &(size, modified)): (&u16, &(u64, i64))| SourceEntry {
        path: path(number).into_bytes(),
        kind: SourceEntryKind::File { size, modified: FileTime(modified), hashes: FileHashes::default() },
    };
    let upserts = source.iter().map(file).collect();
    store.apply_source_changes(&SourceChanges { upserts, removals: vec![] }).unwrap();
}

fn store_scan(results: &ScanResults, mirror: MirrorId, scan: &Scanned) {
    let mut listing = Listing::default();
    for (&number, &(size, modified)) in &scan.files {
        listing.push(&path(number).as_bytes()[1..], size, modified.map(FileTime)).unwrap();
    }
    listing.sort();
    let facts = ScanFacts {
        mirror,
        started: Timestamp(1),
        protocol: ScanProtocol::Rsync,
        precision_ns: scan.precision_ns,
        timezone_offset_ms: scan.offset_ms,
    };
    results.replace(&facts, &listing).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_copy_is_in_the_set_an_exception_or_absent(
        source in proptest::collection::btree_map(0_u16..400, facts(), 0..300),
        scans in proptest::collection::vec(scanned(), 0..6),
        twins: bool,
        fix: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path()).unwrap();
        let results = ScanResults::open(folder.path()).unwrap();
        store_source(&store, &source);
        let scans = if twins { scans.iter().chain(&scans).cloned().collect() } else { scans };
        let mut by_id = BTreeMap::new();
        for (number, scan) in scans.iter().enumerate() {
            let id = if scan.in_store {
                let settings = MirrorSettings { name: format!("m{number}"), ..MirrorSettings::default() };
                store.add_mirror(&settings).unwrap()
            } else {
                MirrorId(10_000 + number as u32)
            };
            store_scan(&results, id, scan);
            by_id.insert(id, scan);
        }

        let snapshot = results.snapshot().unwrap();
        let model = build_files(&store, &snapshot, &store.mirrors().unwrap(), &BuildSettings::new(fix, Vec::new())).unwrap();
        let index_dir = folder.path().join("index");
        Publisher::new(&index_dir).lock().unwrap().publish(Some(&model), &[]).unwrap();
        let index = open_newest_files(&index_dir).index.unwrap();

        let expected_ids: Vec<_> = by_id.iter().filter(|(_, scan)| scan.in_store).map(|(id, _)| *id).collect();
        prop_assert_eq!(index.mirror_ids().collect::<Vec<_>>(), expected_ids);
        prop_assert_eq!(index.len(), source.len());
        for (&number, &facts) in &source {
            let mb_index::Entry::File(file) = index.lookup(path(number).as_bytes()) else {
                panic!("{} is lost", path(number));
            };
            let set: BTreeSet<_> = index.set(file.set()).ordinals().map(|ordinal| index.mirror_id(ordinal)).collect();
            let exceptions: BTreeMap<_, _> = file
                .exceptions()
                .map(|copy| (index.mirror_id(copy.mirror), (copy.size, copy.modified.map(|time| time.0))))
                .collect();
            for (&id, scan) in by_id.iter().filter(|(_, scan)| scan.in_store) {
                let copy = scan.files.get(&number).copied();
                let equal = copy.is_some_and(|copy| oracle(facts, copy, scan, fix));
                prop_assert_eq!(set.contains(&id), equal, "{} on {}", path(number), id);
                prop_assert_eq!(exceptions.get(&id).copied(), copy.filter(|_| !equal), "{} on {}", path(number), id);
            }
        }
    }
}

#[test]
fn links_and_directories_are_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    let entry = |path: &str, kind| SourceEntry { path: path.into(), kind };
    let upserts = vec![
        entry("/", SourceEntryKind::Directory),
        entry("/a", SourceEntryKind::Directory),
        entry("/link", SourceEntryKind::Alias { target: b"/a".to_vec() }),
        entry("/out", SourceEntryKind::Forbidden),
    ];
    store.apply_source_changes(&SourceChanges { upserts, removals: vec![] }).unwrap();
    let model = build_files(&store, &results.snapshot().unwrap(), &[], &BuildSettings::new(false, Vec::new())).unwrap();
    let index_dir = folder.path().join("index");
    Publisher::new(&index_dir).lock().unwrap().publish(Some(&model), &[]).unwrap();
    let index = open_newest_files(&index_dir).index.unwrap();
    assert!(matches!(index.lookup(b"/"), mb_index::Entry::Directory));
    assert!(matches!(index.lookup(b"/a"), mb_index::Entry::Directory));
    assert!(matches!(index.lookup(b"/link"), mb_index::Entry::Alias(b"/a")));
    assert!(matches!(index.lookup(b"/out"), mb_index::Entry::Forbidden));
}

/// A mirror whose times are all off had an exception for every file: 24 bytes each, a million times per mirror. Nothing
/// but a rule of `AllowOutdatedFiles` makes use of more than a sample of them.
#[test]
fn a_mirror_that_differs_everywhere_keeps_few_exceptions_but_all_below_a_rule() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    let source: Files = (0..700).map(|number| (number, (1, 0))).collect();
    store_source(&store, &source);
    let late = |seconds: i64| Scanned {
        files: (0..700).map(|number| (number, (1, Some(seconds * SECOND)))).collect(),
        precision_ns: SECOND as u64,
        offset_ms: 0,
        in_store: true,
    };
    for (name, seconds) in [("late", 60), ("as late", 60), ("later", 90), ("right", 0)] {
        let id = store.add_mirror(&MirrorSettings { name: name.into(), ..MirrorSettings::default() }).unwrap();
        store_scan(&results, id, &late(seconds));
    }
    let kept = |prefixes: &[&str], explained_exceptions| {
        let outdated_prefixes = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        let settings = BuildSettings { explained_exceptions, ..BuildSettings::new(false, outdated_prefixes) };
        let model = build_files(&store, &results.snapshot().unwrap(), &store.mirrors().unwrap(), &settings).unwrap();
        let index_dir = folder.path().join("index");
        Publisher::new(&index_dir).lock().unwrap().publish(Some(&model), &[]).unwrap();
        let index = open_newest_files(&index_dir).index.unwrap();
        let mut kept = [(0_u64, 0_u64); 4];
        for file in index.files() {
            assert_eq!(index.set(file.set()).ordinals().collect::<Vec<_>>(), [3], "{file:?}");
            for exception in file.exceptions() {
                let (below_rule, elsewhere) = &mut kept[exception.mirror as usize];
                *if file.path().starts_with(b"/d3/") { below_rule } else { elsewhere } += 1;
            }
        }
        kept
    };
    assert_eq!(kept(&[], 700), [(100, 600), (100, 600), (100, 600), (0, 0)]);
    let bounded = kept(&[], 699);
    assert!(bounded[..3].iter().all(|(a, b)| a + b == 699), "{bounded:?}");
    assert_eq!(kept(&["/d3/"], 0), [(100, 0), (100, 0), (100, 0), (0, 0)]);
    let mixed = kept(&["/nothing/", "/d3/"], 50);
    assert!(mixed[..3].iter().all(|(a, b)| *a == 100 && *b <= 50), "{mixed:?}");
}
