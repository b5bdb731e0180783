//! Index files truncated under the programs that use them, indexes of which nothing is usable, and index folders deleted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mb_core::store::FileHashes;
use mb_core::time::FileTime;

use crate::harness::eventually;
use crate::harness::redirector::Redirector;
use crate::harness::servers::MirrorSites;
use crate::harness::tree::{self, USUAL_TIME};

/// Starts on an index of which nothing is usable, by kind of damage: 25 in all.
const STARTS: usize = 5;

/// How long such a start may take to serve on a busy machine. It takes half a second on an idle one.
const SOON: Duration = Duration::from_secs(20);

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
            let began = Instant::now();
            redirector.start();
            redirector.wait_until_served("/file.iso");
            assert!(began.elapsed() < SOON, "start {start} after damage of {what} took {:?}", began.elapsed());
            assert_eq!(redirector.get("/file.iso", &[]).status, 302, "start {start} after damage of {what}");
        }
    }
    redirector.stop();
}

/// Waits until an index is published of which everything is usable.
fn wait_until_intact(redirector: &Redirector) {
    let folder = redirector.state_dir().join("index");
    eventually("an intact index", || {
        let current = mb_index::read_current(&folder).map_err(|e| e.to_string())?.unwrap_or_default();
        for (kind, generation) in [(mb_index::Kind::Files, current.files), (mb_index::Kind::Mirrors, current.mirrors)] {
            let generation = generation.ok_or_else(|| format!("{current:?}"))?;
            mb_index::verify(&folder.join(mb_index::file_name(kind, generation))).map_err(|e| e.to_string())?;
        }
        Ok(())
    });
}

/// Damage that the indexer is not told of; it ran on without a look at what it had published.
const DAMAGES_WHILE_RUNNING: [Damage; 4] = [
    ("both generations", |redirector| {
        truncate_all(redirector, "files-", |length| length / 2);
        truncate_all(redirector, "mirrors-", |_| 0);
    }),
    ("CURRENT", |redirector| truncate_all(redirector, "CURRENT", |_| 0)),
    ("files", |redirector| {
        index_files(redirector, "files-").iter().for_each(|path| fs::remove_file(path).expect("removal"))
    }),
    ("folder", |redirector| fs::remove_dir_all(redirector.state_dir().join("index")).expect("removed index folder")),
];

/// The daemon goes on from memory; the indexer, which no one asks for anything, publishes again at once; the daemon adopts
/// that and what is published later.
fn damage_while_both_run(redirector: &mut Redirector, mirrors: &MirrorSites) {
    for (round, (what, damage)) in DAMAGES_WHILE_RUNNING.into_iter().enumerate() {
        damage(redirector);
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "after damage of {what}");
        let began = Instant::now();
        wait_until_intact(redirector);
        assert!(began.elapsed() < SOON, "publishing again after damage of {what} took {:?}", began.elapsed());
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "after damage of {what}");

        let name = format!("after-{round}.iso");
        tree::write(&redirector.repository(), &name, b"new", USUAL_TIME);
        tree::write(&mirrors.sites[0].root, &name, b"new", USUAL_TIME);
        redirector.scan_repository();
        redirector.mirrorbits(&["scan", "only"]);
        redirector.wait_until_served(&format!("/{name}"));
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "after damage of {what}");
        redirector.daemon().assert_running();
    }
}

#[test]
fn what_is_damaged_or_deleted_under_a_daemon_is_published_again_at_once() {
    let (mut redirector, mirrors) = served();
    damage_while_both_run(&mut redirector, &mirrors);
    redirector.stop();
}

/// As before, with an indexer that was started by itself, so that it neither starts nor ends with the daemon.
#[test]
fn what_is_damaged_or_deleted_under_a_separate_indexer_is_published_again_at_once() {
    let (mut redirector, mirrors) = served();
    redirector.stop();
    redirector.start_without_indexer();
    let mut indexer = redirector.start_indexer();
    damage_while_both_run(&mut redirector, &mirrors);

    // A daemon that is started on damaged files has them published again by the indexer that runs already.
    redirector.stop();
    truncate_all(&redirector, "files-", |length| length / 2);
    let began = Instant::now();
    redirector.start_without_indexer();
    redirector.wait_until_served("/file.iso");
    assert!(began.elapsed() < SOON, "the start took {:?}", began.elapsed());
    indexer.assert_running();
    redirector.stop();
}

/// In a folder made anew numbers begin at 1 again: the daemon took a new generation for the one of the same number that it had
/// in use.
#[test]
fn a_new_generation_is_adopted_though_it_has_the_number_of_the_one_in_use() {
    let (mut redirector, _mirrors) = served();
    redirector.stop();
    redirector.start_without_indexer();
    let index = redirector.state_dir().join("index");
    let table = mb_index::open_newest_mirrors(&index).index.expect("a mirror table").mirrors();
    let ids: Vec<_> = table.iter().map(|mirror| mirror.id).collect();
    for round in 0..3 {
        let name = format!("/round-{round}.iso");
        let mut builder = mb_index::FilesBuilder::new(&ids, true);
        let set = builder.intern_set(&[1]);
        for path in ["/file.iso", &name] {
            let modified = FileTime::from_seconds(USUAL_TIME.cast_signed());
            let (path, hashes, exceptions) = (path.as_bytes(), FileHashes::default(), &[][..]);
            builder
                .push_file(mb_index::FileRecord { path, size: 7, modified, hashes, set, exceptions })
                .expect("a file");
        }
        let model = builder.finish();
        let in_use = mb_index::read_current(&index).expect("CURRENT");
        let made_anew = redirector.state_dir().join("made anew");
        let publisher = mb_index::Publisher::new(&made_anew);
        while mb_index::read_current(&made_anew).expect("CURRENT").and_then(|new| new.files)
            < in_use.and_then(|old| old.files)
        {
            publisher.lock().expect("lock").publish(Some(&model), &table).expect("publication");
        }
        fs::rename(&index, redirector.state_dir().join(format!("before {round}"))).expect("moved index folder");
        fs::rename(&made_anew, &index).expect("index folder");
        redirector.wait_until_served(&name);
        assert_eq!(redirector.get("/file.iso", &[]).status, 302, "round {round}");
    }
    redirector.stop();
}
