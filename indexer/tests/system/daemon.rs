//! `mb-indexer run`.

use std::io::{Read, Write};
use std::net::TcpListener;

use mb_core::link::{Event, Request};
use mb_core::mirror::MirrorId;
use mb_core::store::Store;
use mb_core::time::Timestamp;

use crate::harness::{Server, Site, texts, wait_for};

fn wait_for_exit(server: &mut Server) -> i32 {
    wait_for("the indexer to end", || server.0.try_wait().unwrap()).code().expect("it was killed by a signal")
}

fn terminate(server: &Server) {
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

fn scan_request(id: MirrorId) -> Request {
    Request::ScanMirror { id, enable: true, protocol: None }
}

#[test]
fn it_scans_the_source_by_itself_and_mirrors_and_checks_on_request() {
    let site = Site::new();
    site.write("a b", "a", 1_700_000_000);
    site.copy_to_mirror("complete");
    let (_rsync, rsync_port) = site.start_rsync();
    let (_http, http_port) = site.start_http();
    let add = |name: &str, folder: &str| {
        let rsync = format!("rsync://127.0.0.1:{rsync_port}/complete/");
        site.add_mirror(name, &rsync, &format!("http://127.0.0.1:{http_port}/{folder}/"))
    };
    let good = add("good", "complete");
    let (missing, broken, redirecting) =
        (add("missing", "nothing"), add("broken", "broken"), add("redirecting", "redirect"));
    let mut indexer = site.start_indexer(&[]);
    wait_for("the source to be published", || site.state_dir().join("index/CURRENT").exists().then_some(()));

    let Event::Done { scan: Some(report), .. } = site.request(&scan_request(good)) else { panic!("not scanned") };
    assert_eq!((report.files_indexed, report.known_indexed, report.enabled), (1, 1, true));
    assert!(site.mirror(good).state.http.up && site.mirror(good).state.enabled);
    assert!(!site.mirror(good).state.https.up, "the mirror offers no HTTPS");
    assert!(site.http_log().contains("\"HEAD /complete/a%20b HTTP/1.1\" 200"), "{}", site.http_log());
    assert!(site.http_log().contains(" PING CHECK\""), "{}", site.http_log());

    for id in [missing, broken, redirecting] {
        assert!(matches!(site.request(&scan_request(id)), Event::Done { .. }));
    }
    let reason = |id| site.mirror(id).state.http.down_reason;
    assert_eq!(reason(missing), "File not found /a b (error 404)");
    assert_eq!(reason(broken), "Got status code 503");
    assert!(site.mirror(redirecting).state.http.up);

    terminate(&indexer);
    assert_eq!(wait_for_exit(&mut indexer), 0);
}

/// A mirror that is enabled by another process becomes usable without any request for a scan.
#[test]
fn an_enabled_mirror_is_scanned_and_checked_when_the_store_says_so() {
    let site = Site::new();
    site.write("a", "a", 1_700_000_000);
    site.copy_to_mirror("m");
    let (_rsync, rsync_port) = site.start_rsync();
    let (_http, http_port) = site.start_http();
    let _indexer = site.start_indexer(&[]);
    let rsync = format!("rsync://127.0.0.1:{rsync_port}/m/");
    let id = site.add_mirror("m", &rsync, &format!("http://127.0.0.1:{http_port}/m/"));
    site.store().set_enabled(id, true, Timestamp::now()).unwrap();
    assert!(matches!(site.request(&Request::MirrorsChanged { ids: vec![id] }), Event::Done { .. }));
    wait_for("the mirror to be up", || site.mirror(id).state.http.up.then_some(()));
    let index = site.index();
    assert_eq!(index.set(index.file(0).set()).len(), 1);

    site.store().remove_mirror(id).unwrap();
    assert!(matches!(site.request(&Request::MirrorsChanged { ids: vec![id] }), Event::Done { .. }));
    site.run_ok(&["build"]);
    let results = rusqlite::Connection::open(site.state_dir().join("scans.sqlite")).unwrap();
    let blocks: i64 = results.query_row("SELECT count(*) FROM blocks", [], |row| row.get(0)).unwrap();
    assert_eq!((blocks, site.index().mirror_count()), (0, 0));
}

#[test]
fn the_source_is_scanned_on_request() {
    let site = Site::with_configuration("RepositoryScanInterval: 0");
    site.write("a", "a", 1);
    let _indexer = site.start_indexer(&[]);
    let scan = Request::ScanSource { rehash: false, force: false };
    let Event::Done { source: Some(report), .. } = site.request(&scan) else { panic!("not scanned") };
    assert_eq!((report.files, report.hashed), (1, 1));
    assert_eq!(site.index().len(), 1);
    std::fs::remove_file(site.repository().join("a")).unwrap();
    let Event::Failed { message } = site.request(&scan) else { panic!("accepted an empty repository") };
    assert!(message.contains("nothing was changed"), "{message}");
}

#[test]
fn a_reload_with_a_bad_file_changes_nothing() {
    let site = Site::new();
    let _indexer = site.start_indexer(&[]);
    assert!(matches!(site.request(&Request::Reload), Event::Done { .. }));
    std::fs::write(site.configuration(), "ConcurrentSync: many").unwrap();
    let Event::Failed { message } = site.request(&Request::Reload) else { panic!("accepted a bad file") };
    assert!(message.contains("stays"), "{message}");
}

#[test]
fn what_is_no_request_is_answered_and_does_no_harm() {
    use std::io::Write;
    let site = Site::new();
    let _indexer = site.start_indexer(&[]);
    let mut stream = std::os::unix::net::UnixStream::connect(mb_core::link::socket_path(&site.state_dir())).unwrap();
    stream.write_all(b"{\"request\":\"dance\"}\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("failed") && answer.contains("not a request"), "{answer}");
    assert!(matches!(site.request(&Request::Reload), Event::Done { .. }));
}

/// A mirror that answers nothing would hold its scan for rsync's own timeout of 30 seconds.
#[test]
fn giving_a_request_up_ends_its_rsync() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let site = Site::new();
    site.write("a", "a", 1);
    site.run_ok(&["scan", "-source"]);
    let id = site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "");
    let _indexer = site.start_indexer(&[]);
    let request = site.send(&scan_request(id));
    let (mut from_rsync, _) = silent.accept().unwrap();
    drop(request);
    from_rsync.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut greeting = Vec::new();
    from_rsync.read_to_end(&mut greeting).expect("rsync was not ended");
}

#[test]
fn ending_the_indexer_ends_its_rsync() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let site = Site::new();
    site.write("a", "a", 1);
    site.run_ok(&["scan", "-source"]);
    let id = site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "");
    let mut indexer = site.start_indexer(&["-supervised"]);
    let _request = site.send(&scan_request(id));
    let (mut from_rsync, _) = silent.accept().unwrap();
    drop(indexer.0.stdin.take());
    assert_eq!(wait_for_exit(&mut indexer), 0);
    from_rsync.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    from_rsync.read_to_end(&mut Vec::new()).expect("rsync was not ended");
}

#[test]
fn only_one_runs_for_a_state_directory() {
    let site = Site::new();
    let mut first = site.start_indexer(&[]);
    let output = site.run(&["run"]);
    let (_, stderr) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("another mb-indexer runs"), "{stderr}");
    drop(first.0.stdin.take());
    assert!(matches!(site.request(&Request::Reload), Event::Done { .. }), "it ended though it is not supervised");
}

/// A process that was killed leaves its socket and lock files behind.
#[test]
fn a_new_one_starts_where_another_was_killed() {
    let site = Site::new();
    drop(site.start_indexer(&[]));
    let mut second = site.start_indexer(&["-supervised"]);
    drop(second.0.stdin.take());
    assert_eq!(wait_for_exit(&mut second), 0);
}

/// A daemon that is stopped does not read the log of its indexer: every thread that logged waited for it.
#[test]
fn a_log_that_is_not_read_holds_nothing_up() {
    let site = Site::with_configuration("RepositoryScanInterval: 0");
    site.write("a", "a", 1_700_000_000);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    let child = site.program(&["run"]).stderr(writer).env("RUST_LOG", "trace").spawn().unwrap();
    let mut indexer = Server(child);
    wait_for("the indexer to listen", || {
        std::os::unix::net::UnixStream::connect(mb_core::link::socket_path(&site.state_dir())).ok()
    });
    for force in [false, true] {
        let event = site.request(&Request::ScanSource { rehash: true, force });
        assert!(matches!(event, Event::Done { .. }), "{event:?}");
    }
    terminate(&indexer);
    assert_eq!(wait_for_exit(&mut indexer), 0);
    drop(reader);
}
