//! The indexer dies at any moment, the index on disk is damaged: the redirector goes on serving.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::harness::redirector::{Redirector, indexer_program};
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};
use crate::harness::{PATIENCE, eventually};

/// Kills in one test run; each at another moment.
const KILLS: u32 = 30;

/// Files besides the one that is asked for; enough for a scan and a publish to take some milliseconds.
const FILES: usize = 500;

fn served() -> (Redirector, MirrorSites) {
    let mut redirector = Redirector::new();
    for number in 0..FILES {
        tree::write(&redirector.repository(), &format!("many/{number}"), b"", USUAL_TIME);
    }
    let mirrors = redirector.start_with_one_mirror();
    (redirector, mirrors)
}

/// The indexer that the daemon started.
pub(crate) fn supervised_indexer(redirector: &mut Redirector) -> Pid {
    let daemon = redirector.daemon().pid();
    eventually("the daemon's indexer", || children(daemon).pop().ok_or_else(|| redirector.daemon().output()))
}

/// Waits until the second indexer of a daemon works.
pub(crate) fn wait_for_another_indexer(redirector: &mut Redirector) {
    eventually("another indexer", || {
        let output = redirector.daemon().output();
        if output.matches("the indexer runs as process").count() == 2 { Ok(()) } else { Err(output) }
    });
}

/// Processes whose parent is `parent` and that run the indexer.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        // Ended since, or no process.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((pid, rest)) = stat.split_once(" (mb-indexer) ") else { continue };
        let mut fields = rest.split(' ');
        let (state, its_parent) = (fields.next(), fields.next());
        if state != Some("Z") && its_parent == Some(&parent.as_raw_pid().to_string()) {
            found.extend(pid.parse().ok().and_then(Pid::from_raw));
        }
    }
    found
}

#[test]
fn killed_it_is_started_again() {
    let (mut redirector, mirrors) = served();
    let first = supervised_indexer(&mut redirector);
    rustix::process::kill_process(first, Signal::KILL).expect("the indexer runs");
    assert_eq!(redirector.get("/file.iso", &[]).status, 302);
    redirector.daemon().wait_for_output("killed by signal 9");
    let second = supervised_indexer(&mut redirector);
    assert_ne!(first, second);

    tree::write(&redirector.repository(), "after.iso", b"after", USUAL_TIME);
    tree::write(&mirrors.sites[0].root, "after.iso", b"after", USUAL_TIME);
    redirector.scan_repository();
    redirector.mirrorbits(&["scan", "only"]);
    redirector.wait_until_served("/after.iso");
}

/// Each time another indexer is killed at another moment of a scan. They are not the daemon's own, which pauses longer and
/// longer before it starts one again.
#[test]
fn killed_while_scanning_and_publishing() {
    let (mut redirector, mirrors) = served();
    redirector.stop();
    redirector.start_without_indexer();
    for round in 0..KILLS {
        let mut indexer = redirector.start_indexer();
        // Each scan finds a new file, so each publishes.
        let name = format!("new/{round}.iso");
        tree::write(&redirector.repository(), &name, b"new", USUAL_TIME);
        tree::write(&mirrors.sites[0].root, &name, b"new", USUAL_TIME);
        let mut scan = redirector
            .command(if round % 2 == 0 { &["refresh"] } else { &["scan", "only"] })
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scan");
        // The moment of the kill is this test's input, not a synchronisation.
        std::thread::sleep(Duration::from_millis(u64::from(round) * 2) + Duration::from_micros(fastrand::u64(..2000)));
        indexer.signal(Signal::KILL);
        let answer = redirector.get("/file.iso", &[]);
        assert_eq!(answer.status, 302, "after kill {round}: {answer:?}");
        scan.wait().expect("end of the scan");
        indexer.wait();
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "after kill {round}");
        redirector.daemon().assert_running();
    }

    let _indexer = redirector.start_indexer();
    redirector.scan_repository();
    redirector.mirrorbits(&["scan", "only"]);
    for round in 0..KILLS {
        redirector.wait_until_served(&format!("/new/{round}.iso"));
    }
    assert_eq!(verify(&newest(&redirector, "files-")), Ok(()));
    assert_eq!(verify(&newest(&redirector, "mirrors-")), Ok(()));
}

#[test]
fn killed_with_its_daemon_nothing_stays() {
    let (mut redirector, _mirrors) = served();
    let indexer = supervised_indexer(&mut redirector);
    redirector.daemon().signal(Signal::KILL);
    redirector.daemon().wait();
    eventually("the end of the indexer", || match rustix::process::test_kill_process(indexer) {
        Ok(()) => Err(format!("{indexer:?} still runs {PATIENCE:?} after its daemon was killed")),
        Err(_) => Ok(()),
    });
}

/// The newest index file of a kind, by its generation number.
fn newest(redirector: &Redirector, prefix: &str) -> PathBuf {
    generations(redirector, prefix).pop().expect("a published generation").1
}

/// The generations of a kind with their files, oldest first.
fn generations(redirector: &Redirector, prefix: &str) -> Vec<(u64, PathBuf)> {
    let index = redirector.state_dir().join("index");
    let mut found: Vec<(u64, PathBuf)> = fs::read_dir(&index)
        .expect("index")
        .map(|entry| entry.expect("entry"))
        .filter_map(|entry| {
            let generation = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((generation, entry.path()))
        })
        .collect();
    found.sort();
    found
}

fn verify(file: &Path) -> Result<(), String> {
    let output = Command::new(indexer_program()).arg("verify").arg(file).output().expect("mb-indexer verify");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Replaces an index file by a copy with one bit of its middle turned over. The file itself is never written to, as a
/// daemon may have it mapped.
fn damage(file: &Path) {
    let mut content = fs::read(file).expect("index file");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::remove_file(file).expect("removal");
    fs::write(file, content).expect("damaged index file");
    assert!(verify(file).is_err(), "{} was damaged", file.display());
}

/// Publishes a generation that has `name`, by an indexer of its own.
fn publish_with(redirector: &Redirector, mirrors: &MirrorSites, name: &str) {
    tree::write(&redirector.repository(), name, b"another file", USUAL_TIME);
    tree::write(&mirrors.sites[0].root, name, b"another file", USUAL_TIME);
    for what in ["-source", "-all"] {
        let mut command = Command::new(indexer_program());
        let output = command.arg("-config").arg(redirector.config_file()).args(["scan", what]).output().expect("scan");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn damaged_newest_generation_is_refused_at_start_and_the_previous_one_served() {
    let (mut redirector, mirrors) = served();
    redirector.stop();
    publish_with(&redirector, &mirrors, "second.iso");
    assert!(generations(&redirector, "files-").len() >= 2, "two generations are kept");
    let damaged = newest(&redirector, "files-");
    damage(&damaged);

    redirector.start_without_indexer();
    redirector.wait_until_served("/file.iso");
    redirector.daemon().wait_for_output(&damaged.display().to_string());
    redirector.stop();

    // The next publication replaces it.
    publish_with(&redirector, &mirrors, "third.iso");
    redirector.start_without_indexer();
    for file in ["/file.iso", "/second.iso", "/third.iso"] {
        redirector.wait_until_served(file);
    }
}

/// The mirrors are in the store, too: the daemon publishes their table when it starts.
#[test]
fn damaged_mirror_table_is_replaced_at_start() {
    let (mut redirector, _mirrors) = served();
    redirector.stop();
    damage(&newest(&redirector, "mirrors-"));
    redirector.start_without_indexer();
    redirector.wait_until_served("/file.iso");
}

#[test]
fn damaged_generation_is_refused_while_running() {
    let (mut redirector, mirrors) = served();
    redirector.stop();
    redirector.start_without_indexer();
    // The daemon stands still while the generation is published and damaged, so it sees the damaged one only.
    redirector.daemon().signal(Signal::STOP);
    publish_with(&redirector, &mirrors, "second.iso");
    let damaged = newest(&redirector, "files-");
    damage(&damaged);
    redirector.daemon().signal(Signal::CONT);

    redirector.daemon().wait_for_output(&damaged.display().to_string());
    for _ in 0..100 {
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "the generation in use stays");
    }
    publish_with(&redirector, &mirrors, "third.iso");
    for file in ["/file.iso", "/second.iso", "/third.iso"] {
        redirector.wait_until_served(file);
    }
}

#[test]
fn damaged_pointer_to_the_newest_generation_is_refused() {
    let (mut redirector, mirrors) = served();
    fs::write(redirector.state_dir().join("index/CURRENT"), "mb-index 1\nfiles 1\n").expect("damaged CURRENT");
    redirector.daemon().wait_for_output("CURRENT is damaged");
    assert_eq!(redirector.get("/file.iso", &[]).status, 302, "the generation in use stays");
    publish_with(&redirector, &mirrors, "second.iso");
    redirector.wait_until_served("/second.iso");
}
