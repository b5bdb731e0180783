//! Upgrades that fail at each step: clients see nothing, the operator gets the reason, and the next upgrade works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Signal, kill_process};

use super::lineage::{Lineage, assert_nothing_failed, is_running, wait_for_answers};
use crate::harness::eventually;
use crate::harness::metrics::scrape;
use crate::harness::redirector::get;
use crate::indexer_killed::supervised_indexer;

/// What puts something in place, and part of the reason that it must lead to.
type Case<'a> = (&'a dyn Fn(&Lineage), &'a str);

/// A daemon under load, upgraded to something that fails in each of `cases` by what it puts in place. Afterwards it can be upgraded.
fn assert_harmless(cases: &[Case<'_>]) {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let loads = lineage.every_load();
    for (put, expected) in cases {
        wait_for_answers(&loads, 20);
        put(&lineage);
        let reason = lineage.fail_to_upgrade();
        assert!(reason.contains(expected), "`{expected}` is missing in: {reason}");
    }
    lineage.put_program(Path::new(env!("CARGO_BIN_EXE_mirrorbits")));
    lineage.redirector.config_file();
    wait_for_answers(&loads, 20);
    lineage.upgrade();
    wait_for_answers(&loads, 20);
    assert_nothing_failed(loads);
    lineage.settle();
}

/// Puts a program in place that is the shell script `text`.
fn put_script(lineage: &Lineage, text: &str, mode: u32) {
    lineage.remove_program();
    fs::write(lineage.program(), format!("#!/bin/sh\n{text}\n")).expect("script");
    fs::set_permissions(lineage.program(), fs::Permissions::from_mode(mode)).expect("mode");
}

/// Puts a program in place that speaks the protocol as `words` say.
fn put_stand_in(lineage: &Lineage, words: &str) {
    let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/upgrade/stand_in.py");
    lineage.remove_program();
    fs::copy(stand_in, lineage.program()).expect("stand-in");
    fs::write(lineage.program().with_file_name("script"), words).expect("its script");
}

#[test]
fn a_program_that_cannot_be_started_or_ends_at_once() {
    assert_harmless(&[
        (&Lineage::remove_program, "cannot be started"),
        (&|lineage| put_script(lineage, "exit 0", 0o644), "cannot be started"),
        (&|lineage| put_script(lineage, "exit 3", 0o755), "exit status: 3"),
        (&|lineage| put_script(lineage, "kill -SEGV $$", 0o755), "signal: 11"),
    ]);
}

#[test]
fn a_program_that_refuses_the_configuration() {
    assert_harmless(&[(
        &|lineage| {
            let config = lineage.redirector.config_file();
            let text = fs::read_to_string(&config).expect("configuration");
            fs::write(&config, text.replace("Shards: 2", "Shards: many")).expect("configuration");
        },
        "Shards: many",
    )]);
}

#[test]
fn a_program_that_fails_before_it_is_ready() {
    assert_harmless(&[
        (&|lineage| put_stand_in(lineage, "connect die"), "exit status: 9"),
        (&|lineage| put_stand_in(lineage, "connect noise hang"), "not understood"),
        (&|lineage| put_stand_in(lineage, "connect hello-2 hang"), "versions [2]"),
        (&|lineage| put_stand_in(lineage, "connect hello listeners die"), "exit status: 9"),
        (&|lineage| put_stand_in(lineage, "connect hello listeners failed hang"), "no more shelves"),
        (&|lineage| put_stand_in(lineage, "connect hello serving hang"), "do not fit"),
        (&|lineage| put_stand_in(lineage, "connect ready hang"), "do not fit"),
    ]);
}

#[test]
fn a_program_that_fails_after_it_was_ready() {
    assert_harmless(&[
        (&|lineage| put_stand_in(lineage, "connect hello listeners ready die"), "exit status: 9"),
        (&|lineage| put_stand_in(lineage, "connect hello listeners ready go die"), "exit status: 9"),
        (&|lineage| put_stand_in(lineage, "connect hello listeners ready go failed hang"), "no more shelves"),
        (&|lineage| put_stand_in(lineage, "connect hello listeners ready go noise hang"), "not understood"),
    ]);
}

/// Takes 30 seconds, which is what the command promises.
#[test]
fn a_program_that_hangs() {
    assert_harmless(&[(&|lineage| put_stand_in(lineage, "connect hello listeners hang"), "not ready within 30 s")]);
}

#[test]
fn a_new_process_that_dies_while_the_old_one_still_has_connections_is_replaced_by_it() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let mut idle = lineage.idle_client();
    let old = lineage.pid();
    let new = lineage.upgrade();
    kill_process(new, Signal::KILL).expect("signal");
    eventually("the old process in the PID file", || {
        if lineage.pid() == old { Ok(()) } else { Err("another".to_owned()) }
    });
    let loads = lineage.every_load();
    wait_for_answers(&loads, 20);
    idle.send(get("/file.iso", &[]).as_bytes()).expect("request");
    assert_eq!(idle.receive().expect("answer").header("Connection"), None, "it stays");
    drop(idle);
    lineage.upgrade();
    wait_for_answers(&loads, 20);
    assert_nothing_failed(loads);
    lineage.settle();
}

#[test]
fn an_old_process_that_dies_leaves_everything_to_the_new_one() {
    let mut lineage = Lineage::new(2);
    lineage.start_with_a_file();
    let _idle = lineage.idle_client();
    let old = lineage.pid();
    lineage.upgrade();
    let loads = lineage.every_load();
    wait_for_answers(&loads, 20);
    kill_process(old, Signal::KILL).expect("signal");
    assert!(!lineage.redirector.daemon().wait().success());
    lineage.redirector.daemon().wait_for_output("everything is this one's");
    wait_for_answers(&loads, 20);
    assert_nothing_failed(loads);
    lineage.redirector.scan_repository();
    lineage.settle();
}

#[test]
fn a_program_that_waits_for_a_dead_one_ends() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let old = lineage.pid();
    // The real program, stopped before it can say that it is ready.
    let marker = lineage.redirector.folder().join("started");
    let script = format!("touch {}\nkill -STOP $$\nexec {} \"$@\"", marker.display(), env!("CARGO_BIN_EXE_mirrorbits"));
    put_script(&lineage, &format!("echo $$ > {}.pid\n{script}", marker.display()), 0o755);
    let mut command = lineage.redirector.command(&["upgrade"]);
    let mut upgrade = crate::harness::program::Program::start("upgrade", &mut command, lineage.redirector.folder());
    eventually("the new program", || fs::metadata(&marker).map_err(|error| error.to_string()));
    let text = fs::read_to_string(format!("{}.pid", marker.display())).expect("process id");
    let new = rustix::process::Pid::from_raw(text.trim().parse().expect("process id")).expect("process id");
    kill_process(old, Signal::KILL).expect("signal");
    lineage.redirector.daemon().wait();
    kill_process(new, Signal::CONT).expect("signal");
    assert_eq!(upgrade.wait().code(), Some(1), "{}", upgrade.output());
    eventually("the end of the new program", || if is_running(new) { Err(String::new()) } else { Ok(()) });
}

#[test]
fn a_stop_during_an_upgrade_ends_both() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    put_stand_in(&lineage, "connect hello listeners hang");
    let mut command = lineage.redirector.command(&["upgrade"]);
    let mut upgrade = crate::harness::program::Program::start("upgrade", &mut command, lineage.redirector.folder());
    lineage.redirector.daemon().wait_for_output("the new program is release stand-in");
    lineage.redirector.stop();
    assert_eq!(upgrade.wait().code(), Some(1), "{}", upgrade.output());
    lineage.wait_for_the_end();
}

#[test]
fn a_stop_while_the_old_process_has_connections_ends_both() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let _idle = lineage.idle_client();
    let new = lineage.upgrade();
    kill_process(new, Signal::TERM).expect("signal");
    assert!(lineage.redirector.daemon().wait().success(), "the old process has let go of everything");
    lineage.wait_for_the_end();
}

/// The task that hands over ended without a word, while no acceptor accepted: nobody was answered any more, and the new process
/// waited for its word.
#[test]
fn a_hand_over_that_panics_is_taken_back() {
    let mut lineage = Lineage::new(2);
    let faults = lineage.redirector.folder().join("faults");
    fs::create_dir(&faults).expect("folder");
    fs::write(lineage.redirector.repository().join("file.iso"), "content").expect("file");
    lineage.redirector.with_metrics();
    let mut command = lineage.command();
    lineage.start_by(command.env(mb_core::fault::FOLDER_VARIABLE, &faults));
    lineage.redirector.scan_repository();
    lineage.redirector.wait_until_served("/file.iso");
    let loads = lineage.every_load();
    wait_for_answers(&loads, 20);
    fs::write(faults.join("upgrade"), "").expect("fault");
    let reason = lineage.fail_to_upgrade();
    assert!(reason.contains("a defect of this program"), "{reason}");
    let page = scrape(&lineage.redirector);
    assert_eq!(page.value("mirrorbits_thread_panics_total{thread=\"main\"}"), Some(1.0), "{}", page.text);
    wait_for_answers(&loads, 20);
    lineage.upgrade();
    wait_for_answers(&loads, 20);
    assert_nothing_failed(loads);
    lineage.settle();
}

/// The new process had no index where the old one answered from its copy in memory: requests got 503
/// until the indexer published again.
#[test]
fn a_new_process_without_the_index_that_the_old_one_has() {
    let mut lineage = Lineage::new(1);
    lineage.start_with_a_file();
    let indexer = supervised_indexer(&mut lineage.redirector);
    // It would publish again at once.
    kill_process(indexer, Signal::STOP).expect("the indexer runs");
    let loads = lineage.every_load();
    let folder = lineage.redirector.state_dir().join("index");
    for entry in fs::read_dir(&folder).expect("index folder") {
        let path = entry.expect("entry").path();
        if path.to_string_lossy().contains("files-") {
            fs::File::options().write(true).open(&path).and_then(|file| file.set_len(10)).expect("truncated");
        }
    }
    let reason = lineage.fail_to_upgrade();
    assert!(reason.contains("mirrorbits refresh"), "{reason}");
    wait_for_answers(&loads, 20);
    kill_process(indexer, Signal::CONT).expect("the indexer runs");
    let old = lineage.pid();
    eventually("an upgrade succeeds", || {
        let output = lineage.redirector.run(&["upgrade"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    lineage.note_successor(old);
    wait_for_answers(&loads, 20);
    assert_nothing_failed(loads);
    lineage.settle();
}
