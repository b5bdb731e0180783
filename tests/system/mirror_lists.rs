//! Mirror lists beside redirects: they are made off the shards, and cost those no answer and no order.
//!
//! A mirror list as compressed JSON was once evaluated, written and compressed on the shard, which took milliseconds with some
//! hundred mirrors: everything else on the shard waited.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use mb_core::fault;

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::http::{Connection, Response};
use crate::harness::metrics::scrape;
use crate::harness::redirector::{Redirector, get};
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

const LIST: &str = "/file.iso?mirrorlist";
const JSON: &str = "Accept: application/json";
const GZIP: &str = "Accept-Encoding: gzip";
/// Lists that are made or wait for their turn (`src/pages/worker.rs`).
const UNDER_WAY: usize = 64;

/// A daemon with one shard and one mirror, whose page worker can be stopped.
struct Stage {
    redirector: Redirector,
    mirrors: MirrorSites,
    stop: PathBuf,
}

impl Stage {
    fn new() -> Stage {
        let mut redirector = Redirector::new();
        redirector.set("Gzip", "true").with_metrics();
        tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
        let mirrors = MirrorSites::start(redirector.folder(), &[("only", Place::Paris)]);
        tree::copy(&redirector.repository(), &mirrors.sites[0].root);
        let faults = redirector.folder().join("faults");
        fs::create_dir(&faults).expect("folder");
        let mut command = redirector.daemon_command();
        command.env(fault::FOLDER_VARIABLE, &faults);
        redirector.start_with(&mut command);
        redirector.scan_repository();
        redirector.use_mirror(&mirrors.sites[0]);
        redirector.wait_until_served("/file.iso");
        Stage { redirector, mirrors, stop: faults.join(format!("make-page{}", fault::STOP_ENDING)) }
    }

    fn stop_making(&self) {
        fs::write(&self.stop, "").expect("file");
    }

    fn go_on_making(&self) {
        fs::remove_file(&self.stop).expect("file");
    }

    fn connection(&self) -> Connection {
        Connection::open(self.redirector.address()).expect("connection")
    }

    #[track_caller]
    fn check_redirect(&self, answer: &Response) {
        assert_eq!(answer.location(), format!("{}file.iso", self.mirrors.sites[0].http_url()));
    }

    /// Has `connection` ask for so many redirects, one after the other.
    fn redirects(&self, connection: &mut Connection, count: usize) {
        for _ in 0..count {
            connection.send(get("/file.iso", &[]).as_bytes()).expect("request");
            self.check_redirect(&connection.receive().expect("an answer"));
        }
    }
}

/// The document of a compressed mirror list.
#[track_caller]
fn unzipped(answer: &Response) -> String {
    assert_eq!((answer.status, answer.header("Content-Encoding")), (200, Some("gzip")), "{answer:?}");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).expect("gzip");
    text
}

#[test]
fn redirects_are_answered_while_a_list_is_made() {
    let stage = Stage::new();
    stage.stop_making();
    let (redirect, list) = (get("/file.iso", &[]), get(LIST, &[JSON, GZIP]));
    let mut asking = stage.connection();
    asking.send([redirect.as_str(), &list, &redirect, &list, &redirect].concat().as_bytes()).expect("requests");
    stage.check_redirect(&asking.receive().expect("what stands before the list"));
    let mut other = stage.connection();
    stage.redirects(&mut other, 100);
    // What the shard decides by itself waits for nothing.
    other.send(get(&format!("{LIST}&fromip=nowhere"), &[JSON]).as_bytes()).expect("request");
    assert_eq!(other.receive().expect("an answer").status, 400);
    other.send(get("/file.iso", &[JSON]).as_bytes()).expect("request");
    assert_eq!(other.receive().expect("an answer").status, 200);
    assert!(asking.is_silent(), "the list is not made, and what stands behind it waits");

    stage.go_on_making();
    for _ in 0..2 {
        assert!(unzipped(&asking.receive().expect("the list")).contains("\"Name\":\"only\""));
        stage.check_redirect(&asking.receive().expect("what stands behind the list"));
    }
}

#[test]
fn more_lists_than_can_wait_are_refused_and_hold_up_nothing() {
    let stage = Stage::new();
    let counts = || {
        let page = scrape(&stage.redirector);
        let count = |labels| page.value(&format!("mirrorbits_requests_total{{{labels}}}")).unwrap_or_default();
        (count("kind=\"refusal\",status=\"503\""), count("kind=\"mirror_list\",status=\"200\""))
    };
    let before = counts();
    stage.stop_making();
    let list = get(LIST, &[JSON, GZIP]);
    // However much a client pipelines, it has one list made at a time: the others get the other places.
    let mut greedy = stage.connection();
    greedy.send(list.repeat(200).as_bytes()).expect("requests");
    let mut crowd: Vec<_> = (1..UNDER_WAY).map(|_| stage.connection()).collect();
    for connection in &mut crowd {
        connection.send(list.as_bytes()).expect("request");
    }
    let mut late = stage.connection();
    eventually("all places are taken", || {
        late.send(list.as_bytes()).expect("request");
        // One that gets a place is answered when lists are made again.
        let mut other = stage.connection();
        stage.redirects(&mut other, 10);
        if late.is_silent() {
            crowd.push(std::mem::replace(&mut late, stage.connection()));
            return Err(format!("{} lists wait", crowd.len()));
        }
        let refusal = late.receive().expect("a refusal");
        assert_eq!((refusal.status, refusal.header("Retry-After")), (503, Some("60")));
        Ok(())
    });
    eventually("the refusal is counted as one", || {
        let (refusals, lists) = counts();
        if (refusals - before.0, lists - before.1) == (1.0, 0.0) { Ok(()) } else { Err(format!("{refusals}, {lists}")) }
    });
    let mut other = stage.connection();
    stage.redirects(&mut other, 100);
    assert!(crowd.iter_mut().all(Connection::is_silent), "nobody was refused who came before");

    stage.go_on_making();
    for connection in &mut crowd {
        unzipped(&connection.receive().expect("a list"));
    }
    for _ in 0..200 {
        unzipped(&greedy.receive().expect("a list"));
    }
    late.send(list.as_bytes()).expect("request");
    unzipped(&late.receive().expect("a list, as the places are free again"));
}

/// Sixteen clients that pipeline lists and redirects, beside one that only wants redirects: all of them are right, in order,
/// and counted.
#[test]
fn lists_and_redirects_of_many_clients_are_right_and_counted() {
    const CLIENTS: usize = 16;
    const ROUNDS: usize = 10;
    let stage = Stage::new();
    let before = scrape(&stage.redirector);
    let lists = |page: &crate::harness::metrics::Page| {
        page.value("mirrorbits_requests_total{kind=\"mirror_list\",status=\"200\"}").unwrap_or_default()
    };
    let expected = stage.redirector.get(LIST, &[JSON]).text().to_owned();
    let requests = [get("/file.iso", &[]), get(LIST, &[JSON, GZIP]), get(LIST, &[JSON])].concat().repeat(4);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = stage.connection();
                for _ in 0..ROUNDS {
                    connection.send(requests.as_bytes()).expect("requests");
                    for _ in 0..4 {
                        stage.check_redirect(&connection.receive().expect("a redirect"));
                        assert_eq!(unzipped(&connection.receive().expect("a list")), expected);
                        assert_eq!(connection.receive().expect("a list").text(), expected);
                    }
                }
            });
        }
        stage.redirects(&mut stage.connection(), 1000);
    });
    let made = 1 + CLIENTS * ROUNDS * 8;
    eventually("all lists are counted", || {
        let page = scrape(&stage.redirector);
        if lists(&page) - lists(&before) == made as f64 { Ok(()) } else { Err(page.text) }
    });
}
