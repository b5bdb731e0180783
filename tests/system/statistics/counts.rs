//! Each download is counted once, by file, mirror, day and all the rest, in both stores; and what people are shown of it is
//! what was counted.

use mb_load::start;
use time::UtcDateTime;

use super::{Counted, FILES, Scene, finish, path, requests};
use crate::harness::eventually;
use crate::harness::redis::Redis;

const EVERYTHING: &str = "get=60,head=10,json=10,range=10,conditional=5,missing=5";

/// The ends of the keys of a day, its month and its year.
fn suffixes() -> [String; 3] {
    let today = UtcDateTime::now().date();
    let (year, month, day) = (today.year(), u8::from(today.month()), today.day());
    [format!("_{year:04}"), format!("_{year:04}_{month:02}"), format!("_{year:04}_{month:02}_{day:02}")]
}

#[test]
fn redis_has_each_download_in_each_period() {
    let mut redis = None;
    let scene = Scene::start(|redirector| {
        let server = redis.insert(Redis::start(redirector.folder()));
        redirector.set("Database", "redis").set("RedisAddress", server.address());
    });
    let redis = redis.expect("the server");
    let before = suffixes();
    let report = finish(start(scene.plan(EVERYTHING, requests())).expect("the load"));
    let expected = scene.expected(&[report]);
    expected.wait_for(&redis);
    // A test that runs over midnight has its counts on two days.
    if suffixes() == before {
        for suffix in before {
            assert_eq!(Counted::in_redis(&redis, &suffix), expected, "{suffix}");
        }
    }
}

/// The end of the daemon in the middle of requests loses nothing, and neither does its next start.
#[test]
fn the_embedded_store_has_each_download_also_of_a_daemon_that_is_told_to_end() {
    let mut scene = Scene::start(|_| {});
    let whole = finish(start(scene.plan(EVERYTHING, requests())).expect("the load"));
    let mut endless = scene.plan("get=1", 0);
    endless.limit = mb_load::Limit::Stopped;
    let running = start(endless).expect("the load");
    eventually("requests are under way", || if running.answered() > 500 { Ok(()) } else { Err(String::new()) });
    scene.redirector.stop();
    running.stop();
    // Connections that nobody accepts any more are failures of this run; what was answered is right.
    let cut = running.wait().expect("the load");
    let expected = scene.expected(&[whole, cut]);
    assert_eq!(Counted::in_file(&scene.redirector), expected);
    scene.redirector.start();
    scene.redirector.stop();
    assert_eq!(Counted::in_file(&scene.redirector), expected, "nothing comes twice");
}

/// Clients that load a file in parts are counted once for it.
#[test]
fn parts_of_a_file_are_one_download() {
    let mut scene = Scene::start(|redirector| {
        redirector.set("SameDownloadInterval", "600");
    });
    let mut plan = scene.plan("range=1", 2_000);
    plan.clients = vec!["192.0.2.1/32".parse().expect("a network")];
    let report = finish(start(plan).expect("the load"));
    assert!(report.redirects_by_file[..FILES].iter().all(|requests| *requests > 1), "{report}");
    scene.redirector.stop();
    let counted = Counted::in_file(&scene.redirector);
    assert_eq!(counted.total, FILES as u64);
    assert!((0..FILES).all(|number| counted.files.get(&path(number)) == Some(&1)), "{counted:?}");
}

/// Two nodes of one Redis: the parts that they answer of one download are one.
#[test]
fn parts_from_several_nodes_are_one_download() {
    let mut redis = None;
    let mut scene = Scene::start(|redirector| {
        let server = redis.insert(Redis::start(redirector.folder()));
        redirector.set("SameDownloadInterval", "600").set("Database", "redis").set("RedisAddress", server.address());
    });
    let redis = redis.expect("the server");
    let part = |scene: &Scene| {
        let answer = scene.redirector.get("/pool/file%2000.iso", &["Range: bytes=5-", "User-Agent: resume"]);
        assert_eq!(answer.status, 302);
    };
    part(&scene);
    eventually("the download is counted", || match redis.command(&["GET", "STATS_TOTAL"]).as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    });
    // Another process knows as little of what this one saw as another node does.
    scene.redirector.stop();
    scene.redirector.start();
    part(&scene);
    scene.redirector.get("/pool/file%2000.iso", &["User-Agent: whole"]);
    eventually("the whole download is counted", || match redis.command(&["GET", "STATS_TOTAL"]).as_str() {
        "1" => Err("1".to_owned()),
        _ => Ok(()),
    });
    assert_eq!(redis.command(&["GET", "STATS_TOTAL"]), "2");
    let key = redis.command(&["KEYS", "MB_SEEN_*"]);
    let left: u64 = redis.command(&["TTL", &key]).parse().expect("seconds");
    assert!((500..=610).contains(&left), "{key} lasts {left} s");
}

#[test]
fn what_people_are_shown_is_what_was_counted() {
    let mut redis = None;
    let scene = Scene::start(|redirector| {
        let server = redis.insert(Redis::start(redirector.folder()));
        redirector
            .set("Database", "redis")
            .set("RedisAddress", server.address())
            .set("StatsRetention", "{Days: 90, Months: 12}");
    });
    let mut redis = redis.expect("the server");
    for _ in 0..7 {
        assert_eq!(scene.redirector.get("/pool/file%2003.iso", &[]).status, 302);
    }
    let shown = eventually("the downloads are shown", || {
        let answer = scene.redirector.get("/pool/file%2003.iso?stats", &[]);
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/plain; charset=utf-8")));
        let shown = answer.json();
        if shown["Total"] == 7 { Ok(shown) } else { Err(shown.to_string()) }
    });
    let fields: Vec<&str> = shown.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields.len(), 4, "{shown}");
    let [year, month, _] = suffixes().map(|suffix| suffix[1..].replace('_', "-"));
    for (period, downloads) in [(year.as_str(), 7), (month.as_str(), 7), ("1999", 0), ("2026-99", 0)] {
        let answer = scene.redirector.get(&format!("/pool/file%2003.iso?stats={period}"), &[]).json();
        assert_eq!((answer["Period"].as_str(), answer["Downloads"].as_u64()), (Some(period), Some(downloads)));
    }
    let refused = scene.redirector.get("/pool/file%2003.iso?stats=today", &[]);
    assert_eq!((refused.status, refused.text()), (400, "Invalid period\n"));
    assert_eq!(scene.redirector.get("/none?stats", &[]).status, 404);
    let printed = scene.redirector.mirrorbits(&["stats", "file", "file 03"]);
    assert!(printed.contains("Total download requests:"), "{printed}");
    assert_eq!(printed.split_whitespace().last(), Some("7"), "{printed}");

    // An answer that has to wait does not overtake the ones before it, nor hold up the ones after it.
    let mut connection = crate::harness::http::Connection::open(scene.redirector.address()).expect("connection");
    let requests = ["/pool/file%2003.iso?md5", "/pool/file%2003.iso?stats=1999", "/none"]
        .map(|target| crate::harness::redirector::get(target, &[]));
    connection.send(requests.concat().as_bytes()).expect("requests");
    let statuses = [(); 3].map(|()| connection.receive().expect("an answer").status);
    assert_eq!(statuses, [404, 200, 404]);

    redis.command(&["HSET", "STATS_FILE_2020_01_01", "/old", "1"]);
    redis.command(&["HSET", "STATS_MIRROR_BYTES_2020_02", "1", "1"]);
    redis.command(&["HSET", "STATS_FILE_2020", "/old", "1"]);
    assert_eq!(scene.redirector.mirrorbits(&["stats", "prune"]), "Dropped the statistics of 2 days and months\n");
    assert_eq!(
        redis.command(&["EXISTS", "STATS_FILE_2020_01_01", "STATS_MIRROR_BYTES_2020_02", "STATS_FILE_2020"]),
        "1"
    );

    redis.kill();
    let answer = scene.redirector.get("/pool/file%2003.iso?stats", &[]);
    assert_eq!(answer.status, 503, "without the store");
}
