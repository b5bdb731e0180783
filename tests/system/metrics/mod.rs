//! Metrics and health: the numbers are those of what was asked, and what is wrong is told without waiting for it.

mod contrib;
mod limits;

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::http::Connection;
use crate::harness::metrics::{Page, ask, scrape, wait_for, wait_for_readiness};
use crate::harness::redirector::{Redirector, get};
use crate::harness::redis::Redis;
use crate::harness::servers::MirrorSites;
use crate::indexer_killed::supervised_indexer;

const REDIRECTS: &str = "mirrorbits_requests_total{kind=\"redirect\",status=\"302\"}";
const OPTIONS: &str = "mirrorbits_requests_total{kind=\"options\",status=\"204\"}";

/// A redirector with metrics and two mirrors, of which a client in Paris is sent to `near`.
fn in_use(redirector: &mut Redirector) -> MirrorSites {
    redirector.with_metrics().start_with_mirrors(&[("near", Place::Paris), ("far", Place::Tokyo)])
}

fn from_paris(redirector: &Redirector, method: &str, target: &str, header: &str) -> u16 {
    let client = Place::Paris.client();
    let request = get(target, &[&format!("X-Forwarded-For: {client}"), header]).replacen("GET", method, 1);
    let mut connection = Connection::open(redirector.address()).expect("connection");
    connection.send(request.as_bytes()).expect("request");
    let answer = if method == "HEAD" { connection.receive_head() } else { connection.receive() };
    answer.expect("answer").status
}

/// The metrics of everything that the one shard answered so far: an OPTIONS, which nobody else sends, marks the place.
fn settled(redirector: &Redirector) -> Page {
    let marks = scrape(redirector).value(OPTIONS).unwrap_or_default();
    assert_eq!(from_paris(redirector, "OPTIONS", "/", "A: b"), 204);
    wait_for(redirector, OPTIONS, marks + 1.0)
}

fn of_mirror(name: &str, redirector: &Redirector) -> [f64; 2] {
    let page = scrape(redirector);
    ["redirects", "promised_bytes"].map(|what| page.sum(&format!("mirrorbits_{what}_total{{mirror=\"{name}\"")))
}

#[test]
fn the_numbers_are_those_of_what_was_asked() {
    let mut redirector = Redirector::new();
    let mirrors = in_use(&mut redirector);
    let before = settled(&redirector);
    let near = of_mirror("near", &redirector);
    let mix = [
        (5, "GET", "/file.iso", "A: b", 302),
        (2, "HEAD", "/file.iso", "A: b", 302),
        (1, "GET", "/file.iso", "Range: bytes=0-1", 302),
        (3, "GET", "/nothing", "A: b", 404),
        (1, "GET", "/file.iso", "Accept: application/json", 200),
        (4, "GET", "/file.iso?sha256", "A: b", 200),
        (2, "GET", "/file.iso", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", 304),
        (1, "POST", "/file.iso", "A: b", 405),
        (1, "GET", "/file.iso", "broken", 400),
    ];
    for (times, method, target, header, status) in mix {
        for _ in 0..times {
            assert_eq!(from_paris(&redirector, method, target, header), status, "{method} {target} {header}");
        }
    }
    let after = settled(&redirector);
    let grown = |series: &str| after.value(series).unwrap_or_default() - before.value(series).unwrap_or_default();
    let requests =
        |kind: &str, status: u16| grown(&format!("mirrorbits_requests_total{{kind=\"{kind}\",status=\"{status}\"}}"));
    assert_eq!(requests("redirect", 302), 8.0);
    assert_eq!(requests("refusal", 404), 3.0);
    assert_eq!(requests("json", 200), 1.0);
    assert_eq!(requests("checksum", 200), 4.0);
    assert_eq!(requests("not_modified", 304), 2.0);
    assert_eq!(requests("refusal", 405), 1.0);
    assert_eq!(requests("refusal", 400), 1.0);
    assert_eq!(requests("options", 204), 1.0);
    let total = 8 + 3 + 1 + 4 + 2 + 1 + 1 + 1;
    assert_eq!(grown("mirrorbits_request_duration_seconds_count"), f64::from(total));
    assert_eq!(grown("mirrorbits_accepted_connections_total{shard=\"0\"}"), f64::from(total));
    assert!(grown("mirrorbits_request_duration_seconds_sum") > 0.0);
    assert!(after.sum("mirrorbits_recent_request_duration_seconds{quantile=\"0.5\"}") > 0.0);
    let given = of_mirror("near", &redirector);
    assert_eq!([given[0] - near[0], given[1] - near[1]], [8.0, 6.0 * "content".len() as f64]);

    assert_eq!(after.value("mirrorbits_index_files"), Some(1.0));
    assert_eq!(after.value("mirrorbits_index_mirrors"), Some(2.0));
    assert_eq!(after.sum("mirrorbits_mirror_up"), 2.0);
    assert_eq!(after.sum("mirrorbits_mirror_scans_total{mirror=\"near\""), 1.0);
    assert_eq!(after.value("mirrorbits_source_scans_total{result=\"completed\"}"), Some(1.0));
    assert_eq!(after.value("mirrorbits_source_scan_files"), Some(1.0));
    assert!(after.value("mirrorbits_health_checks_total{result=\"up\"}") >= Some(2.0));

    // Other generations: counts stay, and belong to the same mirrors.
    redirector.mirrorbits(&["disable", "far"]);
    let page = wait_for(&redirector, "mirrorbits_mirror_enabled{mirror=\"far\",id=\"2\"}", 0.0);
    assert_eq!(page.value("mirrorbits_mirror_enabled{mirror=\"near\",id=\"1\"}"), Some(1.0));
    redirector.mirrorbits(&["remove", "-f", "near"]);
    let page = eventually("no series of a removed mirror", || {
        let page = scrape(&redirector);
        if page.text.contains("near") { Err(page.text) } else { Ok(page) }
    });
    assert_eq!(page.value(REDIRECTS), after.value(REDIRECTS));
    assert_eq!(of_mirror("far", &redirector)[0], after.sum("mirrorbits_redirects_total{mirror=\"far\""));
    drop(mirrors);
}

#[test]
fn answers_by_fallbacks_are_counted_apart() {
    let mut redirector = Redirector::new();
    redirector.set("Fallbacks", "[{URL: 'http://fallback.example/'}]");
    let _mirrors = in_use(&mut redirector);
    let before = settled(&redirector).value("mirrorbits_fallback_answers_total");
    for name in ["near", "far"] {
        redirector.mirrorbits(&["disable", name]);
    }
    eventually("no mirror is left", || {
        let location = redirector.get("/file.iso", &[]).location().to_owned();
        if location.starts_with("http://fallback.example/") { Ok(()) } else { Err(location) }
    });
    assert_eq!(from_paris(&redirector, "GET", "/file.iso", "Accept: application/json"), 200);
    let after = settled(&redirector).value("mirrorbits_fallback_answers_total");
    assert_eq!(after, before.map(|before| before + 2.0));
}

#[test]
fn a_store_that_is_away_is_told_and_keeps_nobody_waiting() {
    let mut redirector = Redirector::new();
    let mut redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address());
    let _mirrors = in_use(&mut redirector);
    wait_for(&redirector, "mirrorbits_store_up", 1.0);
    assert!(!ask(&redirector, "/readyz").text().contains("degraded: store"));

    redis.kill();
    wait_for(&redirector, "mirrorbits_store_up", 0.0);
    wait_for_readiness(&redirector, 200, "degraded: store: down since");
    assert_eq!(from_paris(&redirector, "GET", "/file.iso", "A: b"), 302);
    wait_for(&redirector, "mirrorbits_spooled_downloads", 1.0);
    wait_for_readiness(&redirector, 200, "degraded: statistics: 1 downloads wait on disk");
    redis.start_again();
    wait_for(&redirector, "mirrorbits_store_up", 1.0);
    wait_for(&redirector, "mirrorbits_spooled_downloads", 0.0);

    redis.signal(Signal::STOP);
    wait_for(&redirector, "mirrorbits_store_up", 0.0);
    wait_for_readiness(&redirector, 200, "degraded: store: down since");
    redis.signal(Signal::CONT);
    wait_for(&redirector, "mirrorbits_store_up", 1.0);
}

#[test]
fn without_an_index_it_is_alive_and_not_ready() {
    let mut redirector = Redirector::new();
    redirector.with_metrics().start_without_indexer();
    let response = ask(&redirector, "/readyz");
    assert_eq!(response.status, 503);
    assert!(response.text().starts_with("not ready\nno index"), "{response:?}");
    assert!(!response.text().contains("indexer"), "none is wanted: {response:?}");
    assert_eq!(ask(&redirector, "/healthz").status, 200);
    let page = scrape(&redirector);
    assert_eq!(page.value("mirrorbits_ready"), Some(0.0));
    assert_eq!(page.value("mirrorbits_indexer_up"), None);

    let _indexer = redirector.start_indexer();
    redirector.scan_repository();
    wait_for_readiness(&redirector, 200, "0 files on 0 mirrors");
    wait_for(&redirector, "mirrorbits_indexer_up", 1.0);
}

#[test]
fn an_indexer_that_dies_is_told() {
    let mut redirector = Redirector::new();
    let _mirrors = in_use(&mut redirector);
    wait_for(&redirector, "mirrorbits_indexer_up", 1.0);
    let indexer = supervised_indexer(&mut redirector);
    rustix::process::kill_process(indexer, Signal::KILL).expect("the indexer runs");
    wait_for_readiness(&redirector, 200, "degraded: indexer: the indexer is not running");
    wait_for(&redirector, "mirrorbits_indexer_up", 1.0);
}

#[test]
fn requests_for_anything_else_are_refused() {
    let mut redirector = Redirector::new();
    redirector.with_metrics().start();
    assert_eq!(ask(&redirector, "/").status, 404);
    let mut connection = Connection::open(redirector.metrics_address()).expect("connection");
    connection.send(b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").expect("request");
    assert_eq!(connection.receive().expect("answer").status, 405);
    connection.send(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n").expect("request");
    assert_eq!(connection.receive_head().expect("answer").status, 200);
    connection.send(b"no HTTP\r\n\r\n").expect("request");
    assert_eq!(connection.receive().expect("answer").status, 400);
}

/// Prometheus comes often while clients do: counters never step back, and in the end each request was counted once.
#[test]
fn scraped_under_load_nothing_is_lost_and_nothing_steps_back() {
    const CLIENTS: u32 = 4;
    const REQUESTS: u32 = 2000;
    let mut redirector = Redirector::new();
    redirector.set("Shards", 2);
    let _mirrors = in_use(&mut redirector);
    let before = eventually("two equal looks", || {
        let looks = [scrape(&redirector), settled_by_time(&redirector)].map(|page| page.value(REDIRECTS));
        if looks[0] == looks[1] { Ok(looks[0].unwrap_or_default()) } else { Err(format!("{looks:?}")) }
    });
    let (redirector, over) = (&redirector, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients = [(); CLIENTS as usize].map(|()| {
            scope.spawn(move || {
                let mut connection = Connection::open(redirector.address()).expect("connection");
                for _ in 0..REQUESTS {
                    connection.send(get("/file.iso", &[]).as_bytes()).expect("request");
                    assert_eq!(connection.receive().expect("answer").status, 302);
                }
            })
        });
        scope.spawn(move || {
            let mut last = scrape(redirector);
            while !over.load(Ordering::Relaxed) {
                let page = scrape(redirector);
                for (series, value) in last.counters() {
                    assert!(
                        page.value(series) >= Some(value),
                        "{series} went from {value} to {:?}",
                        page.value(series)
                    );
                }
                last = page;
            }
        });
        let ends = clients.map(|client| client.join());
        over.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok));
    });
    let page = wait_for(redirector, REDIRECTS, before + f64::from(CLIENTS * REQUESTS));
    assert_eq!(page.sum("mirrorbits_redirects_total"), page.value(REDIRECTS).unwrap_or_default());
}

/// The metrics after each shard has handed over once more, as the growth of its processor time shows.
fn settled_by_time(redirector: &Redirector) -> Page {
    let times = |page: &Page| {
        ["0", "1"].map(|shard| page.value(&format!("mirrorbits_shard_cpu_seconds_total{{shard=\"{shard}\"}}")))
    };
    let before = times(&scrape(redirector));
    eventually("both shards hand over", || {
        let page = scrape(redirector);
        let now = times(&page);
        if (0..2).all(|shard| now[shard] > before[shard]) { Ok(page) } else { Err(format!("{now:?}")) }
    })
}
