//! The indexer dies at any moment, the index on disk is damaged: the redirector goes on serving.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::harness::host::Place;
use crate::harness::redirector::{Redirector, indexer_program};
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};
use crate::harness::{PATIENCE, eventually};

/// Kills in one test run; each at another moment.
const KILLS: u32 = 25;

/// Files besides the one that is asked for; enough for a scan and a publish to take some milliseconds.
const FILES: usize = 500;

fn served() -> (Redirector, MirrorSites) {
    let mut redirector = Redirector::new();
    let repository = redirector.repository();
    tree::write(&repository, "file.iso", b"content", USUAL_TIME);
    for number in 0..FILES {
        tree::write(&repository, &format!("many/{number}"), b"", USUAL_TIME);
    }
    let mirrors = MirrorSites::start(redirector.folder(), &[("only", Place::Paris)]);
    tree::copy(&repository, &mirrors.sites[0].root);
    redirector.start();
    redirector.scan_repository();
    redirector.use_mirror(&mirrors.sites[0]);
    wait_until_served(&redirector, "/file.iso");
    (redirector, mirrors)
}

fn wait_until_served(redirector: &Redirector, target: &str) {
    eventually(&format!("{target} is served"), || {
        let answer = redirector.get(target, &[]);
        if answer.status == 302 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

/// The indexer that the daemon started.
fn supervised_indexer(redirector: &mut Redirector) -> Pid {
    let daemon = redirector.daemon().pid();
    eventually("the daemon's indexer", || children(daemon).pop().ok_or_else(|| redirector.daemon().output()))
}

/// Processes whose parent is `parent` and that run the indexer.
fn children(parent: Pid) -> Vec<Pid> {
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
fn killed_while_scanning_and_publishing() {
    let (mut redirector, mirrors) = served();
    let mut changes = 0;
    for round in 0..KILLS {
        let indexer = supervised_indexer(&mut redirector);
        // Each scan finds new files, so each publishes.
        changes += 1;
        let name = format!("new/{changes}.iso");
        tree::write(&redirector.repository(), &name, b"new", USUAL_TIME);
        tree::write(&mirrors.sites[0].root, &name, b"new", USUAL_TIME);
        let rpc = redirector.rpc_address();
        let mut scan = Command::new(env!("CARGO_BIN_EXE_mirrorbits"))
            .args(["-h", &rpc.ip().to_string(), "-p", &rpc.port().to_string()])
            .args(if round % 2 == 0 { &["refresh"][..] } else { &["scan", "only"] })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scan");
        // The moment of the kill is the input of this test, not a synchronisation.
        std::thread::sleep(Duration::from_millis(u64::from(round) * 4) + Duration::from_micros(fastrand::u64(..4000)));
        rustix::process::kill_process(indexer, Signal::KILL).expect("the indexer runs until it is killed");
        let answer = redirector.get("/file.iso", &[]);
        assert_eq!(answer.status, 302, "after kill {round}: {answer:?}");
        scan.wait().expect("end of the scan");
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "after kill {round}");
        redirector.daemon().assert_running();
    }

    // The daemon started it again each time; what it finds is published.
    let last = format!("/new/{changes}.iso");
    eventually("a scan after the last kill", || {
        let refreshed = redirector.run(&["refresh"]);
        let scanned = redirector.run(&["scan", "only"]);
        if refreshed.status.success() && scanned.status.success() {
            Ok(())
        } else {
            Err(format!("{refreshed:?}\n{scanned:?}"))
        }
    });
    wait_until_served(&redirector, &last);
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

/// Replaces an index file by a copy with one bit of its middle turned over. The file itself is never written to, as the
/// daemon has it mapped.
fn damage(file: &Path) {
    let mut content = fs::read(file).expect("index file");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::remove_file(file).expect("removal");
    fs::write(file, content).expect("damaged index file");
    assert!(verify(file).is_err(), "{} was damaged", file.display());
}

#[test]
fn damaged_newest_generation_is_refused_at_start_and_the_previous_one_served() {
    for prefix in ["files-", "mirrors-"] {
        let (mut redirector, mirrors) = served();
        // A second generation of both kinds that has one file more.
        tree::write(&redirector.repository(), "second.iso", b"second", USUAL_TIME);
        tree::write(&mirrors.sites[0].root, "second.iso", b"second", USUAL_TIME);
        redirector.scan_repository();
        redirector.mirrorbits(&["scan", "only"]);
        wait_until_served(&redirector, "/second.iso");
        redirector.stop();
        assert!(generations(&redirector, prefix).len() >= 2, "two generations are kept");
        let damaged = newest(&redirector, prefix);
        damage(&damaged);

        redirector.start_without_indexer();
        wait_until_served(&redirector, "/file.iso");
        let name = damaged.file_name().and_then(|n| n.to_str()).expect("name").to_owned();
        redirector.daemon().wait_for_output(&name);
    }
}

#[test]
fn damaged_generation_is_refused_while_running() {
    let (mut redirector, _mirrors) = served();
    let index = redirector.state_dir().join("index");
    let (generation, file) = generations(&redirector, "files-").pop().expect("a published generation");

    // As a broken publisher would: a damaged file of the next generation, then CURRENT that names it.
    let next = index.join(format!("files-{}", generation + 1));
    let mut content = fs::read(&file).expect("index file");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&next, content).expect("damaged generation");
    let current = fs::read_to_string(index.join("CURRENT")).expect("CURRENT");
    let renamed = current.replace(&format!("files-{generation}"), &format!("files-{}", generation + 1));
    let renamed = if renamed == current {
        current.replacen(&generation.to_string(), &(generation + 1).to_string(), 1)
    } else {
        renamed
    };
    assert_ne!(renamed, current, "CURRENT names the generation of the files");
    fs::write(index.join("CURRENT.new"), renamed).expect("new CURRENT");
    fs::rename(index.join("CURRENT.new"), index.join("CURRENT")).expect("rename");

    redirector.daemon().wait_for_output(&format!("files-{}", generation + 1));
    for _ in 0..100 {
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "the generation in use stays");
    }
    redirector.daemon().assert_running();
}
