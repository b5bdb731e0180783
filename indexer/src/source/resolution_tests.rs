//! Where paths lead through symbolic links: the index against what the file system says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mb_core::config::WantedHashes;
use mb_core::store::EmbeddedStore;
use mb_index::{Entry, FileIndex, Publisher, open_newest_files};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::build::{BuildSettings, build_files};
use crate::scan::results::ScanResults;

const NO_HASHES: WantedHashes = WantedHashes { sha1: false, sha256: false, md5: false };

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    File(Vec<u8>),
    Directory,
    Forbidden,
    Missing,
}

/// A repository beside other files, and its index.
struct Indexed {
    folder: TempDir,
    index: FileIndex,
}

impl Indexed {
    /// Indexes what `fill` puts into the repository, which is empty and has an empty neighbour `outside`.
    fn new(fill: impl FnOnce(&Path)) -> Indexed {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (root_of(&folder), folder.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "outside").unwrap();
        fill(&root);
        let state = folder.path().join("state");
        let store = EmbeddedStore::open(&state).unwrap();
        let options = SourceOptions { hashes: NO_HASHES, rehash: false, force: false };
        let (progress, cancellation) = (Progress::unwatched(), Cancellation::default());
        scan(&root, options, &store, &progress, &cancellation, &mut || ()).unwrap();
        let results = ScanResults::open(&state).unwrap();
        let settings = BuildSettings::new(false, Vec::new());
        let model = build_files(&store, &results.snapshot().unwrap(), &[], &settings).unwrap();
        let index_dir = folder.path().join("index");
        Publisher::new(&index_dir).lock().unwrap().publish(Some(&model), &[]).unwrap();
        let index = open_newest_files(&index_dir).index.unwrap();
        Indexed { folder, index }
    }

    fn resolve(&self, path: &str) -> Found {
        match self.index.resolve(path.as_bytes(), &mut Vec::new()) {
            Entry::File(file) => Found::File(file.path().to_vec()),
            Entry::Directory => Found::Directory,
            Entry::Forbidden => Found::Forbidden,
            Entry::Missing => Found::Missing,
            Entry::Alias(target) => panic!("{path} leads to a link to {}", target.escape_ascii()),
        }
    }

    /// What the file system makes of the path, name by name: once it is outside, what is there is nobody's business.
    fn real(&self, path: &str) -> Found {
        let root = root_of(&self.folder).canonicalize().unwrap();
        let mut at = root.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match at.join(name).canonicalize() {
                Ok(real) if !real.starts_with(&root) => return Found::Forbidden,
                Ok(real) => at = real,
                Err(_) => return Found::Missing,
            }
        }
        if at.is_dir() { Found::Directory } else { Found::File(walk::repository_path(&root, &at)) }
    }
}

fn root_of(folder: &TempDir) -> PathBuf {
    folder.path().join("repository")
}

/// `ln -s . pub`, the usual layout of a mirror's root, made `//a.iso` of `/pub/a.iso`, which was not found.
#[test]
fn links_to_the_root_and_to_ancestors_lead_to_the_files_below() {
    let indexed = Indexed::new(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("a.iso"), "a").unwrap();
        fs::write(root.join("d/e/b.iso"), "b").unwrap();
        symlink(".", root.join("pub")).unwrap();
        symlink("..", root.join("d/up")).unwrap();
        symlink("../..", root.join("d/e/top")).unwrap();
        symlink("pub/d", root.join("chained")).unwrap();
        symlink("chained/up/chained/e", root.join("long")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("..", root.join("above")).unwrap();
        symlink("ping", root.join("pong")).unwrap();
        symlink("pong", root.join("ping")).unwrap();
        symlink("self/x", root.join("self")).unwrap();
    });
    let (a, b) = (Found::File(b"/a.iso".to_vec()), Found::File(b"/d/e/b.iso".to_vec()));
    for (path, expected) in [
        ("/pub", Found::Directory),
        ("/pub/a.iso", a.clone()),
        ("/pub/pub/pub/a.iso", a.clone()),
        ("/d/up", Found::Directory),
        ("/d/up/a.iso", a.clone()),
        ("/pub/d/up/d/e/top/d/up/a.iso", a.clone()),
        ("/d/e/top/pub/d/e/b.iso", b.clone()),
        ("/chained/e/b.iso", b.clone()),
        ("/long/b.iso", b.clone()),
        ("/long/top/long/top/a.iso", a.clone()),
        ("/pub/nothing", Found::Missing),
        ("/pub/a.iso/below", Found::Missing),
        ("/out", Found::Forbidden),
        ("/pub/out/f", Found::Forbidden),
        ("/above/repository/a.iso", Found::Forbidden),
        ("/ping", Found::Missing),
        ("/pub/pong/a.iso", Found::Missing),
        ("/self/x/x", Found::Missing),
    ] {
        assert_eq!(indexed.resolve(path), expected, "{path}");
        assert_eq!(indexed.real(path), expected, "{path}");
    }
    // As many links as Linux follows, and one more.
    assert_eq!(indexed.resolve(&format!("{}/a.iso", "/pub".repeat(40))), a);
    assert_eq!(indexed.resolve(&format!("{}/a.iso", "/pub".repeat(41))), Found::Missing);
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("f")]
}

/// A path of some names, without its leading slash.
fn names(most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(name(), 1..=most).prop_map(|names| names.join("/"))
}

/// The text of a link. `/` stands for the repository.
fn target() -> impl Strategy<Value = String> {
    let relative = (0_usize..4, names(3)).prop_map(|(up, names)| format!("{}{names}", "../".repeat(up)));
    prop_oneof![
        4 => relative,
        1 => names(3).prop_map(|names| format!("/{names}")),
        1 => Just("/".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("..".to_owned()),
        1 => Just("../..".to_owned()),
        1 => Just("../outside".to_owned()),
        1 => Just("../../outside/f".to_owned()),
        1 => Just("../repository/a".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_path_leads_where_the_file_system_says(
        directories in proptest::collection::vec(names(3), 0..6),
        files in proptest::collection::vec(names(4), 0..6),
        links in proptest::collection::vec((names(3), target()), 0..8),
        asked in proptest::collection::vec(names(6), 100),
    ) {
        let indexed = Indexed::new(|root| {
            // What does not fit beside what is there already is left out.
            for directory in &directories {
                let _ = fs::create_dir_all(root.join(directory));
            }
            for (path, target) in &links {
                let target = target.strip_prefix('/').map_or_else(|| target.into(), |inside| root.join(inside));
                let _ = symlink(target, root.join(path));
            }
            let real_root = root.canonicalize().unwrap();
            for file in &files {
                let path = root.join(file);
                let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
                if folder.is_some_and(|folder| folder.starts_with(&real_root)) && path.symlink_metadata().is_err() {
                    let _ = fs::write(path, file);
                }
            }
        });
        for path in asked.iter().chain(&files).chain(&directories).chain(links.iter().map(|(path, _)| path)) {
            let path = format!("/{path}");
            prop_assert_eq!(indexed.resolve(&path), indexed.real(&path), "{}", path);
        }
    }
}
