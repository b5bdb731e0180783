//! The download log has a line for each answer, across rotations; and no trouble with it reaches an answer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use mb_load::{Kind, Limit, start};
use rustix::process::Signal;

use super::{Scene, finish, requests, right};
use crate::harness::eventually;
use crate::harness::redirector::Redirector;

fn log_dir(redirector: &Redirector) -> PathBuf {
    redirector.folder().join("log")
}

fn scene_with_log() -> Scene {
    Scene::start(|redirector| {
        let folder = log_dir(redirector);
        redirector.set("LogDir", folder.display());
    })
}

/// The lines of a log that are about answers, without those that the test's own set-up left.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.contains(" HEAD "))
}

#[test]
fn rotation_under_load_loses_and_doubles_no_line() {
    let mut scene = scene_with_log();
    let folder = log_dir(&scene.redirector);
    let current = folder.join("downloads.log");
    let mut plan = scene.plan("get=6,json=1,range=1,conditional=1,missing=1", 0);
    plan.limit = Limit::Stopped;
    let running = start(plan).expect("the load");
    for rotation in 0..5 {
        let before = running.answered();
        eventually("requests are answered", || {
            if running.answered() > before + 300 { Ok(()) } else { Err(String::new()) }
        });
        fs::rename(&current, folder.join(format!("downloads.log.{rotation}"))).expect("rotation");
        scene.redirector.daemon().signal(Signal::USR1);
        eventually("a new log", || if current.exists() { Ok(()) } else { Err("none".to_owned()) });
    }
    running.stop();
    let report = finish(running);
    scene.redirector.stop();
    let texts: Vec<String> = fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("a log"))
        .collect();
    assert_eq!(texts.len(), 6);
    assert!(texts.iter().all(|text| text.starts_with("# Log file created at: 20")), "{}", texts[0]);
    let redirects =
        texts.iter().flat_map(|text| lines(text)).filter(|line| line.contains(" REDIRECT 302 GET \"/")).count();
    let documents = texts.iter().flat_map(|text| lines(text)).filter(|line| line.contains(" JSON 200 GET \"/")).count();
    assert_eq!(redirects as u64, right(&report, &[Kind::Get, Kind::Range]));
    assert_eq!(documents as u64, right(&report, &[Kind::Json]));
    let all: usize = texts.iter().map(|text| lines(text).count()).sum();
    assert_eq!(all, redirects + documents, "nothing else is logged, and no line is torn");
}

#[test]
fn a_full_disk_and_a_blocked_pipe_slow_no_answer() {
    let mut scene = scene_with_log();
    scene.redirector.stop();
    let current = log_dir(&scene.redirector).join("downloads.log");
    fs::remove_file(&current).expect("the log");
    symlink("/dev/full", &current).expect("a link");
    scene.redirector.start();
    finish(start(scene.plan("get=1", requests() / 4)).expect("the load"));
    scene.redirector.daemon().wait_for_output("lines of the download log are dropped");
    scene.redirector.stop();

    // A pipe whose reader has stopped.
    fs::remove_file(&current).expect("the link");
    let made = std::process::Command::new("mkfifo").arg(&current).status().expect("mkfifo");
    assert!(made.success());
    let reader = fs::File::options().read(true).write(true).open(&current).expect("a reader");
    scene.redirector.start();
    // Far more than pipe, queue and buffers hold together.
    finish(start(scene.plan("get=1", 80_000)).expect("the load"));
    drop(reader);
    scene.redirector.stop();
}

#[test]
fn a_reload_switches_the_log_on_over_and_off() {
    let mut scene = Scene::start(|_| {});
    let folder = log_dir(&scene.redirector);
    let [first, second] = ["first", "second"].map(|name| folder.join(name));
    let asked = |scene: &Scene| assert_eq!(scene.redirector.get("/pool/file%2001.iso", &[]).status, 302);
    let has_lines = |folder: &PathBuf, count: usize, what: &str| {
        eventually("the lines", || {
            let text = fs::read_to_string(folder.join("downloads.log")).map_err(|error| error.to_string())?;
            let lines = text.lines().filter(|line| line.contains(what)).count();
            if lines == count { Ok(()) } else { Err(text) }
        });
    };
    let reload = |scene: &Scene| {
        let output = scene.redirector.run(&["reload"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    asked(&scene);
    scene.redirector.set("LogDir", first.display()).config_file();
    reload(&scene);
    asked(&scene);
    has_lines(&first, 1, " REDIRECT 302 GET \"/");
    scene.redirector.set("LogDir", second.display()).set("LogFormat", "json").config_file();
    reload(&scene);
    // A shard takes new settings over with its next request, or shortly.
    asked(&scene);
    has_lines(&second, 1, "\"method\":\"GET\"");
    scene.redirector.set("LogDir", "''").config_file();
    reload(&scene);
    asked(&scene);
    scene.redirector.stop();
    has_lines(&first, 1, " REDIRECT 302 GET \"/");
    has_lines(&second, 1, "\"method\":\"GET\"");
}

/// As in a container, whose log collector reads standard output.
#[test]
fn standard_output_can_be_the_log_and_json_its_form() {
    let mut scene = scene_with_log();
    scene.redirector.stop();
    let folder = log_dir(&scene.redirector);
    fs::remove_file(folder.join("downloads.log")).expect("the log");
    symlink("/dev/stdout", folder.join("downloads.log")).expect("a link");
    scene.redirector.set("LogFormat", "json");
    scene.redirector.start();
    assert_eq!(scene.redirector.get("/pool/file%2001.iso", &[]).status, 302);
    scene.redirector.daemon().wait_for_output("\"type\":\"REDIRECT\"");
    let output = scene.redirector.daemon().output();
    let line = output.lines().find(|line| line.contains("\"REDIRECT\"")).expect("the line");
    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((value["path"].as_str(), value["mirror"].as_str()), (Some("/pool/file 01.iso"), Some("whole")));
}
