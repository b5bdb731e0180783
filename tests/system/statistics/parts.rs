//! Parts of one download, requested by `Range` within one collection of the statistics, count once,
//! on whatever nodes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Counted, FALLBACK, FILES, Scene, path, size};
use crate::harness::eventually;
use crate::harness::http::Connection;
use crate::harness::redirector::{Redirector, get};
use crate::harness::redis::Redis;
use crate::harness::tree;

/// All requests of a download are sent within it: a fifth of what is between two collections.
const TOGETHER: Duration = Duration::from_millis(100);
/// Requests of a download.
const PARTS: [usize; 3] = [2, 3, 10];

/// Sends all parts of a download, to the nodes in turn, each on a connection of its own. Returns
/// how long that took.
fn download(nodes: &[SocketAddr], path: &str, parts: usize) -> Duration {
    let mut connections: Vec<Connection> =
        nodes.iter().cycle().take(parts).map(|node| Connection::open(*node).expect("connection")).collect();
    let started = Instant::now();
    for (part, connection) in connections.iter_mut().enumerate() {
        let range = format!("Range: bytes={part}-");
        let request = get(&path.replace(' ', "%20"), &[&range, "User-Agent: in-parts"]);
        connection.send(request.as_bytes()).expect("request");
    }
    let answered: Vec<u16> = connections.iter_mut().map(|c| c.receive().expect("an answer").status).collect();
    assert_eq!(answered, vec![302; parts]);
    started.elapsed()
}

/// Two parts counted 0 where they came within one collection: the node reported the second before
/// it asked about the first.
#[test]
fn parts_within_a_moment_count_once_on_one_node_and_on_two() {
    let mut redis = None;
    let configure = |redirector: &mut Redirector, address: SocketAddr| {
        redirector.set("SameDownloadInterval", "600").set("Database", "redis").set("RedisAddress", address);
    };
    let mut scene = Scene::start(|redirector| {
        let server = redis.insert(Redis::start(redirector.folder()));
        configure(redirector, server.address());
    });
    let redis = redis.expect("the server");
    let mut second = Redirector::new();
    configure(&mut second, redis.address());
    second.set("Shards", "2").set("Fallbacks", format!("[{{URL: '{FALLBACK}'}}]"));
    tree::copy(&scene.redirector.repository(), &second.repository());
    second.start();
    eventually("the second node serves", || {
        let mut connection = Connection::open(second.address()).map_err(|error| error.to_string())?;
        connection.send(b"HEAD /pool/file%2000.iso HTTP/1.1\r\nHost: download.example.org\r\n\r\n").expect("request");
        let answer = connection.receive_head().map_err(|error| error.to_string())?;
        let location = answer.header("Location").unwrap_or_default();
        if location.is_empty() || location.starts_with(FALLBACK) { Err(format!("{answer:?}")) } else { Ok(()) }
    });

    let (one, both) = ([scene.redirector.address()], [scene.redirector.address(), second.address()]);
    let mut expected = Counted::default();
    let mut together = [0; PARTS.len() * 2];
    // One file after the other, so that the parts fall on all places within and across collections.
    for number in 0..FILES {
        let case = number % together.len();
        let nodes = if case % 2 == 0 { &one[..] } else { &both[..] };
        let took = download(nodes, &path(number), PARTS[case / 2]);
        together[case] += usize::from(took <= TOGETHER);
        expected.files.insert(path(number), 1);
        expected.total += 1;
        expected.bytes += size(&path(number));
        // Each sixth time the next begins right after a delivery.
        if case == 0 {
            eventually("the delivery of what was asked before", || {
                let total = Counted::in_redis(&redis, "").total;
                if total >= expected.total { Ok(()) } else { Err(format!("{total} of {}", expected.total)) }
            });
        }
    }
    assert!(together.iter().all(|downloads| *downloads > 0), "none within {TOGETHER:?}: {together:?}");

    let printed = eventually("all are counted", || {
        let printed = second.mirrorbits(&["stats", "file", "file *"]);
        let total = printed.split_whitespace().last().and_then(|word| word.parse::<u64>().ok());
        if total >= Some(expected.total) { Ok(printed) } else { Err(printed) }
    });
    assert_eq!(printed.split_whitespace().last(), Some(expected.total.to_string().as_str()), "{printed}");
    // What has been delivered at the end of both is all there will ever be.
    scene.redirector.stop();
    second.stop();
    let counted = Counted::in_redis(&redis, "");
    assert_eq!(counted.mirrors.values().sum::<u64>(), expected.total, "{counted:?}");
    expected.mirrors.clone_from(&counted.mirrors);
    assert_eq!(counted, expected);
}
