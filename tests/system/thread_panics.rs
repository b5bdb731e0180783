//! Panics in the threads and tasks of the daemon that are no shards.
//!
//! Each once ended its part without a word: counts were not delivered, the log was not written, or a new index was not served
//! until somebody noticed.

use std::fs;

use mb_core::store::{EmbeddedStore, Store};
use rustix::process::{Signal, kill_process};

use crate::harness::eventually;
use crate::harness::host::Place;
use crate::harness::metrics::scrape;
use crate::harness::redirector::Redirector;
use crate::harness::redis::Redis;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};
use crate::indexer_killed::{children, wait_for_another_indexer};

/// Starts a daemon whose parts panic on request, with one mirror that has `/file.iso`.
fn start(redirector: &mut Redirector) -> MirrorSites {
    tree::write(&redirector.repository(), "file.iso", b"content", USUAL_TIME);
    let mirrors = MirrorSites::start(redirector.folder(), &[("only", Place::Paris)]);
    tree::copy(&redirector.repository(), &mirrors.sites[0].root);
    fs::create_dir(redirector.folder().join("faults")).expect("folder");
    let mut command = redirector.daemon_command();
    command.env(mb_core::fault::FOLDER_VARIABLE, redirector.folder().join("faults"));
    redirector.start_with(&mut command);
    redirector.scan_repository();
    redirector.use_mirror(&mirrors.sites[0]);
    mirrors
}

/// Has `part` panic, which passes its place when `wake` has something for it, and waits until it was started again.
fn break_part(redirector: &mut Redirector, part: &str, mut wake: impl FnMut(&Redirector)) {
    let told = format!("part=\"{part}\"");
    let before = redirector.daemon().output().matches(&told).count();
    let fault = redirector.folder().join("faults").join(part);
    fs::write(&fault, "").expect("fault");
    eventually(&format!("{part} panics"), || {
        wake(redirector);
        if fault.exists() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    eventually(&format!("{part} is started again"), || {
        let output = redirector.daemon().output();
        if output.matches(&told).count() > before { Ok(()) } else { Err(output) }
    });
}

#[test]
fn downloads_are_counted_and_logged_exactly_across_panics() {
    let mut redirector = Redirector::new();
    let log = redirector.folder().join("log");
    redirector.set("SameDownloadInterval", "0").set("LogDir", log.display());
    let _mirrors = start(&mut redirector);
    let downloads = std::cell::Cell::new(0_usize);
    let download = |redirector: &Redirector| {
        if redirector.get("/file.iso", &[]).status == 302 {
            downloads.set(downloads.get() + 1);
        }
    };
    eventually("the file is served", || {
        download(&redirector);
        if downloads.get() > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    for part in ["statistics", "statistics-store", "download-log"] {
        break_part(&mut redirector, part, download);
        for _ in 0..10 {
            download(&redirector);
        }
    }
    // What a store that is away has not taken at the end stays in the spool.
    redirector.daemon().wait_for_output("statistics reach the store again");
    let output = redirector.daemon().output();
    assert!(output.contains("panic, please report this: asked for at statistics"), "{output}");
    redirector.stop();
    let store = EmbeddedStore::open(&redirector.state_dir()).expect("the store");
    assert_eq!(store.total_downloads().expect("the total"), downloads.get() as u64);
    let log = fs::read_to_string(log.join("downloads.log")).expect("log");
    assert_eq!(
        log.lines().filter(|line| line.contains("/file.iso") && line.contains(" 302 ")).count(),
        downloads.get(),
        "{log}"
    );
}

#[test]
fn every_part_goes_on_after_a_panic() {
    let mut redirector = Redirector::new();
    redirector.with_metrics();
    let mirrors = start(&mut redirector);
    redirector.wait_until_served("/file.iso");

    break_part(&mut redirector, "index", |_| {});
    tree::write(&redirector.repository(), "new.iso", b"content", USUAL_TIME);
    tree::copy(&redirector.repository(), &mirrors.sites[0].root);
    redirector.scan_repository();
    redirector.mirrorbits(&["scan", "only"]);
    redirector.wait_until_served("/new.iso");

    break_part(&mut redirector, "rpc", |redirector| drop(std::net::TcpStream::connect(redirector.rpc_address())));
    redirector.mirrorbits(&["list"]);
    let daemon = redirector.daemon().pid();
    // The supervision passes its place when it is about to start an indexer.
    break_part(&mut redirector, "indexer", |_| {
        for indexer in children(daemon) {
            // It may have ended since.
            let _ = kill_process(indexer, Signal::KILL);
        }
    });
    wait_for_another_indexer(&mut redirector);
    redirector.scan_repository();

    for (part, target) in [("pages", "/file.iso?mirrorlist"), ("file-statistics", "/file.iso?stats")] {
        break_part(&mut redirector, part, |redirector| drop(redirector.get(target, &[])));
        eventually(&format!("{target} is answered again"), || {
            let answer = redirector.get(target, &[]);
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }
    // That one panics a second time shows that it works again.
    for _ in 0..2 {
        break_part(&mut redirector, "retention", |redirector| drop(redirector.mirrorbits(&["reload"])));
        break_part(&mut redirector, "metrics", |_| {});
    }
    eventually("the metrics", || {
        let page = scrape(&redirector);
        let told = page.value("mirrorbits_part_restarts_total{part=\"retention\"}") == Some(2.0)
            && page.value("mirrorbits_thread_panics_total{thread=\"index\"}") == Some(1.0)
            && page.value("mirrorbits_accepted_connections_total{shard=\"0\"}").is_some_and(|accepted| accepted > 3.0);
        if told { Ok(()) } else { Err(page.text) }
    });
    redirector.stop();
}

#[test]
fn changes_of_other_nodes_are_seen_after_panics() {
    let mut redirector = Redirector::new();
    let redis = Redis::start(redirector.folder());
    redirector.set("Database", "redis").set("RedisAddress", redis.address());
    let _mirrors = start(&mut redirector);
    redirector.wait_until_served("/file.iso");
    let tell = |_: &Redirector| drop(redis.command(&["PUBLISH", "_mirrorbits_mirror_update", "1"]));
    break_part(&mut redirector, "redis-cluster", |_| {});
    break_part(&mut redirector, "redis-watch", tell);
    // It is woken once when the watch is back, and told from then on.
    for _ in 0..2 {
        break_part(&mut redirector, "change-feed", tell);
    }
    redirector.stop();
}
