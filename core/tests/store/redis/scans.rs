//! Shared scan results: whole or not there, each block once, gone with their mirrors, and refused when damaged.

use mb_core::mirror::{MirrorId, ScanProtocol};
use mb_core::store::{RedisStore, ScanBlockKey, SharedScan, SharedScanHead, Store, StoreError};
use mb_core::time::Timestamp;

use super::server::Server;
use crate::suite::settings;

fn key(number: u16) -> ScanBlockKey {
    let mut key = [0xff; 16];
    key[..2].copy_from_slice(&number.to_le_bytes());
    key
}

fn scan(started: i64, blocks: impl IntoIterator<Item = u16>) -> SharedScan {
    SharedScan {
        started: Timestamp(started),
        protocol: ScanProtocol::Ftp,
        precision_ns: 1_000_000_000,
        timezone_offset_ms: -3_600_000,
        files: 1 << 40,
        blocks: blocks.into_iter().map(key).collect(),
    }
}

fn data(key: &ScanBlockKey) -> Vec<u8> {
    [b"\r\n\0", &key[..]].concat()
}

/// Shares a result and returns how many blocks had to be added for it.
fn share(store: &RedisStore, id: MirrorId, scan: &SharedScan) -> usize {
    let missing = store.share_scan(id, scan).expect("asked");
    let blocks: Vec<_> = missing.iter().map(|key| (*key, data(key))).collect();
    store.add_scan_blocks(&blocks).expect("added");
    assert_eq!(store.share_scan(id, scan).expect("shared"), [[0; 16]; 0], "what was missing was added");
    missing.len()
}

fn head(store: &RedisStore, id: MirrorId) -> Option<SharedScanHead> {
    store.shared_scans(&[id]).expect("read")[0]
}

fn blocks(store: &RedisStore, wanted: &SharedScan) -> Vec<ScanBlockKey> {
    let mut found = Vec::new();
    let visit = &mut |key, bytes| {
        assert_eq!(bytes, data(&key));
        found.push(key);
    };
    store.scan_blocks(&wanted.blocks, visit).expect("read");
    found
}

fn mirrors(store: &RedisStore) -> [MirrorId; 2] {
    ["one", "two"].map(|name| store.add_mirror(&settings(name)).expect("added"))
}

#[test]
fn a_result_is_read_as_it_was_shared() {
    let server = Server::start(&[]);
    let store = server.store();
    let [one, two] = mirrors(&store);
    assert_eq!(store.shared_scans(&[]).expect("read"), []);
    assert_eq!((head(&store, one), store.shared_scan(one).expect("read")), (None, None));
    let shared = scan(7, 0..300);
    assert_eq!(share(&store, one, &shared), 300);
    let expected = SharedScanHead { generation: shared.generation(), started: Timestamp(7) };
    assert_eq!(store.shared_scans(&[two, one]).expect("read"), [None, Some(expected)]);
    assert_eq!(store.shared_scan(one).expect("read"), Some(shared.clone()));
    assert_eq!(blocks(&store, &shared), shared.blocks);
    let empty = scan(8, []);
    assert_eq!(share(&store, one, &empty), 0);
    assert_eq!(store.shared_scan(one).expect("read"), Some(empty));
}

#[test]
fn a_result_whose_blocks_are_not_there_takes_the_place_of_none() {
    let server = Server::start(&[]);
    let store = server.store();
    let [one, _] = mirrors(&store);
    share(&store, one, &scan(1, 0..3));
    assert_eq!(store.share_scan(one, &scan(2, 2..5)).expect("asked"), [key(3), key(4)]);
    assert_eq!(store.shared_scan(one).expect("read"), Some(scan(1, 0..3)));
    assert_eq!(blocks(&store, &scan(1, 0..3)).len(), 3);
}

#[test]
fn mirrors_share_blocks_and_the_last_one_takes_them_along() {
    let server = Server::start(&[]);
    let store = server.store();
    let [one, two] = mirrors(&store);
    let stored = || server.command::<usize>("HLEN MB_SCAN_BLOCKS");
    assert_eq!(share(&store, one, &scan(1, 0..10)), 10);
    assert_eq!(share(&store, two, &scan(1, 5..15)), 5);
    assert_eq!(share(&store, one, &scan(2, 3..8)), 0);
    assert_eq!(stored(), 12, "3 to 14");
    assert_eq!(blocks(&store, &scan(0, 0..20)), (3..15).map(key).collect::<Vec<_>>());
    store.remove_mirror(two).expect("removed");
    assert_eq!(stored(), 5, "3 to 7");
    assert_eq!(head(&store, two), None);
    store.remove_mirror(one).expect("removed");
    assert!(server.command::<Vec<String>>("KEYS MB_SCAN*").is_empty());
}

/// The scan of a mirror ends after it was removed.
#[test]
fn nothing_is_shared_of_a_mirror_that_is_gone() {
    let server = Server::start(&[]);
    let store = server.store();
    let [one, _] = mirrors(&store);
    store.remove_mirror(one).expect("removed");
    let outcome = store.share_scan(one, &scan(1, []));
    assert!(matches!(outcome, Err(StoreError::UnknownMirror(id)) if id == one), "{outcome:?}");
    assert_eq!(head(&store, one), None);
}

#[test]
fn a_damaged_result_is_refused_with_the_reason_until_it_is_shared_again() {
    let server = Server::start(&[]);
    let store = server.store();
    let [one, _] = mirrors(&store);
    let hash = format!("MB_SCAN_{one}");
    let sound = scan(7, 0..3);
    let cut = sound.blocks.as_flattened()[..16].to_vec();
    for (field, value, told) in [
        ("format", &b"99"[..], "its format is \"99\", this program reads 1"),
        ("generation", b"0123456789abcdef", "it is called 0123456789abcdef and its content is that of"),
        ("started", b"8", "its content is that of"),
        ("blocks", &cut, "its content is that of"),
        ("blocks", &cut[1..], "`blocks` is missing or damaged"),
        ("precision", b"-1", "`precision` is missing or damaged"),
        ("files", b"", "`files` is missing or damaged"),
    ] {
        share(&store, one, &sound);
        let mut write = redis::cmd("HSET");
        write.arg(&hash).arg(field).arg(value).query::<()>(&mut server.connection()).expect("written");
        match store.shared_scan(one) {
            Err(error @ StoreError::DamagedScan { .. }) => assert!(error.to_string().contains(told), "{error}"),
            other => panic!("{field}: {other:?}"),
        }
        store.shared_scans(&[one]).expect("other results can be asked for");
    }
    server.command::<()>(&format!("HSET {hash} generation none"));
    assert_eq!(head(&store, one), None);
    share(&store, one, &sound);
    assert_eq!(store.shared_scan(one).expect("read"), Some(sound));
}

#[test]
fn a_discarded_block_is_missing_until_it_is_added_again() {
    let server = Server::start(&[]);
    let store = server.store();
    let [one, two] = mirrors(&store);
    share(&store, one, &scan(1, 0..3));
    store.discard_scan_blocks(&[]).expect("nothing to discard");
    store.discard_scan_blocks(&[key(1)]).expect("discarded");
    assert_eq!(blocks(&store, &scan(1, 0..3)), [key(0), key(2)]);
    assert_eq!(share(&store, two, &scan(2, 0..3)), 1);
    assert_eq!(blocks(&store, &scan(1, 0..3)).len(), 3);
}

/// A write of all blocks of a large mirror at once would keep Redis from answering anybody else.
#[test]
fn large_results_are_written_by_parts() {
    let server = Server::start(&[]);
    let store = server.store();
    let [one, _] = mirrors(&store);
    let large = scan(1, 0..40);
    let missing = store.share_scan(one, &large).expect("asked");
    let added: Vec<_> = missing.iter().map(|key| (*key, vec![7; 100_000])).collect();
    server.command::<()>("CONFIG RESETSTAT");
    store.add_scan_blocks(&added).expect("added");
    let statistics: String = server.command("INFO commandstats");
    assert!(statistics.contains("cmdstat_hset:calls=4,"), "4 MB by 1 MB: {statistics}");
    assert!(store.share_scan(one, &large).expect("shared").is_empty());
}
