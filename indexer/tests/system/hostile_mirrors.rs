//! Mirrors that list without end, drip, never answer, or make a job panic: each costs itself and no other.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mb_core::link::{Event, Request};
use mb_core::mirror::MirrorSettings;
use mb_core::store::{LogEvent, Store, SyncRecord};
use mb_core::time::Timestamp;

use crate::harness::{Server, Site, texts, wait_for};

/// A folder with a program `rsync` that is this shell script.
fn fake_rsync(site: &Site, script: &str) -> PathBuf {
    let folder = site.state_dir().join("fake");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("rsync");
    fs::write(&program, format!("#!/bin/sh\necho $$ > {}/pid\n{script}\n", folder.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn before(command: &mut Command, folder: &Path) {
    command.env("PATH", format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()));
}

fn scanned_site(configuration: &str) -> Site {
    let site = Site::with_configuration(configuration);
    site.write("a", "a", 1_700_000_000);
    site.run_ok(&["scan", "-source"]);
    site
}

/// Scans the mirror `m` by the script; returns what the program said, having made sure that it failed.
fn failing_scan(site: &Site, script: &str) -> String {
    let folder = fake_rsync(site, script);
    let mut scan = site.program(&["scan", "m"]);
    before(&mut scan, &folder);
    let output = scan.output().unwrap();
    let (stdout, stderr) = texts(&output);
    assert!(!output.status.success(), "{stdout}{stderr}");
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    wait_for("the fake rsync to end", || ended(pid.trim()).then_some(()));
    stderr
}

/// Whether a process is gone, or only waits for its parent to take notice.
fn ended(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.is_empty() || status.contains(") Z ")
}

const LINE: &str = "-rw-r--r-- 1 2026/11/22 11:30:31";

/// One line for ever took 5.6 GB in 20 s.
#[test]
fn a_listing_without_end_fails_at_its_limits_and_ends_its_program() {
    for (limit, script, key) in [
        ("Files: 1000", format!("exec yes -- '{LINE} a'"), "`Files` of ScanLimits"),
        ("Bytes: 100000", format!("exec yes -- '{LINE} a'"), "`Bytes` of ScanLimits"),
        ("Bytes: 100000", "exec yes message >&2".to_owned(), "`Bytes` of ScanLimits"),
        ("RejectedLines: 5", "exec yes".to_owned(), "`RejectedLines` of ScanLimits"),
        ("Bytes: 1000000", "exec tr '\\0' x < /dev/zero".to_owned(), "`Bytes` of ScanLimits"),
    ] {
        let site = scanned_site(&format!("ScanLimits: {{{limit}}}"));
        let id = site.add_mirror("m", "rsync://127.0.0.1:1/m/", "");
        let said = failing_scan(&site, &script);
        assert!(said.contains(key), "{script}: {said}");
        let log = site.store().mirror_log(id, 10).unwrap();
        assert!(matches!(&log.last().unwrap().event, LogEvent::Error(text) if text.contains(key)), "{log:?}");
    }
}

/// A line each half second held a place of ConcurrentSync for ever; a program that ignores SIGTERM, or is stopped, lived on.
#[test]
fn a_listing_that_drips_ends_in_time_and_so_does_its_program() {
    for script in [
        format!("while :; do echo '{LINE} a'; sleep 0.1; done"),
        format!("trap '' TERM; while :; do echo '{LINE} a'; sleep 0.1; done"),
        "kill -STOP $$".to_owned(),
    ] {
        let site = scanned_site("ScanLimits: {Seconds: 1}");
        site.add_mirror("m", "rsync://127.0.0.1:1/m/", "");
        let said = failing_scan(&site, &script);
        assert!(said.contains("took longer than 1 s") && said.contains("`Seconds` of ScanLimits"), "{said}");
    }
}

/// Such a program never writes, so that it did not notice the end of its pipe either.
#[test]
fn rsync_ends_with_an_indexer_that_is_killed() {
    let site = scanned_site("");
    site.add_mirror("m", "rsync://127.0.0.1:1/m/", "");
    let folder = fake_rsync(&site, "exec sleep 300");
    let mut command = site.program(&["scan", "m"]);
    before(&mut command, &folder);
    let mut scan = command.spawn().unwrap();
    let pid = wait_for("the fake rsync", || {
        let text = fs::read_to_string(folder.join("pid")).ok()?;
        text.ends_with('\n').then_some(text)
    });
    scan.kill().unwrap();
    scan.wait().unwrap();
    wait_for("the fake rsync to end", || ended(pid.trim()).then_some(()));
}

#[test]
fn a_listing_within_its_limits_is_used() {
    let site = scanned_site("ScanLimits: {Files: 2, Bytes: 1000, RejectedLines: 1, Seconds: 60}");
    site.add_mirror("m", "rsync://127.0.0.1:1/m/", "");
    let folder = fake_rsync(&site, &format!("echo '{LINE} a'; echo '{LINE} b'; echo odd"));
    let mut scan = site.program(&["scan", "m"]);
    before(&mut scan, &folder);
    let (stdout, stderr) = texts(&scan.output().unwrap());
    assert!(stdout.contains("2 files indexed, 1 known"), "{stdout}{stderr}");
}

/// rsync's messages set the title of the operator's terminal.
#[test]
fn what_rsync_says_is_escaped_in_messages_and_in_the_log() {
    let site = scanned_site("");
    let id = site.add_mirror("m", "rsync://127.0.0.1:1/m/", "");
    let said = failing_scan(&site, "printf '\\033]0;title\\007\\342\\200\\256\\377\\n' >&2; exit 5");
    let shown = "\\x1b]0;title\\x07\\u{202e}\\xff";
    assert!(said.contains(shown) && !said.contains('\x1b'), "{said}");
    let log = site.store().mirror_log(id, 10).unwrap();
    assert!(matches!(&log.last().unwrap().event, LogEvent::Error(text) if text.contains(shown)), "{log:?}");
}

/// The whole of the URL was in messages and on rsync's command line.
#[test]
fn a_password_is_in_no_message_log_or_command_line() {
    let site = scanned_site("");
    let bad = site.add_mirror("m", "rsync://anna:open/sesame@127.0.0.1:1/m/", "");
    let (_, said) = texts(&site.run(&["scan", "m"]));
    assert!(said.contains("%2F") && !said.contains("sesame") && !said.contains("open"), "{said}");
    let log = format!("{:?}", site.store().mirror_log(bad, 10).unwrap());
    assert!(!log.contains("sesame"), "{log}");
    site.store().remove_mirror(bad).unwrap();

    site.add_mirror("m", "rsync://anna:open%2Fsesame@127.0.0.1:1/m/", "");
    let arguments = site.state_dir().join("arguments");
    let script = format!("echo \"$* $RSYNC_PASSWORD\" > {}; exit 5", arguments.display());
    let said = failing_scan(&site, &script);
    assert!(said.contains("anna@127.0.0.1") && !said.contains("sesame"), "{said}");
    let given = fs::read_to_string(arguments).unwrap();
    assert!(given.trim().ends_with("rsync://anna@127.0.0.1:1/m/ open/sesame"), "{given}");
}

fn start_with_panic(site: &Site, place: &str) -> Server {
    let faults = site.state_dir().join("faults");
    fs::create_dir_all(&faults).unwrap();
    fs::write(faults.join(place), "").unwrap();
    let child = site.program(&["run"]).env(mb_core::fault::FOLDER_VARIABLE, faults).spawn().unwrap();
    let server = Server(child);
    wait_for("the indexer to listen", || {
        std::os::unix::net::UnixStream::connect(mb_core::link::socket_path(&site.state_dir())).ok()
    });
    server
}

fn panics(site: &Site) -> u64 {
    match site.request(&Request::Activity) {
        Event::Activity(activity) => activity.job_panics,
        other => panic!("{other:?}"),
    }
}

/// A scan that panicked left its mirror "being scanned" until the indexer was started anew.
#[test]
fn a_scan_that_panics_fails_and_the_next_one_works() {
    let site = scanned_site("");
    site.copy_to_mirror("m");
    let (_rsync, port) = site.start_rsync();
    let id = site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "");
    let _indexer = start_with_panic(&site, "mirror-scan");
    let scan = Request::ScanMirror { id, enable: true, protocol: None };
    let Event::Failed { message } = site.request(&scan) else { panic!("it did not fail") };
    assert!(message.contains("asked for at mirror-scan"), "{message}");
    let log = site.store().mirror_log(id, 10).unwrap();
    assert!(matches!(&log.last().unwrap().event, LogEvent::Error(text) if text.contains("asked for")), "{log:?}");
    assert_eq!(panics(&site), 1);
    assert!(matches!(site.request(&scan), Event::Done { .. }));
}

#[test]
fn a_source_scan_that_panics_fails_and_the_next_one_works() {
    let site = Site::with_configuration("RepositoryScanInterval: 0");
    site.write("a", "a", 1);
    let _indexer = start_with_panic(&site, "source-scan");
    let scan = Request::ScanSource { rehash: false, force: false };
    assert!(matches!(site.request(&scan), Event::Failed { message } if message.contains("asked for")));
    assert!(matches!(site.request(&scan), Event::Done { .. }));
    assert_eq!(panics(&site), 1);
}

/// A check that panicked was never begun again: its mirror kept the state it had.
#[test]
fn a_check_that_panics_is_told_in_the_log_of_its_mirror_and_the_next_one_works() {
    let site = scanned_site("");
    site.copy_to_mirror("m");
    let (_rsync, rsync_port) = site.start_rsync();
    let (_http, http_port) = site.start_http();
    let id = site.add_mirror("m", &format!("rsync://127.0.0.1:{rsync_port}/m/"), "");
    site.run_ok(&["scan", "-enable", "m"]);
    let settings = MirrorSettings { http_url: format!("http://127.0.0.1:{http_port}/m/"), ..site.mirror(id).settings };
    site.store().update_settings(id, &settings).unwrap();
    let _indexer = start_with_panic(&site, "health-check");
    wait_for("the panic to be counted", || (panics(&site) == 1).then_some(()));
    wait_for("the log to tell of it", || {
        let log = site.store().mirror_log(id, 10).unwrap();
        log.iter()
            .any(|entry| matches!(&entry.event, LogEvent::Error(text) if text.contains("asked for")))
            .then_some(())
    });
    assert!(!site.mirror(id).state.http.up);
    wait_for("the next check", || {
        assert!(matches!(site.request(&Request::MirrorsChanged { ids: vec![id] }), Event::Done { .. }));
        site.mirror(id).state.http.up.then_some(())
    });
}

/// Mirrors that drip for the first time held all places of ConcurrentSync until the time of their
/// scans was over.
#[test]
fn mirrors_that_drip_for_the_first_time_give_their_places_to_others() {
    // A slow listing is looked at for a 20th of the time, five seconds.
    const LIMIT: u64 = 100;
    let site = scanned_site(&format!("ConcurrentSync: 3\nScanLimits: {{Seconds: {LIMIT}}}"));
    site.copy_to_mirror("m");
    let (_rsync, port) = site.start_rsync();
    let dripping: Vec<_> =
        (0..3).map(|number| site.add_mirror(&format!("drips{number}"), "rsync://127.0.0.1:1/m/", "")).collect();
    let good: Vec<_> = (0..3)
        .map(|number| site.add_mirror(&format!("good{number}"), &format!("rsync://127.0.0.1:{port}/m/"), ""))
        .collect();
    let enable = |id| assert!(site.store().set_enabled(id, true, Timestamp::now()).unwrap());
    dripping.iter().copied().for_each(enable);
    let path = std::env::var("PATH").unwrap();
    let script = format!(
        "case \"$*\" in *127.0.0.1:1/*) while :; do echo '{LINE} a'; sleep 0.5; done;; esac\nPATH='{path}' exec rsync \"$@\""
    );
    let folder = fake_rsync(&site, &script);
    let mut program = site.program(&["run"]);
    before(&mut program, &folder);
    let _indexer = Server(program.spawn().unwrap());
    for id in &dripping {
        wait_for("the scan of a mirror that drips", || (!site.mirror(*id).state.last_sync.is_never()).then_some(()));
    }
    let begun = Instant::now();
    good.iter().copied().for_each(enable);
    assert!(matches!(site.request(&Request::MirrorsChanged { ids: good.clone() }), Event::Done { .. }));
    for id in good {
        wait_for("the scan of a good mirror", || {
            (!site.mirror(id).state.last_successful_sync.is_never()).then_some(())
        });
    }
    assert!(begun.elapsed() < Duration::from_secs(LIMIT / 2), "{:?}", begun.elapsed());
    for id in dripping {
        for entry in site.store().mirror_log(id, 10).unwrap() {
            let LogEvent::Error(text) = entry.event else { continue };
            assert!(text.contains("fewer than 4 entries a second while other mirrors wait"), "{text}");
        }
    }
}

/// A hundred mirrors that accept and never answer; the healthy ones are checked all the same, within the first round, which
/// takes five seconds, and later while the checks of all hundred are under way.
#[test]
fn silent_mirrors_do_not_delay_the_checks_of_others() {
    let site = scanned_site("");
    site.copy_to_mirror("m");
    let (_rsync, rsync_port) = site.start_rsync();
    let (_http, http_port) = site.start_http();
    let (silent_port, accepted) = accept_and_never_answer();
    let rsync = format!("rsync://127.0.0.1:{rsync_port}/m/");
    // Without an HTTP URL the first one is scanned and not checked, and the others get a copy of its result, so that the
    // scheduler has nothing but checks to do.
    let add = |name: &str, port: u16, folder: &str| {
        let id = site.add_mirror(name, &rsync, "");
        (id, format!("http://127.0.0.1:{port}/{folder}"))
    };
    let mut mirrors: Vec<_> = (0..100).map(|number| add(&format!("silent{number}"), silent_port, "")).collect();
    let first_good = mirrors.len();
    mirrors.extend((0..3).map(|number| add(&format!("good{number}"), http_port, "m/")));
    site.run_ok(&["scan", "good0"]);
    let store = site.store();
    let (scanned, _) = mirrors[first_good];
    let state = site.mirror(scanned).state;
    let results = rusqlite::Connection::open(site.state_dir().join("scans.sqlite")).unwrap();
    for (id, http_url) in &mirrors {
        if *id != scanned {
            results
                .execute(
                    "INSERT INTO scans SELECT ?1, started, protocol, precision_ns, timezone_offset_ms, files, blocks, NULL
                     FROM scans WHERE mirror = ?2",
                    [id.0, scanned.0],
                )
                .unwrap();
            results.execute("UPDATE blocks SET uses = uses + 1", []).unwrap();
            let sync = SyncRecord {
                started: state.last_successful_sync,
                protocol: state.last_successful_sync_protocol,
                precision_ns: state.last_successful_sync_precision_ns,
                timezone_offset_ms: 0,
                last_mod_time: None,
            };
            store.record_sync_attempt(*id, sync.started).unwrap();
            store.record_sync(*id, &sync).unwrap();
        }
        let settings = MirrorSettings { http_url: http_url.clone(), ..site.mirror(*id).settings };
        store.update_settings(*id, &settings).unwrap();
        store.set_enabled(*id, true, Timestamp::now()).unwrap();
    }
    site.run_ok(&["build"]);
    let started = Instant::now();
    let _indexer = site.start_indexer(&[]);
    for (id, _) in &mirrors[first_good..] {
        wait_for("a healthy mirror to be up", || site.mirror(*id).state.http.up.then_some(()));
    }
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());

    // An answer is waited for longer than this test takes, so from here on all hundred wait.
    wait_for("a check of each silent mirror", || (accepted.load(Ordering::Relaxed) >= 100).then_some(()));
    let ids: Vec<_> = mirrors.iter().map(|(id, _)| *id).collect();
    let file = site.mirror_dir("m").join("a");
    let aside = site.state_dir().join("a");
    for (from, to, up) in [(&file, &aside, false), (&aside, &file, true)] {
        fs::rename(from, to).unwrap();
        let began = Instant::now();
        for (id, _) in &mirrors[first_good..] {
            wait_for("another check of a healthy mirror", || {
                assert!(matches!(site.request(&Request::MirrorsChanged { ids: ids.clone() }), Event::Done { .. }));
                (site.mirror(*id).state.http.up == up).then_some(())
            });
        }
        assert!(began.elapsed() < Duration::from_secs(10), "up {up}: {:?}", began.elapsed());
    }
    let log = site.store().mirror_log(mirrors[0].0, 10).unwrap();
    let is_answered = |event: &LogEvent| matches!(event, LogEvent::StateChanged { up: true, .. });
    assert!(!log.iter().any(|entry| is_answered(&entry.event)), "{log:?}");
}

/// A server that accepts and never answers: its port, and how many connections it has accepted.
fn accept_and_never_answer() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    // It ends with the test's process.
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream.unwrap());
            counter.store(held.len(), Ordering::Relaxed);
        }
    });
    (port, accepted)
}
