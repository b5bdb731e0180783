//! Two state directories on one Redis.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mb_core::link::{Event, Request};
use mb_core::mirror::{MirrorId, MirrorSettings};
use mb_core::store::{LogEvent, Store};
use mb_index::Entry;

use crate::harness::redis::Redis;
use crate::harness::{NOBODY, Server, Site, wait_for};

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
    let settings =
        MirrorSettings { name: "m".to_owned(), rsync_url, http_url: NOBODY.to_owned(), ..MirrorSettings::default() };
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

/// A mirror of `site` behind rsync, scanned and enabled from there.
fn scanned_mirror(redis: &Redis, site: &Site) -> (Server, MirrorId) {
    site.copy_to_mirror("m");
    let (rsync, port) = site.start_rsync();
    let rsync_url = format!("rsync://127.0.0.1:{port}/m/");
    let settings =
        MirrorSettings { name: "m".to_owned(), rsync_url, http_url: NOBODY.to_owned(), ..MirrorSettings::default() };
    let id = redis.store().add_mirror(&settings).unwrap();
    site.run_ok(&["scan", "-enable", "m"]);
    (rsync, id)
}

/// How many scans of the mirror were started, on whatever node.
fn scans(redis: &Redis, id: MirrorId) -> usize {
    let log = redis.store().mirror_log(id, 1_000).unwrap();
    log.iter().filter(|entry| matches!(entry.event, LogEvent::ScanStarted(_))).count()
}

/// Whether the index of a node says that the mirror has an equal copy of `path`.
fn serves(site: &Site, id: MirrorId, path: &str) -> bool {
    let index = site.index();
    let Some(ordinal) = index.mirror_ids().position(|mirror| mirror == id) else {
        return false;
    };
    match index.lookup(path.as_bytes()) {
        Entry::File(file) => index.set(file.set()).contains(ordinal as u32),
        _ => false,
    }
}

#[test]
fn one_node_scans_and_the_others_use_its_result() {
    let redis = Redis::start();
    let (first, second) = (node(&redis), node(&redis));
    let (_rsync, id) = scanned_mirror(&redis, &first);
    assert!(serves(&first, id, "/a") && !serves(&second, id, "/a"));
    let _second = second.start_indexer(&[]);
    wait_for("the result of the first node", || serves(&second, id, "/a").then_some(()));

    for site in [&first, &second] {
        site.write("b", "b", 1_700_000_000);
        site.run_ok(&["scan", "-source"]);
    }
    first.copy_to_mirror("m");
    first.run_ok(&["scan", "m"]);
    wait_for("its next result", || serves(&second, id, "/b").then_some(()));
    assert_eq!(scans(&redis, id), 2, "both by the first node");

    let started: String = redis.command(&format!("HGET MB_SCAN_{id} started"));
    assert_eq!(redis.store().mirrors().unwrap()[0].state.last_successful_sync.0.to_string(), started);
    redis.store().remove_mirror(id).unwrap();
    assert!(redis.command::<Vec<String>>("KEYS MB_SCAN*").is_empty());
}

#[test]
fn a_damaged_result_is_refused_and_the_mirror_scanned_again() {
    let redis = Redis::start();
    let (first, second, third) = (node(&redis), node(&redis), node(&redis));
    let (_rsync, id) = scanned_mirror(&redis, &first);
    let blocks: Vec<Vec<u8>> = redis.command("HKEYS MB_SCAN_BLOCKS");
    let mut damage = redis::cmd("HSET");
    damage.arg("MB_SCAN_BLOCKS").arg(&blocks[0]).arg("damaged").query::<()>(&mut redis.connection()).unwrap();

    let second_indexer = second.start_indexer(&[]);
    wait_for("a scan by the second node", || serves(&second, id, "/a").then_some(()));
    assert_eq!(scans(&redis, id), 2);
    drop(second_indexer);

    let _third = third.start_indexer(&[]);
    wait_for("the sound result of the second node", || serves(&third, id, "/a").then_some(()));
    assert_eq!(scans(&redis, id), 2);
}

/// A database that was lost, or copied from the embedded one, has no results: the nodes share theirs again.
#[test]
fn a_store_that_lost_the_results_gets_them_back() {
    let redis = Redis::start();
    let (first, second) = (node(&redis), node(&redis));
    let (_rsync, id) = scanned_mirror(&redis, &first);
    redis.command::<()>(&format!("DEL MB_SCAN_{id} MB_SCAN_BLOCKS MB_SCAN_USES"));
    let _first = first.start_indexer(&[]);
    wait_for("the result", || redis.command::<bool>(&format!("EXISTS MB_SCAN_{id}")).then_some(()));
    let _second = second.start_indexer(&[]);
    wait_for("the result on the second node", || serves(&second, id, "/a").then_some(()));
    assert_eq!(scans(&redis, id), 1);
}

/// The store tells all nodes what one stored of the source: a node that found nothing new in it used to index nothing.
#[test]
fn each_node_indexes_the_source_for_itself() {
    let redis = Redis::start();
    let (first, second) = (node(&redis), node(&redis));
    let _second = second.start_indexer(&[]);
    for site in [&first, &second] {
        site.write("b", "b", 1_700_000_000);
    }
    first.run_ok(&["scan", "-source"]);
    let Event::Done { .. } = second.request(&Request::ScanSource { rehash: false, force: false }) else {
        panic!("the source was not scanned")
    };
    assert!(matches!(second.index().lookup(b"/b"), Entry::File(_)));
}
