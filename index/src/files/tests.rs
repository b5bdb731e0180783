//! Files with valid checksums whose content breaks the rules, and what the tables cost.

use std::path::Path;

use mb_core::mirror::MirrorId;
use mb_core::store::FileHashes;
use mb_core::time::{FileTime, Timestamp};
use proptest::prelude::*;

use super::archive::*;
use super::builder::{BuildError, Exception, FileRecord, FilesBuilder};
use super::reader::{Entry, FileIndex};
use super::set::SetId;
use super::verify::FilesViolation;
use crate::header::{HEADER_LENGTH, Header, Kind};
use crate::open::OpenError;
use crate::publish::write_generation;

/// Two mirrors, two sets, three files (one with exceptions, one with a hash), an alias, a forbidden link.
fn builder() -> FilesBuilder {
    let mut builder = FilesBuilder::new(&[MirrorId(3), MirrorId(5)], true);
    let both = builder.intern_set(&[0b11]);
    let none = builder.intern_set(&[0]);
    let exceptions = [
        Exception { mirror: 0, size: 1, modified: None },
        Exception { mirror: 1, size: 2, modified: Some(FileTime(7)) },
    ];
    let hashes = FileHashes { sha256: Some([9; 32]), ..FileHashes::default() };
    let file = |path, set| FileRecord { path, size: 4, modified: FileTime(-1), hashes, set, exceptions: &[] };
    builder.push_file(file(b"/a/one", both)).unwrap();
    builder.push_file(FileRecord { exceptions: &exceptions, ..file(b"/a/two", none) }).unwrap();
    let hashes = FileHashes::default();
    builder.push_file(FileRecord { hashes, ..file(b"/b", both) }).unwrap();
    builder.push_alias(b"/link", b"/a").unwrap();
    builder.push_forbidden(b"/out").unwrap();
    builder
}

fn write(dir: &Path, archive: &FilesArchive) -> Result<FileIndex, OpenError> {
    let path = write_generation(dir, Kind::Files, 1, Timestamp(0), archive, &mut |_| Ok(())).unwrap();
    FileIndex::open(&path, 1)
}

/// Reads everything that can be read.
fn read_all(index: &FileIndex) {
    for file in index.files() {
        assert!(matches!(index.lookup(file.path()), Entry::File(found) if found.row() == file.row()));
        let ordinals = index.set(file.set()).ordinals().chain(file.exceptions().map(|exception| exception.mirror));
        assert!(ordinals.map(|ordinal| index.mirror_id(ordinal)).all(|id| id.0 > 0));
        std::hint::black_box((file.size(), file.modified(), file.sha1(), file.sha256(), file.md5()));
    }
    assert!(index.paths(0..index.len() as u32).eq(index.files().map(|file| file.path())));
    let mut scratch = Vec::new();
    for (path, _) in index.entries() {
        assert!(!matches!(index.lookup(path), Entry::Missing));
        index.resolve(&[path, b"/x"].concat(), &mut scratch);
    }
    assert!(matches!(index.lookup(b"/nothing"), Entry::Missing));
}

type Rule = (&'static str, fn(&mut FilesArchive), FilesViolation);

#[test]
fn each_broken_rule_is_found() {
    use FilesViolation::*;
    let rules: &[Rule] = &[
        ("mirror id 0", |a| a.mirror_ids[0] = 0, MirrorIds),
        ("mirror ids descend", |a| a.mirror_ids.reverse(), MirrorIds),
        ("mirror ids equal", |a| a.mirror_ids[1] = 3, MirrorIds),
        ("set words missing", |a| a.set_words.truncate(1), SetWords),
        ("set words too many", |a| a.set_words.push(0), SetWords),
        ("set count enormous", |a| a.set_count = u32::MAX, SetWords),
        ("bit of no mirror", |a| a.set_words[1] = 0b100, SetBits { set: 1 }),
        ("short hash column", |a| a.sha256.truncate(2), HashColumn),
        ("flag without column", |a| a.rows[0].hashes = HAS_SHA1, HashFlags { row: 0 }),
        ("unknown flag", |a| a.rows[0].hashes = 8, HashFlags { row: 0 }),
        ("path gap", |a| a.rows[1].path_offset += 1, PathRange { record: 1 }),
        ("path offset enormous", |a| a.rows[1].path_offset = u64::MAX, PathRange { record: 1 }),
        ("path beyond the end", |a| a.rows[2].path_length = 99, PathRange { record: 2 }),
        ("bytes after the paths", |a| a.path_bytes.push(b'x'), PathBytes),
        ("empty path", |a| a.rows[0].path_length = 0, Order { record: 0 }),
        ("relative path", |a| a.path_bytes[0] = b'0', UncleanPath { record: 0 }),
        ("empty component", |a| a.path_bytes[1] = b'/', UncleanPath { record: 0 }),
        ("paths descend", |a| a.path_bytes[1] = b'z', Order { record: 1 }),
        ("unknown set", |a| a.rows[2].set = 2, UnknownSet { row: 2 }),
        ("exceptions gap", |a| a.rows[1].exceptions_start = 1, ExceptionRange { row: 1 }),
        ("exceptions beyond the end", |a| a.rows[2].exceptions_length = 1, ExceptionRange { row: 2 }),
        ("exceptions of nobody", |a| a.exceptions.push(a.exceptions[0]), ExceptionCount),
        ("exceptions descend", |a| a.exceptions.reverse(), Exception { row: 1 }),
        ("exceptions equal", |a| a.exceptions[0].mirror = 1, Exception { row: 1 }),
        ("exception of no mirror", |a| a.exceptions[1].mirror = 2, Exception { row: 1 }),
        ("exception of no mirror at all", |a| a.exceptions[1].mirror = u32::MAX, Exception { row: 1 }),
        ("exception in the set", |a| a.rows[1].set = 0, Exception { row: 1 }),
        ("unknown kind", |a| a.entries[1].kind = 4, EntryKind { entry: 1 }),
        ("directory with a target", |a| a.entries[2].kind = DIRECTORY, EntryKind { entry: 2 }),
        ("alias without a target", |a| a.entries[1].kind = ALIAS, EntryKind { entry: 1 }),
        ("unclean target", |a| a.entry_bytes[8] = b'x', UncleanPath { record: 5 }),
        ("entry gap", |a| a.entries[1].offset += 1, PathRange { record: 4 }),
        ("target beyond the end", |a| a.entries[3].target_length = 9, PathRange { record: 6 }),
        ("bytes after the entries", |a| a.entry_bytes.push(0), PathBytes),
        ("no entries", |a| (a.entries, a.entry_bytes) = Default::default(), Root),
        ("root is no directory", |a| a.entries[0].kind = FORBIDDEN, Root),
        ("no empty slot", |a| a.slots.retain(|slot| slot.record != EMPTY), TableFull),
        ("no slots", |a| a.slots.clear(), TableFull),
    ];
    for (what, break_it, violation) in rules {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = builder().finish().archive;
        break_it(&mut archive);
        match write(dir.path(), &archive) {
            Err(OpenError::Files { source, .. }) => assert_eq!(source, *violation, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_hash_table_that_does_not_find_its_records_is_refused() {
    let slots = builder().finish().archive.slots;
    let occupied = || (0..slots.len()).filter(|&at| slots[at].record != EMPTY);
    let empty = (0..slots.len()).find(|&at| slots[at].record == EMPTY).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<Slot>)| {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = builder().finish().archive;
        change(&mut archive.slots);
        match write(dir.path(), &archive) {
            Err(OpenError::Files { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    for at in occupied() {
        let wrong = |violation| matches!(violation, FilesViolation::Slot { .. } | FilesViolation::TableIncomplete);
        assert!(wrong(refused(&|slots| slots[at].record = EMPTY)), "slot {at} emptied");
        assert!(wrong(refused(&|slots| slots[at].record = 999)), "slot {at} out of range");
        assert!(wrong(refused(&|slots| slots[at].fingerprint ^= 1)), "slot {at} with another fingerprint");
        assert!(wrong(refused(&|slots| slots[empty] = slots[at])), "slot {at} twice");
        assert!(wrong(refused(&|slots| slots.swap(at, empty))), "slot {at} moved");
        assert!(
            wrong(refused(&|slots| {
                slots.insert(0, Slot { fingerprint: 0, record: EMPTY });
                slots.swap(0, at + 1);
            })),
            "slot {at} in another table size"
        );
    }
}

#[test]
fn paths_below_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = builder().finish().archive;
    // `/a` becomes `/c`, in the table too.
    archive.entry_bytes[2] = b'c';
    let mut table = super::slots::SlotTable::for_records(archive.rows.len() + archive.entries.len());
    for (record, path) in [b"/a/one" as &[u8], b"/a/two", b"/b", b"/", b"/c", b"/link", b"/out"].iter().enumerate() {
        table.insert(super::slots::hash(path), record as u32, |_| false);
    }
    archive.slots = table.into_slots();
    match write(dir.path(), &archive) {
        Err(OpenError::Files { source, .. }) => assert_eq!(source, FilesViolation::Orphan { record: 0 }),
        other => panic!("{other:?}"),
    }
}

/// Opens a payload under a header that fits it.
fn open_sealed(dir: &Path, payload: &[u8]) -> Result<FileIndex, OpenError> {
    let header = Header {
        kind: Kind::Files,
        generation: 1,
        payload_length: payload.len() as u64,
        payload_checksum: xxhash_rust::xxh3::xxh3_64(payload),
        built: Timestamp(0),
    };
    let path = dir.join("sealed");
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, [&header.encode(), payload].concat()).unwrap();
    FileIndex::open(&path, 1)
}

fn payload(dir: &Path) -> Vec<u8> {
    drop(write(dir, &builder().finish().archive).unwrap());
    std::fs::read(dir.join("files-1")).unwrap().split_off(HEADER_LENGTH)
}

#[test]
fn no_bit_flipped_under_a_valid_checksum_leads_to_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let good = payload(dir.path());
    let mut accepted = 0;
    for byte in 0..good.len() {
        for bit in 0..8 {
            let mut payload = good.clone();
            payload[byte] ^= 1 << bit;
            if let Ok(index) = open_sealed(dir.path(), &payload) {
                read_all(&index);
                accepted += 1;
            }
        }
    }
    // Sizes, times, hashes and padding may change without breaking a rule.
    assert!(accepted > 0 && accepted < good.len() * 8);
}

proptest! {
    #[test]
    fn no_words_written_under_a_valid_checksum_lead_to_a_crash(
        words in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                any::<u64>(), 0..64u64, Just(u64::MAX), Just(u64::MAX / 2), any::<u32>().prop_map(u64::from)
            ]),
            1..4,
        ),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut payload = payload(dir.path());
        for (at, word) in words {
            let at = at.index(payload.len() / 8) * 8;
            payload[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if let Some(cut) = cut {
            let start = cut.index(payload.len());
            payload.drain(..start);
        }
        if let Ok(index) = open_sealed(dir.path(), &payload) {
            read_all(&index);
        }
    }
}

#[test]
fn the_builder_refuses_what_a_reader_would() {
    let mut builder = FilesBuilder::new(&[MirrorId(1), MirrorId(2)], false);
    let first = builder.intern_set(&[0b01]);
    assert_eq!(builder.intern_set(&[0b01]), first);
    let copy = |mirror| Exception { mirror, size: 0, modified: None };
    let good = FileRecord {
        path: b"/m",
        size: 0,
        modified: FileTime(0),
        hashes: FileHashes::default(),
        set: first,
        exceptions: &[],
    };
    builder.push_file(good).unwrap();
    let long = [b"/".as_slice(), &[b'x'; 65_535]].concat();
    let unclean = |path: &[u8]| BuildError::Unclean { path: path.into() };
    let mut refused = |file: FileRecord<'_>| builder.push_file(file).unwrap_err();
    assert_eq!(refused(good), BuildError::Order { path: b"/m".into(), previous: b"/m".into() });
    assert_eq!(
        refused(FileRecord { path: b"/a", ..good }),
        BuildError::Order { path: b"/a".into(), previous: b"/m".into() }
    );
    assert_eq!(refused(FileRecord { path: b"/n/../m", ..good }), unclean(b"/n/../m"));
    assert!(matches!(refused(FileRecord { path: &long, ..good }), BuildError::TooLong { length: 65_536, .. }));
    let good = FileRecord { path: b"/n", ..good };
    assert!(matches!(refused(FileRecord { set: SetId(1), ..good }), BuildError::UnknownSet { set: 1, .. }));
    for (exceptions, culprit) in [(vec![copy(0)], 0), (vec![copy(2)], 2), (vec![copy(1), copy(1)], 1)] {
        let error = refused(FileRecord { exceptions: &exceptions, ..good });
        assert_eq!(error, BuildError::Exceptions { path: b"/n".into(), mirror: culprit });
    }
    builder.push_alias(b"/x", b"/m").unwrap();
    assert!(matches!(builder.push_directory(b"/x"), Err(BuildError::Order { .. })));
    assert_eq!(builder.push_alias(b"/y", b"m"), Err(unclean(b"m")));
    assert_eq!(builder.push_forbidden(b"/y/"), Err(unclean(b"/y/")));
    builder.push_file(good).unwrap();
    assert_eq!(builder.finish().len(), 2);
}

#[test]
fn copies_can_be_placed_when_all_files_are_there() {
    let mut builder = FilesBuilder::new(&[MirrorId(1), MirrorId(2)], false);
    let set = builder.intern_set(&[0b11]);
    for path in [&b"/a"[..], b"/b"] {
        let hashes = FileHashes::default();
        builder.push_file(FileRecord { path, size: 7, modified: FileTime(8), hashes, set, exceptions: &[] }).unwrap();
    }
    assert_eq!((builder.len(), builder.path(1), builder.source_facts(1)), (2, &b"/b"[..], (7, FileTime(8))));
    let differs = Exception { mirror: 1, size: 9, modified: None };
    let words = [[0b01], [0b10]];
    let refused = builder.place_copies(|row, exceptions| {
        exceptions.push(differs);
        &words[row]
    });
    assert_eq!(refused, Err(BuildError::Exceptions { path: b"/b".into(), mirror: 1 }));
    let placed = builder.place_copies(|row, exceptions| {
        exceptions.extend((row == 0).then_some(differs));
        &words[row]
    });
    placed.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), &builder.finish().archive).unwrap();
    let copies = |row| {
        (
            index.set(index.file(row).set()).ordinals().collect::<Vec<_>>(),
            index.file(row).exceptions().collect::<Vec<_>>(),
        )
    };
    assert_eq!(index.set_count(), 2);
    assert_eq!(copies(0), (vec![0], vec![differs]));
    assert_eq!(copies(1), (vec![1], vec![]));
}

#[test]
fn a_file_costs_at_most_64_bytes_besides_its_path_and_hashes() {
    let mirrors: Vec<MirrorId> = (1..=400).map(MirrorId).collect();
    let mut builder = FilesBuilder::new(&mirrors, true);
    let mut path_bytes = 0;
    for number in 0..100_000u64 {
        let path = format!("/pool/main/{:04}/package-{number:06}_1.0.deb", number / 25).into_bytes();
        let mut words = vec![u64::MAX; builder.set_words()];
        words[6] = 0xffff;
        words[0] = number % 100;
        let set = builder.intern_set(&words);
        let exceptions = [Exception { mirror: 9, size: 1, modified: None }];
        let exceptions = if number % 20 == 0 { &exceptions[..] } else { &[] };
        let hashes = FileHashes { sha256: Some([1; 32]), ..FileHashes::default() };
        let (size, modified) = (number, FileTime(1));
        builder.push_file(FileRecord { path: &path, size, modified, hashes, set, exceptions }).unwrap();
        path_bytes += path.len();
    }
    let dir = tempfile::tempdir().unwrap();
    drop(write(dir.path(), &builder.finish().archive).unwrap());
    let bytes = std::fs::metadata(dir.path().join("files-1")).unwrap().len() as usize;
    let per_file = (bytes - path_bytes) as f64 / 100_000.0 - 32.0;
    assert!(per_file <= 64.0, "{per_file} bytes");
}
