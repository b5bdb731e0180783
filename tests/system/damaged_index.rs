//! Index files truncated under the programs that use them, and indexes of which nothing is usable.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::harness::redirector::Redirector;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// Starts on an index of which nothing is usable, by kind of damage.
const STARTS: usize = 2;

/// A daemon that serves, with two generations of both kinds.
fn served() -> (Redirector, MirrorSites) {
    let mut redirector = Redirector::new();
    let mirrors = redirector.start_with_one_mirror();
    redirector.mirrorbits(&["scan", "only"]);
    (redirector, mirrors)
}

/// The files of an index folder whose names start like this.
fn index_files(redirector: &Redirector, prefix: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(redirector.state_dir().join("index")).expect("index folder");
    let paths = folder.map(|entry| entry.expect("entry").path());
    paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))).collect()
}

/// Truncates a file in place to a part of its length.
fn truncate(path: &Path, part: impl Fn(u64) -> u64) {
    let file = File::options().write(true).open(path).expect("index file");
    let length = file.metadata().expect("length").len();
    file.set_len(part(length)).expect("truncated index file");
}

fn truncate_all(redirector: &Redirector, prefix: &str, part: impl Fn(u64) -> u64) {
    let files = index_files(redirector, prefix);
    assert!(!files.is_empty(), "no {prefix}");
    files.iter().for_each(|path| truncate(path, &part));
}

/// `: > files-7`, or a restore from a backup, ended the daemon by SIGBUS at the next request: it had the file mapped.
#[test]
fn files_truncated_under_a_running_daemon_change_nothing() {
    let (mut redirector, mirrors) = served();
    let shrinks: [fn(u64) -> u64; 2] = [|length| length / 2, |_| 0];
    for (round, shrink) in shrinks.into_iter().enumerate() {
        truncate_all(&redirector, "files-", shrink);
        truncate_all(&redirector, "mirrors-", shrink);
        for target in ["/file.iso", "/file.iso?mirrorlist", "/file.iso?sha256", "/nothing", "/?mirrorstats"] {
            let status = redirector.get(target, &[]).status;
            assert!([200, 302, 404].contains(&status), "{target}: {status}");
        }
        assert_eq!(redirector.get("/file.iso", &[]).status, 302);

        // The indexer had them open, too, and what it publishes next is used.
        let name = format!("new-{round}.iso");
        tree::write(&redirector.repository(), &name, b"new", USUAL_TIME);
        tree::write(&mirrors.sites[0].root, &name, b"new", USUAL_TIME);
        redirector.scan_repository();
        redirector.mirrorbits(&["scan", "only"]);
        redirector.wait_until_served(&format!("/{name}"));
        assert_eq!(redirector.get("/file.iso", &[]).status, 302);
        redirector.daemon().assert_running();
    }
    redirector.stop();
}

/// What is damaged, and how.
type Damage = (&'static str, fn(&Redirector));

/// With both generations damaged the daemon had no index until the next source scan, though all that an index is built from
/// was stored. No source scan runs here.
#[test]
fn an_index_of_which_nothing_is_usable_is_published_anew_at_start() {
    let (mut redirector, _mirrors) = served();
    let damages: [Damage; 5] = [
        ("CURRENT", |redirector| {
            fs::write(redirector.state_dir().join("index/CURRENT"), "mb-index 1\n").expect("damaged CURRENT");
        }),
        ("files", |redirector| truncate_all(redirector, "files-", |length| length / 2)),
        ("mirrors", |redirector| truncate_all(redirector, "mirrors-", |_| 0)),
        ("everything", |redirector| {
            truncate_all(redirector, "files-", |_| 0);
            truncate_all(redirector, "mirrors-", |length| length.saturating_sub(1));
            truncate_all(redirector, "CURRENT", |_| 0);
        }),
        ("folder", |redirector| {
            fs::remove_dir_all(redirector.state_dir().join("index")).expect("removed index folder");
        }),
    ];
    for start in 0..STARTS {
        for (what, damage) in damages {
            redirector.stop();
            damage(&redirector);
            redirector.start();
            redirector.wait_until_served("/file.iso");
            assert_eq!(redirector.get("/file.iso", &[]).status, 302, "start {start} after damage of {what}");
        }
    }
    redirector.stop();
}
