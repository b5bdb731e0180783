//! The embedded store on a full disk.

use std::fs;
use std::process::Command;

use mb_core::store::{EmbeddedStore, MirrorEdit, Store};
use mb_core::time::Timestamp;

use crate::suite::settings;

/// A small file system in memory, unmounted when it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this user may not mount one.
    fn mount() -> Option<Disk> {
        let folder = tempfile::tempdir().expect("a folder");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(Disk(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// Was told as "disk I/O error", with the advice to look for a broken disk.
#[test]
fn a_full_disk_is_told_as_such_and_nothing_stored_is_lost() {
    let Some(disk) = Disk::mount() else {
        eprintln!("SKIPPED: this user may not mount a small file system");
        return;
    };
    let state_dir = disk.0.path().join("state");
    let store = EmbeddedStore::open(&state_dir).expect("opened");
    store.add_mirror(&settings("kept")).expect("added");
    let filler = disk.0.path().join("filler");
    let _ = fs::write(&filler, vec![0; 4 << 20]);
    let long = |name: &str| mb_core::mirror::MirrorSettings { comment: "x".repeat(300_000), ..settings(name) };
    let told = |outcome: mb_core::store::Result<()>| {
        let error = outcome.expect_err("the disk is full").to_string();
        assert!(error.contains("no space left on the disk of"), "{error}");
        assert!(error.contains("bytes free") && error.contains("mirrorbits.sqlite"), "{error}");
    };
    told(store.add_mirror(&long("one")).map(drop));
    let edit = MirrorEdit::Add { settings: long("two"), enabled: true };
    told(store.apply_mirrors(&[edit], Timestamp(1)).map(drop));
    // A store that is opened meanwhile needs its `-shm` file, which SQLite calls an I/O error when it cannot grow.
    drop(store);
    told(EmbeddedStore::open(&state_dir).and_then(|store| store.add_mirror(&long("three"))).map(drop));
    fs::remove_file(&filler).expect("removed");
    let store = EmbeddedStore::open(&state_dir).expect("opened");
    assert_eq!(store.mirrors().expect("read").len(), 1);
    store.add_mirror(&long("one")).expect("there is room again");
}
