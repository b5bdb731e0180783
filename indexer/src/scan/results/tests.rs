//! Results are kept, shared among mirrors and checked.

use mb_core::time::FileTime;

use super::*;

pub(super) fn listing(numbers: impl Iterator<Item = u32>) -> Listing {
    let mut listing = Listing::default();
    for number in numbers {
        listing.push(format!("f/{number}").as_bytes(), 1, Some(FileTime(i64::from(number)))).unwrap();
    }
    listing.sort();
    listing
}

pub(super) fn facts(mirror: u32) -> ScanFacts {
    ScanFacts {
        mirror: MirrorId(mirror),
        started: Timestamp(7),
        protocol: ScanProtocol::Rsync,
        precision_ns: 1_000_000_000,
        timezone_offset_ms: -3_600_000,
    }
}

pub(super) fn block_count(results: &ScanResults) -> i64 {
    results.connection().query_row("SELECT count(*) FROM blocks", [], |row| row.get(0)).unwrap()
}

fn files_of(snapshot: &Snapshot, scan: &StoredScan) -> Vec<String> {
    let mut paths = Vec::new();
    for &id in &scan.blocks {
        let block = Block::decompress(&snapshot.block_data(id).unwrap(), id, snapshot.path()).unwrap();
        paths.extend(block.files().map(|file| String::from_utf8_lossy(file.path).into_owned()));
    }
    paths
}

#[test]
fn a_scan_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    results.replace(&facts(3), &listing(0..20_000)).unwrap();
    drop(results);
    let results = ScanResults::open(folder.path()).unwrap();
    let snapshot = results.snapshot().unwrap();
    let scans = snapshot.scans().unwrap();
    assert_eq!((scans.len(), scans[0].facts, scans[0].files), (1, facts(3), 20_000));
    let mut expected: Vec<_> = (0..20_000).map(|n| format!("/f/{n}")).collect();
    expected.sort();
    assert_eq!(files_of(&snapshot, &scans[0]), expected);
}

#[test]
fn equal_mirrors_share_blocks_and_the_last_one_takes_them_along() {
    let folder = tempfile::tempdir().unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    results.replace(&facts(1), &listing(0..10_000)).unwrap();
    let blocks_of_one = block_count(&results);
    for mirror in 2..10 {
        results.replace(&facts(mirror), &listing(0..10_000)).unwrap();
    }
    assert_eq!(block_count(&results), blocks_of_one);
    for mirror in 1..9 {
        assert!(results.remove(MirrorId(mirror)).unwrap());
    }
    assert_eq!(block_count(&results), blocks_of_one);
    results.replace(&facts(9), &listing(0..0)).unwrap();
    assert_eq!(block_count(&results), 0);
    assert!(!results.remove(MirrorId(1)).unwrap());
}

#[test]
fn removed_files_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    assert_eq!(results.replace(&facts(1), &listing(0..5_000)).unwrap(), 0);
    assert_eq!(results.replace(&facts(1), &listing(0..5_000)).unwrap(), 0);
    assert_eq!(results.replace(&facts(1), &listing(1_000..6_000)).unwrap(), 1_000);
    assert_eq!(results.replace(&facts(1), &listing(0..0)).unwrap(), 5_000);
}

#[test]
fn a_snapshot_does_not_see_later_scans() {
    let folder = tempfile::tempdir().unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    results.replace(&facts(1), &listing(0..3_000)).unwrap();
    let snapshot = results.snapshot().unwrap();
    let before = snapshot.scans().unwrap();
    results.replace(&facts(1), &listing(0..10)).unwrap();
    assert_eq!(snapshot.scans().unwrap(), before);
    assert_eq!(files_of(&snapshot, &before[0]).len(), 3_000);
}

#[test]
fn a_file_of_format_1_is_used_on() {
    let folder = tempfile::tempdir().unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    results.replace(&facts(1), &listing(0..10)).unwrap();
    results.connection().execute("ALTER TABLE scans DROP COLUMN shared_as", []).unwrap();
    results.connection().pragma_update(None, "user_version", 1).unwrap();
    drop(results);
    let results = ScanResults::open(folder.path()).unwrap();
    let expected = Held { started: Timestamp(7), shared_as: None };
    assert_eq!(results.held().unwrap()[&MirrorId(1)], expected);
    results.replace(&facts(2), &listing(0..10)).unwrap();
}

#[test]
fn a_file_of_another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    results.connection().pragma_update(None, "user_version", 99).unwrap();
    drop(results);
    let error = ScanResults::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("its format is 99") && error.contains("remove the file"), "{error}");
}

#[test]
fn a_damaged_block_is_reported_and_replaced_by_the_next_scan() {
    let folder = tempfile::tempdir().unwrap();
    let results = ScanResults::open(folder.path()).unwrap();
    results.replace(&facts(1), &listing(0..3_000)).unwrap();
    results.connection().execute("UPDATE blocks SET data = x'00'", []).unwrap();
    let snapshot = results.snapshot().unwrap();
    let id = snapshot.scans().unwrap()[0].blocks[0];
    let error = Block::decompress(&snapshot.block_data(id).unwrap(), id, snapshot.path()).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(results.replace(&facts(1), &listing(5_000..8_000)).unwrap(), 0);
}
