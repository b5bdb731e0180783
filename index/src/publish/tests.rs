//! Publications that are killed, fail or meet each other.
//!
//! What has to die dies for real: the test program runs itself again with [`child`] as its only test, and that process
//! kills itself, or is killed, in the middle of a publication.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use mb_core::mirror::{MirrorId, MirrorSettings, MirrorState};
use mb_core::store::FileHashes;
use mb_core::time::FileTime;
use rustix::process::{Signal, getpid, kill_process};

use super::*;
use crate::files::builder::{FileRecord, FilesBuilder};
use crate::open::verify;

const POINTS: [Point; 16] = [
    Point::Created(Kind::Files),
    Point::PayloadWritten(Kind::Files),
    Point::HeaderWritten(Kind::Files),
    Point::Synced(Kind::Files),
    Point::Renamed(Kind::Files),
    Point::Created(Kind::Mirrors),
    Point::PayloadWritten(Kind::Mirrors),
    Point::HeaderWritten(Kind::Mirrors),
    Point::Synced(Kind::Mirrors),
    Point::Renamed(Kind::Mirrors),
    Point::FolderSynced,
    Point::CurrentWritten,
    Point::CurrentSynced,
    Point::CurrentRenamed,
    Point::CurrentFolderSynced,
    Point::Pruned,
];

fn files(count: u64) -> FilesModel {
    let mut builder = FilesBuilder::new(&[MirrorId(1)], false);
    let set = builder.intern_set(&[1]);
    for size in 0..count {
        let path = format!("/file-{size:08}").into_bytes();
        let (modified, hashes) = (FileTime(0), FileHashes::default());
        builder.push_file(FileRecord { path: &path, size, modified, hashes, set, exceptions: &[] }).unwrap();
    }
    builder.finish()
}

fn mirror(id: u32) -> Mirror {
    Mirror {
        id: MirrorId(id),
        settings: MirrorSettings { name: format!("mirror-{id}"), ..MirrorSettings::default() },
        state: MirrorState::default(),
    }
}

fn mirrors(count: u32) -> Vec<Mirror> {
    (1..=count).map(mirror).collect()
}

fn publish(dir: &Path, files: Option<&FilesModel>, mirrors: &[Mirror]) -> Result<Current, PublishError> {
    Publisher::new(dir).lock()?.publish(files, mirrors)
}

/// Number of files and mirrors that readers get; nothing may be refused on the way.
fn served(dir: &Path) -> (Option<usize>, Option<usize>) {
    let files = open_newest_files(dir);
    let mirrors = open_newest_mirrors(dir);
    assert!(files.refused.is_empty(), "{:?}", files.refused);
    assert!(mirrors.refused.is_empty(), "{:?}", mirrors.refused);
    (files.index.map(|index| index.len()), mirrors.index.map(|index| index.mirrors().len()))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs [`child`] in a process of its own, by way of `shell`, a script that ends in `exec "$@"`.
fn spawn_child(dir: &Path, task: &str, shell: &str) -> Child {
    Command::new("sh")
        .args(["-c", shell, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "publish::tests::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env("MB_INDEX_TEST_DIR", dir)
        .env("MB_INDEX_TEST_TASK", task)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run_child(dir: &Path, task: &str) -> Output {
    spawn_child(dir, task, "exec \"$@\"").wait_with_output().unwrap()
}

#[test]
#[ignore = "started by the other tests in a process of its own"]
fn child() {
    let dir = PathBuf::from(std::env::var_os("MB_INDEX_TEST_DIR").unwrap());
    let task = std::env::var("MB_INDEX_TEST_TASK").unwrap();
    match task.as_str() {
        "publish many mirror tables" => {
            for _ in 0..25 {
                let current = publish(&dir, None, &mirrors(3)).unwrap();
                println!("\npublished {}", current.mirrors.unwrap());
            }
        }
        "publish until killed" => loop {
            publish(&dir, Some(&files(2000)), &mirrors(3)).unwrap();
        },
        "publish a large index" => {
            println!("\nfailed: {}", publish(&dir, Some(&files(20_000)), &mirrors(3)).unwrap_err());
        }
        point => {
            let deadly = POINTS.into_iter().find(|candidate| format!("{candidate:?}") == point).unwrap();
            let mut lock = Publisher::new(&dir).lock().unwrap();
            let mut die = |reached| {
                if reached == deadly {
                    kill_process(getpid(), Signal::KILL).unwrap();
                }
                Ok(())
            };
            lock.publish_observed(Some(&files(2)), &mirrors(2), &mut die).unwrap();
            unreachable!("{point} was not reached");
        }
    }
}

#[test]
fn a_publisher_killed_at_any_point_leaves_the_old_or_the_new_generation() {
    for (number, point) in POINTS.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), Some(&files(1)), &mirrors(1)).unwrap();
        let output = run_child(dir.path(), &format!("{point:?}"));
        assert_eq!(output.status.signal(), Some(9), "{point:?}: {output:?}");

        let is_current = number >= POINTS.iter().position(|point| *point == Point::CurrentRenamed).unwrap();
        let expected = if is_current { (Some(2), Some(2)) } else { (Some(1), Some(1)) };
        assert_eq!(served(dir.path()), expected, "{point:?}");

        let current = publish(dir.path(), Some(&files(3)), &mirrors(3)).unwrap();
        assert_eq!(served(dir.path()), (Some(3), Some(3)), "{point:?}");
        assert_eq!(names(dir.path()).len(), 2 + 2 * 2, "{point:?}: {:?}", names(dir.path()));
        assert!(current.files > Some(1) && current.mirrors > Some(1));
    }
}

#[test]
fn a_publisher_killed_the_first_time_leaves_nothing_or_a_complete_generation() {
    for point in POINTS {
        let dir = tempfile::tempdir().unwrap();
        let output = run_child(dir.path(), &format!("{point:?}"));
        assert_eq!(output.status.signal(), Some(9), "{point:?}: {output:?}");
        let (files, mirrors) = served(dir.path());
        assert!(matches!(files, None | Some(2)) && matches!(mirrors, None | Some(2)), "{point:?}");
        publish(dir.path(), None, &self::mirrors(3)).unwrap();
        assert_eq!(served(dir.path()), (files, Some(3)), "{point:?}: complete files were lost");
    }
}

#[test]
fn a_publisher_killed_at_a_random_moment_leaves_a_usable_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = publish(dir.path(), Some(&files(2000)), &mirrors(3)).unwrap();
    for _ in 0..5 {
        let mut child = spawn_child(dir.path(), "publish until killed", "exec \"$@\"");
        while read_current(dir.path()).unwrap().unwrap() == last {
            assert_eq!(child.try_wait().unwrap(), None);
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(served(dir.path()), (Some(2000), Some(3)));
        last = publish(dir.path(), None, &mirrors(3)).unwrap();
        assert!(!names(dir.path()).iter().any(|name| name.ends_with(".tmp")));
    }
}

#[test]
fn a_full_disk_at_any_point_leaves_the_current_generation_and_no_rubbish() {
    for (number, point) in POINTS.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), Some(&files(1)), &mirrors(1)).unwrap();
        let before = names(dir.path());
        let mut full = |reached| if reached == point { Err(rustix::io::Errno::NOSPC.into()) } else { Ok(()) };
        let mut lock = Publisher::new(dir.path()).lock().unwrap();
        let error = lock.publish_observed(Some(&files(2)), &mirrors(2), &mut full).unwrap_err();
        assert!(matches!(error, PublishError::NoSpace { .. }), "{point:?}: {error}");
        if number < POINTS.iter().position(|point| *point == Point::CurrentRenamed).unwrap() {
            assert_eq!(served(dir.path()), (Some(1), Some(1)), "{point:?}");
            assert_eq!(names(dir.path()), before, "{point:?}");
        } else {
            assert_eq!(served(dir.path()), (Some(2), Some(2)), "{point:?}");
        }
    }
}

#[test]
fn a_write_that_the_system_refuses_names_the_file_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    publish(dir.path(), Some(&files(1)), &mirrors(1)).unwrap();
    let before = names(dir.path());
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    let output = spawn_child(dir.path(), "publish a large index", limited).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let failure = text.lines().find_map(|line| line.strip_prefix("failed: ")).expect(&text);
    assert!(failure.contains("no space to write"), "{failure}");
    assert!(failure.contains("files-2.tmp"), "{failure}");
    assert!(failure.contains("free some space"), "{failure}");
    assert_eq!(served(dir.path()), (Some(1), Some(1)));
    assert_eq!(names(dir.path()), before);
}

#[test]
fn publishers_in_two_processes_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let children = [(); 2].map(|()| spawn_child(dir.path(), "publish many mirror tables", "exec \"$@\""));
    let mut published: Vec<u64> = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        published
            .extend(text.lines().filter_map(|line| line.strip_prefix("published ")).map(|n| n.parse::<u64>().unwrap()));
    }
    published.sort_unstable();
    assert_eq!(published, (1..=50).collect::<Vec<_>>());
    assert_eq!(names(dir.path()), ["CURRENT", "LOCK", "mirrors-49", "mirrors-50"]);
}

#[test]
fn readers_never_meet_a_missing_or_unfinished_generation() {
    let dir = tempfile::tempdir().unwrap();
    publish(dir.path(), Some(&files(10)), &mirrors(3)).unwrap();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for _ in 0..100 {
                publish(dir.path(), Some(&files(10)), &mirrors(3)).unwrap();
            }
        });
        while !publisher.is_finished() {
            assert_eq!(served(dir.path()), (Some(10), Some(3)));
        }
    });
}

#[test]
fn a_publisher_that_does_not_get_its_turn_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let held = Publisher::new(dir.path()).lock().unwrap();
    let error = lock::acquire(dir.path(), Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, PublishError::Busy { .. }));
    assert!(error.to_string().contains(dir.path().join("LOCK").to_str().unwrap()), "{error}");
    drop(held);
    lock::acquire(dir.path(), Duration::ZERO).unwrap();
}

#[test]
fn two_generations_of_each_kind_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        publish(dir.path(), Some(&files(1)), &mirrors(1)).unwrap();
    }
    publish(dir.path(), None, &mirrors(1)).unwrap();
    assert_eq!(names(dir.path()), ["CURRENT", "LOCK", "files-2", "files-3", "mirrors-3", "mirrors-4"]);
    let current = Current { files: Some(3), mirrors: Some(4) };
    assert_eq!(read_current(dir.path()).unwrap(), Some(current));
    for (name, kind, generation) in [("files-3", Kind::Files, 3), ("mirrors-4", Kind::Mirrors, 4)] {
        let report = verify(&dir.path().join(name)).unwrap();
        assert_eq!((report.kind, report.generation, report.records), (kind, generation, 1));
    }
}

#[test]
fn a_lost_or_damaged_current_costs_nothing() {
    for damage in [None, Some(&b"mb-index 1\nfiles 1\nmirr"[..]), Some(b""), Some(b"\xff\xff")] {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), Some(&files(1)), &mirrors(1)).unwrap();
        publish(dir.path(), Some(&files(2)), &mirrors(2)).unwrap();
        let path = dir.path().join(CURRENT_NAME);
        match damage {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => fs::write(&path, bytes).unwrap(),
        }
        let opened = open_newest_files(dir.path());
        assert_eq!(opened.index.unwrap().len(), 2);
        assert_eq!(opened.refused.len(), usize::from(damage.is_some()), "{:?}", opened.refused);

        let current = publish(dir.path(), None, &mirrors(3)).unwrap();
        assert_eq!(current, Current { files: Some(2), mirrors: Some(3) });
        assert_eq!(served(dir.path()), (Some(2), Some(3)));
    }
}

#[test]
fn mirrors_that_no_reader_would_accept_are_not_published() {
    let dir = tempfile::tempdir().unwrap();
    publish(dir.path(), None, &mirrors(1)).unwrap();
    let mut nowhere = mirror(2);
    nowhere.settings.latitude = f32::NAN;
    for table in [vec![mirror(0)], vec![mirror(1), mirror(1)], vec![nowhere]] {
        let error = publish(dir.path(), None, &table).unwrap_err();
        assert!(matches!(error, PublishError::Mirror { .. }), "{error}");
    }
    assert_eq!(served(dir.path()), (None, Some(1)));
    publish(dir.path(), None, &[mirror(9), mirror(4)]).unwrap();
    let ids: Vec<u32> = open_newest_mirrors(dir.path()).index.unwrap().mirrors().iter().map(|m| m.id.0).collect();
    assert_eq!(ids, [4, 9]);
}
