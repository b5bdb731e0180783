//! Two state directories on one Redis.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mb_core::link::{Event, Request};
use mb_core::mirror::{MirrorId, MirrorSettings};
use mb_core::store::Store;

use crate::harness::redis::Redis;
use crate::harness::{Site, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node whose source is scanned, and which scans nothing by itself.
fn node(redis: &Redis) -> Site {
    let site = redis.site("RepositoryScanInterval: 0");
    site.write("a", "a", 1_700_000_000);
    site.run_ok(&["scan", "-source"]);
    site
}

/// A mirror that takes connections and says nothing, so that its scan goes on.
fn silent_mirror(redis: &Redis) -> (TcpListener, MirrorId) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let rsync_url = format!("rsync://127.0.0.1:{}/m/", listener.local_addr().unwrap().port());
    let settings = MirrorSettings { name: "m".to_owned(), rsync_url, ..MirrorSettings::default() };
    (listener, redis.store().add_mirror(&settings).unwrap())
}

fn scan(id: MirrorId) -> Request {
    Request::ScanMirror { id, enable: false, protocol: None }
}

/// Reads progress until it has `text`; any other event is a failure.
fn wait_for_progress(stream: &UnixStream, text: &str) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line.unwrap()).unwrap() {
            Event::Progress { message } if message.contains(text) => return,
            Event::Progress { .. } => {}
            other => panic!("ended with {other:?} before {text:?}"),
        }
    }
    panic!("closed before {text:?}");
}

fn wait_for_end(mut from_rsync: &TcpStream) {
    from_rsync.set_read_timeout(Some(PATIENCE)).unwrap();
    from_rsync.read_to_end(&mut Vec::new()).expect("rsync was not ended");
}

#[test]
fn a_scan_on_another_node_is_waited_for_and_giving_it_up_frees_the_mirror() {
    let redis = Redis::start();
    let (first, second) = (node(&redis), node(&redis));
    let (silent, id) = silent_mirror(&redis);
    let (_first, _second) = (first.start_indexer(&[]), second.start_indexer(&[]));
    let lock = format!("SCANNING_{id}");

    let scan_of_first = first.send(&scan(id));
    let (from_first, _) = silent.accept().unwrap();
    let lasts: i64 = redis.command(&format!("PTTL {lock}"));
    assert!((1..=30_000).contains(&lasts), "the lock lasts for {lasts} ms");
    let scan_of_second = second.send(&scan(id));
    wait_for_progress(&scan_of_second, "another node");

    drop(scan_of_first);
    wait_for_end(&from_first);
    let (from_second, _) = silent.accept().unwrap();
    assert!(redis.command::<bool>(&format!("EXISTS {lock}")));
    drop(scan_of_second);
    wait_for_end(&from_second);
    wait_for("the lock to be given back", || (!redis.command::<bool>(&format!("EXISTS {lock}"))).then_some(()));
}

#[test]
fn an_indexer_that_is_ended_leaves_no_lock() {
    let redis = Redis::start();
    let site = node(&redis);
    let (silent, id) = silent_mirror(&redis);
    let mut indexer = site.start_indexer(&["-supervised"]);
    let _scan = site.send(&scan(id));
    let _from_rsync = silent.accept().unwrap();
    assert!(redis.command::<bool>(&format!("EXISTS SCANNING_{id}")));
    drop(indexer.0.stdin.take());
    wait_for("the indexer to end", || indexer.0.try_wait().unwrap());
    assert!(!redis.command::<bool>(&format!("EXISTS SCANNING_{id}")));
}

#[test]
fn a_scheduled_source_scan_is_put_off_while_another_node_scans() {
    let redis = Redis::start();
    let site = redis.site("");
    site.write("a", "a", 1_700_000_000);
    redis.command::<()>("SET SOURCE_REPO_SYNC another-node PX 60000");
    let _indexer = site.start_indexer(&[]);
    let request = site.send(&Request::ScanSource { rehash: false, force: false });
    wait_for_progress(&request, "another node");
    drop(request);
    assert!(!site.state_dir().join("index/CURRENT").exists());
    redis.command::<()>("DEL SOURCE_REPO_SYNC");
    wait_for("the source to be published", || site.state_dir().join("index/CURRENT").exists().then_some(()));
    wait_for("the lock to be given back", || (!redis.command::<bool>("EXISTS SOURCE_REPO_SYNC")).then_some(()));
}

#[test]
fn a_scan_fails_clearly_when_redis_is_away() {
    let redis = Redis::start();
    let site = node(&redis);
    let _indexer = site.start_indexer(&[]);
    drop(redis);
    let Event::Failed { message } = site.request(&Request::ScanSource { rehash: false, force: false }) else {
        panic!("scanned without a store")
    };
    assert!(
        message.contains("asking whether another node scans the same") && message.contains("127.0.0.1"),
        "{message}"
    );
}

/// What a mirror has is known to the node that scanned it, and the store tells all nodes of the scan: the second node used
/// to take that for its own and served without the mirror. Likewise it did not index what the first had stored of the source.
#[test]
fn each_node_scans_and_indexes_for_itself() {
    let redis = Redis::start();
    let (first, second) = (node(&redis), node(&redis));
    first.copy_to_mirror("m");
    let (_rsync, port) = first.start_rsync();
    let rsync_url = format!("rsync://127.0.0.1:{port}/m/");
    let settings = MirrorSettings { name: "m".to_owned(), rsync_url, ..MirrorSettings::default() };
    let id = redis.store().add_mirror(&settings).unwrap();
    first.run_ok(&["scan", "-enable", "m"]);
    assert!(!redis.store().mirrors().unwrap()[0].state.last_sync.is_never());

    let _second = second.start_indexer(&[]);
    wait_for("the second node to scan the mirror", || {
        second.index().mirror_ids().any(|mirror| mirror == id).then_some(())
    });

    for site in [&first, &second] {
        site.write("b", "b", 1_700_000_000);
    }
    first.run_ok(&["scan", "-source"]);
    let Event::Done { .. } = second.request(&Request::ScanSource { rehash: false, force: false }) else {
        panic!("the source was not scanned")
    };
    assert!(matches!(second.index().lookup(b"/b"), mb_index::Entry::File(_)));
}
