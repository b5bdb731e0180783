//! The statistics spool: any file is read up to its first damage, and what was read is read again.

use std::cell::RefCell;

use mirrorbits::stats::spool::Spool;
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

use crate::world;

const FILE_NAME: &str = "statistics-spool.journal";
const HEADER: &[u8; 16] = b"mb-spool\x01\0\0\0\0\0\0\0";

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(world::folder());
}

/// A file as it is when the first byte is even. Otherwise records, each behind two bytes of its length, that are put into a
/// file with right lengths and checksums (`src/stats/spool/FORMAT.md`).
pub fn run(input: &[u8]) {
    let [form, rest @ ..] = input else { return };
    let file = if form % 2 == 0 { rest.to_owned() } else { framed(rest) };
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, &file).expect("space for a file");
        let opened = Spool::open(folder.path());
        if let Ok(spool) = opened {
            let spool = spool.expect("nobody else owns the spool");
            let _ = spool.downloads();
            drop(spool);
            // What was kept is whole: it is read again, and stays as it is.
            let kept = std::fs::read(&path).expect("the file");
            assert!(Spool::open(folder.path()).is_ok_and(|spool| spool.is_some()), "what was kept is refused");
            assert_eq!(std::fs::read(&path).expect("the file"), kept, "reading changes what was kept");
        }
        for entry in std::fs::read_dir(folder.path()).expect("the folder").flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    });
}

fn framed(mut records: &[u8]) -> Vec<u8> {
    let mut file = HEADER.to_vec();
    while let Some((length, rest)) = records.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let length = (length as u64).to_le_bytes();
        file.extend_from_slice(&length);
        file.extend_from_slice(&xxh3_64(&length).to_le_bytes());
        file.extend_from_slice(&xxh3_64(content).to_le_bytes());
        file.extend_from_slice(content);
        records = rest;
    }
    file
}
