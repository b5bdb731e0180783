//! Files of format version 1 stay readable. The fixtures were written once by this version; only a new format version
//! adds others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use mb_core::mirror::{AllowRedirects, Health, Mirror, MirrorId, MirrorSettings, MirrorState, ScanProtocol};
use mb_core::store::FileHashes;
use mb_core::time::{FileTime, Timestamp};
use mb_index::{Entry, Exception, FileIndex, FileRecord, FilesBuilder, MirrorIndex, Publisher};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-1").join(name)
}

fn mirrors() -> [Mirror; 2] {
    let settings = MirrorSettings {
        name: "paris".into(),
        http_url: "https://paris.mirror.example/debian/".into(),
        rsync_url: "rsync://paris.mirror.example/debian/".into(),
        score: -3,
        latitude: 48.86,
        longitude: 2.35,
        continent_code: "EU".into(),
        country_codes: "FR BE".into(),
        asn: 64500,
        country_only: true,
        allow_redirects: AllowRedirects::Allowed,
        ..MirrorSettings::default()
    };
    let state = MirrorState {
        enabled: true,
        http: Health { up: true, down_reason: String::new() },
        https: Health { up: false, down_reason: "Got status code 503".into() },
        since: Timestamp(1_700_000_000),
        timezone_offset_ms: 3_600_000,
        last_sync: Timestamp(1_700_000_100),
        last_successful_sync: Timestamp(1_700_000_050),
        last_successful_sync_protocol: ScanProtocol::Ftp,
        last_successful_sync_precision_ns: 1_000_000,
        last_mod_time: Timestamp(1_699_999_999),
        unreadable: None,
    };
    let plain = MirrorSettings { name: "tokyo".into(), ..MirrorSettings::default() };
    [
        Mirror { id: MirrorId(2), settings, state },
        Mirror { id: MirrorId(7), settings: plain, state: MirrorState::default() },
    ]
}

#[test]
#[ignore = "writes the fixtures of the current format version anew"]
fn write_fixtures() {
    let mut builder = FilesBuilder::new(&[MirrorId(2), MirrorId(7)], true);
    let both = builder.intern_set(&[0b11]);
    let first = builder.intern_set(&[0b01]);
    let hashes = FileHashes { sha1: Some([1; 20]), sha256: Some([2; 32]), md5: Some([3; 16]) };
    let modified = FileTime(1_600_000_000_123_456_789);
    let path = b"/dists/caf\xe9.iso";
    builder.push_file(FileRecord { path, size: 1 << 40, modified, hashes, set: both, exceptions: &[] }).unwrap();
    let exceptions = [Exception { mirror: 1, size: 5, modified: None }];
    let hashes = FileHashes { sha256: Some([4; 32]), ..FileHashes::default() };
    let path = b"/pool/a.deb";
    builder.push_file(FileRecord { path, size: 6, modified, hashes, set: first, exceptions: &exceptions }).unwrap();
    builder.push_directory(b"/empty").unwrap();
    builder.push_alias(b"/latest", b"/pool").unwrap();
    builder.push_forbidden(b"/secret").unwrap();

    let dir = tempfile::tempdir().unwrap();
    Publisher::new(dir.path()).lock().unwrap().publish(Some(&builder.finish()), &mirrors()).unwrap();
    for name in ["files-1", "mirrors-1"] {
        fs::create_dir_all(fixture("")).unwrap();
        fs::copy(dir.path().join(name), fixture(name)).unwrap();
    }
}

#[test]
fn files_of_version_1_are_readable() {
    let index = FileIndex::open(&fixture("files-1"), 1).unwrap();
    assert_eq!(index.mirror_ids().collect::<Vec<_>>(), [MirrorId(2), MirrorId(7)]);
    assert!(index.fix_timezone_offsets());
    assert_eq!((index.len(), index.set_count()), (2, 2));
    let Entry::File(iso) = index.lookup(b"/dists/caf\xe9.iso") else { panic!("the file is missing") };
    assert_eq!((iso.size(), iso.modified()), (1 << 40, FileTime(1_600_000_000_123_456_789)));
    assert_eq!((iso.sha1(), iso.sha256(), iso.md5()), (Some(&[1; 20]), Some(&[2; 32]), Some(&[3; 16])));
    assert_eq!(index.set(iso.set()).ordinals().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(iso.exceptions().len(), 0);
    let Entry::File(deb) = index.resolve(b"/latest/a.deb", &mut Vec::new()) else { panic!("the file is missing") };
    assert_eq!((deb.sha1(), deb.sha256(), deb.md5()), (None, Some(&[4; 32]), None));
    assert_eq!(index.set(deb.set()).ordinals().collect::<Vec<_>>(), [0]);
    assert_eq!(deb.exceptions().collect::<Vec<_>>(), [Exception { mirror: 1, size: 5, modified: None }]);
    let entries: Vec<(&[u8], String)> = index
        .entries()
        .map(|(path, entry)| (path, format!("{entry:?}").split('(').next().unwrap().to_owned()))
        .collect();
    let expected = [
        (&b"/"[..], "Directory"),
        (b"/dists", "Directory"),
        (b"/empty", "Directory"),
        (b"/latest", "Alias"),
        (b"/pool", "Directory"),
        (b"/secret", "Forbidden"),
    ];
    assert_eq!(entries, expected.map(|(path, kind)| (path, kind.to_owned())));
    assert!(matches!(index.lookup(b"/latest"), Entry::Alias(b"/pool")));
}

#[test]
fn mirrors_of_version_1_are_readable() {
    assert_eq!(MirrorIndex::open(&fixture("mirrors-1"), 1).unwrap().mirrors(), mirrors());
}
