//! `mb-indexer scan`, `build`, `verify`, `dump`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use mb_core::store::{LogEvent, Store};
use mb_index::Entry;

use crate::harness::{Site, write_file};

/// For each file, the names of the mirrors in its set, and of those with another version.
fn published(site: &Site) -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let index = site.index();
    let mirrors = site.store().mirrors().unwrap();
    let name = |ordinal| {
        let id = index.mirror_id(ordinal);
        mirrors.iter().find(|mirror| mirror.id == id).unwrap().settings.name.clone()
    };
    index
        .files()
        .map(|file| {
            let set = index.set(file.set()).ordinals().map(name).collect();
            let others = file.exceptions().map(|copy| name(copy.mirror)).collect();
            (String::from_utf8_lossy(file.path()).into_owned(), (set, others))
        })
        .collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn the_index_says_which_mirror_has_which_version() {
    let site = Site::new();
    for (path, content) in [("a.iso", "aaa"), ("sub/b c.iso", "bbb"), ("sub/d.iso", "ddd"), ("new\nline", "nnn")] {
        site.write(path, content, 1_700_000_000);
    }
    site.copy_to_mirror("complete");
    let lacking = site.copy_to_mirror("lacking");
    fs::remove_file(lacking.join("sub/d.iso")).unwrap();
    write_file(&site.copy_to_mirror("size").join("a.iso"), "longer", 1_700_000_000);
    write_file(&site.copy_to_mirror("time").join("sub/b c.iso"), "bbb", 1_700_000_001);
    write_file(&site.mirror_dir("complete").join("only-here"), "x", 1);
    site.write(".hidden", "x", 1);
    let (_rsync, port) = site.start_rsync();
    for name in ["complete", "lacking", "size", "time"] {
        site.add_mirror(name, &format!("rsync://127.0.0.1:{port}/{name}"), "");
    }

    assert_eq!(
        site.run_ok(&["scan", "-source"]),
        "Scanning the repository... 4 files, 4 hashed, 0 removed, 0 not readable\n"
    );
    let printed = site.run_ok(&["scan", "-all", "-enable"]);
    assert!(
        printed.contains("Scanning complete... 5 files indexed, 4 known and 0 removed\n  ∟ Enabled\n"),
        "{printed}"
    );
    assert!(printed.contains("Scanning lacking... 3 files indexed, 3 known and 0 removed"), "{printed}");

    let expected = BTreeMap::from([
        ("/a.iso".to_owned(), (names(&["complete", "lacking", "time"]), names(&["size"]))),
        ("/new\nline".to_owned(), (names(&["complete", "lacking", "size", "time"]), names(&[]))),
        ("/sub/b c.iso".to_owned(), (names(&["complete", "lacking", "size"]), names(&["time"]))),
        ("/sub/d.iso".to_owned(), (names(&["complete", "size", "time"]), names(&[]))),
    ]);
    assert_eq!(published(&site), expected);
    let index = site.index();
    let Entry::File(file) = index.lookup(b"/a.iso") else { panic!("no file") };
    let sha256: String = file.sha256().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sha256, "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0");
}

#[test]
fn a_scan_is_recorded_in_the_mirror_and_its_log() {
    let site = Site::new();
    site.write("a", "a", 1_700_000_000);
    site.copy_to_mirror("m");
    let (_rsync, port) = site.start_rsync();
    let id = site.add_mirror("some.mirror", &format!("rsync://127.0.0.1:{port}/m/"), "");
    site.run_ok(&["scan", "--source"]);
    assert!(site.run_ok(&["scan", "MIRROR"]).starts_with("Scanning some.mirror... 1 files indexed"));

    let mirror = site.mirror(id);
    assert!(!mirror.state.enabled);
    assert!(!mirror.state.last_successful_sync.is_never());
    assert_eq!(mirror.state.last_successful_sync_precision_ns, 1_000_000_000);
    let events = site.store().mirror_log(id, 10).unwrap().into_iter().map(|entry| entry.event);
    // Its server for downloads does not answer, which a check finds.
    let events: Vec<_> = events.filter(|event| !matches!(event, LogEvent::StateChanged { .. })).collect();
    assert!(
        matches!(
            events[..],
            [.., LogEvent::ScanStarted(_), LogEvent::ScanCompleted { files_indexed: 1, known_indexed: 1, .. }]
        ),
        "{events:?}"
    );

    fs::remove_file(site.mirror_dir("m").join("a")).unwrap();
    assert_eq!(
        site.run_ok(&["scan", "some.mirror"]),
        "Scanning some.mirror... 0 files indexed, 0 known and 1 removed\n"
    );
}

#[test]
fn links_inside_the_repository_become_aliases_and_others_are_forbidden() {
    let site = Site::new();
    site.write("real/file", "x", 1);
    site.write(".hidden/file", "x", 1);
    site.link("to-file", "real/file");
    site.link("to-dir", "real");
    site.link("to-link", "to-dir");
    site.link("through-link", "to-dir/file");
    site.link("outside", "/");
    site.link("dangling", "nowhere");
    site.link("loop", "loop");
    site.link("to-hidden", ".hidden/file");
    site.run_ok(&["scan", "-source"]);
    let index = site.index();
    let alias = |path: &[u8]| match index.lookup(path) {
        Entry::Alias(target) => String::from_utf8_lossy(target).into_owned(),
        other => panic!("{}: {other:?}", path.escape_ascii()),
    };
    assert_eq!(alias(b"/to-file"), "/real/file");
    assert_eq!(alias(b"/to-dir"), "/real");
    assert_eq!(alias(b"/to-link"), "/real");
    assert_eq!(alias(b"/through-link"), "/real/file");
    assert!(matches!(index.lookup(b"/outside"), Entry::Forbidden));
    for path in [&b"/dangling"[..], b"/loop", b"/to-hidden", b"/.hidden/file", b"/.hidden"] {
        assert!(matches!(index.lookup(path), Entry::Missing), "{}", path.escape_ascii());
    }
    assert!(matches!(index.lookup(b"/real"), Entry::Directory));
    assert!(matches!(index.resolve(b"/to-link/file", &mut Vec::new()), Entry::File(_)));
}

#[test]
fn a_password_is_used_and_never_shown() {
    let site = Site::new();
    site.write("a", "a", 1);
    site.copy_to_mirror("secret");
    let (_rsync, port) = site.start_rsync();
    let right = format!("rsync://anna:open-sesame@127.0.0.1:{port}/secret/");
    site.add_mirror("right", &right, "");
    site.add_mirror("wrong", &right.replace("open-sesame", "guess-work"), "");
    site.run_ok(&["scan", "-source"]);
    let output = site.program(&["scan", "right"]).env("RUST_LOG", "trace").output().unwrap();
    let (stdout, stderr) = crate::harness::texts(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(!format!("{stdout}{stderr}").contains("open-sesame"));
    let output = site.run(&["scan", "wrong"]);
    let (_, stderr) = crate::harness::texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("auth failed") && !stderr.contains("guess-work"), "{stderr}");
}

#[test]
fn a_constant_difference_of_times_is_corrected_when_asked_for() {
    let site = Site::with_configuration("FixTimezoneOffsets: true");
    for n in 0..20 {
        site.write(&format!("f{n}"), "x", 1_700_000_000 + n);
    }
    let mirror = site.copy_to_mirror("m");
    for n in 0..20 {
        write_file(&mirror.join(format!("f{n}")), "x", 1_700_000_000 + n - 3600);
    }
    let (_rsync, port) = site.start_rsync();
    let id = site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "");
    site.run_ok(&["scan", "-source"]);
    let printed = site.run_ok(&["scan", "m"]);
    assert!(printed.contains("∟ Timezone offset detected and corrected: 3600000 milliseconds"), "{printed}");
    assert_eq!(site.mirror(id).state.timezone_offset_ms, 3_600_000);
    assert!(published(&site).values().all(|(set, others)| set.contains("m") && others.is_empty()));
}

#[test]
fn only_what_changed_is_hashed_again() {
    let site = Site::with_configuration("Hashes:\n    SHA1: On\n    MD5: On\n");
    site.write("a", "a", 1);
    site.write("b", "b", 1);
    assert!(site.run_ok(&["scan", "-source"]).contains("2 files, 2 hashed, 0 removed"));
    assert!(site.run_ok(&["scan", "-source"]).contains("2 files, 0 hashed, 0 removed"));
    site.write("b", "B", 2);
    site.write("c", "c", 1);
    fs::remove_file(site.repository().join("a")).unwrap();
    assert!(site.run_ok(&["scan", "-source"]).contains("2 files, 2 hashed, 1 removed"));
    assert!(site.run_ok(&["scan", "-source", "-rehash"]).contains("2 files, 2 hashed, 0 removed"));
    let index = site.index();
    assert!(index.files().all(|file| file.sha1().is_some() && file.sha256().is_some() && file.md5().is_some()));
}

#[test]
fn index_files_are_verified_and_dumped() {
    let site = Site::new();
    site.write("tab\there", "x", 1_700_000_000);
    site.link("link", "tab\there");
    site.copy_to_mirror("m");
    let (_rsync, port) = site.start_rsync();
    let id = site.add_mirror("m", &format!("rsync://127.0.0.1:{port}/m/"), "http://m.example/");
    site.run_ok(&["scan", "-source"]);
    site.run_ok(&["build"]);
    site.run_ok(&["scan", "m"]);
    let file = |prefix: &str| {
        let mut files: Vec<_> = fs::read_dir(site.state_dir().join("index"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
            .collect();
        files.sort();
        files.pop().unwrap().to_str().unwrap().to_owned()
    };
    let files = file("files-");
    assert!(site.run_ok(&["verify", &files]).contains("sound"));
    let dump = site.run_ok(&["dump", &files]);
    assert!(dump.starts_with("file\t/tab\\there\t1\t1700000000.000000000\t2d711642"), "{dump}");
    assert!(dump.contains(&format!("\t-\t-\t{id}\t-\n")) && dump.contains("alias\t/link\t/tab\\there\n"), "{dump}");
    assert!(
        site.run_ok(&["dump", &file("mirrors-")]).starts_with(&format!("mirror\t{id}\tm\thttp://m.example/\tdisabled"))
    );
    fs::write(&files, "not an index").unwrap();
    assert_eq!(site.run(&["verify", &files]).status.code(), Some(1));
}
