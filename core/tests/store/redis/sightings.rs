//! Range deduplication on a real server: the script follows the rule that the nodes' model test
//! plays with, in whatever order several nodes report, at once too, and reads what earlier builds
//! wrote.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use mb_core::store::known_downloads::KnownDownloads;
use mb_core::store::{RedisStore, Sighting, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::server::Server;

const NODES: usize = 3;
/// All times are multiples of it. It is far more than the clocks of Redis and the test can differ
/// by between two reads.
const UNIT: Duration = Duration::from_secs(10);
/// No multiple of [`UNIT`], so that no comparison is a close one.
const INTERVAL: Duration = Duration::from_secs(105);
/// Before now; nothing is later than now.
const LATEST: u32 = 60;

/// What a node reports at once: the downloads, and first and last request in units after the start.
type Report = (usize, Vec<(u128, u32, u32)>);

fn reports() -> impl Strategy<Value = Vec<Report>> {
    let sighting = (0..3_u128, 0..LATEST, 0..4_u32).prop_map(|(hash, first, length)| (hash, first, first + length));
    // Mostly in order of time, as nodes report; some late.
    let report = (0..NODES, prop::collection::vec(sighting, 1..5), 0..4_u8);
    prop::collection::vec(report, 1..20).prop_map(|mut reports| {
        let count = reports.len();
        for (place, (_, sightings, kind)) in reports.iter_mut().enumerate().filter(|(_, (_, _, kind))| *kind > 0) {
            let now = u32::try_from(place * LATEST as usize / count).expect("small");
            for (_, first, last) in sightings {
                (*first, *last) = (now + u32::from(*kind), now + u32::from(*kind) + (*last - *first));
            }
        }
        reports.into_iter().map(|(node, sightings, _)| (node, sightings)).collect()
    })
}

fn key(hash: u128) -> String {
    format!("MB_SEEN_{hash:032x}")
}

fn sighting(hash: u128, first: Instant, last: Instant) -> Sighting {
    Sighting { hash, first, last, interval: INTERVAL }
}

#[test]
fn the_script_follows_the_model_in_any_order_of_reports() {
    let server = Server::start(&[]);
    let nodes: [RedisStore; NODES] = std::array::from_fn(|_| server.store());
    let start = Instant::now().checked_sub(UNIT * (LATEST + 20)).expect("a clock that reaches back");
    let at = |units: u32| start + UNIT * units;
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&reports(), |reports| {
            server.command::<()>("FLUSHALL");
            let mut model = KnownDownloads::default();
            for (node, sightings) in reports {
                let sightings: Vec<Sighting> =
                    sightings.iter().map(|(hash, first, last)| sighting(*hash, at(*first), at(*last))).collect();
                let answered = nodes[node].note_sightings(&sightings).expect("noted");
                prop_assert_eq!(answered, model.note(&sightings), "{:?}", sightings);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// All nodes report parts of the same downloads at the same moment.
#[test]
fn of_nodes_that_report_at_once_one_counts() {
    const DOWNLOADS: u128 = 1_200;
    let server = Server::start(&[]);
    let nodes: [RedisStore; NODES] = std::array::from_fn(|_| server.store());
    let barrier = Barrier::new(NODES);
    let now = Instant::now();
    let report = |node: &RedisStore| {
        let sightings: Vec<Sighting> = (0..DOWNLOADS).map(|hash| sighting(hash, now, now)).collect();
        barrier.wait();
        node.note_sightings(&sightings).expect("noted")
    };
    let new: Vec<Vec<bool>> = thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| report(node))).collect();
        threads.into_iter().map(|thread| thread.join().expect("joined")).collect()
    });
    for download in 0..usize::try_from(DOWNLOADS).expect("small") {
        assert_eq!(new.iter().filter(|new| new[download]).count(), 1, "download {download}");
    }
}

/// During a rolling upgrade each download under way was counted once more by the first upgraded
/// node that saw a part of it.
#[test]
fn what_an_earlier_build_noted_is_continued() {
    let server = Server::start(&[]);
    let store = server.store();
    // The build before wrote 1, to last for the interval after the latest request.
    let earlier = |hash: u128, ago: Duration| {
        let left = (INTERVAL - ago).as_millis().to_string();
        server.send::<()>(&["SET", &key(hash), "1", "PX", &left]);
    };
    let now = Instant::now();
    earlier(1, Duration::ZERO);
    earlier(2, INTERVAL - UNIT);
    // It ended an interval before that request came in, which is reported late.
    earlier(3, UNIT);
    let new = store.note_sightings(&[
        sighting(1, now, now),
        sighting(2, now, now),
        sighting(3, now - UNIT - INTERVAL - UNIT, now - UNIT - INTERVAL - UNIT),
        sighting(4, now, now),
    ]);
    assert_eq!(new.expect("noted"), [false, false, true, true]);
    let value: String = server.send(&["GET", &key(2)]);
    assert!(value.split_once(' ').is_some(), "written anew: {value}");

    // And the build before takes ours for its own: SET NX does nothing, PEXPIRE keeps the value.
    let taken: Option<String> = server.send(&["SET", &key(4), "1", "PX", "105000", "NX"]);
    assert_eq!(taken, None);
    server.send::<()>(&["PEXPIRE", &key(4), "105000"]);
    assert_eq!(store.note_sightings(&[sighting(4, now, now)]).expect("noted"), [false]);
}

/// One value of another kind made the store fail for all downloads of a collection.
#[test]
fn a_value_that_is_not_ours_hurts_no_other_download() {
    let server = Server::start(&[]);
    let store = server.store();
    server.send::<()>(&["RPUSH", &key(1), "a list"]);
    for (hash, text) in [(2, "some text"), (3, "-1 5"), (4, "1 2 3"), (5, "999999999999999999999999 0")] {
        server.send::<()>(&["SET", &key(hash), text]);
    }
    let now = Instant::now();
    let sightings: Vec<Sighting> = (0..7).map(|hash| sighting(hash, now, now)).collect();
    let first = store.note_sightings(&sightings).expect("noted");
    assert_eq!(first.iter().filter(|new| **new).count(), 7, "{first:?}");
    assert_eq!(store.note_sightings(&sightings).expect("noted"), [false; 7]);
}
