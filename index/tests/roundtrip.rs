//! Whatever is built, published and opened is what was put in: properties over arbitrary repositories.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;

use mb_core::mirror::MirrorId;
use mb_core::store::FileHashes;
use mb_core::time::FileTime;
use mb_index::{Entry, Exception, FileIndex, FileRecord, FilesBuilder, Publisher, open_newest_files};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct File {
    size: u64,
    modified: i64,
    hashes: FileHashes,
    /// One for each mirror.
    copies: Vec<MirrorCopy>,
}

#[derive(Clone, Debug, PartialEq)]
enum MirrorCopy {
    None,
    Equal,
    Differs { size: u64, modified: Option<i64> },
}

#[derive(Clone, Debug, PartialEq)]
enum Other {
    Directory,
    Alias(Vec<u8>),
    Forbidden,
}

#[derive(Clone, Debug)]
struct Repository {
    mirrors: Vec<MirrorId>,
    files: BTreeMap<Vec<u8>, File>,
    others: BTreeMap<Vec<u8>, Other>,
}

/// Names of few letters, so that paths share prefixes, with bytes that are not UTF-8 or sort next to the slash.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop::sample::select(&b"ab.-0\xff\xc3 "[..]);
    vec(letter, 1..4).prop_filter("a dot name", |name| name != b"." && name != b"..")
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(name(), 1..5).prop_map(|names| names.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect())
}

fn digest<const N: usize>() -> impl Strategy<Value = Option<[u8; N]>> {
    prop::option::of(any::<u8>().prop_map(|byte| [byte; N]))
}

fn mirror_copy() -> impl Strategy<Value = MirrorCopy> {
    prop_oneof![
        Just(MirrorCopy::None),
        Just(MirrorCopy::Equal),
        (any::<u64>(), prop::option::of(i64::MIN + 1..=i64::MAX))
            .prop_map(|(size, modified)| MirrorCopy::Differs { size, modified }),
    ]
}

fn file(mirrors: usize) -> impl Strategy<Value = File> {
    let hashes = (digest(), digest(), digest()).prop_map(|(sha1, sha256, md5)| FileHashes { sha1, sha256, md5 });
    (any::<u64>(), any::<i64>(), hashes, vec(mirror_copy(), mirrors))
        .prop_map(|(size, modified, hashes, copies)| File { size, modified, hashes, copies })
}

fn other() -> impl Strategy<Value = Other> {
    prop_oneof![Just(Other::Directory), path().prop_map(Other::Alias), Just(Other::Forbidden)]
}

fn repository() -> impl Strategy<Value = Repository> {
    prop_oneof![Just(0), Just(1), Just(63), Just(64), Just(65), 0..150usize].prop_flat_map(|mirrors| {
        let ids = btree_set(1..=u32::MAX, mirrors);
        let files = btree_map(path(), file(mirrors), 0..40);
        let others = btree_map(path(), other(), 0..20);
        (ids, files, others).prop_map(|(ids, files, mut others)| {
            others.retain(|path, _| !files.contains_key(path));
            Repository { mirrors: ids.into_iter().map(MirrorId).collect(), files, others }
        })
    })
}

fn publish(repository: &Repository, dir: &Path) -> FileIndex {
    let mut builder = FilesBuilder::new(&repository.mirrors, true);
    for (path, file) in &repository.files {
        let mut words = vec![0; builder.set_words()];
        let mut exceptions = Vec::new();
        for (mirror, copy) in (0u32..).zip(&file.copies) {
            match copy {
                MirrorCopy::None => {}
                MirrorCopy::Equal => words[mirror as usize / 64] |= 1 << (mirror % 64),
                &MirrorCopy::Differs { size, modified } => {
                    exceptions.push(Exception { mirror, size, modified: modified.map(FileTime) });
                }
            }
        }
        let set = builder.intern_set(&words);
        let modified = FileTime(file.modified);
        let (size, hashes) = (file.size, file.hashes);
        builder.push_file(FileRecord { path, size, modified, hashes, set, exceptions: &exceptions }).unwrap();
    }
    for (path, other) in &repository.others {
        match other {
            Other::Directory => builder.push_directory(path).unwrap(),
            Other::Alias(target) => builder.push_alias(path, target).unwrap(),
            Other::Forbidden => builder.push_forbidden(path).unwrap(),
        }
    }
    Publisher::new(dir).lock().unwrap().publish(Some(&builder.finish()), &[]).unwrap();
    let opened = open_newest_files(dir);
    assert!(opened.refused.is_empty(), "{:?}", opened.refused);
    opened.index.unwrap()
}

/// What a path must be, by the plainest reading of the repository.
#[derive(Debug, PartialEq)]
enum Expected {
    File(Vec<u8>),
    Directory,
    Alias(Vec<u8>),
    Forbidden,
    Missing,
}

fn expected(repository: &Repository, path: &[u8]) -> Expected {
    let below = [path, b"/"].concat();
    let has_something_below =
        || repository.files.keys().chain(repository.others.keys()).any(|other| other.starts_with(&below));
    if repository.files.contains_key(path) {
        return Expected::File(path.to_owned());
    }
    match repository.others.get(path) {
        Some(Other::Alias(target)) => Expected::Alias(target.clone()),
        Some(Other::Forbidden) => Expected::Forbidden,
        Some(Other::Directory) => Expected::Directory,
        None if path == b"/" || has_something_below() => Expected::Directory,
        None => Expected::Missing,
    }
}

/// Resolves one component after another, as a file system does.
fn resolved(repository: &Repository, path: &[u8]) -> Expected {
    let mut path = path.to_owned();
    'hops: for _ in 0..=40 {
        match expected(repository, &path) {
            Expected::Missing => {}
            Expected::Alias(target) => {
                path = target;
                continue;
            }
            found => return found,
        }
        for (slash, _) in path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/') {
            match expected(repository, &path[..slash]) {
                Expected::Directory => {}
                Expected::Alias(target) => {
                    path = [&target, &path[slash..]].concat();
                    continue 'hops;
                }
                Expected::Forbidden => return Expected::Forbidden,
                Expected::File(_) | Expected::Missing => return Expected::Missing,
            }
        }
        return Expected::Missing;
    }
    Expected::Missing
}

fn found(entry: Entry<'_>) -> Expected {
    match entry {
        Entry::File(file) => Expected::File(file.path().to_owned()),
        Entry::Directory => Expected::Directory,
        Entry::Alias(target) => Expected::Alias(target.to_owned()),
        Entry::Forbidden => Expected::Forbidden,
        Entry::Missing => Expected::Missing,
    }
}

fn assert_same(index: &FileIndex, repository: &Repository) {
    assert_eq!(index.mirror_ids().collect::<Vec<_>>(), repository.mirrors);
    assert_eq!(index.mirror_count(), repository.mirrors.len());
    assert!(index.fix_timezone_offsets());
    assert_eq!(index.len(), repository.files.len());
    for ((row, file), (path, expected)) in (0u32..).zip(index.files()).zip(&repository.files) {
        assert_eq!((file.row(), file.path()), (row, path.as_slice()));
        assert_eq!((file.size(), file.modified()), (expected.size, FileTime(expected.modified)));
        let hashes =
            FileHashes { sha1: file.sha1().copied(), sha256: file.sha256().copied(), md5: file.md5().copied() };
        assert_eq!(hashes, expected.hashes);
        assert_eq!(index.file(row).path(), path.as_slice());
        let set = index.set(file.set());
        let mut copies = vec![MirrorCopy::None; repository.mirrors.len()];
        for mirror in set.ordinals() {
            assert!(set.contains(mirror));
            copies[mirror as usize] = MirrorCopy::Equal;
        }
        let equal = copies.iter().filter(|copy| **copy == MirrorCopy::Equal).count();
        assert_eq!((set.len(), set.is_empty()), (equal, equal == 0));
        for Exception { mirror, size, modified } in file.exceptions() {
            assert!(!set.contains(mirror));
            copies[mirror as usize] = MirrorCopy::Differs { size, modified: modified.map(|time| time.0) };
        }
        assert_eq!(copies, expected.copies);
    }
    let entries: Vec<&[u8]> = index.entries().map(|(path, _)| path).collect();
    assert!(entries.is_sorted_by(|a, b| a < b));
    for (path, entry) in index.entries() {
        assert_eq!(found(entry), expected(repository, path));
    }
    for path in repository.others.keys() {
        assert!(entries.contains(&path.as_slice()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn everything_put_in_comes_out_and_nothing_else(repository in repository(), strangers in vec(path(), 50)) {
        let dir = tempfile::tempdir().unwrap();
        let index = publish(&repository, dir.path());
        assert_same(&index, &repository);
        let mut scratch = Vec::new();
        let known = repository.files.keys().chain(repository.others.keys());
        let below_known = known.clone().map(|path| [path, &b"/a"[..]].concat());
        let paths = known.cloned().chain(below_known.clone()).chain(strangers).chain([b"/".to_vec()]);
        for path in paths {
            for end in (1..=path.len()).filter(|&end| end == path.len() || path[end] == b'/') {
                let path = &path[..end];
                prop_assert_eq!(found(index.lookup(path)), expected(&repository, path));
                prop_assert_eq!(found(index.resolve(path, &mut scratch)), resolved(&repository, path));
            }
        }
    }
}

#[test]
fn aliases_are_followed_at_any_level_but_not_for_ever() {
    let mut builder = FilesBuilder::new(&[], false);
    let set = builder.intern_set(&[]);
    let hashes = FileHashes::default();
    let path = b"/pool/v1/a.iso";
    builder.push_file(FileRecord { path, size: 1, modified: FileTime(0), hashes, set, exceptions: &[] }).unwrap();
    builder.push_alias(b"/current", b"/pool/v1").unwrap();
    builder.push_alias(b"/latest.iso", b"/pool/v1/a.iso").unwrap();
    builder.push_alias(b"/longer/name/of/pool", b"/pool").unwrap();
    builder.push_alias(b"/loop", b"/loop").unwrap();
    builder.push_forbidden(b"/outside").unwrap();
    builder.push_alias(b"/ping", b"/pong/x").unwrap();
    builder.push_alias(b"/pong", b"/ping/x").unwrap();
    let dir = tempfile::tempdir().unwrap();
    Publisher::new(dir.path()).lock().unwrap().publish(Some(&builder.finish()), &[]).unwrap();
    let index = open_newest_files(dir.path()).index.unwrap();

    let mut scratch = Vec::with_capacity(512);
    let buffer = scratch.as_ptr();
    let mut resolve = |path: &[u8]| found(index.resolve(path, &mut scratch));
    let file = Expected::File(path.to_vec());
    assert_eq!(resolve(b"/latest.iso"), file);
    assert_eq!(resolve(b"/current/a.iso"), file);
    assert_eq!(resolve(b"/longer/name/of/pool/v1/a.iso"), file);
    assert_eq!(resolve(b"/current"), Expected::Directory);
    assert_eq!(resolve(b"/longer/name"), Expected::Directory);
    assert_eq!(resolve(b"/current/b.iso"), Expected::Missing);
    assert_eq!(resolve(b"/latest.iso/below"), Expected::Missing);
    assert_eq!(resolve(b"/outside"), Expected::Forbidden);
    assert_eq!(resolve(b"/outside/etc/passwd"), Expected::Forbidden);
    assert_eq!(resolve(b"/loop"), Expected::Missing);
    assert_eq!(resolve(b"/ping/a"), Expected::Missing);
    assert_eq!(resolve(b"/nowhere/at/all"), Expected::Missing);
    assert_eq!(scratch.as_ptr(), buffer, "a buffer that was large enough was replaced");
}
