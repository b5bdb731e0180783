//! Index files with any bytes changed: opening is refused, or whatever is asked of them is answered.
//!
//! A checksum is no secret, and a defect of a writer is under a right one. So each input is opened twice: as it is, and with
//! its length and both checksums put right (`index/FORMAT.md`, Header).

use std::cell::RefCell;
use std::path::Path;

use mb_index::{Entry, FileIndex, Kind, MirrorIndex, file_name};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

use crate::world;

const HEADER_LENGTH: usize = 64;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(world::folder());
}

/// The file.
pub fn run(input: &[u8]) {
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join("index");
        open(&path, input);
        let mut repaired = input.to_owned();
        if repair(&mut repaired) {
            open(&path, &repaired);
        }
    });
}

fn repair(bytes: &mut [u8]) -> bool {
    let Some((header, payload)) = bytes.split_at_mut_checked(HEADER_LENGTH) else { return false };
    header[24..32].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    header[32..40].copy_from_slice(&xxh3_64(payload).to_le_bytes());
    let checksum = xxh3_64(&header[..56]);
    header[56..].copy_from_slice(&checksum.to_le_bytes());
    true
}

fn open(path: &Path, bytes: &[u8]) {
    // As publishers do: a file that may be mapped is never written to.
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).expect("space for a file");
    let generation = bytes.get(16..24).and_then(|bytes| bytes.try_into().ok()).map_or(1, u64::from_le_bytes);
    if let Ok(index) = FileIndex::open(path, generation) {
        ask_files(&index);
    }
    if let Ok(index) = MirrorIndex::open(path, generation) {
        let mirrors = index.mirrors();
        assert!(mirrors.is_sorted_by(|a, b| a.id < b.id), "mirrors out of order");
        mirrorbits::select::MirrorTable::new(mirrors);
    }
}

fn ask_files(index: &FileIndex) {
    let mut scratch = Vec::new();
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for file in index.files() {
        let set = index.set(file.set());
        assert!(set.ordinals().all(|ordinal| (ordinal as usize) < index.mirror_count()), "a mirror that is none");
        for exception in file.exceptions() {
            assert!((exception.mirror as usize) < index.mirror_count(), "an exception of a mirror that is none");
            index.mirror_id(exception.mirror);
        }
        let _ = (file.size(), file.modified(), file.sha1(), file.sha256(), file.md5());
        let found = index.lookup(file.path());
        assert!(matches!(found, Entry::File(found) if found.row() == file.row()), "a file is not found");
        paths.push(file.path().to_owned());
    }
    for (path, _) in index.entries() {
        assert!(!matches!(index.lookup(path), Entry::Missing), "an entry is not found");
        paths.push(path.to_owned());
    }
    assert_eq!(index.paths(0..index.len() as u32).count(), index.len());
    for path in &paths {
        for below in [&b""[..], b"/", b"/a.iso", b"/e/f", b"/..", b"/\xff"] {
            let path = [path.as_slice(), below].concat();
            let announced = index.announce(&path);
            index.fetch_row(&announced);
            index.fetch_path(&announced);
            assert!(!matches!(index.resolve(&path, &mut scratch), Entry::Alias(_)), "an alias is not followed");
        }
    }
}

/// The index that requests are answered from: one file of each kind.
pub fn seeds(folder: &Path) {
    let published = world::folder();
    world::index(published.path());
    for kind in [Kind::Files, Kind::Mirrors] {
        let file = published.path().join(file_name(kind, 1));
        std::fs::copy(file, folder.join(kind.name())).expect("space for a seed");
    }
}
